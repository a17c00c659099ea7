"""Recurrent cells as trees: what the first controller searched for Penn Treebank.

Reference: Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv:1611.01578, section 3.4.

    p_k = combine_k(W_k x, U_k h)   of leaves k < N          p_k = combine_k(a_l, a_r)   of inner nodes, l = 2 (k - N), r = l + 1
    a_k = activation_k(p_k)         a_read <- activation(combine(a_read, c)) with the cell state before

    c' = p_write,   h' = a of the root (the last node)

The base N is 8 as published: (2 * 4)^(2 N) * (2 N - 1)^2 = 6.3e16 cells (2 N - 1 nodes and the injection choose both; two
indices).  Text form: the paper's tokens, as in "add tanh elem_mult relu elem_mult sigmoid add relu 1 0" for N = 2: the nodes,
the injection, then what is written and where c is read.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space, space

COMBINE = ("add", "elem_mult")
ACTIVATIONS = ("identity", "tanh", "sigmoid", "relu")

CELLS = {
    "FIGURE_5": "add tanh elem_mult relu elem_mult sigmoid add relu 1 0",  # the paper's example, of base 2
    "NASCELL": (  # what the search found, as the authors released it
        "add sigmoid add relu add sigmoid elem_mult relu add tanh add sigmoid add tanh add sigmoid "
        "elem_mult tanh add tanh elem_mult tanh add sigmoid elem_mult identity add tanh elem_mult tanh add tanh 12 8"
    ),
    "LSTM": (  # without biases; its forget gate is a sum of two leaves, its output gate one of four
        "add identity add identity add sigmoid add tanh add identity add identity add identity add identity "
        "add sigmoid elem_mult identity add identity add identity add tanh add sigmoid elem_mult identity elem_mult identity 12 8"
    ),
}


class Node(NamedTuple):
    combine: Any  # int32[]
    activation: Any  # int32[]


class Tree(NamedTuple):
    """A cell, in the order of the controller's tokens; the gates are its one-hot rows."""

    nodes: tuple[Node, ...]  # the N leaves, then the N - 1 inner nodes
    inject: Node
    write: Any  # int32[]: the node whose value before its activation is the next cell state
    read: Any  # int32[]: the node into which the cell state is injected


class TreeSpec(NamedTuple):
    """What a space of trees tells a net."""

    base: int
    combine: tuple[str, ...]
    activations: tuple[str, ...]


@checked
def recurrent(base: Positive = 8, combine: tuple[str, ...] = COMBINE, activations: tuple[str, ...] = ACTIVATIONS) -> Space:
    """The space of recurrent cells.

    Args:
        base: N, the leaves of the tree, default 8.
        combine: of "add" and "elem_mult".
        activations: of "identity", "tanh", "sigmoid" and "relu".

    Raises:
        ValueError: for a base below 2, or other names, or one twice.
    """
    spec = TreeSpec(base, tuple(combine), tuple(activations))
    if base < 2:
        raise ValueError(f"a tree needs at least two leaves; got base={base}")
    for names, known in ((spec.combine, COMBINE), (spec.activations, ACTIVATIONS)):
        if not names or not set(names) <= set(known) or len(set(names)) < len(names):
            raise ValueError(f"choose from {', '.join(known)}, each once; got {', '.join(names) or 'nothing'}")
    count = 2 * base - 1
    node = Node(len(combine), len(activations))
    space_of_trees = space(Tree((node,) * count, node, count, count))
    tables = [spec.combine, spec.activations] * (count + 1) + [tuple(map(str, range(count)))] * 2  # of the tokens

    def to_text(arch):
        return " ".join(table[int(v)] for table, v in zip(tables, jax.tree.leaves(arch), strict=True))

    def from_text(text):
        """A cell of `CELLS`, where its base is this one, or the text form."""
        words = CELLS.get(text.strip(), text).split()
        if len(words) != len(tables):
            raise ValueError(f"{text!r} has {len(words)} tokens; a cell of base {base} has {len(tables)}")
        for n, (word, table) in enumerate(zip(words, tables, strict=True)):
            if word not in table:
                raise ValueError(f"token {n} is {word!r}: it must be one of {', '.join(table)}")
        return space_of_trees.unflat(jnp.asarray([table.index(w) for w, table in zip(words, tables, strict=True)], jnp.int32))

    return space_of_trees._replace(to_text=to_text, from_text=from_text, spec=spec)
