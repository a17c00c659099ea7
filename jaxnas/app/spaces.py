"""The tables of spaces and of the nets that run them, as the command line knows them.

Nothing heavy is imported until an entry is made.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxnas.app.settings import NoSettings
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.registry import Table

Shape = tuple[int, ...]  # of an example: (H, W, C) of images, (T, C) of series, (F,) of rows


class NetEntry(NamedTuple):
    about: str
    make: Callable[..., Any]  # (space, data, config, **more) -> Net; `more` is what a method adds
    final: Callable[..., Any] | None = None  # (space, arch, data, config) -> the module to train at the end; None: specialised
    data: str = "images"  # of `jaxnas.app.tasks.TASKS`: what it reads
    supernet: bool = True  # one program for all architectures; False: each network is a program of its own


class SpaceEntry(NamedTuple):
    about: str
    make: Callable[[Any, Shape], Any]  # (settings, the shape of an example) -> Space
    net: str  # of `NETS`
    settings: type = NoSettings


# --- nets -------------------------------------------------------------------------------------------------------------


def _cell(space, data, config, **more):
    from jaxnas import nets

    return nets.cell_net(space, image=data.image, classes=data.classes, channels=config.channels, cells=config.cells, **more)


def _final_cell(space, arch, data, config):
    from jaxnas import nets

    return nets.evaluation_net(space, arch, classes=data.classes, channels=config.channels, cells=config.cells)


def _plain(name):
    """A net whose sizes are all in its space."""

    def make(space, data, config, **more):
        from jaxnas import nets

        return getattr(nets, name)(space, image=data.image, classes=data.classes, **more)

    return make


def _wide(name):
    """A net with channels of its own."""

    def make(space, data, config, **more):
        from jaxnas import nets

        return getattr(nets, name)(space, image=data.image, classes=data.classes, channels=config.channels, **more)

    return make


def _backbone(space, data, config):
    from jaxnas import nets

    make = nets.tabular_nets if len(data.image) == 1 else nets.backbones
    return make(space, image=data.image, classes=data.classes)


def _language(space, data, config, **more):
    from jaxnas import nets

    sizes: dict[str, Any] = dict(vocabulary=len(data.vocabulary), batch=config.batch, hidden=config.channels, dropouts=None)
    sizes["precision"] = config.precision
    return nets.language_model(space, **(sizes | more))


def _final_language(space, arch, data, config):
    return _language(space, data, config, norms=False, beta=0.0)


NETS: Table[NetEntry] = Table(
    "net",
    {
        "cell": NetEntry("cells on NAS-Bench-201's, DARTS's or NASNet's skeleton: --channels, --cells", _cell, _final_cell),
        "macro": NetEntry("layers with skips: --channels", _wide("macro_net")),
        "mobile": NetEntry("inverted bottlenecks, a choice each", _plain("mobile_net")),
        "elastic": NetEntry("the largest network, whose parts are the others", _plain("elastic_net")),
        "tunas": NetEntry("the widest network, masked", _plain("tunas_net")),
        "shuffle": NetEntry("ShuffleNet units, a choice and a width each", _plain("shuffle_net")),
        "layer": NetEntry("convolutions of any size, masked", _plain("layer_net")),
        "chain": NetEntry("a chain of layers", _plain("chain_net")),
        "memory-bank": NetEntry("operations between memory banks: --channels a bank", _wide("memory_bank_net")),
        "backbone": NetEntry("plain networks, each a program of its own", _backbone, data="examples", supernet=False),
        "language": NetEntry("a recurrent cell over text: --channels hidden units", _language, _final_language, "text"),
    },
)

# --- spaces -----------------------------------------------------------------------------------------------------------


def _space(factory, **given):
    """A space of `jaxnas.spaces`, by its settings."""

    def make(settings, image):
        from jaxnas import spaces

        return getattr(spaces, factory)(**given, **{k: v for k, v in dataclasses.asdict(settings).items() if v is not None})

    return make


@dataclasses.dataclass(frozen=True)
class DartsCells:
    nodes: Positive = 4
    """Computed nodes of a cell."""
    ops: tuple[str, ...] | None = None
    """Operations of an edge (default: the eight published ones)."""


@dataclasses.dataclass(frozen=True)
class ComputedNodes:
    nodes: Positive = 4
    """Computed nodes of a cell."""


def _subspace(name: str, about: str) -> SpaceEntry:
    """A part of the DARTS cells, as RobustDARTS names it."""
    return SpaceEntry(f"RobustDARTS's {name}: {about}", _space("darts_subspace", name=name), "cell", ComputedNodes)


@dataclasses.dataclass(frozen=True)
class MacroLayers:
    layers: Positive = 6
    """Layers (published: 12)."""


@dataclasses.dataclass(frozen=True)
class MobileLayers:
    widths: tuple[Positive, ...] = (8, 16)
    """Channels of each stage."""
    depths: tuple[Positive, ...] = (2, 2)
    """Layers of each stage."""
    strides: tuple[Positive, ...] = (1, 2)
    """Stride of the first layer of each stage."""
    ops: tuple[str, ...] = ("k3_e1", "k3_e3", "k5_e3")
    """Candidates: kernel, expansion, and groups behind _g; layers that keep the shape may also be left out."""
    stem: Positive = 8
    """Channels of the first convolution."""
    head: Positive = 32
    """Channels before the classifier."""
    stem_stride: Positive = 1
    """Stride of the first convolution."""


def _mobile(settings, image):
    from jaxnas import spaces
    from jaxnas.spaces._mobile import staged_layers

    if not len(settings.widths) == len(settings.depths) == len(settings.strides):
        raise ValueError("give every stage its width, depth and stride: --space.widths, --space.depths and --space.strides")
    layers = staged_layers(
        settings.stem, zip(settings.widths, settings.depths, settings.strides, strict=True), settings.ops, "zero"
    )
    return spaces.mobile(spaces.MobileSpec(layers, settings.stem, settings.head, stem_stride=settings.stem_stride))


@dataclasses.dataclass(frozen=True)
class ElasticUnits:
    channels: tuple[Positive, ...] = (8, 16)
    """Channels of each unit."""
    strides: tuple[Positive, ...] = (1, 2)
    """Stride of the first layer of each unit."""
    depths: tuple[Positive, ...] = (2, 1)
    """Layers that a unit may have, the most first."""
    kernels: tuple[Positive, ...] = (5, 3)
    """Kernels of a layer, the largest first."""
    expansions: tuple[Positive, ...] = (4, 2)
    """Expansions of a layer, the largest first."""
    head: Positive = 64
    """Channels before the classifier."""


@dataclasses.dataclass(frozen=True)
class Width:
    width: PositiveNumber = 1.0
    """Factor of all widths."""


@dataclasses.dataclass(frozen=True)
class TunasStages:
    widths: tuple[Positive, ...] = (8, 16)
    """Channels of each stage, before the factors."""
    depths: tuple[Positive, ...] = (2, 2)
    """Layers of each stage."""
    strides: tuple[Positive, ...] = (1, 2)
    """Stride of the first layer of each stage."""
    factors: tuple[PositiveNumber, ...] = (1.0, 0.5)
    """Of the widths: what a stage may have."""
    kernels: tuple[Positive, ...] = (5, 3)
    """Kernels of a layer."""
    expansions: tuple[Positive, ...] = (3, 2)
    """Expansions of a layer."""


def _tunas(settings, image):
    from jaxnas import spaces

    sizes = lambda width: tuple(sorted({max(1, round(width * factor)) for factor in settings.factors}, reverse=True))
    if not len(settings.widths) == len(settings.depths) == len(settings.strides):
        raise ValueError("give every stage its width, depth and stride: --space.widths, --space.depths and --space.strides")
    rows = zip(settings.widths, settings.depths, settings.strides, strict=True)
    stages = tuple(spaces.TunasStage(sizes(w), d, s, settings.expansions) for w, d, s in rows)
    head = sizes(2 * settings.widths[-1])
    return spaces.tunas(spaces.TunasSpec(stages, sizes(settings.widths[0]), head, settings.kernels, stem_stride=1))


@dataclasses.dataclass(frozen=True)
class ShuffleStages:
    widths: tuple[Positive, ...] = (16, 32)
    """Channels of each stage, even."""
    depths: tuple[Positive, ...] = (2, 2)
    """Blocks of each stage."""
    strides: tuple[Positive, ...] = (1, 2)
    """Stride of the first block of each stage."""
    factors: tuple[PositiveNumber, ...] = (0.5, 1.0, 1.5)
    """Of the channels inside a unit (published: 0.2, 0.4, ..., 2.0)."""
    stem: Positive = 8
    """Channels of the first convolution."""
    head: Positive = 64
    """Channels before the classifier."""


def _shuffle(settings, image):
    from jaxnas import spaces
    from jaxnas.spaces._shuffle import staged_blocks

    if not len(settings.widths) == len(settings.depths) == len(settings.strides):
        raise ValueError("give every stage its width, depth and stride: --space.widths, --space.depths and --space.strides")
    blocks = staged_blocks(settings.stem, settings.widths, settings.depths, settings.strides)
    return spaces.shuffle(spaces.ShuffleSpec(blocks, settings.stem, settings.head, settings.factors, stem_stride=1))


@dataclasses.dataclass(frozen=True)
class LayerSizes:
    layers: Positive = 4
    """Layers (published: 6 to 15)."""
    heights: tuple[Positive, ...] = (1, 3)
    """Heights of filters, odd (published: 1, 3, 5, 7)."""
    widths: tuple[Positive, ...] = (1, 3)
    """Widths of filters, odd."""
    filters: tuple[Positive, ...] = (4, 8, 16)
    """Numbers of filters (published: 24, 36, 48, 64)."""
    strides: tuple[Positive, ...] | None = None
    """Strides (default: 1 everywhere, nothing to decide)."""


@dataclasses.dataclass(frozen=True)
class Chains:
    layers: Positive = 5
    """The most layers (published: 18)."""
    filters: tuple[Positive, ...] = (8, 16)
    """Numbers of filters (published: 64, 128, 256, 512)."""
    kernels: tuple[Positive, ...] = (1, 3)
    """Kernels, odd (published: 1, 3, 5)."""
    pools: tuple[tuple[Positive, Positive], ...] = ((2, 2),)
    """Kernel and stride of pools (published: 5 3, 3 2, 2 2)."""
    dense: tuple[Positive, ...] = (32, 16)
    """Units of dense layers (published: 512, 256, 128)."""


def _chain(settings, image):
    from jaxnas import spaces

    if image[0] != image[1]:
        raise ValueError(f"chains take square images, not {image[0]} x {image[1]}: search another --space")
    return spaces.chain(spaces.metaqnn(image=image[0], **dataclasses.asdict(settings)))


@dataclasses.dataclass(frozen=True)
class Banks:
    ops: Positive = 3
    """Operations of a block."""
    banks: Positive = 4
    """Memory banks."""
    blocks: Positive = 1
    """Blocks, halving the image between them."""
    groups: tuple[Positive, ...] = (1,)
    """Of an operation's convolution (published: 1, 2, 4, 8)."""
    sizes: tuple[Positive, ...] = (1,)
    """Of a block's banks, in multiples of --channels (published: 1 to 8)."""


@dataclasses.dataclass(frozen=True)
class Nodes:
    nodes: Positive = 4
    """Nodes of the cell (published: 8; ENAS: 12)."""


@dataclasses.dataclass(frozen=True)
class CellBlocks:
    blocks: Positive = 5
    """Blocks of a cell."""


def _plainly(name: str, net: str, about: str, settings: type = NoSettings) -> SpaceEntry:
    """A space of `jaxnas.spaces` that is made of its settings alone."""
    return SpaceEntry(about, _space(name), net, settings)


def _macro(settings, shape):
    from jaxnas import spaces
    from jaxnas.spaces._macro import as_image

    return spaces.tabular(*shape) if len(shape) == 1 else spaces.macro(as_image(shape))


SPACES: Table[SpaceEntry] = Table(
    "space",
    {
        "macro": SpaceEntry("whole networks for images, series or tables, and how they are trained", _macro, "backbone"),
        "nasbench201": _plainly("nasbench201", "cell", "NAS-Bench-201 cells: 4 nodes, 5 operations, 15,625 architectures"),
        "darts": _plainly("darts", "cell", "DARTS cells: normal and reduction, 1,037,664,180 each", DartsCells),
        "darts-s1": _subspace("S1", "DARTS cells with two operations of six on each edge, 46,080 each"),
        "darts-s2": _subspace("S2", "DARTS cells of sep_conv_3x3 and skip_connect, 46,080 each"),
        "darts-s3": _subspace("S3", "S2 with none in the softmax"),
        "darts-s4": _subspace("S4", "DARTS cells of sep_conv_3x3 and noise, 46,080 each"),
        "nasnet": _plainly("nasnet", "cell", "NASNet cells: normal and reduction, blocks of 13 operations", CellBlocks),
        "amoebanet": _plainly("amoebanet", "cell", "AmoebaNet cells: normal and reduction, blocks of 8 operations", CellBlocks),
        "pnas": _plainly("pnas", "cell", "PNAS cells: one, of blocks of 8 operations", CellBlocks),
        "enas-micro": _plainly("enas_micro", "cell", "ENAS cells: normal and reduction, blocks of 5 operations", CellBlocks),
        "enas-macro": _plainly("enas_macro", "macro", "ENAS's macro space: layers of 6 operations, any skips", MacroLayers),
        "mobile": SpaceEntry("inverted bottlenecks, layer by layer, sized for small images", _mobile, "mobile", MobileLayers),
        "proxylessnas": _plainly("proxylessnas", "mobile", "ProxylessNAS's 21 layers of inverted bottlenecks"),
        "fbnet": _plainly("fbnet", "mobile", "FBNet's 22 layers of inverted bottlenecks"),
        "fairnas": _plainly("fairnas", "mobile", "FairNAS's 19 layers of inverted bottlenecks"),
        "elastic": _plainly("ofa_small", "elastic", "elastic kernels, widths and depths, for small images", ElasticUnits),
        "ofa-mobilenetv3": _plainly("ofa_mobilenet_v3", "elastic", "Once-for-All's elastic MobileNetV3", Width),
        "tunas": SpaceEntry("bottlenecks with searched filters, sized for small images", _tunas, "tunas", TunasStages),
        "proxylessnas-enlarged": _plainly("proxylessnas_enlarged", "tunas", "TuNAS's ProxylessNAS with searched filters"),
        "shuffle": SpaceEntry("ShuffleNet units of searched widths, sized for small images", _shuffle, "shuffle", ShuffleStages),
        "spos": _plainly("spos", "shuffle", "Single Path One-Shot's 20 choice blocks of ShuffleNet units, with their channels"),
        "layerwise": _plainly("layerwise", "layer", "convolutions of searched sizes, any skips (Zoph and Le 2017)", LayerSizes),
        "chain": SpaceEntry("MetaQNN's chains of convolutions, pools and dense layers", _chain, "chain", Chains),
        "memory-bank": _plainly("memory_bank", "memory-bank", "SMASH's operations between memory banks", Banks),
        "darts-rnn": _plainly("darts_rnn", "language", "DARTS's recurrent cells, on text", Nodes),
        "enas-rnn": _plainly("enas_rnn", "language", "ENAS's recurrent cells, on text", Nodes),
    },
)
