"""Studies of the command line: made of names in the tables, or by a Python file of one's own."""

import pathlib
from typing import Any

from jaxnas import objectives
from jaxnas.app.bench import settings_of
from jaxnas.app.commands import Worker
from jaxnas.app.methods import METHODS
from jaxnas.app.search import make_space
from jaxnas.app.settings import load_plugins, module_of
from jaxnas.driver.files import read_json
from jaxnas.studies import Study, study

SETTINGS = {"space": "nasbench201", "strategy": "aging", "objectives": "accuracy", "trials": 100, "seed": 0}  # of a new study


def open_study(command: Worker) -> Study:
    """The study that a worker names: it is made where there is none.

    Raises:
        ValueError: for a file without a study, names that are in no table, or others than those the study was made of.
    """
    if command.study.endswith(".py"):
        load_plugins((command.study,))
        made = getattr(module_of(command.study), "study", None)
        if not isinstance(made, Study):
            raise ValueError(f"{command.study} has no `study`: make one, study = nas.study(...)")
        return made
    named = _named(command)
    space = make_space(named["space"])
    method = METHODS.find(named["strategy"].partition(":")[0])
    if method.algorithm is None:
        raise ValueError(f"{named['strategy']} asks for no candidates: give a strategy that does, such as aging")
    made: Any = method.algorithm
    algorithm = made(space, named["trials"], settings_of(named["strategy"]), _no_cost)
    names = named["objectives"].split(",")
    if not all(name.strip("- ") for name in names):
        raise ValueError(f"--objectives names metrics with commas between them, as accuracy,-latency, not {named['objectives']!r}")
    columns = [objectives.negative(n[1:]) if n.startswith("-") else objectives.metric(n) for n in names]
    objective = columns[0] if len(columns) == 1 else objectives.columns(*columns)
    limits = dict(trials=command.trials or named["trials"], patience=command.patience)
    return study(command.study, space, algorithm, objective, seed=named["seed"], settings=named, **limits)


def _named(command: Worker) -> dict[str, Any]:
    """What a study is of: what is given, or what study.json holds, or the default."""
    path = pathlib.Path(command.study) / "study.json"
    held: dict[str, Any] = {}
    if path.exists():
        try:
            held = {name: read_json(path)[name] for name in SETTINGS}
        except (ValueError, TypeError):
            raise ValueError(f"{path} is damaged: put back a copy, or name another directory") from None
        except KeyError:
            raise ValueError(f"{command.study} was made by a program: give the file.py that makes it") from None
    given = {name: value for name in SETTINGS if (value := getattr(command, name)) is not None}
    return {**SETTINGS, **given, **held} | {name: value for name, value in given.items() if not held or name != "trials"}


def _no_cost(gates: Any) -> float:
    raise ValueError("a worker knows no multiply-adds: give a strategy that wants none, and let the program report them")


def answer(study: Study) -> str:
    """What was found so far, in a line or a few."""
    found = study.front() if study.columns is not None else [best] if (best := study.best()) else []
    said = lambda trial: ", ".join(f"{name} {value:.6g}" for name, value in trial.metrics.items() if value is not None)
    return "\n".join(f"trial {trial.id}: {trial.text}, {said(trial)}" for trial in found) or "no trial has a finite score yet"
