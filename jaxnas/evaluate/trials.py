"""Evaluators of trials: what an architecture is worth at a budget (`jaxnas.ask_tell.trial.Trial`).

    by_budget       a table with a column for each budget
    train_trials    members in slots, each with weights, optimizer state and losses of its own: survivors keep training

A schedule of the learning rate has two readings, and they rank architectures differently:
    anneal="whole"  one schedule over the largest budget R, of which a trial is a piece:   progress = t / R
    anneal="own"    each trial anneals fully within itself:                                progress = (t - start) / (stop - start)
Under "whole" a training that is cut into trials gives the same bits as one that is not.  A benchmark whose short trainings have
schedules of their own (12 and 200 epochs on NAS-Bench-201) is neither: its members start over, and `restart` bills them so.

Axes: M slots, B trials, F budgets of a table, S training steps.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas import sharding
from jaxnas.ask_tell.trial import require_trials
from jaxnas.base import DrawFn, Evaluator, stateless
from jaxnas.checks import checked
from jaxnas.evaluate._table import table
from jaxnas.evaluate.population import Member, advance, each, judge, start
from jaxnas.kinds import Positive
from jaxnas.nets.base import Net
from jaxnas.spaces._space import Space
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.scratch import mean_score
from jaxnas.trees import take

ANNEAL = ("whole", "own")


@checked
def by_budget(space: Space, budgets: Sequence[Positive], restart: bool = False) -> Evaluator:
    """The evaluator that looks trials up in `batch.fixed`: {name: [raw size of the space, F]}, columns of `rows` side by side.

    Metrics: every name at the trial's `stop`, NaN for one that is not of `budgets`; and "cost", stop - start.

    Args:
        space: with an index.
        budgets: of the columns, rising.
        restart: the table's trainings do not continue each other; the cost is then all of `stop`, and 0 for an idle trial.

    Raises:
        ValueError: for budgets that do not rise from 1 or more, what `table` refuses, or, when traced, another number of columns.
    """
    known, whole = np.asarray(budgets), table(space)
    if known.ndim != 1 or not len(known) or known[0] < 1 or (np.diff(known) <= 0).any():
        raise ValueError(f"budgets of a table rise, and begin at 1 or more; got {list(budgets)}")

    def evaluate(key, trials, batch):
        require_trials(trials)
        _, metrics = whole.step(key, (), trials.arch, batch)
        here = trials.stop[:, None] == known[None]  # [B, F]
        for name, columns in metrics.items():
            if columns.shape != here.shape:
                got = list(columns.shape[1:])
                raise ValueError(f"{name!r} needs one column a budget, [N, {len(known)}]; got [N, {', '.join(map(str, got))}]")
        at = lambda m: jnp.where(jnp.any(here, -1), jnp.sum(jnp.where(here, m, 0), -1), jnp.nan)
        return {**{name: at(m) for name, m in metrics.items()}, "cost": _cost(trials, restart)}

    return stateless(evaluate)


class Held(NamedTuple):
    """What `train_trials` reads in `batch.fixed`."""

    arrays: Any  # a feed's
    valid: Any  # what members are scored on, (x [N, ...], y [N])


class TrialsState(NamedTuple):
    members: Member  # [M, ...]
    seed: jax.Array  # uint32[M], of each member's weights and batches


@checked
def train_trials(
    net: Net,
    optimizer: Callable[[Callable[[jax.Array], jax.Array]], optax.GradientTransformation],
    draw: DrawFn,
    *,
    slots: Positive,
    budget: Positive,
    unit: Positive = 1,
    anneal: str = "whole",
    mode: str | int | None = None,
    criterion: Criterion = CLASSES,
) -> Evaluator:
    """The evaluator that trains members and keeps them.

    Metrics: the criterion's, "accuracy" of classes, on `batch.fixed.valid` with running statistics, "loss", of the last training
    step, and "cost"; the first two NaN for a member that diverged, which is trained no further where members are alone
    (`jaxnas.evaluate.population`).
    Losses of every step are in the state, `members.losses` [M, S].  A member's batch of step t is drawn by a key of its own and t.

    Args:
        net: the supernet of the space.
        optimizer: progress -> optax transformation; progress(t) in [0, 1] is where step t is on the schedule:
            `lambda progress: optax.sgd(lambda t: 0.1 * (1 - progress(t)))`.
        draw: a feed's (key, arrays, t) -> Batch of one weight step; arrays come in `batch.fixed.arrays`.
        slots: M, as many as the algorithm has.
        budget: R, the largest.
        unit: training steps of one unit of budget, as an epoch's.
        anneal: "whole" or "own".
        mode: "vmap", "map" or a chunk size; default by the platform: see `jaxnas.evaluate.population.each`.
        criterion: the loss and the score; default: of classes.

    Raises:
        ValueError: for sizes below 1, another `anneal` or mode.
    """
    if min(slots, budget, unit) < 1 or anneal not in ANNEAL:
        raise ValueError(f"give slots, a budget and a unit of at least 1, and anneal 'whole' or 'own'; got {anneal!r}")
    run, steps = each(mode), budget * unit

    def init(key):
        del key  # weights are drawn by a trial that starts at 0
        first = jax.eval_shape(net.space.sample, jax.random.key(0))
        progress = lambda t: t / steps

        def fresh(arch):
            return start(net, optimizer(progress), jax.random.key(0), net.space.gates(arch), steps)

        blank = jax.tree.map(lambda a: jnp.zeros((slots, *a.shape), a.dtype), jax.eval_shape(fresh, first))
        return TrialsState(blank, jnp.zeros(slots, jnp.uint32))

    def one(path, trial, seed, member, fixed):
        k_weights, k_data = jax.random.split(jax.random.key(seed))
        begin, end = trial.start * unit, trial.stop * unit
        along = (lambda t: t / steps) if anneal == "whole" else lambda t: (t - begin) / jnp.maximum(end - begin, 1)
        gates, moves = net.space.gates(trial.arch), optimizer(along)
        new = start(net, moves, k_weights, gates, steps)
        member = jax.tree.map(lambda a, b: jnp.where(trial.start == 0, a, b), new, member)
        batch_of = lambda t: take(draw(jax.random.fold_in(k_data, t), fixed.arrays, t).train, 0)
        member = advance(net, moves, member, gates, begin, end, batch_of, path, criterion)
        score = lambda logits_of, split: {criterion.name: mean_score(logits_of, split, criterion.score)}
        return member, judge(net, member, gates, end, score, fixed.valid, path)

    def step(key, state, trials, batch):
        require_trials(trials)
        if not isinstance(batch.fixed, Held):
            raise ValueError("trials are trained on what is in `batch.fixed`: give Held(feed.arrays, dataset.valid)")
        slot = trials.slot
        seed = jnp.where(trials.start == 0, jax.random.bits(key, slot.shape, jnp.uint32), state.seed[slot])
        members = take(state.members, slot)
        of_one = lambda path, inputs: one(path, inputs[0], inputs[1], inputs[2], batch.fixed)
        members, metrics = run(of_one, sharding.constrain((trials, seed, members), "pop"))
        put = lambda old, new: old.at[slot].set(new)
        kept = TrialsState(jax.tree.map(put, state.members, members), put(state.seed, seed))
        return kept, {**metrics, "cost": _cost(trials, False)}

    return Evaluator(init, step)


def _cost(trials, restart):
    """float32[B]."""
    paid = jnp.where(trials.start < trials.stop, trials.stop, 0) if restart else trials.stop - trials.start
    return paid.astype(jnp.float32)
