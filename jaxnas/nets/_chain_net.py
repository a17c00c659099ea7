"""The networks of MetaQNN's chains: one program for any chain, and a plain module for one.

Reference: Baker, Gupta, Naik and Raskar, Designing Neural Network Architectures using Reinforcement Learning, ICLR 2017,
arXiv:1611.02167; what the layers compute is said in `jaxnas.nets.chain_module`.

    stage t   x <- conv_t(x), pool(x) or x        head   the map, its mean, one dense layer or two;  then the classifier

A map fills the top left corner of an array of the image's size, with zeros behind it and in the channels that it lacks.
Every convolution has the largest kernel, masked to its chosen centre, and the largest number of filters, masked to the chosen
ones.  The stages are one compiled body under a scan, so the program does not grow with the limit of layers.  A layer of
convolutions has weights of its own; the dense layers and the classifier have those of their place in the head, wherever it
begins.

Axes: L the limit of layers, A actions, F filters, C channels of a map, N its side, M the side of the largest map that a dense
layer reads, k kernel size, D units, V entries of a vector, B batch, K classes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.base import Key
from jaxnas.checks import Image, checked
from jaxnas.kinds import Positive
from jaxnas.nets import probe
from jaxnas.nets.base import Net, Variables, check_image
from jaxnas.nets.chain_masks import Layout, Masks, all_masks, kinds_of, layout_of, masks_of, to_size
from jaxnas.nets.chain_module import ChainNet, layers_of
from jaxnas.nets.convolution import conv, max_pool, per_channel
from jaxnas.nets.layers import drop, switched, to_net
from jaxnas.nets.precision import at_least_float32, scaled
from jaxnas.spaces._metaqnn import MDP
from jaxnas.spaces._space import Space

Params = dict[str, dict[str, jax.Array]]


def shapes_of(layout: Layout, classes: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """Of the weights."""
    L, C, N, M, V = layout.layers, layout.C, layout.N, layout.dense_side, layout.V
    F, k, D = layout.filters.shape[1], layout.centre.shape[1], layout.units.shape[1]
    return {
        "conv0": {"kernel": (F, layout.image, k, k), "bias": (F,)},
        "convs": {"kernel": (L - 1, F, F, k, k), "bias": (L - 1, F)},  # of the stages behind the first
        "dense0": {"kernel": (C, M, M, D), "bias": (D,)},
        "dense1": {"kernel": (D, D), "bias": (D,)},
        "classifier": {"map": (C, N, N, classes), "vector": (V, classes), "bias": (classes,)},
    }


def parts_of(layout: Layout, m: Masks) -> Params:
    """The 0/1 tree of the weights that take part, which broadcasts to them."""
    F, M = layout.filters.shape[1], layout.dense_side
    side, (one, two) = m.sides[-1], m.units
    maps = m.channels[:, None, None] * jnp.outer(side, side)[None]  # [C, N, N]
    kernels = m.filters[:, :, None, None, None] * m.reads[:, None, :, None, None] * m.kernel[:, None, None]  # [L, F, C, k, k]
    ends = jnp.stack([to_size(a, layout.V) for a in (m.channels, one, two)])  # [3, V]
    return {
        "conv0": {"kernel": kernels[0, :, : layout.image], "bias": m.filters[0]},
        "convs": {"kernel": kernels[1:, :, :F], "bias": m.filters[1:]},
        "dense0": {"kernel": maps[:, :M, :M, None] * one[None, None, None], "bias": one},
        "dense1": {"kernel": jnp.outer(one, two), "bias": two},
        "classifier": {
            "map": m.head[0] * maps[..., None],
            "vector": jnp.max(m.head[1:, None] * ends, 0)[:, None],
            "bias": jnp.ones(1),
        },
    }


def glorot(key: Key, layout: Layout, classes: int, m: Masks) -> Params:
    """Weights uniform within sqrt(6 / (inputs + outputs)) of the layers that take part, as each alone starts; biases 0."""
    parts, N, C = parts_of(layout, m), jnp.sum(m.sides[-1]), jnp.sum(m.channels)
    one, two = jnp.sum(m.units, 1)
    fans = jnp.sum(m.kernel, (1, 2)) * (jnp.sum(m.reads, 1) + jnp.sum(m.filters, 1))  # [L]
    vector = jnp.sum(parts["classifier"]["vector"])
    fan = {
        "conv0": {"kernel": fans[0]},
        "convs": {"kernel": fans[1:, None, None, None, None]},
        "dense0": {"kernel": C * jnp.minimum(N, layout.dense_side) ** 2 + one},
        "dense1": {"kernel": one + two},
        "classifier": {"map": C * N**2 + classes, "vector": vector + classes},
    }
    shapes, names = shapes_of(layout, classes), [(a, b) for a, leaves in fan.items() for b in leaves]
    params = {layer: {name: jnp.zeros(shape) for name, shape in leaves.items()} for layer, leaves in shapes.items()}
    for k, (layer, name) in zip(jax.random.split(key, len(names)), names, strict=True):
        limit = jnp.sqrt(6 / jnp.maximum(fan[layer][name], 1))
        params[layer][name] = limit * jax.random.uniform(k, shapes[layer][name], minval=-1, maxval=1)
    return params


def convolved(x: jax.Array, w: jax.Array, b: jax.Array, kernel: jax.Array, filters: jax.Array) -> jax.Array:
    """relu(conv(x) + b), of the filters and the centre that are there; x and the result [C, N, N, B]."""
    y = conv(x[: w.shape[1]], (w * kernel[None, None]).astype(x.dtype)) + per_channel(b).astype(x.dtype)
    return to_size(scaled(probe.relu(y), per_channel(filters)), len(x))


def pooled(x: jax.Array, *unread: jax.Array, kernel: int, stride: int) -> jax.Array:
    """Maxima of windows, first to last; those that reach over the map's edge are for the caller to hide."""
    del unread
    y = max_pool(x, kernel, stride, padding=0)
    return to_size(to_size(y, x.shape[1], 1), x.shape[2], 2)


def weigh_branches(kinds: jax.Array, branches: Sequence[Callable[..., jax.Array]], *args: jax.Array) -> jax.Array:
    total: Any = sum(scaled(branch(*args), kind) for kind, branch in zip(kinds, branches, strict=True))
    return total


def run_stages(
    layout: Layout, params: Params, x: jax.Array, m: Masks, kinds: jax.Array, path: bool, keys: jax.Array | None
) -> jax.Array:
    """The last map [C, N, N, B] of an image [c, N, N, B]."""
    pools = [partial(pooled, kernel=k, stride=s) for _, k, s in layout.pools]
    branches = [lambda x, *unread: x, convolved, *pools]

    def stage(x, given):
        w, b, kernel, filters, side, kind, rate, key = given
        args = (x, w, b, kernel, filters)
        y = switched(jnp.argmax(kind), branches, *args) if path else weigh_branches(kind, branches, *args)
        y = scaled(y, jnp.outer(side, side)[None, :, :, None])
        return (y if key is None else drop(y, key, rate, y.shape)), None

    given = (params["convs"]["kernel"], params["convs"]["bias"], m.kernel, m.filters, m.sides, kinds, m.rate, keys)
    first = (params["conv0"]["kernel"], params["conv0"]["bias"], *jax.tree.map(lambda a: a[0], given[2:]))
    x, _ = stage(to_size(x, layout.C), first)
    return lax.scan(stage, x, (*given[:2], *jax.tree.map(lambda a: a[1:], given[2:])))[0]


def classified(layout: Layout, params: Params, x: jax.Array, m: Masks, keys: jax.Array | None) -> jax.Array:
    """Logits [B, K] of the last map."""
    M, (one, two), size = layout.dense_side, m.units[:, :, None], jnp.sum(m.sides[-1])
    dropped = lambda y, i: y if keys is None else drop(y, keys[i], m.head_rate[i], y.shape)
    flat = lambda a, dtype: a.reshape(-1, a.shape[-1]).astype(dtype)
    product = lambda w, x: probe.linear(flat(w, x.dtype).T @ flat(x, x.dtype), w[..., 0].size)  # [out, B]
    layer = lambda p, x: probe.relu(product(p["kernel"], x) + p["bias"][:, None].astype(x.dtype))
    dtype = at_least_float32(x.dtype)  # of the logits
    mean = dropped((jnp.sum(x, (1, 2), dtype=dtype) / size**2).astype(x.dtype), 0)  # [C, B]
    h = dropped(scaled(layer(params["dense0"], x[:, :M, :M]), one), 1)  # [D, B]
    ends = (mean, h, dropped(scaled(layer(params["dense1"], h), two), 2))
    x, vector = (y.astype(dtype) for y in (x, weigh_branches(m.head[1:], [partial(to_size, y, layout.V) for y in ends])))
    p = params["classifier"]
    return (m.head[0] * product(p["map"], x) + product(p["vector"], vector) + p["bias"][:, None]).T


def extract(layers: tuple[tuple, ...], layout: Layout, variables: Variables) -> Variables:
    """The variables of one chain's module."""
    p, out = variables["params"], {}
    channels, side, units = layout.image, layout.N, None  # units: None while there is a map
    for i, (kind, *numbers) in enumerate(layers):
        if kind == "conv":
            filters, k = numbers
            stage = p["conv0"] if i == 0 else jax.tree.map(lambda a: a[i - 1], p["convs"])
            size = stage["kernel"].shape[-1]
            centre = slice((size - k) // 2, (size + k) // 2)
            out[f"layer{i}"] = {"kernel": stage["kernel"][:filters, :channels, centre, centre], "bias": stage["bias"][:filters]}
            channels = filters
        elif kind == "pool":
            side = -((numbers[0] - 1 - side) // numbers[1])
        elif kind == "average":
            units = channels
        else:
            [n], dense = numbers, p["dense0" if units is None else "dense1"]
            inputs = (slice(channels), slice(side), slice(side)) if units is None else (slice(units),)
            out[f"layer{i}"] = {"kernel": dense["kernel"][inputs][..., :n].reshape(-1, n), "bias": dense["bias"][:n]}
            units = n
    end = p["classifier"]
    w = end["map"][:channels, :side, :side] if units is None else end["vector"][:units]
    out["classifier"] = {"kernel": w.reshape(-1, w.shape[-1]), "bias": end["bias"]}
    return {"params": out}


@checked
def chain_net(space: Space, *, image: Image, classes: Positive) -> Net:
    """The network of any chain of a space `chain(metaqnn(...))`.  `apply` computes the one of its one-hot gates.

    With `path` it computes only the layers that the chain has, each still of the largest size.  There is dropout in training
    where `apply` is given a key.  `init(key, gates)` starts the weights as the network of that chain alone does, by the inputs
    and outputs of its layers; `init(key)` goes by the largest sizes.

    Args:
        space: `chain(metaqnn(...))`.
        image: (H, W, C) of the examples; H and W are the `image` of `metaqnn`.
        classes: number of classes.

    Raises:
        ValueError: for a space of another kind, convolutions without a centre, another image, or no classes.
    """
    mdp = space.spec
    if not isinstance(mdp, MDP) or {action[0] for action in mdp.meaning} - {"stop", "conv", "pool", "dense", "average"}:
        raise ValueError("a chain net is built of conv, pool, dense and average layers: give it a space `chain(metaqnn(...))`")
    if any(action[0] == "conv" and action[-1] % 2 == 0 for action in mdp.meaning):
        raise ValueError("convolutions keep the size of the image: give `metaqnn` odd kernels")
    check_image(image, classes)
    side = space.spec.size[0]
    if tuple(image[:2]) != (side, side):
        raise ValueError(f"these chains are of images of side {side}: got {image}; give `metaqnn` the side of yours")
    layout = layout_of(space, image)
    L = layout.layers

    def init(key, gates=None):
        return {"params": glorot(key, layout, classes, all_masks(layout) if gates is None else masks_of(layout, gates.action[:L]))}

    def apply(variables, x, gates, *, train, path=False, key=None, t=None):
        del t  # nothing anneals
        x = to_net(x)
        rows = jnp.asarray(gates.action[:L], at_least_float32(x.dtype))
        m = masks_of(layout, rows)
        keys = jax.random.split(key, L + 3) if train and key is not None else None
        at_stage, at_head = (None, None) if keys is None else (keys[:L], keys[L:])
        x = run_stages(layout, variables["params"], x, m, kinds_of(layout, rows), path, at_stage)
        return classified(layout, variables["params"], x, m, at_head), variables

    def used(variables, gates):
        parts = parts_of(layout, masks_of(layout, gates.action[:L]))
        return {"params": jax.tree.map(lambda v, on: on.astype(v.dtype), variables["params"], parts)}

    def specialize(arch):
        layers = layers_of(mdp, arch)
        return ChainNet(layers, classes), partial(extract, layers, layout)

    return Net(init, apply, used, specialize, space, tuple(image), classes, mixes=False)
