"""Convolution and pooling: fast on CPU, plain on TPU and GPU.

Axes: C and D channels, H rows, W columns, B batch, k kernel size.  Inside a net an image batch is [C, H, W, B].

A convolution is one primitive, twice differentiable and more, whose form is chosen where a program is lowered: see
`jaxnas.nets.bilinear`.

Padding is k // 2 (times the dilation) on both sides, as in PyTorch: `SAME` would pad a strided convolution unevenly.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.nets import bilinear, probe
from jaxnas.nets.fences import fence, is_plain
from jaxnas.nets.shifts import Pair, out_size, taps


def depthwise(x: jax.Array, w: jax.Array, stride: int = 1, dilation: int = 1, form: str | None = None) -> jax.Array:
    """Depthwise convolution of x [C, H, W, B] with w [C, k, k] -> [C, ceil(H / stride), ceil(W / stride), B]."""
    return probe.linear(_each(x, w, stride, dilation, form), w[0].size)


def _each(x, w, stride=1, dilation=1, form=None):
    if is_plain():
        return _plainly(x, w[:, None], stride, dilation, groups=x.shape[0])
    return bilinear.depthwise.bind(x[None], w[None], stride=stride, dilation=dilation, form=form)[0]


def _plainly(x, w, stride, dilation, padding=None, groups=1):
    y = bilinear.lax_conv(x.transpose(3, 0, 1, 2), w, stride, dilation, padding, groups, axes="NCHW")
    return y.transpose(1, 2, 3, 0)


def per_channel(v: jax.Array) -> jax.Array:
    """[C] -> [C, 1, 1, 1], to multiply or add to [C, H, W, B]."""
    return v[:, None, None, None]


def scale_channels(x: jax.Array, a: jax.Array) -> jax.Array:
    """x [C, H, W, B] times a [C]."""
    return x * per_channel(a) if is_plain() else _each(x, a[:, None, None])


def conv(
    x: jax.Array,
    w: jax.Array,
    stride: Pair = 1,
    dilation: int = 1,
    padding: Pair | None = None,
    form: str | None = None,
) -> jax.Array:
    """Dense convolution of x [C, H, W, B] with w [D, C, k, k] -> [D, ceil(H / stride), ceil(W / stride), B].

    `padding` other than None replaces the k // 2 on both sides (0: valid).  The kernel may have fewer rows than columns, or
    more; stride and padding are then pairs, or one number for both.
    """
    if is_plain():
        y = _plainly(x, w, stride, dilation, padding)
    else:
        y = bilinear.dense.bind(x[None], w[None], stride=stride, dilation=dilation, padding=padding, form=form)[0]
    return probe.linear(y, w[0].size)


def _windows(x, axis, k, stride, padding, fill):
    """The k shifted views of x along one axis."""
    n = out_size(x.shape[axis], k, stride, 1, padding)
    pad = [(0, 0)] * x.ndim
    pad[axis] = (padding, padding)
    x = jnp.pad(x, pad, constant_values=fill)
    return [lax.slice_in_dim(x, i, i + (n - 1) * stride + 1, stride, axis) for i in range(k)]


def max_pool(x: jax.Array, k: int = 3, stride: int = 1, padding: int | None = None) -> jax.Array:
    """Maximum over k x k windows of x [C, H, W, B]; the padding (default k // 2) never wins; tied entries share the gradient."""
    x = fence(x)  # the derivative compares x with the maximum: computed twice, and rounded otherwise, it would lose the winner
    for axis in (1, 2):
        x = functools.reduce(jnp.maximum, _windows(x, axis, k, stride, k // 2 if padding is None else padding, -np.inf))
    return x


def avg_pool(x: jax.Array, k: int = 3, stride: int = 1, padding: int | None = None) -> jax.Array:
    """Mean over k x k windows of x [C, H, W, B]; the padding (default k // 2) is not counted."""
    p = k // 2 if padding is None else padding
    inside = lambda n: np.convolve(np.pad(np.ones(n), p), np.ones(k), "valid")[::stride]  # [Ho]
    share = 1 / np.outer(inside(x.shape[1]), inside(x.shape[2]))
    if padding is None:
        total = _each(x, jnp.ones((x.shape[0], k, k), x.dtype), stride)
    else:
        total = functools.reduce(jnp.add, taps(x, k, stride, 1, p))
    return total * jnp.asarray(share[None, :, :, None], x.dtype)
