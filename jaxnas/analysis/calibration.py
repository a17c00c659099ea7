"""Probabilities that can be believed: temperature scaling, and how far confidence is from accuracy.

Reference: Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599.

    p = softmax(z / T) (of labels: sigmoid);  T minimises the negative log-likelihood of validation data        section 4.2
    ECE = sum over bins b of confidence  n_b / N |accuracy_b - confidence_b|                                    equation 3

One positive T never changes which output is the largest.  Host-side functions of plain arrays.

Axes: N examples, K classes or labels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEAST, MOST = 0.05, 20.0  # temperatures


def temperature(outputs: ArrayLike, y: ArrayLike, kind: str) -> float:
    """The temperature, from `LEAST` to `MOST`, with which validation data are likeliest.

    Where all n validation predictions are right the likelihood has no maximum.  Then the mean probability of what is right becomes
    (n + 1) / (n + 2), Laplace's rule of succession.

    Args:
        outputs: logits [N, K] of data that the network has not been trained on.
        y: classes int[N], or labels [N, K] of 0 and 1.
        kind: classes or labels; numbers have no temperature, and get 1.

    Returns:
        T; 1 where there are no examples, or outputs that are not finite.

    Raises:
        ValueError: for shapes that do not fit.
    """
    z, y = np.asarray(outputs, np.float64), np.asarray(y)
    if kind == "numbers":
        return 1.0
    if z.ndim != 2 or y.shape != (z.shape if kind == "labels" else z.shape[:1]):
        raise ValueError(f"give outputs [N, K] with classes [N] or labels [N, K], not {list(z.shape)} with {list(y.shape)}")
    if not z.size or not np.isfinite(z).all():
        return 1.0
    if kind == "labels":  # a label is two classes, whose logits are 0 and z
        z, y = np.stack([np.zeros(z.size), z.ravel()], 1), (y.ravel() > 0.5).astype(int)
    z = z - z.max(-1, keepdims=True)  # [n, K]
    n, of_class = len(z), np.take_along_axis(z, y[:, None], -1)[:, 0]

    def probabilities(beta: float) -> np.ndarray:
        e = np.exp(beta * z)
        return e / e.sum(-1, keepdims=True)

    def slope(beta: float) -> float:  # of the negative log-likelihood, which is convex in beta = 1 / T
        return float(np.mean((probabilities(beta) * z).sum(-1) - of_class))

    def excess(beta: float) -> float:
        return float(np.mean(np.take_along_axis(probabilities(beta), y[:, None], -1))) - (n + 1) / (n + 2)

    return 1 / _root(excess if (of_class == 0).all() else slope)


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of 1 / T is 0, by bisection; the nearer end where it nowhere is."""
    low, high = np.log(1 / MOST), np.log(1 / LEAST)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(float(np.exp(middle))) < 0 else (low, middle)
    return float(np.exp((low + high) / 2))


class Reliability(NamedTuple):
    """Predictions in bins of equal width by their confidence."""

    share: np.ndarray  # [bins] of all predictions
    sure: np.ndarray  # [bins] the mean confidence; 0 of an empty bin
    right: np.ndarray  # [bins] the share that is right

    @property
    def error(self) -> float:
        """The mean gap of confidence and accuracy, from 0 to 1."""
        return float(np.sum(self.share * np.abs(self.right - self.sure)))


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> Reliability:
    """Of confidences [N] in 0 to 1, and whether each prediction was right, bool[N]; bin b is (b / bins, (b + 1) / bins]."""
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    n = np.bincount(bin_of, minlength=bins)
    mean = lambda a: np.bincount(bin_of, a, bins) / np.maximum(n, 1)
    return Reliability(n / len(confidence), mean(confidence), mean(right.astype(np.float64)))


def expected_calibration_error(probabilities: ArrayLike, y: ArrayLike, bins: int = 15) -> float:
    """The mean gap of confidence and accuracy, from 0 to 1, over bins of equal width.

    Args:
        probabilities: [N, K], such as `Network.probabilities`.
        y: classes int[N]; or labels [N, K], each a prediction of its own whose confidence is that of the likelier answer.
        bins: of the confidence.

    Raises:
        ValueError: for shapes that do not fit, no examples, or no bins.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(y)
    if p.ndim != 2 or not p.size or y.shape not in (p.shape, p.shape[:1]):
        raise ValueError(f"give probabilities [N, K] with classes [N] or labels [N, K], not {list(p.shape)} with {list(y.shape)}")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    if y.ndim == 2:
        confidence, right = np.maximum(p, 1 - p).ravel(), ((p > 0.5) == (y > 0.5)).ravel()
    else:
        confidence, right = p.max(-1), p.argmax(-1) == y
    return reliability(confidence, right, bins).error
