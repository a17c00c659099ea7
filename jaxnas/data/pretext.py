"""Pretext tasks: what a search trains on instead of labels.

References: Liu et al., Are Labels Necessary for Neural Architecture Search?, ECCV 2020, arXiv:2003.12056; rotation: Gidaris et
al., ICLR 2018, arXiv:1803.07728; colourisation: Zhang et al., Colorful Image Colorization, ECCV 2016, arXiv:1603.08511; jigsaw:
Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV 2016, arXiv:1603.09246.

    rotation         the image turned by 0, 90, 180 and 270 degrees                            -> which of the 4
    jigsaw           a tile from each of g x g patches, normalised by itself, in another order -> which of P orders
    colourisation    L of CIE Lab                                                              -> of each pixel, which bin of (a, b)

A task makes (inputs, targets) of a batch of images, so a search does not know of it: `pretext_feed` is the feed,
`jaxnas.nets.pretext_net` the net, and the strategy, its loss and its accuracy are those for labels.  No label is looked at.
Augmentations belong to the feed beneath: a crop or a flip comes before the task.

Defaults are the paper's for CIFAR-10 (g = 2, all 24 orders, tiles of 0.76 of a patch, grey at odds 0.3).  The bins here are those
squares of side 10 around multiples of 10 that hold an sRGB colour, 261 of them; Zhang et al. publish a wider table of 313.

Axes: B images, T = g x g tiles, P orders, H rows, W columns, C channels, K bins.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Batch, Feed, Key, Stream
from jaxnas.data.augment import GREY, below


class Pretext(NamedTuple):
    make: Callable[[Key, jax.Array], tuple[jax.Array, jax.Array]]  # (key, x [B, H, W, C]) -> (inputs, int32 targets), pure
    inputs: tuple[int, ...]  # the shape of one input: (H, W, C), or (T, h, w, C) of tiles
    targets: tuple[int, ...]  # of one target: (), or (H, W) of a target for every pixel
    classes: int


def pretext_batch(key: Key, batch: Batch, task: Pretext) -> Batch:
    """The batch with the task's inputs and targets in place of images and labels, in `train`, `valid` and `look`."""

    def part(key, pair):
        if pair is None:
            return None
        x = pair[0]
        lead = x.shape[:-4]  # [W], [A] or [A, K]
        made = jax.vmap(task.make)(jax.random.split(key, int(np.prod(lead))), x.reshape(-1, *x.shape[-4:]))
        return jax.tree.map(lambda a: a.reshape(*lead, *a.shape[1:]), made)

    keys = jax.random.split(key, 3)
    return batch._replace(train=part(keys[0], batch.train), valid=part(keys[1], batch.valid), look=part(keys[2], batch.look))


def pretext_feed(feed: Feed | Stream, task: Pretext) -> Feed | Stream:
    """The feed of a task: the images of another feed, each draw with a key of its own; its labels may be anything."""

    def draw(key, arrays, t):
        k_draw, k_task = jax.random.split(key)
        return pretext_batch(k_task, feed.draw(k_draw, arrays, t), task)

    return feed._replace(draw=draw)


def rotation(image: tuple[int, int, int]) -> Pretext:
    """Which way up?  Four inputs an image, so a fourth of the images makes as large a batch.

    Args:
        image: (H, W, C), such as `dataset.image`.

    Raises:
        ValueError: for an image that is not square.
    """
    H, W, _ = image
    if H != W:
        raise ValueError(f"an image that is turned must be square, not {H} x {W}: crop it first")

    def make(key, x):
        del key  # deterministic
        turned = jnp.stack([jnp.rot90(x, k, axes=(1, 2)) for k in range(4)], 1)  # [B, 4, H, W, C]
        return turned.reshape(-1, *image), jnp.tile(jnp.arange(4), len(x))

    return Pretext(make, tuple(image), (), 4)


def orders(n: int, tiles: int) -> np.ndarray:
    """int32[n, tiles]: n different permutations, each as far as can be, by Hamming distance, from the nearest before it.

    Raises:
        ValueError: for fewer than two or more than there are.
    """
    every = np.asarray(list(itertools.permutations(range(tiles))), np.int8).T.copy()  # [T, N]
    if not 2 <= n <= every.shape[1]:
        raise ValueError(f"{tiles} tiles have {every.shape[1]} orders: choose 2 to {every.shape[1]}, not {n}")
    chosen, nearest = [0], np.full(every.shape[1], tiles, np.int8)
    while len(chosen) < n:
        nearest = np.minimum(nearest, sum((row != row[chosen[-1]]).astype(np.int8) for row in every))
        chosen.append(int(nearest.argmax()))
    return every.T[chosen].astype(np.int32)


def jigsaw(
    image: tuple[int, int, int], *, grid: int = 2, table: np.ndarray | None = None, tile: float = 0.76, grey: float = 0.3
) -> Pretext:
    """In which order are the tiles?  Tile k of the input is that of patch `table[target][k]`, patches row by row.

    Each tile lies at a uniform place of its patch, so that tiles seldom touch, and each of its channels is normalised by its own
    mean and standard deviation: neither edges nor brightness tell who the neighbours are.

    Args:
        image: (H, W, C), such as `dataset.image`.
        grid: g.
        table: int[P, T], the orders; default: all 24 of a 2 x 2 grid.  `orders(1000, 9)` is for 3 x 3, which has 362,880.
        tile: the side of a tile, of a patch's.
        grey: the odds of an image without colour.

    Raises:
        ValueError: for a grid below 2, a larger one without a table, a table that is not of permutations, tiles without a
            pixel or odds outside [0, 1].
    """
    H, W, C = image
    if grid < 2 or (table is None and grid > 2):
        raise ValueError(f"a grid of {grid}: give 2, or 3 with table=orders(1000, 9)")
    table = orders(24, 4) if table is None else np.asarray(table)
    T, patch = grid**2, np.asarray([H // grid, W // grid])
    if table.ndim != 2 or table.shape[1] != T or (np.sort(table, 1) != np.arange(T)).any():
        raise ValueError(f"the table needs permutations of {T} tiles, int[P, {T}]; got shape {table.shape}")
    size = (tile * patch).astype(int)
    if not 0 < tile <= 1 or size.min() < 1:
        raise ValueError(f"tiles of {size[0]} x {size[1]} pixels in patches of {patch[0]} x {patch[1]}: enlarge images or tiles")
    if not 0 <= grey <= 1:
        raise ValueError(f"`grey` is a probability: got {grey}")
    corners = np.asarray(list(itertools.product(range(grid), repeat=2))) * patch  # [T, 2]
    weights = np.asarray(GREY if C == 3 else [1 / C] * C, np.float32)

    def one(key, x):
        k_grey, k_place, k_order = jax.random.split(key, 3)
        x = jnp.where(jax.random.bernoulli(k_grey, grey), jnp.broadcast_to((x @ weights)[..., None], x.shape), x)
        places = jnp.asarray(corners, jnp.int32) + below(k_place, np.broadcast_to(patch - size + 1, (T, 2)))
        cut = lambda at: jax.lax.dynamic_slice(x, (at[0], at[1], jnp.zeros_like(at[0])), (*size, C))
        tiles = jax.vmap(cut)(places)  # [T, h, w, C]
        tiles = tiles - jnp.mean(tiles, (1, 2), keepdims=True)
        tiles = tiles / jnp.maximum(jnp.std(tiles, (1, 2), keepdims=True), 1e-3)
        target = below(k_order, len(table))
        return tiles[jnp.asarray(table, jnp.int32)[target]], target

    make = lambda key, x: jax.vmap(one)(jax.random.split(key, len(x)), x)
    return Pretext(make, (T, *map(int, size), C), (), len(table))


XYZ = np.asarray([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], np.float32)
WHITE = np.asarray([0.95047, 1.0, 1.08883], np.float32)  # D65


def lab(rgb: jax.Array) -> jax.Array:
    """sRGB [..., 3] in [0, 1] -> CIE Lab: L in [0, 100], a and b of about -110 to 100."""
    linear = jnp.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    t = jnp.einsum("...c,xc->...x", linear, XYZ / WHITE[:, None], precision="highest")
    f = jnp.where(t > 0.008856, jnp.cbrt(t), 7.787 * t + 16 / 116)
    return jnp.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


# a / 10 = -9 ... 10: the lowest and the highest b / 10 of the bins
LOW = np.asarray([8, 4, 2, 0, -2, -3, -4, -4, -5, -6, -7, -7, -8, -9, -9, -10, -11, -11, -9, -7], np.int32)
HIGH = np.asarray([8, 8, 9, 9, 9, 9, 9, 9, 9, 9, 8, 8, 8, 8, 7, 7, 7, 7, 0, -5], np.int32)
BINS = np.asarray([(10 * (i - 9), 10 * b) for i in range(20) for b in range(LOW[i], HIGH[i] + 1)], np.float32)  # [K, 2]: (a, b)


def bin_of(ab: jax.Array) -> jax.Array:
    """The bin int32[...] of colours (a, b) [..., 2]: the nearest, for a colour of sRGB."""
    first = np.cumsum(HIGH - LOW + 1) - (HIGH + 1)  # the row's bins before it, less its LOW
    a, b = jnp.moveaxis(jnp.round(ab / 10).astype(jnp.int32), -1, 0)
    row = jnp.clip(a + 9, 0, 19)
    return jnp.asarray(first, jnp.int32)[row] + jnp.clip(b, jnp.asarray(LOW)[row], jnp.asarray(HIGH)[row])


def colourisation(
    image: tuple[int, int, int], mean: ArrayLike, std: ArrayLike, *, lightness: tuple[float, float] = (0.5, 0.25)
) -> Pretext:
    """Which colour has each pixel?  The input is (L / 100 - m) / s, one channel.

    Args:
        image: (H, W, 3), such as `dataset.image`.
        mean, std: float[3], of red, green and blue in [0, 1]: what the images were shifted and scaled by; 0 and 1 if not at all.
        lightness: (m, s); default: those of CIFAR-10, rounded.

    Raises:
        ValueError: for an image without three channels, or other shapes of mean and std.
    """
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    m, s = lightness
    if image[2:] != (3,) or mean.shape != (3,) or std.shape != (3,):
        raise ValueError(f"colours are red, green and blue: got images of {image}, mean {mean.shape} and std {std.shape}")

    def make(key, x):
        del key  # deterministic
        colours = lab(jnp.clip(x * std[None, None, None] + mean[None, None, None], 0, 1))
        return (colours[..., :1] / 100 - m) / s, bin_of(colours[..., 1:])

    return Pretext(make, (*image[:2], 1), tuple(image[:2]), len(BINS))
