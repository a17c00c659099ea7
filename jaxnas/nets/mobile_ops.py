"""Layers of the mobile supernet: all candidates mixed, or a few paths of which one is in memory.

References: Sandler et al., MobileNetV2, CVPR 2018, arXiv:1801.04381 (the block); Cai, Zhu and Han, ProxylessNAS, ICLR 2019,
arXiv:1812.00332, section 3.2 (the paths).

    f(x) = norm(project(act(norm(depthwise(act(norm(expand(x))))))))      no expand where the expansion is 1
    y    = sum_i g_i f_i(x)                                               f = 0 for zero and skip

With groups the channels are shuffled before the depthwise convolution.  A layer's gates are a row [O], or `Paths`: n candidates
by index, of which the first is active.

    row, path=False    all candidates, mixed
    row, path=True     the one of the largest gate
    Paths              dL/dx and dL/dparams through f_index[0] alone;  dL/dweight[k] = <dL/dy, f_index[k](x)> for every k

For the last, the other candidates are run for their value: nothing of their insides is kept for the backward pass, and their
running statistics do not move.  The active one is run again in the backward pass (`layers.switched`), so that a layer keeps its
input only.

Axes: O candidates of a layer, n paths, C channels, H rows, W columns, B batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.nets import probe
from jaxnas.nets.convolution import conv
from jaxnas.nets.fences import fence
from jaxnas.nets.layers import BatchNorm, Depthwise, Output, apply_norm, mix, shuffle, switched
from jaxnas.nets.precision import parameter, scaled
from jaxnas.spaces._mobile import MobileLayer, MobileSpec, block
from jaxnas.trees import loop


class Paths(NamedTuple):
    """A layer's gates sum_k weight[k] onehot(index[k]), computed for these candidates only; the first is active."""

    index: jax.Array  # int32[n]
    weight: jax.Array  # float[n]


RunFn = Callable[[str, Any, Any, jax.Array], tuple[Output, Any]]  # (op, params, stats, x) -> (its output, the stats of all)


class Pointwise(nn.Module):
    """1 x 1 convolution in groups, initialised as `layers.Conv`."""

    features: int
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=1, out_axis=0)
        w = parameter(self, "kernel", init, (self.features, x.shape[0] // self.groups, 1, 1), x.dtype)
        parts = zip(jnp.split(x, self.groups), jnp.split(w, self.groups), strict=True)
        return jnp.concatenate([conv(*part) for part in parts]) if self.groups > 1 else conv(x, w)


def activation(relu6: bool) -> Callable[[jax.Array], jax.Array]:
    """The activation of a mobile net."""
    return lambda x: probe.relu(x, nn.relu6 if relu6 else nn.relu)


class MBConv(nn.Module):
    """An inverted bottleneck without its shortcut; the last norm is not applied yet (`layers.Affine`)."""

    outputs: int
    kernel: int
    expansion: int
    groups: int
    stride: int
    relu6: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Output:
        act = activation(self.relu6)
        norm = lambda name: BatchNorm(epsilon=self.epsilon, name=name)
        if self.expansion > 1:
            x = act(norm("expand_norm")(Pointwise(self.expansion * x.shape[0], self.groups, name="expand")(x), train))
        x = shuffle(x, self.groups)
        x = act(norm("depthwise_norm")(Depthwise(self.kernel, self.stride, name="depthwise")(x), train))
        return norm("project_norm")(Pointwise(self.outputs, self.groups, name="project")(x), train, defer=True)


def mobile_block(spec: MobileSpec, layer: MobileLayer, op: str, **kw: Any) -> MBConv:
    """A layer's candidate that is a block."""
    made: Any = block(op)
    return MBConv(layer.outputs, made.kernel, made.expansion, made.groups, layer.stride, spec.relu6, spec.epsilon, **kw)


def mixture(run: RunFn, ops: Sequence[str], gate: jax.Array, params: Any, stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    """Every candidate, weighed; the statistics of all of them move."""
    weights, ys, x = [], [], fence(x)
    for k, op in enumerate(ops):
        if block(op):
            y, stats = run(op, params, stats, x)
            weights, ys = [*weights, gate[k]], [*ys, y]
    return mix(weights, ys), stats


def single(run: RunFn, ops: Sequence[str], paths: Paths, params: Any, stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    """The active path, which moves; the others for their value."""

    def branch(op):
        def compute(params, stats, x):
            if block(op) is None:
                return jnp.zeros_like(x), stats
            y, moved = run(op, params, stats, x)
            return apply_norm(y), moved

        return compute

    branches = [branch(op) for op in ops]
    y, moved = switched(paths.index[0], branches, params, stats, x)
    y = scaled(y, paths.weight[0])
    if len(others := paths.index[1:]):
        fixed = lax.stop_gradient((params, stats, x))
        _, ys = loop(lambda _, k: (None, lax.switch(k, branches, *fixed)[0]), None, others)  # [n - 1, C, H, W, B]
        y = y + jnp.tensordot(paths.weight[1:], ys, 1).astype(y.dtype)
    return y, moved


class SuperLayer(nn.Module):
    """All candidates of a layer, without the shortcut; each one's variables are under its name."""

    spec: MobileSpec
    layer: MobileLayer

    @nn.compact
    def __call__(self, x: jax.Array, gate: jax.Array | Paths, train: bool, path: bool) -> jax.Array:
        """x [C, H, W, B], gate [O] or Paths."""
        made = {op: mobile_block(self.spec, self.layer, op, parent=None) for op in self.layer.ops if block(op)}
        if self.is_initializing():
            for op, module in made.items():
                for collection, tree in module.init(self.make_rng("params"), x, True).items():
                    self.put_variable(collection, op, tree)

        def run(op, params, stats, x):
            """One candidate's output, and the statistics of all, of which its own have moved."""
            variables = {"params": params[op], "batch_stats": stats[op]}
            y, new = made[op].apply(variables, x, train, mutable=["batch_stats"])
            return y, {**stats, op: new["batch_stats"]}

        if path and not isinstance(gate, Paths):
            first = jnp.argmax(gate)[None]
            gate = Paths(first, jnp.asarray(gate)[first])
        params, stats = ({op: self.get_variable(collection, op) for op in made} for collection in ("params", "batch_stats"))
        if isinstance(gate, Paths):
            y, stats = single(run, self.layer.ops, gate, params, stats, x)
        else:
            y, stats = mixture(run, self.layer.ops, gate, params, stats, x)
        if train and not self.is_initializing():
            for op, moved in stats.items():
                self.put_variable("batch_stats", op, moved)
        return y
