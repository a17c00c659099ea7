"""Where a search would collapse, it goes back and trains on with more weight decay.

Reference: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656, sec. 5 and
app. C.

    every epoch: lambda <- the dominant eigenvalue of d2 L_valid / d alpha2 on a validation batch
    at an epoch e with  mean(|lambda| over e-4 .. e) / mean(|lambda| over e-8 .. e-4) > 1.3:
        everything <- what it was after epoch e - 4,  weight decay <- 3 weight decay, up to 0.0243     (DARTS-ADA)

It is `early_stopping` with a second chance, four of them from 0.0003 on.  What is rolled back is the weights, their statistics and
momentum, alpha and its optimizer, the learning rate's step and the eigenvalues seen; batches are drawn anew.

Axes: L epochs kept (the lag).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.trees import take
from jaxnas.weight_sharing._early_stopping import check_windows, risen, seen

CLOSE = 1e-5  # of the maximum: products of float32 that should meet it may be above it by so much


class Epoch(NamedTuple):
    """What there is after an epoch."""

    search: Any
    values: jax.Array  # float32[window + lag]: the sizes of the last eigenvalues, newest last
    number: jax.Array  # int32[]; 0 before the first


class AdaptiveState(NamedTuple):
    now: Epoch
    past: Epoch  # [L, ...]: the epochs before, newest last
    stopped: jax.Array  # bool[]


@checked
def adaptive_regularisation(
    search: Strategy,
    *,
    increase: PositiveNumber = 3.0,
    maximum: PositiveNumber = 0.0243,
    epochs: Positive | None = None,
    stop_at_limit: bool = True,
    factor: PositiveNumber = 1.3,
    window: Positive = 5,
    lag: Positive = 4,
    first: Positive = 10,
    name: str = "eigenvalue",
) -> Strategy:
    """DARTS-ADA over a watched search, whose weights are decayed by `training.adjustable_decay`.

    Args:
        search: of `with_measurements`, its optimizer of the weights with one "weight_decay" in its state.
        increase: what the weight decay is multiplied by.
        maximum: the most weight decay; a step that would exceed it is not taken.
        epochs: after so many, not counting those that were rolled back, the search stands still; default: it goes on.
            One that is rolled back r times takes r * lag steps more.
        stop_at_limit: with no more weight decay to give, stop as `early_stopping` does, back at the epoch `lag` epochs before.
            False: train on to the end, as published.
        factor: of the windows' means at which it is rolled back.
        window: epochs to a mean.
        lag: epochs between the two means, and epochs to roll back (the authors' code goes back to the middle of the earlier window,
            window // 2 further).  A state is never rolled back past the one it was last rolled back to.
        first: the epoch from which on it may be rolled back.
        name: of the measurement.

    Its Info's "watched" has "stopped" (0 or 1), "epoch" and "weight_decay" as well, as the next epoch finds them.

    Raises:
        ValueError: for an increase at or below 1, or numbers that `early_stopping` refuses; in `init`, for a search without one
            adjustable weight decay.
    """
    check_windows(factor, window, lag, first)
    if not increase > 1:
        raise ValueError(f"`increase` multiplies the weight decay: give more than 1, not {increase}")

    def init(key, given=None):
        state = search.init(key, given)
        _weight_decay(state)
        now = Epoch(state, jnp.zeros(window + lag, jnp.float32), jnp.zeros((), jnp.int32))
        return AdaptiveState(now, _repeated(now, lag), jnp.zeros((), bool))

    def step(key, state, batch):
        inner, info = search.step(key, state.now.search, batch)
        moved = Epoch(inner, seen(state.now.values, info.watched[name]), state.now.number + 1)
        past = jax.tree.map(lambda old, new: jnp.concatenate([old[1:], new[None]]), state.past, state.now)
        back = take(past, 0)  # after the epoch `lag` before
        more = _weight_decay(back.search) * jnp.float32(increase)
        room = more <= maximum * (1 + CLOSE)
        fires = risen(moved.values, factor, window, lag) & (moved.number >= first)
        if epochs is not None:
            fires &= moved.number < epochs
        again = back._replace(search=_with_decay(back.search, jnp.minimum(more, jnp.float32(maximum))))
        stops = fires & ~room & stop_at_limit
        on = AdaptiveState(_where(stops, back, moved), past, stops)
        new = _where(fires & room, AdaptiveState(again, _repeated(again, lag), jnp.zeros((), bool)), on)
        still = state.stopped if epochs is None else state.stopped | (state.now.number >= epochs)
        state = _where(still, state, new)
        reported = {"stopped": state.stopped, "epoch": state.now.number, "weight_decay": _weight_decay(state.now.search)}
        return state, info._replace(watched={**info.watched, **{k: v.astype(jnp.float32) for k, v in reported.items()}})

    return Strategy(init, step, lambda state: search.best(state.now.search))


def _where(on, this, other):
    return jax.tree.map(lambda a, b: jnp.where(on, a, b), this, other)


def _repeated(epoch: Epoch, count: int) -> Epoch:
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *a.shape)), epoch)


def _weight_decay(state: Any) -> jax.Array:
    found = optax.tree_utils.tree_get_all_with_path(getattr(state, "opt_state", None), "weight_decay")
    if len(found) != 1:
        raise ValueError(
            "the weights' optimizer must have one weight decay that can be changed: give the search "
            "optax.chain(training.adjustable_decay(), optax.sgd(0.025, momentum=0.9))"
        )
    return found[0][1]


def _with_decay(state: Any, weight_decay: jax.Array) -> Any:
    return state._replace(opt_state=optax.tree_utils.tree_set(state.opt_state, weight_decay=weight_decay))
