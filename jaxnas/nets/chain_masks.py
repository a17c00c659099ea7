"""What a chain of layers has of the largest network: the masks of one program for any chain.

A map fills the top left corner of an array of the image's size; a chain has at most two dense layers, wherever they stand.

Axes: L the limit of layers, A actions, F filters, C channels of a map, N its side, k kernel size, D units, V entries of a
vector.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.spaces._space import Space


class Layout(NamedTuple):
    """The largest sizes, and what each action asks of them."""

    layers: int  # L
    image: int  # channels of the image
    C: int
    N: int
    dense_side: int  # of the largest map that a dense layer reads
    V: int
    pools: list[tuple[int, int, int]]  # (action, kernel, stride)
    filters: np.ndarray  # float32[A, F]
    centre: np.ndarray  # float32[A, k]
    units: np.ndarray  # float32[A, D]
    average: np.ndarray  # float32[A]


class Masks(NamedTuple):
    """What a chain has, as 0 and 1."""

    kernel: jax.Array  # [L, k, k]
    filters: jax.Array  # [L, F]
    reads: jax.Array  # [L, C]: the channels in front of each layer
    sides: jax.Array  # [L, N]: the rows, and columns, of the map behind each layer
    channels: jax.Array  # [C]: of the last map
    units: jax.Array  # [2, D]: of the first dense layer and of the second
    head: jax.Array  # [4]: the classifier reads the map, its mean, the first dense layer, or the second
    rate: jax.Array  # [L]: of the dropout behind each stage
    head_rate: jax.Array  # [3]: behind the mean and the dense layers


def layout_of(space: Space, image: tuple[int, int, int]) -> Layout:
    mdp = space.spec
    number = lambda kind, i: np.asarray([a[i] if a[0] == kind else 0 for a in mdp.meaning])[:, None]  # [A, 1]
    first = lambda sizes: (np.arange(max(sizes.max(), 1)) < sizes).astype(np.float32)
    filters, kernels, units = number("conv", 1), number("conv", 2), number("dense", 1)
    k, dense = max(kernels.max(), 1), mdp.legal[:, units[:, 0] > 0].any(1)
    C = int(filters.max(initial=image[2]))
    return Layout(
        layers=len(space.arity) - 1,
        image=image[2],
        C=C,
        N=image[0],
        dense_side=int(mdp.size[dense].max(initial=1)),
        V=int(units.max(initial=C)),
        pools=[(i, *a[1:]) for i, a in enumerate(mdp.meaning) if a[0] == "pool" and mdp.legal[:, i].any()],
        filters=first(filters),
        centre=(abs(2 * np.arange(k) + 1 - k) < kernels).astype(np.float32),
        units=first(units),
        average=np.asarray([a[0] == "average" for a in mdp.meaning], np.float32),
    )


def to_size(a: jax.Array, size: int, axis: int = 0) -> jax.Array:
    """Zeros behind the end of an axis."""
    pad = [(0, 0)] * a.ndim
    pad[axis] = (0, size - a.shape[axis])
    return jnp.pad(a, pad)


def kinds_of(layout: Layout, gates: jax.Array) -> jax.Array:
    """[L, 2 + pools]: whether each stage keeps its map, convolves it, or which pool it applies."""
    moves = jnp.stack([gates @ layout.filters[:, 0], *[gates[:, i] for i, *_ in layout.pools]], 1)
    return jnp.concatenate([1 - jnp.sum(moves, 1, keepdims=True), moves], 1)


def masks_of(layout: Layout, gates: jax.Array) -> Masks:
    """Of one-hot gates [L, A]."""
    kinds, filters, centre = kinds_of(layout, gates), gates @ layout.filters, gates @ layout.centre
    full = jnp.ones_like(gates[0, 0])

    def behind(carry, stage):
        channels, side = carry
        kind, filters = stage
        pooled = [to_size(side[k - 1 :: s], layout.N) for _, k, s in layout.pools]  # a window lies inside if its last row does
        new = (1 - kind[1]) * channels + to_size(filters, layout.C)
        side = (kind[0] + kind[1]) * side + sum(g * rows for g, rows in zip(kind[2:], pooled, strict=True))
        return (new, side), (channels, side)

    start = to_size(jnp.broadcast_to(full, layout.image), layout.C), jnp.broadcast_to(full, layout.N)
    (channels, _), (reads, sides) = lax.scan(behind, start, (kinds, filters))
    dense, average = gates @ layout.units[:, 0], gates @ layout.average  # [L]
    nth = jnp.stack([dense * (jnp.cumsum(dense) == n) for n in (1, 2)])  # [2, L]
    is_head = jnp.stack([average, *nth])
    one, two = jnp.sum(nth, 1)
    depth = jnp.sum(jnp.sum(kinds[:, 1:], 1) + average + dense)
    at = np.arange(layout.layers)
    rate = jnp.where((at % 2 == 1) & (at < depth), (at + 1) / (4 * jnp.maximum(depth // 2, 1)), 0)
    return Masks(
        kernel=centre[:, :, None] * centre[:, None],
        filters=filters,
        reads=reads,
        sides=sides,
        channels=channels,
        units=nth @ gates @ layout.units,
        head=jnp.stack([1 - one - jnp.sum(average), jnp.sum(average), one - two, two]),
        rate=rate * (1 - jnp.sum(is_head, 0)),
        head_rate=is_head @ rate,
    )


def all_masks(layout: Layout) -> Masks:
    """Everything at once: no chain, but what weights start as when none is given."""
    L, first = layout.layers, lambda n, size: (jnp.arange(size) < n).astype(jnp.float32)
    F, k, D = layout.filters.shape[1], layout.centre.shape[1], layout.units.shape[1]
    return Masks(
        kernel=jnp.ones((L, k, k)),
        filters=jnp.ones((L, F)),
        reads=jnp.stack([first(F if t else layout.image, layout.C) for t in range(L)]),
        sides=jnp.ones((L, layout.N)),
        channels=jnp.ones(layout.C),
        units=jnp.ones((2, D)),
        head=jnp.ones(4),
        rate=jnp.zeros(L),
        head_rate=jnp.zeros(3),
    )
