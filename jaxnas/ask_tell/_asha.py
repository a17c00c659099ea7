"""Asynchronous successive halving: promote whatever ranks among the best of its rung so far, without waiting for the rest.

Reference: Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and Talwalkar, A System for Massively Parallel
Hyperparameter Tuning, MLSys 2020, arXiv:1810.05934, algorithm 2.

    a worker that is free:
        for rung k, the highest first:  the best floor(|rung k| / eta) of those that have finished it;
                                        if one of them has not been promoted yet, it is, to rung k + 1
        else a new member, at rung 0

B workers in step: the B jobs of a step see what was finished before it, and none is given out twice.  With B = 1 it is the
algorithm of one worker.  Defaults eta = 3 and r = 1; the paper's eta is 4.

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

    Raises:
        ValueError: for budgets that are not 1 <= r <= R, an eta below 2, a capacity below 1, or a batch outside [1, capacity].
    """
    N, B, budgets = capacity, batch, np.asarray(levels(R, r, eta), np.int32)
    check_capacity(N, 1, B)
    K = len(budgets)
    propose = at_random(space, B) if propose is None else propose

    def init(key):
        return ASHAState(
            archs=no_archs(space, N),
            scores=jnp.zeros((N, K), jnp.float32),
            rung=jnp.full(N, -1, jnp.int32),
            started=jnp.zeros((), jnp.int32),
            answer=no_answer(space),
            proposer=propose.init(key),
        )

    def ask(key, state):
        finished = state.rung[:, None] >= np.arange(K - 1)[None]  # [N, K - 1]
        waiting = state.rung[:, None] == np.arange(K - 1)[None]
        fading = (jnp.arange(N) - state.started) % N < B  # slots that this step may take
        scores = jnp.where(finished, state.scores[:, : K - 1], -jnp.inf)
        places = jnp.sum(finished, 0) // eta  # [K - 1]

        def job(carry, _):
            free, started = carry  # bool[N]: not given out in this step
            idle = waiting & (free & ~fading)[:, None]
            i = jnp.argmax(jnp.where(idle, scores, -jnp.inf), 0)  # [K - 1]: the best that waits
            own = scores[i, np.arange(K - 1)][None]
            ahead = (scores > own) | ((scores == own) & (jnp.arange(N)[:, None] < i[None]))
            goes_on = jnp.any(idle, 0) & (jnp.sum(ahead & finished, 0) < places)
            k = jnp.max(jnp.where(goes_on, np.arange(K - 1), -1), initial=-1)  # the highest
            slot = jnp.where(k < 0, started % N, jnp.append(i, 0)[k])
            return (free & (jnp.arange(N) != slot), started + (k < 0)), (slot, k + 1)

        (_, started), (slot, k) = jax.lax.scan(job, (jnp.ones(N, bool), state.started), None, length=B)
        slot, new = slot.astype(jnp.int32), k == 0
        place = jnp.maximum(jnp.cumsum(new) - 1, 0)  # of a new member among those proposed
        fresh = lambda a, b: jnp.where(new.reshape(B, *[1] * (a.ndim - 1)), a[place], b[slot])
        drawn = propose.ask(key, state.proposer)
        return state._replace(started=started), Trial(
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
            started=state.started,
            answer=better(state.answer, trials, scores),
            proposer=propose.tell(state.proposer, trials, scores),
        )

    return AskTell(init, ask, tell, lambda state: state.answer.arch, replaceable=False, failures=True)
