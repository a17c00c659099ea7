"""What a trained network is reported by, on the host.

Axes: N examples, K classes, labels or numbers.
"""

import numpy as np
from numpy.typing import ArrayLike

from jaxnas.data.target import Target


def metrics(target: Target, outputs: ArrayLike, y: ArrayLike) -> dict[str, float]:
    """{name: value} of a network's outputs [N, K] at targets y; the first is the one that counts.

        classes   accuracy; balanced_accuracy, the mean recall; macro_f1, both over the classes that y has; log_loss
        labels    label_accuracy, of all labels; subset_accuracy, of whole rows; macro_f1; auroc, the mean over the labels that
                  have both values, where there is one
        numbers   rmse and mae in the units of the data, r2; means over the numbers

    What cannot be computed of outputs that are not finite is NaN.

    Args:
        target: such as `dataset.target`.
        outputs: logits, or standardised numbers.
        y: such as `dataset.test.y`.
    """
    outputs, y = np.asarray(outputs, np.float64), np.asarray(y)
    return {"classes": _classes, "labels": _labels, "numbers": _numbers}[target.kind](target, outputs, y)


def _classes(target: Target, logits: np.ndarray, y: np.ndarray) -> dict[str, float]:
    guess = logits.argmax(-1)
    K, right = target.outputs, guess == y
    hits, truth, guessed = (np.bincount(a, minlength=K) for a in (y[right], y, guess))  # [K]
    there = truth > 0
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = np.take_along_axis(shifted, y[:, None], -1)[:, 0] - np.log(np.exp(shifted).sum(-1))
    return {
        "accuracy": float(np.mean(right, dtype=np.float32)),
        "balanced_accuracy": float(np.mean(hits[there] / truth[there])),
        "macro_f1": float(np.mean(2 * hits[there] / (truth + guessed)[there])),
        "log_loss": float(-log_p.mean()),
    }


def _labels(target: Target, logits: np.ndarray, y: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score  # slow to import

    y, guess = y > 0.5, logits > 0
    right = guess == y
    positive = (y | guess).any(0)
    f1 = 2 * (y & guess).sum(0) / np.maximum(y.sum(0) + guess.sum(0), 1)
    found = {
        "label_accuracy": float(right.mean()),
        "subset_accuracy": float(right.all(-1).mean()),
        "macro_f1": float(f1[positive].mean()) if positive.any() else 0.0,
    }
    both = y.any(0) & ~y.all(0)
    if both.any():
        finite = np.isfinite(logits).all()
        each = [float(roc_auc_score(y[:, k], logits[:, k])) for k in np.flatnonzero(both)] if finite else [float("nan")]
        found["auroc"] = float(np.mean(each))
    return found


def _numbers(target: Target, outputs: np.ndarray, y: np.ndarray) -> dict[str, float]:
    std = np.asarray(target.std or (1.0,) * target.outputs)
    error = (outputs - y) * std  # the mean cancels out
    spread = ((y - y.mean(0)) * std).var(0)
    share = 1 - np.mean(error**2, 0) / np.where(spread > 0, spread, np.nan)
    return {
        "rmse": float(np.sqrt(np.mean(error**2, 0)).mean()),
        "mae": float(np.abs(error).mean()),
        "r2": float(np.nanmean(share)) if np.isfinite(share).any() else float("nan"),
    }
