"""The NAS-Bench-201 cell space: 4 nodes, 6 edges, 5 operations, 15,625 cells in 6,466 isomorphism classes.

Reference: Dong and Yang, NAS-Bench-201, ICLR 2020, arXiv:2001.00326.
Edges in gate order: 0->1, 0->2, 1->2, 0->3, 1->3, 2->3.  Text form: |op~0|+|op~0|op~1|+|op~0|op~1|op~2|
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.spaces._space import Space, space
from jaxnas.spaces.cell import CellSpec

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
SPEC = CellSpec(OPS, inputs=1, nodes=3)


class NASBench201(NamedTuple):
    op: Any  # int32[6], values index OPS


def expression(ops: Sequence[int] | np.ndarray) -> str:
    """The text of the network a cell computes, letter for letter the authors' (`to_unique_str`); equal texts, equal networks.

    skip is its source, a path from none is "#", and a sum does not depend on the order of its terms.  A sum keeps its "#",
    so some equal networks have different texts: 6,466 classes as published, 4,930 if only the network counted.
    """
    nodes = ["0"]
    for i in range(SPEC.nodes):
        terms = []
        for j in range(i + 1):
            name = OPS[int(ops[SPEC.first(i) + j])]
            if name == "none" or nodes[j] == "#":
                terms.append("#")
            else:
                terms.append(nodes[j] if name == "skip_connect" else f"({nodes[j]})@{name}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


@functools.cache
def representatives() -> np.ndarray:
    """int32[15625]: the smallest index of each cell's isomorphism class."""
    first: dict[str, int] = {}
    every = np.stack(np.unravel_index(np.arange(5**6), (5,) * 6), -1)
    return np.asarray([first.setdefault(expression(ops), i) for i, ops in enumerate(every)], np.int32)


def to_text(arch: NASBench201) -> str:
    """The text form of a cell (host)."""
    ops = np.asarray(arch.op)
    nodes = [[f"{OPS[ops[SPEC.first(i) + j]]}~{j}" for j in range(i + 1)] for i in range(SPEC.nodes)]
    return "+".join(f"|{'|'.join(node)}|" for node in nodes)


def from_text(text: str) -> NASBench201:
    """Reads the text form (host); raises ValueError for what is not a cell of the space."""
    entries = [e for node in text.strip().split("+") for e in node.strip("|").split("|")]
    wanted = [j for j, _ in SPEC.edges]
    try:
        names, sources = zip(*[(e.split("~")[0], int(e.split("~")[1])) for e in entries], strict=True)
        ops = [OPS.index(n) for n in names]
    except (ValueError, IndexError):
        names, sources, ops = (), (), []
    arch = NASBench201(jnp.asarray(ops, jnp.int32))
    if list(sources) != wanted or to_text(arch) != text.strip():
        raise ValueError(
            f"{text!r} is not a NAS-Bench-201 cell: write |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with ops of {', '.join(OPS)}"
        )
    return arch


@checked
def nasbench201(node_uniform: bool = True) -> Space:
    """The space, all 15,625 cells.

    Args:
        node_uniform: mutate as the authors' code does, picking a node and then one of its edges; False: any edge alike.
    """
    weight = [1 / (i + 1) for i in range(SPEC.nodes) for _ in range(i + 1)] if node_uniform else None
    base = space(NASBench201(np.full(6, len(OPS))), mutate_weight=weight)
    gates = lambda arch: jax.nn.one_hot(arch.op, len(OPS), dtype=jnp.float32)  # [6, 5]
    derive = lambda soft: NASBench201(jnp.argmax(soft, -1).astype(jnp.int32))
    canonical = lambda arch: base.from_index(jnp.asarray(representatives())[base.index(arch)])
    return base._replace(
        gates=gates,
        derive=derive,
        gate_shapes=(6, len(OPS)),
        canonical=canonical,
        to_text=to_text,
        from_text=from_text,
        spec=SPEC,
    )
