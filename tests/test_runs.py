"""`jaxnas runs`: a table of the runs of a directory, and one line for each that is damaged."""

import json
import os

import pytest

from jaxnas.app import cli
from jaxnas.app.config import Config, prepare
from jaxnas.driver.lock import locked


@pytest.fixture
def runs(tmp_path):
    """Two finished runs, one of them without an answer, a cut one, a run of networks one by one, and what is no run."""
    log = lambda step: json.dumps({"phase": "search", "step": step}) + "\n"
    for number in (1, 2, 10):
        made = prepare(str(tmp_path / f"darts-{number}"), Config(strategy="darts", steps=20))
        (made / "log.jsonl").write_text("".join(map(log, range(10, 11 + number, 5))))
    found = {"outcome": "found", "found": {"test_accuracy": 0.987, "test_examples": 360}}
    (tmp_path / "darts-1" / "result.json").write_text(json.dumps(found))
    (tmp_path / "darts-2" / "result.json").write_text(json.dumps({"outcome": "no finite score"}))
    prepare(str(tmp_path / "portfolio-1"), Config())
    (tmp_path / "notes").mkdir()
    return tmp_path


def listed(directory, capsys):
    assert cli.main(["runs", str(directory)]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_runs_are_listed_in_order(runs, capsys):
    before = sorted(os.walk(runs))
    with locked(runs / "portfolio-1"):
        head, *lines = listed(runs, capsys)
    assert head == ["name", "method", "space", "data", "done", "state", "result"]
    assert lines == [
        ["darts-1", "darts", "nasbench201", "digits", "10", "of", "20", "finished", "98.70", "%", "of", "360"],
        ["darts-2", "darts", "nasbench201", "digits", "10", "of", "20", "finished", "no", "finite", "score"],
        ["darts-10", "darts", "nasbench201", "digits", "20", "of", "20", "cut", "-"],
        ["portfolio-1", "portfolio", "macro", "digits", "0", "trials", "running", "-"],
    ]
    assert sorted(os.walk(runs)) == before


@pytest.mark.parametrize(
    "name, content", [("config.json", "{"), ("config.json", "[1]"), ("result.json", "{"), ("result.json", "[]")]
)
def test_a_damaged_run_is_named_in_one_line(runs, capsys, name, content):
    (runs / "darts-2" / name).write_text(content)
    lines = listed(runs, capsys)
    assert [line[0] for line in lines] == ["name", "darts-1", "darts-10", "portfolio-1", "darts-2:"]
    assert "damaged" in " ".join(lines[-1])


@pytest.mark.parametrize(
    "directory, words",
    [("none", "there is no directory"), ("notes", "holds no runs: start one"), ("darts-1", "it is itself a run"), (" ", "empty")],
)
def test_directories_without_runs(runs, capsys, directory, words):
    assert cli.main(["runs", directory if directory == " " else str(runs / directory)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
