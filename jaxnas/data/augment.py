"""Augmentations: pure functions (key, image[H, W, C]) -> image of ONE normalised image, to be vmapped, each with its key.

    augment = chain(crop(4), flip(), cutout(16))      # DARTS's, for 32x32 images

Filling is with zero, the mean of each channel after the normalisation.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Key

Augment = Callable[[Key, jax.Array], jax.Array]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the channels of ImageNet, in common use
GREY = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601
TRIES = 10  # of a random part that fits


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


def resized_crop(scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> Augment:
    """A random part of the image, resized to the whole (Szegedy et al., CVPR 2015, section 6).

    Its share of the area is uniform in `scale`, the logarithm of its width over its height in that of `ratio`; of ten draws the
    first that fits in the image is taken, else the largest part in the middle that is within `ratio`.  Bilinear, antialiased.

    Args:
        scale: bounds of the share of the area, above 0 and at most 1.
        ratio: bounds of width / height.

    Raises:
        ValueError: for bounds that are not positive and ascending, or a share above 1.
    """
    if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
        raise ValueError(f"`scale` is (low, high) within 0 to 1 and `ratio` (low, high) above 0, not {scale} and {ratio}")

    def augment(key, image):
        H, W, _ = image.shape
        k_area, k_ratio, k_place = jax.random.split(key, 3)
        area = H * W * jax.random.uniform(k_area, (TRIES,), minval=scale[0], maxval=scale[1])
        aspect = jnp.exp(jax.random.uniform(k_ratio, (TRIES,), minval=np.log(ratio[0]), maxval=np.log(ratio[1])))
        size = jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)], 1)  # [TRIES, 2]; height and width
        whole = jnp.asarray((H, W), jnp.float32)
        fits = (size <= whole[None]).all(1)
        within = min(max(W / H, ratio[0]), ratio[1])
        middle = jnp.asarray((min(H, W / within), min(W, H * within)), jnp.float32)
        size = jnp.where(fits.any(), size[jnp.argmax(fits)], middle)
        place = jnp.where(fits.any(), jax.random.uniform(k_place, (2,)), 0.5) * (whole - size)
        zoom = whole / size
        return jax.image.scale_and_translate(image, image.shape, (0, 1), zoom, -place * zoom, "linear")

    return augment


def colour_jitter(
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    *,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> Augment:
    """Brightness, then contrast, then saturation, each by a factor uniform in [max(0, 1 - b), 1 + b], within 0 to 1 (Howard,
    arXiv:1312.5402, section 2.2).  Not as there: the order is fixed.

    Args:
        brightness, contrast, saturation: b of each; 0 leaves it as it is.
        mean: what the image was normalised by, [3]; default: that of `streamed`.
        std: likewise.

    Raises:
        ValueError: for a negative b, or images of other than 3 channels.
    """
    if min(brightness, contrast, saturation) < 0:
        raise ValueError(f"brightness, contrast and saturation are at least 0, not {(brightness, contrast, saturation)}")
    offset, spread, grey = (np.asarray(a, np.float32)[None, None] for a in (mean, std, GREY))  # [1, 1, 3]

    def augment(key, image):
        if image.shape[-1] != 3:
            raise ValueError(f"colours are of images of 3 channels; these have {image.shape[-1]}")
        low = jnp.maximum(0, 1 - jnp.asarray((brightness, contrast, saturation)))
        high = 1 + jnp.asarray((brightness, contrast, saturation))
        factor = jax.random.uniform(key, (3,)) * (high - low) + low
        towards = lambda x, base, f: jnp.clip(base + f * (x - base), 0, 1)
        lightness = lambda x: jnp.sum(x * grey, -1, keepdims=True)
        x = towards(image * spread + offset, 0.0, factor[0])
        x = towards(x, jnp.mean(lightness(x)), factor[1])
        x = towards(x, lightness(x), factor[2])
        return (x - offset) / spread

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
