"""A worker: runs a user's own program for each trial of a study, in any language.

The program finds in its environment

    JAXNAS_TRIAL     a JSON file {"id", "text", "arrays", "attempt", "start", "stop", "slot", "continues", "study"}
    JAXNAS_ID        the trial's number
    JAXNAS_ARCH      the architecture as text
    JAXNAS_START, JAXNAS_STOP    from where to where to train it; not set where the algorithm knows no budgets
    JAXNAS_RESULT    a file that it may write its answer to

and answers with {"accuracy": 0.93, ...}: in that file, or else as the last line of its output that is a JSON object.  With another
exit code than 0, or without an answer, the trial has failed.  All of it is kept in trials/ID-ATTEMPT of the study.
"""

import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxnas.checks import checked
from jaxnas.driver.files import parse_json
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.studies.ledger import OpenTrial
from jaxnas.studies.study import Study

FAILURES = 5  # in a row, after which a worker takes its program to be broken


@checked
def work(
    study: Study,
    command: Sequence[str],
    *,
    poll: PositiveNumber = 1.0,
    failures: Positive = FAILURES,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Runs `command` for one trial after the other until the study is finished -> the trials told.

    Args:
        study: whose trials.
        command: the program and its arguments.
        poll: seconds before it asks again where there is nothing to do.
        failures: in a row, after which it stops, default 5.
        say: takes a line about each trial.

    Raises:
        ValueError: for an empty command, a program that cannot be started, or one that has failed so often in a row.
    """
    if not command:
        raise ValueError("give the program that runs a trial: jaxnas worker STUDY -- python train.py")
    told = row = 0
    while (trial := study.ask()) != "finished":
        if trial == "wait":
            time.sleep(poll)
            continue
        try:
            metrics, reason = _run(study, trial, command)
            done = answer(study, trial, metrics, reason)
        except BaseException:
            study.give_back(trial.id, trial.attempt)
            raise
        said = done or (f"failed: {reason}" if metrics is None else json.dumps(metrics))
        say(f"trial {trial.id}: {said}")
        row = 0 if metrics is not None else row + 1
        told += done is None and metrics is not None
        if row >= failures:
            raise too_many(study, row, reason)
    return told


def too_many(study: Study, row: int, reason: str) -> ValueError:
    """The error for so many failures in a row."""
    return ValueError(f"the last {row} trials have failed, the last one so: {reason}; see {study.directory / 'trials'}")


def answer(study: Study, trial: OpenTrial, metrics: dict[str, Any] | None, reason: str) -> str | None:
    """Tells a trial; what was said against it where somebody else has told it meanwhile."""
    try:
        if metrics is None:
            study.fail(trial.id, reason)
        else:
            study.tell(trial.id, metrics)
    except ValueError as error:
        if study.is_done(trial.id):
            return str(error)
        raise
    return None


def _run(study: Study, trial: OpenTrial, command: Sequence[str]) -> tuple[dict[str, Any] | None, str]:
    """(the program's metrics, ""), or (None, why there are none)."""
    place = (study.directory / "trials" / f"{trial.id}-{trial.attempt}").resolve()
    place.mkdir(parents=True, exist_ok=True)
    result = place / "result.json"
    result.unlink(missing_ok=True)
    given = {**trial._asdict(), "study": str(study.directory.resolve())}
    given["arrays"] = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(given.pop("arch"))]
    (place / "trial.json").write_text(json.dumps(given, indent=2) + "\n")
    environment = {
        "JAXNAS_TRIAL": place / "trial.json",
        "JAXNAS_RESULT": result,
        "JAXNAS_ID": trial.id,
        "JAXNAS_ARCH": trial.text,
        "JAXNAS_START": trial.start,
        "JAXNAS_STOP": trial.stop,
    }
    said = {name: str(value) for name, value in environment.items() if value is not None}
    with (place / "output.txt").open("wb") as output, (place / "errors.txt").open("wb") as errors:
        try:
            process = subprocess.Popen(command, stdout=output, stderr=errors, env=os.environ | said)
        except OSError as error:
            raise ValueError(f"cannot start {command[0]} ({error.strerror}): give a program that runs a trial") from None
        try:
            with study.beating(trial.id):
                code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if code:
        last = _last_line(place / "errors.txt")
        return None, f"exit code {code}" + (f", {last}" if last else "")
    return _metrics(place)


def _metrics(place: pathlib.Path) -> tuple[dict[str, Any] | None, str]:
    """The program's answer."""
    file, output = place / "result.json", place / "output.txt"
    lines = [file.read_bytes()] if file.exists() else output.read_bytes().splitlines()[::-1]
    for line in lines:
        try:
            answer = parse_json(line)
        except ValueError:
            continue
        if isinstance(answer, dict):
            return answer, ""
    where = "its result file holds" if file.exists() else "its output has"
    return None, f'{where} no JSON object such as {{"accuracy": 0.9}}'


def _last_line(path: pathlib.Path) -> str:
    lines = path.read_bytes().decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""
