"""Uniform sampling of single paths: what a weight-sharing search draws before it has an opinion.

Reference: Guo et al., Single Path One-Shot Neural Architecture Search, ECCV 2020, arXiv:1904.00420, sec. 3.2.
"""

import jax
import jax.numpy as jnp

from jaxnas.policies.policy import Policy
from jaxnas.spaces.space import Space


def uniform(space: Space) -> Policy:
    """Every decision uniform; there is nothing to learn, so `derive` is the all-zero architecture."""

    def sample(key, theta, t):
        del theta, t
        return jax.tree.map(lambda a: a[None], space.sample(key))

    def derive(theta):
        del theta
        return space.unflat(jnp.zeros(len(space.arity), jnp.int32))

    return Policy(lambda key: (), sample, space.gates, None, derive, True)
