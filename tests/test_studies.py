"""Studies on disk: any algorithm, told out of order; workers that are killed; what a person can get wrong."""

import errno
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
import study_worker

import jaxnas as nas
from jaxnas import ask_tell, objectives
from jaxnas.app import cli
from jaxnas.studies import journal

HERE = pathlib.Path(__file__).parent
SPACE = laws.flat_space()
ALL = {**laws.ALGORITHMS, **laws.BUDGETED, "nsga2": lambda s: ask_tell.nsga2(s, 2, population=4)}
TWO = objectives.columns(objectives.metric("accuracy"), objectives.negative("cost"))


def score(trial):
    return {"accuracy": study_worker.value(trial.arch) * (1.0 if trial.stop is None else trial.stop / 9), "cost": trial.id % 7}


def events(study):
    return [json.loads(line) for line in (study.directory / "journal.jsonl").read_text().splitlines()]


def run_open(study, draw, n=4):
    """Up to n trials open at once, told in random order, until it is finished; some fail."""
    trials = []
    while True:
        asked = study.ask() if len(trials) < n else "wait"
        if isinstance(asked, str):
            if not trials:
                assert asked == "finished"
                return
            trial = trials.pop(draw.randrange(len(trials)))
            study.fail(trial.id, "by chance") if draw.random() < 0.1 else study.tell(trial.id, score(trial))
        else:
            slots = [t.slot for t in trials if t.slot is not None]
            assert asked.slot not in slots, "a slot is given out twice"
            trials.append(asked)


@pytest.mark.parametrize("name", ALL)
def test_every_algorithm_is_told_out_of_order(name, tmp_path):
    algorithm = ALL[name](SPACE)
    objective = TWO if algorithm.columns else None
    study = nas.study(tmp_path, SPACE, algorithm, objective, trials=13)
    run_open(study, random.Random(0))
    trials = study.trials()
    assert sum(t.state in ("told", "failed") for t in trials) == 13
    assert all(np.array_equal(SPACE.flat(study.arch(t.id)), SPACE.flat(SPACE.from_text(t.text))) for t in trials[:2])
    if algorithm.columns:
        assert study.front()
    else:
        assert study.best().scores is not None


def test_an_algorithm_that_grows_cells(tmp_path):
    space = nas.spaces.nasbench201()
    surrogate = nas.surrogates.ensemble(nas.surrogates.Perceptron(4, 1), space.features, members=2, epochs=2, later_rate=0.002)
    algorithm = ask_tell.progressive(ask_tell.growing_edges(space), surrogate, beam=4, batch=4)
    study = nas.study(tmp_path, space, algorithm, trials=10)
    held = []
    while (trial := study.ask()) != "finished":
        if trial == "wait":
            trial = held.pop()
            study.tell(trial.id, {"accuracy": float(np.sum(trial.arch.op == 3))})
        else:
            held.append(trial)
    assert len(study.trials()) == 12 and study.best().text  # three batches of four, of which two were not handed out


def test_one_process_is_the_plain_search(tmp_path):
    """The candidates of a loop of ask and tell with the same keys."""
    algorithm = laws.ALGORITHMS["aging"](SPACE)
    study = nas.study(tmp_path, SPACE, algorithm, trials=24, seed=3)
    asked = []
    while (trial := study.ask()) != "finished":
        asked.append(SPACE.flat(trial.arch))
        study.tell(trial.id, score(trial))
    k_init, root = jax.random.split(jax.random.key(3))
    state, plain = algorithm.init(k_init), []
    for n in range(12):
        k_ask, k_tell = jax.random.split(jax.random.fold_in(root, n))
        state, archs = algorithm.ask(k_ask, state)
        plain += list(jax.vmap(SPACE.flat)(archs))
        values = [study_worker.value(jax.tree.map(lambda a: a[b], archs)) for b in range(2)]
        state = algorithm.tell(k_tell, state, archs, jnp.asarray(values, jnp.float32))
    assert np.array_equal(asked, plain)


@pytest.mark.parametrize("name", ["aging", "asha", "tournament"])
def test_two_processes_come_to_the_same_state(name, tmp_path):
    make = lambda: nas.study(tmp_path, SPACE, ALL[name](SPACE), trials=20)
    one, other = make(), make()
    run_open(one, random.Random(1))
    assert other.ask() == "finished"
    states = [jax.tree.leaves(study._replay._state) for study in (one, other)]
    assert all(np.array_equal(a, b) for a, b in zip(*states, strict=True))


def test_asha_promotes_while_others_are_open(tmp_path):
    study = nas.study(tmp_path, SPACE, ask_tell.asha(SPACE, 9, capacity=20), trials=60)
    run_open(study, random.Random(2), n=5)
    trials = study.trials()
    assert {t.stop for t in trials} == {1, 3, 9}
    for t in trials:
        if t.start:
            before = trials[t.continues]
            assert (before.slot, before.stop, before.text) == (t.slot, t.start, t.text)
    again = [(t.slot, t.continues) for t in trials if t.start]
    assert len(set(again)) == len(again), "a member is promoted once"


def test_asha_waits_where_all_slots_are_busy(tmp_path):
    study = nas.study(tmp_path, SPACE, ask_tell.asha(SPACE, 9, capacity=3))
    assert [study.ask().slot for _ in range(3)] == [0, 1, 2]
    assert study.ask() == "wait"
    study.tell(1, {"accuracy": 0.5})
    assert study.ask().slot == 1


def finish_with_kills(directory, workers, trials, kills, patience, delay, replace):
    """Runs worker processes, kills some at random moments, and starts others in their place or does not."""
    arguments = [str(directory), str(trials), str(patience), str(delay)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    command = [sys.executable, HERE / "study_worker.py", *arguments]
    start = lambda: subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    draw, running = random.Random(0), [start() for _ in range(workers)]
    everybody = [*running]
    try:
        for process in running:
            assert process.stdout.readline() == b"ready\n"
        for _ in range(kills):
            time.sleep(draw.uniform(0, 0.6))
            running.pop(draw.randrange(len(running))).send_signal(signal.SIGKILL)
            if replace:
                running.append(start())
                everybody.append(running[-1])
        assert not any(process.wait(600) for process in running)
    finally:
        for process in everybody:
            process.kill()
            process.wait()
            process.stdout.close()


def check_nothing_is_lost(study, trials):
    told = [e["told"] for e in events(study) if "told" in e]
    assert sorted(told) == list(range(trials)), "each is told, and once"
    assert {r.state for r in study.trials()} == {"told"}


def test_workers_are_killed(tmp_path):
    finish_with_kills(tmp_path, workers=5, trials=30, kills=3, patience=2.0, delay=0.1, replace=False)
    check_nothing_is_lost(study_worker.make(tmp_path, 30), 30)


@pytest.mark.slow
def test_twenty_workers_are_killed(tmp_path):
    finish_with_kills(tmp_path / "many", workers=8, trials=400, kills=20, patience=3.0, delay=0.3, replace=True)
    study = study_worker.make(tmp_path / "many", 400)
    check_nothing_is_lost(study, 400)
    best = []
    for seed in range(5):
        alone = nas.study(tmp_path / f"{seed}", SPACE, nas.aging_evolution(SPACE, 10, 3), trials=400, seed=seed)
        while (trial := alone.ask()) != "finished":
            alone.tell(trial.id, score(trial))
        best.append(alone.best().scores[0])
    found = study.best().scores[0]
    assert found >= min(best) - 3 * np.std(best) - 0.01, (found, best)


def silence(study, id):
    """The last sign of life was a minute and a half ago."""
    path = study.directory / "beats" / str(id)
    os.utime(path, (path.stat().st_mtime - 90,) * 2)


def test_a_lost_trial_is_handed_out_again_and_told_once(tmp_path):
    make = lambda: nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE), trials=1)
    slow, quick = make(), make()
    trial = slow.ask()
    assert quick.ask() == "wait"
    silence(slow, trial.id)
    slow.beat(trial.id)
    assert quick.ask() == "wait"
    silence(slow, trial.id)
    again = quick.ask()
    assert (again.id, again.attempt, again.text) == (trial.id, 2, trial.text)
    quick.tell(again.id, {"accuracy": 0.5})
    with pytest.raises(ValueError, match=r"trial 0 of .* is done \(told, by .*\): it is told once"):
        slow.tell(trial.id, {"accuracy": 0.9})
    assert slow.best().scores == [0.5] and slow.ask() == "finished"


def test_people_are_not_hurried(tmp_path):
    study = nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE), trials=1, patience=None)
    silence(study, study.ask().id)
    assert study.ask() == "wait"
    study.give_back(0)
    assert study.ask().attempt == 2


def test_a_trial_that_is_lost_three_times_has_failed(tmp_path):
    study = nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE), trials=1)
    for attempt in (1, 2, 3):
        assert study.ask().attempt == attempt
        silence(study, 0)
    assert study.ask() == "finished"
    assert "lost 3 times" in study.trials()[0].reason


def test_a_line_cut_short_is_removed(tmp_path):
    study = nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE))
    trial = study.ask()
    with open(tmp_path / "journal.jsonl", "a") as file:
        file.write('{"told":0,"metr')
    study.tell(trial.id, {"accuracy": 0.5})
    assert [next(iter(e)) for e in events(study)] == ["asked", "run", "told"]


def fill(monkeypatch):
    """A disk that takes ten bytes more."""
    write = os.pwrite

    def pwrite(file, content, offset):
        if len(content) > 10:
            return write(file, content[:10], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal.os, "pwrite", pwrite)


def test_a_full_disk(tmp_path, monkeypatch):
    study = nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE))
    trial, before = study.ask(), (tmp_path / "journal.jsonl").read_bytes()
    with monkeypatch.context() as full:
        fill(full)
        with pytest.raises(OSError, match=r"journal.jsonl \(No space left on device\): nothing was noted; make room"):
            study.tell(trial.id, {"accuracy": 0.5})
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    study.tell(trial.id, {"accuracy": 0.5})
    assert study.best().id == trial.id


def test_two_studies_in_one_directory(tmp_path):
    make = lambda tournament=3, **more: nas.study(tmp_path, SPACE, nas.aging_evolution(SPACE, 10, tournament), **more)
    make().ask()
    make(trials=7).ask()  # how many is no part of it
    with pytest.raises(ValueError, match="holds another study: the seed was 0, and is 1 here"):
        make(seed=1)
    with pytest.raises(ValueError, match="holds another study: the strategy was"):
        make(tournament=4)
    with pytest.raises(ValueError, match="holds another study: the metrics was 'accuracy', and is 'loss' here"):
        make(objective=objectives.negative("loss"))
    (tmp_path / "study.json").unlink()
    with pytest.raises(ValueError, match=r"journal.jsonl and no study.json"):
        make()


def test_bad_input_is_told_in_one_line(tmp_path):
    study = nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE))
    with pytest.raises(ValueError, match=r"no trial 3 in .*: the trials are none yet"):
        study.tell(3, {"accuracy": 0.5})
    trial = study.ask()
    for wrong in (3, -1, "0", True, 0.0, None):
        with pytest.raises(ValueError, match=r"no trial .*: the trials are 0 to 0"):
            study.tell(wrong, {"accuracy": 0.5})
    with pytest.raises(ValueError, match="no metric named 'accuracy': the evaluator reports acc"):
        study.tell(trial.id, {"acc": 0.5})
    for wrong in ({}, 0.5, {"accuracy": "high"}, {"accuracy": [0.5]}, {"accuracy": None}):
        with pytest.raises(ValueError, match=r"metrics are \{name: number\}"):
            study.tell(trial.id, wrong)
    study.tell(np.int64(trial.id), {"accuracy": np.float32(np.nan), "loss": 1})
    assert study.trials()[0].metrics == {"accuracy": None, "loss": 1.0} and study.best() is None
    with pytest.raises(ValueError, match=r"takes scores \[B\]; the objective gave them of one trial in shape \[1, 2\]"):
        nas.study(tmp_path / "two", SPACE, ask_tell.random_search(SPACE), TWO)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file, and a study is a directory"):
        nas.study(tmp_path / "file", SPACE, ask_tell.random_search(SPACE))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"\x00\xff\n", "not text"),
        (b'{"told":\n', "not JSON"),
        (b"[1]\n", "no table"),
        (b'{"sold":0}\n', "no line of a study"),
        (b'{"told":99,"metrics":{},"scores":[1.0]}\n', "names no trial"),
        (b'{"run":0,"attempt":1,"worker":"x","patience":null}\n', "handed out twice"),
    ],
)
def test_a_journal_that_is_damaged_in_the_middle(line, why, tmp_path):
    make = lambda: nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE))
    study = make()
    study.tell(study.ask().id, {"accuracy": 0.5})
    study.ask()
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(b"".join([*lines[:2], line, *lines[2:]]))
    with pytest.raises(ValueError, match=rf"line 3 of .*journal.jsonl is damaged \(.*{why}.*\): put back a copy"):
        make()


SCRIPT = """
import json, os, sys
trial = json.load(open(os.environ["JAXNAS_TRIAL"]))
assert trial["text"] == os.environ["JAXNAS_ARCH"] and str(trial["id"]) == os.environ["JAXNAS_ID"]
print("training", trial["text"])
if trial["id"] == 1:
    sys.exit("out of memory")
if trial["id"] == 2:
    json.dump({"accuracy": 0.25}, open(os.environ["JAXNAS_RESULT"], "w"))
print(json.dumps({"accuracy": trial["id"] / 10}))
print("done")
"""


def test_a_script_of_the_user(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    study = nas.study(tmp_path / "study", SPACE, ask_tell.random_search(SPACE), trials=4)
    lines = []
    assert nas.studies.work(study, [sys.executable, str(tmp_path / "train.py")], say=lines.append) == 3
    assert [t.scores and round(t.scores[0], 6) for t in study.trials()] == [0.0, None, 0.25, 0.3]
    assert study.trials()[1].reason == "exit code 1, out of memory" and lines[1] == "trial 1: failed: exit code 1, out of memory"
    assert (tmp_path / "study" / "trials" / "3-1" / "output.txt").read_text().startswith("training")


def test_a_worker_of_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    script = ("--", sys.executable, "train.py")
    assert cli.main(["worker", "mine", "--strategy", "random", "--trials", "3", "--space", "mobile", *script]) == 0
    out, err = capsys.readouterr()
    assert "2 trials of mine\ntrial 2: " in out and "trial 1: failed: exit code 1, out of memory" in err
    assert cli.main(["worker", "mine", "--trials", "4", *script]) == 0  # it goes on, with what it was made of
    assert "1 trials of mine\ntrial 3: " in capsys.readouterr().out
    for more, said in (
        (["--space", "darts"], "mine holds another study: space was 'mobile', and is 'darts' here"),
        (["--strategy", "random:population=3"], "random:population=3 has no 'population'"),
        (["--objectives", "accuracy,"], "--objectives names metrics with commas between them"),
        (["--strategy", "spos"], "spos asks for no candidates"),
        (["--objectives", "accuracy,-loss"], "takes scores [B]; the objective gave them of one trial in shape [1, 2]"),
    ):
        assert cli.main(["worker", "mine", *more, *script]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["worker", "mine"]) == 2
    assert "give the program that runs a trial: jaxnas worker mine -- python train.py" in capsys.readouterr().err
    (tmp_path / "own.py").write_text(
        "import jaxnas as nas\nspace = nas.spaces.nasbench201()\n"
        "study = nas.study('own', space, nas.random_search(space), trials=1)"
    )
    assert cli.main(["worker", "own.py", *script]) == 0
    assert "trial 0: |" in capsys.readouterr().out


def test_a_script_that_is_broken(tmp_path):
    study = nas.study(tmp_path, SPACE, ask_tell.random_search(SPACE))
    with pytest.raises(ValueError, match="the last 2 trials have failed, the last one so: its output has no JSON object"):
        nas.studies.work(study, [sys.executable, "-c", "print(3)"], failures=2)
    with pytest.raises(ValueError, match=r"cannot start ./no such program \(No such file or directory\)"):
        nas.studies.work(study, ["./no such program"])
    assert study.trials()[-1].state == "waiting"  # it was given back
    with pytest.raises(ValueError, match="give the program that runs a trial"):
        nas.studies.work(study, [])
