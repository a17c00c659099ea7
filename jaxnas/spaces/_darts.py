"""The DARTS convolutional cell space: 1,037,664,180 cells of each of two kinds, every one of them legal.

Reference: Liu, Simonyan and Yang, DARTS, ICLR 2019, arXiv:1806.09055.
Computed node i picks a PAIR of its 2 + i predecessors and one of the 7 real operations for each; `none` takes part in the
softmax of a search and is never chosen.  Text form: the authors' Genotype(normal=[...], normal_concat=..., ...).
"""

import ast
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space, space
from jaxnas.spaces.cell import CellSpec

OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
KINDS = ("normal", "reduce")

GENOTYPES = {
    "DARTS_V1": (
        "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), "
        "('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5], "
        "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), "
        "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])"
    ),
    "DARTS_V2": (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
        "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
        "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
    ),
    "PC_DARTS_CIFAR": (
        "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1), "
        "('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)], normal_concat=[2, 3, 4, "
        "5], reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2), "
        "('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], reduce_concat=[2, 3, 4, "
        "5])"
    ),
    "PC_DARTS_IMAGENET": (
        "Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('skip_connect', 1), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)], normal_concat=[2, 3, 4, "
        "5], reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), ('max_pool_3x3', 1), "
        "('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)], reduce_concat=[2, 3, 4, "
        "5])"
    ),
    "PDARTS": (
        "Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 0), ('dil_conv_5x5', 4)], normal_concat=[2, 3, 4, "
        "5], reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 2), "
        "('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)], reduce_concat=[2, 3, 4, "
        "5])"
    ),
}


class DARTSCell(NamedTuple):
    op: Any  # int32[N, 2]: the real operation on each of a node's two edges, lower predecessor first
    pair: Any  # int32[N]: which pair of predecessors, in lexicographic order


class DARTS(NamedTuple):
    """An architecture, of two `DARTSCell`s; the gates have the same fields, [E, O]."""

    normal: Any
    reduce: Any


@checked
def darts(nodes: Positive = 4, ops: tuple[str, ...] = OPS) -> Space:
    """The space of a normal and a reduction cell.

    Args:
        nodes: computed nodes a cell, default 4 as published.
        ops: candidate operations by name; `none`, if there, can not be chosen.

    Raises:
        ValueError: for fewer than 1 node or no operation that can be chosen.
    """
    return of_candidates(nodes, ops)


def of_candidates(nodes: int, ops: Sequence[str], candidates: Mapping[str, Sequence[Sequence[str]]] | None = None) -> Space:
    """As `darts`, where each edge may have a part of the operations alone.

    Args:
        nodes, ops: as `darts`.
        candidates: kind -> the operations of each edge, R of them, none of which is `none`; default: all for all.
    """
    spec = CellSpec(tuple(ops), inputs=2, nodes=nodes, kinds=KINDS)
    real = np.asarray([k for k, name in enumerate(spec.ops) if name != "none"])
    if nodes < 1 or len(real) == 0:
        raise ValueError("the DARTS space needs at least one node and one operation other than none")
    edges, width = len(spec.edges), len(spec.ops)
    none = spec.ops.index("none") if "none" in spec.ops else None
    columns = {kind: np.tile(real, (edges, 1)) for kind in KINDS}  # [E, R]: which operation the value of a decision is
    if candidates is not None:
        columns = {kind: np.asarray([[spec.ops.index(name) for name in names] for names in candidates[kind]]) for kind in KINDS}
    pairs = [list(itertools.combinations(range(2 + i), 2)) for i in range(nodes)]
    first = np.asarray([spec.first(i) for i in range(nodes)])
    most = max(map(len, pairs))
    pair_table = np.asarray([p + [p[0]] * (most - len(p)) for p in pairs])  # [N, most, 2]
    number = np.zeros((nodes, nodes + 1, nodes + 1), np.int32)  # [N, a, b] -> which pair
    for i, p in enumerate(pairs):
        for n, (a, b) in enumerate(p):
            number[i, a, b] = n

    def cell_gates(cell, kind):
        rows = first[:, None] + jnp.asarray(pair_table)[np.arange(nodes), cell.pair]  # [N, 2]
        chosen = jax.nn.one_hot(jnp.asarray(columns[kind])[rows, cell.op], width, dtype=jnp.float32)
        absent = jnp.zeros((edges, width), jnp.float32)
        absent = absent if none is None else absent.at[:, none].set(1.0)
        return absent.at[rows.ravel()].set(chosen.reshape(-1, width))

    def cell_derive(soft, kind):
        soft = jnp.take_along_axis(soft, columns[kind], -1)  # [E, R]
        strength, best = jnp.max(soft, -1), jnp.argmax(soft, -1)  # [E]; ties: the lowest index
        op, pair = [], []
        for i in range(nodes):
            edge = slice(first[i], first[i] + 2 + i)
            two = jnp.sort(jnp.argsort(-strength[edge], stable=True)[:2])
            op.append(best[edge][two])
            pair.append(jnp.asarray(number[i])[two[0], two[1]])
        return DARTSCell(jnp.stack(op).astype(jnp.int32), jnp.stack(pair).astype(jnp.int32))

    def entries(cell, kind):
        op, sources = np.asarray(cell.op), [pairs[i][p] for i, p in enumerate(np.asarray(cell.pair))]
        name = lambda i, n: spec.ops[columns[kind][first[i] + sources[i][n], op[i, n]]]
        return [(name(i, n), int(sources[i][n])) for i in range(nodes) for n in (0, 1)]

    def to_text(arch):
        concat = list(range(2, 2 + nodes))
        parts = [f"{kind}={entries(getattr(arch, kind), kind)}, {kind}_concat={concat}" for kind in KINDS]
        return f"Genotype({', '.join(parts)})"

    def parse_cell(kind, listed):
        if len(listed) != 2 * nodes:
            raise ValueError(f"the {kind} cell has {len(listed)} entries, not {2 * nodes}")
        op, pair = [], []
        for i in range(nodes):
            two = sorted(listed[2 * i : 2 * i + 2], key=lambda entry: entry[1])
            sources = tuple(source for _, source in two)
            if sources not in pairs[i]:
                raise ValueError(f"node {i} of the {kind} cell reads {sources}: two different nodes below {2 + i} are needed")
            known = [[spec.ops[k] for k in columns[kind][first[i] + source]] for source in sources]
            for (name, _), names in zip(two, known, strict=True):
                if name not in names:
                    raise ValueError(f"{name!r} is not one of {', '.join(names)}")
            op.append([names.index(name) for (name, _), names in zip(two, known, strict=True)])
            pair.append(pairs[i].index(sources))
        return DARTSCell(jnp.asarray(op, jnp.int32), jnp.asarray(pair, jnp.int32))

    def from_text(text):
        """A published name (DARTS_V1, DARTS_V2) or the Genotype(...) text; the order within a node does not matter."""
        source = GENOTYPES.get(text.strip(), text)
        found = {kind: re.search(rf"\b{kind}\s*=\s*(\[[^\]]*\])", source) for kind in KINDS}
        try:
            listed = {kind: [(str(op), int(j)) for op, j in ast.literal_eval(m[1] if m else "")] for kind, m in found.items()}
        except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
            known = ", ".join(GENOTYPES)
            raise ValueError(
                f"{text!r} is not a DARTS genotype: give {known} or Genotype(normal=[('op', node), ...], ..., reduce=[...], ...)"
            ) from None
        return DARTS(*[parse_cell(kind, listed[kind]) for kind in KINDS])

    def in_space(kind):
        on = np.zeros((edges, width), bool)
        on[np.arange(edges)[:, None], columns[kind]] = True
        on[:, [] if none is None else [none]] = True
        return on

    each = columns["normal"].shape[1]
    cell = DARTSCell(op=np.full((nodes, 2), each), pair=np.asarray([len(p) for p in pairs]))
    base = space(DARTS(cell, cell))
    return base._replace(
        gates=lambda arch: DARTS(*[cell_gates(getattr(arch, kind), kind) for kind in KINDS]),
        derive=lambda soft: DARTS(*[cell_derive(getattr(soft, kind), kind) for kind in KINDS]),
        gate_shapes=DARTS((edges, width), (edges, width)),
        to_text=to_text,
        from_text=from_text,
        spec=spec,
        open=None if candidates is None else DARTS(*[in_space(kind) for kind in KINDS]),
    )
