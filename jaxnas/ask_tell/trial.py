"""Trials: what a multi-fidelity algorithm asks for, an architecture and how far to train it.

    ask -> Trial [B]      train the member in `slot` from `start` to `stop`, units of the evaluator's budget

start = 0 is a new member, with weights of its own; any other continues the slot's member.  start = stop is an idle trial, which
fills up a batch: nothing is trained, and the member is scored as it stands.  The slots of one batch are different.

Axes: B trials of one step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.ask_tell.history import no_archs
from jaxnas.base import Arch
from jaxnas.spaces._space import Space
from jaxnas.trees import take

WORST = np.finfo(np.float32).min
FAILED = WORST / 2  # the score of a trial that diverged: below all others, and finite


class Trial(NamedTuple):
    arch: Arch
    slot: jax.Array  # int32[]: where the evaluator keeps the member
    start: jax.Array  # int32[]
    stop: jax.Array  # int32[]


def require_archs_alone(archs: Arch) -> None:
    """Raises ValueError, in an evaluator that knows no budgets, for trials."""
    if isinstance(archs, Trial):
        raise ValueError(
            "this algorithm asks for trials, architectures at a budget: give it an evaluator of trials, "
            "evaluate.train_trials(...) or evaluate.by_budget(...)"
        )


def require_trials(trials: Any) -> None:
    """Raises ValueError, in an evaluator of trials, for architectures without a budget."""
    if not isinstance(trials, Trial):
        raise ValueError("this evaluator takes trials, and the algorithm asks for architectures: take hyperband, asha or bohb")


class Answer(NamedTuple):
    """The best at the largest budget seen: scores at two budgets are never compared."""

    arch: Arch
    score: jax.Array  # float32[]
    budget: jax.Array  # int32[]; 0 before the first


def no_answer(space: Space) -> Answer:
    """The answer before there is one."""
    arch = take(no_archs(space, 1), 0)
    return Answer(arch, jnp.full((), -jnp.inf, jnp.float32), jnp.zeros((), jnp.int32))


def better(answer: Answer, trials: Trial, scores: jax.Array) -> Answer:
    """The answer after B trials more; idle ones, and those that diverged, do not count."""
    budget = jnp.where((trials.start < trials.stop) & (scores > FAILED), trials.stop, 0)  # [B]
    top = jnp.maximum(answer.budget, jnp.max(budget))
    at_top = jnp.where(budget == top, scores, -jnp.inf)
    i = jnp.argmax(at_top)
    new = Answer(take(trials.arch, i), at_top[i], top)
    replace = (budget[i] > 0) & ((top > answer.budget) | (at_top[i] > answer.score))
    return jax.tree.map(lambda a, b: jnp.where(replace, a, b), new, answer)


def levels(R: int, r: int = 1, eta: int = 3) -> list[int]:
    """The budgets between r and R, each eta times the last, counted down from R: floor(R eta^-k), the smallest first.

    Raises:
        ValueError: for an r outside [1, R], or an eta below 2.
    """
    if not 1 <= r <= R or eta < 2 or any(n % 1 for n in (R, r, eta)):
        raise ValueError(f"give whole budgets 1 <= r <= R and a whole eta of at least 2; got r={r}, R={R}, eta={eta}")
    found = [R]
    while r * eta ** len(found) <= R:
        found.append(R // eta ** len(found))
    return found[::-1]
