"""Pictures of quantities: over time, and between groups.

Axes: T steps, S seeds.
"""

import math
import re
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from jaxnas.analysis.ranking import interval
from jaxnas.plot.figure import COLOURS, STYLES, empty_figure, literal, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLITS = ("train", "training", "valid", "validation", "val", "test", "search", "eval")  # not part of a quantity's name


def curves(series: Mapping[str, ArrayLike], title: str | None = None, xlabel: str = "step") -> "Figure":
    """Lines over time, a panel for each quantity: "train_loss" and "darts/valid_loss" share the panel "loss".

    Lines are moving averages over 1/25 of their length: of a run, over its raw values; of several, with a 95 % interval.

    Args:
        series: {name: float[T] or float[S, T]}; what is not finite is left out.
        title: default none.
        xlabel: what the last axis counts.

    Raises:
        ValueError: for nothing to draw, or other shapes.
    """
    from matplotlib.ticker import MaxNLocator

    panels: dict[str, dict] = {}
    for name, values in series.items():
        values = np.atleast_2d(np.asarray(values, float))
        if values.ndim > 2 or values.size == 0:
            raise ValueError(f"series[{name!r}] has shape {values.shape}: give [steps] or [seeds, steps]")
        words = [w for w in re.split(r"[_ .-]+", name.rsplit("/", 1)[-1]) if w not in SPLITS]
        panels.setdefault(" ".join(words) or name, {})[name] = values
    if not panels:
        raise ValueError("series is empty: give {name: values [steps] or [seeds, steps]}")
    columns = len(panels) if len(panels) < 4 else math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure = empty_figure(4.4 * columns, 2.9 * rows + (0.35 if title else 0), title, layout="constrained")
    for n, (quantity, lines) in enumerate(panels.items()):
        ax = figure.add_subplot(rows, columns, n + 1)
        for m, (name, values) in enumerate(lines.items()):
            x = np.flatnonzero(np.isfinite(values).any(0))
            values, window = np.where(np.isfinite(values), values, np.nan)[:, x], max(1, len(x) // 25)
            colour, note = COLOURS[m % len(COLOURS)], "" if len(x) else ": no finite values"
            if len(values) == 1 and window > 1:
                ax.plot(x, values[0], color=colour, alpha=0.3, lw=0.7)
            mean, half = interval(np.stack([_smooth(v, window) for v in values]))
            if len(values) > 1:
                note = note or f" ({len(values)} seeds)"
                ax.fill_between(x, mean - half, mean + half, color=colour, alpha=0.2, lw=0)
            style = {"color": colour, "linestyle": STYLES[m % len(STYLES)], "marker": "o" if len(x) == 1 else ""}
            ax.plot(x, mean, label=name + note, lw=1.6, **style)
        ax.set_title(quantity, fontsize=10, parse_math=False)
        ax.set_xlabel(xlabel, fontsize=9)
        longest = max(values.shape[-1] for values in lines.values())
        edge = max(0.5, 0.03 * longest)
        ax.set_xlim(-edge, longest - 1 + edge)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
        literal(ax.legend(fontsize=7, frameon=False, handlelength=3).get_texts())
        plain(ax)
    return figure


def compare(groups: Mapping[str, ArrayLike], title: str | None = None, ylabel: str = "accuracy") -> "Figure":
    """All values of each group and, beside them, their mean and its 95 % interval (Student t).

    Args:
        groups: {name: values}; what is not finite is left out and not counted.
        title: default none.
        ylabel: what the values are.

    Raises:
        ValueError: for no group, or one without a finite value.
    """
    finite = {name: np.ravel(np.asarray(v, float)) for name, v in groups.items()}
    finite = {name: v[np.isfinite(v)] for name, v in finite.items()}
    empty = [name for name, v in finite.items() if len(v) == 0]
    if empty or not finite:
        raise ValueError(f"nothing to compare in {empty or 'groups'}: give each group at least one finite value")
    figure = empty_figure(1.7 * len(finite) + 1.2, 3.6, title, layout="constrained")
    ax = figure.add_subplot()
    for n, v in enumerate(finite.values()):
        spread = 0.3 * ((np.arange(len(v)) * 0.618034 + 0.5) % 1 - 0.5)  # golden ratio: even, and the same every time
        ax.plot(n - 0.15 + spread, v, "o", color=COLOURS[n % len(COLOURS)], alpha=0.55, ms=4.5, mew=0)
        (mean,), (half,) = interval(v[:, None])
        ax.errorbar(n + 0.12, mean, yerr=half if len(v) > 1 else None, fmt="D", color="black", ms=5, capsize=4)
        ax.text(n + 0.2, mean, f"{mean:.4g}" + (f"\n± {half:.2g}" if len(v) > 1 else ""), fontsize=8, va="center")
    ticks = [f"{textwrap.fill(name, 16)}\nn = {len(v)}" for name, v in finite.items()]
    ax.set_xticks(range(len(ticks)), ticks, parse_math=False)
    ax.set_xlim(-0.5, len(ticks) - 0.4)
    ax.set_ylabel(ylabel, fontsize=9, parse_math=False)
    plain(ax)
    return figure


def _smooth(values, window):
    """The centred moving average without NaN; NaN where `values` is."""
    ok = np.isfinite(values)
    if window == 1 or not ok.any():
        return values
    total, n = (np.convolve(v, np.ones(window), "same") for v in (np.where(ok, values, 0), ok.astype(float)))
    return np.where(ok, total / np.maximum(n, 1), np.nan)


def regret(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    title: str | None = None,
    xlabel: str = "queries",
    ylabel: str = "regret",
) -> "Figure":
    """Mean regret of each algorithm with its 95 % interval, on a logarithmic scale.

    Args:
        curves: {algorithm: (x [Q], regrets [S, Q])}; NaN is left out.
        title: default none.
        xlabel, ylabel: what the axes are.

    Raises:
        ValueError: for nothing to draw.
    """
    if not curves:
        raise ValueError("nothing to draw: give {algorithm: (x [Q], regrets [seeds, Q])}")
    figure = empty_figure(6.4, 4.2, title, layout="constrained")
    ax = figure.add_subplot()
    for n, (name, (x, values)) in enumerate(curves.items()):
        mean, half = interval(np.atleast_2d(np.asarray(values, float)))
        colour, style = COLOURS[n % len(COLOURS)], STYLES[n // len(COLOURS) % len(STYLES)]
        ax.plot(x, mean, color=colour, linestyle=style, lw=1.6, label=name)
        ax.fill_between(x, mean - half, mean + half, color=colour, alpha=0.2, lw=0)
    ax.set_yscale("log")
    ax.set_xlabel(xlabel, fontsize=9)
    ax.set_ylabel(ylabel, fontsize=9)
    literal(ax.legend(fontsize=8, frameon=False).get_texts())
    plain(ax)
    ax.grid(which="minor", alpha=0.12, lw=0.4)
    return figure


def scatter(
    scores: ArrayLike | dict[str, ArrayLike],
    truth: ArrayLike,
    title: str | None = None,
    xlabel: str = "score",
    ylabel: str = "accuracy",
) -> "Figure":
    """What an estimate says of each architecture against what it is worth, with Kendall's tau.

    Args:
        scores: [N], or {name: [N]}; an architecture without a finite score is left out.
        truth: [N].
        title: default none.
        xlabel, ylabel: what the axes are.

    Raises:
        ValueError: for other shapes, or fewer than two architectures with a score.
    """
    from jaxnas.analysis.ranking import kendall

    groups = scores if isinstance(scores, dict) else {"": scores}
    figure = empty_figure(5.2, 4.2, title, layout="constrained")
    ax = figure.add_subplot()
    truth = np.asarray(truth, float)
    for n, (name, values) in enumerate(groups.items()):
        values = np.asarray(values, float)
        if values.shape != truth.shape or values.ndim != 1:
            raise ValueError(f"give one score and one truth an architecture; got shapes {values.shape} and {truth.shape}")
        seen = np.isfinite(values) & np.isfinite(truth)
        tau = kendall(values[seen], truth[seen])
        label = f"{name + ', ' if name else ''}tau = {tau:.2f}"
        ax.plot(values[seen], truth[seen], "o", color=COLOURS[n % len(COLOURS)], alpha=0.6, ms=5, mew=0, label=label)
    ax.set_xlabel(xlabel, fontsize=9, parse_math=False)
    ax.set_ylabel(ylabel, fontsize=9, parse_math=False)
    literal(ax.legend(fontsize=8, frameon=False).get_texts())
    plain(ax)
    return figure
