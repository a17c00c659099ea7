"""Networks of TuNAS's spaces: one set of weights a layer, the widest, of which an architecture keeps the first channels.

Reference: Bender et al., Can Weight Sharing Outperform Random Architecture Search? An Investigation With TuNAS, CVPR 2020,
arXiv:2008.06120, section 4 (op collapsing, channel masking); the block is that of Sandler et al., MobileNetV2, CVPR 2018.

    x = relu(norm(conv 3 x 3))
    x = (x +) there f(x)              f = norm(project(relu(norm(sum_k kernel_k depthwise_k(relu(norm(expand(x))))))))
    logits = dense(mean over the map of relu(norm(conv 1 x 1)))

The pointwise convolutions are shared by all kernels, and each kernel has depthwise filters of its own.  Of n filters the first n
channels are there: the scale and the shift of the others' norms are 0, and so are these channels, and what reads them adds
nothing.  As a convolution is linear in its filter, the program for any gates is the largest network, with the filters
sum_k kernel_k w_k in the middle of the largest kernel: it costs as much whatever the gates are.

Operations mix (`there`, `kernel`); rows of filters and expansions are one-hot.

Axes: S stages, L layers, C channels, H rows, W columns, B batch.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.checks import Image, checked
from jaxnas.kinds import Positive
from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, check_image, keep_unused, linen, map_named, mask, number
from jaxnas.nets.elastic_ops import ElasticBlock
from jaxnas.nets.layers import BatchNorm, Conv, Depthwise, Logits, Rate, to_net
from jaxnas.spaces._space import Space
from jaxnas.spaces._tunas import Tunas, TunasChoice, TunasSpec

AXES = {  # of a module's largest leaf; a smaller one has the last of them
    "stem": ("outputs", None, None, None),
    "expand": ("hidden", "inputs", None, None),
    "depthwise": ("hidden", None, None),
    "project": ("outputs", "hidden", None, None),
    "head": ("outputs", "inputs", None, None),
    "classifier": ("inputs", None),
    "stem_norm": ("outputs",),
    "expand_norm": ("hidden",),
    "depthwise_norm": ("hidden",),
    "project_norm": ("outputs",),
    "head_norm": ("outputs",),
}


class TunasNet(nn.Module):
    """One network: stem, layers, head.  x is [B, H, W, C], as users hold images; the result is logits [B, classes]."""

    spec: TunasSpec
    classes: int
    choice: TunasChoice

    @nn.compact
    def __call__(self, x: jax.Array, gates: Gates = None, *, train: bool = False, rate: Rate = None) -> jax.Array:
        del gates, rate  # there is nothing to choose, and no path to drop
        spec, filters = self.spec, self.choice.filters
        norm = lambda name: BatchNorm(epsilon=spec.epsilon, name=name)
        x = probe.relu(norm("stem_norm")(Conv(filters[0], 3, spec.stem_stride, name="stem")(to_net(x)), train))
        for i, (layer, choice) in enumerate(zip(spec.layers, self.choice.layers, strict=True)):
            if choice is None:
                continue
            sizes = filters[layer.stage + 1], choice[1] * len(x), choice[0], layer.stride
            y = ElasticBlock(*sizes, None, False, spec.epsilon, expand=layer.expands, name=f"layer{i}")(x, train)
            x = x + y if layer.place else y
        x = probe.relu(norm("head_norm")(Conv(filters[-1], name="head")(x), train))
        return Logits(self.classes, name="classifier")(jnp.mean(x, (1, 2)).T)


def part(names: tuple[str, ...]) -> tuple[str, str, str]:
    """(part of the network, module, leaf) of a variable's names."""
    _, name, module, *leaf = names
    return (name, module, leaf[0]) if leaf else (name.removesuffix("_norm"), name, module)


def channels(spec: TunasSpec, filters: Sequence[Any], hidden: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """part of the network -> {dimension: its entry of `filters` [S + 2] or `hidden` [L]}."""
    out = {"stem": {"outputs": filters[0]}, "classifier": {"inputs": filters[-1]}}
    out["head"] = {"inputs": filters[-2], "outputs": filters[-1]}
    for i, layer in enumerate(spec.layers):
        s = layer.stage
        out[f"layer{i}"] = {"inputs": filters[s + (layer.place > 0)], "hidden": hidden[i], "outputs": filters[s + 1]}
    return out


def fill_gates(gates: Tunas) -> Tunas:
    """The gates, with a 1 for every decision of one value."""
    return Tunas(*(tuple(np.ones(1, np.float32) if row is None else row for row in rows) for rows in gates))


def first_channels(sizes: ArrayLike) -> np.ndarray:
    """bool[n, largest]: the channels that each of n sizes has."""
    return np.arange(np.max(sizes)) < np.asarray(sizes)[..., None]


@checked
def tunas_net(space: Space, *, image: Image, classes: Positive) -> Net:
    """The supernet of a TuNAS space.

    The statistics of what an architecture lacks do not move.

    Args:
        space: `proxylessnas_enlarged()` or your own `tunas(spec)`.
        image: (H, W, C) of the examples.
        classes: number of classes.

    Raises:
        ValueError: for another space, an image smaller than the strides, or sizes below 1.
    """
    spec = space.spec
    if not isinstance(spec, TunasSpec):
        raise ValueError("this space has no filters to search (`space.spec`): give `proxylessnas_enlarged` or `tunas(spec)`")
    check_image(image, classes, spec.stride)
    layers, kernels = spec.layers, spec.kernels
    widest = TunasChoice(tuple(f[0] for f in spec.filters), tuple((kernels[0], layer.expansions[0]) for layer in layers))
    full = TunasNet(spec, classes, widest)

    def init(key, gates=None) -> Any:
        del gates  # all weights are the widest network's
        k_net, *keys = jax.random.split(key, 1 + len(layers))
        variables = full.init(k_net, jnp.zeros((1, *image)), train=True)
        for i, k_layer in enumerate(keys):
            layer = variables["params"][f"layer{i}"]
            x, own = jnp.zeros((len(layer["depthwise"]["kernel"]), 1, 1, 1)), jax.random.split(k_layer, len(kernels))
            filters = {k: Depthwise(k).init(k_own, x)["params"]["kernel"] for k, k_own in zip(kernels, own, strict=True)}
            layer["depthwise"] = {f"k{k}": w for k, w in filters.items()}
        return variables

    def masks(gates):
        """`channels` of the masks; each [C], 0 or 1."""
        wide = [row @ first_channels(sizes) for row, sizes in zip(gates.filters, spec.filters, strict=True)]
        hidden = []
        for layer, row in zip(layers, gates.expand, strict=True):
            s = layer.stage + (layer.place > 0)
            table = first_channels(np.outer(layer.expansions, spec.filters[s]))  # [expansions, filters, hidden]
            hidden.append(jnp.einsum("e,f,efh->h", row, gates.filters[s], table.astype(np.float32)))
        return channels(spec, wide, hidden)

    def used(variables, gates):
        gates = fill_gates(gates)
        on = masks(gates)

        def has(names, v):
            name, module, what = part(names)
            axes = AXES[module][-v.ndim :]
            shape = lambda axis: [-1 if a == axis else 1 for a in range(v.ndim)]
            all_of = [on[name][axis].reshape(shape(a)) > 0 for a, axis in enumerate(axes) if axis]
            if (i := number(name, "layer")) is not None:
                all_of.append(gates.there[i][0] > 0)
                if module == "depthwise":
                    all_of.append(gates.kernel[i][kernels.index(number(what, "k"))] != 0)
            return functools.reduce(jnp.logical_and, all_of, jnp.ones((1,) * v.ndim, bool))

        return mask(has, variables)

    def in_the_widest(variables, gates):
        """The widest network's variables, as `TunasNet` has them, that compute what the gates say."""
        gates = fill_gates(gates)
        on = masks(gates)

        def leaf(names, v):
            name, module, what = part(names)
            if what not in ("scale", "bias") or name == "classifier":
                return v
            there = gates.there[int(name.removeprefix("layer"))][0] if module == "project_norm" else 1
            return v * on[name][AXES[module][0]] * there

        out = map_named(leaf, variables)
        pad = lambda w: jnp.pad(w, ((0, 0), *[((kernels[0] - w.shape[-1]) // 2,) * 2] * 2))
        for i, row in enumerate(gates.kernel):
            layer = out["params"][f"layer{i}"]
            filters = [g * pad(layer["depthwise"][f"k{k}"]) for g, k in zip(row, kernels, strict=True)]
            layer["depthwise"] = {"kernel": functools.reduce(jnp.add, filters)}
        return out

    def compute(variables, x, gates, t, *, train, path, rngs, mutable):
        del t, path, rngs  # nothing anneals, there is one way to run and nothing is drawn
        logits, new = full.apply(in_the_widest(variables, gates), x, train=train, mutable=mutable)
        old = {name: variables[name] for name in new}
        return logits, keep_unused(used(old, gates), new, old)

    def specialize(arch):
        choice = space.choice(arch)
        there = {f"layer{i}": sizes for i, sizes in enumerate(choice.layers) if sizes is not None}
        inputs = [choice.filters[layer.stage + (layer.place > 0)] for layer in layers]
        sizes = channels(spec, choice.filters, [c and c[1] * n for c, n in zip(choice.layers, inputs, strict=True)])

        def extract(variables):
            def leaf(names, v):
                name, module, _ = part(names)
                return v[tuple(slice(sizes[name][axis]) if axis else slice(None) for axis in AXES[module][-v.ndim :])]

            kept = lambda trees: {name: tree for name, tree in trees.items() if number(name, "layer") is None or name in there}
            small = {collection: kept(trees) for collection, trees in variables.items()}
            for name, (kernel, _) in there.items():
                layer = small["params"][name]
                small["params"][name] = {**layer, "depthwise": {"kernel": layer["depthwise"][f"k{kernel}"]}}
            return map_named(leaf, small)

        return full.clone(choice=choice), extract

    macs = tunas_macs(spec, image, classes)
    net = linen(full, space, image, classes, used=used, specialize=specialize, compute=compute)
    return net._replace(init=init, macs=macs)


def tunas_macs(spec: TunasSpec, image: tuple[int, int, int], classes: int) -> Callable[[Tunas], jax.Array]:
    """`Net.macs`: gates -> [].  A layer's are a product of decisions, so no table of single ones has them."""
    smaller = lambda size, stride: [-(-n // stride) for n in size]

    def macs(gates: Tunas):
        gates = fill_gates(gates)
        mean = lambda row, values, power=1: jnp.dot(row, np.asarray(values, np.float32) ** power)
        wide, square = ([mean(row, sizes, p) for row, sizes in zip(gates.filters, spec.filters, strict=True)] for p in (1, 2))
        size = smaller(image[:2], spec.stem_stride)
        total = math.prod(size) * 9.0 * image[2] * wide[0]
        for i, layer in enumerate(spec.layers):
            s, before, size = layer.stage, math.prod(size), smaller(size, layer.stride)
            at = s + (layer.place > 0)
            both = square[at] if layer.place else wide[at] * wide[s + 1]  # what it reads times what it writes
            taps = mean(gates.kernel[i], spec.kernels, 2) * wide[at] + both
            each = before * layer.expands * square[at] + math.prod(size) * taps
            total = total + gates.there[i][0] * mean(gates.expand[i], layer.expansions) * each
        return total + (math.prod(size) * wide[-2] + classes) * wide[-1]

    return macs
