"""What do the best share, and how alike are independent answers?

    motif     the values of one to three decisions; n of the N architectures have it, k of the K best
    p         P(X >= k), X hypergeometric (N, n, K): the odds of as many by chance; times the motifs looked at (Bonferroni)
    alike     of two runs, drawn without replacement: sum_a c_a (c_a - 1) / R (R - 1), c_a of R runs decide for a

Host-side functions.  Larger is better.

Axes: N architectures, D decisions, R runs.
"""

from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.analysis.importance import Subset, checked, decisions, subsets, unique
from jaxnas.base import Key
from jaxnas.spaces._space import Space


class Motif(NamedTuple):
    decisions: Subset
    values: Subset
    best: int  # k, of the best that have it
    known: int  # n, of all
    lift: float  # (k / K) / (n / N)
    p: float  # corrected for the motifs looked at, at most 1


def motifs(space: Space, archs: ArrayLike, scores: ArrayLike, *, top: float = 0.1, size: int = 3, most: int = 20) -> list[Motif]:
    """The combinations of values that the best have more often than chance explains, least likely first.

    A motif that holds another one is listed beside it, unless the same architectures have both.

    Args:
        space, archs, scores: as of `jaxnas.analysis.importance.from_history`.
        top: the part that counts as best.
        size: decisions of the largest motif.
        most: how many to list.

    Raises:
        ValueError: for an empty history, or a part outside (0, 1).
    """
    arity = decisions(space, size)
    archs, scores = unique(space, archs, scores)
    best = top_part(scores, top)
    from scipy.stats import hypergeom

    N, K = len(archs), len(best)
    known_of: dict[Subset, np.ndarray] = {(): np.full(N, N)}  # of each architecture: how many have its values there
    found, looked_at = [], 0
    for subset in subsets(len(arity), size):
        code = np.ravel_multi_index(tuple(archs[:, subset].T), [arity[d] for d in subset])  # [N]
        _, first, which, known = np.unique(code, return_index=True, return_inverse=True, return_counts=True)
        known_of[subset] = known[which]
        among = np.bincount(which[best], minlength=len(known))
        inner = [known_of[subset[:j] + subset[j + 1 :]][first] for j in range(len(subset))]
        own = (np.asarray(inner) != known[None]).all(0)
        looked_at += own.sum()
        for i in np.flatnonzero(own & (among * N > known * K)):
            values = tuple(archs[first[i], subset].tolist())
            found.append(Motif(subset, values, int(among[i]), int(known[i]), float(among[i] * N / (known[i] * K)), 0.0))
    p = hypergeom.sf([m.best - 1 for m in found], N, [m.known for m in found], K) if found else ()
    found = [m._replace(p=min(1.0, float(odds) * int(looked_at))) for m, odds in zip(found, p, strict=True)]
    return sorted(found, key=lambda m: (m.p, -m.lift, len(m.decisions)))[:most]


def top_part(scores: ArrayLike, top: float) -> np.ndarray:
    """Where the best part of the scores [N] is, at least one."""
    if not 0 < top < 1:
        raise ValueError(f"the best part lies between 0 and 1; got top={top}")
    order = np.argsort(-np.asarray(scores), kind="stable")
    return order[: max(1, round(top * len(order)))]


class Agreement(NamedTuple):
    """How alike the answers of independent runs are; see `agreement`."""

    distance: float  # decisions in which two runs differ, in the mean
    by_chance: float  # the same of two random architectures
    decisions: np.ndarray  # [D], the odds that two runs decide alike
    random: np.ndarray  # [D], the same by chance
    same: float  # the odds that two runs find the same network, as far as `space.canonical` can tell


def agreement(key: Key, space: Space, archs: ArrayLike, draws: int = 4096) -> Agreement:
    """How alike the answers of R independent runs are, against random architectures.

    Decisions are compared one by one: two texts of one network (isomorphic cells) count as different, except in `same`.

    Raises:
        ValueError: for fewer than two answers.
    """
    arity = decisions(space, 1)
    archs = checked(space, archs)
    if len(archs) < 2:
        raise ValueError(f"agreement needs the answers of at least two runs; got {len(archs)}")
    drawn = np.asarray(jax.jit(jax.vmap(lambda k: space.flat(space.sample(k))))(jax.random.split(key, draws)))
    odds = lambda counts: float(np.sum(counts * (counts - 1.0)) / (np.sum(counts) * (np.sum(counts) - 1.0)))  # of an equal pair
    alike = lambda rows: np.asarray([odds(np.bincount(rows[:, d], minlength=arity[d])) for d in range(len(arity))])
    networks = np.asarray(jax.vmap(lambda v: space.flat(space.canonical(space.unflat(v))))(archs))
    same = odds(np.unique(networks, axis=0, return_counts=True)[1])
    runs, random = alike(archs), alike(drawn)
    return Agreement(float(np.sum(1 - runs)), float(np.sum(1 - random)), runs, random, same)
