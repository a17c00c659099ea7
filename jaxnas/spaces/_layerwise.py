"""Chains of convolutions with skip connections, layer by layer: the first space that a controller searched.

Reference: Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv:1611.01578.

    layer i = filter height, filter width, filters[, stride height, stride width], i bits: whether it reads layer j < i

No architecture is refused.  A layer that reads none reads the image; several inputs are concatenated along depth, the
smaller ones padded with zeros to the largest; outputs that no layer reads are concatenated for the classifier.

Defaults: six layers, where the paper's search starts (two more every 1,600 samples), and no strides; its second experiment
has strides (1, 2, 3).  Text form: height x width : filters / strides < inputs, as in "3x5:24 7x1:36<0 1x7:48/2x1<0,1".

Axes: D tokens.
"""

import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space, space


class Layer(NamedTuple):
    """An architecture is a tuple of these, in the order of the controller's tokens; the gates are its one-hot rows."""

    height: Any  # int32[]
    width: Any  # int32[]
    filters: Any  # int32[]
    stride_height: Any  # int32[]; None: no strides to decide
    stride_width: Any  # int32[]
    skip: Any  # int32[i]: 1 where layer i reads an earlier layer; None in the first


class LayerSpec(NamedTuple):
    """What a layer-wise space tells a net."""

    layers: int
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    filters: tuple[int, ...]
    strides: tuple[int, ...]  # (1,) where there is nothing to decide


class LayerChoice(NamedTuple):
    """A layer of one architecture, as Python numbers."""

    kernel: tuple[int, int]
    filters: int
    stride: tuple[int, int]
    inputs: tuple[int, ...]  # layers that are read; none: the image


@checked
def layerwise(
    layers: Positive = 6,
    heights: tuple[Positive, ...] = (1, 3, 5, 7),
    widths: tuple[Positive, ...] = (1, 3, 5, 7),
    filters: tuple[Positive, ...] = (24, 36, 48, 64),
    strides: tuple[Positive, ...] | None = None,
) -> Space:
    """The layer-wise space of convolutional networks.

    Args:
        layers: L, default 6.
        heights, widths: of the filters, odd.
        filters: numbers of filters.
        strides: default None: all are 1.

    Raises:
        ValueError: for no layer, a list that is empty or repeats a value, an even filter size, or numbers below 1.
    """
    spec = LayerSpec(layers, tuple(heights), tuple(widths), tuple(filters), (1,) if strides is None else tuple(strides))
    for name, values in spec._asdict().items():
        listed = values if isinstance(values, tuple) else (values,)
        if min(listed, default=0) < 1 or len(set(listed)) < len(listed):
            raise ValueError(f"`{name}` needs positive numbers, each once; got {values}")
    if any(n % 2 == 0 for n in spec.heights + spec.widths):
        raise ValueError(f"filters need a centre: give odd heights and widths, got {heights} and {widths}")
    stride = None if strides is None else len(spec.strides)
    sizes = [len(spec.heights), len(spec.widths), len(spec.filters), stride, stride]
    base = space(tuple(Layer(*sizes, skip=np.full(i, 2) if i else None) for i in range(layers)))

    def choice(arch) -> tuple[LayerChoice, ...]:
        return tuple(map(layer_choice, arch))

    def layer_choice(layer: Layer) -> LayerChoice:
        pick = lambda table, token: table[0 if token is None else int(token)]
        return LayerChoice(
            kernel=(pick(spec.heights, layer.height), pick(spec.widths, layer.width)),
            filters=pick(spec.filters, layer.filters),
            stride=(pick(spec.strides, layer.stride_height), pick(spec.strides, layer.stride_width)),
            inputs=() if layer.skip is None else tuple(map(int, np.flatnonzero(layer.skip))),
        )

    def to_text(arch):
        return " ".join(map(one, choice(arch)))

    def one(layer: LayerChoice) -> str:
        text = "{}x{}:{}".format(*layer.kernel, layer.filters)
        text += "" if strides is None else "/{}x{}".format(*layer.stride)
        return text + ("<" if layer.inputs else "") + ",".join(map(str, layer.inputs))

    def from_text(text):
        parts = text.split()
        if len(parts) != layers:
            raise ValueError(f"{text!r} has {len(parts)} layers; this space has {layers}")
        return tuple(parse(i, part) for i, part in enumerate(parts))

    def parse(i, part) -> Layer:
        match = re.fullmatch(r"(\d+)x(\d+):(\d+)(?:/(\d+)x(\d+))?(?:<(\d+(?:,\d+)*))?", part)
        if not match or (match[4] is None) != (strides is None):
            form = "3x5:24" if strides is None else f"3x5:24/{spec.strides[-1]}x1"
            raise ValueError(f"{part!r} is not a layer: write {form}, and <0,1 behind it to read layers 0 and 1")
        inputs = {int(j) for j in (match[6] or "").split(",") if j}
        if max(inputs, default=-1) >= i:
            raise ValueError(f"layer {i} is {part!r}: it can read earlier layers only")
        tables = (spec.heights, spec.widths, spec.filters, spec.strides, spec.strides)
        tokens = []
        for name, table, digits in zip(Layer._fields, tables, match.groups(), strict=False):
            if digits is not None and int(digits) not in table:
                raise ValueError(f"layer {i} is {part!r}: its {name} must be one of {', '.join(map(str, table))}")
            tokens.append(None if digits is None else jnp.asarray(table.index(int(digits)), jnp.int32))
        return Layer(*tokens, skip=jnp.asarray([j in inputs for j in range(i)], jnp.int32) if i else None)

    return base._replace(to_text=to_text, from_text=from_text, spec=spec, choice=choice)


def kind(space: Space) -> np.ndarray:
    """int[D], `controller`'s argument: tokens of one field share a head and an embedding table."""
    leaves = [(k, leaf) for layer in space.decisions for k, leaf in enumerate(layer) if leaf is not None]
    return np.concatenate([np.full(np.size(leaf), k) for k, leaf in leaves])


def anchors(space: Space) -> np.ndarray:
    """int[D], `controller`'s argument: for a skip bit, the last token of the layer that it would read; else -1."""
    out: list[int] = []
    ends: list[int] = []  # the last token of each layer so far
    for layer in space.decisions:
        out += [-1] * sum(leaf is not None for leaf in layer[:-1])
        end = len(out) - 1
        out += ends
        ends = [*ends, end]
    return np.asarray(out)
