"""Pictures of cells and of architecture weights.

Nodes have the names of their papers: 0 (the input) .. n with one input; c_{k-2}, c_{k-1}, 0 .. n-1 with two.

Axes: T steps, E edges, O operations.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Arch
from jaxnas.nets.block_cell import choice_of
from jaxnas.plot.chains import layers
from jaxnas.plot.figure import COLOURS, STYLES, empty_figure, literal, text_width
from jaxnas.spaces._space import Space
from jaxnas.spaces.blocks import BlockSpec
from jaxnas.spaces.cell import CellSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEIGHT, LANE, BEND, PORT = 0.42, 0.3, 0.24, 0.11  # of a node; between arcs; of an arc's shoulder; between arrow heads


def architecture(space: Space, arch: Arch, title: str | None = None) -> "Figure":
    """Draws each cell of `arch`, without the edges on `none`; of a space of no cells, its layers as the space writes them.

    With one input the last node is the cell's output; with more, all computed nodes are concatenated; of a cell of blocks,
    the states that no block reads.

    Raises:
        ValueError: for more than one architecture.
    """
    from matplotlib.lines import Line2D

    spec = getattr(space, "spec", None)
    if not isinstance(spec, (CellSpec, BlockSpec)):
        return layers(space.to_text(arch).split(), title)
    spec, found = (_of_blocks if isinstance(spec, BlockSpec) else _of_edges)(space, arch)
    cells = [(kind, edges, _lanes(edges), out) for kind, edges, out in found]  # {(source, destination): (side, lane)}

    drawn = sorted({k for _, edges, _, _ in cells for k in edges.values()})
    text = max([text_width(spec.ops[k], 8) for k in drawn], default=0.5)
    most = max([abs(r) for _, _, sides, _ in cells for r in _ports(sides).values()], default=0)
    node = max(0.7, 2 * PORT * (most + 1))
    pitch = node + text + 2 * BEND  # an arc's label fits between the shoulders of all arcs
    span = pitch * (spec.inputs + spec.nodes - (spec.inputs == 1))
    width = max(4.5, span + node + 0.4)
    columns = max(1, min(len(drawn), int(width / (text + 0.7))))
    legend, head = 0.2 + 0.2 * math.ceil(len(drawn) / columns), 0.35 if title else 0.0
    extent = []  # how far each cell reaches up and down
    for _, _, sides, _ in cells:
        reach = {s: HEIGHT / 2 + LANE * max([n for t, n in sides.values() if t == s], default=0) for s in (1, -1)}
        extent.append((reach[1] + 0.5, reach[-1] + (LANE if spec.inputs > 1 else 0) + 0.2))
    total = head + sum(map(sum, extent)) + legend
    figure, top = empty_figure(width, total, title), total - head
    for (kind, edges, sides, out), (up, down) in zip(cells, extent, strict=True):
        ax = figure.add_axes((0, (top - up - down) / total, 1, (up + down) / total))
        ax.set(xlim=((span - width) / 2, (span + width) / 2), ylim=(-down, up))
        ax.axis("off")
        _cell(ax, spec, kind, edges, sides, out, node, pitch)
        top -= up + down
    if drawn:
        handles = [Line2D([], [], lw=2, label=spec.ops[k], **op_style(spec, k)) for k in drawn]
        place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.1 / total), "borderaxespad": 0}
        literal(figure.legend(handles=handles, ncols=columns, frameon=False, fontsize=8, **place).get_texts())
    return figure


def _of_edges(space, arch):
    """(the spec, [(kind, {(source, destination): operation}, the nodes that are the output)])."""
    spec, gates, cells = space.spec, space.gates(arch), []
    out = range(spec.inputs, spec.inputs + spec.nodes) if spec.inputs > 1 else [spec.nodes]
    for kind in spec.kinds or ("",):
        rows = np.asarray((gates[kind] if isinstance(gates, dict) else getattr(gates, kind)) if kind else gates)
        if rows.shape != (len(spec.edges), len(spec.ops)):
            raise ValueError(f"gates of shape {rows.shape} are not those of one architecture: pick one from the batch")
        chosen = zip(spec.edges, rows.argmax(-1), rows.max(-1) > 0, strict=True)
        cells.append((kind, {(j, spec.inputs + i): int(k) for (j, i), k, on in chosen if on and spec.ops[k] != "none"}, out))
    return spec, cells


def _of_blocks(space, arch):
    """The same for cells of blocks: two sides that read one state are one edge, and what is concatenated inside is marked."""
    spec, gates, cells = space.spec, space.gates(arch), []
    names = dict.fromkeys(spec.ops)  # ordered
    for kind in spec.kinds or ("",):
        cell = getattr(gates, kind) if kind else gates
        if np.shape(cell.op) != (spec.blocks, 2, len(spec.ops)):
            raise ValueError(f"gates of shape {np.shape(cell.op)} are not those of one architecture: pick one from the batch")
        blocks, out = choice_of(cell)
        edges = {}
        for b, (*sources, first, second, combine) in enumerate(blocks):
            mark = " (concat)" if spec.combine[combine] == "concat" else ""
            for j in sorted(set(sources)):
                ops = [spec.ops[k] for source, k in zip(sources, (first, second), strict=True) if source == j]
                edges[j, 2 + b] = (f"2 x {ops[0]}" if len(ops) == 2 and ops[0] == ops[1] else " + ".join(ops)) + mark
        names |= dict.fromkeys(edges.values())
        cells.append((kind, edges, out))
    order = {name: k for k, name in enumerate(names)}
    most = max(len({b for _, b in edges}) for _, edges, _ in cells)
    drawn = CellSpec(tuple(names), inputs=2, nodes=most, kinds=spec.kinds)
    return drawn, [(kind, {e: order[name] for e, name in edges.items()}, out) for kind, edges, out in cells]


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
        side = min(cost, key=lambda side: cost[side])
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


def _cell(ax, spec, kind, edges, sides, out, node, pitch):
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
        style = {"lw": 1.6, "gid": f"arrow{kind}-{a}-{b}"} | op_style(spec, k)
        line(arc if lane else straight(a), "MQQLQQ" if lane else "ML", **style)
        x = ((a + b - 1) // 2 + 0.5) * pitch  # between two nodes, where no arc rises or falls
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": style["color"], "lw": 0.8}
        where = {"ha": "center", "va": "center_baseline", "zorder": 3, "bbox": box}
        ax.text(x, y, spec.ops[k], fontsize=8, gid=f"op{kind}-{a}-{b}", parse_math=False, **where)
        live |= {b} if a in live else set()
    if concat:  # one grey bus below
        grey, y, end = {"color": "0.5", "linestyle": "--", "lw": 1.2}, ax.get_ylim()[0] + 0.2, count * pitch
        for n in out[:-1]:
            line([(n * pitch, -HEIGHT / 2), (n * pitch, y)], "ML", head=False, **grey)
        if len(out) > 1:
            line([(out[0] * pitch, y), (end - BEND, y), (end, y), (end, -HEIGHT / 2)], "MLQQ", **grey)
        line(straight(count - 1), "ML", **grey)
    names = [node_name(spec, n) for n in range(count)]
    names = [*names, "concat"] if concat else [names[0] + "\ninput", *names[1:-1], names[-1] + "\noutput"]
    for n, name in enumerate(names):
        face = "#DCE9F5" if n < spec.inputs else "0.9" if n == len(names) - 1 else "white"
        box = {"boxstyle": "round,pad=0,rounding_size=0.08", "facecolor": face, "edgecolor": "black", "zorder": 2}
        ax.add_patch(FancyBboxPatch((n * pitch - node / 2, -HEIGHT / 2), node, HEIGHT, gid=f"node{kind}-{n}", **box))
        ax.text(n * pitch, 0, name, ha="center", va="center", fontsize=9, linespacing=1, zorder=4)
    found = any(n in live for n in out)
    left, top, heading = ax.get_xlim()[0] + 0.2, ax.get_ylim()[1] - 0.1, f"{kind} cell".strip()
    ax.text(left, top, heading, va="top", weight="bold", parse_math=False)
    if not found:
        note = "no path: the output does not depend on the input"
        ax.text(left + text_width(heading, 10) + 0.4, top, note, va="top", color=COLOURS[1])


def gates(history: Mapping[str, ArrayLike], spec: CellSpec, title: str | None = None) -> "Figure":
    """Heat maps of the architecture weights over time: a panel for each edge, a row of panels for each computed node.

    Args:
        history: {kind, or "" where there is one: probabilities float[T, E, O]}.
        spec: names the edges and operations.
        title: default none.

    Raises:
        ValueError: for other shapes, or values that are not probabilities.
    """
    from matplotlib.colors import PowerNorm

    seen = {kind: np.asarray(p, float) for kind, p in history.items()}
    if not seen:
        raise ValueError("history is empty: give {kind: probabilities [steps, edges, operations]}")
    shape, ops = (len(spec.edges), len(spec.ops)), range(len(spec.ops))
    for kind, p in seen.items():
        if p.ndim != 3 or p.shape[1:] != shape or len(p) == 0:
            raise ValueError(f"history[{kind!r}] has shape {p.shape}: give [steps, {shape[0]} edges, {shape[1]} ops]")
        if (p < -1e-3).any() or (p > 1.001).any():
            raise ValueError(f"history[{kind!r}] is not made of probabilities: apply jax.nn.softmax to logits")
    w, h, gap, right = 1.5, 0.125 * len(ops), 0.2, 0.95
    left, row, head = max(text_width(name, 7) for name in spec.ops) + 0.25, h + 0.45, 0.45 if title else 0.15
    block = row * spec.nodes + 0.3
    width = left + (w + gap) * max(spec.inputs + spec.nodes - 1, 2) + right
    total = head + block * len(seen)
    figure = empty_figure(width, total, title)
    panel = lambda x, y, w, h: figure.add_axes((x / width, y / total, w / width, h / total), facecolor="0.8")
    show: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "cmap": "magma_r", "norm": PowerNorm(0.6, 0, 1)}
    image: Any = None  # the last one
    for b, (kind, p) in enumerate(seen.items()):
        top, end = total - head - b * block, len(p) - 1
        figure.text(0.1 / width, top / total, f"{kind} cell".strip(), weight="bold", va="top", parse_math=False)
        steps = np.unique(np.linspace(0, end, min(len(p), 300)).round().astype(int))
        for e, (j, i) in enumerate(spec.edges):
            ax = panel(left + j * (w + gap), top - 0.4 - i * row - h, w, h)
            image = ax.imshow(p[steps, e].T, extent=(-0.5, end + 0.5, len(ops) - 0.5, -0.5), **show)
            ax.set_title(f"{node_name(spec, j)}->{node_name(spec, spec.inputs + i)}", fontsize=8, pad=3)
            ax.set_yticks(ops, spec.ops if j == 0 else [""] * len(ops), parse_math=False)
            ax.set_xticks([0, end] if end else [0])
            ax.tick_params(length=2, pad=2, labelsize=7)
            if end:
                ax.set_xlabel("step", fontsize=7, labelpad=-7)
                first, last = ax.get_xticklabels()
                first.set_horizontalalignment("left")
                last.set_horizontalalignment("right")
            if (p[-1, e] == p[-1, e].max()).sum() == 1:  # neither NaN nor a tie
                ax.plot([1.04], [p[-1, e].argmax()], "k<", ms=4, transform=ax.get_yaxis_transform(), clip_on=False)
    tall = min(1.6, block - 1)
    bar = panel(width - right + 0.15, total - head - 0.4 - tall, 0.14, tall)
    figure.colorbar(image, cax=bar, ticks=[0, 0.1, 0.25, 0.5, 1]).ax.tick_params(labelsize=7)
    bar.set_title("weight", fontsize=8, pad=4)
    bar.text(-0.4, -0.1, "◂ largest\nat the end", fontsize=7, va="top", transform=bar.transAxes)
    return figure


def node_name(spec: CellSpec, n: int) -> str:
    """The name of node n in its paper."""
    if spec.inputs == 1:
        return str(n)
    return f"$c_{{k-{spec.inputs - n}}}$" if n < spec.inputs else str(n - spec.inputs)


def op_style(spec: CellSpec, k: int) -> dict[str, Any]:
    """The colour and the line style of operation k."""
    line, colour = divmod(sum(name != "none" for name in spec.ops[:k]), len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": STYLES[line % len(STYLES)]}
