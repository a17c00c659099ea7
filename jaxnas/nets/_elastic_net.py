"""Networks of the elastic spaces: every architecture is a part of the largest one's weights.

Reference: Cai, Gan, Wang, Zhang and Han, Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR 2020,
arXiv:1908.09791.

    x = act(norm(conv 3 x 3))                    (then one fixed separable convolution, where the spec has it)
    x = (x +) f(x)                               the first d_u layers of each unit; x where it keeps the shape
    logits = dense(act(dense(mean over the map of act(norm(conv 1 x 1)))))

The program for any architecture is the largest network, with zeros for the weights that the architecture lacks (then its norms'
scale and shift are 0 too, and so is the channel, or the layer) and with small filters in the middle of large ones.  Images are
resized inside, to one of a static list of sizes.  Dropout before the classifier is left out.

Axes: U units, D layers of a unit, K kernels, E expansions, R resolutions, C channels, H rows, W columns, B batch.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import Image, checked
from jaxnas.kinds import Positive
from jaxnas.nets.base import Gates, Net, Variables, check_image, keep_unused, linen, map_named, mask
from jaxnas.nets.elastic_ops import (
    READERS,
    ElasticBlock,
    elastic_block,
    filters,
    filters_in_one,
    growths,
    masks,
    name_of,
    narrowed,
    permuted,
)
from jaxnas.nets.layers import BatchNorm, Conv, Dense, Logits, Rate, switched, to_net
from jaxnas.spaces._elastic import Elastic, ElasticSpec, largest
from jaxnas.spaces._space import Space


class ElasticNet(nn.Module):
    """Stem, layers, head.  x is [B, H, W, C], as users hold images; the result is logits [B, classes]."""

    spec: ElasticSpec
    classes: int
    units: tuple[tuple[tuple[int, int], ...], ...]  # (kernel, expansion) of the layers that are there
    size: int | None  # what images are resized to

    @nn.compact
    def __call__(self, x: jax.Array, gates: Gates = None, *, train: bool = False, rate: Rate = None) -> jax.Array:
        del gates, rate  # there is nothing to choose, and no path to drop
        spec, act = self.spec, jax.nn.hard_swish
        if self.size is not None and x.shape[1:3] != (self.size, self.size):
            x = jax.image.resize(x, (x.shape[0], self.size, self.size, x.shape[3]), "bilinear")
        norm = lambda name: BatchNorm(epsilon=spec.epsilon, name=name)
        x = act(norm("stem_norm")(Conv(spec.stem, 3, spec.stem_stride, name="stem")(to_net(x)), train))
        if spec.fixed is not None:
            y = ElasticBlock(spec.fixed, spec.stem, 3, 1, None, False, spec.epsilon, expand=False, name="fixed")(x, train)
            x = x + y if spec.fixed == spec.stem else y
        layers = spec.layers
        for u, unit in enumerate(self.units):
            for i, choice in enumerate(unit):
                y = elastic_block(spec, layers[u, i], *choice, name=name_of(u, i))(x, train)
                x = x + y if layers[u, i].keeps else y
        x = jnp.mean(act(norm("head_norm")(Conv(spec.head, name="head")(x), train)), (1, 2)).T
        if spec.features is not None:
            x = act(Dense(spec.features, use_bias=False, name="features")(x))
        return Logits(self.classes, name="classifier")(x)


@checked
def elastic_net(space: Space, *, image: Image, classes: Positive) -> Net:
    """The network of any architecture of an elastic space; gates are one-hot.

    The statistics of what an architecture lacks do not move.

    Args:
        space: `ofa_mobilenet_v3()`, `ofa_small()` or your own `elastic(spec)`.
        image: (H, W, C) of the examples.
        classes: number of classes.

    Raises:
        ValueError: for another space, an image smaller than the strides, or sizes below 1.
    """
    spec = _spec(space, image, classes)
    full = ElasticNet(spec, classes, *space.choice(largest(space)))
    growth = growths(spec)

    def init(key, gates=None):
        variables = net.init(key, gates)
        for name in growth:
            weights = variables["params"][name]["depthwise"]
            weights.update({f"to{k}": jnp.eye(k * k, dtype=weights["kernel"].dtype) for k in spec.kernels[1:]})
        return variables

    def used(variables, gates):
        has = {name: masks(spec, g, gates) for name, g in growth.items()}

        def on(names, v):
            _, layer, *within = names
            if layer not in has:
                return jnp.ones(())
            module, name = within
            return has[layer](module, name, v.ndim)

        return mask(on, variables)

    def compute(variables, x, gates, t, *, train, path, rngs, mutable):
        del t, path, rngs  # nothing anneals, there is one way to run and nothing is drawn
        on = used(variables, gates)
        active = jax.tree.map(jnp.multiply, variables, on)
        for name, g in growth.items():
            weights = active["params"][name]["depthwise"]
            gate = gates.kernel[g.unit, g.place]
            active["params"][name]["depthwise"] = {"kernel": filters_in_one(weights, spec.kernels, gate)}

        def at(size):
            run = full.clone(size=size).apply
            return lambda active, x: run(active, x, train=train, mutable=mutable)

        if gates.resolution is None:
            logits, new = at(full.size)(active, x)
        else:
            logits, new = switched(jnp.argmax(gates.resolution), [at(size) for size in spec.resolutions], active, x)
        return logits, keep_unused(on, new, variables)

    def specialize(arch):
        units, size = space.choice(arch)
        there = {name: g for name, g in growth.items() if g.place < len(units[g.unit])}

        def extract(variables):
            on = lambda trees: {name: tree for name, tree in trees.items() if name not in growth or name in there}
            small = {collection: on(trees) for collection, trees in variables.items()}
            for name, g in there.items():
                kernel, expansion = units[g.unit][g.place]
                weights, expand = small["params"][name], spec.expansions.index(expansion)
                filter = filters(weights["depthwise"], spec.kernels)[spec.kernels.index(kernel)]  # and no matrices
                small["params"][name] = {**weights, "depthwise": {"kernel": filter}}
                leaf = lambda names, v: narrowed(g, expand, names[0], names[1], v)
                for trees in small.values():
                    trees[name] = map_named(leaf, trees[name])
            return small

        return full.clone(units=units, size=size), extract

    macs = elastic_macs(spec, image, classes)
    net = linen(full, space, image, classes, used=used, specialize=specialize, compute=compute, mixes=False)
    return net._replace(init=init, macs=macs)


@checked
def sort_channels(net: Net, variables: Variables, widths: Positive = 1) -> Variables:
    """The same largest network, with the hidden and the squeezed channels of each layer in order of importance.

    A channel's importance is the L1 norm of what the next convolution reads it with.  Every tensor that has the channel is
    permuted: the full network's output does not change, and a narrow one's channels are now the important ones.

    Args:
        net: `elastic_net(...)`.
        variables: of it.
        widths: how many of the expansions are in use; channels stay between the same two of them, so that these networks do
            not change either.

    Raises:
        ValueError: for another net, or for more widths than there are expansions.
    """
    spec = _spec(net.space, net.image, net.classes)
    if not 1 <= widths <= len(spec.expansions):
        raise ValueError(f"`widths` is how many of the {len(spec.expansions)} expansions are in use; got {widths}")
    out = {collection: dict(trees) for collection, trees in variables.items()}
    for name, g in growths(spec).items():
        order = {}
        for dimension, (module, axis) in READERS.items():
            if dimension in g.table:
                w = variables["params"][name][module]["kernel"]
                importance = jnp.sum(jnp.abs(w), tuple(a for a in range(w.ndim) if a != axis))
                beyond = np.sum(~g.table[dimension][1][:widths], 0)  # [channels]: how many of the widths are too narrow for it
                order[dimension] = jnp.lexsort((-importance, beyond))
        leaf = lambda names, v: permuted(order, names[0], names[1], v)
        for collection in out:
            out[collection][name] = map_named(leaf, out[collection][name])
    return out


def elastic_macs(spec: ElasticSpec, image: tuple[int, int, int], classes: int) -> Callable[[Elastic], jax.Array]:
    """`Net.macs`: gates -> [], the mean over resolutions of what is fixed and of the layers that are there."""
    U, D, sizes = len(spec.units), spec.depths[0], [(r, r) for r in spec.resolutions] or [image[:2]]
    base = np.zeros(len(sizes))
    table = np.zeros((len(sizes), U, D, len(spec.kernels), len(spec.expansions)))
    smaller = lambda size, stride: [-(-n // stride) for n in size]
    first = spec.stem if spec.fixed is None else spec.fixed
    for r, size in enumerate(sizes):
        size = smaller(size, spec.stem_stride)
        base[r] = np.prod(size) * (9 * image[2] * spec.stem + (0 if spec.fixed is None else (9 + first) * spec.stem))
        for at, layer in spec.layers.items():
            before, size = np.prod(size), smaller(size, layer.stride)
            hidden = np.asarray(spec.expansions) * layer.inputs  # [E]
            squeeze = np.asarray([2 * h * spec.squeezed(h) if layer.se else 0 for h in hidden])
            taps = np.square(spec.kernels)[:, None] + layer.outputs  # [K, 1]
            table[r][at] = hidden * (before * layer.inputs + np.prod(size) * taps) + squeeze
        last = spec.head if spec.features is None else spec.features
        base[r] += spec.head * (np.prod(size) * spec.units[-1].channels + (spec.features or 0)) + last * classes

    base, table = base.astype(np.float32), table.astype(np.float32)
    deep = (np.arange(D) < np.asarray(spec.depths)[:, None]).astype(np.float32)  # [depths, D]

    def macs(gates: Elastic):
        size = np.ones(1, np.float32) if gates.resolution is None else gates.resolution  # [R]
        there = jnp.sum(gates.depth[..., None] * deep[None], 1)  # [U, D]
        both = gates.kernel[..., None] * gates.expand[..., None, :]  # [U, D, K, E]
        each = jnp.sum(table * both[None] * size[:, None, None, None, None], (0, 3, 4))  # [U, D]
        return jnp.sum(base * size) + jnp.sum(there * each)

    return macs


def _spec(space, image, classes) -> ElasticSpec:
    spec = space.spec
    if not isinstance(spec, ElasticSpec):
        raise ValueError("this space has no elastic layers (`space.spec`): give `ofa_mobilenet_v3`, `ofa_small` or `elastic(spec)`")
    check_image(image, classes)
    side = min(spec.resolutions, default=min(image[:2]))
    if side < spec.stride:
        raise ValueError(
            f"images have a side of {side}, but the strides of this space multiply to {spec.stride}: give at least that"
        )
    return spec
