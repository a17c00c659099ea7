"""The DARTS recurrent cell space: N! * 4^N cells, 2.6e9 of 8 nodes, every one of them legal.

Reference: Liu, Simonyan and Yang, DARTS, ICLR 2019, arXiv:1806.09055, section 2.1 and appendix A.1.2.

Node i reads ONE of states 0 .. i (state 0 is made of the input and the hidden state before, state 1 + i is node i) through one
of the real operations; `none` takes part in the softmax of a search and is never chosen.  What a cell computes is in
`jaxnas.nets.language_model`.  Text form: the authors' Genotype(recurrent=[('sigmoid', 0), ...], concat=[1, ...]); the concat,
always all nodes, is not read.

Axes: N nodes, E = N (N + 1) / 2 edges (node-major, then by what is read), O operations.
"""

import ast
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space, space
from jaxnas.spaces.cell import CellSpec

OPS = ("none", "tanh", "relu", "sigmoid", "identity")

GENOTYPES = {
    "DARTS_V1": (
        "Genotype(recurrent=[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), ('relu', 4), ('identity', 1), ('relu', 5), "
        "('relu', 1)], concat=[1, 2, 3, 4, 5, 6, 7, 8])"
    ),
    "DARTS_V2": (
        "Genotype(recurrent=[('sigmoid', 0), ('relu', 1), ('relu', 1), ('identity', 1), ('tanh', 2), ('sigmoid', 5), ('tanh', 3), "
        "('relu', 5)], concat=[1, 2, 3, 4, 5, 6, 7, 8])"
    ),
}


class RNNCell(NamedTuple):
    op: Any  # int32[N]: which of the real operations
    previous: Any  # int32[N]: the state that a node reads, at most its own number


@checked
def darts_rnn(nodes: Positive = 8, ops: tuple[str, ...] = OPS) -> Space:
    """The space of recurrent cells.

    Args:
        nodes: N, default 8 as published.
        ops: candidate operations by name; `none`, if there, can not be chosen.

    Raises:
        ValueError: for fewer than 1 node, no operation that can be chosen, or one twice.
    """
    spec = CellSpec(tuple(ops), inputs=1, nodes=nodes)
    names = [name for name in spec.ops if name != "none"]
    if nodes < 1 or not names:
        raise ValueError("the DARTS recurrent space needs at least one node and one operation other than none")
    if len(set(spec.ops)) < len(spec.ops):
        raise ValueError(f"name each operation once; got {', '.join(spec.ops)}")
    real = np.asarray([spec.ops.index(name) for name in names])  # columns of the gates
    edges, width = len(spec.edges), len(spec.ops)
    none = spec.ops.index("none") if "none" in spec.ops else None
    first = np.asarray([spec.first(i) for i in range(nodes)], np.int32)
    each = np.arange(nodes, dtype=np.int32)
    row = np.minimum(first[:, None] + each, edges - 1)  # [N, N]: the edge from state j into node i, where j <= i

    def gates(cell):
        absent = jnp.zeros((edges, width), jnp.float32)
        absent = absent if none is None else absent.at[:, none].set(1.0)
        return absent.at[first + cell.previous].set(jax.nn.one_hot(jnp.asarray(real)[cell.op], width, dtype=jnp.float32))

    def derive(soft):
        strength, best = jnp.max(soft[:, real], -1), jnp.argmax(soft[:, real], -1)  # [E]; ties: the lowest index
        previous = jnp.argmax(jnp.where(each <= each[:, None], strength[row], -jnp.inf), -1)
        return RNNCell(best[first + previous].astype(jnp.int32), previous.astype(jnp.int32))

    def choice(cell) -> tuple[tuple[str, int], ...]:
        """(operation, what is read) of each node."""
        op, previous = np.asarray(cell.op).tolist(), np.asarray(cell.previous).tolist()
        return tuple((names[k], j) for k, j in zip(op, previous, strict=True))

    def to_text(cell):
        return f"Genotype(recurrent={list(choice(cell))}, concat={list(range(1, nodes + 1))})"

    def from_text(text):
        """A published name (DARTS_V1, DARTS_V2) or the Genotype(...) text."""
        found = re.search(r"\brecurrent\s*=\s*(\[[^\]]*\])", GENOTYPES.get(text.strip(), text))
        try:
            listed = [(str(name), int(j)) for name, j in ast.literal_eval(found[1] if found else "")]
        except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
            known = ", ".join(GENOTYPES)
            raise ValueError(
                f"{text!r} is not a recurrent genotype: give {known} or Genotype(recurrent=[('op', state), ...], concat=[...])"
            ) from None
        if len(listed) != nodes:
            raise ValueError(f"this genotype has {len(listed)} nodes, not {nodes}")
        for i, (name, j) in enumerate(listed):
            if name not in names:
                raise ValueError(f"{name!r} is not one of {', '.join(names)}")
            if not 0 <= j <= i:
                raise ValueError(f"node {i} reads state {j}: it must be one of 0 to {i}")
        op, previous = zip(*[(names.index(name), j) for name, j in listed], strict=True)
        return RNNCell(jnp.asarray(op, jnp.int32), jnp.asarray(previous, jnp.int32))

    decisions = RNNCell(op=np.full(nodes, len(names)), previous=1 + each)
    base = space(decisions, gates=gates, derive=derive, gate_shapes=(edges, width))
    return base._replace(to_text=to_text, from_text=from_text, spec=spec, choice=choice)
