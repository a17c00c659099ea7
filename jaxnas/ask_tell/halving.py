"""Successive halving: many candidates for a short while, the best of them for longer.

Reference: Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016,
arXiv:1502.07943; the geometric form is that of Li et al., Hyperband, JMLR 18, 2018, arXiv:1603.06560.

    rung 0:  n new members, trained to r
    rung i:  the best n_i = floor(n eta^-i) of rung i - 1 go on, to r_i = floor(R eta^(i-s));   s + 1 rungs, r_s = R

A plan is a list of brackets, a bracket a list of rungs: Hyperband is several brackets, and a plan of one's own is any numbers.
It is static: which rung a step belongs to is a constant of the program.  A rung is filled up to whole batches with idle trials.
After its last bracket a plan starts over.  Survivors are chosen within their rung and keep their slots.

Axes: M slots, B trials asked for at once, T steps of a plan.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.ask_tell.history import leaders, no_archs
from jaxnas.ask_tell.trial import FAILED, WORST, Answer, Trial, better, levels, no_answer
from jaxnas.base import Arch, AskTell, Key, State
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space


class Rung(NamedTuple):
    members: int
    budget: int  # to which they are trained, not by which


class Proposer(NamedTuple):
    """Where the new members of a rung 0 come from."""

    init: Callable[[Key], State]
    ask: Callable[[Key, State], Arch]  # archs [B, ...]
    tell: Callable[[State, Trial, jax.Array], State]  # trials [B], scores [B]; of all rungs, idle trials too


class HalvingState(NamedTuple):
    archs: Arch  # [M, ...]
    scores: jax.Array  # float32[M], at the slot's last rung
    rung: jax.Array  # int32[M]: that rung, counted through the plan; -1: none yet
    told: jax.Array  # int32[]: steps so far
    answer: Answer
    proposer: Any


def at_random(space: Space, batch: int = 1) -> Proposer:
    """Uniform draws."""
    draw = lambda key, state: jax.vmap(space.sample)(jax.random.split(key, batch))
    return Proposer(lambda key: (), draw, lambda state, trials, scores: state)


def halving_rungs(n: int, r: int, R: int, eta: int = 3) -> list[Rung]:
    """The rungs of successive halving: n members at r, n / eta at eta r, and so on to R, or to the last with a member."""
    if n < 1:
        raise ValueError(f"successive halving needs at least one member; got n={n}")
    return [Rung(n // eta**i, budget) for i, budget in enumerate(levels(R, r, eta)) if n >= eta**i]


@checked
def successive_halving(space: Space, n: Positive, r: Positive, R: Positive, eta: Positive = 3, batch: Positive = 1) -> AskTell:
    """Successive halving, again and again with new members; it asks for `Trial`s in n slots.

    Args:
        space: where to draw from.
        n: new members of a run.
        r, R: the smallest and the largest budget, in the evaluator's units (steps, epochs).
        eta: one in eta is kept, default 3.
        batch: B, trials a step, default 1.

    Raises:
        ValueError: for no member, budgets that are not 1 <= r <= R, an eta below 2, or a batch outside [1, n].
    """
    return brackets(space, [halving_rungs(n, r, R, eta)], batch)


@checked
def brackets(
    space: Space, plan: Sequence[Sequence[tuple[Positive, Positive]]], batch: Positive = 1, propose: Proposer | None = None
) -> AskTell:
    """Any plan of brackets, such as two fidelities `[[(81, 12), (3, 200)]]`; it asks for `Trial`s.

    Args:
        space: where to search.
        plan: brackets of rungs (members, budget); budgets rise from rung to rung, members do not; the first bracket is the widest.
        batch: B, trials a step.
        propose: where new members come from, default uniform draws; it gives `batch` of them.

    Raises:
        ValueError: for a plan that is not so, or a batch outside [1, the first rung's members].
    """
    B, rungs = batch, [[Rung(*rung) for rung in bracket] for bracket in plan]
    _check(rungs, B)
    propose = at_random(space, B) if propose is None else propose
    M, budgets = rungs[0][0].members, np.asarray([rung.budget for bracket in rungs for rung in bracket], np.int32)
    rung, first, count, slots = (np.asarray(column, np.int32) for column in zip(*_rows(rungs, B), strict=True))  # [T]; slots [T, B]

    def init(key):
        return HalvingState(
            archs=no_archs(space, M),
            scores=jnp.zeros(M, jnp.float32),
            rung=jnp.full(M, -1, jnp.int32),
            told=jnp.zeros((), jnp.int32),
            answer=no_answer(space),
            proposer=propose.init(key),
        )

    def ask(key, state):
        t = state.told % len(rung)
        g, new = jnp.asarray(rung)[t], jnp.asarray(first)[t] > 0
        busy = jnp.arange(B) < jnp.asarray(count)[t]
        others = jnp.where(state.rung < 0, -jnp.inf, WORST)
        survivors = leaders(jnp.where(state.rung == g - 1, state.scores, others), B)
        slot = jnp.where(new, jnp.asarray(slots)[t], survivors.astype(jnp.int32))
        fresh = lambda a, b: jnp.where((busy & new).reshape(B, *[1] * (a.ndim - 1)), a, b[slot])
        at = jnp.asarray(budgets)[state.rung[slot]]
        return state, Trial(
            arch=jax.tree.map(fresh, propose.ask(key, state.proposer), state.archs),
            slot=slot,
            start=jnp.where(busy & new, 0, at),
            stop=jnp.where(busy, jnp.asarray(budgets)[g], at),
        )

    def tell(key, state, trials, scores):
        del key  # nothing to draw
        busy, s, scores = trials.start < trials.stop, trials.slot, jnp.maximum(scores, FAILED)
        return HalvingState(
            archs=jax.tree.map(lambda old, new: old.at[s].set(new), state.archs, trials.arch),
            scores=state.scores.at[s].set(jnp.where(busy, scores, state.scores[s])),
            rung=state.rung.at[s].set(jnp.where(busy, jnp.asarray(rung)[state.told % len(rung)], state.rung[s])),
            told=state.told + 1,
            answer=better(state.answer, trials, scores),
            proposer=propose.tell(state.proposer, trials, scores),
        )

    return AskTell(init, ask, tell, lambda state: state.answer.arch, replaceable=False, failures=True)


def plan_cost(plan: Sequence[Sequence[tuple[int, int]]], restart: bool = False) -> int:
    """What a plan costs, in units of its budgets; `restart`: every rung trains its members from the start."""
    before = lambda bracket: [0] * len(bracket) if restart else [0, *[budget for _, budget in bracket[:-1]]]
    return sum(n * (b - a) for bracket in plan for (n, b), a in zip(bracket, before(bracket), strict=True))


def steps(plan: Sequence[Sequence[tuple[int, int]]], batch: int = 1) -> int:
    """T, the steps of a plan."""
    return sum(-(-n // batch) for bracket in plan for n, _ in bracket)


def _rows(plan, B):
    """(rung, whether it is a bracket's first, busy trials, slots of new members and what is idle [B]) of each step."""
    g = 0
    for bracket in plan:
        for i, (n, _) in enumerate(bracket):
            for begin in range(0, n, B):
                own = list(range(begin, min(begin + B, n)))
                idle = [s for s in range(2 * B) if s not in own][: B - len(own)]
                yield g, i == 0, len(own), own + idle
            g += 1


def _check(plan, B):
    if not plan or not all(plan):
        raise ValueError("a plan needs at least one bracket, and a bracket at least one rung (members, budget)")
    for bracket in plan:
        n, budget = zip(*bracket, strict=True)
        if min(n) < 1 or min(budget) < 1 or any(np.diff(n) > 0) or any(np.diff(budget) <= 0):
            raise ValueError(
                f"from rung to rung budgets rise and members do not, both at least 1; got {[tuple(r) for r in bracket]}"
            )
        if n[0] > plan[0][0].members:
            raise ValueError(f"the first bracket must be the widest: it has {plan[0][0].members} members, and another has {n[0]}")
    if not 1 <= B <= plan[0][0].members:
        raise ValueError(f"ask for 1 to {plan[0][0].members} trials a step, the members of the first rung; got batch={B}")
