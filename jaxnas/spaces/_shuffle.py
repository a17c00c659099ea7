"""Choice blocks of ShuffleNet units: a fixed row of them, each of which picks its unit and how wide the unit is inside.

References: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020, arXiv:1904.00420; the
units are those of Ma et al., ShuffleNet V2, ECCV 2018, arXiv:1807.11164.

    unit    k3, k5, k7: 1 x 1, depthwise of that kernel, 1 x 1;     xception: three times a depthwise 3 x 3 and a 1 x 1
    width   factor times half the block's outputs, the channels between a unit's convolutions; what a block puts out is fixed

    spos    20 blocks, 4 units:             4^20 = 1.1e12 networks
            and factors 0.2, 0.4, ..., 2.0:  40^20 = 1.1e32

Text form: unit and factor of each block, as in "k3:1.4 xception:0.6"; the units alone where there is one factor.

Axes: L blocks.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.spaces._space import Space, space

UNITS = {"k3": 3, "k5": 5, "k7": 7, "xception": 3}  # and the kernel of their depthwise convolutions
FACTORS = tuple(n / 5 for n in range(1, 11))

MODELS = {  # of spos(), each of the best that was published
    "SPOS_BLOCKS": (
        "k7:1 k5:1 k3:1 k5:1 k7:1 k3:1 k7:1 k3:1 k7:1 k3:1 "
        "k7:1 xception:1 k3:1 k3:1 k3:1 k3:1 xception:1 k7:1 xception:1 xception:1"
    ),
    "SPOS_BLOCKS_AND_CHANNELS": (
        "k3:1.4 k3:1.2 xception:0.8 k5:1.2 k5:0.6 k5:1.4 k3:0.8 k3:1 k7:0.6 k3:1.2 "
        "k7:1.6 k5:1.2 k5:1 k3:1.4 k7:1.6 k3:1 k7:1 k5:1.2 xception:1 k7:0.8"
    ),
}


class Shuffle(NamedTuple):
    """An architecture; the gates are its one-hot rows."""

    op: Any  # int32[L]
    width: Any  # int32[L]; None: one factor, nothing to decide


class ShuffleBlock(NamedTuple):
    inputs: Positive
    outputs: Positive
    stride: Positive

    @property
    def splits(self) -> bool:
        """Whether half the channels pass by; else the unit's shortcut is a convolution, too."""
        return self.stride == 1 and self.inputs == self.outputs

    @property
    def branch(self) -> tuple[int, int]:
        """Channels that the unit's main branch reads and puts out."""
        return (self.outputs // 2,) * 2 if self.splits else (self.inputs, self.outputs - self.inputs)

    def hidden(self, factor: float) -> int:
        """Channels between the unit's convolutions."""
        return max(1, int(factor * (self.outputs // 2) + 1e-6))


class ShuffleSpec(NamedTuple):
    """What a space of ShuffleNet units tells a net."""

    blocks: tuple[ShuffleBlock, ...]
    stem: Positive  # channels of the 3 x 3 convolution
    head: Positive  # channels of the 1 x 1 convolution before the classifier
    factors: tuple[PositiveNumber, ...] = FACTORS
    stem_stride: Positive = 2
    epsilon: PositiveNumber = 1e-5  # of the batch norms

    @property
    def stride(self) -> int:
        """By how much the image shrinks."""
        return self.stem_stride * math.prod(block.stride for block in self.blocks)


class UnitChoice(NamedTuple):
    """A block of one architecture."""

    op: str
    hidden: int


@checked
def shuffle(spec: ShuffleSpec) -> Space:
    """The space of a spec.

    Args:
        spec: stem, blocks and head; a block that keeps its shape has an even number of channels, any other adds channels.

    Raises:
        ValueError: for no block, no factor or one twice, channels that do not follow from the block before, a block that can
            neither split its channels nor add some, or numbers below 1.
    """
    _check(spec)
    L, several = len(spec.blocks), len(spec.factors) > 1
    base = space(Shuffle(np.full(L, len(UNITS)), np.full(L, len(spec.factors)) if several else None))
    names = tuple(UNITS)

    def widths(arch) -> list[float]:
        return [spec.factors[int(w)] for w in arch.width] if several else [spec.factors[0]] * L

    def choice(arch) -> tuple[UnitChoice, ...]:
        """Units and their channels."""
        blocks = zip(spec.blocks, arch.op, widths(arch), strict=True)
        return tuple(UnitChoice(names[int(op)], block.hidden(factor)) for block, op, factor in blocks)

    def to_text(arch):
        words = zip(arch.op, widths(arch), strict=True)
        return " ".join(names[int(op)] + (f":{factor:g}" if several else "") for op, factor in words)

    def from_text(text):
        """A network of `MODELS`, or the text form."""
        words = MODELS.get(text.strip(), text).split()
        if len(words) != L:
            raise ValueError(f"{text!r} has {len(words)} blocks; this space has {L}")
        known = {f"{name}:{factor:g}" if several else name: (k, j) for k, name in enumerate(names) for j, factor in at}
        for i, word in enumerate(words):
            if word not in known:
                form = f", a colon and one of {', '.join(f'{factor:g}' for factor in spec.factors)}" if several else ""
                raise ValueError(f"block {i} is {word!r}: write one of {', '.join(names)}{form}")
        op, width = zip(*map(known.__getitem__, words), strict=True)
        whole = lambda values: jnp.asarray(values, jnp.int32)
        return Shuffle(whole(op), whole(width) if several else None)

    at = tuple(enumerate(spec.factors))
    return base._replace(to_text=to_text, from_text=from_text, spec=spec, choice=choice)


def _check(spec: ShuffleSpec):
    if not spec.blocks:
        raise ValueError("a space of ShuffleNet units needs at least one block in `blocks`")
    if not spec.factors or len(set(spec.factors)) < len(spec.factors) or not min(spec.factors) > 0:
        raise ValueError(f"`factors` needs positive numbers, each once; got {spec.factors}")
    if min(spec.stem, spec.head, spec.stem_stride) < 1:
        raise ValueError(f"channels and strides must be positive; got {spec._replace(blocks=())}")
    channels = spec.stem
    for i, block in enumerate(spec.blocks):
        if min(block) < 1:
            raise ValueError(f"block {i}: channels and stride must be positive; got {tuple(block)}")
        if block.inputs != channels:
            raise ValueError(f"block {i} reads {block.inputs} channels, but what comes before it has {channels}")
        if block.splits and block.outputs % 2:
            raise ValueError(f"block {i} splits its channels in halves: give an even number of them, got {block.outputs}")
        if not block.splits and block.outputs <= block.inputs:
            raise ValueError(f"block {i} puts its unit's channels beside its {block.inputs} inputs: give more outputs than these")
        channels = block.outputs


def staged_blocks(inputs: int, widths: tuple[int, ...], depths: tuple[int, ...], strides: tuple[int, ...]) -> tuple:
    """Blocks of stages, with the stride of the first of each."""
    blocks = []
    for channels, count, stride in zip(widths, depths, strides, strict=True):
        for i in range(count):
            blocks.append(ShuffleBlock(inputs, channels, 1 if i else stride))
            inputs = channels
    return tuple(blocks)


@checked
def spos(factors: tuple[PositiveNumber, ...] = FACTORS) -> Space:
    """The space of Single Path One-Shot: 20 choice blocks.

    Args:
        factors: of the channels, default 0.2, 0.4, ..., 2.0; (1.0,) searches the units alone.

    Raises:
        ValueError: as `shuffle`.
    """
    blocks = staged_blocks(16, (64, 160, 320, 640), (4, 4, 8, 4), (2, 2, 2, 2))
    return shuffle(ShuffleSpec(blocks, stem=16, head=1024, factors=tuple(factors)))
