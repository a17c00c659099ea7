"""Labelled images: a pytree of arrays on the device, cut into train, valid and test by a key.

Axes: N examples, H height, W width, C channels.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Key


class DataError(ValueError):
    """The data cannot be used.  One line that says what to do."""


class Split(NamedTuple):
    x: jax.Array  # float32[N, H, W, C], normalised
    y: jax.Array  # int32[N]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["train", "valid", "test", "mean", "std"],
    meta_fields=["classes", "name"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Three disjoint splits.  A pytree: hand it to jitted code as an argument, never close over it.

    `train` moves the weights, `valid` the architecture, and no search ever sees `test`.
    """

    train: Split
    valid: Split
    test: Split
    classes: int  # static, like `name`
    name: str = "data"
    mean: jax.Array | None = None  # float32[C], what images were shifted and scaled by; None: they were not
    std: jax.Array | None = None

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape (H, W, C) of one image."""
        height, width, channels = self.train.x.shape[1:]
        return height, width, channels


def split(
    key: Key,
    x: ArrayLike,
    y: ArrayLike,
    *,
    valid: float = 0.5,
    test: float | tuple[ArrayLike, ArrayLike] = 0.2,
    name: str = "data",
) -> Dataset:
    """Cuts examples into train, valid and test by a permutation from the key, and normalises them.

    Each channel is shifted and scaled by the mean and the standard deviation of the train part alone (a constant channel
    is only shifted).

    Args:
        key: the only source of randomness: the same key and data give the same splits.
        x: images [N, H, W] or [N, H, W, C] of any number type; uint8 is divided by 255.
        y: integer labels [N], at least 0; there are max + 1 classes.
        valid: the part of what is not test that becomes `valid`; DARTS halves it.
        test: the part of all examples that becomes `test`, or the source's own test set, a pair (x, y), which is kept whole
            and in order.
        name: what messages and records call the data.

    Raises:
        DataError: for images or labels of a wrong rank, type, length or value, fewer than two classes, parts outside
            (0, 1), or too few examples to fill every part.
    """
    x, y = check(x, y, name)
    parts = {"valid": valid} if isinstance(test, tuple) else {"valid": valid, "test": test}
    for part, value in parts.items():
        if not 0 < value < 1:
            raise DataError(f"the {part} part must lie between 0 and 1, not {value}")
    order = permutation(key, len(x))
    if isinstance(test, tuple):
        x_test, y_test = check(*test, f"{name} (test)")
        if x_test.shape[1:] != x.shape[1:]:
            raise DataError(f"{name}: train images are {x.shape[1:]} and test images {x_test.shape[1:]}: make them alike")
    else:
        cut, order = np.split(order, [round(test * len(x))])
        x_test, y_test = x[cut], y[cut]
    i_valid, i_train = np.split(order, [round(valid * len(order))])
    if not min(len(i_train), len(i_valid), len(x_test)):
        sizes = f"{len(i_train)} train, {len(i_valid)} valid, {len(x_test)} test"
        raise DataError(f"{name}: {len(x)} examples leave an empty part ({sizes}): give more, or other parts")
    classes = int(max(y.max(), y_test.max())) + 1
    if len(np.union1d(y, y_test)) < 2:
        raise DataError(f"{name}: all labels are {classes - 1}: there must be at least two classes")

    x_train = x[i_train]
    channels = range(x.shape[3])  # one at a time: float64 sums without a float64 copy of everything
    mean = np.asarray([x_train[..., c].mean(dtype=np.float64) for c in channels])  # [C]
    std = np.asarray([x_train[..., c].std(dtype=np.float64) for c in channels])  # [C]
    std = np.where(std > 1e-7 * np.abs(mean), std, 1.0)  # below float32's resolution a channel is constant

    def normalised(x, y):
        return Split(jnp.asarray((x - mean.astype(np.float32)) / std.astype(np.float32)), jnp.asarray(y))

    return Dataset(
        train=normalised(x_train, y[i_train]),
        valid=normalised(x[i_valid], y[i_valid]),
        test=normalised(x_test, y_test),
        classes=classes,
        name=name,
        mean=jnp.asarray(mean, jnp.float32),
        std=jnp.asarray(std, jnp.float32),
    )


def permutation(key: Key, n: int) -> np.ndarray:
    """A permutation of range(n), int64[n]: that of `jax.random.permutation` would take a second to compile for every n."""
    return np.argsort(np.asarray(jax.random.bits(key, (n,))), kind="stable")


def check(x: ArrayLike, y: ArrayLike, name: str = "data") -> tuple[np.ndarray, np.ndarray]:
    """Images as float32[N, H, W, C] and labels as int32[N].

    Raises:
        DataError: when they cannot be that; see `split`.
    """
    try:
        x, y = np.asarray(x), np.asarray(y)
    except ValueError:
        raise DataError(f"{name}: images or labels are ragged: every image needs the same shape") from None
    if x.dtype.kind not in "buif":
        raise DataError(f"{name}: images must be numbers, not {x.dtype}")
    if x.ndim not in (3, 4):
        raise DataError(f"{name}: images must be [N, H, W] or [N, H, W, C], not {list(x.shape)}")
    if y.ndim != 1:
        raise DataError(f"{name}: labels must be [N], one for each image, not {list(y.shape)}")
    if len(x) != len(y):
        raise DataError(f"{name}: there are {len(x)} images and {len(y)} labels: give one label for each image")
    if x.size == 0:
        raise DataError(f"{name}: there are no images: their shape is {list(x.shape)}")
    if y.dtype.kind not in "ui":
        raise DataError(f"{name}: labels must be integers, not {y.dtype}: number the classes 0, 1, ...")
    if y.min() < 0:
        raise DataError(f"{name}: labels must be at least 0, and there is a {y.min()}: number the classes 0, 1, ...")
    if y.max() >= 2**31 - 1:
        raise DataError(f"{name}: label {y.max()} is too large: number the classes 0, 1, ...")
    with np.errstate(over="ignore"):  # what float32 cannot hold is found below
        scaled = x.astype(np.float32) / np.float32(255 if x.dtype == np.uint8 else 1)
    bad = len(x) - int(np.isfinite(scaled).reshape(len(x), -1).all(1).sum())
    if bad:
        raise DataError(f"{name}: {bad} of {len(x)} images hold NaN or infinity: repair or drop them")
    return (scaled[..., None] if x.ndim == 3 else scaled), y.astype(np.int32)
