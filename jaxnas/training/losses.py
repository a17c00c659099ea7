"""Losses of a network's outputs: means over the batch; and what a student learns from a teacher's outputs.

Axes: B batch, K classes, labels or numbers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnas.checks import require_labels


def cross_entropy(logits: jax.Array, y: jax.Array, path: Any = None, *, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of logits [B, K] at labels y [B], smoothed by `smoothing` (Szegedy et al. 2016, arXiv:1512.00567); -> [].

    `path` is what a search's loss is told of the path (`weight_sharing.Path`); it is not looked at.  A label that is no class
    gives NaN where nothing is smoothed, if it is traced.

    Raises:
        ValueError: for a smoothing, which is static, outside [0, 1); where the labels are not traced, for one that is no class.
    """
    del path
    if not 0 <= smoothing < 1:
        raise ValueError(f"`smoothing` is a share below 1: got {smoothing}")
    if not isinstance(y, jax.core.Tracer):
        require_labels(y, logits.shape[-1])
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(y, logits.shape[-1]), smoothing)).mean()


def binary_cross_entropy(logits: jax.Array, y: jax.Array, path: Any = None, *, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of the sigmoids of logits [B, K] at labels y [B, K], 0 or 1; -> [], the mean over labels too.

    Raises:
        ValueError: for a smoothing.
    """
    del path
    check_unsmoothed(smoothing)
    return optax.sigmoid_binary_cross_entropy(logits, y).mean()


def squared_error(outputs: jax.Array, y: jax.Array, path: Any = None, *, smoothing: float = 0.0) -> jax.Array:
    """The mean of (outputs - y)^2, both [B, K], not halved: of standardised numbers, 1 - R^2; -> [].

    Raises:
        ValueError: for a smoothing.
    """
    del path
    check_unsmoothed(smoothing)
    return jnp.mean(jnp.square(outputs - y))


def check_unsmoothed(smoothing: float) -> None:
    """Raises ValueError for a smoothing of labels that are no classes."""
    if smoothing:
        raise ValueError(f"labels are smoothed where they are classes: give smoothing 0 for this target, not {smoothing}")


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of logits [B, K] at the softmax of the targets [B, K]; -> []."""
    return optax.softmax_cross_entropy(logits, jax.nn.softmax(targets)).mean()


def soft_binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of the sigmoids of logits [B, K] at those of the targets [B, K]; -> []."""
    return optax.sigmoid_binary_cross_entropy(logits, jax.nn.sigmoid(targets)).mean()
