"""What a source hands over, before anything is decided."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnas.data.errors import DataError


class Ask(NamedTuple):
    """What is asked of a source."""

    pick: Callable[[str, int], np.ndarray]  # ("train", "valid" or "test", N) -> which of its N examples are used
    data_dir: str | pathlib.Path | None = None  # where TensorFlow Datasets keeps its files
    target: str | None = None  # the column to predict; several, parted by commas
    group: str | None = None  # the column whose groups are kept together
    size: int | None = None  # of images: the longer side, in pixels


class Raw(NamedTuple):
    """A source's examples, those that are asked for."""

    parts: Mapping[str, tuple[Any, Any]]  # "train", and where it has them "valid" and "test": (x, y)
    targets: Mapping[str, Any] = {}  # {part: y} of all examples, where that is more than `parts` has
    names: tuple[str, ...] | None = None  # of the classes that y indexes
    columns: tuple[str, ...] | None = None  # what the columns of y are called
    groups: Mapping[str, Any] = {}  # {part: [N]}
    layout: str | None = None  # of x, where it is known
    notes: tuple[str, ...] = ()  # lines for a person
    files: bool = False  # images were read from files


class Source(NamedTuple):
    """Where data may come from."""

    about: str
    matches: Callable[[str], bool]  # whether a spec is of this source
    read: Callable[[str, Ask], Raw]  # (spec, what is asked)


TARGETS = ("target", "label", "labels", "class", "y")  # what the column to predict may be called


def no_columns(ask: Ask, what: str) -> None:
    """Raises DataError where a column is asked of a source that has none."""
    for name, value in (("target", ask.target), ("group", ask.group)):
        if value is not None:
            raise DataError(f"{what} has no column {value}: leave {name} out")


def rows(x: Any, y: Any, at: Callable[[int], np.ndarray]) -> tuple[Any, Any]:
    """The examples that are asked for; all of them where x and y do not fit, which `check_lengths` says."""
    if not (np.ndim(x) and np.shape(x)[:1] == np.shape(y)[:1]):
        return x, y
    index = at(len(x))
    return (x[index], y[index]) if len(index) < len(x) else (x, y)  # all of them, without a copy
