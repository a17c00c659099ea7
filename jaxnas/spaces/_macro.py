"""Whole convolutional networks, stage by stage, together with the numbers they are trained by.

No paper's own space: the union of the families that people begin with, so that each of them is one point, and the others mix them.
References: plain blocks, Simonyan and Zisserman, VGG, ICLR 2015, arXiv:1409.1556; residual, He et al., ResNet, CVPR 2016,
arXiv:1512.03385; separable, Howard et al., MobileNets, 2017, arXiv:1704.04861; inverted, Sandler et al., MobileNetV2, CVPR 2018,
arXiv:1801.04381; attention, Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507.

    network  = stem, 1 to S stages, head;   a stage = 1 to 3 blocks of one kind;   the first block of a later stage halves the image
    width_s  = width_1 growth_2 ... growth_s, rounded to a multiple of 4
    training = learning rate, weight decay, augmentation, dropout

Text form: stem stride, a word a stage (width : block kernel [e expansion] x depth), then what all of it shares, then the training:
"stem1 16:residual3x2 32:inverted5e4x1 attention batch relu average rate=0.1 decay=0.0005 augment=crop dropout=0.2".

Axes: S stages.
"""

import itertools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnas.base import Arch
from jaxnas.checks import Image, checked, require_fields
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber, ProbabilityBelowOne
from jaxnas.spaces._space import Space, derived
from jaxnas.spaces._training import TrainingChoice, ladders, training_text, unknown, written

BLOCKS = ("plain", "residual", "separable", "inverted")


class Staged(NamedTuple):
    """An architecture: each decision is a number in the list of the same name in `StagedSpec`."""

    stages: Any  # int32[]: one less than there are
    stem: Any  # int32[]
    width: Any  # int32[]: of the first stage
    growth: Any  # int32[S - 1]: of each later one; None where there is none
    depth: Any  # int32[S]
    block: Any  # int32[S]
    kernel: Any  # int32[S]
    expansion: Any  # int32[S], where the block is inverted
    attention: Any  # int32[], like all that follow
    norm: Any
    activation: Any
    head: Any
    rate: Any
    decay: Any
    augment: Any
    dropout: Any


class StagedSpec(NamedTuple):
    """What a macro space tells a network."""

    image: tuple[int, int, int]  # (H, W, C)
    stages: Positive  # S
    stem: tuple[Positive, ...] = (1,)  # strides
    width: tuple[Positive, ...] = (8, 12, 16, 24, 32, 48, 64)
    growth: tuple[PositiveNumber, ...] = (1.0, 1.5, 2.0)
    depth: tuple[Positive, ...] = (1, 2, 3)
    block: tuple[str, ...] = BLOCKS
    kernel: tuple[Positive, ...] = (3, 5)
    expansion: tuple[Positive, ...] = (2, 4)
    attention: tuple[bool, ...] = (False, True)
    norm: tuple[str, ...] = ("batch", "group")
    activation: tuple[str, ...] = ("relu", "silu")
    head: tuple[str, ...] = ("average", "flatten")
    rate: tuple[PositiveNumber, ...] = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
    decay: tuple[NonNegativeNumber, ...] = (0.0, 1e-4, 5e-4, 2e-3)
    augment: tuple[str, ...] = ("none", "crop", "crop+flip", "crop+flip+cutout")
    dropout: tuple[ProbabilityBelowOne, ...] = (0.0, 0.2, 0.5)


class StageChoice(NamedTuple):
    width: int
    depth: int
    block: str
    kernel: int
    expansion: int  # 1 where the block is not inverted


class StagedChoice(NamedTuple):
    """One architecture, in words and numbers."""

    stem: int
    stages: tuple[StageChoice, ...]
    attention: bool
    norm: str
    activation: str
    head: str
    training: TrainingChoice

    @property
    def network(self) -> tuple:
        """What its program is compiled from: all but the training."""
        return self[:-1]


def rounded(width: float) -> int:
    """A width as a multiple of 4."""
    return max(4, 4 * math.floor(width / 4 + 0.5))


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of an image; series (T, C) are images (T, 1, C)."""
    H, W, C = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    return H, W, C


@checked
def macro(image: Image, **lists: Any) -> Space:
    """The macro space for images of a shape.

    Args:
        image: (H, W, C).  A shorter side below 16 makes three stages at most, else four; from 32 on the stem may halve the image,
            from 64 on it may quarter it.  Series are images of one column.
        lists: fields of `StagedSpec`, to replace a decision's values; one value decides it.

    Raises:
        ValueError: for an image that is not (H, W, C), an empty list, or an unknown block.
    """
    if len(image) != 3 or min(image) < 1:
        raise ValueError(f"`image` is (H, W, C) and positive: got {image}")
    side = min(n for n in image[:2] if n > 1) if max(image[:2]) > 1 else 1
    stages = int(np.clip(math.floor(math.log2(side)), 1, 4 if side >= 16 else 3))
    stem = (1,) if side < 32 else (1, 2) if side < 64 else (1, 2, 4)
    sizes: dict[str, Any] = {"stages": stages, "stem": stem, **lists}
    spec = StagedSpec(image, **sizes)
    require_fields(spec)
    listed = {name: values for name, values in spec._asdict().items() if name not in ("image", "stages")}
    if any(not values for values in listed.values()) or spec.stages < 1:
        raise ValueError(f"every decision of a macro space needs at least one value: got {lists}")
    if not set(spec.block) <= set(BLOCKS):
        raise ValueError(f"unknown block in {spec.block}: choose among {', '.join(BLOCKS)}")

    S, n = spec.stages, {name: len(values) for name, values in listed.items()}
    row = lambda name, length: np.full(length, n[name], np.int32)
    shared = {name: n[name] for name in ("attention", "norm", "activation", "head", "rate", "decay", "augment", "dropout")}
    decisions = Staged(
        S,
        n["stem"],
        n["width"],
        row("growth", S - 1) if S > 1 else None,
        *(row(k, S) for k in ("depth", "block", "kernel", "expansion")),
        **shared,
    )
    parent, when = _conditions(decisions, spec)
    return written(derived(decisions, parent=parent, when=when), spec, choice_of, to_text, from_text)


def _conditions(decisions: Staged, spec: StagedSpec) -> tuple[np.ndarray, np.ndarray]:
    """(parent [D], when [D, A]): a stage's decisions are on where there is the stage, its expansion where its block is inverted."""
    sizes = [0 if leaf is None else np.size(leaf) for leaf in decisions]
    start = dict(zip(Staged._fields, np.cumsum([0, *sizes[:-1]]), strict=True))
    D, A = sum(sizes), max(int(np.max(leaf)) for leaf in decisions if leaf is not None)
    parent, when = np.full(D, -1), np.ones((D, A), bool)
    for s in range(spec.stages):
        rows = [start[name] + s for name in ("depth", "block", "kernel")] + ([start["growth"] + s - 1] if s else [])
        if s:
            parent[rows], when[rows] = start["stages"], np.arange(A) >= s
        parent[start["expansion"] + s] = start["block"] + s
        inverted = [spec.block.index("inverted")] if "inverted" in spec.block else []
        when[start["expansion"] + s] = np.isin(np.arange(A), inverted)
        if s and inverted == [0]:  # a stage that is not there has block 0
            parent[start["expansion"] + s], when[start["expansion"] + s] = start["stages"], np.arange(A) >= s
    return parent, when


def choice_of(spec: StagedSpec, arch: Arch) -> StagedChoice:
    """What an architecture decides, on the host."""
    at = jax.tree.map(np.asarray, arch)
    pick = lambda name: getattr(spec, name)[int(getattr(at, name))]
    of = lambda name, s: getattr(spec, name)[int(getattr(at, name)[s])]
    stages, width = [], float(pick("width"))
    for s in range(int(at.stages) + 1):
        width = rounded(width * of("growth", s - 1)) if s else rounded(width)
        expansion = of("expansion", s) if of("block", s) == "inverted" else 1
        stages.append(StageChoice(int(width), of("depth", s), of("block", s), of("kernel", s), expansion))
    training = TrainingChoice(*(pick(name) for name in TrainingChoice._fields))
    shared = {name: pick(name) for name in ("attention", "norm", "activation", "head")}
    return StagedChoice(pick("stem"), tuple(stages), **shared, training=training)


def to_text(choice: StagedChoice) -> str:
    stage = lambda s: f"{s.width}:{s.block}{s.kernel}" + (f"e{s.expansion}" if s.block == "inverted" else "") + f"x{s.depth}"
    words = [f"stem{choice.stem}", *map(stage, choice.stages), *["attention"] * choice.attention]
    words += [choice.norm, choice.activation, choice.head]
    return " ".join([*words, training_text(choice.training)])


def from_text(spec: StagedSpec, text: str) -> Staged:
    """The architecture of a text.

    Raises:
        ValueError: for one that is not in the space.
    """
    numbers = {name: {str(v): i for i, v in enumerate(getattr(spec, name))} for name in spec._fields[2:]}
    stages, found = [], {"attention": numbers["attention"].get("False", 0)}

    def value(name: str, word: str) -> int:
        if word not in numbers[name]:
            raise ValueError(f"{word!r} is no {name} of this space: choose among {', '.join(numbers[name])}")
        return numbers[name][word]

    for word in text.split():
        name, _, given = word.partition("=")
        if given:
            found[name] = value(name, given) if name in TrainingChoice._fields else unknown(word)
        elif ":" in word:
            stages.append(word)
        elif word.startswith("stem"):
            found["stem"] = value("stem", word.removeprefix("stem"))
        elif word == "attention":
            found["attention"] = value("attention", "True")
        else:
            name = next((n for n in ("norm", "activation", "head") if word in numbers[n]), None) or unknown(word)
            found[name] = value(name, word)
    missing = [name for name in ("stem", "norm", "activation", "head", *TrainingChoice._fields) if name not in found]
    if missing or not 1 <= len(stages) <= spec.stages:
        raise ValueError(f"{text!r} has {len(stages)} stages (1 to {spec.stages}) and lacks {', '.join(missing) or 'nothing'}")
    rows = [_stage(word, value) for word in stages]
    widths = [int(word.split(":")[0]) for word in stages]
    growth = []
    for before, after in itertools.pairwise(widths):
        factors = [i for i, g in enumerate(spec.growth) if rounded(before * g) == after]
        growth.append(factors[0] if factors else unknown(f"a width of {after} behind {before}"))
    pad = lambda values, length: np.asarray([*values, *[0] * (length - len(values))], np.int32)
    columns = [pad(column, spec.stages) for column in zip(*rows, strict=True)]
    first = value("width", str(widths[0]))
    whole = jax.tree.map(np.int32, found)
    return Staged(
        np.int32(len(stages) - 1),
        whole.pop("stem"),
        np.int32(first),
        pad(growth, spec.stages - 1) if spec.stages > 1 else None,
        *columns,
        **whole,
    )


FAMILIES = {  # block, kernel and depth of each stage, and what is shared
    "plain": ("plain3", 1, "batch relu flatten"),  # what compiles soonest comes first
    "vgg": ("plain3", 2, "batch relu flatten"),
    "resnet": ("residual3", 2, "batch relu average"),
    "mobilenet": ("inverted3e4", 2, "batch relu average"),
}
RECIPES = (
    "rate=0.05 decay=0.0005 augment=none dropout=0.0",
    "rate=0.2 decay=0.0005 augment=none dropout=0.0",
    "rate=0.1 decay=0.0005 augment=crop dropout=0.2",
)


def families(space: Space) -> dict[str, tuple[Arch, ...]]:
    """name -> the hand-made networks of a family, from the narrowest to the widest: three stages at most, each twice as wide as the
    one before; families that are not in the space are left out."""
    spec = space.spec

    def text(block: str, depth: int, shared: str, width: int) -> str:
        stages = [f"{rounded(width * 2**s)}:{block}x{depth}" for s in range(min(3, spec.stages))]
        return " ".join([f"stem{spec.stem[0]}", *stages, shared, RECIPES[0]])

    return ladders(space, {name: [text(*family, width) for width in spec.width] for name, family in FAMILIES.items()})


def _stage(word: str, value: Callable[[str, str], int]) -> tuple[int, int, int, int]:
    """(depth, block, kernel, expansion) of a stage's word, as numbers."""
    match = re.fullmatch(r"\d+:([a-z]+)(\d+)(?:e(\d+))?x(\d+)", word)
    if match is None:
        raise ValueError(f"{word!r} is no stage: write 16:residual3x2, width : block kernel x depth, or 16:inverted3e4x2")
    block, kernel, expansion, depth = match.groups()
    return value("depth", depth), value("block", block), value("kernel", kernel), value("expansion", expansion) if expansion else 0
