"""Several processes take one run's steps together: the same result, one log, one stop, one line for what cannot be."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxnas.driver.lock import locked

HERE = pathlib.Path(__file__).resolve().parent


def start(count, asked):
    """The processes of a run, each with one CPU device unless `asked` says more."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    command = lambda i: [sys.executable, str(HERE / "one_process.py"), str(port), str(count), str(i), json.dumps(asked)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    return [subprocess.Popen(command(i), **pipes) for i in range(count)]


def ends(count, asked):
    """What each says at its end."""
    started = start(count, asked)
    try:
        said = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), said[0][1][-2000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def logged(directory):
    return [json.loads(line)["step"] for line in (directory / "log.jsonl").read_text().splitlines()]


def test_two_processes_are_one_run(tmp_path):
    """Seeds over both: two searches each; one log, the same answer for both, bit for bit that of one process."""
    asked = {"plan": "noisy", "mesh": {"seed": 2}, "seeds": 4, "steps": 7, "directory": str(tmp_path)}
    one, other = ends(2, asked)
    assert one == other and "error" not in one and logged(tmp_path)[-1] == 7
    (alone,) = ends(1, {**asked, "devices": 2, "directory": None})
    assert alone == one


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_a_batch_over_processes_a_stop_and_a_resume(tmp_path, count):
    """A SIGTERM on the last process alone stops all at the end of that chunk; the rest is bit-equal to the run that nothing cut."""
    asked = {"plan": "noisy", "mesh": {"batch": count}, "chunk": 5, "w": True, "directory": str(tmp_path / "whole")}
    whole = ends(count, asked)
    assert all(one == whole[0] and "error" not in one for one in whole), whole
    assert logged(tmp_path / "whole")[-1] == 23
    asked["directory"] = str(tmp_path / "cut")
    cut = ends(count, {**asked, "of": {str(count - 1): {"signal": "SIGTERM", "chunk": 2}}})
    at = logged(tmp_path / "cut")[-1]
    assert 1 < at < 23
    assert all(one["error"] == f"stopped by SIGTERM; saved at step {at}: continue with resume=True" for one in cut)
    resumed = ends(count, {**asked, "resume": True})
    assert all(one == resumed[0] and "error" not in one for one in resumed), resumed
    assert logged(tmp_path / "cut")[-1] == 23
    assert (resumed[0]["state"], resumed[0]["best"]) == (whole[0]["state"], whole[0]["best"])
    (alone,) = ends(1, {**asked, "devices": count, "directory": None})  # one process with as many devices
    np.testing.assert_allclose(alone["w"], whole[0]["w"], rtol=0, atol=1e-6 * np.abs(alone["w"]).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh, share",  # of two processes with two devices each; those of process 0 come first along the mesh's first axis
    [({"batch": 4}, 0.5), ({"seed": 4}, 0.5), ({"seed": 2, "batch": 2}, 0.5), ({"pop": 2, "batch": 2}, 1), ({"pop": 4}, 1)],
)
def test_each_process_reads_the_rows_of_its_devices(mesh, share):
    """Once, however many of them want the same; the result is that of the same data in memory."""
    seeds, steps = 4 if "seed" in mesh else None, 23
    asked = {"plan": "noisy", "steps": steps, "seeds": seeds, "w": True}
    one, other = ends(2, {**asked, "mesh": mesh, "devices": 2, "stream": True})
    assert one == other and one["rows"] == share * steps * 8 * (seeds or 1)
    (alone,) = ends(1, asked)
    np.testing.assert_allclose(one["w"], alone["w"], 1e-5)


@pytest.mark.slow
def test_what_one_process_cannot_read_ends_all():
    asked = {"plan": "noisy", "mesh": {"batch": 2}, "stream": True, "of": {"1": {"unreadable": 20}}}
    one, other = ends(2, asked)
    assert one == {"error": "process 1 cannot read the data; it says why"} and other == {"error": "call 20 cannot be read"}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("plan", ["evolution", "phases"])
def test_a_kill_of_one_and_a_restart_of_all(tmp_path, count, plan):
    """kill -9 of process 1 ends the run; all started again go on from the last checkpoint, to the same bits."""
    if plan == "evolution":
        asked = {"plan": plan, "mesh": {"pop": 2, "batch": count // 2}, "steps": 23}
    else:
        asked = {"plan": plan, "mesh": {"batch": count}}
    asked |= {"chunk": 2, "save_every": 0.0, "directory": str(tmp_path / "whole")}
    whole = ends(count, asked)
    assert all(one == whole[0] and "error" not in one for one in whole), whole
    asked["directory"] = str(tmp_path / "cut")
    started = start(count, {**asked, "of": {"1": {"signal": "SIGKILL", "chunk": 4}}})
    assert started[1].wait(240) == -signal.SIGKILL
    for process in started:
        process.kill()
        process.communicate()
    assert 0 < logged(tmp_path / "cut")[-1] < logged(tmp_path / "whole")[-1]
    resumed = ends(count, {**asked, "resume": True})
    assert all((one["state"], one["best"]) == (whole[0]["state"], whole[0]["best"]) for one in resumed), resumed


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked, words",
    [
        (
            {"mesh": {"batch": 2}, "of": {"1": {"steps": 5}}},
            "the steps is 23 in process 0, and 5 in process 1",
        ),
        ({"mesh": {"batch": 2}, "of": {"1": {"n": 31}}}, "the processes disagree: the data is"),
        (
            {"mesh": {"batch": 1}},
            "a mesh of batch=1 fills 1 of the 2 devices, and several processes need all of them: enlarge an axis",
        ),
        ({}, "several processes need a mesh: give one of all devices"),
        ({"mesh": {"batch": 2}, "directory": "HELD"}, "is in use by process"),
    ],
)
def test_processes_that_cannot_be(tmp_path, asked, words):
    asked = {**asked, "plan": "noisy"}
    with contextlib.ExitStack() as stack:
        if "directory" in asked:
            asked["directory"] = str(tmp_path)
            stack.enter_context(locked(tmp_path))
        said = ends(2, asked)
    assert all("error" in one for one in said) and words in said[-1]["error"], said
    assert words in said[0]["error"] or "process 1 has another configuration, data or code" in said[0]["error"]


@pytest.mark.slow
def test_a_search_of_the_command_line_ends_in_both(tmp_path):
    """Process 0 writes all that there is; the other computes the same, and throws it away."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    sizes = ["--steps", "2", "--channels", "2", "--cells", "1", "--train-steps", "2"]
    where = ["--out", str(tmp_path / "run"), "--distributed", "--coordinator", f"localhost:{port}", "--processes", "2"]
    command = [sys.executable, "-m", "jaxnas.app.cli", "search", "--strategy", "darts", *sizes, *where, "--process"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(HERE.parent)})
    started = [subprocess.Popen([*command, str(i)], **pipes) for i in range(2)]
    try:
        said = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], said
    assert "found" in json.loads((tmp_path / "run" / "result.json").read_text())
    assert "genotype" in said[0][0] and "genotype" not in said[1][0]  # gloo says there which processes it has found
