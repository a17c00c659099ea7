"""Convolutions as primitives: bilinear, exact to any order, and of the form that is fast where they are lowered.

A convolution is bilinear in (x, w): its derivatives are its two adjoints, and theirs are again of the three.  Declared so, they
have exact derivatives of any order in forward and in reverse mode, and a traced net holds one equation for each.  What the
equation becomes is decided by the platform that a program is lowered for, wherever it is traced:

    cpu        shifted slices and matrix products: `jaxnas.nets.shifts`
    others     `lax.conv_general_dilated` and its transposes, whose physical layout the compiler chooses

Both are equal by test; `form` ("shifts" or "dense") overrides the choice.

Axes: G groups (edges, candidates), E filters of one depthwise input, C and D channels, H rows, W columns, B batch, k kernel size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxnas.nets import shifts
from jaxnas.nets.shifts import Pair, out_size, pads, two

Shape = tuple[int, ...]


def lax_conv(
    x: jax.Array, w: jax.Array, stride: Pair, dilation: int, padding: Pair | None = None, groups: int = 1, axes: str = "CHWN"
) -> jax.Array:
    """JAX's own convolution of x [C, H, W, B] (or of other axes) with w [D, C / groups, kh, kw]."""
    rows, columns = w.shape[2:]
    return lax.conv_general_dilated(
        x,
        w,
        two(stride),
        [(p, p) for p in pads((rows, columns), dilation, padding)],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=(axes, "OIHW", axes),
        feature_group_count=groups,
    )


# The forms for accelerators: convolutions of many channels in groups, and their transposes.


def _depthwise(x, w, *, stride, dilation):
    (G, C, *image), (E, _, k, _) = x.shape, w.shape
    if k == 1:
        return x[:, :, ::stride, ::stride] * w[..., None]
    if G == E:
        y = lax_conv(x.reshape(E * C, *image), w.reshape(E * C, 1, k, k), stride, dilation, groups=E * C)
        return y.reshape(E, C, *y.shape[1:])
    y = lax_conv(x[0], w.swapaxes(0, 1).reshape(C * E, 1, k, k), stride, dilation, groups=C)  # one input, E filters
    return y.reshape(C, E, *y.shape[1:]).swapaxes(0, 1)


def _dense(x, w, *, stride, dilation, padding):
    (G, C, *image), (_, D, *kernel) = x.shape, w.shape
    y = lax_conv(x.reshape(G * C, *image), w.reshape(G * D, *kernel), stride, dilation, padding, groups=G)
    return y.reshape(G, D, *y.shape[1:])


def _shifted_dense(x, w, **static):
    if len(x) == 1:
        return shifts.dense(x[0], w[0], **static)[None]
    return jax.vmap(partial(shifts.dense, **static))(x, w)


def _adjoint_x(f, dy, w, *, shape, **static):
    """The transpose of f(x, w) in x, of this shape."""
    return jax.linear_transpose(lambda x: f(x, w, **static), jax.ShapeDtypeStruct(shape, dy.dtype))(dy)[0]


def _adjoint_w(f, shape_of, x, dy, *, kernel, **static):
    """The transpose of f(x, w) in w, of this kernel."""
    w = jax.ShapeDtypeStruct(shape_of(x.shape, dy.shape, kernel=kernel), dy.dtype)
    return jax.linear_transpose(lambda w: f(x, w, **static), w)(dy)[0]


# Shapes of what comes out.


def _sizes(x, kernel, stride, dilation, padding=None):
    """(Ho, Wo) of x [..., H, W, B] under a kernel (kh, kw)."""
    each = zip(x[-3:-1], kernel, two(stride), pads(kernel, dilation, padding), strict=True)
    return tuple(out_size(size, k, step, dilation, p) for size, k, step, p in each)


def _depthwise_shape(x, w, *, stride, dilation):
    return (*w[:2], *_sizes(x, w[2:], stride, dilation), x[-1])


def _depthwise_kernel(x, dy, *, kernel, **_):
    return (*dy[:2], kernel, kernel)


def _dense_shape(x, w, *, stride, dilation, padding):
    return (*w[:2], *_sizes(x, w[3:], stride, dilation, padding), x[-1])


def _dense_kernel(x, dy, *, kernel, **_):
    return (*dy[:2], x[1], *kernel)


def _input_shape(dy, w, *, shape, **_):
    return shape


# Batching: two axes become one, the new one in front of the old.


def _fold(a, d, axis, n):
    """a with its batch axis d, or n copies of it, in front of the entries along `axis`."""
    a = jnp.broadcast_to(a, (n, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
    a = jnp.moveaxis(a, 0, axis)
    return a.reshape(*a.shape[:axis], n * a.shape[axis + 1], *a.shape[axis + 2 :])


def _unfold(y, axis, n):
    return y.reshape(*y.shape[:axis], n, y.shape[axis] // n, *y.shape[axis + 1 :]), axis


def _grown(static, axis, n):
    """What is static says the shape of the input: it grows with what is folded."""
    if "shape" not in static:
        return static
    shape = static["shape"]
    return {**static, "shape": (*shape[:axis], n * shape[axis], *shape[axis + 1 :])}


def _size(args, dims):
    """The size of the batch axis."""
    return next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)


def _batch_depthwise(primitive, args, dims, **static):
    n = _size(args, dims)
    groups = [a.shape[0 if d is None or d > 0 else 1] for a, d in zip(args, dims, strict=True)]
    if dims[0] is None and groups[0] == 1 and "shape" not in static:  # one x for all
        return _unfold(primitive.bind(args[0], _fold(args[1], dims[1], 0, n), **static), 0, n)
    first = static["shape"][0] if "shape" in static else groups[0]
    axis = 0 if first == groups[1] else 1  # groups, or channels where the groups share an input
    args = [_fold(a, d, axis, n) for a, d in zip(args, dims, strict=True)]
    return _unfold(primitive.bind(*args, **_grown(static, axis, n)), axis, n)


def _batch_dense(left, right, primitive, args, dims, **static):
    """`left` and `right`: the axis of the argument that an axis of that one alone joins, and of what comes out."""
    n = _size(args, dims)
    if None not in dims:
        args, out = [_fold(a, d, 0, n) for a, d in zip(args, dims, strict=True)], 0
    else:
        i = dims.index(None)
        axis, out = (right, left)[i]
        args = [a if d is None else _fold(a, d, axis, n) for a, d in zip(args, dims, strict=True)]
    return _unfold(primitive.bind(*args, **_grown(static, out, n)), out, n)


def _primitive(
    name: str, static: tuple[str, ...], on_cpu: Callable, elsewhere: Callable, shape: Callable, batch: Callable
) -> Primitive:
    """A primitive of (a, b): its forms, the shape of what comes out, and its batching rule."""
    primitive = Primitive(name)

    def chosen(usual, a, b, *, form, **static):
        return {"shifts": on_cpu, "dense": elsewhere}[form or usual](a, b, **static)

    def abstract(a, b, *, form, **static):
        del form
        return ShapedArray(shape(a.shape, b.shape, **static), jnp.promote_types(a.dtype, b.dtype))

    primitive.def_abstract_eval(abstract)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=(*static, "form")))
    mlir.register_lowering(primitive, mlir.lower_fun(partial(chosen, "shifts"), multiple_results=False), platform="cpu")
    mlir.register_lowering(primitive, mlir.lower_fun(partial(chosen, "dense"), multiple_results=False))
    batching.primitive_batchers[primitive] = partial(batch, primitive)
    return primitive


def _bilinear(forward: Primitive, in_x: Primitive, in_w: Primitive, kernel: Callable[[Shape], Any]) -> None:
    """The derivatives of the three: dx = in_x(dy, w), dw = in_w(x, dy), and each is again the adjoint of the others."""
    to_x = lambda dy, w, x, static: in_x.bind(dy, w, shape=x, **static)
    to_w = lambda x, dy, w, static: in_w.bind(x, dy, kernel=kernel(w), **static)
    ad.defbilinear(
        forward,
        lambda u, x, w, **static: to_x(u, w, x.aval.shape, static),
        lambda u, x, w, **static: to_w(x, u, w.aval.shape, static),
    )
    ad.defbilinear(
        in_x,
        lambda u, dy, w, *, shape, **static: forward.bind(u, w, **static),
        lambda u, dy, w, *, shape, **static: to_w(u, dy, w.aval.shape, static),
    )
    ad.defbilinear(
        in_w,
        lambda u, x, dy, *, kernel, **static: to_x(dy, u, x.aval.shape, static),
        lambda u, x, dy, *, kernel, **static: forward.bind(x, u, **static),
    )


_HOW = ("stride", "dilation")
depthwise = _primitive("depthwise", _HOW, shifts.depthwise, _depthwise, _depthwise_shape, _batch_depthwise)
depthwise_dx = _primitive(
    "depthwise_dx", (*_HOW, "shape"), shifts.depthwise_dx, partial(_adjoint_x, _depthwise), _input_shape, _batch_depthwise
)
depthwise_dw = _primitive(
    "depthwise_dw",
    (*_HOW, "kernel"),
    shifts.depthwise_dw,
    partial(_adjoint_w, _depthwise, _depthwise_kernel),
    _depthwise_kernel,
    _batch_depthwise,
)
_bilinear(depthwise, depthwise_dx, depthwise_dw, lambda w: w[-1])

_DENSE = (*_HOW, "padding")
dense = _primitive("dense", _DENSE, _shifted_dense, _dense, _dense_shape, partial(_batch_dense, (4, 4), (1, 1)))
dense_dx = _primitive(
    "dense_dx",
    (*_DENSE, "shape"),
    partial(_adjoint_x, _shifted_dense),
    partial(_adjoint_x, _dense),
    _input_shape,
    partial(_batch_dense, (4, 4), (2, 1)),
)
dense_dw = _primitive(
    "dense_dw",
    (*_DENSE, "kernel"),
    partial(_adjoint_w, _shifted_dense, _dense_kernel),
    partial(_adjoint_w, _dense, _dense_kernel),
    _dense_kernel,
    partial(_batch_dense, (1, 2), (1, 1)),
)
_bilinear(dense, dense_dx, dense_dw, lambda w: tuple(w[3:]))
