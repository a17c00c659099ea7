"""Losses of a classifier: means over the batch.

Axes: B batch, K classes.
"""

from typing import Any

import jax
import optax


def cross_entropy(logits: jax.Array, y: jax.Array, path: Any = None, *, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of logits [B, K] at labels y [B], smoothed by `smoothing` (Szegedy et al. 2016, arXiv:1512.00567); -> [].

    `path` is what a search's loss is told of the path (`weight_sharing.Path`); it is not looked at.  A label that is no class
    gives NaN where nothing is smoothed.

    Raises:
        ValueError: for a smoothing, which is static, outside [0, 1).
    """
    del path
    if not 0 <= smoothing < 1:
        raise ValueError(f"`smoothing` is a share below 1: got {smoothing}")
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(y, logits.shape[-1]), smoothing)).mean()


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of logits [B, K] at the softmax of the targets [B, K]; -> []."""
    return optax.softmax_cross_entropy(logits, jax.nn.softmax(targets)).mean()
