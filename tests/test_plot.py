"""Pictures: every edge is there, nothing hides a label, files are reproducible."""

import functools
import itertools
import subprocess
import sys
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

from jaxnas import plot, spaces
from jaxnas.analysis.ranking import interval
from jaxnas.plot import chains
from jaxnas.plot.lines import _smooth
from jaxnas.spaces import cell, space
from jaxnas.spaces._darts import darts
from jaxnas.spaces._nasbench201 import nasbench201

DARTS, BENCH = darts(), nasbench201()
CONV = "nor_conv_3x3"
FULL = BENCH.from_text(f"|{CONV}~0|+|{CONV}~0|{CONV}~1|+|{CONV}~0|{CONV}~1|{CONV}~2|")


def dense(nodes: int, inputs: int, ops=("none", "conv $a$", "conv $b$", *"cdefgh")):
    """A space of cells in which every edge has an operation, named as no paper does."""
    spec = cell.CellSpec(ops, inputs, nodes)
    return space(np.full(len(spec.edges), len(ops)))._replace(spec=spec)


CASES = {
    "DARTS_V1": (DARTS, DARTS.from_text("DARTS_V1")),
    "DARTS_V2": (DARTS, DARTS.from_text("DARTS_V2")),
    **{f"random {i}": (DARTS, DARTS.sample(jax.random.key(i))) for i in range(3)},
    "all conv": (BENCH, FULL),
    "2 nodes": (darts(2, ("identity", "a_rather_long_operation_7x7")), darts(2, ("a", "b")).sample(jax.random.key(0))),
    "dense 2": (dense(2, 1), np.asarray([1, 2, 8])),
    "dense 5": (dense(5, 2), np.arange(20) % 8 + 1),
}


@functools.cache
def drawing(name):
    figure = plot.architecture(*CASES[name], title=name)
    figure.canvas.draw()
    return figure


def lines(arrow):
    """The curves of an arrow, its shaft first, in dots."""
    return arrow.get_transform().transform_path(arrow.get_path()).to_polygons(closed_only=False)


def dense_line(line):
    return np.concatenate([np.linspace(a, b, 50) for a, b in itertools.pairwise(line)])


def found(figure, kind, prefix):
    return [a for a in figure.findobj(kind) if (a.get_gid() or "").startswith(prefix)]


def wanted(spaces, arch):
    """(kind, source, destination, operation) of every edge that is not on `none`."""
    spec, gates = spaces.spec, spaces.gates(arch)
    for kind in spec.kinds or ("",):
        rows = np.asarray(getattr(gates, kind) if kind else gates)
        for (j, i), row in zip(spec.edges, rows, strict=True):
            if row.any() and spec.ops[row.argmax()] != "none":
                yield kind, j, spec.inputs + i, spec.ops[row.argmax()]


@pytest.mark.parametrize("name", CASES)
def test_each_edge_is_drawn_and_labelled_once(name):
    spaces, arch = CASES[name]
    figure = drawing(name)
    edges = list(wanted(spaces, arch))
    labels = {t.get_gid(): t.get_text() for t in found(figure, Text, "op")}
    assert len(found(figure, Text, "op")) == len(edges)
    assert labels == {f"op{kind}-{a}-{b}": op for kind, a, b, op in edges}
    arrows = sorted(a.get_gid() for a in found(figure, FancyArrowPatch, "arrow"))
    assert arrows == sorted(f"arrow{kind}-{a}-{b}" for kind, a, b, _ in edges)
    (legend,) = figure.legends
    assert {t.get_text() for t in legend.get_texts()} == {op for *_, op in edges}


def test_darts_v2_has_sixteen_edges():
    figure = drawing("DARTS_V2")
    assert len(found(figure, Text, "op")) == 16
    normal = {t.get_gid(): t.get_text() for t in found(figure, Text, "opnormal")}
    assert normal["opnormal-2-5"] == "dil_conv_3x3"
    assert normal["opnormal-0-4"] == "skip_connect"


@pytest.mark.parametrize("name", CASES)
def test_nothing_hides_a_label(name):
    figure = drawing(name)
    renderer = figure.canvas.get_renderer()
    labels = {t.get_gid()[2:]: t.get_bbox_patch().get_window_extent(renderer) for t in found(figure, Text, "op")}
    for a, b in itertools.combinations(labels, 2):
        assert not labels[a].overlaps(labels[b]), (a, b)
    for node in figure.findobj(lambda a: (a.get_gid() or "").startswith("node")):
        assert not any(node.get_window_extent(renderer).overlaps(box) for box in labels.values()), node.get_gid()
    for arrow in figure.findobj(FancyArrowPatch):  # the grey ones too
        own = (arrow.get_gid() or "")[5:]
        points = np.concatenate([dense_line(line) for line in lines(arrow)])
        hit = [edge for edge, box in labels.items() if edge != own and box.count_contains(points)]
        assert not hit, (own, hit)
    edge = figure.bbox
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible() and text.get_gid():
            box = text.get_window_extent(renderer)
            assert edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1


def test_arrow_heads_stay_apart():
    ends = np.asarray([lines(arrow)[0][-1] for arrow in found(drawing("dense 5"), FancyArrowPatch, "arrow")])
    apart = np.hypot(*(ends[:, None] - ends[None]).T) / 100 * 72  # points, at matplotlib's 100 dots an inch
    assert len(ends) == 20 and apart[~np.eye(20, dtype=bool)].min() > 4.8  # the width of a head


@pytest.mark.parametrize(
    "text", ["|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", f"|none~0|+|{CONV}~0|none~1|+|none~0|{CONV}~1|none~2|"]
)
def test_a_disconnected_cell_says_so(text):
    figure = plot.architecture(BENCH, BENCH.from_text(text))
    assert sum("no path" in t.get_text() for t in figure.findobj(Text)) == 1
    assert not any("no path" in t.get_text() for t in plot.architecture(BENCH, FULL).findobj(Text))


def test_a_disconnected_concat_says_so():
    spaces = dense(2, 2)
    texts = lambda arch: [t.get_text() for t in plot.architecture(spaces, np.asarray(arch)).findobj(Text)]
    assert any("no path" in t for t in texts([0, 0, 0, 0, 1]))  # node 1 only hears node 0, which hears nothing
    assert not any("no path" in t for t in texts([0, 0, 1, 0, 0]))


def test_svg_is_reproducible_and_keeps_text(tmp_path):
    for name in ("a.svg", "b.svg"):
        plot.save(plot.architecture(*CASES["DARTS_V2"], title="DARTS_V2"), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()
    texts = ["".join(t.itertext()).strip() for t in ET.parse(tmp_path / "a.svg").iter("{http://www.w3.org/2000/svg}text")]
    ops = [op for *_, op in wanted(*CASES["DARTS_V2"])]
    for op in set(ops):
        assert texts.count(op) == ops.count(op) + 1  # and the legend
    assert "DARTS_V2" in texts and "concat" in texts


def test_save_goes_by_suffix(tmp_path):
    figure = plot.compare({"a": [1.0, 2.0]})
    plot.save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"\.svg or \.png"):
        plot.save(figure, tmp_path / "a.bmp")


def test_import_is_light():
    code = "import sys, jaxnas.plot; assert not [m for m in sys.modules if m.split('.')[0] == 'matplotlib']"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wrong_architectures_are_refused():
    with pytest.raises(ValueError, match="pick one"):
        plot.architecture(BENCH, FULL._replace(op=jax.numpy.stack([FULL.op] * 3)))
    with pytest.raises(ValueError, match="without layers"):
        chains.layers([])


def test_what_is_no_cell_is_drawn_layer_by_layer(tmp_path):
    layers = ("k3_e1", "k5_e3", "zero")
    wide = spaces.mobile(spaces.MobileSpec(tuple(spaces.MobileLayer(4, 4, 1, layers) for _ in range(30)), stem=4, head=4))
    arch = wide.from_text(" ".join(layers[i % 3] for i in range(30)))
    figure = plot.architecture(wide, arch, title="thirty layers")
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == [layers[i % 3] for i in range(30)]
    boxes = [p for p in figure.axes[0].patches if type(p).__name__ == "FancyBboxPatch"]
    assert len(boxes) == 30 and len({round(b.get_y(), 3) for b in boxes}) > 1  # more than one row
    assert all(b.get_x() >= 0 and b.get_x() + b.get_width() <= figure.get_size_inches()[0] for b in boxes)
    plot.save(figure, tmp_path / "a.png")


@pytest.mark.parametrize(("spec", "T"), [(BENCH.spec, 1), (BENCH.spec, 2), (DARTS.spec, 2000)])
def test_gates(spec, T):
    shape = (T, len(spec.edges), len(spec.ops))
    p = np.random.default_rng(0).dirichlet(np.ones(shape[2]), shape[:2])
    p[0, 0] = np.nan
    figure = plot.gates({kind: p for kind in spec.kinds or ("",)}, spec, title="weights")
    figure.canvas.draw()
    images = [ax for ax in figure.axes if ax.images]
    assert len(images) == len(spec.edges) * max(1, len(spec.kinds))
    assert all(ax.images[0].get_array().shape == (len(spec.ops), min(T, 300)) for ax in images)
    assert images[0].get_title() == ("0->1" if spec.inputs == 1 else "$c_{k-2}$->0")
    assert [t.get_text() for t in images[0].get_yticklabels()] == list(spec.ops)
    np.testing.assert_array_equal(images[1].images[0].get_array()[:, -1], p[-1, 1])


def test_wrong_gates_are_refused():
    for history, match in (
        ({}, "empty"),
        ({"": np.ones((2, 5, 5))}, "6 edges"),
        ({"": np.full((2, 6, 5), 3.0)}, "softmax"),
    ):
        with pytest.raises(ValueError, match=match):
            plot.gates(history, BENCH.spec)


def test_curves_share_a_panel_by_quantity(tmp_path):
    x = np.arange(200.0)
    gap = np.where(x % 50 == 0, np.nan, 1 / (1 + x))
    series = {"train_loss": gap, "darts/valid_loss": -x, "accuracy": np.stack([x, x + 2]), "lr": [np.inf] * 3, "one": [1.0]}
    figure = plot.curves(series, title="run")
    plot.save(figure, tmp_path / "a.png")
    assert [ax.get_title() for ax in figure.axes] == ["loss", "accuracy", "lr", "one"]
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["train_loss", "darts/valid_loss"]
    assert "2 seeds" in figure.axes[1].get_legend().get_texts()[0].get_text()
    assert "no finite values" in figure.axes[2].get_legend().get_texts()[0].get_text()
    with pytest.raises(ValueError, match="empty"):
        plot.curves({})
    with pytest.raises(ValueError, match="seeds, steps"):
        plot.curves({"loss": np.zeros((2, 2, 2))})


@pytest.mark.parametrize("values", [[1.0], [np.nan], [[1.0], [2.0]], [[np.nan, 1.0], [2.0, np.nan]], 3.0, np.zeros((1, 5))])
def test_short_and_broken_curves_do_not_warn(values, tmp_path):
    plot.save(plot.curves({"loss": values}), tmp_path / "a.svg")


def test_interval_is_students():
    mean, half = interval(np.asarray([[1.0, 5.0], [2.0, np.nan], [3.0, np.nan]]))
    np.testing.assert_allclose(mean, [2, 5])
    np.testing.assert_allclose(half[0], 4.302653 / np.sqrt(3), rtol=1e-6)
    assert np.isnan(half[1])


def test_smoothing_keeps_a_line_and_skips_nan():
    line = np.arange(9.0)
    np.testing.assert_allclose(_smooth(line, 3)[1:-1], line[1:-1])
    np.testing.assert_allclose(_smooth(np.asarray([1.0, np.nan, 3.0, 5.0]), 3), [1, np.nan, 4, 4])


def test_compare(tmp_path):
    figure = plot.compare({"searched": [0.94, 0.95, np.nan], "random": [0.9]}, title="cells")
    plot.save(figure, tmp_path / "a.png")
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["searched\nn = 2", "random\nn = 1"]
    assert [t.get_text().split("\n")[0] for t in ax.texts] == ["0.945", "0.9"]
    for groups in ({}, {"a": []}, {"a": [np.nan]}):
        with pytest.raises(ValueError, match="at least one finite"):
            plot.compare(groups)
