"""kill -9 at random moments, again and again: what is there at the end is, byte for byte, what a run without kills leaves."""

import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DARTS = ["search", "--strategy=darts", "--strategy.order=first", "--steps=4", "--train-steps=4", "--channels=2", "--batch=16"]
JOBS = {  # {name: arguments of the command line, without --out}
    "darts": DARTS,
    "seeds": [*DARTS, "--seeds", "2"],
    "main-job": ["search", "--data", "table.npz", "--trials", "2", "--train-steps", "6", "--batch", "16"],
    "bench": ["bench", "--tables", "small.npz", "--algorithms", "random", "aging", "local", "--queries", "30", "--seeds", "6"],
    "tabulate": ["tabulate", "--architectures", "20", "--steps", "2", "--channels", "2", "--batch", "16"],
    "rank": ["rank", "--architectures=10", "--proxy", "params", "synflow", "--channels=2", "--cells=1", "--batch=16"],
}
# what holds measured seconds, or is drawn from a log whose lines are as long as the clock says
CLOCKS = {
    "boosting.json",
    "times.json",
    "curves.png",
    "gates.png",
    "log.jsonl",
    "plan.json",
    "trials.jsonl",
    "report.html",
    "results.csv",
    "results.md",
}  # hold measured seconds
LOGS = {"checkpoints", "tensorboard"}
KILLS = 3  # of a run, and one more that is left alone


@pytest.fixture(scope="session")
def where(tmp_path_factory):
    """A directory with small data, and the runs without kills."""
    where = tmp_path_factory.mktemp("kills")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    np.savez(where / "table.npz", x=x, y=(x[:, 0] * x[:, 1] > 0).astype(int))
    archs = np.stack(np.unravel_index(np.arange(60), (3, 4, 5)), 1)
    np.savez(where / "small.npz", archs=archs, accuracy=rng.random(60), cost=1 + rng.random(60))
    return where


def begin(where, arguments):
    command = [sys.executable, "-m", "jaxnas.app.cli", *arguments]
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=None, cwd=where)
    return subprocess.Popen(command, **options)


def contents(out):
    """{file: its bytes} of all files without clocks; of arrays in archives, which hold the time of day, the arrays."""
    paths = [out] if out.is_file() else sorted(out.rglob("*"))
    held = {}
    for path in paths:
        if not path.is_file() or path.name in CLOCKS or LOGS & set(path.parts):
            continue
        inside = str(path.relative_to(out))  # "." of a run that is one file, whatever that is called
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                held[inside] = {n: arrays[n].tobytes() for n in arrays.files if n not in ("cost", "seconds")}
        else:
            held[inside] = path.read_bytes()
    return held


@pytest.fixture(scope="session")
def reference(where):
    """name -> (what a run without kills holds, its seconds, with programs that are compiled already)."""
    made = {}

    def make(name):
        if name not in made:
            for n in range(2):  # the first compiles
                out = where / f"{name}-whole-{n}{'.npz' if name == 'tabulate' else ''}"
                began = time.monotonic()
                process = begin(where, [*JOBS[name], "--out", str(out)])
                _, err = process.communicate(timeout=900)
                assert process.returncode == 0, err
                seconds = time.monotonic() - began
            first, second = (contents(where / f"{name}-whole-{n}{'.npz' if name == 'tabulate' else ''}") for n in range(2))
            assert first == second, [path for path in second if first.get(path) != second[path]]
            made[name] = second, seconds
        return made[name]

    return make


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", JOBS)
def test_kills_change_nothing(where, reference, name, seed):
    expected, seconds = reference(name)
    rng = np.random.default_rng([seed, *name.encode()])
    out = where / f"{name}-{seed}{'.npz' if name == 'tabulate' else ''}"
    for moment in [*rng.uniform(0.15, 1.0, KILLS), None]:
        arguments = [*JOBS[name], "--out", str(out)]
        if arguments[0] == "search" and (out / "config.json").exists():
            arguments = ["resume", str(out)]
        process = begin(where, arguments)
        try:
            process.wait(None if moment is None else moment * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            continue
        _, err = process.communicate()
        finished = "exists: give another --out" in err  # the kill came when all had been written
        assert process.returncode == 0 or finished, (moment, err)
        break
    assert contents(out) == expected
