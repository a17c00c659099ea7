"""The layers that operations are made of, and outputs whose last norm is not applied yet.

Axes: C channels, H rows, W columns, B batch.  Inside a net an image batch is [C, H, W, B].
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, overload

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.base import Key
from jaxnas.nets import probe
from jaxnas.nets.convolution import conv, depthwise, per_channel, scale_channels
from jaxnas.nets.precision import at_least_float32, parameter, to_inputs

Rate = float | jax.Array | None  # the probability with which a path is dropped; None: nothing is


def to_net(x: jax.Array) -> jax.Array:
    """Images as users hold them, [B, H, W, C], to the nets' [C, H, W, B]."""
    return x.transpose(3, 1, 2, 0)


class Affine(NamedTuple):
    """y * scale + shift, channel by channel, not applied yet: a normalisation left to whoever reads it next."""

    y: jax.Array  # [C, H, W, B]
    scale: jax.Array  # [C], of the norm's dtype, which may be wider than that of y
    shift: jax.Array  # [C]


Output = jax.Array | Affine  # of an operation


def apply_norm(y: Output) -> jax.Array:
    """An operation's output as an array [C, H, W, B]."""
    if not isinstance(y, Affine):
        return y
    return (y.y * per_channel(y.scale) + per_channel(y.shift)).astype(y.y.dtype)


def check_maps(name: str, y: Output, shape: tuple[int, ...]) -> None:
    """Raises ValueError for an operation's output that is not [C, H, W, B]: it has ignored its features or its stride."""
    got = (y.y if isinstance(y, Affine) else y).shape
    if got != shape:
        raise ValueError(
            f"the operation {name!r} gives maps of {list(got)} where {list(shape)} are wanted, [channels, height, width, batch]: "
            "see to it that it follows its features and its stride"
        )


def mix(weights: Iterable[jax.Array], ys: Iterable[Output]) -> jax.Array:
    """sum_o weights[o] * ys[o] of operations' outputs.

    A weight goes into its norm's scale and shift before those meet the maps, so that the derivatives of the weight and of
    the norm come out of the same two sums over the maps.  The sum is in float32 at the least, its result in the maps' dtype.
    """
    total: Any = 0.0
    shift: Any = 0.0
    dtype: Any = None
    for weight, y in zip(weights, ys, strict=True):
        maps = y.y if isinstance(y, Affine) else y
        dtype, maps = maps.dtype, maps.astype(at_least_float32(maps.dtype))
        if isinstance(y, Affine):
            total = total + scale_channels(maps, weight * y.scale)
            shift = shift + weight * y.shift
        else:
            total = total + scale_channels(maps, jnp.broadcast_to(weight, y.shape[:1]))
    total = total + per_channel(shift) if isinstance(shift, jax.Array) else total
    return total if dtype is None else total.astype(dtype)


def drop(y: jax.Array, key: Key, rate: float | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """y with entries of `shape` (it broadcasts to y's) zero at odds `rate`; the others are scaled by 1 / (1 - rate)."""
    keep = 1 - jnp.asarray(rate, at_least_float32(y.dtype))
    return jnp.where(jax.random.bernoulli(key, keep, shape), y / jnp.maximum(keep, 1e-6).astype(y.dtype), 0)


def dropout(module: nn.Module, y: jax.Array, train: bool, rate: float | jax.Array) -> jax.Array:
    """y with entries dropped at odds `rate`, which may be traced, in training, where the module has an rng "dropout"."""
    if not train or not module.has_rng("dropout"):
        return y
    return drop(y, module.make_rng("dropout"), rate, y.shape)


def drop_path(y: jax.Array, key: Key, rate: float | jax.Array) -> jax.Array:
    """Drops the path y [C, H, W, B] of each example with probability `rate`."""
    return drop(y, key, rate, (1, 1, 1, y.shape[-1]))


def shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Channel c of group g becomes channel g of group c, x [C, ...]; the inverse is the shuffle by C / groups."""
    return x if groups == 1 else x.reshape(groups, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)


def switched(index: jax.Array, branches: Sequence[Callable[..., Any]], *args: Any) -> Any:
    """`lax.switch` that keeps nothing but `args` for the backward pass, which runs the branch again and differentiates inside it.

    `lax.switch` alone keeps room for the insides of every branch.  Reverse mode only.
    """
    branches, taps = zip(*map(probe.carried, branches), strict=True)
    args = (taps[0], *args)
    pulls = [lambda args, dy, f=f: jax.vjp(f, *args)[1](dy) for f in branches]
    forward = lambda index, *args: lax.switch(index, branches, *args)
    one = jax.custom_vjp(forward)
    one.defvjp(lambda *all: (forward(*all), all), lambda all, dy: (None, *lax.switch(all[0], pulls, all[1:], dy)))
    return one(index, *args)


@jax.custom_vjp
def open_to_zeros(y: jax.Array, gate: jax.Array) -> jax.Array:
    """y, to the last bit: an operation's output, plus gate [O] of each other operation times a map of ones.

    For one-hot gates, whose others are 0: so only the gradient sees it, sum(dL/dy) in each of theirs.
    """
    del gate  # of nothing but zeros
    return y


def _zeros_backward(gate, dy):
    others = jnp.arange(len(gate)) != jnp.argmax(gate)
    return dy, jnp.where(others, jnp.sum(dy, dtype=at_least_float32(dy.dtype)), 0).astype(gate.dtype)


open_to_zeros.defvjp(lambda y, gate: (y, gate), _zeros_backward)


def walk(
    f: Callable[[jax.Array, Any], tuple[jax.Array, Any]],
    nodes: jax.Array,
    sources: jax.Array,
    targets: jax.Array,
    xs: Any,
    outer: jax.Array | None = None,
) -> tuple[jax.Array, Any]:
    """nodes [N, ...] after nodes[target] += y, of (y, aux) = f(nodes[source], x), edge after edge; and the auxs, stacked.

    With `outer` [M, ...] sources are of these.  Without, edges into a node must come before the edges out of it: so the derivative
    finds each edge's input in the nodes as they are at the end, and keeps no other maps.  Reverse mode only.
    """
    f, tap = probe.carried(f)
    at = lambda nodes, i: lax.dynamic_index_in_dim(nodes, i, keepdims=False)
    add = lambda nodes, i, y: lax.dynamic_update_index_in_dim(nodes, at(nodes, i) + y, i, 0)

    def forward(nodes, outer, tap, sources, targets, xs):
        def edge(nodes, row):
            source, target, x = row
            y, aux = f(tap, at(nodes if outer is None else outer, source), x)
            return add(nodes, target, y), aux

        nodes, auxs = lax.scan(edge, nodes, (sources, targets, xs))
        return (nodes, auxs), (nodes if outer is None else None, outer, tap, sources, targets, xs)

    def back(kept, cotangents):
        nodes, outer, tap, sources, targets, xs = kept
        d_nodes, d_auxs = cotangents

        def edge(carry, row):
            d_nodes, d_outer, d_tap = carry
            source, target, x, d_aux = row
            _, pull = jax.vjp(f, tap, at(nodes if outer is None else outer, source), x)
            dt, d_source, dx = pull((at(d_nodes, target), d_aux))
            if outer is None:
                d_nodes = add(d_nodes, source, d_source)
            else:
                d_outer = add(d_outer, source, d_source)
            return (d_nodes, d_outer, jax.tree.map(jnp.add, d_tap, dt)), dx

        start = d_nodes, *jax.tree.map(jnp.zeros_like, (outer, tap))
        (d_nodes, d_outer, d_tap), d_xs = lax.scan(edge, start, (sources, targets, xs, d_auxs), reverse=True)
        return d_nodes, d_outer, d_tap, None, None, d_xs

    walked = jax.custom_vjp(lambda *args: forward(*args)[0])
    walked.defvjp(forward, back)
    return walked(nodes, outer, tap, sources, targets, xs)


class Conv(nn.Module):
    """Dense convolution without bias; He-normal initialisation (fan out of the kernel in)."""

    features: int
    kernel: int | tuple[int, int] = 1
    stride: int | tuple[int, int] = 1
    padding: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=1, out_axis=0)
        k = (self.kernel, self.kernel) if isinstance(self.kernel, int) else self.kernel
        w = parameter(self, "kernel", init, (self.features, x.shape[0], *k), x.dtype)
        return conv(x, w, self.stride, padding=self.padding)


class Depthwise(nn.Module):
    """One k x k filter per channel, without bias."""

    kernel: int
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.normal(np.sqrt(2.0) / self.kernel)
        w = parameter(self, "kernel", init, (x.shape[0], self.kernel, self.kernel), x.dtype)
        return depthwise(x, w, self.stride, self.dilation)


class PlainDense(nn.Dense):
    """x [..., C] -> [..., features], which probes do not see."""

    promote_dtype: Any = to_inputs


class Dense(PlainDense):
    """x [B, C] -> [B, features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return probe.linear(super().__call__(x).T, x.shape[-1]).T


class Logits(Dense):
    """The last layer, x [B, C] -> logits [B, features]: in float32 at the least, whatever it reads."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x.astype(at_least_float32(x.dtype)))


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) over H, W, B; running statistics are kept out of every gradient.

    `train` uses the batch's statistics and moves the running ones by 1 - momentum; otherwise the running ones are used.
    The running variance is the unbiased one, as in PyTorch.  With `defer` the result is an
    `Affine`, to be applied by `apply_norm` or `mix`.  All but the result is float32 at the least.
    """

    affine: bool = True
    momentum: float = 0.9
    epsilon: float = 1e-5

    @overload
    def __call__(self, x: jax.Array, train: bool, defer: Literal[False] = False) -> jax.Array: ...

    @overload
    def __call__(self, x: jax.Array, train: bool, defer: bool) -> Output: ...

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, defer: bool = False) -> Output:
        if not probe.norms():
            return x
        C, n = x.shape[0], x.size // x.shape[0]
        dtype = at_least_float32(x.dtype)
        zeros, ones = (lambda: jnp.zeros(C, dtype)), (lambda: jnp.ones(C, dtype))
        mean, var = self.variable("batch_stats", "mean", zeros), self.variable("batch_stats", "var", ones)
        m, v = mean.value, var.value
        if train:
            maps = x.astype(dtype)
            m = jnp.mean(maps, (1, 2, 3))
            v = jnp.maximum(jnp.mean(jnp.square(maps), (1, 2, 3)) - jnp.square(m), 0)
            if not self.is_initializing():
                keep = self.momentum
                mean.value = keep * mean.value + (1 - keep) * lax.stop_gradient(m)
                var.value = keep * var.value + (1 - keep) * lax.stop_gradient(v) * (n / max(n - 1, 1))
        scale = lax.rsqrt(v + self.epsilon)
        shift = -m * scale
        if self.affine:
            gamma = self.param("scale", nn.initializers.ones, (C,), dtype)
            beta = self.param("bias", nn.initializers.zeros, (C,), dtype)
            scale, shift = scale * gamma, shift * gamma + beta
        y = Affine(x, scale, shift)
        return y if defer else apply_norm(y)
