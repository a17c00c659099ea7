"""Watching a search, and stopping it before it collapses.

Reference: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656, sec. 4-5.

    every epoch: lambda <- the dominant eigenvalue of d2 L_valid / d alpha2 on a validation batch
    stop at the first epoch e with  mean(|lambda| over e-4 .. e) / mean(|lambda| over e-8 .. e-4) > 1.3,
    and answer with the architecture of epoch e - 4                                        (DARTS-ES)

`with_measurements` makes n steps of a search into one, an epoch, and measures after it; `early_stopping` adds the rule.  What has
stopped stands still: under vmapped seeds each stops for itself.

Axes: n steps to an epoch, A architecture steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.analysis.diagnostics import count_operations, discretisation_gap, dominant_eigenvalue, entropy
from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies.policy import Policy
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.trees import loop


class WatchInfo(NamedTuple):
    loss: jax.Array  # [] mean of the epoch; not finite: the run has diverged
    search: Any  # the Info of the last step
    watched: dict  # what `measure` reports, {name: []}


@checked
def with_measurements(search: Strategy, measure: Callable) -> Strategy:
    """The search whose step is an epoch of steps and a measurement.

    Args:
        search: a weight-sharing search.
        measure: (key, state, batch) -> {name: []}, on the epoch's last batch; see `measurements`.

    Its batches have a leading axis n: draw them with `epochs(feed, n)`.
    """

    def step(key, state, batch):
        k_steps, k_measure = jax.random.split(key)
        one = lambda s, xs: search.step(jax.random.fold_in(k_steps, xs[0]), s, xs[1])
        state, infos = loop(one, state, (jnp.arange(jax.tree.leaves(batch)[0].shape[0]), batch))
        last = lambda tree: jax.tree.map(lambda a: a[-1], tree)
        return state, WatchInfo(jnp.mean(infos.loss), last(infos), measure(k_measure, state, last(batch)))

    return search._replace(step=step)


@checked
def measurements(net: Net, policy: Policy, iterations: Positive = 20, criterion: Criterion = CLASSES) -> Callable:
    """-> measure(key, state, batch): "eigenvalue", "entropy", "skips" and "gap" of a weight-sharing search, on its validation
    batch (the training batch where there is none), with the batch's own statistics.

    Args:
        net: the supernet.
        policy: the search's relaxation, deterministic (DARTS's softmax, GAEA's simplex, PC-DARTS's edges).
        iterations: of the power iteration.
        criterion: whose loss it is; default: of classes.
    """

    def measure(key, state, batch):
        k_sample, k_power = jax.random.split(key)
        x, y = jax.tree.map(lambda a: a[0], batch.train if batch.valid is None else batch.valid)

        def on_gates(gates):
            return criterion.loss(net.apply(state.variables, x, gates, train=True)[0], y)

        def gates_of(theta):
            actions = policy.sample(jax.random.clone(k_sample), theta, state.step)
            return policy.gates(jax.tree.map(lambda a: a[0], actions))

        gates, arch = gates_of(state.theta), policy.derive(state.theta)
        return {
            "eigenvalue": dominant_eigenvalue(lambda theta: on_gates(gates_of(theta)), state.theta, k_power, iterations),
            "entropy": entropy(gates),
            "skips": count_operations(net.space, arch),
            "gap": discretisation_gap(on_gates, net.space, gates, arch),
        }

    return measure


def seen(values: jax.Array, value: jax.Array) -> jax.Array:
    """values [window + lag] with the size of one more at the end; one that is not finite counts as the one before."""
    value = jnp.abs(value)
    return jnp.concatenate([values[1:], jnp.where(jnp.isfinite(value), value, values[-1])[None].astype(values.dtype)])


def risen(values: jax.Array, factor: float, window: int, lag: int) -> jax.Array:
    """bool[]: whether the last window's mean is more than `factor` times that of `lag` epochs before."""
    return jnp.mean(values[lag:]) > factor * jnp.mean(values[:window])


def check_windows(factor: float, window: int, lag: int, first: int) -> None:
    if not factor > 0 or min(window, lag) < 1 or first < window + lag:
        raise ValueError(f"give factor > 0, window and lag >= 1, first >= window + lag; got {factor}, {window}, {lag}, {first}")


class EarlyStoppingState(NamedTuple):
    search: Any
    values: jax.Array  # float32[window + lag]: the sizes of the last eigenvalues, newest last
    archs: Any  # [lag + 1, ...]: the architectures derived after the last epochs, newest last
    epoch: jax.Array  # int32[]
    stopped: jax.Array  # bool[]


@checked
def early_stopping(
    search: Strategy,
    *,
    factor: PositiveNumber = 1.3,
    window: Positive = 5,
    lag: Positive = 4,
    first: Positive = 10,
    name: str = "eigenvalue",
) -> Strategy:
    """DARTS-ES over a watched search.

    Args:
        search: of `with_measurements`.
        factor: of the windows' means at which the search stops.
        window: epochs to a mean.
        lag: epochs between the two means; the answer is that of `lag` epochs before.
        first: the epoch from which on it may stop.
        name: of the measurement.

    Its Info's "watched" has "stopped" (0 or 1) as well.

    Raises:
        ValueError: for a factor at or below 0, a window or lag below 1, or a first epoch before both windows are full.
    """
    check_windows(factor, window, lag, first)

    def init(key, given=None):
        state = search.init(key, given)
        archs = jax.tree.map(lambda a: jnp.broadcast_to(a, (lag + 1, *a.shape)), search.best(state))
        zero = jnp.zeros((), jnp.int32)
        return EarlyStoppingState(state, jnp.zeros(window + lag, jnp.float32), archs, zero, jnp.zeros((), bool))

    def step(key, state, batch):
        inner, info = search.step(key, state.search, batch)
        values, epoch = seen(state.values, info.watched[name]), state.epoch + 1
        push = lambda old, new: jnp.concatenate([old[1:], new[None].astype(old.dtype)])
        archs = jax.tree.map(push, state.archs, search.best(inner))
        moved = EarlyStoppingState(inner, values, archs, epoch, risen(values, factor, window, lag) & (epoch >= first))
        state = jax.tree.map(lambda old, new: jnp.where(state.stopped, old, new), state, moved)
        return state, info._replace(watched={**info.watched, "stopped": state.stopped.astype(jnp.float32)})

    def best(state):
        return jax.tree.map(lambda a: jnp.where(state.stopped, a[0], a[-1]), state.archs)

    return Strategy(init, step, best)
