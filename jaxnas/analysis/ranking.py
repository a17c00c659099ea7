"""How far to trust a score: how well it ranks architectures against what they are worth.

References: Kendall, A New Measure of Rank Correlation, Biometrika 30, 1938 (tau-b, which allows for ties); Spearman, The Proof
and Measurement of Association between Two Things, 1904; Efron, Bootstrap Methods, Annals of Statistics 7, 1979; for what a
ranking of a supernet is worth, Yu et al., Evaluating the Search Phase of Neural Architecture Search, ICLR 2020, arXiv:1902.08142.

    regret_k      the best truth of all, less the best among the k of the highest scores
    recall_k      the share of the k truly best among the k of the highest scores
    reliability   R r / (1 + (R - 1) r), r the mean rank correlation of two repeats (Spearman 1910, Brown 1910): that which the
                  mean of R repeats would have with that of R others; no score can rank what this does not

Host-side functions of plain arrays.  Larger is better.

Axes: N architectures, R repeats.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike


def kendall(scores: ArrayLike, truth: ArrayLike) -> float:
    """Kendall's tau-b; NaN where either is constant."""
    from scipy import stats  # takes a while: only rankings pay it

    return float(stats.kendalltau(*_pair(scores, truth)).statistic)


def spearman(scores: ArrayLike, truth: ArrayLike) -> float:
    """Spearman's rho; NaN where either is constant."""
    from scipy import stats

    scores, truth = _pair(scores, truth)
    return float("nan") if min(np.ptp(scores), np.ptp(truth)) == 0 else float(stats.spearmanr(scores, truth).statistic)


def regret(scores: ArrayLike, truth: ArrayLike, k: int = 1) -> float:
    """What taking the truly best of the k that score highest loses against the best of all, in units of the truth."""
    scores, truth = _pair(scores, truth, k)
    return float(truth.max() - truth[_top(scores, k)].max())


def recall(scores: ArrayLike, truth: ArrayLike, k: int = 10) -> float:
    """The share of the k truly best that are among the k that score highest."""
    scores, truth = _pair(scores, truth, k)
    return len(np.intersect1d(_top(scores, k), _top(truth, k))) / k


class Estimate(NamedTuple):
    value: float
    low: float  # of the 95 % interval
    high: float


class Ranking(NamedTuple):
    """How well a score ranks; each with a bootstrap interval over architectures."""

    tau: Estimate
    spearman: Estimate
    regret: Estimate  # of the best of the top k
    recall: Estimate  # of the top k
    count: int  # N, architectures that have a finite score
    failed: int  # the others


def ranking(key: jax.Array, scores: ArrayLike, truth: ArrayLike, k: int = 10, samples: int = 500) -> Ranking:
    """The rank quality of `scores` [N] against `truth` [N], architectures without a finite score left out and counted.

    Args:
        key: of the bootstrap, which draws architectures with replacement.
        scores, truth: larger is better.
        k: of regret and recall, default 10.
        samples: of the bootstrap.

    Raises:
        ValueError: for other shapes, a truth that is not finite, fewer than two architectures with a score, or a k out of range.
    """
    scores, truth = np.asarray(scores, np.float64), np.asarray(truth, np.float64)
    if scores.ndim != 1 or scores.shape != truth.shape:
        raise ValueError(f"give one score and one truth an architecture; got shapes {scores.shape} and {truth.shape}")
    seen = np.isfinite(scores)
    pair = scores[seen], truth[seen]
    _pair(*pair, k)
    order = np.random.default_rng(np.asarray(jax.random.bits(key, (4,)))).integers(0, len(pair[0]), (samples, len(pair[0])))
    of = lambda f: estimate(f, *pair, order)
    return Ranking(
        tau=of(kendall),
        spearman=of(spearman),
        regret=of(lambda s, t: regret(s, t, k)),
        recall=of(lambda s, t: recall(s, t, k)),
        count=int(seen.sum()),
        failed=int((~seen).sum()),
    )


def estimate(
    statistic: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray, truth: np.ndarray, order: np.ndarray
) -> Estimate:
    """statistic(scores, truth) with the percentile interval over the resamples `order`, int[samples, N]."""
    drawn = np.asarray([statistic(scores[rows], truth[rows]) for rows in order])
    drawn = drawn[np.isfinite(drawn)]  # a resample may be constant
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return Estimate(float(statistic(scores, truth)), float(low), float(high))


def reliability(truth: ArrayLike) -> float:
    """Of the mean over repeats, truth [N, R].

    Raises:
        ValueError: for fewer than two repeats or architectures.
    """
    truth = np.asarray(truth, np.float64)
    if truth.ndim != 2 or min(truth.shape) < 2:
        raise ValueError(f"reliability needs at least two repeats of two architectures, [N, R]; got shape {truth.shape}")
    R = truth.shape[1]
    r = np.mean([spearman(truth[:, i], truth[:, j]) for i, j in itertools.combinations(range(R), 2)])
    return float(R * r / (1 + (R - 1) * r)) if r > 0 else 0.0  # a saturated task ranks nothing, nor do repeats that disagree


def _top(values, k):
    return np.argsort(-values, kind="stable")[:k]


def _pair(scores, truth, k=1):
    scores, truth = np.asarray(scores, np.float64), np.asarray(truth, np.float64)
    if scores.ndim != 1 or scores.shape != truth.shape:
        raise ValueError(f"give one score and one truth an architecture; got shapes {scores.shape} and {truth.shape}")
    if len(scores) < 2 or not (np.isfinite(scores).all() and np.isfinite(truth).all()):
        raise ValueError(f"a ranking needs at least two architectures, and finite numbers; got {len(scores)}")
    if not 1 <= k <= len(scores):
        raise ValueError(f"the top k of {len(scores)} architectures: give k in 1 to {len(scores)}, not {k}")
    return scores, truth


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half its 95 % interval over the first axis, without NaN; the half is NaN below two values."""
    from scipy.stats import t

    ok = np.isfinite(values)
    n = ok.sum(0)
    mean = np.where(n > 0, np.where(ok, values, 0).sum(0) / np.maximum(n, 1), np.nan)
    variance = np.where(ok, (values - mean) ** 2, 0).sum(0) / np.maximum(n - 1, 1)
    half = t.ppf(0.975, np.maximum(n - 1, 1)) * np.sqrt(variance / np.maximum(n, 1))
    return mean, np.where(n > 1, half, np.nan)
