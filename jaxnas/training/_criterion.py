"""What a training descends and what it is judged by, for each kind of target.

    classes   cross-entropy                    1 where the largest logit is the class, else 0
    labels    cross-entropy of sigmoids        the share of labels whose logit has the right sign
    numbers   mean squared error               minus the squared error

Axes: B batch, K classes, labels or numbers, N examples.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.checks import checked, require_labels
from jaxnas.data.target import Target
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.training.losses import (
    binary_cross_entropy,
    check_unsmoothed,
    cross_entropy,
    soft_binary_cross_entropy,
    soft_cross_entropy,
    squared_error,
)


class Criterion(NamedTuple):
    """A loss and a score.  For a loss of one's own: `CLASSES._replace(loss=...)`."""

    loss: Callable[..., jax.Array]  # (logits [B, K], y, path=None, *, smoothing=0.0) -> [], the mean over the batch
    score: Callable[[jax.Array, jax.Array], jax.Array]  # (logits [B, K], y) -> [B], of each example; the more the better
    name: str  # of the mean of the score
    soft: Callable[[jax.Array, jax.Array], jax.Array]  # (logits [B, K], a teacher's [B, K]) -> []


def correct(logits: jax.Array, y: jax.Array) -> jax.Array:
    """float32 of the shape of y: 1 where the largest of logits [..., K] is the class y [...], else 0."""
    return (jnp.argmax(logits, -1) == y).astype(jnp.float32)


def labels_right(logits: jax.Array, y: jax.Array) -> jax.Array:
    """float32[B]: the share of the K labels y [B, K] that the signs of logits [B, K] have right."""
    return jnp.mean(((logits > 0) == (y > 0.5)).astype(jnp.float32), -1)


def negative_squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """float32[B]: minus the mean of (outputs - y)^2 over the K numbers."""
    return -jnp.mean(jnp.square(outputs - y), -1)


CLASSES = Criterion(cross_entropy, correct, "accuracy", soft_cross_entropy)
LABELS = Criterion(binary_cross_entropy, labels_right, "label_accuracy", soft_binary_cross_entropy)
NUMBERS = Criterion(squared_error, negative_squared_error, "negative_squared_error", squared_error)
CRITERIA = {"classes": CLASSES, "labels": LABELS, "numbers": NUMBERS}


@checked
def criterion(target: Target, class_weights: Sequence[PositiveNumber] | None = None) -> Criterion:
    """The loss and the score of a target.

    Args:
        target: such as `dataset.target`.
        class_weights: K positive factors of the loss, of the examples of a class, or of a label or number, such as
            `balanced_weights`; default: all 1.

    Raises:
        ValueError: for weights that are not positive, or not as many as there are outputs.
    """
    made = CRITERIA[target.kind]
    if class_weights is None:
        return made
    weights = np.asarray(class_weights, np.float32)
    if weights.shape != (target.outputs,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(f"give {target.outputs} positive class weights, one for each output, not {class_weights}")
    return made._replace(loss=_weighted(target.kind, weights))


@checked
def balanced_weights(y: Any, classes: Positive) -> tuple[float, ...]:
    """N / (K n_c) of the classes of labels int[N], n_c times each: all classes weigh the same; 1 for a class without examples."""
    y = require_labels(y, classes)
    if y.ndim != 1 or not len(y):
        raise ValueError(f"give at least one label, [N]; got shape {[*y.shape]}")
    counts = np.bincount(y, minlength=classes)
    return tuple(float(len(y) / (classes * n)) if n else 1.0 for n in counts)


@checked
def balanced(target: Target, y: Any) -> Criterion:
    """The criterion by which every class counts the same: weighted by `balanced_weights` of the labels y int[N], loss and score.

    Raises:
        ValueError: for labels or numbers.
    """
    if target.kind != "classes":
        raise ValueError(f"classes can be balanced, and these targets are {target.kind}: leave --balance out")
    weights = balanced_weights(y, target.outputs)
    score = lambda logits, y: jnp.asarray(weights)[y] * correct(logits, y)
    return criterion(target, weights)._replace(score=score, name="balanced_accuracy")


def _weighted(kind: str, weights: np.ndarray) -> Callable[..., jax.Array]:
    """The loss with factors [K]."""

    def classes(logits: jax.Array, y: jax.Array, path: Any = None, *, smoothing: float = 0.0) -> jax.Array:
        del path
        aims = jax.nn.one_hot(y, logits.shape[-1])
        aims = optax.smooth_labels(aims, smoothing) if smoothing else aims
        return jnp.mean(jnp.asarray(weights)[y] * optax.softmax_cross_entropy(logits, aims))

    def labels(logits: jax.Array, y: jax.Array, path: Any = None, *, smoothing: float = 0.0) -> jax.Array:
        del path
        check_unsmoothed(smoothing)
        return jnp.mean(weights[None] * optax.sigmoid_binary_cross_entropy(logits, y))

    def numbers(outputs: jax.Array, y: jax.Array, path: Any = None, *, smoothing: float = 0.0) -> jax.Array:
        del path
        check_unsmoothed(smoothing)
        return jnp.mean(weights[None] * jnp.square(outputs - y))

    return {"classes": classes, "labels": labels, "numbers": numbers}[kind]
