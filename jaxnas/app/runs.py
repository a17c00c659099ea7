"""`jaxnas runs`: the run directories under one, side by side, by what they hold.  Nothing here writes there."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxnas.app.config import Config, load_config
from jaxnas.app.progress import rows, trials
from jaxnas.app.search import NO_SCORE
from jaxnas.app.spaces import NETS, SPACES
from jaxnas.app.tasks import score_of
from jaxnas.driver.files import read_json
from jaxnas.driver.lock import is_held


class Run(NamedTuple):
    """A line of the table; every field is what a person reads."""

    name: str
    method: str
    space: str
    data: str
    done: str  # steps of how many, or trials
    state: str  # finished, running, or cut
    result: str  # on the test part, or "-"


def lines(directory: str | pathlib.Path) -> Iterator[str]:
    """A table of the runs, by name, numbers in their order; then a line for each that is damaged.

    Raises:
        ValueError: for what is no directory, or one without runs.
    """
    if not str(directory).strip():
        raise ValueError("the directory has no name: give the one that holds the runs, such as runs")
    found = pathlib.Path(directory)
    if not found.is_dir():
        raise ValueError(f"there is no directory {found}: give the one that holds the runs (jaxnas search makes them in runs)")
    places = sorted((path.parent for path in found.glob("*/config.json")), key=_order)
    if not places:
        one = " (it is itself a run: jaxnas show looks into it)" if (found / "config.json").exists() else ""
        raise ValueError(f"{found} holds no runs{one}: start one with jaxnas search")
    table, damaged = [], []
    for place in places:
        try:
            table.append(read(place))
        except ValueError as error:
            damaged.append(f"{place.name}: {' '.join(str(error).split())}")
    if table:
        table.insert(0, Run(*Run._fields))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        yield from (" ".join(map(str.ljust, row, widths)).rstrip() for row in table)
    yield from damaged


def read(place: pathlib.Path) -> Run:
    """One run; ValueError, in one line, for one that is damaged."""
    config = load_config(place)
    words = ""
    if (place / "result.json").exists():
        try:
            words = _words(read_json(place / "result.json"))
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            raise ValueError(f"{place / 'result.json'} is damaged: make it again with jaxnas resume {place}") from None
    state = "finished" if words else "running" if is_held(place) else "cut"
    return Run(place.name, config.strategy, config.space, config.data, _done(place, config), state, words or "-")


def _words(result: dict[str, Any]) -> str:
    return NO_SCORE if result["outcome"] == NO_SCORE else score_of(result["found"]).words(result["found"])


def _done(place: pathlib.Path, config: Config) -> str:
    if not NETS.find(SPACES.find(config.space).net).supernet:
        return f"{len(trials(place))} trials"
    steps = [row["step"] for row in rows(place / "log.jsonl") if isinstance(row.get("step"), int)]
    return f"{max(steps, default=0)} of {config.steps}"


def _order(place: pathlib.Path) -> tuple[str, int, str]:
    """darts-2 comes before darts-10."""
    head, _, tail = place.name.rpartition("-")
    with contextlib.suppress(ValueError):
        return head, int(tail), ""
    return place.name, 0, ""
