"""What the kept network's predictions of the test part show, as sections of report.html: confusions, mistakes, calibration.

Reference: Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017 (reliability, ECE).

Axes: N examples of the test part, K classes, labels or numbers.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxnas.analysis.calibration import reliability
from jaxnas.app.report import page
from jaxnas.app.report.page import escape
from jaxnas.data.target import Target

WORST, MOST_CLASSES, MOST_POINTS, MOST_NUMBERS, BINS = 16, 30, 1500, 4, 15


class Mistake(NamedTuple):
    example: int  # its number in the test part
    truth: str
    predicted: str


def sections(dataset: Any, outputs: np.ndarray) -> list[str]:
    """Sections about the outputs [N, K] of one network for `dataset.test`; logits, or standardised numbers."""
    target, y = dataset.target, np.asarray(dataset.test.y)
    made = {"classes": _classes, "labels": _labels, "numbers": _numbers}[target.kind]
    first, mistakes, last = made(target, outputs, y)
    return [first, _mistakes(dataset, mistakes), last]


def _mistakes(dataset: Any, mistakes: list[Mistake]) -> str:
    """The worst of them: pictures of images, rows of anything else."""
    if not mistakes:
        return ""
    count = f"The {len(mistakes)} mistakes" if len(mistakes) > 1 else "The mistake"
    surest = "with the largest error" if dataset.target.kind == "numbers" else "of which the network was surest"
    where = f"{count} {surest}. Numbers count the examples of the test part, from 0."
    pixels = _pixels(dataset, [m.example for m in mistakes])
    if pixels is None:
        rows = [[(str(m.example), m.example), escape(m.truth), escape(m.predicted)] for m in mistakes]
        return page.section("The worst mistakes", page.table(["example", "true", "predicted"], rows, caption=where, left=(1, 2)))
    tiles = []
    for m, image in zip(mistakes, pixels, strict=True):
        words = f"<strong>{escape(m.predicted)}</strong><br>is {escape(m.truth)}<br>no. {m.example}"
        alt = escape(f"Test example {m.example}: {m.truth}, taken for {m.predicted}")
        tiles.append(f'<figure><img alt="{alt}" src="{page.picture(image)}"><figcaption>{words}</figcaption></figure>')
    return page.section("The worst mistakes", page.text(where), f'<div class="tiles">{"".join(tiles)}</div>')


def _pixels(dataset: Any, examples: list[int]) -> np.ndarray | None:
    """Images [n, H, W, C] with values in 0 to 1, as they were before they were normalised; None where examples are no images."""
    x, inputs = np.asarray(dataset.test.x[np.asarray(examples)], np.float64), dataset.inputs
    if x.ndim != 4 or (inputs is not None and inputs.kind != "image"):
        return None
    if inputs is not None:
        x = x * np.asarray(inputs.std or (1.0,)) + np.asarray(inputs.mean or (0.0,))
    if inputs is None or inputs.divide == 1.0:  # numbers of any range
        low, high = x.min(), x.max()
        if low < -0.01 or high > 1.01:
            x = (x - low) / max(high - low, 1e-12)
    return np.clip(x, 0, 1)


# --- classes ----------------------------------------------------------------------------------------------------------


def _classes(target: Target, logits: np.ndarray, y: np.ndarray) -> tuple[str, list[Mistake], str]:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    guess, sure, K = p.argmax(-1), p.max(-1), target.outputs
    right = guess == y
    counts = np.bincount(y * K + guess, minlength=K * K).reshape(K, K)  # [true, predicted]
    confusions = _confusions(counts, target.names) if K <= MOST_CLASSES else ""
    worst = [int(i) for i in np.argsort(-np.where(right, -1.0, sure), kind="stable")[:WORST] if not right[i]]
    mistakes = [Mistake(i, target.names[y[i]], f"{target.names[guess[i]]}, {100 * sure[i]:.1f} %") for i in worst]
    lost = [
        f"{target.names[t]} for {target.names[g]} ({counts[t, g]} of {counts[t].sum()})"
        for t, g in sorted(np.argwhere(counts * (1 - np.eye(K)) > 0).tolist(), key=lambda at: (-counts[at[0], at[1]], at))[:3]
    ]
    words = (
        f"By the network whose weights are kept, the first of its final trainings: {right.sum()} of {len(y)} test examples right. "
        + (f"Most often it takes {'; '.join(lost)}." if lost else "No mistake.")
    )
    return page.section("What is taken for what", page.text(words), confusions), mistakes, _reliability(sure, right)


def _confusions(counts: np.ndarray, names: tuple[str, ...]) -> str:
    """A matrix of true against predicted classes."""
    K, clip = len(names), lambda name: name if len(name) <= 14 else name[:13] + "…"
    shown = [clip(n) for n in names]
    left = 12 + 7.2 * max(map(len, shown))
    cell = max(14.0, min(44.0, (page.WIDTH - left - 8) / K))
    top = 16 + (7.2 * max(map(len, shown)) if max(map(len, shown)) > 2 else 14)
    parts = []
    for i, name in enumerate(shown):
        x, y = left + cell * (i + 0.5), top + cell * (i + 0.5) + 4
        parts.append(page.label(left - 6, y, name, "end", "t"))
        if max(map(len, shown)) > 2:
            parts.append(f'<text transform="translate({x + 4:.1f} {top - 6:.1f}) rotate(-90)" class="t">{escape(name)}</text>')
        else:
            parts.append(page.label(x, top - 6, name, "middle", "t"))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for t in range(K):
        for g in range(K):
            x, y, n = left + cell * g, top + cell * t, counts[t, g]
            hint = escape(f"{n} of {counts[t].sum()} {names[t]} are taken for {names[g]}")
            kind, strength = ("s0" if t == g else "s1"), 0.06 + 0.94 * share[t, g] if n else 0.03
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell - 1:.1f}" height="{cell - 1:.1f}" fill="currentColor" '
                f'fill-opacity="{strength:.2f}" class="{kind}"><title>{hint}</title></rect>'
            )
            if n and cell >= 20:
                style = ' style="fill:var(--on)"' if strength > 0.55 else ""
                at, size = f'x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}"', min(12.0, 1.6 * (cell - 4) / len(str(n)))
                parts.append(f'<text {at} text-anchor="middle" font-size="{size:.1f}"{style}>{n}</text>')
    words = f"Confusion matrix of {K} classes, {int(np.trace(counts))} of {int(counts.sum())} right"
    drawing = page.svg(words, parts, top + cell * K + 4, max(page.WIDTH, left + cell * K + 8))
    caption = "Rows: the true class; columns: what was predicted. Blue is right; the stronger, the larger its part of the row."
    return page.figure(drawing, caption)


# --- labels -----------------------------------------------------------------------------------------------------------


def _labels(target: Target, logits: np.ndarray, y: np.ndarray) -> tuple[str, list[Mistake], str]:
    p, truth = 1 / (1 + np.exp(-np.clip(logits, -500, 500))), y > 0.5
    guess = logits > 0
    rows = []
    for k, name in enumerate(target.names[:MOST_CLASSES]):
        hit, said, there = (int(a.sum()) for a in (guess[:, k] & truth[:, k], guess[:, k], truth[:, k]))
        shares = [f"{100 * hit / n:.0f} %" if n else "-" for n in (said, there)]
        rows.append([escape(name), (str(there), there), (str(said), said), *shares])
    caption = "Each label: on how many test examples it is set, on how many it was predicted."
    table = page.table(["label", "set", "predicted", "precision", "recall"], rows, caption=caption)
    wrong = np.where(guess == truth, 0.0, np.maximum(p, 1 - p)).max(-1)  # [N]: how sure of its worst label
    mistakes = []
    for i in map(int, np.argsort(-wrong, kind="stable")[:WORST]):
        if wrong[i] > 0:
            k = int(np.argmax(np.where(guess[i] == truth[i], 0.0, np.abs(p[i] - 0.5))))
            said = lambda yes, k=k: target.names[k] if yes else f"not {target.names[k]}"
            mistakes.append(Mistake(i, said(truth[i, k]), f"{said(guess[i, k])}, {100 * wrong[i]:.1f} %"))
    return page.section("Label by label", table), mistakes, _reliability(np.maximum(p, 1 - p).ravel(), (guess == truth).ravel())


# --- numbers ----------------------------------------------------------------------------------------------------------


def _numbers(target: Target, outputs: np.ndarray, y: np.ndarray) -> tuple[str, list[Mistake], str]:
    std, mean = (np.asarray(a or (fill,) * target.outputs) for a, fill in ((target.std, 1.0), (target.mean, 0.0)))
    predicted, truth = outputs * std + mean, y * std + mean
    some = np.arange(0, len(y), max(1, -(-len(y) // MOST_POINTS)))
    charts = []
    for k, name in enumerate(target.names[:MOST_NUMBERS]):
        low, high = page.around([*truth[:, k], *np.percentile(predicted[:, k], [1, 99])])
        plane = page.Plane((low, high), (low, high))
        parts = [*plane.frame(f"true {name}", f"predicted {name}"), page.line(*plane.at(low, low), *plane.at(high, high), "z")]
        for i in some:
            t, p = truth[i, k], predicted[i, k]
            parts.append(page.mark(0, *plane.at(t, p), f"no. {i}: {t:.4g}, predicted {p:.4g}", size=2))
        off = float(np.sqrt(np.mean((predicted[:, k] - truth[:, k]) ** 2)))
        words = f"Predicted {name} against the true one; on the line they are equal. RMSE {off:.4g}."
        charts.append(page.figure(page.svg(words, parts), words))
    far = np.abs(outputs - y).max(-1)  # in standard deviations
    mistakes = []
    for i in map(int, np.argsort(-far, kind="stable")[:WORST]):
        k = int(np.abs(outputs[i] - y[i]).argmax())
        name = f"{target.names[k]} " if target.outputs > 1 else ""
        off = predicted[i, k] - truth[i, k]
        mistakes.append(Mistake(i, f"{name}{truth[i, k]:.4g}", f"{predicted[i, k]:.4g} ({off:+.4g})"))
    return page.section("Predicted against true", f'<div class="two">{"".join(charts)}</div>'), mistakes, ""


# --- calibration ------------------------------------------------------------------------------------------------------


def _reliability(sure: np.ndarray, right: np.ndarray) -> str:
    """How often the network is right where it is so sure."""
    bins = reliability(sure, right, BINS)
    plane = page.Plane((0.0, 1.0), (0.0, 1.0))
    parts = plane.frame("confidence", "share that is right")
    for b in np.flatnonzero(bins.share):
        (x0, y0), (x1, y1) = plane.at(b / BINS, bins.right[b]), plane.at((b + 1) / BINS, 0.0)
        hint = escape(f"{100 * bins.share[b]:.1f} % of the predictions, {bins.sure[b]:.3f} sure, {bins.right[b]:.3f} right")
        parts.append(
            f'<rect x="{x0 + 1:.1f}" y="{y0:.1f}" width="{x1 - x0 - 2:.1f}" height="{max(y1 - y0, 1):.1f}" fill="currentColor" '
            f'fill-opacity="{0.2 + 0.8 * bins.share[b] / bins.share.max():.2f}" class="s0"><title>{hint}</title></rect>'
        )
    parts.append(page.line(*plane.at(0, 0), *plane.at(1, 1), "z"))
    gap = sure.mean() - right.mean()
    how = "too sure" if gap > 0.01 else "not sure enough" if gap < -0.01 else "about as sure as it is right"
    words = (
        f"Expected calibration error {100 * bins.error:.1f} % ({BINS} bins): on average the network is {100 * sure.mean():.1f} % "
        f"sure and {100 * right.mean():.1f} % right, so it is {how}."
    )
    caption = "Bars should end on the line: below it the network is too sure. The stronger the colour, the more predictions."
    return page.section("How far its probabilities can be trusted", page.text(words), page.figure(page.svg(words, parts), caption))
