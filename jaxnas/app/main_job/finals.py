"""The end of the main job: what is compared is trained again, on train and valid together, and tested once.

    found       the best of the search by validation, at the step where it was best
    hand-made   the best of the hand-made networks, with its training
    random      the best of the random networks, which had as much time as the search
    one-random  the first of the random networks                            (where there is time)
    small       the cheapest of all within a standard error of the best      (where there is time)
    ensemble    a greedy one of all that was trained anyway

What is kept is the best by validation, found or random; but where the test data say clearly that another is better, that one is
kept, and the verdict says so.

The relative improvement over a random network is that of Yang, Esperanca and Carlucci, NAS Evaluation is Frustratingly Hard, ICLR
2020, arXiv:1912.12522; it is not to be read without the intervals.
"""

import hashlib
import json
import math
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import plot, training
from jaxnas.analysis.calibration import temperature
from jaxnas.analysis.paired import Difference, difference
from jaxnas.app import export
from jaxnas.app.main_job.arms import Record, Trials
from jaxnas.app.main_job.boosting import Boosted
from jaxnas.app.main_job.budget import Plan
from jaxnas.app.main_job.ensemble import averaged, greedy
from jaxnas.app.main_job.trainer import Trainer
from jaxnas.base import Key
from jaxnas.data.dataset import Dataset
from jaxnas.driver.errors import NoFiniteScore
from jaxnas.driver.files import load_array, make_way, read_json, save_array, set_aside, write_whole
from jaxnas.nets.blueprints import Blueprints

MOST_SEEDS = 5
OPTIONAL = ("one-random", "small")


class Searched(NamedTuple):
    """A run whose arms have ended."""

    directory: pathlib.Path
    dataset: Dataset
    trainer: Trainer
    kept: Trials
    plan: Plan
    space: str  # what it is called
    criterion: training.Criterion
    left: Callable[[], float]  # seconds

    @property
    def net(self) -> Blueprints:
        return self.trainer.net


def compare(
    run: Searched, key: Key, generation: int, boosted: Boosted | None = None, say: Callable[[str], None] = lambda line: None
) -> dict:
    """Trains what is compared, tests it once, and keeps the best; returns what result.json holds.

    Args:
        run: what has been searched.
        key: of the final trainings.
        generation: so many members of the search, from the first on, are hand-made.
        boosted: a rival that is no network.
        say: takes a line for a person.

    Raises:
        ValueError: where nothing was trained.
        NoFiniteScore: where all that was has diverged, or was refused.
    """
    criterion, dataset = run.criterion, run.dataset
    fine = [r for r in run.kept.records if np.isfinite(r.score)]
    if run.kept.records and not fine:
        raise NoFiniteScore(
            f"none of {len(run.kept.records)} trainings has a finite score, so there is no answer: look for bad examples, or for a "
            "limit that no network keeps"
        )
    if not fine:
        raise ValueError("no network was trained: give more --minutes, or look at the data")
    rivals, seeds = _affordable(run, _rivals(fine, generation))
    say("comparing: " + "; ".join(f"{name} {r.genotype}" for name, r in rivals.items()))
    tested: dict[str, list[np.ndarray]] = {}
    for name, r in rivals.items():
        if _file(r) not in tested:
            tested[_file(r)] = [_final(run, r, key, s) for s in range(seeds)]
            say(f"{name}: trained {seeds} times on all {len(run.trainer.data.y)} examples")
    right = lambda outputs: np.asarray(criterion.score(jnp.asarray(outputs), dataset.test.y), np.float64)
    scores = {name: np.stack([right(o) for o in tested[_file(r)]]) for name, r in rivals.items()}
    result: dict[str, Any] = {name: _report(dataset, r, tested[_file(r)]) for name, r in rivals.items()}
    against = {name: difference(scores["found"], scores[name]) for name in rivals if name != "found"}
    if boosted is not None:
        result["gradient-boosting"] = _report_boosted(dataset, boosted)
        against["gradient-boosting"] = difference(scores["found"], np.repeat(right(boosted.outputs)[None], seeds, 0))
    same = lambda name: name in rivals and _file(rivals[name]) == _file(rivals["found"])
    result["against"] = {n: {**d._asdict(), "verdict": d.verdict, "same_network": same(n)} for n, d in against.items()}
    result["kept"] = best = _kept(rivals, scores, against)
    result["genotype"], result["steps"] = rivals[best].genotype, rivals[best].stop
    if "one-random" in rivals and criterion.name != "negative_squared_error":
        result["relative_improvement"] = float(scores["found"].mean() / max(scores["one-random"].mean(), 1e-9) - 1)
    result["ensemble"] = _ensemble(run, fine)
    result["trials"] = {name: len(run.kept.of(name)) for name in ("search", "random")}
    result["waited_share"] = round(sum(r.waited for r in fine) / max(sum(r.seconds for r in fine), 1e-9), 4)
    result["milliseconds"] = {name: _milliseconds(run, r) for name, r in rivals.items()}
    result["verdict"] = verdict(result, criterion.name)
    result["temperature"] = temperature(run.kept.outputs(rivals[best]), dataset.valid.y, dataset.target.kind)
    _keep(run, rivals[best], result["temperature"])
    return result


def _rivals(fine: list[Record], generation: int) -> dict[str, Record]:
    """name -> the trial; those that cost nothing to be without come last."""
    top = lambda records: max(records, key=lambda r: (r.score, r.stop), default=None)
    searched, random = [[r for r in fine if r.arm == arm] for arm in ("search", "random")]
    found = top(searched) or top(random)
    best = max(fine, key=lambda r: r.score)
    small = min((r for r in fine if r.score >= best.score - best.error), key=lambda r: (r.macs, -r.score))
    hand_made = top([r for r in searched if r.member < generation])
    first = random[0] if random else None
    each = {"found": found, "hand-made": hand_made, "random": top(random), "one-random": first, "small": small}
    return {name: r for name, r in each.items() if r is not None}


def _affordable(run: Searched, rivals: dict[str, Record]) -> tuple[dict[str, Record], int]:
    """(what is compared, the trainings of each), by the time that is left and the seconds that each one's steps have taken; kept in
    finals/compared.json, for a run that is cut."""
    path = run.directory / "finals" / "compared.json"
    if path.exists():
        try:
            kept = read_json(path)
            compared, seeds = {name: rivals[name] for name in kept["rivals"]}, int(kept["seeds"])
        except (ValueError, TypeError, KeyError, IsADirectoryError):
            compared, seeds = {}, 0
        if "found" in compared and 1 <= seeds <= MOST_SEEDS:
            return compared, seeds
        set_aside(path, "is damaged: what is compared is decided again")
    longer, left = len(run.trainer.data.y) / run.trainer.data.train, run.left()
    seconds = {_file(r): longer * r.stop * (r.seconds - r.waited) / (r.stop - r.start) for r in rivals.values()}
    must = {_file(r): seconds[_file(r)] for name, r in rivals.items() if name not in OPTIONAL}
    seeds = 2 if left == math.inf else int(np.clip(left / max(sum(seconds.values()), 1e-9), 2, MOST_SEEDS))
    seeds = seeds if seeds * sum(must.values()) <= left else 1
    compared, left = {}, left - seeds * sum(must.values())
    for name, r in rivals.items():
        more = 0.0 if _file(r) in must else seeds * seconds[_file(r)]
        if more <= max(left, 0.0):
            compared[name], left, must = r, left - more, must | {_file(r): 0.0}
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps({"seeds": seeds, "rivals": list(compared)}) + "\n")
    return compared, seeds


def _kept(rivals: dict[str, Record], scores: dict[str, np.ndarray], against: dict[str, Difference]) -> str:
    """Which of the networks the user leaves with."""
    worse = [name for name in rivals if name != "found" and against[name].verdict == "worse"]
    if worse:
        return max(worse, key=lambda name: scores[name].mean())
    by_validation = "random" in rivals and rivals["random"].score > rivals["found"].score
    return "random" if by_validation and against["random"].verdict != "better" else "found"


def _report(dataset: Dataset, r: Record, outputs: list[np.ndarray]) -> dict:
    """A compared network: its tests and its costs."""
    costs = {"parameters": r.params, "multiply_adds": r.macs}
    return {"genotype": r.genotype, "steps": r.stop, **_tests(dataset, outputs), **costs, "validation": r.score}


def _report_boosted(dataset: Dataset, boosted: Boosted) -> dict:
    of = {"settings": boosted.settings, "tried": boosted.tried, "seconds": boosted.seconds, "validation": boosted.validation}
    return {**_tests(dataset, [boosted.outputs]), **of}


def _tests(dataset: Dataset, outputs: list[np.ndarray]) -> dict:
    """The means over the final trainings, and the first metric of each of them."""
    each = [training.metrics(dataset.target, o, dataset.test.y) for o in outputs]
    means = {f"test_{name}": float(np.mean([m[name] for m in each])) for name in each[0]}
    first = next(iter(each[0]))
    return {**means, "test_examples": len(dataset.test.y), "of_each_seed": [m[first] for m in each]}


def _ensemble(run: Searched, fine: list[Record]) -> dict:
    """The greedy ensemble of what was trained, tested as its members were trained then: without the validation data."""
    dataset, target = run.dataset, run.dataset.target
    y = jnp.asarray(dataset.valid.y)
    score = lambda outputs: np.asarray(run.criterion.score(jnp.asarray(outputs), y), np.float64)
    best = sorted(fine, key=lambda r: -r.score)[:20]
    counts, validation = greedy(target, [run.kept.outputs(r) for r in best], score)
    members = [(r, n) for r, n in zip(best, counts, strict=True) if n]
    predicted = []
    for r, _ in members:
        variables = export.load_weights(run.directory / "members" / f"{r.arm}-{r.number}.npz")
        choice = run.net.space.choice(run.net.space.from_text(r.genotype))
        predicted.append(run.trainer.predict(choice, variables, dataset.test.x))
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
        "one-random": "one random network",
        "gradient-boosting": f"gradient boosting, the best of {result.get('gradient-boosting', {}).get('tried')} settings",
    }
    for rival, d in result["against"].items():
        if d["same_network"]:
            parts += [] if rival in ("small", "one-random") else [f"the found network is {called[rival]}"]
            continue
        what = called[rival] if rival != "small" else _cheaper(result)
        low, value, high = (f"{factor * d[k]:+.3g}" for k in ("low", "value", "high"))
        joined = {"better": "better than", "worse": "worse than", "level": "level with"}[d["verdict"]]
        parts.append(f"{joined} {what} ({value} {unit}{name.replace('_', ' ')}, 95 % {low} to {high})")
    if result["kept"] != "found":
        parts.append(f"so the {result['kept']} network is kept")
    if result["against"].get("gradient-boosting", {}).get("verdict") == "worse":
        settings = ", ".join(f"{name}={value}" for name, value in result["gradient-boosting"]["settings"].items())
        parts.append(f"on these data take scikit-learn's HistGradientBoosting ({settings})")
    said = "; ".join(parts)
    return said if said.startswith("the found network") else f"the found network is {said}"


def _cheaper(result: dict) -> str:
    times = result["found"]["multiply_adds"] / max(result["small"]["multiply_adds"], 1)
    return f"the small network, which has {times:.2g} times fewer multiply-adds"


def _milliseconds(run: Searched, r: Record) -> float:
    """Of one example among many, here and now."""
    variables = export.load_weights(run.directory / "finals" / f"{_file(r)}-0.npz")
    return round(run.trainer.milliseconds(run.net.space.choice(run.net.space.from_text(r.genotype)), variables), 5)


def _keep(run: Searched, r: Record, heat: float) -> None:
    """Weights, export and drawing of the network that is kept: of its first final training."""
    where, space = run.directory, run.net.space
    shutil.copyfile(where / "finals" / f"{_file(r)}-0.npz", where / "weights.npz")
    arch, variables = space.from_text(r.genotype), export.load_weights(where / "weights.npz")
    module = run.net.build(space.choice(arch))
    export.export_network(where, module, variables, run.dataset, space=run.space, genotype=r.genotype, temperature=heat)
    plot.save(plot.architecture(space, arch, title=run.dataset.name), where / "architecture.svg")


def file_name(genotype: str, steps: int) -> str:
    """How the files in finals/ begin, of a network that was trained for so many steps of the plan's."""
    return hashlib.sha256(f"{genotype} {steps}".encode()).hexdigest()[:12]


def _file(r: Record) -> str:
    return file_name(r.genotype, r.stop)


def _final(run: Searched, r: Record, key: Key, seed: int) -> np.ndarray:
    """Test outputs [n, K] of one final training, on train and valid; kept in finals/, and not trained again."""
    (run.directory / "finals").mkdir(exist_ok=True)
    where = run.directory / "finals" / f"{_file(r)}-{seed}"
    if where.with_suffix(".npy").exists():
        try:
            export.load_weights(where.with_suffix(".npz"))
            return load_array(where.with_suffix(".npy"))
        except Exception:  # damage shows in many ways: ValueError, EOFError, BadZipFile, zlib.error, ...
            set_aside(where.with_suffix(".npy"), "or the .npz beside it is damaged: this training is done again")
    longer = len(run.trainer.data.y) / run.trainer.data.train
    stop, total = round(r.stop * longer), round(run.plan.steps * longer)
    choice = run.net.space.choice(run.net.space.from_text(r.genotype))
    k, name = jax.random.fold_in(key, seed), (_file(r), seed)
    out = run.trainer.train(name, k, choice, 0, stop, total, on=run.dataset.test.x, whole=True)
    run.trainer.forget(name)
    make_way(where.parent, files=(f"{where.name}.npy", f"{where.name}.npz"))
    export.save_weights(where.with_suffix(".npz"), out.variables)
    save_array(where.with_suffix(".npy"), out.outputs)
    return out.outputs
