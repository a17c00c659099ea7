"""TuNAS's spaces: the output filters of every stage are searched, and each layer's kernel, expansion and presence.

Reference: Bender et al., Can Weight Sharing Outperform Random Architecture Search? An Investigation With TuNAS, CVPR 2020,
arXiv:2008.06120; the spaces are those of the authors' code.

    filters   of the stem's 3 x 3 convolution, of each stage's output, of the head's 1 x 1 convolution
    there     whether a layer is: all but the first of a stage, which has the stride and changes the width
    kernel    of a layer's depthwise convolution
    expand    its hidden channels, a multiple of what it reads: so their number follows from two decisions

    proxylessnas_enlarged   22 layers, 7 factors of 9 widths:   1.4e28 settings

Values are indices into descending lists, so that 0 is the largest (and there); a decision of one value is None.  Kernel and
expansion of a layer that is left out are inactive.

Text form: the stem's filters, stages, the head's filters, as in "32 16:k3e1 24:k3e6-k5e3-zero 1280".

Not here: squeeze and excitation as a decision (the space like MobileNetV3).

Axes: S stages, L layers.
"""

import itertools
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.spaces._elastic import index_of
from jaxnas.spaces._space import Space, space


class Tunas(NamedTuple):
    """An architecture; the gates are its one-hot rows."""

    filters: tuple  # S + 2 of int32[]: the stem's, the stages', the head's
    there: tuple  # L of int32[]; 0: it is, 1: it is left out
    kernel: tuple  # L of int32[]
    expand: tuple  # L of int32[]


class TunasStage(NamedTuple):
    """Layers of the same output; the first of them has the stride."""

    filters: tuple[Positive, ...]
    layers: Positive
    stride: Positive
    expansions: tuple[Positive, ...] = (6, 3)  # (1,): separable convolutions, which expand nothing


class TunasLayer(NamedTuple):
    stage: int
    place: int  # in the stage: behind the first there is a shortcut
    stride: int
    expansions: tuple[int, ...]

    @property
    def expands(self) -> bool:
        return self.expansions != (1,)


class TunasSpec(NamedTuple):
    """What a TuNAS space tells a net."""

    stages: tuple[TunasStage, ...]
    stem: tuple[Positive, ...]
    head: tuple[Positive, ...]
    kernels: tuple[Positive, ...] = (7, 5, 3)
    stem_stride: Positive = 2
    epsilon: PositiveNumber = 1e-3  # of the batch norms

    @property
    def stride(self) -> int:
        """By how much the image shrinks."""
        return self.stem_stride * math.prod(stage.stride for stage in self.stages)

    @property
    def filters(self) -> tuple[tuple[int, ...], ...]:
        """[S + 2]"""
        return self.stem, *(stage.filters for stage in self.stages), self.head

    @property
    def layers(self) -> tuple[TunasLayer, ...]:
        """In order."""
        each = [(s, i, stage) for s, stage in enumerate(self.stages) for i in range(stage.layers)]
        return tuple(TunasLayer(s, i, 1 if i else stage.stride, stage.expansions) for s, i, stage in each)


class TunasChoice(NamedTuple):
    """One network of a space."""

    filters: tuple[int, ...]  # [S + 2]
    layers: tuple[tuple[int, int] | None, ...]  # [L] of (kernel, expansion); None: left out


@checked
def tunas(spec: TunasSpec) -> Space:
    """The space of a spec.

    Args:
        spec: stem, stages and head; lists are descending.

    Raises:
        ValueError: for no stages or one without layers, a list that is empty or not descending, an even kernel, or numbers below 1.
    """
    _check(spec)
    layers, several = spec.layers, lambda n: n if n > 1 else None
    decisions = Tunas(
        filters=tuple(several(len(filters)) for filters in spec.filters),
        there=tuple(2 if layer.place else None for layer in layers),
        kernel=tuple(several(len(spec.kernels)) for _ in layers),
        expand=tuple(several(len(layer.expansions)) for layer in layers),
    )
    tree = jax.tree.structure(decisions)
    number = tree.unflatten(range(tree.num_leaves))
    above = [-1 if n is None else n for n in number.there]
    below = [up for part in (number.kernel, number.expand) for up, n in zip(above, part, strict=True) if n is not None]
    parent = np.asarray([-1] * (tree.num_leaves - len(below)) + below)
    when = np.ones((len(parent), max(jax.tree.leaves(decisions), default=1)), bool)
    when[parent >= 0, 1:] = False
    base = space(decisions, parent=parent, when=when)

    def choice(arch: Tunas) -> TunasChoice:
        at = lambda values, i: values[0 if i is None else int(i)]
        each = zip(layers, *arch[1:], strict=True)
        kept = (None if t is not None and int(t) else (at(spec.kernels, k), at(layer.expansions, e)) for layer, t, k, e in each)
        return TunasChoice(tuple(map(at, spec.filters, arch.filters)), tuple(kept))

    def to_text(arch):
        chosen = choice(arch)
        names = ["zero" if layer is None else "k{}e{}".format(*layer) for layer in chosen.layers]
        of = lambda s: "-".join(name for name, layer in zip(names, layers, strict=True) if layer.stage == s)
        stages = [f"{n}:{of(s)}" for s, n in enumerate(chosen.filters[1:-1])]
        return " ".join([str(chosen.filters[0]), *stages, str(chosen.filters[-1])])

    def from_text(text):
        words = [word.partition(":") for word in text.split()]
        counts = [0, *(stage.layers for stage in spec.stages), 0]
        names = [names.split("-") if names else [] for _, _, names in words]
        if [len(part) for part in names] != counts:
            raise ValueError(
                f"{text!r} needs a stem, stages of {counts[1:-1]} layers and a head: write as '32 16:k3e1 24:k3e6-zero 64'"
            )
        filters = [index_of(sizes, word[0], "the filters") for sizes, word in zip(spec.filters, words, strict=True)]
        each = [read(layer, name) for layer, name in zip(layers, itertools.chain(*names), strict=True)]
        values = itertools.chain(filters, *zip(*each, strict=True))
        has = jax.tree.leaves(decisions, is_leaf=lambda n: n is None)
        return tree.unflatten([jnp.int32(i) for i, n in zip(values, has, strict=True) if n is not None])

    def read(layer, name):
        if name == "zero" and layer.place:
            return 1, 0, 0
        match = re.fullmatch(r"k(\d+)e(\d+)", name)
        if not match:
            raise ValueError(f"no layer is called {name!r} there: write k5e3 (the kernel, the expansion), or zero behind a first")
        return 0, index_of(spec.kernels, match[1], "the kernel"), index_of(layer.expansions, match[2], "the expansion")

    return base._replace(to_text=to_text, from_text=from_text, spec=spec, choice=choice)


@checked
def widest(space: Space) -> Tunas:
    """Gates of a network with all operations, at 1 / n, and all filters: where the warm-ups begin.

    Raises:
        ValueError: for another space.
    """
    if not isinstance(space.spec, TunasSpec):
        raise ValueError("this space has no filters to search (`space.spec`): give `proxylessnas_enlarged` or `tunas(spec)`")
    one = space.gates(space.unflat(jnp.zeros(len(space.arity), jnp.int32)))
    even = lambda row: jnp.full_like(row, 1 / row.shape[-1])
    mean = lambda rows: jax.tree.map(even, rows)
    return one._replace(there=mean(one.there), kernel=mean(one.kernel))


def _check(spec: TunasSpec):
    if not spec.stages or min(stage.layers for stage in spec.stages) < 1:
        raise ValueError("a TuNAS space needs at least one stage in `stages`, and each of them at least one layer")
    for values in (spec.kernels, *spec.filters, *(stage.expansions for stage in spec.stages)):
        if not values or list(values) != sorted(set(values), reverse=True) or min(values) < 1:
            raise ValueError(f"kernels, filters and expansions must be descending and positive, the largest first; got {values}")
    if any(k % 2 == 0 for k in spec.kernels):
        raise ValueError(f"`kernels` must be odd, since they share a centre; got {spec.kernels}")
    if min(spec.stem_stride, *(stage.stride for stage in spec.stages)) < 1:
        raise ValueError("strides must be positive")


def multiples(width: int, factors: tuple[float, ...], base: int = 8) -> tuple[int, ...]:
    """The different multiples of `base` nearest to factor * width (half: up), at least one, descending."""
    return tuple(sorted({max(base, math.floor(width * f / base + 0.5) * base) for f in factors}, reverse=True))


@checked
def proxylessnas_enlarged(factors: tuple[PositiveNumber, ...] = (0.5, 0.625, 0.75, 1, 1.25, 1.5, 2)) -> Space:
    """ProxylessNAS's space with searched filters.

    Args:
        factors: of the widths 16, 16, 16, 32, 64, 128, 256, 512 and 1024, in multiples of 8.

    Raises:
        ValueError: as `tunas`.
    """
    stem, *widths, head = (multiples(width, factors) for width in (16, 16, 16, 32, 64, 128, 256, 512, 1024))
    rest = zip((1, 4, 4, 4, 4, 4, 1), (1, 2, 2, 2, 1, 2, 1), ((1,), *[(6, 3)] * 6), strict=True)
    stages = tuple(TunasStage(width, *more) for width, more in zip(widths, rest, strict=True))
    return tunas(TunasSpec(stages, stem, head))
