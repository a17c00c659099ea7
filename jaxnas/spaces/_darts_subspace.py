"""The spaces in which DARTS fails: parts of its cell space, two operations to choose from on each edge.

Reference: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656, sec. 3.

    S2    sep_conv_3x3, skip_connect
    S3    sep_conv_3x3, skip_connect, none
    S4    sep_conv_3x3, noise: N(0, 1), of which a sound search takes little

`none` is in the softmax alone, as in DARTS, so a kind of cell has 180 * 2^8 = 46,080 architectures in each of them: 180 choices of
two predecessors a node, and eight operations.
"""

from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._darts import darts
from jaxnas.spaces._space import Space

OPS = {
    "S2": ("skip_connect", "sep_conv_3x3"),
    "S3": ("none", "skip_connect", "sep_conv_3x3"),
    "S4": ("noise", "sep_conv_3x3"),
}


@checked
def darts_subspace(name: str, nodes: Positive = 4) -> Space:
    """One of RobustDARTS's spaces.

    Args:
        name: "S2", "S3" or "S4".
        nodes: computed nodes a cell, default 4 as published.

    Raises:
        ValueError: for another name.
    """
    if name not in OPS:
        raise ValueError(f"`name` must be one of {', '.join(OPS)}; got {name!r}")
    return darts(nodes, OPS[name])
