"""Experiments are records that stand alone: what they import, and what their docstrings say.  Nothing is run."""

import ast
import importlib.util
import pathlib
import re
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "experiments"
SHARED = {"_common", "contest", "torch_darts_net"}  # not experiments: what several of them import
FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted((*FOLDER.glob("*.py"), *FOLDER.glob("peers/*.py")))}
EXPERIMENTS = [name for name, path in FILES.items() if path.stem not in SHARED]
RESULTS = (ROOT / "docs" / "results.md").read_text()


def imported(path: pathlib.Path) -> set[str]:
    """The first parts of the modules that a file imports, wherever in it; imports from its own package are left out."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def others(path: pathlib.Path) -> set[str]:
    """The experiments that a file imports."""
    return imported(path) & ({path.stem for path in FILES.values()} - SHARED)


def anchors() -> set[str]:
    """The links to the headings of the results, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", RESULTS, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_imports_no_other(name):
    assert not others(FILES[name])


@pytest.mark.parametrize("path", sorted((FOLDER / "_common").glob("*.py")), ids=lambda path: path.stem)
def test_what_they_share_imports_no_experiment(path):
    assert not others(path)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_an_experiment_imports_is_declared(name):
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["peers"]
    peers = {re.match(r"\w+", requirement)[0] for requirement in extra} | {"gpytorch"}  # BoTorch brings it
    for module in imported(FILES[name]) - sys.stdlib_module_names - SHARED - peers:
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_its_docstring_has_a_command_and_points_to_its_results(name):
    text = ast.get_docstring(ast.parse(FILES[name].read_text()))
    assert f"python {name}" in text
    pointers = re.findall(r"docs/results\.md#([\w-]+)", text)
    assert pointers and set(pointers) <= anchors()


def test_files_that_texts_name_exist():
    texts = RESULTS, *(path.read_text() for path in FOLDER.rglob("*.py"))
    for text in texts:
        for name in re.findall(r"experiments/[\w/]+\.py", text):
            assert (ROOT / name).exists(), name
