"""The end of the main job: what is compared is trained again, on train and valid together, and tested once.

    found      the best of all by validation
    hand-made  the best of the hand-made networks, with its training
    random     the best of the random networks
    small      the cheapest within a standard error of the best
    ensemble   a greedy one of all that was trained to the end anyway

The relative improvement over random is that of Yang, Esperanca and Carlucci, NAS Evaluation is Frustratingly Hard, ICLR 2020,
arXiv:1912.12522; it is not to be read without the intervals.

If a hand-made or a random network is clearly better than the found one on the test data, it is kept, and the verdict says so.
"""

import hashlib
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import plot, training
from jaxnas.analysis.calibration import temperature
from jaxnas.analysis.paired import difference
from jaxnas.app import export
from jaxnas.app.main_job.arms import Record, Trials
from jaxnas.app.main_job.boosting import Boosted
from jaxnas.app.main_job.budget import Plan
from jaxnas.app.main_job.ensemble import averaged, greedy
from jaxnas.app.main_job.trainer import Trainer
from jaxnas.base import Key
from jaxnas.data.dataset import Dataset
from jaxnas.driver.errors import NoFiniteScore
from jaxnas.driver.files import set_aside
from jaxnas.nets.blueprints import Blueprints


class Searched(NamedTuple):
    """A run whose arms have ended."""

    directory: pathlib.Path
    dataset: Dataset
    trainer: Trainer
    kept: Trials
    plan: Plan
    space: str  # what it is called
    criterion: training.Criterion

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
        ValueError: where nothing was trained to the end.
        NoFiniteScore: where all that was has diverged.
    """
    dataset, kept, plan = run.dataset, run.kept, run.plan
    trained = [r for r in kept.records if r.stop == plan.steps]
    whole = [r for r in trained if np.isfinite(r.score)]
    if trained and not whole:
        raise NoFiniteScore(
            f"none of {len(trained)} networks that were trained to the end has a finite score, so there is no answer: look for bad "
            "examples"
        )
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
            tested[r.genotype] = [_final(run, r.genotype, key, s) for s in range(plan.seeds)]
            say(f"{name}: trained {plan.seeds} times on all {len(run.trainer.data.y)} examples")
    criterion = run.criterion
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
    if "random" in rivals and run.criterion.name != "negative_squared_error":
        least = scores[rivals["random"].genotype].mean()
        result["relative_improvement"] = float(scores[found].mean() / max(least, 1e-9) - 1)
    result["small"] = _small(whole, rivals["found"])
    result["ensemble"] = _ensemble(run, whole)
    result["trials"] = {name: len(kept.of(name)) for name in ("search", "random")}
    result["waited_share"] = round(sum(r.waited for r in kept.records) / max(sum(r.seconds for r in kept.records), 1e-9), 4)
    result["milliseconds"] = {name: _milliseconds(run, r.genotype) for name, r in rivals.items()}
    result["verdict"] = verdict(result, criterion.name)
    result["temperature"] = _temperature(run, rivals[best])
    _keep(run, rivals[best].genotype, result["temperature"])
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


def _ensemble(run: Searched, whole: list[Record]) -> dict:
    """The greedy ensemble of what was trained to the end, tested as its members were trained then: without the validation data."""
    dataset, target = run.dataset, run.dataset.target
    y = jnp.asarray(dataset.valid.y)
    score = lambda outputs: np.asarray(run.criterion.score(jnp.asarray(outputs), y), np.float64)
    whole = sorted(whole, key=lambda r: -r.score)[:20]
    counts, validation = greedy(target, [run.kept.outputs(r) for r in whole], score)
    members = [(r, n) for r, n in zip(whole, counts, strict=True) if n]
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
        "gradient-boosting": f"gradient boosting, the best of {result.get('gradient-boosting', {}).get('tried')} settings",
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
    said = "; ".join(parts)
    return said if said.startswith("the found network") else f"the found network is {said}"


def _milliseconds(run: Searched, genotype: str) -> float:
    """Of one example among many, here and now."""
    variables = export.load_weights(run.directory / "finals" / f"{short_name(genotype)}-0.npz")
    return round(run.trainer.milliseconds(run.net.space.choice(run.net.space.from_text(genotype)), variables), 5)


def _temperature(run: Searched, r: Record) -> float:
    """By validation data, of the member that was trained without them; 1 for one that was not trained to the end."""
    if r.stop < run.plan.steps:
        return 1.0
    return temperature(run.kept.outputs(r), run.dataset.valid.y, run.dataset.target.kind)


def _keep(run: Searched, genotype: str, heat: float) -> None:
    """Weights, export and drawing of the network that is kept: of its first final training."""
    where, space = run.directory, run.net.space
    shutil.copyfile(where / "finals" / f"{short_name(genotype)}-0.npz", where / "weights.npz")
    arch, variables = space.from_text(genotype), export.load_weights(where / "weights.npz")
    module = run.net.build(space.choice(arch))
    export.export_network(where, module, variables, run.dataset, space=run.space, genotype=genotype, temperature=heat)
    plot.save(plot.architecture(space, arch, title=run.dataset.name), where / "architecture.svg")


def short_name(genotype: str) -> str:
    """A name for the files of a genotype."""
    return hashlib.sha256(genotype.encode()).hexdigest()[:12]


def _final(run: Searched, genotype: str, key: Key, seed: int) -> np.ndarray:
    """Test outputs [n, K] of one final training, on train and valid; kept in finals/, and not trained again."""
    (run.directory / "finals").mkdir(exist_ok=True)
    where = run.directory / "finals" / f"{short_name(genotype)}-{seed}"
    if where.with_suffix(".npy").exists():
        try:
            export.load_weights(where.with_suffix(".npz"))
            return np.load(where.with_suffix(".npy"))
        except Exception:  # damage shows in many ways: ValueError, EOFError, BadZipFile, zlib.error, ...
            set_aside(where.with_suffix(".npy"), "or the .npz beside it is damaged: this training is done again")
    total = round(run.plan.steps * len(run.trainer.data.y) / run.trainer.data.train)
    choice = run.net.space.choice(run.net.space.from_text(genotype))
    k = jax.random.fold_in(key, seed)
    out = run.trainer.train((genotype, seed), k, choice, 0, total, total, on=run.dataset.test.x, whole=True)
    export.save_weights(where.with_suffix(".npz"), out.variables)
    part = where.with_suffix(".part.npy")
    np.save(part, out.outputs)
    part.replace(where.with_suffix(".npy"))  # whole, or not there
    return out.outputs
