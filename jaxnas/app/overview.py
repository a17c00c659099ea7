"""What there is, read from the tables: for `jaxnas list`, and for the README."""

from collections.abc import Mapping
from typing import Any

from jaxnas.app.methods import EVALUATORS, METHODS, black_box, darts, differentiable, one_shot
from jaxnas.app.spaces import NETS, SPACES


def about(table: Mapping[str, Any]) -> dict[str, str]:
    return {name: entry.about for name, entry in table.items()}


def tables() -> dict[str, dict[str, str]]:
    """title -> {name: what it is}; all that the command line knows."""
    from jaxnas.data import SOURCES

    return {
        "spaces [and the net that runs each]": {name: f"{entry.about} [{entry.net}]" for name, entry in SPACES.items()},
        "strategies": about(METHODS),
        "evaluators of black-box strategies": about(EVALUATORS),
        "nets": about(NETS),
        "data": {**about(SOURCES), "FILE.txt": "a text, for recurrent cells"},
    }


def families() -> dict[str, list[str]]:
    """Kind of method -> the names; those that were registered later come last."""
    rows = {
        "differentiable and policies on shared weights": {**darts.ROWS, **differentiable.ROWS},
        "one supernet, then a search": one_shot.ROWS,
        "algorithms that ask for candidates": black_box.ROWS,
    }
    found = {kind: list(names) for kind, names in rows.items()}
    known = {name for names in found.values() for name in names}
    own = [name for name in METHODS if name not in known]
    return {**found, **({"your own": own} if own else {})}


def names_table() -> str:
    """A table of names, for the README."""
    names = {**families(), "spaces": list(SPACES), "evaluators": list(EVALUATORS)}
    rows = [f"| {kind} | {' '.join(f'`{name}`' for name in of)} |" for kind, of in names.items()]
    return "\n".join(["| kind | names |", "|---|---|", *rows])
