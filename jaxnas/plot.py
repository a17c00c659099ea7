"""Pictures of cells, of architecture weights and of training: functions that return a matplotlib Figure.

Matplotlib is imported late and never asked for a window.  Lengths are in inches.  Nodes have the names of their papers:
0 (the input) .. n with one input; c_{k-2}, c_{k-1}, 0 .. n-1 with two.

Axes: T steps, E edges, O operations, S seeds.
"""

import math
import re
import textwrap
from pathlib import Path

import numpy as np

from jaxnas.spaces.cell import CellSpec

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe-Ito without its yellow
STYLES = ("-", "--", "-.", ":")  # for black and white, and for an eighth operation
SPLITS = ("train", "training", "valid", "validation", "val", "test", "search", "eval")  # not part of a quantity's name
HEIGHT, LANE, BEND, PORT = 0.42, 0.3, 0.24, 0.11  # of a node; between arcs; of an arc's shoulder; between arrow heads


def save(figure, path) -> None:
    """Writes `figure` to an .svg (the same bytes every time, its text as text) or a .png."""
    import matplotlib

    suffix = Path(path).suffix.lower()
    if suffix not in (".svg", ".png"):
        raise ValueError(f"{str(path)!r} must end in .svg or .png")
    with matplotlib.rc_context({"svg.hashsalt": "jaxnas", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if suffix == ".svg" else None)


def architecture(space, arch, title: str | None = None):
    """Draws each cell of `arch`, without the edges on `none`.

    With one input the last node is the cell's output; with more, all computed nodes are concatenated.

    Raises:
        ValueError: for a space without a `CellSpec`, or more than one architecture.
    """
    from matplotlib.lines import Line2D

    spec = getattr(space, "spec", None)
    if not isinstance(spec, CellSpec):
        raise ValueError("only cells can be drawn: give a space whose `spec` is a CellSpec, e.g. darts() or nasbench201()")
    gates = space.gates(arch)
    cells = []  # (kind, {(source, destination): op}, {(source, destination): (side, lane)})
    for kind in spec.kinds or ("",):
        rows = np.asarray((gates[kind] if isinstance(gates, dict) else getattr(gates, kind)) if kind else gates)
        if rows.shape != (len(spec.edges), len(spec.ops)):
            raise ValueError(f"gates of shape {rows.shape} are not those of one architecture: pick one from the batch")
        chosen = zip(spec.edges, rows.argmax(-1), rows.max(-1) > 0, strict=True)
        edges = {(j, spec.inputs + i): int(k) for (j, i), k, on in chosen if on and spec.ops[k] != "none"}
        cells.append((kind, edges, _lanes(edges)))

    drawn = sorted({k for _, edges, _ in cells for k in edges.values()})
    text = max([_width(spec.ops[k], 8) for k in drawn], default=0.5)
    most = max([abs(r) for *_, sides in cells for r in _ports(sides).values()], default=0)
    node = max(0.7, 2 * PORT * (most + 1))
    pitch = node + text + 2 * BEND  # an arc's label fits between the shoulders of all arcs
    span = pitch * (spec.inputs + spec.nodes - (spec.inputs == 1))
    width = max(4.5, span + node + 0.4)
    columns = max(1, min(len(drawn), int(width / (text + 0.7))))
    legend, head = 0.2 + 0.2 * math.ceil(len(drawn) / columns), 0.35 if title else 0.0
    extent = []  # how far each cell reaches up and down
    for *_, sides in cells:
        reach = {s: HEIGHT / 2 + LANE * max([n for t, n in sides.values() if t == s], default=0) for s in (1, -1)}
        extent.append((reach[1] + 0.5, reach[-1] + (LANE if spec.inputs > 1 else 0) + 0.2))
    total = head + sum(map(sum, extent)) + legend
    figure, top = _figure(width, total, title), total - head
    for (kind, edges, sides), (up, down) in zip(cells, extent, strict=True):
        ax = figure.add_axes((0, (top - up - down) / total, 1, (up + down) / total))
        ax.set(xlim=((span - width) / 2, (span + width) / 2), ylim=(-down, up))
        ax.axis("off")
        _cell(ax, spec, kind, edges, sides, node, pitch)
        top -= up + down
    if drawn:
        handles = [Line2D([], [], lw=2, label=spec.ops[k], **_style(spec, k)) for k in drawn]
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.1 / total), "borderaxespad": 0}
        _literal(figure.legend(handles=handles, ncols=columns, frameon=False, fontsize=8, **place).get_texts())
    return figure


def _lanes(edges) -> dict:
    """{(a, b): (side, lane)}: lane 0 is the straight line to the next node; arcs that overlap have different lanes."""
    sides = {}
    for a, b in sorted(edges, key=lambda e: (e[1] - e[0], e)):
        cost = {}
        for side in (1, -1):
            arcs = [(c, d, n) for (c, d), (s, n) in sides.items() if n and s == side]
            near = [(c, d, n) for c, d, n in arcs if a < d and c < b]
            crossings = sum(c < a < d < b or a < c < b < d for c, d, _ in near)
            cost[side] = (crossings, 1 + max([n for *_, n in near], default=0), len(arcs))
        side = min(cost, key=cost.get)
        sides[a, b] = (1, 0) if b - a == 1 else (side, cost[side][1])
    return sides


def _ports(sides) -> dict:
    """{(node, arc): where it leaves (1, 2, ..) or enters (-1, ..)}; a higher lane is nearer the middle: no crossings."""
    ports = {}
    for arc, (side, lane) in sides.items():
        for end, sign in ((0, 1), (1, -1)):
            higher = [e for e, (s, n) in sides.items() if e[end] == arc[end] and s == side and n > lane]
            ports[arc[end], arc] = sign * (1 + len(higher)) if lane else 0
    return ports


def _cell(ax, spec, kind, edges, sides, node, pitch):
    """One cell: nodes on a line, an edge to the next node straight, others above and below on lanes of their own."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Curve

    def line(points, codes, head=True, **style):
        arrow = {"arrowstyle": "-|>,head_length=0.45,head_width=0.2" if head else "-", "mutation_scale": 12, "fill": head}
        codes = [getattr(Curve, {"M": "MOVETO", "L": "LINETO", "Q": "CURVE3"}[c]) for c in codes]
        ax.add_patch(FancyArrowPatch(path=Curve(points, codes), shrinkA=0, shrinkB=0, zorder=1, **arrow, **style))

    count, concat, port = spec.inputs + spec.nodes, spec.inputs > 1, _ports(sides)
    straight = lambda a: [(a * pitch + node / 2, 0), ((a + 1) * pitch - node / 2, 0)]
    live = set(range(spec.inputs))
    for (a, b), k in edges.items():  # by destination: what a source depends on is settled
        side, lane = sides[a, b]
        y, base = side * (HEIGHT / 2 + LANE * lane) if lane else 0, side * HEIGHT / 2
        xa, xb = (n * pitch + PORT * port[n, (a, b)] for n in (a, b))
        arc = [(xa, base), (xa, y), (xa + BEND, y), (xb - BEND, y), (xb, y), (xb, base)]
        style = {"lw": 1.6, "gid": f"arrow{kind}-{a}-{b}"} | _style(spec, k)
        line(arc if lane else straight(a), "MQQLQQ" if lane else "ML", **style)
        x = ((a + b - 1) // 2 + 0.5) * pitch  # between two nodes, where no arc rises or falls
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": style["color"], "lw": 0.8}
        where = {"ha": "center", "va": "center_baseline", "zorder": 3, "bbox": box}
        ax.text(x, y, spec.ops[k], fontsize=8, gid=f"op{kind}-{a}-{b}", parse_math=False, **where)
        live |= {b} if a in live else set()
    if concat:  # one grey bus below
        grey, y, end = {"color": "0.5", "linestyle": "--", "lw": 1.2}, ax.get_ylim()[0] + 0.2, count * pitch
        for n in range(spec.inputs, count - 1):
            line([(n * pitch, -HEIGHT / 2), (n * pitch, y)], "ML", head=False, **grey)
        if spec.nodes > 1:
            line([(spec.inputs * pitch, y), (end - BEND, y), (end, y), (end, -HEIGHT / 2)], "MLQQ", **grey)
        line(straight(count - 1), "ML", **grey)
    names = [_name(spec, n) for n in range(count)]
    names = [*names, "concat"] if concat else [names[0] + "\ninput", *names[1:-1], names[-1] + "\noutput"]
    for n, name in enumerate(names):
        face = "#DCE9F5" if n < spec.inputs else "0.9" if n == len(names) - 1 else "white"
        box = {"boxstyle": "round,pad=0,rounding_size=0.08", "facecolor": face, "edgecolor": "black", "zorder": 2}
        ax.add_patch(FancyBboxPatch((n * pitch - node / 2, -HEIGHT / 2), node, HEIGHT, gid=f"node{kind}-{n}", **box))
        ax.text(n * pitch, 0, name, ha="center", va="center", fontsize=9, linespacing=1, zorder=4)
    found = any(n in live for n in range(spec.inputs, count)) if concat else count - 1 in live
    left, top, heading = ax.get_xlim()[0] + 0.2, ax.get_ylim()[1] - 0.1, f"{kind} cell".strip()
    ax.text(left, top, heading, va="top", weight="bold", parse_math=False)
    if not found:
        note = "no path: the output does not depend on the input"
        ax.text(left + _width(heading, 10) + 0.4, top, note, va="top", color=COLOURS[1])


def alphas(history: dict, spec: CellSpec, title: str | None = None):
    """Heat maps of the architecture weights over time: a panel for each edge, a row of panels for each computed node.

    Args:
        history: {kind, or "" where there is one: probabilities float[T, E, O]}.
        spec: names the edges and operations.
        title: default none.

    Raises:
        ValueError: for other shapes, or values that are not probabilities.
    """
    from matplotlib.colors import PowerNorm

    history = {kind: np.asarray(p, float) for kind, p in history.items()}
    if not history:
        raise ValueError("history is empty: give {kind: probabilities [steps, edges, operations]}")
    shape, ops = (len(spec.edges), len(spec.ops)), range(len(spec.ops))
    for kind, p in history.items():
        if p.ndim != 3 or p.shape[1:] != shape or len(p) == 0:
            raise ValueError(f"history[{kind!r}] has shape {p.shape}: give [steps, {shape[0]} edges, {shape[1]} ops]")
        if (p < -1e-3).any() or (p > 1.001).any():
            raise ValueError(f"history[{kind!r}] is not made of probabilities: apply jax.nn.softmax to logits")
    w, h, gap, right = 1.5, 0.125 * len(ops), 0.2, 0.95
    left, row, head = max(_width(name, 7) for name in spec.ops) + 0.25, h + 0.45, 0.45 if title else 0.15
    block = row * spec.nodes + 0.3
    width = left + (w + gap) * max(spec.inputs + spec.nodes - 1, 2) + right
    total = head + block * len(history)
    figure = _figure(width, total, title)
    panel = lambda x, y, w, h: figure.add_axes((x / width, y / total, w / width, h / total), facecolor="0.8")
    show = {"aspect": "auto", "interpolation": "nearest", "cmap": "magma_r", "norm": PowerNorm(0.6, 0, 1)}
    for b, (kind, p) in enumerate(history.items()):
        top, end = total - head - b * block, len(p) - 1
        figure.text(0.1 / width, top / total, f"{kind} cell".strip(), weight="bold", va="top", parse_math=False)
        steps = np.unique(np.linspace(0, end, min(len(p), 300)).round().astype(int))
        for e, (j, i) in enumerate(spec.edges):
            ax = panel(left + j * (w + gap), top - 0.4 - i * row - h, w, h)
            image = ax.imshow(p[steps, e].T, extent=(-0.5, end + 0.5, len(ops) - 0.5, -0.5), **show)
            ax.set_title(f"{_name(spec, j)}->{_name(spec, spec.inputs + i)}", fontsize=8, pad=3)
            ax.set_yticks(ops, spec.ops if j == 0 else [""] * len(ops), parse_math=False)
            ax.set_xticks([0, end] if end else [0])
            ax.tick_params(length=2, pad=2, labelsize=7)
            if end:
                ax.set_xlabel("step", fontsize=7, labelpad=-7)
                for tick, side in zip(ax.get_xticklabels(), ("left", "right"), strict=True):
                    tick.set_ha(side)
            if (p[-1, e] == p[-1, e].max()).sum() == 1:  # neither NaN nor a tie
                ax.plot([1.04], [p[-1, e].argmax()], "k<", ms=4, transform=ax.get_yaxis_transform(), clip_on=False)
    tall = min(1.6, block - 1)
    bar = panel(width - right + 0.15, total - head - 0.4 - tall, 0.14, tall)
    figure.colorbar(image, cax=bar, ticks=[0, 0.1, 0.25, 0.5, 1]).ax.tick_params(labelsize=7)
    bar.set_title("weight", fontsize=8, pad=4)
    bar.text(-0.4, -0.1, "◂ largest\nat the end", fontsize=7, va="top", transform=bar.transAxes)
    return figure


def curves(series: dict, title: str | None = None, xlabel: str = "step"):
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
    figure = _figure(4.4 * columns, 2.9 * rows + (0.35 if title else 0), title, layout="constrained")
    for n, (quantity, lines) in enumerate(panels.items()):
        ax = figure.add_subplot(rows, columns, n + 1)
        for m, (name, values) in enumerate(lines.items()):
            x = np.flatnonzero(np.isfinite(values).any(0))
            values, window = np.where(np.isfinite(values), values, np.nan)[:, x], max(1, len(x) // 25)
            colour, note = COLOURS[m % len(COLOURS)], "" if len(x) else ": no finite values"
            if len(values) == 1 and window > 1:
                ax.plot(x, values[0], color=colour, alpha=0.3, lw=0.7)
            mean, half = _interval(np.stack([_smooth(v, window) for v in values]))
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
        _literal(ax.legend(fontsize=7, frameon=False, handlelength=3).get_texts())
        _plain(ax)
    return figure


def compare(groups: dict, title: str | None = None, ylabel: str = "accuracy"):
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
    figure = _figure(1.7 * len(finite) + 1.2, 3.6, title, layout="constrained")
    ax = figure.add_subplot()
    for n, v in enumerate(finite.values()):
        spread = 0.3 * ((np.arange(len(v)) * 0.618034 + 0.5) % 1 - 0.5)  # golden ratio: even, and the same every time
        ax.plot(n - 0.15 + spread, v, "o", color=COLOURS[n % len(COLOURS)], alpha=0.55, ms=4.5, mew=0)
        (mean,), (half,) = _interval(v[:, None])
        ax.errorbar(n + 0.12, mean, yerr=half if len(v) > 1 else None, fmt="D", color="black", ms=5, capsize=4)
        ax.text(n + 0.2, mean, f"{mean:.4g}" + (f"\n± {half:.2g}" if len(v) > 1 else ""), fontsize=8, va="center")
    ticks = [f"{textwrap.fill(name, 16)}\nn = {len(v)}" for name, v in finite.items()]
    ax.set_xticks(range(len(ticks)), ticks, parse_math=False)
    ax.set_xlim(-0.5, len(ticks) - 0.4)
    ax.set_ylabel(ylabel, fontsize=9, parse_math=False)
    _plain(ax)
    return figure


def _interval(values):
    """Mean and half its 95 % interval over the first axis, without NaN; the half is NaN below two values."""
    from scipy.stats import t

    ok = np.isfinite(values)
    n = ok.sum(0)
    mean = np.where(n > 0, np.where(ok, values, 0).sum(0) / np.maximum(n, 1), np.nan)
    variance = np.where(ok, (values - mean) ** 2, 0).sum(0) / np.maximum(n - 1, 1)
    half = t.ppf(0.975, np.maximum(n - 1, 1)) * np.sqrt(variance / np.maximum(n, 1))
    return mean, np.where(n > 1, half, np.nan)


def _smooth(values, window):
    """The centred moving average without NaN; NaN where `values` is."""
    ok = np.isfinite(values)
    if window == 1 or not ok.any():
        return values
    total, n = (np.convolve(v, np.ones(window), "same") for v in (np.where(ok, values, 0), ok.astype(float)))
    return np.where(ok, total / np.maximum(n, 1), np.nan)


def _name(spec, n):
    if spec.inputs == 1:
        return str(n)
    return f"$c_{{k-{spec.inputs - n}}}$" if n < spec.inputs else str(n - spec.inputs)


def _style(spec, k):
    line, colour = divmod(sum(name != "none" for name in spec.ops[:k]), len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": STYLES[line % len(STYLES)]}


def _width(text, size):
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text.replace("$", "S"), size=size).get_extents().width / 72


def _literal(texts):
    for text in texts:
        text.set_parse_math(False)


def _figure(width, height, title, **options):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", **options)
    FigureCanvasAgg(figure)
    if title:
        at = {} if options else {"y": 1 - 0.12 / height, "va": "top"}
        _literal([figure.suptitle(title, fontsize=12, **at)])
    return figure


def _plain(ax):
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, lw=0.6)
    ax.tick_params(labelsize=8)
