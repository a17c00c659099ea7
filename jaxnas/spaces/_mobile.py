"""Layer-wise mobile spaces: a fixed row of layers, each of which picks one inverted bottleneck, or none.

References: Cai, Zhu and Han, ProxylessNAS, ICLR 2019, arXiv:1812.00332; Wu et al., FBNet, CVPR 2019, arXiv:1812.03443; Chu,
Zhang and Xu, FairNAS, ICCV 2021, arXiv:1907.01845; the blocks are those of Sandler et al., MobileNetV2, CVPR 2018,
arXiv:1801.04381.

    layer(x) = f_op(x) (+ x where it keeps stride, channels)      "zero" and "skip": f = 0, the layer is its shortcut

A candidate is called k<kernel>_e<expansion>, with _g<groups> where its 1 x 1 convolutions are grouped.  Channels, strides and
depth are the spec's: of a layer only the operation is searched.

    proxylessnas   21 layers, {3, 5, 7} x {3, 6} and zero:   6^6 7^15 = 2.2e17 networks
    fbnet          22 layers, 8 blocks and skip:             8^6 9^16 = 4.9e20; the paper counts 9^22, with skips that do not fit
    fairnas        19 layers, {3, 5, 7} x {3, 6}:            6^19 = 6.1e14

Text form: the candidates' names in order, as in "k3_e3 k5_e6 zero".

Axes: L layers.
"""

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.spaces._space import Space, space

PROXYLESSNAS = ("k3_e3", "k5_e3", "k7_e3", "k3_e6", "k5_e6", "k7_e6")  # and FairNAS's
FBNET = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6")
NONE = ("zero", "skip")  # two papers' names for a layer that is left out

MODELS = {
    "PROXYLESS_MOBILE": (  # of proxylessnas(first=32)
        "k5_e3 k3_e3 zero zero k7_e3 k3_e3 k5_e3 k5_e3 k7_e6 k5_e3 k5_e3 k5_e3 "
        "k5_e6 k5_e3 k5_e3 k5_e3 k7_e6 k7_e6 k7_e3 k7_e3 k7_e6"
    ),
    "FBNET_A": (  # of fbnet(head=1504)
        "skip k3_e3 k3_e1 skip skip k5_e6 k3_e3 k5_e1 k3_e3 k5_e6 k5_e3 k5_e1_g2 k5_e6 "
        "k3_e6 k5_e1_g2 k5_e3 k3_e1_g2 k5_e6 k5_e6 k5_e3 k5_e6 k5_e6"
    ),
    "FBNET_B": (
        "k3_e1 k3_e6 k5_e1 k3_e1 k3_e1 k5_e6 k5_e3 k3_e6 k5_e6 k5_e6 k5_e6 skip k5_e3 "
        "k5_e6 k3_e1 k5_e1 k5_e3 k5_e6 k5_e1 k5_e6 k5_e6 k3_e6"
    ),
    "FBNET_C": (
        "k3_e1 k3_e6 skip k3_e1 k3_e1 k5_e6 k5_e3 k5_e6 k3_e6 k5_e6 k5_e3 k5_e6 k5_e6 "
        "k5_e6 k5_e6 k5_e6 k5_e3 k5_e6 k5_e6 k5_e6 k5_e6 k3_e6"
    ),
    "FAIRNAS_A": (  # of fairnas()
        "k7_e3 k3_e3 k7_e3 k3_e6 k7_e6 k3_e3 k3_e3 k7_e6 k7_e6 k5_e3 k3_e6 k5_e3 k5_e3 k3_e6 k3_e6 k7_e6 k3_e6 k7_e6 k5_e6"
    ),
    "FAIRNAS_B": (
        "k5_e3 k3_e3 k5_e3 k3_e3 k3_e6 k5_e3 k7_e3 k3_e3 k3_e6 k5_e3 k3_e3 k3_e6 k7_e3 k3_e3 k7_e6 k5_e6 k7_e6 k3_e6 k5_e6"
    ),
    "FAIRNAS_C": (
        "k5_e3 k3_e3 k7_e3 k3_e3 k3_e3 k3_e3 k3_e3 k3_e3 k3_e3 k3_e6 k3_e3 k3_e3 k3_e3 k3_e3 k7_e6 k7_e6 k3_e6 k3_e6 k5_e6"
    ),
}


class Mobile(NamedTuple):
    """An architecture; the gates are its one-hot rows."""

    op: tuple[Any, ...]  # L of int32[]


class MobileLayer(NamedTuple):
    inputs: Positive
    outputs: Positive
    stride: Positive
    ops: tuple[str, ...]  # the candidates, in gate order

    @property
    def keeps(self) -> bool:
        """Whether the output has the input's shape: then there is a shortcut."""
        return self.stride == 1 and self.inputs == self.outputs


class MobileSpec(NamedTuple):
    """What a mobile space tells a net."""

    layers: tuple[MobileLayer, ...]
    stem: Positive  # channels of the 3 x 3 convolution
    head: Positive  # channels of the 1 x 1 convolution before the classifier
    fixed: Positive | None = None  # channels of a k3_e1 block between the stem and the layers
    stem_stride: Positive = 2
    relu6: bool = True  # False: relu
    epsilon: PositiveNumber = 1e-5  # of the batch norms

    @property
    def stride(self) -> int:
        """By how much the image shrinks."""
        return self.stem_stride * math.prod(layer.stride for layer in self.layers)


class Block(NamedTuple):
    """What a candidate's name says."""

    kernel: int
    expansion: int
    groups: int


def block(name: str) -> Block | None:
    """The block of a candidate's name; None for one that leaves the layer out.

    Raises:
        ValueError: for another name, or a kernel without a centre.
    """
    if name in NONE:
        return None
    match = re.fullmatch(r"k(\d*[13579])_e([1-9]\d*)(?:_g([1-9]\d*))?", name)
    if not match:
        raise ValueError(f"no candidate is called {name!r}: write k5_e6 (an odd kernel, the expansion), k5_e6_g2, zero or skip")
    return Block(int(match[1]), int(match[2]), int(match[3] or 1))


@checked
def mobile(spec: MobileSpec) -> Space:
    """The space of a spec.

    Args:
        spec: stem, layers and head; each layer has at least one candidate.

    Raises:
        ValueError: for a layer without candidates, one twice or an unknown one; for a zero or skip where the shape changes,
            channels that do not follow from the layer before or that the groups do not divide, or numbers below 1.
    """
    _check(spec)
    base = space(Mobile(tuple(len(layer.ops) for layer in spec.layers)))

    def choice(arch) -> tuple[str, ...]:
        """The names of its operations."""
        return tuple(layer.ops[int(op)] for layer, op in zip(spec.layers, arch.op, strict=True))

    def to_text(arch):
        return " ".join(choice(arch))

    def from_text(text):
        """A network of `MODELS`, or the text form."""
        words = MODELS.get(text.strip(), text).split()
        if len(words) != len(spec.layers):
            raise ValueError(f"{text!r} has {len(words)} layers; this space has {len(spec.layers)}")
        for i, (word, layer) in enumerate(zip(words, spec.layers, strict=True)):
            if word not in layer.ops:
                raise ValueError(f"layer {i} is {word!r}: it must be one of {', '.join(layer.ops)}")
        return base.unflat(jnp.asarray([layer.ops.index(w) for layer, w in zip(spec.layers, words, strict=True)], jnp.int32))

    return base._replace(to_text=to_text, from_text=from_text, spec=spec, choice=choice)


def _check(spec: MobileSpec):
    if not spec.layers:
        raise ValueError("a mobile space needs at least one layer in `layers`")
    channels = spec.stem if spec.fixed is None else spec.fixed
    if min(spec.stem, channels, spec.head, spec.stem_stride) < 1:
        raise ValueError(f"channels and strides must be positive; got {spec._replace(layers=())}")
    for i, layer in enumerate(spec.layers):
        if min(layer[:3]) < 1:
            raise ValueError(f"layer {i}: channels and stride must be positive; got {layer[:3]}")
        if layer.inputs != channels:
            raise ValueError(f"layer {i} reads {layer.inputs} channels, but what comes before it has {channels}")
        channels = layer.outputs
        if not layer.ops or len(set(layer.ops)) < len(layer.ops):
            raise ValueError(f"layer {i} needs candidates, each once; got {', '.join(layer.ops) or 'none'}")
        for name in layer.ops:
            made = block(name)
            if made is None and not layer.keeps:
                raise ValueError(f"layer {i} changes the shape: it cannot be left out, take {name!r} off its candidates")
            if made is not None and (layer.inputs % made.groups or layer.outputs % made.groups):
                raise ValueError(f"layer {i}: {name!r} needs channels that {made.groups} divides; got {layer[:2]}")


def staged_layers(
    inputs: int, table: Iterable[tuple[int, int, int]], ops: tuple[str, ...], none: str | None = None
) -> tuple[MobileLayer, ...]:
    """Layers of stages (channels, layers, stride of the first), with the candidate `none`, if any, wherever the shape is kept."""
    layers = []
    for channels, count, stride in table:
        for i in range(count):
            layer = MobileLayer(inputs, channels, 1 if i else stride, tuple(ops))
            layers.append(layer._replace(ops=(*ops, none)) if none and layer.keeps else layer)
            inputs = channels
    return tuple(layers)


@checked
def proxylessnas(first: Positive = 24, widths: tuple[Positive, ...] = (40, 80, 96, 192, 320)) -> Space:
    """The space of ProxylessNAS: 21 layers.

    Args:
        first: channels of the first stage: 24 in the released search, 32 in ProxylessNAS-Mobile.
        widths: of the five stages behind it.

    Raises:
        ValueError: for another number of widths, or as `mobile`.
    """
    if len(widths) != 5:
        raise ValueError(f"`widths` are those of the five stages behind the first; got {len(widths)}")
    table = zip((first, *widths), (4, 4, 4, 4, 4, 1), (2, 2, 2, 1, 2, 1), strict=True)
    return mobile(MobileSpec(staged_layers(16, table, PROXYLESSNAS, "zero"), stem=32, fixed=16, head=1280, epsilon=1e-3))


@checked
def fbnet(head: Positive = 1984) -> Space:
    """The space of FBNet: 22 layers.

    Args:
        head: channels before the classifier: 1984 in FBNet-B and C, 1504 in A.
    """
    widths, counts, strides = (16, 24, 32, 64, 112, 184, 352), (1, 4, 4, 4, 4, 4, 1), (1, 2, 2, 2, 1, 2, 1)
    layers = staged_layers(16, zip(widths, counts, strides, strict=True), FBNET, "skip")
    return mobile(MobileSpec(layers, stem=16, head=head, relu6=False))


@checked
def fairnas(widths: tuple[Positive, ...] = (32, 40, 80, 96, 192, 320)) -> Space:
    """The space of FairNAS: 19 layers, none of which can be left out.

    Args:
        widths: of the six stages.

    Raises:
        ValueError: for another number of widths, or as `mobile`.
    """
    if len(widths) != 6:
        raise ValueError(f"`widths` are those of the six stages; got {len(widths)}")
    table = zip(widths, (2, 4, 4, 4, 4, 1), (2, 2, 2, 1, 2, 1), strict=True)
    return mobile(MobileSpec(staged_layers(16, table, PROXYLESSNAS), stem=32, fixed=16, head=1280))
