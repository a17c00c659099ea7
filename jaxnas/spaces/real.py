"""Real-valued dimensions of a space, and the operators that move them, all in the unit cube.

Reference: Deb and Agrawal, Simulated Binary Crossover for Continuous Search Space, Complex Systems 9, 1995; the bounded
forms are those of Deb's NSGA-II code (Deb et al., IEEE TEC 6(2), 2002).

Axes: R real dimensions.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Real(NamedTuple):
    """Bounds of one real value, or (arrays) of several; `log` puts it on a logarithmic scale."""

    low: float
    high: float
    log: bool = False


def is_real(node: Any) -> bool:
    """Whether a node of a pytree of bounds is a `Real`, and so a leaf."""
    return isinstance(node, Real)


class Scale(NamedTuple):
    """Between a user's pytree of values, of the structure of the bounds, and its point in the unit cube."""

    size: int  # R
    low: np.ndarray  # float32[R]
    high: np.ndarray  # float32[R]
    to_unit: Callable[[Any], jax.Array]  # values -> float32[R]
    from_unit: Callable[[jax.Array], Any]  # float32[R] -> values
    split: Callable[[jax.Array | np.ndarray], Any]  # [R] -> the same numbers in the structure of the bounds
    select: Callable[[jax.Array, Any, Any], Any]  # (bool[R], values, values) -> values: each number one of the two, to the bit


def scale(reals: Any) -> Scale:
    """The scale of a pytree of `Real`s; None has size 0.

    Raises:
        ValueError: for bounds that are not finite, not increasing, of unequal shapes, or not positive on a log scale.
    """
    bounds, tree = jax.tree.flatten(reals, is_leaf=is_real)
    for bound in bounds:
        if not is_real(bound):
            raise ValueError(f"real dimensions are given as Real(low, high, log=False); got {bound!r}")
        low, high = np.asarray(bound.low), np.asarray(bound.high)
        if low.shape != high.shape or not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
            raise ValueError(f"bounds must be finite, of one shape, and low < high; got {bound}")
        if bound.log and not (low > 0).all():
            raise ValueError(f"a logarithmic scale needs positive bounds; got {bound}")
    shapes = [np.shape(b.low) for b in bounds]
    sizes = [math.prod(shape) for shape in shapes]
    cut = np.cumsum(sizes)[:-1]
    flat = lambda arrays: np.concatenate([np.zeros(0), *[np.ravel(a) for a in arrays]])
    low, high = flat(b.low for b in bounds), flat(b.high for b in bounds)  # [R]
    log = np.repeat([b.log for b in bounds], sizes).astype(bool)
    warp = lambda x, xp: xp.where(log, xp.log(xp.where(log, x, 1.0)), x)
    start, span = (v.astype(np.float32) for v in (warp(low, np), warp(high, np) - warp(low, np)))
    low, high = low.astype(np.float32), high.astype(np.float32)

    def split(v):
        parts = jnp.split(jnp.asarray(v), cut) if bounds else []
        return tree.unflatten([p.reshape(shape) for p, shape in zip(parts, shapes, strict=True)])

    def join(values):
        return jnp.concatenate([jnp.zeros(0), *[jnp.ravel(jnp.asarray(v, jnp.float32)) for v in tree.flatten_up_to(values)]])

    def to_unit(values):
        return jnp.clip((warp(join(values), jnp) - start) / span, 0, 1)

    def from_unit(u):
        v = start + span * u
        return split(jnp.clip(jnp.where(log, jnp.exp(jnp.where(log, v, 0.0)), v), low, high))

    def select(first, a, b):
        return split(jnp.where(first, join(a), join(b)))

    return Scale(sum(sizes), low, high, to_unit, from_unit, split, select)


def sbx(
    key: jax.Array, a: jax.Array, b: jax.Array, eta: jax.Array | float = 20.0, odds: jax.Array | float = 0.5
) -> tuple[jax.Array, jax.Array]:
    """Simulated binary crossover of a, b [R] in the unit cube, bounded -> two children [R].

    beta = (alpha u)^(1 / (eta + 1)) if u <= 1 / alpha, else (1 / (2 - alpha u))^(1 / (eta + 1));
    alpha = 2 - (1 + 2 d / (high - low))^-(eta + 1), d the distance of the pair from the nearer bound.

    Args:
        eta: distribution index: the larger, the nearer the children stay.
        odds: of crossing a dimension.
    """
    k_u, k_cross, k_swap = jax.random.split(key, 3)
    u = jax.random.uniform(k_u, a.shape)
    low, high = jnp.minimum(a, b), jnp.maximum(a, b)
    gap = jnp.maximum(high - low, 1e-14)
    half = 0.5 * (low + high)

    def reach(room):
        alpha = 2 - (1 + 2 * room / gap) ** -(eta + 1)
        inside = u <= 1 / alpha
        return jnp.where(inside, alpha * u, 1 / jnp.where(inside, 1.0, 2 - alpha * u)) ** (1 / (eta + 1))

    first = jnp.clip(half - 0.5 * reach(low) * gap, 0, 1)
    second = jnp.clip(half + 0.5 * reach(1 - high) * gap, 0, 1)
    swap = jax.random.bernoulli(k_swap, 0.5, a.shape)
    first, second = jnp.where(swap, second, first), jnp.where(swap, first, second)
    cross = jax.random.bernoulli(k_cross, odds, a.shape) & (high - low > 1e-14)
    return jnp.where(cross, first, a), jnp.where(cross, second, b)


def polynomial_mutation(key: jax.Array, x: jax.Array, eta: jax.Array | float = 20.0, odds: jax.Array | float = 1.0) -> jax.Array:
    """Polynomial mutation of x [R] in the unit cube, bounded; each dimension moves with `odds`.

    delta = (2 u + (1 - 2 u) (1 - x)^(eta + 1))^(1 / (eta + 1)) - 1 for u < 1/2, and its mirror image above.
    """
    k_u, k_on = jax.random.split(key)
    u = jax.random.uniform(k_u, x.shape)
    power = lambda log, share: jnp.expm1(jnp.log1p(share * jnp.expm1((eta + 1) * log)) / (eta + 1))  # exact near a bound
    down, up = power(jnp.log1p(-x), 1 - 2 * u), -power(jnp.log(x), 2 * u - 1)
    moved = jnp.clip(x + jnp.where(u < 0.5, down, up), 0, 1)
    return jnp.where(jax.random.bernoulli(k_on, odds, x.shape), moved, x)
