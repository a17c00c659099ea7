"""Which examples become train, valid and test: indices alone.

Axes: N examples.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxnas.base import Key
from jaxnas.data.errors import DataError


class Parts(NamedTuple):
    """Indices into the examples; disjoint, and together all of them."""

    train: np.ndarray  # int64[n]
    valid: np.ndarray
    test: np.ndarray


def permutation(key: Key, n: int) -> np.ndarray:
    """A permutation of range(n), int64[n]: that of `jax.random.permutation` would take a second to compile for every n."""
    return np.argsort(np.asarray(jax.random.bits(key, (n,))), kind="stable")


def cut(
    key: Key,
    n: int,
    valid: float = 0.5,
    test: float = 0.2,
    *,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Parts:
    """Cuts n examples at random: `test` of them all, then `valid` of the rest.

    Args:
        key: the only source of randomness.
        n: N.
        valid, test: shares; 0 for a part that is not wanted.
        strata: int[N], classes whose shares each part is to keep, to within one example of each class: largest remainders.
        groups: int[N]; the examples of a group stay together.  A part then has as many examples as whole groups allow.

    Raises:
        DataError: for strata and groups at once, or too few groups for the parts.
    """
    order = permutation(key, n)
    if groups is not None:
        if strata is not None:
            raise DataError("stratified parts cannot keep groups whole: leave one of stratified and groups out")
        return _whole_groups(order, groups, valid, test)
    if strata is not None:
        tested = _by_class(strata[order], test)
        rest = order[~tested]
        held = _by_class(strata[rest], valid)
        return Parts(train=rest[~held], valid=rest[held], test=order[tested])
    tested, rest = np.split(order, [round(test * n)])
    held, train = np.split(rest, [round(valid * len(rest))])
    return Parts(train, held, tested)


def _by_class(strata: np.ndarray, share: float) -> np.ndarray:
    """bool[n]: the first examples of each class, `share` of it by largest remainders."""
    classes, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    exact = counts * share
    quota = np.floor(exact).astype(int)
    left = round(share * len(strata)) - quota.sum()
    quota[np.argsort(-(exact - quota), kind="stable")[: max(left, 0)]] += 1
    taken = np.zeros(len(strata), bool)
    for c in range(len(classes)):
        taken[np.flatnonzero(inverse == c)[: quota[c]]] = True
    return taken


def _whole_groups(order: np.ndarray, groups: np.ndarray, valid: float, test: float) -> Parts:
    """Groups, in the order in which the permutation first meets them, fill test, then valid, then train."""
    _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
    met = np.argsort(first)  # [G]
    sizes = np.bincount(inverse)[met]
    G, wanted = len(met), [(number, share) for number, share in ((2, test), (1, valid)) if share > 0]
    needed = 1 + len(wanted)
    if needed > G:
        raise DataError(f"{G} group{'s' * (G != 1)} cannot fill {needed} parts: give more groups, or split without them")
    part, begin, room = np.zeros(G, int), 0, len(order)  # part 0: train
    for i, (number, share) in enumerate(wanted):
        behind = len(wanted) - i  # groups that the parts behind this one need
        ends = np.cumsum(sizes[begin : G - behind])
        count = 1 + int(np.argmin(np.abs(ends - share * room)))
        part[begin : begin + count] = number
        room -= int(ends[count - 1])
        begin += count
    of_group = np.empty(G, int)
    of_group[met] = part
    return Parts(*(order[of_group[inverse] == number] for number in (0, 1, 2)))
