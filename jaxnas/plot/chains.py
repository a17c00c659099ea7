"""Pictures of architectures that are no cells: their layers in order, as the space writes them."""

from typing import TYPE_CHECKING

from jaxnas.plot.figure import COLOURS, empty_figure, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEIGHT, GAP, ROW, SIZE = 0.34, 0.28, 0.6, 8  # inches, and points of the text


def layers(texts: list[str], title: str | None = None, width: float = 9.0) -> "Figure":
    """A box a layer, joined by arrows, as many to a row as fit; equal layers have equal colours.

    Raises:
        ValueError: for no layer.
    """
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    if not texts:
        raise ValueError("an architecture without layers cannot be drawn")
    sizes = [max(0.5, text_width(text, SIZE) + 0.24) for text in texts]
    rows: list[list[int]] = [[]]
    for i, size in enumerate(sizes):
        if rows[-1] and sum(sizes[j] + GAP for j in rows[-1]) + size > width - 0.4:
            rows.append([])
        rows[-1].append(i)
    head = 0.4 if title else 0.1
    height = head + ROW * len(rows) + 0.1
    figure = empty_figure(width, height, title)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    colour = {text: COLOURS[k % len(COLOURS)] for k, text in enumerate(dict.fromkeys(texts))}
    arrow = {"arrowstyle": "-|>,head_length=0.35,head_width=0.16", "mutation_scale": 10, "lw": 1, "color": "0.4"}
    for r, row in enumerate(rows):
        x, y = 0.2, height - head - ROW * (r + 0.5)
        for i in row:
            box = FancyBboxPatch((x, y - HEIGHT / 2), sizes[i], HEIGHT, boxstyle="round,pad=0,rounding_size=0.06")
            box.set(facecolor=(*_mixed(colour[texts[i]]), 1), edgecolor=colour[texts[i]], lw=1.2)
            ax.add_patch(box)
            ax.text(x + sizes[i] / 2, y, texts[i], ha="center", va="center", fontsize=SIZE, parse_math=False)
            x += sizes[i]
            if i + 1 < len(texts):  # to the next one, or to the next row
                ax.add_patch(FancyArrowPatch((x, y), (x + GAP, y), shrinkA=0, shrinkB=0, **arrow))
            x += GAP
    return figure


def _mixed(colour: str, share: float = 0.18) -> tuple[float, ...]:
    """A colour on white."""
    from matplotlib.colors import to_rgb

    return tuple(1 - share + share * c for c in to_rgb(colour))
