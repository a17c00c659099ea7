"""Asynchronous successive halving: promote whatever ranks among the best of its rung so far, without waiting for the rest.

Reference: Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and Talwalkar, A System for Massively Parallel
Hyperparameter Tuning, MLSys 2020, arXiv:1810.05934, algorithm 2.

    a worker that is free:
        for rung k, the highest first:  the best floor(|rung k| / eta) of those that have finished it;
                                        if one of them has not been promoted yet, it is, to rung k + 1
        else a new member, at rung 0

B workers in step: the B jobs of a step see what was finished before it, and none is given out twice.  With B = 1 it is the
algorithm of one worker; or of many that do not wait for each other, since it may be asked again before it is told: a slot whose
job is out is `busy`, is not promoted, and is not taken for a new member.  Once as many slots are busy as there are, it asks for a
busy one: wait.  Defaults eta = 3 and r = 1; the paper's eta is 4.

Axes: N slots, B workers, K rungs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.ask_tell.halving import Proposer, at_random
from jaxnas.ask_tell.history import check_capacity, no_archs
from jaxnas.ask_tell.trial import FAILED, Answer, Trial, better, levels, no_answer
from jaxnas.base import Arch, AskTell
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space


class ASHAState(NamedTuple):
    archs: Arch  # [N, ...]: a ring, `started % N` is the oldest once it is full
    scores: jax.Array  # float32[N, K], of the rungs that are finished
    rung: jax.Array  # int32[N]: the last that is finished; -1: none
    busy: jax.Array  # bool[N]: asked for, and not told yet
    started: jax.Array  # int32[]: members so far
    answer: Answer
    proposer: Any


@checked
def asha(
    space: Space,
    R: Positive,
    r: Positive = 1,
    eta: Positive = 3,
    *,
    capacity: Positive,
    batch: Positive = 1,
    propose: Proposer | None = None,
) -> AskTell:
    """Asynchronous successive halving; it asks for `Trial`s.

    Args:
        space: where to draw from.
        R, r: the largest and the smallest budget, in the evaluator's units.
        eta: one in eta is promoted, default 3.
        capacity: N, the members kept: what a search is going to start; beyond it the oldest is forgotten.
        batch: B, workers, default 1.
        propose: where new members come from, default uniform draws; it gives `batch` of them, of which a step takes the first.
            With a proposer of your own it must be told before it is asked again: the proposer does not know what is open.

    Raises:
        ValueError: for budgets that are not 1 <= r <= R, an eta below 2, a capacity below 1, or a batch outside [1, capacity].
    """
    N, B, budgets = capacity, batch, np.asarray(levels(R, r, eta), np.int32)
    check_capacity(N, 1, B)
    K = len(budgets)
    blind = propose is None  # it learns nothing, so that it need not know what is open
    propose = at_random(space, B) if propose is None else propose

    def init(key):
        return ASHAState(
            archs=no_archs(space, N),
            scores=jnp.zeros((N, K), jnp.float32),
            rung=jnp.full(N, -1, jnp.int32),
            busy=jnp.zeros(N, bool),
            started=jnp.zeros((), jnp.int32),
            answer=no_answer(space),
            proposer=propose.init(key),
        )

    def ask(key, state):
        finished = state.rung[:, None] >= np.arange(K - 1)[None]  # [N, K - 1]
        waiting = state.rung[:, None] == np.arange(K - 1)[None]
        place = lambda started: jnp.where(state.busy, N, (jnp.arange(N) - started) % N)  # [N]: in the ring; what is busy is last
        age = place(state.started)
        fading = age <= jnp.sort(age)[B - 1]  # slots that this step may take
        scores = jnp.where(finished, state.scores[:, : K - 1], -jnp.inf)
        places = jnp.sum(finished, 0) // eta  # [K - 1]

        def job(carry, _):
            free, started = carry  # bool[N]: not given out in this step
            idle = waiting & (free & ~fading & ~state.busy)[:, None]
            i = jnp.argmax(jnp.where(idle, scores, -jnp.inf), 0)  # [K - 1]: the best that waits
            own = scores[i, np.arange(K - 1)][None]
            ahead = (scores > own) | ((scores == own) & (jnp.arange(N)[:, None] < i[None]))
            goes_on = jnp.any(idle, 0) & (jnp.sum(ahead & finished, 0) < places)
            k = jnp.max(jnp.where(goes_on, np.arange(K - 1), -1), initial=-1)  # the highest
            oldest = place(started)
            slot = jnp.where(k < 0, jnp.argmin(oldest), jnp.append(i, 0)[k])
            after = started + jnp.where(k < 0, jnp.min(oldest) % N + 1, 0)  # busy slots are passed over
            return (free & (jnp.arange(N) != slot), after), (slot, k + 1)

        (_, started), (slot, k) = jax.lax.scan(job, (jnp.ones(N, bool), state.started), None, length=B)
        slot, new = slot.astype(jnp.int32), k == 0
        nth = jnp.maximum(jnp.cumsum(new) - 1, 0)  # of a new member among those proposed
        fresh = lambda a, b: jnp.where(new.reshape(B, *[1] * (a.ndim - 1)), a[nth], b[slot])
        drawn = propose.ask(key, state.proposer)
        return state._replace(started=started, busy=state.busy.at[slot].set(True)), Trial(
            arch=jax.tree.map(fresh, drawn, state.archs),
            slot=slot,
            start=jnp.where(new, 0, jnp.asarray(budgets)[k - 1]),
            stop=jnp.asarray(budgets)[k],
        )

    def tell(key, state, trials, scores):
        del key  # nothing to draw
        scores = jnp.maximum(scores, FAILED)
        s, k = trials.slot, jnp.sum(trials.stop[:, None] > budgets[None], -1, dtype=jnp.int32)
        return ASHAState(
            archs=jax.tree.map(lambda old, new: old.at[s].set(new), state.archs, trials.arch),
            scores=state.scores.at[s, k].set(scores),
            rung=state.rung.at[s].set(k),
            busy=state.busy.at[s].set(False),
            started=state.started,
            answer=better(state.answer, trials, scores),
            proposer=propose.tell(state.proposer, trials, scores),
        )

    best = lambda state: state.answer.arch
    return AskTell(init, ask, tell, best, replaceable=False, asynchronous=blind, failures=True)
