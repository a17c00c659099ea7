"""The spaces in which DARTS fails: parts of its cell space, two operations to choose from on each edge.

Reference: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656, sec. 3.

    S1    on each edge the two operations that a first search of the whole space left there, as published
    S2    sep_conv_3x3, skip_connect
    S3    sep_conv_3x3, skip_connect, none
    S4    sep_conv_3x3, noise: N(0, 1), of which a sound search takes little

`none` is in the softmax alone, as in DARTS, so a kind of cell has 180 * 2^8 = 46,080 architectures in each of them: 180 choices of
two predecessors a node, and eight operations.

In S1 the gates have a column for each of six operations.  Those that an edge does not have are closed (`Space.open`): the policies
give them nothing, but a mixture computes them all the same.
"""

from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._darts import darts, of_candidates
from jaxnas.spaces._space import Space

OPS = {
    "S1": ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3", "dil_conv_5x5"),
    "S2": ("skip_connect", "sep_conv_3x3"),
    "S3": ("none", "skip_connect", "sep_conv_3x3"),
    "S4": ("noise", "sep_conv_3x3"),
}
MAX, AVG, SKIP, SEP3, DIL3, DIL5 = OPS["S1"]
S1 = {  # the edges in the order of the gates: a row a node, from its first predecessor to its last
    "normal": (
        *((SKIP, DIL3), (SKIP, DIL5)),
        *((SKIP, DIL5), (SKIP, SEP3), (SKIP, DIL3)),
        *((MAX, SKIP), (SKIP, SEP3), (SKIP, SEP3), (SKIP, DIL3)),
        *((SKIP, SEP3), (MAX, SKIP), (SKIP, DIL3), (DIL3, DIL5), (DIL3, DIL5)),
    ),
    "reduce": (
        *((MAX, AVG), (MAX, DIL3)),
        *((MAX, AVG), (MAX, AVG), (SKIP, DIL5)),
        *((MAX, AVG), (MAX, SEP3), (SKIP, DIL3), (SKIP, DIL5)),
        *((MAX, AVG), (MAX, AVG), (SKIP, DIL5), (SKIP, DIL5), (SKIP, DIL5)),
    ),
}


@checked
def darts_subspace(name: str, nodes: Positive = 4) -> Space:
    """One of RobustDARTS's spaces.

    Args:
        name: "S1", "S2", "S3" or "S4".
        nodes: computed nodes a cell, default 4 as published, the most that S1 has; with fewer it is that of the first nodes.

    Raises:
        ValueError: for another name, or more nodes than S1 has.
    """
    if name not in OPS:
        raise ValueError(f"`name` must be one of {', '.join(OPS)}; got {name!r}")
    if name != "S1":
        return darts(nodes, OPS[name])
    if nodes > 4:
        raise ValueError(f"S1 says what the edges of 4 nodes are: `nodes` is at most 4, not {nodes}")
    edges = nodes * (nodes + 3) // 2  # 2 + 3 + ...
    return of_candidates(nodes, OPS[name], {kind: candidates[:edges] for kind, candidates in S1.items()})
