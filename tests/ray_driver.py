"""A driver process of tests/test_ray.py: python ray_driver.py DIRECTORY TRIALS DELAY OPEN PATIENCE."""

import os
import pathlib
import random
import signal
import sys
import time

import ray
import study_worker

import jaxnas as nas


def runs(directory, trial):
    """Notes that a trial is run."""
    (pathlib.Path(directory) / f"run-{trial.id}-{trial.attempt}").touch()


def main(directory, trials, delay, room, patience):
    ray.init(num_cpus=int(room), include_dashboard=False, log_to_driver=False, logging_level="error")
    study = study_worker.make(directory, int(trials), float(patience))

    def train(trial):
        runs(directory, trial)
        if trial.id == 3:
            raise RuntimeError("out of\nmemory")
        if trial.id == 5 and trial.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(random.expovariate(1 / float(delay)))
        return {"accuracy": study_worker.value(trial.arch)}

    say = lambda line: sys.stdout.write(f"{line}\n") and sys.stdout.flush()
    begun = time.time()
    told = nas.studies.work_on_ray(study, train, poll=0.1, say=say)
    say(f"told {told} in {time.time() - begun:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
