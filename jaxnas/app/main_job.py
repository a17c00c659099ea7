"""The main job: for a person's data, a limit and so many minutes, the best network; and the proof of what searching was worth.

    1. two arms of the same time: the search, whose generation 0 are hand-made networks at the limit, each with several trainings,
       and which goes on with mutants of the best; and random networks, each trained to the end
    2. by validation: the best of all (found), the best of the hand-made, the best of the random, the cheapest within a standard
       error of the best (small), and a greedy ensemble of all that was trained to the end anyway
    3. those compared are trained again on train and valid together, from several seeds, and tested once
    4. if a hand-made or a random network is clearly better there, it is what is kept, and the verdict says so

The run directory: config.json, plan.json, trials.jsonl (a line a trial), members/ (what was trained to the end), finals/, and at
the end result.json, report.html, architecture.svg, weights.npz, export.bin and network.json.
"""

import hashlib
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import plot, training
from jaxnas.analysis.calibration import temperature
from jaxnas.analysis.paired import difference
from jaxnas.app import budget, export
from jaxnas.app.arms import Arm, Record, Trials, run_arm
from jaxnas.app.boosting import Boosted, boost
from jaxnas.app.ensemble import averaged, greedy
from jaxnas.app.trainer import Examples, Trainer
from jaxnas.ask_tell._asha import asha
from jaxnas.ask_tell._portfolio import portfolio
from jaxnas.ask_tell._random_search import random_search
from jaxnas.base import AskTell, Key
from jaxnas.data.dataset import Dataset
from jaxnas.nets.blueprints import Blueprints
from jaxnas.spaces._limited import limited
from jaxnas.spaces._space import Space
from jaxnas.spaces._training import with_recipe

CAPACITY, WORKERS = 256, 4
Say = Callable[[str], None]


class Effort(NamedTuple):
    """How much a run may do."""

    minutes: float  # for all of it
    limit: str | None = None  # of a network, such as "params=200k" or "macs=5M"
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
    algorithm: Callable[[Space], tuple[AskTell, int]] | None = None,
    space_name: str = "macro",
    say: Say = lambda line: None,
) -> dict:
    """Runs, or goes on with, the main job in `directory`.

    Args:
        directory: of the run.
        key: the root of all randomness.
        net: builds the networks.
        dataset: its test part is touched once, at the end.
        effort: how much of it.
        algorithm: space -> (what searches, the largest budget that it asks for, 1 for one without budgets); default: asynchronous
            halving of the portfolio and its mutants.
        space_name: what network.json calls the space.
        say: takes a line for a person.
    """
    began = time.perf_counter()
    k_search, k_random, k_final = jax.random.split(key, 3)
    criterion, table = training.criterion(dataset.target), len(dataset.image) == 1
    together = [jnp.concatenate([a, b]) for a, b in zip(dataset.train, dataset.valid, strict=True)]
    trainer = Trainer(Examples(*together, train=len(dataset.train.y)), net, effort.batch, criterion.loss)
    kept = Trials(directory)
    before = kept.elapsed
    clock = lambda: before + time.perf_counter() - began
    try:
        plan = budget.load_plan(directory)
        if plan is None:
            plan = budget.make_plan(trainer, 60 * effort.minutes, effort.limit, effort.steps, clock, 3 if table else 2)
            budget.save_plan(directory, plan)
        say(plan.said())
        space = limited(net.space, _excess(net, plan), 1.0)
        hand_made = _generation_0(net, budget.scaled(trainer, plan))
        for arch in () if algorithm else hand_made.values():
            trainer.prepare(net.space.choice(arch))  # they come first
        searching = algorithm(space) if algorithm else _halved_portfolio(space, hand_made)
        common = dict(
            total=plan.steps, most=effort.trials, score=_score(dataset, criterion), sizes=_sizes(net), held=dataset.valid.x
        )
        for name, (asks, largest), k in (("search", searching, k_search), ("random", (random_search(space), 1), k_random)):
            arm = Arm(name=name, space=net.space, algorithm=asks, budget=largest, **common)
            end = plan.arm + max((r.at for r in kept.records if r.arm != name), default=plan.began)
            room = lambda macs, n, end=end: clock() + plan.training(macs, n, trainer.batch) <= end
            for record in run_arm(arm, k, trainer, kept, clock, room):
                say(_line(record, plan, end - clock()))
        boosted = None
        if table:
            boosted = boost(directory, dataset, _score(dataset, criterion), plan.arm, effort.trials)
            say(f"gradient boosting: {boosted.validation:.4f}, the best of {boosted.tried} settings: {boosted.text}")
        return _finish(directory, dataset, trainer, kept, plan, 0 if algorithm else len(hand_made), k_final, space_name, say, boosted)
    finally:
        trainer.close()


def _halved_portfolio(space: Space, hand_made: dict[str, Any]) -> tuple[AskTell, int]:
    given = jax.tree.map(lambda *a: jnp.stack(a), *hand_made.values())
    propose = portfolio(space, given, CAPACITY, WORKERS)
    return asha(space, budget.ETA, 1, budget.ETA, capacity=CAPACITY, batch=WORKERS, propose=propose), budget.ETA


def _score(dataset: Dataset, criterion: training.Criterion) -> Callable[[np.ndarray], np.ndarray]:
    """Validation outputs [n, K] -> [n]: the criterion's score, with the loss to decide between equals."""

    def one(outputs, y):  # [K], one target
        loss = jnp.minimum(criterion.loss(outputs[None], y[None]), 10.0)
        return criterion.score(outputs[None], y[None])[0] - 1e-3 * loss

    each, y = jax.jit(jax.vmap(one)), dataset.valid.y
    return lambda outputs: np.asarray(each(outputs, y), np.float64)


def _excess(net: Blueprints, plan: budget.Plan) -> Callable[[Any], jax.Array]:
    """arch -> what it costs in units of the limits: at most 1 where it is within all of them."""

    def excess(arch):
        cost, parts = net.cost(arch), [jnp.zeros(())]
        parts += [] if plan.limit is None else [cost.macs / plan.limit]
        parts += [] if plan.limit_params is None else [cost.params / plan.limit_params]
        return jnp.max(jnp.stack(parts))

    return excess


def _sizes(net: Blueprints) -> Callable[[Any], tuple[int, int]]:
    cost = jax.jit(net.cost)

    def sizes(arch):
        found = cost(arch)
        return int(found.params), int(found.macs)

    return sizes


def _generation_0(net: Blueprints, networks: dict[str, Any]) -> dict[str, Any]:
    """text -> architecture: each hand-made network with each of the trainings."""
    each = [with_recipe(net.space, arch, recipe) or arch for arch in networks.values() for recipe in net.recipes]
    return {net.space.to_text(arch): arch for arch in each}


def _line(r: Record, plan: budget.Plan, left: float) -> str:
    part = "" if r.stop == plan.steps else f" at {r.stop} of {plan.steps} steps"
    return f"{r.arm} {r.number}: {r.score:.4f}{part}, {r.macs / 1e6:.2f} M multiply-adds: {r.genotype} ({left:.0f} s left)"


def _finish(
    directory: pathlib.Path,
    dataset: Dataset,
    trainer: Trainer,
    kept: Trials,
    plan: budget.Plan,
    generation: int,
    key: Key,
    space_name: str,
    say: Say,
    boosted: Boosted | None = None,
) -> dict:
    """Trains what is compared, tests it once, and keeps the best."""
    net = trainer.net
    whole = [r for r in kept.records if r.stop == plan.steps and np.isfinite(r.score)]
    if not whole:
        raise ValueError("no network was trained to the end: give more --minutes, or look at the data")
    top = lambda records: max(records, key=lambda r: r.score, default=None)
    hand_made = top([r for r in kept.of("search") if r.member < generation and r.stop == plan.steps]) or top(
        [r for r in kept.of("search") if r.member < generation]
    )
    rivals = {"found": top(whole), "hand-made": hand_made, "random": top([r for r in whole if r.arm == "random"])}
    rivals = {name: r for name, r in rivals.items() if r is not None}
    say("comparing: " + "; ".join(f"{name} {r.genotype}" for name, r in rivals.items()))
    tested: dict[str, list[np.ndarray]] = {}
    for name, r in rivals.items():
        if r.genotype not in tested:
            tested[r.genotype] = [_final(directory, net, dataset, trainer, plan, r.genotype, key, s) for s in range(plan.seeds)]
            say(f"{name}: trained {plan.seeds} times on all {len(trainer.data.y)} examples")
    criterion = training.criterion(dataset.target)
    right = lambda outputs: np.asarray(criterion.score(jnp.asarray(outputs), dataset.test.y), np.float64)
    scores = {text: np.stack([right(o) for o in outputs]) for text, outputs in tested.items()}
    result: dict[str, Any] = {name: _report(dataset, r, tested[r.genotype]) for name, r in rivals.items()}
    if boosted is not None:
        result["gradient-boosting"] = _report_boosted(dataset, boosted)
    found = rivals["found"].genotype
    against = {name: difference(scores[found], scores[r.genotype]) for name, r in rivals.items() if name != "found"}
    beaten = [name for name, d in against.items() if d.verdict == "worse"]
    best = max(beaten, key=lambda name: scores[rivals[name].genotype].mean()) if beaten else "found"
    result["kept"], result["genotype"] = best, rivals[best].genotype
    result["against"] = {
        name: {**d._asdict(), "verdict": d.verdict, "same_network": rivals[name].genotype == found} for name, d in against.items()
    }
    if boosted is not None:
        d = difference(scores[found], np.repeat(right(boosted.outputs)[None], plan.seeds, 0))
        result["against"]["gradient-boosting"] = {**d._asdict(), "verdict": d.verdict, "same_network": False}
    result["small"] = _small(whole, rivals["found"])
    result["ensemble"] = _ensemble(directory, net, dataset, trainer, kept, whole)
    result["trials"] = {name: len(kept.of(name)) for name in ("search", "random")}
    result["waited_share"] = round(sum(r.waited for r in kept.records) / max(sum(r.seconds for r in kept.records), 1e-9), 4)
    result["verdict"] = verdict(result, criterion.name)
    result["temperature"] = _temperature(dataset, kept, rivals[best], plan)
    _keep(directory, net, dataset, space_name, rivals[best].genotype, result["temperature"])
    return result


def _report(dataset: Dataset, r: Record, outputs: list[np.ndarray]) -> dict:
    """A compared network: its tests and its costs."""
    costs = {"parameters": r.params, "multiply_adds": r.macs}
    return {"genotype": r.genotype, **_tests(dataset, outputs), **costs, "validation": r.score}


def _report_boosted(dataset: Dataset, boosted: Boosted) -> dict:
    of = {"settings": boosted.settings, "tried": boosted.tried, "seconds": boosted.seconds, "validation": boosted.validation}
    return {**_tests(dataset, [boosted.outputs]), **of}


def _tests(dataset: Dataset, outputs: list[np.ndarray]) -> dict:
    """The means over the final trainings, and the first metric of each of them."""
    each = [training.metrics(dataset.target, o, dataset.test.y) for o in outputs]
    means = {f"test_{name}": float(np.mean([m[name] for m in each])) for name in each[0]}
    first = next(iter(each[0]))
    return {**means, "test_examples": len(dataset.test.y), "of_each_seed": [m[first] for m in each]}


def _small(whole: list[Record], best: Record) -> dict:
    """The cheapest that is within a standard error of the best, by validation."""
    r = min((r for r in whole if r.score >= best.score - best.error), key=lambda r: (r.macs, -r.score))
    return {"genotype": r.genotype, "parameters": r.params, "multiply_adds": r.macs, "validation": r.score}


def _ensemble(
    directory: pathlib.Path, net: Blueprints, dataset: Dataset, trainer: Trainer, kept: Trials, whole: list[Record]
) -> dict:
    """The greedy ensemble of what was trained to the end, tested as its members were trained then: without the validation data."""
    criterion, target, y = training.criterion(dataset.target), dataset.target, jnp.asarray(dataset.valid.y)
    score = lambda outputs: np.asarray(criterion.score(jnp.asarray(outputs), y), np.float64)
    whole = sorted(whole, key=lambda r: -r.score)[:20]
    counts, validation = greedy(target, [kept.outputs(r) for r in whole], score)
    members = [(r, n) for r, n in zip(whole, counts, strict=True) if n]
    predicted = []
    for r, _ in members:
        variables = export.load_weights(directory / "members" / f"{r.arm}-{r.number}.npz")
        choice = net.space.choice(net.space.from_text(r.genotype))
        predicted.append(trainer.predict(choice, variables, dataset.test.x))
    together = training.metrics(target, averaged(target, predicted, [n for _, n in members]), dataset.test.y)
    return {
        "members": [{"genotype": r.genotype, "weight": n, "file": f"members/{r.arm}-{r.number}.npz"} for r, n in members],
        **{f"test_{name}": value for name, value in together.items()},
        "test_examples": len(dataset.test.y),
        "validation": validation,
        "parameters": sum(r.params for r, _ in members),
        "multiply_adds": sum(r.macs for r, _ in members),
    }


def verdict(result: dict, name: str) -> str:
    """In words: what the found network is against each rival, with intervals."""
    factor, unit = (100.0, "points of ") if name != "negative_squared_error" else (1.0, "")
    parts = []
    called = {
        "hand-made": "the best hand-made network",
        "random": f"the best of {result['trials']['random']} random networks",
        "gradient-boosting": "gradient boosting, tuned as long",
    }
    for rival, d in result["against"].items():
        what = called[rival]
        if d["same_network"]:
            parts.append(f"the found network is {what}")
            continue
        low, value, high = (f"{factor * d[k]:+.3g}" for k in ("low", "value", "high"))
        joined = {"better": "better than", "worse": "worse than", "level": "level with"}[d["verdict"]]
        parts.append(f"{joined} {what} ({value} {unit}{name.replace('_', ' ')}, 95 % {low} to {high})")
    if result["kept"] != "found":
        parts.append(f"so the {result['kept']} network is kept")
    if result["against"].get("gradient-boosting", {}).get("verdict") == "worse":
        settings = ", ".join(f"{name}={value}" for name, value in result["gradient-boosting"]["settings"].items())
        parts.append(f"on these data take scikit-learn's HistGradientBoosting ({settings})")
    return "; ".join(parts)


def _temperature(dataset: Dataset, kept: Trials, r: Record, plan: budget.Plan) -> float:
    """By validation data, of the member that was trained without them; 1 for one that was not trained to the end."""
    return temperature(kept.outputs(r), dataset.valid.y, dataset.target.kind) if r.stop == plan.steps else 1.0


def _keep(directory: pathlib.Path, net: Blueprints, dataset: Dataset, space: str, genotype: str, heat: float) -> None:
    """Weights, export and drawing of the network that is kept: of its first final training."""
    shutil.copyfile(directory / "finals" / f"{_short(genotype)}-0.npz", directory / "weights.npz")
    arch, variables = net.space.from_text(genotype), export.load_weights(directory / "weights.npz")
    module = net.build(net.space.choice(arch))
    export.export_network(directory, module, variables, dataset, space=space, genotype=genotype, temperature=heat)
    plot.save(plot.architecture(net.space, arch, title=dataset.name), directory / "architecture.svg")


def _short(genotype: str) -> str:
    """A name for files."""
    return hashlib.sha256(genotype.encode()).hexdigest()[:12]


def _final(directory, net, dataset, trainer, plan, genotype: str, key: Key, seed: int) -> np.ndarray:
    """Test outputs [n, K] of one final training, on train and valid; kept in finals/, and not trained again."""
    (directory / "finals").mkdir(exist_ok=True)
    where = directory / "finals" / f"{_short(genotype)}-{seed}"
    if where.with_suffix(".npy").exists():
        return np.load(where.with_suffix(".npy"))
    total = round(plan.steps * len(trainer.data.y) / trainer.data.train)
    choice = net.space.choice(net.space.from_text(genotype))
    k = jax.random.fold_in(key, seed)
    out = trainer.train((genotype, seed), k, choice, 0, total, total, on=dataset.test.x, whole=True)
    export.save_weights(where.with_suffix(".npz"), out.variables)
    part = where.with_suffix(".part.npy")
    np.save(part, out.outputs)
    part.replace(where.with_suffix(".npy"))  # whole, or not there
    return out.outputs
