"""Layers of elastic networks, and which of their weights grow with what.

References: Cai et al., Once-for-All, ICLR 2020, arXiv:1908.09791, section 3.3; the block is that of Howard et al., Searching
for MobileNetV3, ICCV 2019, arXiv:1905.02244.

    f(x) = norm(project(se(act(norm(depthwise(act(norm(expand(x)))))))))
    se(y) = y hard_sigmoid(excite(relu(squeeze(mean of y over the map))))

    width    the first e C of the hidden channels, the first round(e C / 4) of the squeezed ones
    kernel   w_(j+1) = M_j centre(w_j) of the next smaller size, channel by channel, on its k k values in a row: the centre of a
             filter is transformed, then its centre in turn; one M_j a layer, the identity at the start
    depth    a layer is there, or all of it is absent

`AXES` names the dimension of every axis of every weight, and `Growth.table` says which of its entries each choice has.  All else
(`masks`, `narrowed`, `permuted`) follows from these two.

Axes: C channels, H rows, W columns, B batch, K kernels, E expansions.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.nets import probe
from jaxnas.nets.layers import BatchNorm, Conv, Dense, Depthwise
from jaxnas.spaces._elastic import Elastic, ElasticLayer, ElasticSpec

AXES = {  # of a module's largest leaf; a bias has the last of them
    "expand": ("hidden", None, None, None),
    "expand_norm": ("hidden",),
    "depthwise": ("hidden", "side", "side"),
    "depthwise_norm": ("hidden",),
    "squeeze": ("hidden", "squeezed"),
    "excite": ("squeezed", "hidden"),
    "project": (None, "hidden", None, None),
    "project_norm": (None,),
}
READERS = {"hidden": ("project", 1), "squeezed": ("excite", 0)}  # who reads a dimension's channels next, along which axis


class ElasticBlock(nn.Module):
    """An inverted bottleneck without its shortcut."""

    outputs: int
    hidden: int
    kernel: int
    stride: int
    squeezed: int | None  # None: no squeeze and excitation
    swish: bool
    epsilon: float
    expand: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        act = jax.nn.hard_swish if self.swish else probe.relu
        norm = lambda name: BatchNorm(epsilon=self.epsilon, name=name)
        if self.expand:
            x = act(norm("expand_norm")(Conv(self.hidden, name="expand")(x), train))
        x = act(norm("depthwise_norm")(Depthwise(self.kernel, self.stride, name="depthwise")(x), train))
        if self.squeezed is not None:
            s = nn.relu(Dense(self.squeezed, name="squeeze")(jnp.mean(x, (1, 2)).T))
            s = jax.nn.hard_sigmoid(Dense(self.hidden, name="excite")(s))  # [B, hidden]
            x = x * s.T[:, None, None]
        return norm("project_norm")(Conv(self.outputs, name="project")(x), train)


def elastic_block(spec: ElasticSpec, layer: ElasticLayer, kernel: int, expansion: int, **kw: Any) -> ElasticBlock:
    hidden = expansion * layer.inputs
    squeezed = spec.squeezed(hidden) if layer.se else None
    return ElasticBlock(layer.outputs, hidden, kernel, layer.stride, squeezed, layer.swish, spec.epsilon, **kw)


class WeightGrowth(NamedTuple):
    """How a layer's weights grow."""

    unit: int
    place: int
    table: dict[str, tuple[str, np.ndarray]]  # dimension -> (the decision it follows, bool[values, size])


def growths(spec: ElasticSpec) -> dict[str, WeightGrowth]:
    """Those of the layers, by name."""
    first = lambda sizes: np.arange(max(sizes)) < np.asarray(sizes)[:, None]
    sides = [_centre(spec.kernels[0], spec.kernels[min(j, 1)]) for j in range(len(spec.kernels))]
    matrices = {}
    for j, k in enumerate(spec.kernels[1:], 1):  # the rows that are read: all to stop here, the next centre to go on
        rows = [np.zeros((k, k), bool)] * j + [np.ones((k, k), bool)]
        if j + 1 < len(spec.kernels):
            c = _centre(k, spec.kernels[j + 1])
            rows += [np.outer(c, c)] * (len(spec.kernels) - j - 1)
        matrices[f"to{k}"] = ("kernel", np.stack(rows).reshape(len(rows), k * k))
    out = {}
    for (u, i), layer in spec.layers.items():
        hidden = [e * layer.inputs for e in spec.expansions]
        table = {"hidden": ("expand", first(hidden)), "side": ("kernel", np.stack(sides)), **matrices}
        if layer.se:
            table["squeezed"] = ("expand", first([spec.squeezed(h) for h in hidden]))
        out[name_of(u, i)] = WeightGrowth(u, i, table)
    return out


def name_of(unit: int, place: int) -> str:
    return f"unit{unit}_layer{place}"


def dimensions(module: str, leaf: str, ndim: int) -> tuple[str | None, ...]:
    """The dimension of each axis of a leaf; None: it does not grow."""
    return (leaf, None) if leaf.startswith("to") else AXES[module][-ndim:]


def masks(spec: ElasticSpec, growth: WeightGrowth, gates: Elastic) -> Callable[[str, str, int], jax.Array]:
    """(module, leaf, ndim) -> 0/1, what an architecture has of it, to be broadcast."""
    at = growth.unit, growth.place
    deep = np.asarray(spec.depths) > growth.place
    there = jnp.sum(gates.depth[growth.unit] * deep)
    rows = {dimension: getattr(gates, field)[at] @ table.astype(np.float32) for dimension, (field, table) in growth.table.items()}

    def mask(module, leaf, ndim):
        names = dimensions(module, leaf, ndim)
        shape = lambda axis: [-1 if a == axis else 1 for a in range(ndim)]
        shaped = [rows[name].reshape(shape(axis)) for axis, name in enumerate(names) if name]
        return functools.reduce(jnp.multiply, shaped, there.reshape((1,) * ndim))

    return mask


def narrowed(growth: WeightGrowth, expand: int, module: str, leaf: str, v: jax.Array) -> jax.Array:
    """The channels of a leaf that the layer has at one of its expansions."""
    kept = {name: np.flatnonzero(growth.table[name][1][expand]) for name in READERS if name in growth.table}
    return permuted(kept, module, leaf, v)


def permuted(order: dict[str, Any], module: str, leaf: str, v: jax.Array) -> jax.Array:
    """A leaf with these channels, dimension -> their indices, in that order."""
    for axis, name in enumerate(dimensions(module, leaf, v.ndim)):
        if name in order:
            v = jnp.take(v, order[name], axis)
    return v


def filters(weights: Mapping[str, jax.Array], kernels: tuple[int, ...]) -> list[jax.Array]:
    """The depthwise filters of all sizes, [hidden, k, k] each, of the largest ones and the matrices."""
    out = [weights["kernel"]]
    for k in kernels[1:]:
        c = (out[-1].shape[-1] - k) // 2
        inner = out[-1][:, c : c + k, c : c + k].reshape(-1, k * k)
        out.append((inner @ weights[f"to{k}"].T).reshape(-1, k, k))
    return out


def filters_in_one(weights: Mapping[str, jax.Array], kernels: tuple[int, ...], gate: jax.Array) -> jax.Array:
    """The filters of the gate's size [K], in the largest size."""
    pad = lambda w: jnp.pad(w, ((0, 0), *[((kernels[0] - w.shape[-1]) // 2,) * 2] * 2))
    total: Any = sum(g * pad(w) for g, w in zip(gate, filters(weights, kernels), strict=True))
    return total


def _centre(k: int, inner: int):
    return abs(2 * np.arange(k) + 1 - k) < inner
