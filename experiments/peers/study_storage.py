"""Trials a second of a study's storage, against Optuna's two kinds that several processes can share.

    python experiments/peers/study_storage.py [TRIALS [REPETITIONS]]        (needs the extra `peers`: optuna)

A trial is asked for, told, and on the disk: random search over five decisions of four values, nothing is trained.  The four
contestants take turns; every repetition has directories of its own; seconds are medians.  "fsync" is what a study waits for at each
`tell`; it is also timed without, and so is Optuna's journal, which syncs each line.  Optuna's SQLite file has its default settings.
Then one process tells all but the last trial and another opens the study: `open` is what that takes.

One core of two, the other busy, 2 minutes; jax 0.10.2, Optuna 5.0.

Results: docs/results.md#the-storage-of-a-study-against-optunas
"""

import os
import statistics
import sys
import tempfile
import time
import warnings

import jax
import numpy as np
import optuna

import jaxnas as nas
from jaxnas.studies import journal

ARITY = [4] * 5


def ours(trials, sync=True):
    """(seconds of all trials but the first, seconds of opening the study again)."""
    fsync = os.fsync
    journal.os.fsync = fsync if sync else lambda file: None
    try:
        with tempfile.TemporaryDirectory() as directory:
            space = nas.spaces.space(ARITY)
            make = lambda: nas.study(directory, space, nas.random_search(space), trials=trials)
            study = make()
            seconds = loop(lambda: study.ask().id, lambda trial, value: study.tell(trial, {"accuracy": value}), trials - 1)
            start = time.perf_counter()
            assert make().ask().id == trials - 1
            return seconds, time.perf_counter() - start
    finally:
        journal.os.fsync = fsync


def optunas(trials, make_storage):
    with tempfile.TemporaryDirectory() as directory:
        sampler = optuna.samplers.RandomSampler(0)
        study = optuna.create_study(study_name="one", storage=make_storage(directory), sampler=sampler, direction="maximize")

        def ask():
            trial = study.ask()
            for d, n in enumerate(ARITY):
                trial.suggest_int(str(d), 0, n - 1)
            return trial

        seconds = loop(ask, study.tell, trials - 1)
        start = time.perf_counter()
        optuna.load_study(study_name="one", storage=make_storage(directory), sampler=sampler).ask()
        return seconds, time.perf_counter() - start


def file_journal(directory):
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(os.path.join(directory, "journal.log")))


def sqlite(directory):
    return optuna.storages.RDBStorage(f"sqlite:///{directory}/study.db")


def loop(ask, tell, trials):
    draw = np.random.default_rng(0)
    tell(ask(), 0.0)  # compiles
    start = time.perf_counter()
    for _ in range(trials - 1):
        tell(ask(), float(draw.random()))
    return time.perf_counter() - start


CONTESTANTS = {
    "a study": ours,
    "a study, without fsync": lambda trials: ours(trials, sync=False),
    "Optuna, JournalStorage on a file": lambda trials: optunas(trials, file_journal),
    "Optuna, RDBStorage on SQLite": lambda trials: optunas(trials, sqlite),
}


def main(trials=300, repetitions=3):
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    taken = {name: [] for name in CONTESTANTS}
    for _ in range(repetitions):
        for name, run in CONTESTANTS.items():
            taken[name].append(run(trials))
    print(f"jax {jax.__version__}, Optuna {optuna.__version__}, {trials} trials, {repetitions} repetitions")
    print("| | trials a second | open, seconds |\n|---|---|---|")
    for name, runs in taken.items():
        loops, opened = zip(*runs, strict=True)
        print(f"| {name} | {(trials - 2) / statistics.median(loops):.0f} | {statistics.median(opened):.2f} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
