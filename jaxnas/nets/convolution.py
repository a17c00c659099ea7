"""Convolution and pooling: fast on CPU, plain on TPU and GPU.

Axes: C channels, H rows, W columns, B batch, k kernel size.  Inside a net an image batch is [C, H, W, B].

With the batch last it is the vector axis: on CPU a depthwise convolution is a sum of shifted slices
(XLA's own grouped convolution is 10 to 40 times slower there, and another 10 times inside a `lax.scan`), and a dense
one is a matrix product of gathered views, or of gathered columns whose rows are then added up: what copies less.  On TPU
and GPU the same functions call `lax.conv_general_dilated`, whose physical layout the compiler chooses.  Both forms are
exact and twice differentiable in reverse mode, and equal by test; `form` picks one ("shifts" or "dense"), None picks by
backend.

Padding is k // 2 (times the dilation) on both sides, as in PyTorch: `SAME` would pad a strided convolution unevenly.
"""

import contextlib
import contextvars
import functools
from collections.abc import Generator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxnas.nets import probe

_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain() -> Generator[None, None, None]:
    """Nets that are traced inside consist of JAX's own operations: dense convolutions of [B, C, H, W], and no fences.

    For a converter, which reads the traced program and knows no other primitives and no other axes.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def default_form() -> str:
    """The form that is fast on the default backend: "shifts" on CPU, "dense" elsewhere, and where nets are `plain`."""
    return "shifts" if jax.default_backend() == "cpu" and not _plain.get() else "dense"


_fence = Primitive("fence")  # x, and its cotangent, made in full before anyone reads them
_fence.def_impl(lambda x: x)
_fence.def_abstract_eval(lambda x: x)
ad.deflinear2(_fence, lambda u, x: [_fence.bind(u)])
batching.primitive_batchers[_fence] = lambda args, dims: (_fence.bind(*args), *dims)
_whole = jax.jit(lax.optimization_barrier)


def _apart(x):
    """XLA's CPU fusion ignores barriers, and would compute x again inside every reader: it stops at a call it may not inline."""
    with set_xla_metadata(inlineable="false"):
        return _whole(x)


mlir.register_lowering(_fence, mlir.lower_fun(_apart, multiple_results=False), platform="cpu")
mlir.register_lowering(_fence, mlir.lower_fun(lambda x: x, multiple_results=False))


def fence(x: jax.Array) -> jax.Array:
    """x, computed once and kept, whoever reads it (CPU; elsewhere the compiler decides)."""
    return x if _plain.get() else _fence.bind(x)


def _out(size: int, k: int, stride: int, dilation: int, padding: int) -> int:
    return (size + 2 * padding - dilation * (k - 1) - 1) // stride + 1


def _two(n):
    """(for the rows, for the columns) of one number for both, or of two."""
    return (n, n) if isinstance(n, int) else n


def _pad(k, dilation, padding):
    """The padding of rows and of columns."""
    return tuple(dilation * (n - 1) // 2 for n in _two(k)) if padding is None else _two(padding)


def _taps(x, k, stride, dilation, padding=None, fill=0.0):
    """The shifted views of x [..., H, W, B] that a kernel looks at, row by row, each [..., Ho, Wo, B]."""
    *lead, H, W, B = x.shape
    (kh, kw), (sh, sw), (ph, pw) = _two(k), _two(stride), _pad(k, dilation, padding)
    Ho, Wo = _out(H, kh, sh, dilation, ph), _out(W, kw, sw, dilation, pw)
    if ph or pw:
        x = fence(jnp.pad(x, (*[(0, 0)] * len(lead), (ph, ph), (pw, pw), (0, 0)), constant_values=fill))
    span = lambda i, n, step: (i * dilation, i * dilation + (n - 1) * step + 1)
    return [
        lax.slice(x, (*[0] * len(lead), i0, j0, 0), (*lead, i1, j1, B), (*[1] * len(lead), sh, sw, 1))
        for i0, i1 in (span(i, Ho, sh) for i in range(kh))
        for j0, j1 in (span(j, Wo, sw) for j in range(kw))
    ]


# Depthwise convolution of G inputs by E filters, G = E, or G = 1: one input that all E filters share (the edges that leave
# one node).  It is bilinear in (x, w): its derivatives are its two adjoints, and theirs are again of the three.
# Declared so, as primitives, they have exact derivatives of any order in forward and in reverse mode.


def _filter(x, w, stride, dilation):
    """y[e, c, o] = sum_ij w[e, c, i, j] x[e, c, stride o + dilation (i, j) - p]"""
    k = w.shape[-1]
    taps = _taps(x, k, stride, dilation)
    weights = [w[:, :, i, j, None, None, None] for i in range(k) for j in range(k)]
    y = functools.reduce(jnp.add, [t * v for t, v in zip(taps, weights, strict=True)])
    return y if k == 1 else fence(y)


def _adjoint_input(dy, w, shape, stride, dilation):
    if shape[0] != dy.shape[0]:  # a shared input: its filters' adjoints add up
        each = _adjoint_input(dy, w, (dy.shape[0], *shape[1:]), stride, dilation)
        return functools.reduce(jnp.add, jnp.split(each, dy.shape[0]))
    if stride == 1:
        return _filter(dy, w[..., ::-1, ::-1], 1, dilation)
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


def _adjoint_kernel(x, dy, k, stride, dilation):
    """dw[e, c, i, j] = sum_o dy[e, c, o] x[e, c, stride o + dilation (i, j) - p]: one reduction that yields all k * k sums."""
    if k == 1:
        return jnp.sum(x[:, :, ::stride, ::stride] * dy, (2, 3, 4))[..., None, None]
    dy = fence(dy)
    products = [t * dy for t in _taps(x, k, stride, dilation)]
    zero = np.zeros((), dy.dtype)
    add = lambda a, b: tuple(u + v for u, v in zip(a, b, strict=True))
    sums = lax.reduce(tuple(products), (zero,) * len(products), add, (2, 3))  # k * k of [E, C, B]
    return fence(jnp.stack(sums, -1)).sum(2).reshape(*dy.shape[:2], k, k)


def _bilinear(name, impl, transpose_left, transpose_right):
    """A primitive from a bilinear `impl(a [G, C, ...], b [E, C, ...], **static)`."""
    primitive = Primitive(name)
    primitive.def_impl(impl)
    primitive.def_abstract_eval(
        lambda a, b, **static: ShapedArray((out := jax.eval_shape(partial(impl, **static), a, b)).shape, out.dtype)
    )
    mlir.register_lowering(primitive, mlir.lower_fun(impl, multiple_results=False))
    ad.defbilinear(primitive, transpose_left, transpose_right)

    def batch(args, dims, **static):
        n = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
        groups = [a.shape[0 if d is None or d > 0 else 1] for a, d in zip(args, dims, strict=True)]
        shared = dims[0] is None and groups[0] == 1 and "shape" not in static  # one x for all
        first = static["shape"][0] if "shape" in static else groups[0]
        in_front = shared or first == groups[1]  # the batch joins the group axis; else the channels

        def fold(a, d):  # -> [n * G, C, ...] or [G, n * C, ...]
            a = jnp.broadcast_to(a, (n, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
            if in_front:
                return a.reshape(-1, *a.shape[2:])
            return jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1, *a.shape[3:])

        if "shape" in static:
            G, C, *rest = static["shape"]
            static["shape"] = (n * G, C, *rest) if in_front else (G, n * C, *rest)
        left = args[0] if shared else fold(args[0], dims[0])
        y = primitive.bind(left, fold(args[1], dims[1]), **static)
        if in_front:
            return y.reshape(n, -1, *y.shape[1:]), 0
        return y.reshape(y.shape[0], n, -1, *y.shape[2:]), 1

    batching.primitive_batchers[primitive] = batch
    return primitive


_depthwise = _bilinear(
    "depthwise",
    lambda x, w, *, stride, dilation: _filter(x, w, stride, dilation),
    lambda u, x, w, *, stride, dilation: _depthwise_dx.bind(u, w, shape=x.aval.shape, stride=stride, dilation=dilation),
    lambda u, x, w, *, stride, dilation: _depthwise_dw.bind(x, u, kernel=w.aval.shape[-1], stride=stride, dilation=dilation),
)
_depthwise_dx = _bilinear(
    "depthwise_dx",
    lambda dy, w, *, shape, stride, dilation: _adjoint_input(dy, w, shape, stride, dilation),
    lambda u, dy, w, *, shape, stride, dilation: _depthwise.bind(u, w, stride=stride, dilation=dilation),
    lambda u, dy, w, *, shape, stride, dilation: _depthwise_dw.bind(
        u, dy, kernel=w.aval.shape[-1], stride=stride, dilation=dilation
    ),
)
_depthwise_dw = _bilinear(
    "depthwise_dw",
    lambda x, dy, *, kernel, stride, dilation: _adjoint_kernel(x, dy, kernel, stride, dilation),
    lambda u, x, dy, *, kernel, stride, dilation: _depthwise_dx.bind(dy, u, shape=x.aval.shape, stride=stride, dilation=dilation),
    lambda u, x, dy, *, kernel, stride, dilation: _depthwise.bind(x, u, stride=stride, dilation=dilation),
)


def depthwise(x: jax.Array, w: jax.Array, stride: int = 1, dilation: int = 1, form: str | None = None) -> jax.Array:
    """Depthwise convolution of x [C, H, W, B] with w [C, k, k] -> [C, ceil(H / stride), ceil(W / stride), B]."""
    return probe.linear(_each(x, w, stride, dilation, form), w[0].size)


def _each(x, w, stride=1, dilation=1, form=None):
    if (form or default_form()) == "shifts":
        return _depthwise.bind(x[None], w[None], stride=stride, dilation=dilation)[0]
    return _lax_conv(x, w[:, None], stride, dilation, groups=x.shape[0])


def per_channel(v: jax.Array) -> jax.Array:
    """[C] -> [C, 1, 1, 1], to multiply or add to [C, H, W, B]."""
    return v[:, None, None, None]


def scale_channels(x: jax.Array, a: jax.Array) -> jax.Array:
    """x [C, H, W, B] times a [C]."""
    return _each(x, a[:, None, None]) if default_form() == "shifts" else x * per_channel(a)


def conv(
    x: jax.Array,
    w: jax.Array,
    stride: int | tuple[int, int] = 1,
    dilation: int = 1,
    padding: int | tuple[int, int] | None = None,
    form: str | None = None,
) -> jax.Array:
    """Dense convolution of x [C, H, W, B] with w [D, C, k, k] -> [D, ceil(H / stride), ceil(W / stride), B].

    `padding` other than None replaces the k // 2 on both sides (0: valid).  The kernel may have fewer rows than columns, or
    more; stride and padding are then pairs, or one number for both.
    """
    return probe.linear(_dense(x, w, stride, dilation, padding, form), w[0].size)


def _dense(x, w, stride, dilation, padding, form):
    D, C, *k = w.shape
    if (form or default_form()) != "shifts":
        return _lax_conv(x, w, stride, dilation, padding)
    (rows, columns), (down, _), p = k, _two(stride), _pad(k, dilation, padding)
    Ho = _out(x.shape[1], rows, down, dilation, p[0])
    if down == 1 and (columns * C + rows * D) * (x.shape[1] + 2 * p[0]) < rows * columns * C * Ho:  # the form that copies less
        seen = jnp.concatenate(_taps(x, (1, columns), stride, dilation, p), 0)  # [k * C, H + 2 p, Wo, B]
        w = w.transpose(2, 0, 3, 1).reshape(rows * D, -1)
        parts = jnp.split(lax.dot(w, seen.reshape(len(seen), -1)).reshape(-1, *seen.shape[1:]), rows)
        total: Any = sum(part[:, i * dilation : i * dilation + Ho] for i, part in enumerate(parts))
        return fence(total)
    if k == [1, 1]:
        seen = x if stride == 1 else fence(x[:, ::down, :: _two(stride)[1]])
    else:
        seen = fence(jnp.concatenate(_taps(x, k, stride, dilation, padding), 0))  # [k * k * C, Ho, Wo, B]
    w = w.transpose(0, 2, 3, 1).reshape(D, -1)
    return lax.dot(w, seen.reshape(w.shape[1], -1)).reshape(D, *seen.shape[1:])


def _lax_conv(x, w, stride, dilation, padding=None, groups=1):
    axes = "NCHW" if _plain.get() else "CHWN"
    y = lax.conv_general_dilated(
        x.transpose(3, 0, 1, 2) if _plain.get() else x,
        w,
        _two(stride),
        [(p, p) for p in _pad(w.shape[2:], dilation, padding)],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=(axes, "OIHW", axes),
        feature_group_count=groups,
    )
    return y.transpose(1, 2, 3, 0) if _plain.get() else y


def _windows(x, axis, k, stride, padding, fill):
    """The k shifted views of x along one axis."""
    n = _out(x.shape[axis], k, stride, 1, padding)
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
        total = functools.reduce(jnp.add, _taps(x, k, stride, 1, p))
    return total * jnp.asarray(share[None, :, :, None], x.dtype)
