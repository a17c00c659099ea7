"""A study on a Ray cluster: tasks that raise, processes that die, a driver that is killed or interrupted."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import laws
import numpy as np
import pytest
import study_worker

import jaxnas as nas
from jaxnas import ask_tell
from jaxnas.studies import cluster

HERE = pathlib.Path(__file__).parent
SPACE = laws.flat_space()
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`")


def drive(directory, trials, delay=0.3, room=4, patience=60.0):
    """A driver's process, with a Ray of its own."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    command = [sys.executable, HERE / "ray_driver.py", directory, *map(str, (trials, delay, room, patience))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def check(directory, trials):
    """Each trial is told once, trial 3 has failed, trial 5 was lost and handed out again."""
    events = [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]
    assert sorted(e["told"] for e in events if "told" in e) == [n for n in range(trials) if n != 3]
    study = study_worker.make(directory, trials)
    records = study.trials()
    assert {r.id: r.reason for r in records if r.state == "failed"} == {3: "RuntimeError: out of"}
    assert records[5].attempt >= 2
    assert [r.scores[0] for r in records if r.scores] == [
        np.float32(study_worker.value(study.arch(r.id))) for r in records if r.scores
    ]
    assert "RuntimeError: out of\nmemory" in next(directory.glob("trials/3-*/errors.txt")).read_text()
    return study


@needs_ray
def test_four_workers(tmp_path):
    driver = drive(tmp_path / "ray", 100)
    said = driver.communicate(timeout=600)[0]
    assert driver.returncode == 0 and "told 99 in " in said
    assert "trial 3: failed: RuntimeError: out of\n" in said and "trial 5: lost: WorkerCrashedError: " in said
    found = check(tmp_path / "ray", 100).best().scores[0]
    assert (tmp_path / "ray" / "run-5-2").exists()
    alone = []
    for seed in range(5):
        study = nas.study(tmp_path / f"{seed}", SPACE, nas.aging_evolution(SPACE, 10, 3), trials=100, seed=seed)
        while (trial := study.ask()) != "finished":
            study.tell(trial.id, {"accuracy": study_worker.value(trial.arch)})
        alone.append(study.best().scores[0])
    sys.stdout.write(f"{said.splitlines()[-1]}; best {found:.4f}, alone {np.round(alone, 4)}\n")
    assert found >= min(alone) - 3 * np.std(alone) - 0.01


@needs_ray
@pytest.mark.slow
def test_a_driver_is_killed_and_another_interrupted(tmp_path):
    driver = drive(tmp_path, 24, patience=4.0)
    for _ in range(8):
        driver.stdout.readline()
    driver.kill()
    driver.communicate()
    driver = drive(tmp_path, 24, delay=1.0, patience=4.0)
    driver.stdout.readline()
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=600)
    assert driver.returncode
    study = study_worker.make(tmp_path, 24)
    mine = {e["worker"] for e in _runs(tmp_path)}
    assert len(mine) == 2 and not [r for r in study.trials() if r.state == "running" and r.worker == _runs(tmp_path)[-1]["worker"]]
    driver = drive(tmp_path, 24, patience=4.0)
    driver.communicate(timeout=600)
    assert driver.returncode == 0
    check(tmp_path, 24)


def _runs(directory):
    return [e for e in map(json.loads, (directory / "journal.jsonl").read_text().splitlines()) if "run" in e]


def test_room_is_of_each_node():
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0, "fast": 1.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    assert cluster.room(nodes, {"num_cpus": 1}) == 7
    assert cluster.room(nodes, {"num_cpus": 2}) == 3
    assert cluster.room(nodes, {"num_cpus": 1, "num_gpus": 0.1}) == 4
    assert cluster.room(nodes, {"num_cpus": 0.1, "num_gpus": 0, "fast": 0.5}) == 2
    assert cluster.room(nodes, {"num_cpus": 1, "fast": 2}) == 0


def test_a_task_keeps_its_exceptions():
    raises = lambda error: lambda trial: (_ for _ in ()).throw(error)
    assert cluster.run_trial(lambda trial: {"accuracy": trial}, 0.5).metrics == {"accuracy": 0.5}
    for error, said in ((ValueError("no\nsuch"), "ValueError: no"), (KeyError(), "KeyError"), (SystemExit(3), "SystemExit: 3")):
        outcome = cluster.run_trial(raises(error), None)
        assert outcome.metrics is None and outcome.reason == said and not outcome.lost and outcome.trace
    assert "returned None" in cluster.run_trial(lambda trial: None, None).reason


def test_a_trial_is_lost_by_who_has_it(tmp_path):
    study = nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE), trials=1)
    for attempt in (1, 2, 3):
        assert study.ask().attempt == attempt
        study.lose(0, attempt - 1, "the node died")  # somebody else has it by now
        study.give_back(0, attempt - 1)
        assert study.trials()[0].state == "running"
        study.lose(0, attempt, "the node died")
    assert study.ask() == "finished" and study.trials()[0].reason == "lost 3 times: the node died"


def test_several_trials_give_signs_of_life(tmp_path):
    study = nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE), patience=0.4)
    held = {}
    with study.beating(held):
        for _ in range(2):
            held[study.ask().id] = None
        time.sleep(1.2)
        assert study.ask().id == 2
    time.sleep(0.6)
    assert study.ask().id in (0, 1, 2)


@needs_ray
@pytest.mark.filterwarnings("ignore:.*fork", "ignore::pytest.PytestUnraisableExceptionWarning")  # Ray starts its processes so
def test_bad_input_is_told_in_one_line(tmp_path, monkeypatch):
    ray = importlib.import_module("ray")
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent}{os.pathsep}{HERE}")  # of its workers
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    make = lambda n: nas.study(tmp_path / str(n), SPACE, ask_tell.random_search(SPACE))
    work = nas.studies.work_on_ray
    try:
        for wanted, said in (({"num_gpus": 1}, "no node of this cluster has"), ({"num_cpus": 0}, "must need some resource")):
            with pytest.raises(ValueError, match=said):
                work(make(0), lambda trial: {"accuracy": 0.5}, resources=wanted)
        with (tmp_path / "open").open("w") as file, pytest.raises(ValueError, match="the function cannot be pickled"):
            work(make(0), lambda trial: {"accuracy": file.write("")})
        assert not make(0).trials()
        with pytest.raises(ValueError, match="no metric named 'accuracy'"):
            work(make(1), lambda trial: {"acc": 0.5})
        assert make(1).trials()[0].state == "waiting"
        with pytest.raises(ValueError, match=r"the last 2 trials have failed, the last one so: .*pickle"):
            work(make(2), lambda trial: {"accuracy": threading.Lock()}, failures=2)
    finally:
        ray.shutdown()


def test_without_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxnas\[ray\]'"):
        nas.studies.work_on_ray(nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE)), lambda trial: {"accuracy": 0.5})
