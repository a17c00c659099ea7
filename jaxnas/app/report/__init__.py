"""report.html: what a run has found and how sure that is, on one page that needs nothing else, for people to show each other.

    write(directory, dataset, result)

The answer comes first, then what was tried, where the kept network is wrong and how far its probabilities can be trusted, and last
how to use it and how to do it again.  A section without anything to say is left out.  Equal runs write equal bytes: there are no
dates.

Axes: N examples of the test part, K classes, labels or numbers.
"""

import dataclasses
import pathlib
import shlex
from typing import Any

import numpy as np

from jaxnas.app import progress
from jaxnas.app.config import SETTINGS, Config, load_config, named
from jaxnas.app.report import mistakes, page, tried
from jaxnas.app.report.page import escape, short
from jaxnas.app.tasks import score_of, without_retraining
from jaxnas.driver.files import load_array, read_json

WORDS = {"better": ("better", "good"), "worse": ("worse: a loss", "bad"), "level": ("level", "")}


def write(directory: str | pathlib.Path, dataset: Any, result: dict) -> None:
    """Writes report.html in a run directory that has its result.

    Args:
        directory: of the run.
        dataset: what it was run on.
        result: what result.json holds.
    """
    directory = pathlib.Path(directory)
    config = load_config(directory)
    trials = progress.trials(directory)
    plan = read_json(directory / "plan.json") if (directory / "plan.json").exists() else {}
    data = pathlib.Path(config.data).name or config.data
    outputs = _kept_outputs(directory, result)
    parts = [
        f"<header><h1>{escape(f'{data}: {config.strategy} in {config.space}')}</h1>",
        page.text(_sentence(result["verdict"]), "lead") + "</header>",
        _answer(result, dataset),
        page.section("What was tried", tried.charts(trials, plan, result), tried.table(trials)),
        tried.importance_of_decisions(config, dataset, trials, plan),
    ]
    if outputs is not None:
        parts += mistakes.sections(dataset, outputs / result.get("temperature", 1.0))
    parts += [_pictures(directory), _drawing(directory, result), _use(config, dataset, result)]
    whole = directory / "report.html.part"
    whole.write_text(page.page(f"{data}: {config.strategy} in {config.space}", parts), encoding="utf-8")
    whole.replace(directory / "report.html")


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _kept_outputs(directory: pathlib.Path, result: dict) -> np.ndarray | None:
    """Test outputs [N, K] of the network that is kept; None where a run has none, or they are not finite."""
    from jaxnas.app.main_job.finals import file_name

    path = directory / "finals" / f"{file_name(result.get('genotype') or '', result.get('steps', 0))}-0.npy"
    outputs = load_array(path).astype(np.float64) if path.exists() else np.full(1, np.nan)
    return outputs if np.isfinite(outputs).all() else None


# --- the answer -------------------------------------------------------------------------------------------------------


def _answer(result: dict, dataset: Any) -> str:
    """Every network that was tested, and the differences from the found one."""
    against = result.get("against", {})
    rivals = list(against) or ["random"]
    names = [name for name in ("found", *rivals, "ensemble") if isinstance(result.get(name), dict)]
    kind = dataset.target.kind if hasattr(dataset, "target") else ""
    factor, unit = (1.0, "squared error, standardised") if kind == "numbers" else (100.0, "points")
    score = score_of(result["found"])
    percent = score.name in ("test_accuracy", "test_label_accuracy")
    shown = lambda v: f"{100 * v:.2f}{page.SPACE}%" if percent else f"{v:.4g}"
    kept = result.get("kept", "found")
    rows = []
    for name in names:
        r, d = result[name], against.get(name)
        label = f"<strong>{escape(name)}</strong>" + (" (kept)" if name == kept else "")
        cells = [label, shown(r[score.name]) if score.name in r else "-"]
        if against:
            cells.append(_difference(d, factor))
        rows.append([*cells, short(r.get("parameters")), short(r.get("multiply_adds"))])
    head = ["network", score.name.removeprefix("test_").replace("_", " ")]
    head += [f"found minus it ({unit})"] if against else []
    caption = f"On {result['found'].get('test_examples', 0):,} test examples, looked at once."
    parts = [page.table([*head, "params", "mult-adds"], rows, caption=caption)]
    forest = _forest({n: d for n, d in against.items() if not d["same_network"]}, factor, unit)
    if forest:
        parts.append(page.figure(forest, "Differences with their 95 % intervals, over seeds and test examples; 0 is level."))
    seeds = {n: result[n].get("of_each_seed", []) for n in names}
    each = "; ".join(f"{n} {', '.join(map(shown, s))}" for n, s in seeds.items() if len(s) > 1)
    note = page.text(f"Each training from scratch, by seed: {each}.", "soft") if each else ""
    if "without_retraining" in result:
        note += page.text(f"The found network on the weights of the search: {without_retraining(result)}.", "soft")
    both = f'<div class="two"><div>{parts[0]}</div>{"".join(parts[1:])}</div>'
    return f'<section class="answer" aria-label="The answer">{both}{note}</section>'


def _difference(d: dict | None, factor: float) -> str:
    if d is None:
        return ""
    if d["same_network"]:
        return "the same network"
    words, kind = WORDS[d["verdict"]]
    low, value, high = (f"{factor * d[k]:+.3g}" for k in ("low", "value", "high"))
    return f'{value}<br><span class="n soft">{low} to {high}</span><br><span class="n {kind}">{words}</span>'


def _forest(against: dict[str, dict], factor: float, unit: str) -> str:
    """The interval of each difference, on one axis."""
    if not against:
        return ""
    left, right, row = 126.0, page.WIDTH - 14.0, 34.0
    low, high = page.around([0.0, *(factor * d[k] for d in against.values() for k in ("low", "high"))])
    at = lambda v: left + (v - low) / (high - low) * (right - left)
    bottom = 26 + row * len(against)
    parts = [page.label(left, 14, "← found is worse", kind="t"), page.label(right, 14, "found is better →", "end", "t")]
    for v in page.ticks(low, high):
        parts += [page.line(at(v), 22, at(v), bottom), page.label(at(v), bottom + 16, f"{v:+.4g}" if v else "0", "middle", "t")]
    parts += [page.line(at(0), 20, at(0), bottom, "z"), page.label(right, bottom + 33, unit, "end", "t")]
    for i, (name, d) in enumerate(against.items()):
        y = 26 + row * (i + 0.5)
        series = {"worse": 1, "better": 2}.get(d["verdict"], 0)
        a, b, c = (at(factor * d[k]) for k in ("low", "value", "high"))
        parts.append(page.label(4, y - 2, name if len(name) < 19 else name[:17] + "…"))
        parts.append(page.label(4, y + 13, WORDS[d["verdict"]][0], kind=WORDS[d["verdict"]][1] or "t"))
        parts += [page.path([(a, y), (c, y)], series, width=3), page.mark(series, b, y, f"{name}: {factor * d['value']:+.3g}")]
    words = "; ".join(f"{n}: found is {d['verdict']} by {factor * d['value']:+.3g} {unit}" for n, d in against.items())
    return page.svg(f"Found against its rivals. {words}", parts, height=bottom + 40)


# --- pictures, use ----------------------------------------------------------------------------------------------------


def _pictures(directory: pathlib.Path) -> str:
    """The curves of a supernet's run."""
    shown = (("curves.png", "Search and training, step by step"), ("gates.png", "The weight of each operation, step by step"))
    images = [
        f'<figure><img class="wide" alt="{words}" src="{page.data_uri("image/png", (directory / name).read_bytes())}"></figure>'
        for name, words in shown
        if (directory / name).exists()
    ]
    return page.section("How it went", *images)


def _drawing(directory: pathlib.Path, result: dict) -> str:
    path, genotype = directory / "architecture.svg", escape(result.get("genotype") or "")
    code = f"<pre>{genotype}</pre>" if genotype else ""
    if not path.exists():
        return page.section("The network", code)
    source = page.data_uri("image/svg+xml", path.read_bytes())
    image = f'<img class="drawing" alt="Drawing of the network: {genotype}" src="{source}">'
    return page.section("The network", f'<div class="scroll" tabindex="0" role="region" aria-label="Drawing">{image}</div>', code)


def command_line(config: Config) -> str:
    """The `jaxnas search` that makes such a run: every flag that is not the default."""
    plain, words = named(Config()), ["jaxnas", "search"]
    fields = [f.name for f in dataclasses.fields(Config) if f.name not in SETTINGS]
    for name in fields:
        value = getattr(config, name)
        usual = getattr(plain, name)
        moved = (config.space, config.strategy) != (plain.space, plain.strategy)
        if value != usual or (moved and name in ("space", "strategy")):
            words += _flag(name, value)
    for name, entry in SETTINGS.items():
        held, usual = getattr(config, name), entry(config).settings()
        for field in dataclasses.fields(usual):
            if held is not None and getattr(held, field.name) != getattr(usual, field.name):
                words += _flag(f"{name.removesuffix('_settings')}.{field.name}", getattr(held, field.name))
    return shlex.join(words)


def _flag(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else ("--no-" + flag[2:] if "." not in flag else flag.replace(".", ".no-", 1))]
    return [flag, *(map(str, value) if isinstance(value, list | tuple) else [str(value)])]


def _use(config: Config, dataset: Any, result: dict) -> str:
    import jax

    import jaxnas

    use = "jaxnas predict RUN FILE   # of new examples, on the command line; in Python:\n\nimport jaxnas as nas\n\n"
    use += 'nas.load("RUN").predict(x)'
    again = f"{command_line(config)}\njaxnas search --config RUN/config.json   # the same, from the file"
    notes = "".join(f"<li>{escape(note)}</li>" for note in getattr(dataset, "notes", ()))
    made = f"Made with jaxnas {jaxnas.__version__} and JAX {jax.__version__}."
    return page.section(
        "Use it, and do it again",
        page.text("RUN is the directory that holds this page."),
        f"<h3>Predict</h3><pre>{escape(use)}</pre><h3>Again</h3><pre>{escape(again)}</pre>",
        f"<h3>What was decided about the data</h3><ul>{notes}</ul>" if notes else "",
        page.text(made, "soft"),
    )
