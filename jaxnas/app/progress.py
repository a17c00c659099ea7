"""A run seen from outside, by what its directory holds: a bar in the terminal, and `jaxnas watch`.  Nothing here writes there."""

import contextlib
import math
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from jaxnas.app.config import Config
from jaxnas.driver.files import read_json, read_rows

Say = Callable[[str], None]
COUNTS = {"number", "start", "stop", "params", "macs", "seconds", "waited", "at"}
FIELDS = {"arm", "number", "start", "stop", "genotype", "score", "error", "loss", "params", "macs", "seconds", "waited", "at"}


def rows(path: pathlib.Path) -> list[dict]:
    """The lines of a .jsonl file up to one that is damaged or just being written; none where there is no such file."""
    return read_rows(path)[0]


def trials(directory: pathlib.Path) -> list[dict]:
    """What trials.jsonl says of each trial, in the order in which they ended; scores are numbers, -inf of what diverged."""
    found = []
    for row in rows(directory / "trials.jsonl"):
        if row.keys() >= FIELDS and _numbers(row).keys() >= COUNTS:
            with contextlib.suppress(ValueError, TypeError):  # another program's line
                found.append(row | {name: float(row[name]) for name in ("score", "error", "loss")})
    return found


def _numbers(held: dict[str, Any]) -> dict[str, Any]:
    """Those values that are numbers, which is all that is looked at."""
    return {name: value for name, value in held.items() if isinstance(value, int | float)}


def best_of(found: list[dict]) -> float:
    """The largest score; -inf of none."""
    return max((row["score"] for row in found), default=-math.inf)


@contextlib.contextmanager
def bar(directory: pathlib.Path, config: Config, say: Say, *, shown: bool) -> Generator[Say, None, None]:
    """A bar of the main job on stderr, of the seconds or the trials that it may take; yields a `say` that writes above it.

    Args:
        directory: of the run.
        config: its config.
        say: takes a line for a person.
        shown: else there is no bar, and `say` is yielded as it is.
    """
    if not shown:
        yield say
        return
    from tqdm import tqdm

    began, before = time.monotonic(), max((row["at"] for row in trials(directory)), default=0.0)
    total = 60 * config.minutes if config.trials is None else 2 * config.trials
    stop = threading.Event()
    unit = "s" if config.trials is None else "trial"
    shape = "{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} " + unit + "{postfix}"
    shows = tqdm(total=total, file=sys.stderr, dynamic_ncols=True, bar_format=shape, leave=False)

    def follow():
        while not stop.wait(1.0):
            found = trials(directory)
            n = before + time.monotonic() - began if config.trials is None else len(found)
            shows.n = min(n, total)
            if found:
                shows.set_postfix_str(f"{len(found)} trials, best {best_of(found):.4f}", refresh=False)
            shows.refresh()

    def above(words: str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            say(words)

    thread = threading.Thread(target=follow, name="bar", daemon=True)
    thread.start()
    try:
        yield above
    finally:
        stop.set()
        thread.join()
        shows.close()


# --- watch ------------------------------------------------------------------------------------------------------------


def watch(directory: str | pathlib.Path, every: float = 1.0) -> Iterator[str]:
    """Lines for a person as a run goes on, until it has its result: one for each trial, or for each part of a supernet's log.

    Args:
        directory: of the run.
        every: so many seconds it is looked at.

    Raises:
        ValueError: for what is no run directory.
    """
    if not str(directory).strip():
        raise ValueError("the run has no name: give its directory, such as runs/portfolio-1")
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise ValueError(f"there is no run {directory}: give a run directory, such as runs/portfolio-1")
    if not (directory / "config.json").exists():
        raise ValueError(f"{directory} is not a run: it has no config.json (start one with jaxnas search)")
    config = _numbers(_read(directory / "config.json"))
    told: dict[str, int] = {}
    while True:
        done = (directory / "result.json").exists()  # looked at first: what was written before it is told
        yield from _news(directory, config, told)
        if done:
            result = _read(directory / "result.json")
            yield str(result.get("verdict", "finished"))
            return
        time.sleep(every)


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        held = read_json(path)
    except (ValueError, OSError):
        return {}  # just being written
    return held if isinstance(held, dict) else {}


def _news(directory: pathlib.Path, config: dict[str, Any], told: dict[str, int]) -> Iterator[str]:
    """What has not been told yet."""

    def fresh(name: str, found: list) -> Iterator[tuple[int, Any]]:
        first, told[name] = told.get(name, 0), len(found)
        yield from enumerate(found[first:], first)

    found = trials(directory)
    plan = _numbers(_read(directory / "plan.json"))
    for i, row in fresh("trials", found):
        yield _trial(row, best_of(found[: i + 1]), i + 1, config, plan)
    for name, steps in (("", "steps"), ("found", "train_steps"), ("random", "train_steps")):
        for _, row in fresh(f"log {name}", [row for row in rows(directory / name / "log.jsonl") if "step" in _numbers(row)]):
            yield _part(name or "search", row, config.get(steps))
    if (directory / "finals").is_dir():
        for _, path in fresh("finals", sorted((p for p in directory.glob("finals/*.npy") if ".part" not in p.name), key=_written)):
            yield f"final training {path.stem} ended"


def _written(path: pathlib.Path) -> tuple[float, str]:
    return path.stat().st_mtime, path.name


def _trial(row: dict, best: float, count: int, config: dict[str, Any], plan: dict[str, Any]) -> str:
    part = "" if row["stop"] == plan.get("steps", row["stop"]) else f" at {row['stop']} of {plan['steps']} steps"
    left = f"{count} of {max(count, 2 * config['trials'])} trials" if config.get("trials") else ""
    if not left and "seconds" in plan:
        left = f"about {max(0, plan['seconds'] - row['at']):.0f} s left"
    return f"{row['arm']} {row['number']}: {row['score']:.4f}{part}, best so far {best:.4f} ({left})  {row['genotype']}"


def _part(stage: str, row: dict, steps: int | None) -> str:
    numbers = ", ".join(f"{k} {row[k]:.4g}" for k in ("loss", "valid_loss", "score", "best_score") if isinstance(row.get(k), float))
    of = f" of {steps}" if steps and steps >= row["step"] else ""
    left = ""
    if of and row["step"] and _numbers(row).get("seconds"):
        left = f" (about {row['seconds'] * (steps - row['step']) / row['step']:.0f} s left)" if steps else ""
    return f"{stage}, {row.get('phase', '')}: step {row['step']}{of}{': ' + numbers if numbers else ''}{left}"
