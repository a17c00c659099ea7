"""Blocks of the README and of the documentation, and the notebooks, run as written; the README's table is the code's."""

import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import jaxnas as nas
from jaxnas.app import commands, overview, search
from jaxnas.app.config import Config
from jaxnas.app.methods import METHODS
from jaxnas.app.spaces import NETS, SPACES
from jaxnas.data import load
from jaxnas.nets import OPS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "compose.md", ROOT / "CONTRIBUTING.md")
BLOCKS = [
    (page.name, number, block)
    for page in PAGES
    for number, block in enumerate(re.findall(r"<!-- test -->\n```python\n(.*?)```", page.read_text(), re.S))
]
TABLES = (METHODS, SPACES, NETS, OPS)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.fixture
def tables():
    """What a block registers is gone after it."""
    before = [dict(table) for table in TABLES]
    yield
    for table, held in zip(TABLES, before, strict=True):
        table.clear()
        table.update(held)


def block_case(page, number, block):
    """compose.md's blocks take a minute each; the README's and the templates are always run."""
    return pytest.param(page, number, block, id=f"{page}-{number}", marks=[pytest.mark.slow] * (page == "compose.md"))


@pytest.mark.parametrize(("page", "number", "block"), [block_case(*row) for row in BLOCKS])
def test_a_block(page, number, block, tmp_path, monkeypatch, tables):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(block, f"{page}, block {number}", "exec"), names)
    if "whole_search" in names:
        assert (names["best"].op == 3).all()  # eight searches, each at the optimum
        assert names["result"].state.best_score.shape == (8,)
    if "front" in names:
        assert set((names["front"].op >= 2).sum(-1).tolist()) == set(range(7))  # 0 to 6 convolutions: all are the front
    if "algorithm" in names and "score" in names:
        assert names["state"].told == 30 and names["state"].scores.max() >= 4
    if "multiply_adds" in names:
        assert 10_000 < names["multiply_adds"] < 200_000
    if "gates" in names and "logits" in names:
        assert names["logits"].shape == (2, 10)
    if "annealed" in names:
        (tmp_path / "mine.py").write_text(block)
        METHODS.pop("annealed")
        command = commands.parse(["search", "--use", "mine.py", "--strategy", "annealed"])
        assert command.strategy == "annealed" and "(mine)" in overview.tables()["strategies"]["annealed"]
        job = search.make_job(Config(strategy="annealed", steps=2, channels=2), load("digits", jax.random.key(0)))
        assert len(search.make_plan(job)) == 1


def template(kind, tables):
    """Runs a template of CONTRIBUTING.md; returns its names."""
    (block,) = (block for page, _, block in BLOCKS if page == "CONTRIBUTING.md" and f"{kind}" in block)
    assert len(block.splitlines()) <= 30, "a template is short"
    names = {}
    exec(compile(block, kind, "exec"), names)
    return names


def plan_of(dataset, **settings):
    sizes = {"steps": 2, "batch": 4, "channels": 2} | ({} if "evaluator" in settings else {"candidate_steps": 1})
    return search.make_plan(search.make_job(Config(**{"strategy": "darts"} | sizes | settings), dataset))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ClimbState", dict(strategy="climb", space="mobile", evaluator="supernet")),
        ("straight_through", dict(strategy="cooled", space="mobile")),
        ("SpaceEntry", dict(strategy="random", space="thin", space_settings={"layers": 2})),
        ("swish", dict(strategy="random", space="darts", space_settings={"nodes": 1, "ops": ("none", "swish_conv_3x3")})),
    ],
)
def test_a_template_joins_the_command_line(kind, settings, tables):
    template(kind, tables)
    dataset = load("digits", jax.random.key(0))
    assert len(plan_of(dataset, **settings)) in (1, 2)
    name = settings["strategy"] if kind != "SpaceEntry" else settings["space"]
    assert kind == "swish" or name in overview.names_table() + str(overview.tables())
    if kind == "ClimbState":
        climb = METHODS["climb"].algorithm(nas.spaces.nasbench201(), 30, None, None)
        right = lambda key, archs, batch: {"accuracy": jnp.mean((archs.op == 3).astype(jnp.float32), -1)}
        found = nas.run(jax.random.key(0), nas.black_box(climb, nas.stateless(right)), steps=300)
        assert found.state.best_score == 1


def test_the_readme_has_its_blocks_and_is_short():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 200
    assert sum(page == "README.md" for page, *_ in BLOCKS) == 6
    assert all(len(block.splitlines()) <= 40 for *_, block in BLOCKS)


def test_the_readmes_table_is_read_from_the_code():
    table = re.search(r"<!-- methods -->\n(.*?)\n<!-- /methods -->", (ROOT / "README.md").read_text(), re.S)[1]
    assert table == overview.names_table()


def test_links_of_the_documentation_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]*)", page.read_text()):
            assert not target or (page.parent / target).exists(), (page.name, target)


SLOW = ("01_compose_a_search", "02_compare_strategies", "03_differentiable_search", "04_one_shot", "05_estimators")


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=[pytest.mark.slow] * (p.stem in SLOW)) for p in NOTEBOOKS], ids=lambda p: p.stem
)
def test_notebook_script_runs(path, tmp_path):
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_paired(path):
    jupytext = pytest.importorskip("jupytext")
    script, notebook = jupytext.read(path), jupytext.read(path.with_suffix(".ipynb"))
    cells = lambda book: [(c.cell_type, c.source.strip()) for c in book.cells]
    assert cells(script) == cells(notebook)
