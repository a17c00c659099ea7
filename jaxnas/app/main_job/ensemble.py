"""An ensemble of what was trained anyway, fitted on validation data.

Reference: Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble Selection from Libraries of Models, ICML 2004.

    repeat: add the member, again perhaps, with which the mean prediction scores best;  stop when none improves it

Probabilities are averaged, and numbers as they are.  Host-side functions of plain arrays.

Axes: M members, N examples, K outputs.
"""

from collections.abc import Callable, Sequence

import numpy as np

from jaxnas.data.target import Target


def averaged(target: Target, outputs: Sequence[np.ndarray], weights: Sequence[int]) -> np.ndarray:
    """The outputs [N, K] of an ensemble: logits of its mean probabilities, or mean numbers."""
    total = sum(w * _likely(target, o) for o, w in zip(outputs, weights, strict=True)) / sum(weights)
    if target.kind == "numbers":
        return np.asarray(total)
    p = np.clip(total, 1e-7, 1.0)
    return np.log(p) - (np.log(np.clip(1 - p, 1e-7, 1.0)) if target.kind == "labels" else 0.0)


def _likely(target: Target, outputs: np.ndarray) -> np.ndarray:
    outputs = outputs.astype(np.float64)
    if target.kind == "numbers":
        return outputs
    if target.kind == "labels":
        return 1 / (1 + np.exp(-outputs))
    e = np.exp(outputs - outputs.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def greedy(
    target: Target, outputs: Sequence[np.ndarray], score: Callable[[np.ndarray], np.ndarray], most: int = 8
) -> tuple[list[int], float]:
    """(how often each of M members is in the ensemble, its score), by validation outputs M x [N, K].

    Args:
        target: what the outputs mean.
        outputs: of each member.
        score: outputs [N, K] -> [N], larger is better.
        most: members, repetitions counted.
    """
    counts, best = [0] * len(outputs), -np.inf
    for _ in range(most):
        with_one_more = [[c + (i == m) for i, c in enumerate(counts)] for m in range(len(outputs))]
        trial = [float(score(averaged(target, outputs, weights)).mean()) for weights in with_one_more]
        m = int(np.argmax(trial))
        if not trial[m] > best:
            break
        best, counts = trial[m], with_one_more[m]
    return counts, best
