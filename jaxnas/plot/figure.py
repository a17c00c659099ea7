"""What the pictures share: a blank figure, colours, text widths, intervals.

Matplotlib is imported late and never asked for a window.  Lengths are in inches.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe-Ito without its yellow
STYLES = ("-", "--", "-.", ":")  # for black and white, and for an eighth line


def save(figure: "Figure", path: str | Path) -> None:
    """Writes `figure` to an .svg (the same bytes every time, its text as text) or a .png."""
    import matplotlib

    suffix = Path(path).suffix.lower()
    if suffix not in (".svg", ".png"):
        raise ValueError(f"{str(path)!r} must end in .svg or .png")
    with matplotlib.rc_context({"svg.hashsalt": "jaxnas", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if suffix == ".svg" else None)


def text_width(text: str, size: float) -> float:
    """The width of a text, in inches, at a size in points."""
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text.replace("$", "S"), size=size).get_extents().width / 72


def literal(texts: Iterable["Text"]) -> None:
    """Keeps texts as they are: no dollar sign begins mathematics."""
    for text in texts:
        text.set_parse_math(False)


def empty_figure(width: float, height: float, title: str | None, **options: Any) -> "Figure":
    """A figure with nothing but a title; `options` are those of `matplotlib.figure.Figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", **options)
    FigureCanvasAgg(figure)
    if title:
        at = {} if options else {"y": 1 - 0.12 / height, "va": "top"}
        literal([figure.suptitle(title, fontsize=12, **at)])
    return figure


def plain(ax: "Axes") -> None:
    """Takes the upper and the right spine off, and draws a faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, lw=0.6)
    ax.tick_params(labelsize=8)
