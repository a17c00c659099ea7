"""What made it good, as a picture: the shares of the variance, and what the best decide for."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from jaxnas.analysis.importance import Importance, names, unique
from jaxnas.analysis.motifs import top_part
from jaxnas.plot.figure import COLOURS, empty_figure, plain, text_width
from jaxnas.spaces._space import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def importance(
    space: Space,
    shares: Importance,
    archs: ArrayLike,
    scores: ArrayLike,
    title: str | None = None,
    *,
    top: float = 0.1,
    most: int = 12,
) -> "Figure":
    """Bars of the largest shares, and beside them the part of the best architectures that decide for each value.

    Args:
        space: names the decisions and their values.
        shares: of `jaxnas.analysis.importance`; one decision alone in one colour, several together in another.
        archs: int[N, D], flat decisions.
        scores: [N], larger is better.
        title: default none.
        top: the part that counts as best.
        most: bars to draw.

    Raises:
        ValueError: for an empty history, or a part outside (0, 1).
    """
    archs, scores = unique(space, archs, scores)
    best = archs[top_part(scores, top)]
    free = np.flatnonzero(np.asarray(space.arity) > 1)
    label, D, A = [names(space)[d] for d in free], len(free), int(max(space.arity))
    found = np.full((D, A), np.nan)
    for row, d in enumerate(free):
        n = space.arity[d]
        found[row, :n] = np.bincount(best[:, d], minlength=n) / len(best)

    ranked = sorted(shares.shares, key=lambda s: shares.shares[s], reverse=True)[:most]
    largest = [s for s in ranked if s == ranked[0] or shares.shares[s] > 1e-3]
    bars = [", ".join(names(space)[d][0] for d in s) for s in largest]
    common = all(values == label[0][1] for _, values in label)  # one list of values for all: it goes below the map
    widest = lambda texts, size: max(text_width(text, size) for text in texts)
    cell = 0.62 if common else max(0.62, widest([v for _, values in label for v in values], 7) + 0.15)
    gap = widest([name for name, _ in label], 8) + 0.75
    left, map_at, map_wide = widest(bars, 8) + 0.3, widest(bars, 8) + 2.9 + gap, cell * A
    foot = max(0.6, 0.2 + 0.75 * widest(label[0][1], 8)) if common else 0.6
    bars_tall, map_tall = 0.24 * len(bars), 0.34 * D
    tall, head, width = max(bars_tall, map_tall), 0.75 if title else 0.4, map_at + map_wide + 0.8
    total = foot + tall + head
    figure = empty_figure(width, total, title)
    panel = lambda x, w, h: figure.add_axes((x / width, (foot + tall - h) / total, w / width, h / total))  # tops in line

    ax = panel(left, 2.6, bars_tall)
    colour = [COLOURS[0] if len(s) == 1 else COLOURS[1] for s in largest]
    percent, spread = (100 * np.asarray([of[s] for s in largest]) for of in (shares.shares, shares.spread))
    ax.barh(range(len(bars)), percent, xerr=spread if spread.any() else None, color=colour, height=0.7, error_kw={"lw": 0.8})
    ax.set_yticks(range(len(bars)), bars, parse_math=False)
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlim(0, None)
    ax.set_xlabel("share of the variance, %", fontsize=9)
    ax.set_title(f"decisions alone and together (R2 {shares.fit:.2f})", fontsize=9)
    plain(ax)
    ax.set_axisbelow(True)

    ax = panel(map_at, map_wide, map_tall)
    image = ax.imshow(100 * found, aspect="auto", cmap="Blues", vmin=0, vmax=100)
    for d, a in np.argwhere(np.isfinite(found)):
        value = "" if common else f"{label[d][1][a]}\n"
        ink = "white" if found[d, a] > 0.6 else "black"
        ax.text(a, d, f"{value}{100 * found[d, a]:.0f}", ha="center", va="center", fontsize=7, color=ink, parse_math=False)
    ax.set_yticks(range(D), [name for name, _ in label], parse_math=False)
    ax.set_xticks(range(A) if common else [], label[0][1] if common else [], rotation=45, ha="right", parse_math=False)
    ax.tick_params(labelsize=8, length=2)
    ax.set_title(f"decide for it, % of the best {len(best)} of {len(archs)}", fontsize=9)
    figure.colorbar(image, cax=panel(map_at + map_wide + 0.15, 0.14, map_tall)).ax.tick_params(labelsize=7)
    return figure
