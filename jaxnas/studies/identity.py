"""Of what a study is, in plain values: study.json, which every process that joins compares with its own."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import described
from jaxnas.driver.files import read_json, write_whole
from jaxnas.driver.fingerprint import PLATFORM, STRATEGY, difference, of_arrays, of_program
from jaxnas.objectives import Objective
from jaxnas.spaces._space import Space
from jaxnas.studies.replay import Replay


def wrong_shape(columns: int | None, shape: tuple[int, ...]) -> str:
    """The words for scores that the algorithm does not take."""
    wanted = "[B]" if columns is None else f"[B, {columns}]"
    return f"this algorithm takes scores {wanted}; the objective gave them of one trial in shape {[*shape]}"


class _Recorder(dict):
    """Metrics of any name, which remember what was read."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> jax.Array:
        self[name] = jnp.ones(1, jnp.float32)
        return self[name]


def _objective_program(objective: Objective, columns: int | None) -> tuple[str, str]:
    """(the metrics that an objective reads, a hash of what it computes); of one that cannot be traced, its name."""
    recorder = _Recorder()
    try:
        objective(recorder)
        names = sorted(recorder)
        program = jax.make_jaxpr(objective)({name: jnp.ones(1, jnp.float32) for name in names})
        shape = program.out_avals[0].shape
    except Exception:  # an objective may be any function: what it wants is said when it is told
        return "unknown", getattr(objective, "__qualname__", type(objective).__name__)
    if shape != ((1,) if columns is None else (1, columns)):
        raise ValueError(wrong_shape(columns, shape))
    return ", ".join(names), of_program(program)


def identity(space: Space, replay: Replay, objective: Objective, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a study is of, in plain values."""
    import jaxnas

    names, program = _objective_program(objective, replay.algorithm.columns)
    shapes = jax.tree.map(lambda s: np.zeros(s.shape[1:], s.dtype), replay.shapes)
    here = {
        **settings,
        "the space": f"{type(space.spec).__name__}, {len(space.arity)} decisions {of_arrays((space.arity, shapes))}",
        "the metrics": names,
        "the seed": int(seed),
        "the version of jaxnas": jaxnas.__version__,
        PLATFORM: f"{jax.default_backend()}, JAX {jax.__version__}",
        STRATEGY: replay.fingerprint,
        f"{STRATEGY}'s objective": program,
    }
    try:
        text = json.dumps(here, allow_nan=False)
    except (TypeError, ValueError):
        text = None
    if text is None or None in settings.values():  # None would be no value
        raise ValueError(f"`settings` must hold what JSON can, and no None; got {described(settings)}")
    return json.loads(text)


def keep_identity(directory: pathlib.Path, here: dict[str, Any]) -> None:
    """Writes study.json, or compares with it; the lock is held.

    Raises:
        ValueError: for a directory of another study, with the field that differs, or a damaged one.
    """
    path = directory / "study.json"
    if not path.exists():
        if (directory / "journal.jsonl").stat().st_size:
            raise ValueError(f"{directory} has a journal.jsonl and no study.json: put it back, or name another directory")
        write_whole(path, json.dumps(here, indent=2) + "\n")
        return
    try:
        held = read_json(path)
        differ = difference(held, here)
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is damaged: put back a copy, or name another directory") from None
    if differ:
        field, was, now = differ
        raise ValueError(f"{directory} holds another study: {field} was {described(was)}, and is {described(now)} here")
