"""Networks of the layer-wise space: one program for any architecture, and a plain module for one.

Reference: Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv:1611.01578.

    layer  = BatchNorm(relu(conv(inputs)))        logits = dense(mean over the map of what nobody reads)

In the program for any architecture every kernel has the largest size and is masked to its chosen centre, every layer has the
largest number of filters and is masked to the chosen ones, and each possible input has its slot of channels, zero where it is
not read.  With strides a map fills the top left corner of an array of the image's size, with zeros behind it: that is what
"padded to the largest" means.  The paper leaves open what the classifier does to a map; here it averages.

Axes: L layers, F the largest number of filters, B batch, C channels of the image, H rows, W columns, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.checks import Image, checked
from jaxnas.kinds import Positive
from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, check_image, linen, map_named, mask, number
from jaxnas.nets.convolution import conv, per_channel
from jaxnas.nets.layers import BatchNorm, Conv, Logits, Rate, to_net
from jaxnas.nets.precision import at_least_float32, parameter, scaled
from jaxnas.spaces._layerwise import LayerChoice, LayerSpec
from jaxnas.spaces._space import Space, is_shape


class LayerMasks(NamedTuple):
    """What an architecture has, as 0 and 1."""

    kernel: list  # L of [largest height, largest width]
    filters: list  # L of [F]
    reads: list  # L of [1 + i]: the image, then the earlier layers
    last: jax.Array  # [L]: those that nobody reads


def layer_masks(spec: LayerSpec, gates: Gates) -> LayerMasks:
    first = lambda sizes: (np.arange(max(sizes)) < np.asarray(sizes)[:, None]).astype(np.float32)
    centre = lambda sizes: (abs(2 * np.arange(max(sizes)) + 1 - max(sizes)) < np.asarray(sizes)[:, None]).astype(np.float32)
    skips = [jnp.zeros(0, layer.height.dtype) if layer.skip is None else layer.skip[:, 1] for layer in gates]
    read = jnp.stack([jnp.pad(s, (0, spec.layers - len(s))) for s in skips])  # [L, L]
    return LayerMasks(
        kernel=[jnp.outer(layer.height @ centre(spec.heights), layer.width @ centre(spec.widths)) for layer in gates],
        filters=[layer.filters @ first(spec.filters) for layer in gates],
        reads=[jnp.concatenate([1 - jnp.max(s, initial=0, keepdims=True), s]) for s in skips],
        last=1 - jnp.max(read, 0),
    )


def channels_read(masks: LayerMasks, i: int, image_channels: int) -> jax.Array:
    """[C + i F]: the input channels of layer i that are not always zero."""
    image, *layers = masks.reads[i]
    return jnp.concatenate([jnp.repeat(image, image_channels), *[r * f for r, f in zip(layers, masks.filters, strict=False)]])


def strided(a: jax.Array, axis: int, gate: jax.Array, strides: tuple[int, ...]) -> jax.Array:
    """Every s-th entry along an axis, moved to its start, zeros behind them."""
    if strides == (1,):
        return a
    total = jnp.zeros_like(a)
    for g, s in zip(gate, strides, strict=True):
        pad = [(0, 0)] * a.ndim
        pad[axis] = (0, a.shape[axis] - -(-a.shape[axis] // s))
        total = total + scaled(jnp.pad(lax.slice_in_dim(a, 0, a.shape[axis], s, axis), pad), g)
    return total


class MaskedConv(nn.Module):
    """A convolution of stride 1, masked to a centre of its kernel; initialised as `layers.Conv` of the largest size."""

    features: int
    kernel: tuple[int, int]

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=1, out_axis=0)
        w = parameter(self, "kernel", init, (self.features, x.shape[0], *self.kernel), x.dtype)
        return conv(x, scaled(w, mask[None, None]))


class AnyNorm(nn.Module):
    """`layers.BatchNorm` over the part of a map that is there; its variables are those of `layers.BatchNorm`."""

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array, train: bool) -> jax.Array:
        """x [F, H, W, B], zero outside; inside [1, H, W, 1]."""
        F, n = x.shape[0], jnp.sum(inside) * x.shape[-1]
        out, dtype = x.dtype, at_least_float32(x.dtype)
        x, zeros, ones = x.astype(dtype), (lambda: jnp.zeros(F, dtype)), (lambda: jnp.ones(F, dtype))
        mean, var = self.variable("batch_stats", "mean", zeros), self.variable("batch_stats", "var", ones)
        m, v = mean.value, var.value
        if train:
            m = jnp.sum(x, (1, 2, 3)) / n
            v = jnp.maximum(jnp.sum(jnp.square(x), (1, 2, 3)) / n - jnp.square(m), 0)
            if not self.is_initializing():
                keep = self.momentum
                mean.value = keep * mean.value + (1 - keep) * lax.stop_gradient(m)
                var.value = keep * var.value + (1 - keep) * lax.stop_gradient(v) * (n / jnp.maximum(n - 1, 1))
        gamma = self.param("scale", nn.initializers.ones, (F,), dtype)
        beta = self.param("bias", nn.initializers.zeros, (F,), dtype)
        scale = lax.rsqrt(v + self.epsilon) * gamma
        return (x * per_channel(scale) + per_channel(beta - m * scale)).astype(out)


class AnyLayerNet(nn.Module):
    """The network of any architecture of the space.  x is [B, H, W, C], as users hold images; the result is logits [B, K]."""

    spec: LayerSpec
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, gates: Gates, *, train: bool = False, path: bool = False) -> jax.Array:
        del path  # there is one way to run
        spec, x = self.spec, to_net(x)
        _, H, W, _ = x.shape
        F, size = max(spec.filters), (max(spec.heights), max(spec.widths))
        dtype = at_least_float32(x.dtype)
        gates = jax.tree.map(lambda g: jnp.asarray(g, dtype), gates)
        masks = layer_masks(spec, gates)
        maps, rows, columns = [x], [jnp.ones(H, dtype)], [jnp.ones(W, dtype)]  # the image and the layers; where they are
        largest = lambda read, sizes: jnp.max(jnp.stack([r * size for r, size in zip(read, sizes, strict=True)]), 0)
        for i, layer in enumerate(gates):
            read, by_height, by_width = masks.reads[i], (layer.stride_height, spec.strides), (layer.stride_width, spec.strides)
            y = jnp.concatenate([scaled(m, r) for r, m in zip(read, maps, strict=True)], 0)
            y = MaskedConv(F, size, name=f"conv{i}")(y, masks.kernel[i])
            y = strided(strided(y, 1, *by_height), 2, *by_width)
            height, width = strided(largest(read, rows), 0, *by_height), strided(largest(read, columns), 0, *by_width)
            inside = jnp.outer(height, width)[None, :, :, None]
            y = AnyNorm(name=f"norm{i}")(scaled(probe.relu(y), inside), inside, train)
            maps.append(scaled(scaled(y, inside), per_channel(masks.filters[i])))
            rows.append(height)
            columns.append(width)
        pixels = jnp.sum(largest(masks.last, rows[1:])) * jnp.sum(largest(masks.last, columns[1:]))
        sums = [last * jnp.sum(m, (1, 2), dtype=dtype) for last, m in zip(masks.last, maps[1:], strict=True)]
        return Logits(self.classes, name="classifier")(jnp.concatenate(sums).T / pixels)


class LayerNet(nn.Module):
    """The network of one architecture."""

    layers: tuple[LayerChoice, ...]
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, gates: Gates = None, *, train: bool = False, rate: Rate = None) -> jax.Array:
        del gates, rate  # there is nothing to choose, and no path to drop
        maps = [to_net(x)]
        for i, layer in enumerate(self.layers):
            y = together([maps[1 + j] for j in layer.inputs] or maps[:1])
            y = Conv(layer.filters, layer.kernel, layer.stride, name=f"conv{i}")(y)
            maps.append(BatchNorm(name=f"norm{i}")(probe.relu(y), train))
        last = together([maps[1 + i] for i in unread(self.layers)])
        return Logits(self.classes, name="classifier")(jnp.mean(last, (1, 2)).T)


def together(maps: Sequence[jax.Array]) -> jax.Array:
    """Concatenation along depth; smaller maps are padded with zeros."""
    H, W = max(m.shape[1] for m in maps), max(m.shape[2] for m in maps)
    return jnp.concatenate([jnp.pad(m, ((0, 0), (0, H - m.shape[1]), (0, W - m.shape[2]), (0, 0))) for m in maps], 0)


def unread(layers: tuple[LayerChoice, ...]) -> tuple[int, ...]:
    """The layers that no layer reads: the classifier does."""
    read = {j for layer in layers for j in layer.inputs}
    return tuple(i for i in range(len(layers)) if i not in read)


@checked
def layer_net(space: Space, *, image: Image, classes: Positive) -> Net:
    """The network of any architecture of a layer-wise space.  `apply` computes the one of its one-hot gates, whatever `path` is.

    `init(key, gates)` starts the kernels as the network of that architecture alone does: by the number of inputs that it has.
    `init(key)` goes by their mean number, which is far from it for some: give the gates where they are known.

    Args:
        space: `layerwise(...)`.
        image: (H, W, C) of the examples.
        classes: number of classes.

    Raises:
        ValueError: for another space, or sizes below 1.
    """
    spec = space.spec
    if not isinstance(spec, LayerSpec):
        raise ValueError("this space has no description of layers (`space.spec`): a layer net needs a `layerwise` space")
    check_image(image, classes)
    module, F = AnyLayerNet(spec, classes), max(spec.filters)
    mean = jax.tree.map(lambda shape: np.full(shape, 1 / shape[-1], np.float32), space.gate_shapes, is_leaf=is_shape)

    def init(key, gates=None):
        variables = module.init(key, jnp.zeros((1, *image)), mean, train=True)
        has = used(variables, mean if gates is None else gates)["params"]

        def leaf(v, on):
            if v.ndim == 1:
                return v
            inputs = 0 if v.ndim == 2 else (1, 2, 3)  # the axes of the classifier's inputs, or of a convolution's
            return v * jnp.sqrt(np.prod(np.take(v.shape, inputs)) / jnp.max(jnp.sum(on, inputs)))

        return {**variables, "params": jax.tree.map(leaf, variables["params"], has)}

    def used(variables, gates):
        masks = layer_masks(spec, gates)

        def on(names, v):
            _, layer, name = names
            if layer == "classifier":
                rows = jnp.concatenate([last * f for last, f in zip(masks.last, masks.filters, strict=True)])
                return rows[:, None] if name == "kernel" else jnp.ones(1)
            if (i := number(layer, "norm")) is not None:
                return masks.filters[i]
            i = int(layer.removeprefix("conv"))
            filters, inputs = masks.filters[i], channels_read(masks, i, image[2])
            return jnp.outer(filters, inputs)[:, :, None, None] * masks.kernel[i][None, None]

        return mask(on, variables)

    def specialize(arch):
        layers = space.choice(arch)
        slot = lambda j, first: first + j * F + np.arange(layers[j].filters)  # the channels of layer j behind `first` others
        centre = lambda k, sizes: slice((max(sizes) - k) // 2, (max(sizes) + k) // 2)

        def part(names, v):
            _, name, what = names
            if name == "classifier":
                return v[np.concatenate([slot(j, 0) for j in unread(layers)])] if what == "kernel" else v
            if (i := number(name, "norm")) is not None:
                return v[: layers[i].filters]
            layer = layers[int(name.removeprefix("conv"))]
            v = v[: layer.filters]
            inputs = [slot(j, image[2]) for j in layer.inputs] or [np.arange(image[2])]
            return v[:, np.concatenate(inputs), centre(layer.kernel[0], spec.heights), centre(layer.kernel[1], spec.widths)]

        return LayerNet(layers, classes), lambda variables: map_named(part, variables)

    return linen(module, space, image, classes, used=used, specialize=specialize, mixes=False)._replace(init=init)
