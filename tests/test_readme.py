"""The README's blocks marked as tests, and the notebooks, run as written."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BLOCKS = re.findall(r"<!-- test -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_block(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), names)
    if "whole_search" in names:
        assert (names["best"].op == 3).all()  # eight searches, each at the optimum
        assert names["result"].state.best_score.shape == (8,)
    if "front" in names:
        assert set((names["front"].op >= 2).sum(-1).tolist()) == set(range(7))  # 0 to 6 convolutions: all are the front
    if "train_somewhere" in names:
        assert names["state"].told == 30 and names["state"].scores.max() >= 4
    if "multiply_adds" in names:
        assert 10_000 < names["multiply_adds"] < 200_000
    if "gates" in names and "logits" in names:
        assert names["logits"].shape == (2, 10)


def test_readme_has_its_blocks():
    assert len(BLOCKS) == 9
    assert all(len(block.splitlines()) <= 40 for block in BLOCKS)


SLOW = ("02_compare_strategies", "03_differentiable_search", "04_one_shot", "05_estimators")


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
