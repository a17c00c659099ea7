"""Elastic spaces: depth, kernel and width of a row of inverted bottlenecks, all of them parts of one largest network.

References: Cai, Gan, Wang, Zhang and Han, Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR
2020, arXiv:1908.09791; the blocks are those of Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv:1905.02244.

    a unit u keeps the first d_u of its layers, and each of these has a kernel and an expansion of its own

    (sum_d (K E)^d)^U R networks            ofa_mobilenet_v3: (9^2 + 9^3 + 9^4)^5 = 7371^5 = 2.18e19, times its resolutions

Decisions are indices into descending lists, so that 0 is the largest; those of a layer beyond the depth are inactive.

Text form: units, and in them the layers that are there, as in "k7e6-k5e4 k3e3-k3e3-k7e6", then "r160" where there are resolutions.

Axes: U units, D layers of a unit, K kernels, E expansions, R resolutions.
"""

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.spaces._space import Space, space


class Elastic(NamedTuple):
    """An architecture; the gates are its one-hot rows."""

    depth: Any  # int32[U]
    kernel: Any  # int32[U, D]
    expand: Any  # int32[U, D]
    resolution: Any = None  # int32[]; None in a space of a single one


class Unit(NamedTuple):
    """Layers of the same output; the first of them has the stride."""

    channels: Positive
    stride: Positive
    se: bool = False  # squeeze and excitation
    swish: bool = False  # hard swish; False: relu


class ElasticLayer(NamedTuple):
    inputs: int
    outputs: int
    stride: int
    se: bool
    swish: bool

    @property
    def keeps(self) -> bool:
        """Whether the output has the input's shape: then there is a shortcut."""
        return self.stride == 1 and self.inputs == self.outputs


class ElasticSpec(NamedTuple):
    """What an elastic space tells a net."""

    units: tuple[Unit, ...]
    depths: tuple[Positive, ...] = (4, 3, 2)
    kernels: tuple[Positive, ...] = (7, 5, 3)
    expansions: tuple[Positive, ...] = (6, 4, 3)
    resolutions: tuple[Positive, ...] = ()  # of square images; empty: as they come
    stem: Positive = 16  # channels of the 3 x 3 convolution
    fixed: Positive | None = None  # channels of a separable convolution between the stem and the units
    head: Positive = 960  # channels of the 1 x 1 convolution before the mean
    features: Positive | None = None  # of the layer between the mean and the classifier
    stem_stride: Positive = 2
    multiple: Positive = 8  # of the channels that a squeeze leaves
    epsilon: PositiveNumber = 1e-5  # of the batch norms

    @property
    def stride(self) -> int:
        """By how much the image shrinks."""
        return self.stem_stride * math.prod(unit.stride for unit in self.units)

    @property
    def layers(self) -> dict[tuple[int, int], ElasticLayer]:
        """Those of the largest network, in order, by (unit, place)."""
        out, inputs = {}, self.stem if self.fixed is None else self.fixed
        for u, unit in enumerate(self.units):
            for i in range(self.depths[0]):
                out[u, i] = ElasticLayer(inputs, unit.channels, 1 if i else unit.stride, unit.se, unit.swish)
                inputs = unit.channels
        return out

    def squeezed(self, hidden: int) -> int:
        """The channels that a squeeze leaves of `hidden` ones: a quarter."""
        return rounded(hidden / 4, self.multiple)


class ElasticChoice(NamedTuple):
    """One network of a space."""

    units: tuple[tuple[tuple[int, int], ...], ...]  # (kernel, expansion) of the layers that are there, unit by unit
    size: int | None  # the side that images are resized to; None: they are not


def rounded(v: float, multiple: int = 8) -> int:
    """The nearest multiple, at least one, not below 0.9 v."""
    near = max(multiple, int(v + multiple / 2) // multiple * multiple)
    return near + multiple if near < 0.9 * v else near


@checked
def elastic(spec: ElasticSpec) -> Space:
    """The space of a spec.

    Args:
        spec: units, and what their layers may be; lists are descending.

    Raises:
        ValueError: for no units, a list that is empty or not descending, an even kernel, or numbers below 1.
    """
    _check(spec)
    U, D = len(spec.units), spec.depths[0]
    K, E, R = len(spec.kernels), len(spec.expansions), len(spec.resolutions)
    resolution = R if R > 1 else None
    decisions = Elastic(np.full(U, len(spec.depths)), np.full((U, D), K), np.full((U, D), E), resolution)
    unit, place = np.divmod(np.arange(U * D), D)
    there = np.asarray(spec.depths) > place[:, None]  # [U D, depths]
    alone = np.full(1 if resolution else 0, -1)
    A = max(len(spec.depths), K, E, R)
    when = np.pad(there, ((0, 0), (0, A - len(spec.depths))))
    base = space(
        decisions,
        parent=np.concatenate([np.full(U, -1), unit, unit, alone]),
        when=np.concatenate([np.ones((U, A)), when, when, np.ones((len(alone), A))]),
    )

    def choice(arch: Elastic) -> ElasticChoice:
        depth, kernel, expand = (np.asarray(a) for a in arch[:3])
        layer = lambda u, i: (spec.kernels[kernel[u, i]], spec.expansions[expand[u, i]])
        units = tuple(tuple(layer(u, i) for i in range(spec.depths[d])) for u, d in enumerate(depth))
        size = spec.resolutions[0 if arch.resolution is None else int(arch.resolution)] if spec.resolutions else None
        return ElasticChoice(units, size)

    def to_text(arch):
        chosen = choice(arch)
        units = ["-".join(f"k{k}e{e}" for k, e in unit) for unit in chosen.units]
        return " ".join(units if resolution is None else [*units, f"r{chosen.size}"])

    def from_text(text):
        words = text.split()
        size = [] if resolution is None else words[U:]
        if len(words) != U + len(size) or len(size) != len(alone):
            form = f"{U} units" if resolution is None else f"{U} units and a resolution"
            raise ValueError(f"{text!r} has {len(words)} words; this space has {form}")
        depth, kernel, expand = np.zeros(U, int), np.zeros((U, D), int), np.zeros((U, D), int)
        for u, word in enumerate(words[:U]):
            layers = word.split("-")
            depth[u] = index_of(spec.depths, str(len(layers)), f"the depth of unit {u}")
            for i, layer in enumerate(layers):
                match = re.fullmatch(r"k(\d+)e(\d+)", layer)
                if not match:
                    raise ValueError(f"unit {u}: no layer is called {layer!r}: write k5e3 (the kernel, the expansion)")
                kernel[u, i] = index_of(spec.kernels, match[1], f"unit {u}: the kernel of {layer!r}")
                expand[u, i] = index_of(spec.expansions, match[2], f"unit {u}: the expansion of {layer!r}")
        at = [index_of(spec.resolutions, word.removeprefix("r"), f"the resolution {word!r}") for word in size]
        return base.unflat(jnp.asarray([*depth, *kernel.ravel(), *expand.ravel(), *at], jnp.int32))

    return base._replace(to_text=to_text, from_text=from_text, spec=spec, choice=choice)


def index_of(values: Iterable[int], text: str, what: str) -> int:
    """Where a word of a text form is among the values it may have; ValueError, which says `what`, for another."""
    allowed = [str(v) for v in values]
    if text not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(allowed)}; got {text}")
    return allowed.index(text)


def _check(spec: ElasticSpec):
    if not spec.units:
        raise ValueError("an elastic space needs at least one unit in `units`")
    lists = {name: getattr(spec, name) for name in ("depths", "kernels", "expansions", "resolutions")}
    for name, values in lists.items():
        if not values and name != "resolutions":
            raise ValueError(f"`{name}` is empty: give at least one")
        if list(values) != sorted(set(values), reverse=True) or min(values, default=1) < 1:
            raise ValueError(f"`{name}` must be descending and positive, the largest first; got {values}")
    if any(k % 2 == 0 for k in spec.kernels):
        raise ValueError(f"`kernels` must be odd, since each is the centre of the one before; got {spec.kernels}")
    sizes = [spec.stem, spec.head, spec.stem_stride, spec.multiple, *(n for unit in spec.units for n in unit[:2])]
    if min(*sizes, *(n for n in (spec.fixed, spec.features) if n is not None)) < 1:
        raise ValueError(f"channels and strides must be positive; got {spec}")


@checked
def largest(space: Space) -> Elastic:
    """The architecture of the whole network."""
    return space.unflat(jnp.zeros(len(space.arity), jnp.int32))


@checked
def smallest(space: Space) -> Elastic:
    """The architecture with the least of everything."""
    return space.canonical(space.unflat(jnp.asarray(space.arity - 1, jnp.int32)))


@checked
def ofa_mobilenet_v3(width: PositiveNumber = 1.0, resolutions: tuple[Positive, ...] = ()) -> Space:
    """The published space: five units of MobileNetV3-Large's widths.

    Args:
        width: a factor on all widths; published: 1.0 and 1.2.
        resolutions: descending; published: `tuple(range(224, 127, -4))`; default: images as they come.

    Raises:
        ValueError: as `elastic`.
    """
    wide = lambda channels: rounded(width * channels)
    units = (
        Unit(wide(24), stride=2),
        Unit(wide(40), stride=2, se=True),
        Unit(wide(80), stride=2, swish=True),
        Unit(wide(112), stride=1, se=True, swish=True),
        Unit(wide(160), stride=2, se=True, swish=True),
    )
    spec = ElasticSpec(units, resolutions=tuple(resolutions), stem=wide(16), fixed=wide(16), head=wide(960), features=wide(1280))
    return elastic(spec)


@checked
def ofa_small(channels: tuple[Positive, ...] = (8, 16), strides: tuple[Positive, ...] = (1, 2), **more: Any) -> Space:
    """A space for images of 8 x 8 to 32 x 32.

    Args:
        channels, strides: of the units; the last unit has squeeze and excitation, and all but the first hard swish.
        more: other fields of `ElasticSpec`; default: depths 3, 2, 1 and a head of 64 channels.

    Raises:
        ValueError: as `elastic`; for another number of strides than of channels.
    """
    if len(channels) != len(strides):
        raise ValueError(f"give each unit its stride: {len(channels)} units, {len(strides)} strides")
    last = len(channels) - 1
    units = tuple(Unit(c, s, u == last, u > 0) for u, (c, s) in enumerate(zip(channels, strides, strict=True)))
    small: dict[str, Any] = dict(depths=(3, 2, 1), stem=channels[0], stem_stride=1, head=64) if channels else {}
    return elastic(ElasticSpec(units, **(small | more)))
