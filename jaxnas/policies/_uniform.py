"""Policies that learn nothing: how one-shot methods draw the paths that they train.

References: Guo et al., Single Path One-Shot Neural Architecture Search, ECCV 2020, arXiv:1904.00420, section 3.2 (uniform);
Chu, Zhang and Xu, FairNAS, ICCV 2021, arXiv:1907.01845, section 3.2 (strict fairness); Yu et al., BigNAS, ECCV 2020,
arXiv:2003.11142, section 3.1 (the sandwich rule).

    uniform          M paths, each decision uniform over the values that are allowed
    strictly fair    m paths for m values a decision: path k holds the k-th of a permutation of them, drawn for each decision,
                     so that every value is trained exactly once a step
    sandwich         the largest, the smallest, and M - 2 uniform ones

theta is one row a decision, 0 for an allowed value and `CLOSED` for another, and stays so: a phase that shrinks or splits a
space hands over another theta.

Axes: D decisions, A the largest arity, M paths.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Arch
from jaxnas.checks import Flags, checked, require, require_archs
from jaxnas.kinds import Positive
from jaxnas.policies._categorical import categorical, options
from jaxnas.policies.policy import CLOSED, Policy
from jaxnas.spaces._space import Space


@checked
def restricted(space: Space, allowed: ArrayLike) -> jax.Array:
    """theta [D, A] of `uniform` for the values in `allowed`, bool[D, A].

    Raises:
        ValueError: for another shape, or a decision that is left without a value.
    """
    legal = options(space)
    allowed = np.asarray(allowed)
    if allowed.shape != legal.shape:
        raise ValueError(f"`allowed` says of each decision which values it may take, bool{legal.shape}; got shape {allowed.shape}")
    require(Flags, allowed=allowed)
    allowed = allowed.astype(bool)
    if not (allowed & legal).any(1).all():
        d = int(np.argmin((allowed & legal).any(1)))
        raise ValueError(f"`allowed` leaves decision {d} without a value: allow at least one")
    return jnp.where(allowed, 0.0, CLOSED).astype(jnp.float32)


@checked
def uniform(space: Space, paths: Positive = 1, allowed: ArrayLike | None = None) -> Policy:
    """Every decision uniform, and independent; `derive` is the first architecture that is allowed.

    Args:
        space: its decisions, conditional or not.
        paths: M.
        allowed: bool[D, A], the values that may be drawn; default: all.

    Raises:
        ValueError: as `categorical` and `restricted`.
    """
    theta = restricted(space, options(space) if allowed is None else allowed)
    return categorical(space, paths=paths)._replace(init=lambda key: theta)


@checked
def strictly_fair(space: Space) -> Policy:
    """As many paths as each decision has values; together they hold each value of each decision once.

    Raises:
        ValueError: for decisions of different arities, or conditional ones: not every path would hold a value.
    """
    legal = options(space)
    D, M = legal.shape
    if not legal.all():
        arities = sorted(set(space.arity.tolist()))
        raise ValueError(f"strict fairness needs decisions of one arity, as nasbench201 or fairnas has; this space has {arities}")
    if space.size < M**D:
        raise ValueError("strict fairness needs decisions that are always active: this space has conditional ones")

    def sample(key, theta, t):
        del theta, t
        order = jnp.argsort(jax.random.uniform(key, (D, M)))  # a permutation a decision
        return jax.vmap(space.unflat)(order.T.astype(jnp.int32))

    return uniform(space)._replace(sample=sample)


@checked
def sandwich(space: Space, largest: Arch, smallest: Arch, paths: Positive = 4) -> Policy:
    """The largest architecture first, the smallest, then uniform ones.

    Args:
        space: its decisions, conditional or not.
        largest, smallest: architectures of it.
        paths: M, default 4 (BigNAS).

    Raises:
        ValueError: for fewer than 3 paths.
    """
    if paths < 3:
        raise ValueError(f"the sandwich rule takes the largest, the smallest and at least one between: paths={paths} is too few")
    require_archs(space, largest=largest, smallest=smallest)
    between = uniform(space, paths - 2)

    def sample(key, theta, t):
        def stack(a, b, rest):
            return jnp.concatenate([jnp.asarray(a, rest.dtype)[None], jnp.asarray(b, rest.dtype)[None], rest])

        return jax.tree.map(stack, largest, smallest, between.sample(key, theta, t))

    return between._replace(sample=sample, derive=lambda theta: largest)
