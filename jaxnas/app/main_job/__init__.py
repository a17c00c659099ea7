"""The main job: for a person's data, a limit and so many minutes, the best network; and the proof of what searching was worth.

    1. two arms of the same time: the search, whose generation 0 are hand-made networks at the limit, each with several trainings,
       and which goes on with mutants of the best; and random networks, each trained to the end
    2. on tables gradient boosting, its settings tuned for as long at most
    3. the best of each, by validation, trained again on train and valid together from several seeds, and tested once: see `finals`

The run directory: config.json, plan.json, trials.jsonl (a line a trial), members/ (what each has learned), finals/, and at the
end result.json, times.json (what clocks have measured), report.html, architecture.svg, weights.npz, export.bin and network.json.
"""

import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnas import training
from jaxnas.app.main_job import budget
from jaxnas.app.main_job.arms import Arm, Record, Trials, run_arm
from jaxnas.app.main_job.boosting import boost
from jaxnas.app.main_job.finals import Searched, compare
from jaxnas.app.main_job.trainer import Examples, Trainer, scorer
from jaxnas.ask_tell._asha import asha
from jaxnas.ask_tell._portfolio import portfolio
from jaxnas.ask_tell._random_search import random_search
from jaxnas.base import AskTell, Key
from jaxnas.data.dataset import Dataset
from jaxnas.driver.fingerprint import Fingerprint, fingerprint, of_arrays
from jaxnas.driver.program import compiler_options
from jaxnas.nets.blueprints import Blueprints
from jaxnas.spaces._limited import limited
from jaxnas.spaces._space import Space
from jaxnas.spaces._training import retrained, with_recipe

CAPACITY, WORKERS = 256, 4
Say = Callable[[str], None]


class Effort(NamedTuple):
    """How much a run may do."""

    minutes: float  # for all of it
    limit: str | None = None  # of a network, such as "params=200k", "macs=5M" or "latency=0.2ms"
    batch: int = 64  # examples a step
    steps: int | None = None  # of a whole training, and
    trials: int | None = None  # of each arm, where the minutes should not decide: then equal runs write equal trials anywhere


def run(
    directory: pathlib.Path,
    key: Key,
    net: Blueprints,
    dataset: Dataset,
    effort: Effort,
    *,
    criterion: training.Criterion | None = None,
    algorithm: Callable[[Space], tuple[AskTell, int]] | None = None,
    space_name: str = "macro",
    say: Say = lambda line: None,
    settings: dict[str, Any] | None = None,
) -> dict:
    """Runs, or goes on with, the main job in `directory`.

    Args:
        directory: of the run.
        key: the root of all randomness.
        net: builds the networks.
        dataset: its test part is touched once, at the end.
        effort: how much of it.
        criterion: the loss, and the score that counts; default: those of the target.
        algorithm: space -> (what searches, the largest budget that it asks for, 1 for one without budgets); default: asynchronous
            halving of the portfolio and its mutants.
        space_name: what network.json calls the space.
        say: takes a line for a person.
        settings: name -> a value that JSON holds: what else the run depends on.

    Raises:
        ValueError: for a directory that holds a run of another effort, other data, settings, key or version; it names what differs.
        NoFiniteScore: where every training has diverged.
    """
    began = time.perf_counter()
    k_search, k_random, k_final = jax.random.split(key, 3)
    criterion = training.criterion(dataset.target) if criterion is None else criterion
    table = len(dataset.image) == 1
    together = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), dataset.train, dataset.valid)
    trainer = Trainer(Examples(together.x, together.y, train=len(dataset.train.y)), net, effort.batch, criterion.loss)
    of = _fingerprint(key, dataset, effort, criterion, space_name, settings or {})
    plan = budget.load_plan(directory, of)
    kept = Trials(directory)
    if plan is not None:
        kept.check()
    before = kept.elapsed
    clock = lambda: before + time.perf_counter() - began
    try:
        if plan is None:
            plan = budget.make_plan(trainer, 60 * effort.minutes, effort.limit, effort.steps, clock, 3 if table else 2)
            budget.save_plan(directory, plan, of)
        say(plan.said())
        space = limited(net.space, _excess(net, plan), 1.0)
        hand_made = _generation_0(net, plan.networks)
        for arch in () if algorithm else hand_made.values():
            trainer.prepare(net.space.choice(arch))  # they come first
        searching = algorithm(space) if algorithm else _halved_portfolio(space, hand_made)
        common = dict(
            total=plan.steps,
            most=effort.trials,
            score=scorer(criterion, dataset.valid.y),
            sizes=_sizes(net),
            held=dataset.valid.x,
            slowest=plan.limit_ms or math.inf,
        )
        for name, (asks, largest), k in (("search", searching, k_search), ("random", (random_search(space), 1), k_random)):
            arm = Arm(name=name, space=net.space, algorithm=asks, budget=largest, **common)
            end = plan.arm + max((r.at for r in kept.records if r.arm != name), default=plan.began)
            compiling = lambda choice: 0.0 if trainer.compiled(choice) else budget.COMPILED * plan.compiling
            room = lambda choice, macs, n, end=end: clock() + compiling(choice) + plan.training(macs, n, trainer.batch) <= end
            for record in run_arm(arm, k, trainer, kept, clock, room):
                say(_line(record, plan, end - clock()))
        boosted = None
        if table:
            boosted = boost(directory, dataset, criterion, plan.arm, effort.trials)
            say(f"gradient boosting: {boosted.validation:.4f}, the best of {boosted.tried} settings: {boosted.text}")
        left = lambda: math.inf if effort.trials else plan.seconds - clock()
        searched = Searched(directory, dataset, trainer, kept, plan, space_name, criterion, left)
        return compare(searched, k_final, 0 if algorithm else len(hand_made), boosted, say)
    finally:
        trainer.close()


def _fingerprint(key, dataset, effort, criterion, space_name, settings) -> Fingerprint:
    of = {**settings, **{f"the {name} of the effort": value for name, value in effort._asdict().items()}}
    of |= {"the space": space_name, "the score": criterion.name}
    of["the examples"] = of_arrays((dataset.train, dataset.valid, dataset.test))
    return fingerprint(key, None, [], of)


def _halved_portfolio(space: Space, hand_made: dict[str, Any]) -> tuple[AskTell, int]:
    given = jax.tree.map(lambda *a: jnp.stack(a), *hand_made.values())
    propose = portfolio(space, given, CAPACITY, WORKERS, same=retrained)
    return asha(space, budget.ETA, 1, budget.ETA, capacity=CAPACITY, batch=WORKERS, propose=propose), budget.ETA


def _excess(net: Blueprints, plan: budget.Plan) -> Callable[[Any], jax.Array]:
    """arch -> what it costs in units of the limits: at most 1 where it is within all of them."""

    def excess(arch):
        cost = net.cost(arch)
        parts = [cost.macs / plan.limit]
        parts += [] if plan.limit_params is None else [cost.params / plan.limit_params]
        return jnp.max(jnp.stack(parts))

    return excess


def _sizes(net: Blueprints) -> Callable[[Any], tuple[int, int]]:
    cost = jax.jit(net.cost, compiler_options=compiler_options(once=True))

    def sizes(arch):
        found = cost(arch)
        return int(found.params), int(found.macs)

    return sizes


def _generation_0(net: Blueprints, networks: dict[str, str]) -> dict[str, Any]:
    """text -> architecture: each hand-made network with each of the trainings."""
    archs = [net.space.from_text(text) for text in networks.values()]
    each = [with_recipe(net.space, arch, recipe) or arch for arch in archs for recipe in net.recipes]
    return {net.space.to_text(arch): arch for arch in each}


def _line(r: Record, plan: budget.Plan, left: float) -> str:
    part = "" if r.stop == plan.steps else f" at {r.stop} of {plan.steps} steps"
    return f"{r.arm} {r.number}: {r.score:.4f}{part}, {r.macs / 1e6:.2f} M multiply-adds: {r.genotype} ({left:.0f} s left)"
