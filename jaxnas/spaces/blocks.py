"""Cells of blocks: the spaces of NASNet, PNAS and AmoebaNet.

References: Zoph, Vasudevan, Shlens and Le, CVPR 2018, arXiv:1707.07012; Liu et al., Progressive Neural Architecture Search,
ECCV 2018, arXiv:1712.00559; Real et al., AAAI 2019, arXiv:1802.01548.

States 0 and 1 are the outputs of the two cells before, state 2 + b that of block b:

    h_{2+b} = combine(op_1(h_in1), op_2(h_in2)),   in1, in2 < 2 + b
    cell    = concatenation of all states that no block has read

In a cell of stride 2 the operations on states 0 and 1 have stride 2.  Text form: the blocks of a cell as
[sep_conv_5x5~1+skip_connect~0 max_pool_3x3~2*nor_conv_1x1~1], "+" for addition and "*" for concatenation.

Axes: B blocks, O operations.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space, space

SEPARABLE = ("sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7")
NASNET_OPS = (
    "skip_connect",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "nor_conv_1x1",
    "nor_conv_3x3",
    *SEPARABLE,
    "dil_conv_3x3",
)
PNAS_OPS = (*SEPARABLE, "conv_1x7_7x1", "skip_connect", "avg_pool_3x3", "max_pool_3x3", "dil_conv_3x3")
AMOEBANET_OPS = ("skip_connect", *SEPARABLE, "avg_pool_3x3", "max_pool_3x3", "dil_conv_3x3", "conv_1x7_7x1")
COMBINE = {"add": "+", "concat": "*"}

GENOTYPES = {  # the cells that the authors released, and the states that they concatenate although a block has read them
    "NASNET_A": (
        "[sep_conv_5x5~1+sep_conv_3x3~0 sep_conv_5x5~0+sep_conv_3x3~0 avg_pool_3x3~1+skip_connect~0 "
        "avg_pool_3x3~0+avg_pool_3x3~0 sep_conv_3x3~1+skip_connect~1] "
        "[sep_conv_5x5~1+sep_conv_7x7~0 max_pool_3x3~1+sep_conv_7x7~0 avg_pool_3x3~1+sep_conv_5x5~0 "
        "skip_connect~3+avg_pool_3x3~2 sep_conv_3x3~2+max_pool_3x3~1]",
        ((0,), (3,)),
    ),
    "AMOEBANET_A": (
        "[avg_pool_3x3~1+max_pool_3x3~1 sep_conv_3x3~0+skip_connect~0 skip_connect~1+avg_pool_3x3~0 "
        "sep_conv_3x3~1+sep_conv_5x5~2 avg_pool_3x3~5+sep_conv_3x3~1] "
        "[sep_conv_3x3~0+avg_pool_3x3~1 max_pool_3x3~1+sep_conv_7x7~2 max_pool_3x3~0+max_pool_3x3~1 "
        "sep_conv_3x3~4+conv_1x7_7x1~1 avg_pool_3x3~0+sep_conv_7x7~1]",
        ((0,), (2, 4)),
    ),
    "PNASNET_5": (
        "[sep_conv_5x5~0+max_pool_3x3~0 sep_conv_7x7~1+max_pool_3x3~1 sep_conv_5x5~1+sep_conv_3x3~1 "
        "sep_conv_3x3~4+max_pool_3x3~1 sep_conv_3x3~0+skip_connect~1]",
        ((4,),),
    ),
}


class Blocks(NamedTuple):
    """A cell; the space's gates have the same fields, one-hot."""

    input: Any  # int32[B, 2]: the states that are read
    op: Any  # int32[B, 2]
    combine: Any = None  # int32[B]; None: all blocks add


class Sized(NamedTuple):
    """A cell of `size` + 1 blocks; those after them are not there."""

    size: Any  # int32[]
    blocks: Blocks


class TwoCells(NamedTuple):
    normal: Blocks
    reduce: Blocks


class BlockSpec(NamedTuple):
    """What a block space tells a net."""

    ops: tuple[str, ...]
    blocks: int
    combine: tuple[str, ...]
    kinds: tuple[str, ...] = ()  # names of the cells that have gates of their own; empty: one cell, of stride 1 or 2


@checked
def nasnet(blocks: Positive = 5, ops: tuple[str, ...] = NASNET_OPS, combine: tuple[str, ...] = ("add", "concat")) -> Space:
    """A normal and a reduction cell; 13 operations and two ways to combine, as published.

    Args:
        blocks: B, default 5.
        ops: candidate operations by name.
        combine: of "add" and "concat".

    Raises:
        ValueError: for no block, no operation, or another way to combine.
    """
    cell = _cell(blocks, ops, combine)
    return _finish(space(TwoCells(cell, cell)), BlockSpec(tuple(ops), blocks, tuple(combine), TwoCells._fields))


@checked
def amoebanet(blocks: Positive = 5, ops: tuple[str, ...] = AMOEBANET_OPS) -> Space:
    """AmoebaNet's space: NASNet's cells with operations of their own, all blocks add.

    Raises:
        ValueError: as `nasnet`.
    """
    return nasnet(blocks, ops, ("add",))


@checked
def pnas(blocks: Positive = 5, ops: tuple[str, ...] = PNAS_OPS) -> Space:
    """PNAS's space: one cell, of 1 to B blocks, all of which add; it is used with stride 1 and 2.

    Raises:
        ValueError: as `nasnet`.
    """
    cell = Sized(np.asarray(blocks), _cell(blocks, ops, ("add",)))
    block = np.repeat(np.arange(blocks), 2)
    on_from = np.arange(blocks)[None] >= np.concatenate([[0], block, block])[:, None]  # [D, sizes]
    when = np.pad(on_from, ((0, 0), (0, max(blocks + 1, len(ops), blocks) - blocks)))
    parent = np.where(np.arange(len(when)) == 0, -1, 0)
    return _finish(space(cell, parent=parent, when=when), BlockSpec(tuple(ops), blocks, ("add",)))


def _cell(blocks, ops, combine) -> Blocks:
    if blocks < 1 or not ops or len(set(ops)) < len(ops):
        raise ValueError(f"a cell needs at least one block and operations that differ; got {blocks} and {', '.join(ops)}")
    if not combine or any(c not in COMBINE for c in combine):
        raise ValueError(f"blocks combine by {' or '.join(COMBINE)}; got {', '.join(combine) or 'nothing'}")
    sources = np.repeat(2 + np.arange(blocks), 2).reshape(blocks, 2)
    return Blocks(sources, np.full((blocks, 2), len(ops)), np.full(blocks, len(combine)) if len(combine) > 1 else None)


def canonical_blocks(cell: Blocks) -> Blocks:
    """The two sides of each block in order, the larger (input, op) second; a block is the same network either way."""
    first, second = (cell.input[:, s] * 4096 + cell.op[:, s] for s in (0, 1))
    order = jnp.where((first > second)[:, None], jnp.asarray([[1, 0]]), jnp.asarray([[0, 1]]))
    return cell._replace(**{f: jnp.take_along_axis(getattr(cell, f), order, 1) for f in ("input", "op")})


def _finish(base: Space, spec: BlockSpec) -> Space:
    B, width = spec.blocks, len(spec.ops)
    sized = not spec.kinds

    def one_hot(cell: Blocks, on):  # on: bool[B]
        hot = lambda a, n: jax.nn.one_hot(a, n, dtype=jnp.float32) * on.reshape(-1, *[1] * a.ndim)
        combine = None if cell.combine is None else hot(cell.combine, len(spec.combine))
        return Blocks(hot(cell.input, B + 2), hot(cell.op, width), combine)

    def chosen(gates: Blocks) -> Blocks:
        return jax.tree.map(lambda row: jnp.argmax(row, -1).astype(jnp.int32), gates)

    shapes = Blocks((B, 2, B + 2), (B, 2, width), (B, len(spec.combine)) if len(spec.combine) > 1 else None)
    if sized:
        gates = lambda arch: one_hot(arch.blocks, jnp.arange(B) <= arch.size)
        size_of = lambda soft: jnp.maximum(jnp.sum(jnp.any(soft.op > 0, (1, 2))) - 1, 0).astype(jnp.int32)
        derive = lambda soft: base.canonical(Sized(size_of(soft), chosen(soft)))
        legal = lambda arch: base.canonical(arch._replace(blocks=canonical_blocks(arch.blocks)))
    else:
        gates = lambda arch: TwoCells(*[one_hot(cell, jnp.ones(B, bool)) for cell in arch])
        derive = lambda soft: TwoCells(*[chosen(cell) for cell in soft])
        legal = lambda arch: TwoCells(*[canonical_blocks(cell) for cell in arch])
        shapes = TwoCells(shapes, shapes)

    def cell_text(cell: Blocks, size: int) -> str:
        side = lambda b, s: f"{spec.ops[int(cell.op[b, s])]}~{int(cell.input[b, s])}"
        sign = lambda b: COMBINE[spec.combine[0 if cell.combine is None else int(cell.combine[b])]]
        return f"[{' '.join(side(b, 0) + sign(b) + side(b, 1) for b in range(size))}]"

    def to_text(arch):
        arch = jax.tree.map(np.asarray, arch)
        return cell_text(arch.blocks, int(arch.size) + 1) if sized else " ".join(cell_text(cell, B) for cell in arch)

    def parse(text: str) -> tuple[Blocks, int]:
        rows = []
        for b, block in enumerate(text.split()):
            match = re.fullmatch(r"(\w+)~(\d+)([+*])(\w+)~(\d+)", block)
            names = {sign: k for k, c in enumerate(spec.combine) for sign in COMBINE[c]}
            if not match or match[3] not in names or not {match[1], match[4]} <= set(spec.ops):
                raise ValueError(f"{block!r} is not a block: write op~state+op~state with ops of {', '.join(spec.ops)}")
            if max(int(match[2]), int(match[5])) > b + 1:
                raise ValueError(f"block {b} reads {block!r}: only states 0 to {b + 1} come before it")
            rows.append([int(match[2]), int(match[5]), *[spec.ops.index(match[i]) for i in (1, 4)], names[match[3]]])
        if not 1 <= len(rows) <= B or (len(rows) < B and not sized):
            raise ValueError(f"the cell {text!r} has {len(rows)} blocks; this space has {'up to ' if sized else ''}{B}")
        table = np.asarray(rows + [[0] * 5] * (B - len(rows)), np.int32)
        combine = jnp.asarray(table[:, 4]) if len(spec.combine) > 1 else None
        return Blocks(jnp.asarray(table[:, :2]), jnp.asarray(table[:, 2:4]), combine), len(rows)

    def from_text(text):
        """A published name (NASNET_A, AMOEBANET_A, PNASNET_5), where its operations are in the space, or the text form."""
        cells = re.findall(r"\[([^\]]*)\]", GENOTYPES.get(text.strip(), (text,))[0])
        if len(cells) != max(1, len(spec.kinds)):
            raise ValueError(f"{text!r} is not in this space: write {max(1, len(spec.kinds))} cells as [op~state+op~state ...]")
        parsed = [parse(cell) for cell in cells]
        if sized:
            return Sized(jnp.asarray(parsed[0][1] - 1, jnp.int32), parsed[0][0])
        return TwoCells(*[cell for cell, _ in parsed])

    return base._replace(
        gates=gates,
        derive=derive,
        gate_shapes=shapes,
        canonical=legal,
        to_text=to_text,
        from_text=from_text,
        spec=spec,
    )
