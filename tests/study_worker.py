"""A worker process of tests/test_studies.py: python study_worker.py DIRECTORY TRIALS PATIENCE DELAY."""

import random
import sys
import time

import numpy as np
from laws import flat_space

import jaxnas as nas

TABLE = np.random.default_rng(0).random(1024)  # of `flat_space`


def make(directory, trials, patience=60.0):
    space = flat_space()
    return nas.study(directory, space, nas.aging_evolution(space, 10, 3), trials=trials, patience=patience)


def value(arch):
    return float(TABLE[np.ravel_multi_index(tuple(np.asarray(arch.a)), (4,) * 5)])


def main(directory, trials, patience, delay):
    study, draw = make(directory, int(trials), float(patience)), random.Random()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while (trial := study.ask()) != "finished":
        if trial == "wait":
            time.sleep(0.05)
            continue
        with study.beating(trial.id):
            time.sleep(draw.expovariate(1 / float(delay)))
        try:
            study.tell(trial.id, {"accuracy": value(trial.arch)})
        except ValueError:  # it was slow, and somebody else has told it
            if not study.is_done(trial.id):
                raise


if __name__ == "__main__":
    main(*sys.argv[1:])
