"""What algorithms need that keep what they were told: fixed-size rings of architectures, compared by their codes.

Axes: N capacity, C candidates, B asked for at once, D decisions, R reals.
"""

import jax
import jax.numpy as jnp

from jaxnas.base import Arch, Key
from jaxnas.spaces._space import Space
from jaxnas.trees import count


def check_capacity(capacity: int, initial: int, batch: int) -> None:
    """ValueError for sizes that make no history."""
    if not 1 <= initial <= capacity:
        raise ValueError(f"draw at least 1 random architecture first and at most the capacity ({capacity}); got initial={initial}")
    if not 1 <= batch <= capacity:
        raise ValueError(f"ask for at least 1 candidate and at most the capacity ({capacity}) a step; got batch={batch}")


def no_archs(space: Space, n: int) -> Arch:
    """n architectures of zeros."""
    one = jax.eval_shape(space.sample, jax.random.key(0))
    return jax.tree.map(lambda a: jnp.zeros((n, *a.shape), a.dtype), one)


def code(space: Space, arch: Arch) -> jax.Array:
    """float32[D + R]: equal for equal architectures."""
    return jnp.concatenate([space.flat(arch).astype(jnp.float32), space.unit(arch)])


def seen(codes: jax.Array, told: jax.Array, mask: jax.Array) -> jax.Array:
    """bool[C]: which codes [C, D + R] are among those told [N, D + R]."""
    return jnp.any(jax.vmap(lambda a: jnp.all(codes == a[None], -1))(told) & mask[:, None], 0)


def leaders(value: jax.Array, k: int) -> jax.Array:
    """Where the k largest of value [N] are, best first; int32[k]."""

    def take(left, _):
        i = jnp.argmax(left)
        return left.at[i].set(-jnp.inf), i

    return jax.lax.scan(take, value, None, length=k)[1]


def distinct(value: jax.Array, codes: jax.Array, k: int) -> jax.Array:
    """As `leaders`, but of equal codes [N, D + R] only the first is taken."""

    def take(left, _):
        i = jnp.argmax(left)
        return jnp.where(jnp.all(codes == codes[i][None], -1), -jnp.inf, left), i

    return jax.lax.scan(take, value, None, length=k)[1]


def random_first(key: Key, space: Space, n: jax.Array | int, archs: Arch) -> Arch:
    """archs [B, ...] after n random ones, cut to B; n [] may be negative."""
    B = count(archs)
    b = jnp.arange(B) - jnp.maximum(n, 0)
    random = jax.vmap(space.sample)(jax.random.split(key, B))
    rows = lambda keep, a: keep.reshape(-1, *[1] * (a.ndim - 1))
    return jax.tree.map(lambda r, a: jnp.where(rows(b < 0, a), r, a[jnp.maximum(b, 0)]), random, archs)
