"""What a run has tried, as pieces of report.html: scores against costs and seconds, every trial, and what decided the scores."""

from typing import Any

import numpy as np

from jaxnas.app.config import Config
from jaxnas.app.report import page
from jaxnas.app.report.page import escape, short

MOST_TRIALS, FEWEST_FOR_IMPORTANCE = 100, 12


def charts(trials: list[dict], plan: dict, result: dict) -> str:
    """The Pareto picture and the best so far, of at least two trials; rows as `progress.trials` gives them."""
    trials = [t for t in trials if np.isfinite(t["score"])]
    if len(trials) < 2:
        return ""
    arms = list(dict.fromkeys(t["arm"] for t in trials))
    return f'<div class="two">{_pareto(trials, arms, plan, result)}{_best_so_far(trials, arms, plan)}</div>'


def _spread(scores: list[float]) -> tuple[float, float]:
    """The range of scores that is drawn: what is far below the middle is not."""
    low, middle, high = min(scores), float(np.median(scores)), max(scores)
    return page.around([max(low, high - 4 * (high - middle)) if high > middle else low, high])


def _pareto(trials: list[dict], arms: list[str], plan: dict, result: dict) -> str:
    """Validation score against multiply-adds."""
    steps = plan.get("steps", max(t["stop"] for t in trials))
    whole = [t for t in trials if t["stop"] >= steps]
    plane = page.Plane(page.around([max(t["macs"], 1) for t in trials], log=True), _spread([t["score"] for t in trials]), log=True)
    front, best = [], -np.inf
    for t in sorted(whole, key=lambda t: (t["macs"], -t["score"])):
        if t["score"] > best:
            front.append(plane.at(t["macs"], t["score"]))
            best = t["score"]
    parts = plane.frame("multiply-adds", "validation score")
    if front:
        stairs = [front[0]]
        for x, y in front[1:]:
            stairs += [(x, stairs[-1][1]), (x, y)]
        parts.append(page.path([*stairs, (page.WIDTH - page.RIGHT, stairs[-1][1])], 2, dash="5 4", width=1.5))
    for t in sorted(trials, key=lambda t: t["stop"] >= steps):
        hint = f"{t['arm']} {t['number']}: {t['score']:.4f}, {short(t['macs'])} multiply-adds, {t['stop']} steps: {t['genotype']}"
        parts.append(page.mark(arms.index(t["arm"]), *plane.at(t["macs"], t["score"]), hint, hollow=t["stop"] < steps))
    labels: dict[str, list[str]] = {}
    for name in dict.fromkeys(("found", "small", *result.get("against", {}))):
        genotype = result[name].get("genotype") if isinstance(result.get(name), dict) else None
        if genotype is not None and any(t["genotype"] == genotype for t in trials):
            labels.setdefault(genotype, []).append(name)
    points = []
    for genotype, names in labels.items():
        t = max((t for t in trials if t["genotype"] == genotype), key=lambda t: (t["stop"], t["score"]))
        points.append((*plane.at(t["macs"], t["score"]), ", ".join(names)))
    parts += [*page.named_points(points), *page.legend(arms)]
    caption = "All that was tried, by validation. Hollow: not trained to the end. Dashed: the best for so many multiply-adds."
    return page.figure(page.svg(f"Validation score against multiply-adds of {len(trials)} trials", parts), caption)


def _best_so_far(trials: list[dict], arms: list[str], plan: dict) -> str:
    """The best validation score of each arm against the seconds of that arm."""
    lines, start = {}, plan.get("began", 0.0)
    for arm in arms:
        of, best = [t for t in trials if t["arm"] == arm], -np.inf
        first, points = min(start, of[0]["at"]), []
        for t in of:
            best = max(best, t["score"])
            points.append((t["at"] - first, best))
        lines[arm], start = points, of[-1]["at"]
    ends = max(p[0] for points in lines.values() for p in points) or 1.0
    plane = page.Plane((0.0, 1.04 * ends), _spread([p[1] for points in lines.values() for p in points]))
    parts = plane.frame("seconds of the arm", "best validation score so far")
    for n, points in enumerate(lines.values()):
        stairs = [points[0]]
        for x, y in points[1:]:
            stairs += [(x, stairs[-1][1]), (x, y)]
        parts.append(page.path([plane.at(*p) for p in stairs], n))
        parts += [page.mark(n, *plane.at(x, y), f"{arms[n]}: {y:.4f} after {x:.0f} s", size=3) for x, y in points]
    ended = "; ".join(f"{arm}: {points[-1][1]:.4f} after {points[-1][0]:.0f} s" for arm, points in lines.items())
    caption = f"A point for each trial. {ended}."
    return page.figure(page.svg(f"Best validation score so far against seconds. {ended}", [*parts, *page.legend(arms)]), caption)


def table(trials: list[dict]) -> str:
    """The best trials, a row each."""
    if not trials:
        return ""
    best = sorted(trials, key=lambda t: (-t["score"], t["arm"], t["number"]))[:MOST_TRIALS]
    rows = []
    for t in best:
        score = f"{t['score']:.4f} ± {t['error']:.4f}" if np.isfinite(t["score"]) else "diverged"
        steps = f"{t['start']} to {t['stop']}" if t["start"] else f"{t['stop']}"
        counts = [(short(t[name]), t[name]) for name in ("params", "macs")]
        times = [(f"{t[name]:.1f}", t[name]) for name in ("seconds", "waited")]
        number = (str(t["number"]), t["number"])
        code = f"<code>{escape(t['genotype'])}</code>"
        rows.append([escape(t["arm"]), number, (score, t["score"]), (steps, t["stop"]), *counts, *times, code])
    head = ["arm", "no.", "validation score", "steps", "parameters", "multiply-adds", "seconds", "waited", "network"]
    which = f"The best {len(best)} of {len(trials)} trials" if len(best) < len(trials) else f"All {len(trials)} trials"
    caption = f"{which}. Waited: seconds of them for the compiler."
    return page.table(head, rows, caption=caption, left=(0, 8), sorts=True)


def importance_of_decisions(config: Config, dataset: Any, trials: list[dict], plan: dict) -> str:
    """Which decisions the scores of whole trainings depend on, where there are enough of them."""
    whole = [t for t in trials if t["stop"] == plan.get("steps") and np.isfinite(t["score"])]
    if len({t["genotype"] for t in whole}) < FEWEST_FOR_IMPORTANCE or len({t["score"] for t in whole}) < 2:
        return ""
    import jax

    from jaxnas.analysis import importance
    from jaxnas.app.search import make_space

    space = make_space(config.space, config.space_settings, dataset.image)
    if space.reals is not None:
        return ""
    try:
        archs = np.stack([np.asarray(space.flat(space.from_text(t["genotype"]))) for t in whole])
    except ValueError:  # a space of the run's own making
        return ""
    found = importance.from_history(jax.random.key(0), space, archs, [t["score"] for t in whole], order=1)
    label = importance.names(space)
    largest = sorted(found.shares, key=lambda s: -found.shares[s])[:8]
    rows = [
        [escape(label[s[0]][0]), f"{100 * found.shares[s]:.0f} %", f"{100 * found.spread[s]:.0f} %"]
        for s in largest
        if found.shares[s] > 0.005
    ]
    trust = "more than chance" if found.fit > 0 else "nothing: read no more into the table than that"
    words = (
        f"A random forest of the {len(whole)} whole trainings; what it predicts of trainings that it has not seen explains {trust} "
        f"(R2 {found.fit:.2f})."
    )
    caption = "Share of the variance that a decision explains alone; deviation between trees."
    shares = page.table(["decision", "share", "deviation"], rows, caption=caption)
    return page.section("Which decisions mattered", page.text(words), shares)
