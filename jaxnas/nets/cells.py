"""Nets: what a space's architectures compute, as pure functions of (variables, x, gates).

One supernet, three ways to run it, equal by test in outputs, gradients and batch statistics:
    mixture       soft gates weigh all operations of an edge                 apply(..., path=False)
    single path   one-hot gates; `lax.switch` computes what was chosen       apply(..., path=True)
    specialised   a plain Flax module of the chosen operations               specialize(arch) -> (module, extract)
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch
from jaxnas.checks import Image, checked, require_archs
from jaxnas.kinds import NonNegative, Positive
from jaxnas.nets.base import Net, check_image, linen, mask, number
from jaxnas.nets.block_cell import choice_of, extract_blocks, readers, used_rows, without_slots
from jaxnas.nets.cell_cost import cell_macs
from jaxnas.nets.cell_module import CellNet
from jaxnas.nets.ops import OPS, Build, Pool
from jaxnas.nets.super_cell import Anneal, extract_edges
from jaxnas.spaces._space import Space
from jaxnas.spaces.blocks import BlockSpec
from jaxnas.spaces.cell import CellSpec


def _skeleton(space: Space) -> str:
    if isinstance(space.spec, BlockSpec):
        return "nasnet"
    if not isinstance(space.spec, CellSpec) or space.spec.inputs not in (1, 2):
        raise ValueError("this space has no cell description (`space.spec`): a cell net needs a cell space of 1 or 2 inputs")
    return "nasbench201" if space.spec.inputs == 1 else "darts"


def _table(space: Space, ops: Mapping[str, Build] | None) -> Mapping[str, Build]:
    """The space's operations in gate order; NAS-Bench-201 has no norm behind its pools."""
    table = {**OPS, **(ops or {})}
    if isinstance(space.spec, CellSpec) and space.spec.inputs == 1 and "avg_pool_3x3" not in (ops or {}):
        table["avg_pool_3x3"] = lambda features, stride, affine: Pool("avg", stride)
    missing = [name for name in space.spec.ops if name not in table]
    if missing:
        raise ValueError(f"no operation named {', '.join(missing)}: pass ops={{{missing[0]!r}: build}} or use {', '.join(OPS)}")
    return flax.core.FrozenDict({name: table[name] for name in space.spec.ops})


def _kinds(space: Space, gates) -> dict[str, Any]:
    """kind -> [E, O]; a space of one kind has bare gates."""
    kinds = space.spec.kinds
    return {kind: getattr(gates, kind) for kind in kinds} if kinds else {"cell": gates}


def _choice(space: Space, arch, keep: tuple[tuple[int, ...], ...] = ()) -> Mapping[str, Any]:
    """kind -> the (edge, operation) pairs of an architecture, without the absent edges; or the choice of its blocks."""
    names, kept = space.spec.ops, {}
    for n, (kind, gates) in enumerate(_kinds(space, space.gates(arch)).items()):
        if isinstance(space.spec, BlockSpec):
            kept[kind] = choice_of(gates, keep[n] if keep else ())
            continue
        rows = [(e, int(np.argmax(row))) for e, row in enumerate(np.asarray(gates)) if row.any()]
        kept[kind] = tuple((e, k) for e, k in rows if names[k] != "none")
    return flax.core.FrozenDict(kept)


@checked
def cell_net(
    space: Space,
    *,
    image: Image,
    classes: Positive,
    channels: Positive = 16,
    cells: Positive | None = None,
    bare: bool = False,
    affine: bool = False,
    ops: Mapping[str, Build] | None = None,
    partial: Positive = 1,
    auxiliary_skip: Callable[[jax.Array | int], Any] | None = None,
    skip_dropout: Callable[[jax.Array | int], Any] | None = None,
    bare_zeros: bool = False,
) -> Net:
    """The supernet of a cell space.

    That of a space of blocks runs any one architecture, with or without `path`: its gates are one-hot.

    Args:
        space: a cell space (`nasbench201`, `darts`, `nasnet`, or your own with a `spec`).
        image: (H, W, C) of the examples.
        classes: number of classes.
        channels: of the first cells; a reduction doubles them.
        cells: in all for two-input cells (default 8, reductions at 1/3 and 2/3), a stage for one-input cells (default 5) and
            for cells of blocks (default 2).
        bare: no stem and no reduction, `cells` (default 5) one-input cells one after another on images of `channels` channels.
        affine: the norms behind operations have scales and biases, and DARTS's pools no norms, as in the nets that TE-NAS
            prunes; default: they have none, so that no scale can undo an edge's weight.  Those of cells of blocks always do.
        ops: further operations by name, or other builds for known names; see `jaxnas.nets.ops`.
        partial: K; one in K channels goes through the operations (PC-DARTS); default 1, all of them.
        auxiliary_skip: DARTS-'s beta, a schedule of the search's step; default: none.
        skip_dropout: P-DARTS's dropout behind the skips of stride 1, a schedule of the search's step; default: none.  Both are
            there in a mixture that is told the step t, as a search tells it, the dropout in training only.
        bare_zeros: as in GDAS's code, on a single path the gates of an edge's other operations, which are 0, are added to its
            output, so that the gradient of each is the sum of the output's; default: they have none.

    Raises:
        ValueError: for a space without a cell description, an unknown operation, sizes below 1, a `partial` that does not
            divide the channels, `bare` for other cells or images, or one of the last four for cells of blocks.
    """
    check_image(image, classes)
    skeleton = _skeleton(space)
    if bare and skeleton != "nasbench201":
        raise ValueError("bare cells have one input each: this space's have two, leave `bare` out")
    if bare and image[-1] != channels:
        raise ValueError(f"bare cells read the image itself: give channels={image[-1]}, as many as it has; got {channels=}")
    cells = {"darts": 8, "nasnet": 2, "nasbench201": 5}[skeleton] if cells is None else cells
    if min(channels, cells, classes) < 1 or (channels % 2 and not bare):
        raise ValueError(
            f"channels (even, but of bare cells), cells and classes must be positive: got {channels}, {cells}, {classes}"
        )
    if partial < 1 or channels % partial:
        raise ValueError(f"`partial` must divide the channels: {partial} does not divide {channels}")
    if skeleton == "nasnet" and (partial > 1 or auxiliary_skip or skip_dropout or bare_zeros):
        raise ValueError(
            "cells of blocks mix no operations: leave `partial`, `auxiliary_skip`, `skip_dropout` and `bare_zeros` out"
        )
    module = CellNet(
        spec=space.spec,
        ops=_table(space, ops),
        skeleton="bare" if bare else skeleton,
        channels=channels,
        cells=cells,
        classes=classes,
        affine=affine,
        partial=partial,
        auxiliary_skip=auxiliary_skip is not None,
        bare_zeros=bare_zeros,
    )

    def compute(variables, x, gates, t, **how):
        at = lambda schedule: None if schedule is None or t is None else schedule(t)
        return module.apply(variables, x, gates, anneal=Anneal(at(auxiliary_skip), at(skip_dropout)), **how)

    def used(variables, gates):
        kinds, layout = _kinds(space, gates), module.layout

        def on(names, v):  # names: collection, cell, group, operation, ...
            if (i := number(names[1], "cell")) is None:
                return jnp.ones(())
            own: Any = kinds.get(layout[i][0])  # None: the skeleton's own reduction
            if isinstance(space.spec, BlockSpec):
                return used_rows(space.spec, variables["params"][names[1]], own)[names[2]]  # [], [B] or [2 B]
            if (source := number(names[2], "from")) is None:
                return jnp.ones(())
            if names[3] == "auxiliary_skip":
                return jnp.zeros(())  # a single path runs none
            return own[jnp.asarray(space.spec.leaving(source)), space.spec.ops.index(names[3])] != 0  # [E]

        return mask(on, variables)

    def specialize(arch):
        choice = _choice(space, arch)
        small = module.clone(choice=choice)

        def extract(variables):
            out = {}
            for collection, tree in variables.items():
                out[collection] = {k: v for k, v in tree.items()}
                for i, (kind, features, stride) in enumerate(module.layout):
                    if kind == "residual":
                        continue
                    stacked = out[collection].pop(f"cell{i}", {})
                    if isinstance(space.spec, BlockSpec):
                        kept = extract_blocks(space.spec, choice[kind], stride, stacked, variables["params"][f"cell{i}"])
                        for name, axis in readers(len(module.layout), i).items():
                            if name in out[collection]:
                                out[collection][name] = without_slots(out[collection][name], choice[kind][1], features, axis)
                    else:
                        kept = extract_edges(space.spec, choice[kind], stacked)
                    if kept:
                        out[collection][f"cell{i}"] = kept
            return out

        return small, extract

    mixes = not isinstance(space.spec, BlockSpec)
    net = linen(module, space, image, classes, used=used, specialize=specialize, compute=compute, mixes=mixes)
    return net._replace(macs=cell_macs(module, image, lambda gates: _kinds(space, gates))) if mixes else net


@checked
def evaluation_net(
    space: Space,
    arch: Arch,
    *,
    classes: Positive,
    channels: Positive = 36,
    cells: Positive | None = None,
    auxiliary: bool = False,
    imagenet: bool = False,
    keep: tuple[tuple[NonNegative, ...], ...] = (),
    ops: Mapping[str, Build] | None = None,
) -> CellNet:
    """The network that is trained from scratch once the search is over: affine norms, drop path, auxiliary head.

    A Flax module: `apply(variables, x [B, H, W, C], train=, rate=, rngs={"drop_path": key}, mutable=["batch_stats"])`.

    Args:
        space, arch: the architecture.
        classes: number of classes.
        channels, cells: default 36 and 20 cells (two inputs), 5 a stage (one input), 6 a stage (blocks).
        auxiliary: the head behind the cell at 2/3 of the depth (DARTS skeletons; maps of at least 8 x 8 there).
        imagenet: the three-convolution stem for 224 x 224 images (DARTS cells only).
        keep: for cells of blocks, states of each kind that are concatenated although a block has read them (see
            `jaxnas.spaces.blocks.GENOTYPES`); default: none, as the papers' rule has it.
        ops: as in `cell_net`.

    Raises:
        ValueError: as `cell_net`; for an auxiliary head on one-input cells, an ImageNet stem on others than DARTS's, or `keep`
            on others than blocks.
    """
    skeleton = _skeleton(space)
    if skeleton == "nasbench201" and auxiliary:
        raise ValueError("the NAS-Bench-201 skeleton has no auxiliary head: leave it off")
    if skeleton != "darts" and imagenet:
        raise ValueError("only DARTS cells have an ImageNet stem: leave it off")
    if skeleton != "nasnet" and keep:
        raise ValueError("only cells of blocks may keep what a block has read: leave `keep` out")
    require_archs(space, arch=arch)
    cells = {"darts": 20, "nasnet": 6, "nasbench201": 5}[skeleton] if cells is None else cells
    return CellNet(
        spec=space.spec,
        ops=_table(space, ops),
        skeleton="darts_imagenet" if imagenet else skeleton,
        channels=channels,
        cells=cells,
        classes=classes,
        choice=_choice(space, arch, keep),
        affine=True,
        auxiliary=auxiliary,
    )
