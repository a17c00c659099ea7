"""Policies: distributions over architectures, or relaxations of them, behind one signature.

An action is what a draw returns: an architecture for a hard policy, the soft gates themselves for a relaxation.

Axes: D decisions, M paths to one weight update.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Arch, Key
from jaxnas.spaces._space import Space, is_shape

Theta = Any  # a pytree of float arrays: what a gradient may move (logits, the weights of a controller)
Action = Any  # a pytree of arrays: an architecture or gates
SMALLEST = 1e-3  # of a temperature: a schedule may end at 0, which nothing can be divided by
CLOSED = -1e9  # the logit of an operation that is out of the search: its softmax is 0, and so is its gradient


class SampleFn(Protocol):
    def __call__(self, key: Key, theta: Theta, t: jax.Array | int, /) -> Action:
        """M draws.

        Args:
            key: consumed.
            theta: the policy's parameters.
            t: int32[]; counts steps, for what anneals.

        Returns:
            actions [M, ...].
        """


class LogProbFn(Protocol):
    def __call__(self, theta: Theta, action: Action, /) -> tuple[jax.Array, jax.Array]:
        """How likely one action is.

        Args:
            theta: the policy's parameters.
            action: one, without the axis M.

        Returns:
            (log p [D], entropy [D]), 0 where a decision is inactive.
        """


class CloseFn(Protocol):
    def __call__(self, theta: Theta, still: Any, /) -> Theta:
        """Takes operations out of the search.

        Args:
            theta: the policy's parameters.
            still: bool, of the gates' structure: the operations that stay.
        """


class Policy(NamedTuple):
    """A distribution over architectures, or a relaxation of one."""

    init: Callable[[Key], Theta]
    sample: SampleFn
    gates: Callable[[Action], Any]  # one action -> its gates
    log_prob: LogProbFn | None  # None: no score function
    derive: Callable[[Theta], Arch]  # the architecture that the search would end with
    hard: bool  # the gates are one-hot: one path can be run
    close: CloseFn | None = None  # None: its operations cannot be taken out
    sparse: bool = False  # of a relaxation: gates may be 0, and what they close must not move


def normal_logits(space: Space, scale: float = 1e-3) -> Callable[[Key], Theta]:
    """key -> one logit a gate, of the gates' structure, from scale * N(0, 1); what is not in the space (`Space.open`) is closed.

    Raises:
        ValueError: for a space in which a gate's row has one operation only: there is nothing to learn.
    """
    shapes, tree = jax.tree.flatten(space.gate_shapes, is_leaf=is_shape)
    if any(shape[-1] < 2 for shape in shapes):
        raise ValueError("an edge of this `space` has a single operation: give at least two to choose from")

    def init(key: Key) -> Theta:
        keys = jax.random.split(key, len(shapes))
        theta = tree.unflatten([scale * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)])
        return theta if space.open is None else close(theta, space.open)

    return init


def close(theta: Theta, still: Any) -> Theta:
    """Logits without the operations that are not in `still` (bool, of theta's structure)."""
    return jax.tree.map(lambda a, on: jnp.where(on, a, CLOSED), theta, still)


def still_open(theta: Theta) -> Any:
    """bool, of theta's structure: the operations that are in the search."""
    return jax.tree.map(lambda a: a > CLOSED / 2, theta)


def softmax_rows(theta: Theta) -> Any:
    """Each row's softmax, over the operations that are in the search."""
    return jax.tree.map(lambda a: jax.nn.softmax(a, -1), theta)


def draw(theta: Theta, paths: int, key: Key, row: Callable[[Key, jax.Array, tuple[int, ...]], jax.Array]) -> Action:
    """row(key, leaf, shape [M, ...]) for each leaf of theta, with a key of its own: M actions."""
    leaves, tree = jax.tree.flatten(theta)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten([row(k, a, (paths, *a.shape)) for k, a in zip(keys, leaves, strict=True)])


def annealed(name: str, value: optax.ScalarOrSchedule) -> Callable[[jax.Array | int], jax.Array]:
    """A schedule t -> value, at least `SMALLEST`, from a number or a schedule.

    Raises:
        ValueError: for a number, or a schedule that starts, at 0 or below.
    """
    first = value(0) if callable(value) else value
    if not isinstance(first, jax.core.Tracer) and not np.asarray(first) > 0:  # a traced one belongs to a sweep
        raise ValueError(f"`{name}` must be above 0, not {first}")
    at = value if callable(value) else lambda t: value
    return lambda t: jnp.maximum(at(t), SMALLEST)
