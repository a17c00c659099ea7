"""Images that stay bytes in memory, and are normalised where they are looked at.

Axes: N examples, H height, W width, C channels.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def normalised(x: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """float32[..., C], (x / 255 - mean) / std of bytes x [..., C].

    By a table of the 256 values of each channel, computed on the host, so that the bits are the same everywhere; on a TPU, where
    looking up single numbers is slow, by arithmetic.
    """
    offset, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    of = lambda values: (values / np.float32(255) - offset) / scale
    table = of(np.arange(256, dtype=np.float32)[:, None])  # [256, C]

    def looked_up(x):
        return jnp.asarray(table)[x, jnp.arange(len(offset))]

    def computed(x):
        along = (1,) * (x.ndim - 1) + (-1,)
        return (x.astype(jnp.float32) / 255 - offset.reshape(along)) / scale.reshape(along)

    return jax.lax.platform_dependent(x, tpu=computed, default=looked_up)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["raw"], meta_fields=["mean", "std"])
@dataclasses.dataclass(frozen=True)
class Pixels:
    """Images as bytes; what an index takes out of them is float32, normalised.  A pytree of the bytes alone.

    x[3], x[:10], x[index]      float32, a part
    x[...], np.asarray(x)       float32, all of them: four times the memory
    """

    raw: jax.Array  # uint8[N, H, W, C]
    mean: tuple[float, ...]  # [C], of images / 255
    std: tuple[float, ...]

    def __getitem__(self, index: Any) -> jax.Array:
        return normalised(self.raw[index], self.mean, self.std)

    def __len__(self) -> int:
        return len(self.raw)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images that are kept as bytes are floats only in a copy: leave copy out")
        return np.asarray(self[...], dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.raw.shape

    @property
    def ndim(self) -> int:
        return self.raw.ndim

    @property
    def dtype(self) -> np.dtype:
        """Of what an index takes out."""
        return np.dtype(np.float32)


def plain(x: Any) -> jax.Array:
    """An array of `Pixels`, and any other as it is."""
    return x[...] if isinstance(x, Pixels) else x
