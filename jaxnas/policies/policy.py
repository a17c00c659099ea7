"""Policies: distributions over architectures, or relaxations of them, behind one signature.

An action is what a draw returns: an architecture for a hard policy, the soft gates themselves for a relaxation.

Axes: D decisions, M paths to one weight update.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.spaces._space import Space, is_shape

SMALLEST = 1e-3  # of a temperature: a schedule may end at 0, which nothing can be divided by
CLOSED = -1e9  # the logit of an operation that is out of the search: its softmax is 0, and so is its gradient


class Policy(NamedTuple):
    init: Callable  # key -> theta: what a gradient may move (logits, the weights of a controller)
    sample: Callable  # (key, theta, t) -> actions [M, ...]; t counts steps, for what anneals
    gates: Callable  # action -> gates
    log_prob: Callable | None  # (theta, action) -> (log p [D], entropy [D]), 0 where inactive; None: no score function
    derive: Callable  # theta -> arch
    hard: bool  # the gates are one-hot: one path can be run
    close: Callable | None = None  # (theta, still) -> theta without the operations that are not in `still`; None: cannot
    sparse: bool = False  # of a relaxation: gates may be 0, and what they close must not move


def normal_logits(space: Space, scale: float = 1e-3) -> Callable:
    """key -> one logit a gate, of the gates' structure, from scale * N(0, 1).

    Raises:
        ValueError: for a space in which a gate's row has one operation only: there is nothing to learn.
    """
    shapes, tree = jax.tree.flatten(space.gate_shapes, is_leaf=is_shape)
    if any(shape[-1] < 2 for shape in shapes):
        raise ValueError("an edge of this `space` has a single operation: give at least two to choose from")

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return tree.unflatten([scale * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)])

    return init


def close(theta, still):
    """Logits without the operations that are not in `still` (bool, of theta's structure)."""
    return jax.tree.map(lambda a, on: jnp.where(on, a, CLOSED), theta, still)


def still_open(theta):
    """bool, of theta's structure: the operations that are in the search."""
    return jax.tree.map(lambda a: a > CLOSED / 2, theta)


def softmax_rows(theta):
    """Each row's softmax, over the operations that are in the search."""
    return jax.tree.map(lambda a: jax.nn.softmax(a, -1), theta)


def draw(theta, paths: int, key, row: Callable):
    """row(key, leaf, shape [M, ...]) for each leaf of theta, with a key of its own: M actions."""
    leaves, tree = jax.tree.flatten(theta)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten([row(k, a, (paths, *a.shape)) for k, a in zip(keys, leaves, strict=True)])


def annealed(name: str, value) -> Callable:
    """A schedule t -> value, at least `SMALLEST`, from a number or a schedule.

    Raises:
        ValueError: for a number, or a schedule that starts, at 0 or below.
    """
    first = value(0) if callable(value) else value
    if not isinstance(first, jax.core.Tracer) and not first > 0:  # a traced one belongs to a sweep
        raise ValueError(f"`{name}` must be above 0, not {first}")
    at = value if callable(value) else lambda t: value
    return lambda t: jnp.maximum(at(t), SMALLEST)
