"""Convolutions as they are fast on CPU: sums of shifted slices, and matrix products.

With the batch last it is the vector axis.  A depthwise convolution is a sum of shifted slices (XLA's own grouped convolution
is 10 to 40 times slower on CPU, and another 10 times inside a `lax.scan`); a dense one is a matrix product of gathered views, or
of gathered columns whose rows are then added up: what copies less.

Axes: E filters, C and D channels, H rows, W columns, B batch, k kernel size.  Images are [C, H, W, B].
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.nets.fences import fence

Pair = int | tuple[int, int]  # for rows and columns, or for each


def two(n: Pair) -> tuple[int, int]:
    """(for the rows, for the columns) of one number for both, or of two."""
    return (n, n) if isinstance(n, int) else n


def out_size(size: int, k: int, stride: int, dilation: int, padding: int) -> int:
    """Entries along an axis of `size` that a kernel of k leaves."""
    return (size + 2 * padding - dilation * (k - 1) - 1) // stride + 1


def pads(k: Pair, dilation: int, padding: Pair | None = None) -> tuple[int, int]:
    """The padding of rows and of columns; None: k // 2, times the dilation."""
    if padding is not None:
        return two(padding)
    rows, columns = two(k)
    return dilation * (rows - 1) // 2, dilation * (columns - 1) // 2


def taps(x: jax.Array, k: Pair, stride: Pair, dilation: int, padding: Pair | None = None) -> list[jax.Array]:
    """The shifted views of x [..., H, W, B] that a kernel looks at, row by row, each [..., Ho, Wo, B]."""
    *lead, H, W, B = x.shape
    (kh, kw), (sh, sw), (ph, pw) = two(k), two(stride), pads(k, dilation, padding)
    Ho, Wo = out_size(H, kh, sh, dilation, ph), out_size(W, kw, sw, dilation, pw)
    if ph or pw:
        x = fence(jnp.pad(x, (*[(0, 0)] * len(lead), (ph, ph), (pw, pw), (0, 0))))
    span = lambda i, n, step: (i * dilation, i * dilation + (n - 1) * step + 1)
    return [
        lax.slice(x, (*[0] * len(lead), i0, j0, 0), (*lead, i1, j1, B), (*[1] * len(lead), sh, sw, 1))
        for i0, i1 in (span(i, Ho, sh) for i in range(kh))
        for j0, j1 in (span(j, Wo, sw) for j in range(kw))
    ]


def depthwise(x: jax.Array, w: jax.Array, *, stride: int, dilation: int) -> jax.Array:
    """y[e, c, o] = sum_ij w[e, c, i, j] x[e, c, stride o + dilation (i, j) - p]; x [E or 1, C, H, W, B], w [E, C, k, k]"""
    k = w.shape[-1]
    weights = [w[:, :, i, j, None, None, None] for i in range(k) for j in range(k)]
    y = functools.reduce(jnp.add, [t * v for t, v in zip(taps(x, k, stride, dilation), weights, strict=True)])
    return y if k == 1 else fence(y)


def depthwise_dx(dy: jax.Array, w: jax.Array, *, shape: tuple[int, ...], stride: int, dilation: int) -> jax.Array:
    """The adjoint of `depthwise` in x, of this shape."""
    if shape[0] != dy.shape[0]:  # a shared input: its filters' adjoints add up
        each = depthwise_dx(dy, w, shape=(dy.shape[0], *shape[1:]), stride=stride, dilation=dilation)
        return functools.reduce(jnp.add, jnp.split(each, dy.shape[0]))
    if stride == 1:
        return depthwise(dy, w[..., ::-1, ::-1], stride=1, dilation=dilation)
    E, C, H, W, B = shape
    k = w.shape[-1]
    p = dilation * (k - 1) // 2
    Ho, Wo = dy.shape[2:4]
    q = p // stride + 1
    dp = fence(jnp.pad(dy, ((0, 0), (0, 0), (q, q), (q, q), (0, 0))))

    def phase(a, b):  # each of the stride**2 phases of the input sees its own taps
        total = jnp.zeros_like(dy)
        for i in range(k):
            for j in range(k):
                u, v = a + p - i * dilation, b + p - j * dilation
                if u % stride == 0 and v % stride == 0:
                    u, v = u // stride + q, v // stride + q
                    tap = lax.slice(dp, (0, 0, u, v, 0), (E, C, u + Ho, v + Wo, B))
                    total = total + tap * w[:, :, i, j, None, None, None]
        return total

    rows = [jnp.stack([phase(a, b) for b in range(stride)], 4) for a in range(stride)]  # [E, C, Ho, Wo, s, B]
    full = jnp.stack(rows, 3).reshape(E, C, Ho * stride, Wo * stride, B)
    return full[:, :, :H, :W]


def depthwise_dw(x: jax.Array, dy: jax.Array, *, kernel: int, stride: int, dilation: int) -> jax.Array:
    """dw[e, c, i, j] = sum_o dy[e, c, o] x[e, c, stride o + dilation (i, j) - p]: one reduction that yields all k * k sums."""
    k = kernel
    if k == 1:
        return jnp.sum(x[:, :, ::stride, ::stride] * dy, (2, 3, 4))[..., None, None]
    dy = fence(dy)
    products = [t * dy for t in taps(x, k, stride, dilation)]
    zero = np.zeros((), dy.dtype)
    add = lambda a, b: tuple(u + v for u, v in zip(a, b, strict=True))
    sums = lax.reduce(tuple(products), (zero,) * len(products), add, (2, 3))  # k * k of [E, C, B]
    return fence(jnp.stack(sums, -1)).sum(2).reshape(*dy.shape[:2], k, k)


def dense(x: jax.Array, w: jax.Array, *, stride: Pair, dilation: int, padding: Pair | None) -> jax.Array:
    """x [C, H, W, B], w [D, C, kh, kw] -> [D, Ho, Wo, B]"""
    D, C, *k = w.shape
    (rows, columns), (down, right), p = k, two(stride), pads((k[0], k[1]), dilation, padding)
    Ho = out_size(x.shape[1], rows, down, dilation, p[0])
    if down == 1 and (columns * C + rows * D) * (x.shape[1] + 2 * p[0]) < rows * columns * C * Ho:  # the form that copies less
        seen = jnp.concatenate(taps(x, (1, columns), stride, dilation, p), 0)  # [k * C, H + 2 p, Wo, B]
        w = w.transpose(2, 0, 3, 1).reshape(rows * D, -1)
        parts = jnp.split(lax.dot(w, seen.reshape(len(seen), -1)).reshape(-1, *seen.shape[1:]), rows)
        total: Any = sum(part[:, i * dilation : i * dilation + Ho] for i, part in enumerate(parts))
        return fence(total)
    if k == [1, 1] and p == (0, 0):
        seen = x if stride == 1 else fence(x[:, ::down, ::right])
    else:
        seen = fence(jnp.concatenate(taps(x, (rows, columns), stride, dilation, padding), 0))  # [k * k * C, Ho, Wo, B]
    w = w.transpose(0, 2, 3, 1).reshape(D, -1)
    return lax.dot(w, seen.reshape(w.shape[1], -1)).reshape(D, *seen.shape[1:])
