"""Arrays in files: FILE.npz, and X.npy with Y.npy.

An .npz holds x and y, or a pair for each part: x_train and y_train, x_test and y_test, x_val (or x_valid) and y_val; as MedMNIST
has them, train_images and train_labels, and so on.
"""

import pathlib
from typing import Any

import numpy as np

from jaxnas.data.errors import DataError
from jaxnas.data.npz import read_npz
from jaxnas.data.raw import Ask, Raw, no_columns, rows

PARTS = {"train": ("train",), "valid": ("val", "valid", "validation"), "test": ("test",)}
PAIRS = (("x", "y"), ("X", "y"), ("X", "Y"), ("images", "labels"), ("data", "target"), ("data", "labels"))
FORMS = ("{x}_{part}", "{part}_{x}")  # x_train; train_images
WRITE = "np.savez(path, x=x, y=y)"


def read_arrays(spec: str, ask: Ask) -> Raw:
    """An .npz; `ask.target` and `ask.group` name arrays [N] beside x, for the files without parts of their own."""
    path = pathlib.Path(spec).expanduser()
    lone = {name for pair in PAIRS for name in pair}
    parted = {f.format(x=n, part=p) for n in lone for kinds in PARTS.values() for p in kinds for f in FORMS}
    own = {name for name in (ask.target, ask.group) if name is not None}
    arrays, names = read_npz(path, {*lone, *parted, *own}, instead="use --data digits", write=WRITE)
    x, y = _pair(path, arrays, names, ask)
    if x in arrays:
        parts, notes = {"train": (x, y)}, ()
        if any(name in arrays for name in parted):
            notes = (f"{path.name}: {x} and {y} are used, and its other arrays are not",)
    else:
        parts, notes = _parts(path, arrays, names, x, y), ()
        no_columns(ask, f"{path.name} has parts of its own, and")
    absent = [name for name in own if name not in arrays]
    if absent:
        raise DataError(f"{path}: no array {' or '.join(absent)}, only {', '.join(names)}: check the name")
    held = {part: (arrays[a], arrays[b]) for part, (a, b) in parts.items()}
    return _raw(held, {} if ask.group is None else {"train": arrays[ask.group]}, ask, notes)


def _raw(held: dict[str, tuple[Any, Any]], groups: dict[str, Any], ask: Ask, notes: tuple[str, ...]) -> Raw:
    for part in groups:
        if np.shape(groups[part])[:1] != np.shape(held[part][0])[:1]:
            raise DataError(f"groups are {list(np.shape(groups[part]))}, and x is {list(np.shape(held[part][0]))}: give one each")
    return Raw(
        parts={part: rows(x, y, lambda n, part=part: ask.pick(part, n)) for part, (x, y) in held.items()},
        targets={part: y for part, (_, y) in held.items()},
        groups={part: g[ask.pick(part, len(g))] for part, g in groups.items()},
        notes=notes,
    )


def _pair(path: pathlib.Path, arrays: dict[str, Any], names: list[str], ask: Ask) -> tuple[str, str]:
    """What x and y are called in this file, without the name of a part."""
    if ask.target is not None:
        x = next((x for x, _ in PAIRS if x in arrays), None)
        if x is not None:
            return x, ask.target
    for x, y in PAIRS:
        if x in arrays and y in arrays:
            return x, y
    for x, y in PAIRS:
        if any(f.format(x=n, part="train") in arrays for n in (x, y) for f in FORMS):
            return x, y
    x, y = ("x", "y") if {"x", "y"} & set(arrays) else ("x_train", "y_train")
    missing = [name for name in (x, y) if name not in arrays]
    raise DataError(f"{path}: no array {' or '.join(missing)}, only {', '.join(names) or 'nothing'}: write it with {WRITE}")


def _parts(path: pathlib.Path, arrays: dict[str, Any], names: list[str], x: str, y: str) -> dict[str, tuple[str, str]]:
    """{part: names of its arrays}; a part is there whole or not at all."""
    found = {}
    for part, kinds in PARTS.items():
        for kind in kinds:
            for form in FORMS:
                pair = form.format(x=x, part=kind), form.format(x=y, part=kind)
                here = [name in arrays for name in pair]
                if any(here) and not all(here):
                    missing = pair[here.index(False)]
                    raise DataError(f"{path}: no array {missing}, only {', '.join(names)}: write it with {WRITE}")
                if all(here):
                    found.setdefault(part, pair)
    return found


def read_pair(spec: str, ask: Ask) -> Raw:
    """X.npy,Y.npy."""
    no_columns(ask, spec)
    paths = [pathlib.Path(part.strip()).expanduser() for part in spec.split(",")]
    if len(paths) != 2:
        raise DataError(f"{spec}: examples and labels are two files: give X.npy,Y.npy")
    x, y = map(read_npy, paths)
    return _raw({"train": (x, y)}, {}, ask, ())


def read_npy(path: pathlib.Path) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file: check the path")
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        if "Object arrays" in str(error):
            raise DataError(f"{path}: holds Python objects, which are never loaded: save plain number arrays") from None
        raise DataError(f"{path}: not an .npy file, or a damaged one: write it with np.save") from None
