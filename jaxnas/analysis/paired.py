"""Whether one network is better than another: both scored on the same examples, each trained from the same seeds.

Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 16; Dietterich, Approximate Statistical Tests for
Comparing Supervised Classification Learning Algorithms, Neural Computation 10, 1998.

    d = mean over seeds s and examples n of a_sn - b_sn;  a resample draws seeds and examples with replacement, the same for a and b

The seeds are so few that an interval over them alone would say little; that over both is never narrower than that over examples.

Host-side functions of plain arrays.  Larger is better.

Axes: S seeds, N examples.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Difference(NamedTuple):
    value: float
    low: float  # of the 95 % interval
    high: float
    probability: float  # that the first is better: the share of resamples, ties counted half

    @property
    def verdict(self) -> str:
        """better or worse where the interval leaves 0 out, else level."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "level"


def difference(a: ArrayLike, b: ArrayLike, samples: int = 2000, seed: int = 0) -> Difference:
    """a - b, of scores [S, N] of each example, such as 1 where it was right.

    Raises:
        ValueError: for shapes that are not alike, no example, or scores that are not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"give two tables [seeds, examples] of the same examples: got {a.shape} and {b.shape}")
    d = a - b
    if not np.isfinite(d).all():
        raise ValueError("the scores are not finite: leave out what has diverged")
    (S, N), random = d.shape, np.random.default_rng(seed)
    drawn = np.empty(samples)
    for i in range(samples):
        seeds, examples = random.integers(0, S, S), random.integers(0, N, N)
        drawn[i] = np.bincount(examples, minlength=N) @ d[seeds].mean(0) / N
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Difference(float(d.mean()), float(low), float(high), float(np.mean(drawn > 0) + np.mean(drawn == 0) / 2))
