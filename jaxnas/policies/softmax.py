"""The continuous relaxation of DARTS: gates = softmax(alpha), row by row.

Reference: Liu, Simonyan and Yang, DARTS, ICLR 2019, arXiv:1806.09055, eq. 2.
"""

import jax

from jaxnas.policies.policy import Policy
from jaxnas.spaces.space import Space, is_shape


def softmax(space: Space, scale: float = 1e-3) -> Policy:
    """One logit a gate, drawn from scale * N(0, 1); theta has the gates' structure, and one action is the gates.

    The architecture is derived from the softmax (`space.derive`), not from the raw logits: across edges they rank
    differently.
    """
    shapes, tree = jax.tree.flatten(space.gate_shapes, is_leaf=is_shape)

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return tree.unflatten([scale * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)])

    def relax(theta):
        return jax.tree.map(lambda a: jax.nn.softmax(a, -1), theta)

    def sample(key, theta, t):
        del key, t  # deterministic
        return jax.tree.map(lambda a: a[None], relax(theta))

    return Policy(init, sample, lambda action: action, None, lambda theta: space.derive(relax(theta)), False)
