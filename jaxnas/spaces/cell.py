"""The static description of a cell: what a cell space tells a net.

Nodes 0 .. inputs-1 are the cell's inputs; node inputs+i is computed from all that come before it.  Edges are ordered by
destination, then source, so that edge (source j -> i-th computed node) is row `first(i) + j` of the gates.
"""

from typing import NamedTuple


class CellSpec(NamedTuple):
    ops: tuple[str, ...]  # candidate operations, in the order of the gates' columns
    inputs: int  # 1 (NAS-Bench-201) or 2 (DARTS: the outputs of the two cells before)
    nodes: int  # computed nodes
    kinds: tuple[str, ...] = ()  # names of the cells that have gates of their own; empty: one kind, gates are one array

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, computed node) of each edge, in gate order."""
        return tuple((j, i) for i in range(self.nodes) for j in range(self.inputs + i))

    def first(self, i: int) -> int:
        """The first edge of computed node i."""
        return self.inputs * i + i * (i - 1) // 2

    def leaving(self, j: int) -> tuple[int, ...]:
        """The edges that leave node j."""
        return tuple(e for e, (source, _) in enumerate(self.edges) if source == j)
