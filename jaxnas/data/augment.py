"""Augmentations: pure functions (key, image[H, W, C]) -> image of ONE normalised image, to be vmapped, each with its key.

    augment = chain(crop(4), flip(), cutout(16))      # DARTS's, for 32x32 images

Filling is with zero, the mean of each channel after the normalisation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Key

Augment = Callable[[Key, jax.Array], jax.Array]


def below(key: Key, n: ArrayLike) -> jax.Array:
    """Uniform int32 in [0, n), of the shape of `n` (at least 1): uniform to n / 2**32.

    `jax.random.randint` is exact, but takes three random draws, which dominate the time to compile a batch.
    """
    limit = np.asarray(n, np.uint32)
    return (jax.random.bits(key, limit.shape) % limit).astype(jnp.int32)


def identity(key: Key, image: jax.Array) -> jax.Array:
    """Leaves the image as it is."""
    del key  # deterministic
    return image


def crop(pad: int = 4) -> Augment:
    """Shifts by up to `pad` pixels each way: a crop at a uniform place of the image padded with zeros.

    Raises:
        ValueError: for a negative pad.
    """
    if pad < 0:
        raise ValueError(f"crop pads by 0 pixels or more, not {pad}")

    def augment(key, image):
        y, x = below(key, [2 * pad + 1, 2 * pad + 1])
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        return jax.lax.dynamic_slice(padded, (y, x, jnp.zeros_like(y)), image.shape)

    return augment


def flip() -> Augment:
    """Mirrors left and right with probability 1/2."""
    return lambda key, image: jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def cutout(size: int) -> Augment:
    """Zeroes a square of `size` x `size` pixels (DeVries and Taylor, 2017).

    Its centre is uniform over the image, so the border may cut it, as in the original code.

    Raises:
        ValueError: for a negative size.
    """
    if size < 0:
        raise ValueError(f"cutout zeroes a square of 0 pixels or more, not {size}")

    def augment(key, image):
        centre = below(key, image.shape[:2])
        start = centre - size // 2

        def inside(axis):  # bool[L]
            i = jnp.arange(image.shape[axis])
            return (i >= start[axis]) & (i < start[axis] + size)

        hole = inside(0)[:, None, None] & inside(1)[None, :, None]  # [H, W, 1]
        return jnp.where(hole, jnp.zeros_like(image), image)

    return augment


def chain(*augments: Augment) -> Augment:
    """One after the other, each with a key of its own."""
    if not augments:
        return identity

    def augment(key, image):
        for k, f in zip(jax.random.split(key, len(augments)), augments, strict=True):
            image = f(k, image)
        return image

    return augment


AUGMENTS: dict[str, Augment] = {"none": identity, "crop": crop(), "crop+flip": chain(crop(), flip())}


def augment_named(name: str) -> Augment:
    """One of `AUGMENTS`; ValueError for another name."""
    if name not in AUGMENTS:
        raise ValueError(f"unknown augment {name!r}: choose one of {', '.join(AUGMENTS)}")
    return AUGMENTS[name]
