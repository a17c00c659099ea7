"""Where data comes from: `load("digits", key)`, `load("file.npz", key)`, `load("file.csv", key)`, `load("folder", key)`, ...

To add a source of your own, read examples x and targets y as you like and call `split(key, x, y)`.
"""

import dataclasses
import os
import pathlib
from typing import Any

import jax
import numpy as np

from jaxnas.base import Key
from jaxnas.checks import described
from jaxnas.data import arrays, hub, images, tables, tfds
from jaxnas.data.dataset import Dataset, assemble, check_lengths
from jaxnas.data.errors import DataError
from jaxnas.data.parts import permutation
from jaxnas.data.raw import Ask, Raw, Source, no_columns, rows
from jaxnas.data.target import read_target
from jaxnas.registry import Table


def load(
    spec: str | os.PathLike[str],
    key: Key,
    *,
    valid: float | None = 0.5,
    target: str | None = None,
    kind: str | None = None,
    group: str | None = None,
    size: int | None = None,
    layout: str | None = None,
    stratified: bool = False,
    limit: int | None = None,
    data_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """Reads a data set and cuts it; see `split`.

    A test set that the source has is kept, and so is a validation part; else 20 % of the examples become a test set.  What was
    decided about the data is in `notes`.

    Args:
        spec: one of `SOURCES`.
        key: draws the splits and, with a limit, the examples.
        valid: the part of what is not test that moves the architecture, where the source has none of its own; None: see `split`.
        target: the column of a table to predict, or several, parted by commas; default: one called target, label, class or y,
            or the last.  Of an .npz file, the array.
        kind: classes, labels or numbers, where the rule of `jaxnas.data.target` should not decide.
        group: the column (of an .npz file, the array) whose groups are never in different parts; it is not an input.
        size: of image files: pixels on the longer side; default: their median, at most 64.
        layout: of the axes of arrays, one of `jaxnas.data.layouts.LAYOUTS`, where the rule should not decide.
        stratified: every part keeps the shares of the classes.
        limit: use at most this many examples, and at most this many of a test set that the source has; default: all.
        data_dir: where TensorFlow Datasets keeps its files; default: its own choice.

    Raises:
        DataError: for a source that does not exist, cannot be read, or holds what `split` refuses.
    """
    if limit is not None and limit < 1:
        raise DataError(f"the limit must be at least 1 example, not {limit}")
    if not isinstance(spec, str | os.PathLike):
        raise DataError(f"`spec` names a data set or a path; got {described(spec)}")
    spec = str(os.fspath(spec))
    k_split, k_train, k_test = jax.random.split(key, 3)
    keys = {"train": lambda: k_train, "test": lambda: k_test, "valid": lambda: jax.random.fold_in(key, 3)}
    picked: dict[tuple[str, int], np.ndarray] = {}

    def pick(part: str, n: int) -> np.ndarray:
        if (part, n) not in picked:
            picked[part, n] = np.arange(n) if limit is None or limit >= n else permutation(keys[part](), n)[:limit]
        return picked[part, n]

    source = next((source for source in SOURCES.values() if source.matches(spec)), None)
    if source is None:
        path = spec.rstrip("/" + os.sep)
        if path != spec or os.sep in path:
            raise DataError(f"{spec}: there is no such folder or file: check the path")
        raise DataError(f"unknown data {spec!r}: choose one of {', '.join(SOURCES)}")
    raw = source.read(spec, Ask(pick, data_dir, target, group, size))
    check_lengths(raw.parts, spec)
    whole = {part: y for part, (_, y) in raw.parts.items()} | dict(raw.targets)
    reading = read_target(whole, kind=kind, names=raw.names, columns=raw.columns, name=spec)
    dataset = assemble(
        k_split,
        raw.parts,
        reading,
        valid=valid,
        test=0.2,
        groups=raw.groups,
        stratified=stratified,
        layout=layout or raw.layout,
        name=spec,
        notes=raw.notes,
    )
    if raw.files and dataset.inputs is not None:
        return dataclasses.replace(dataset, inputs=dataclasses.replace(dataset.inputs, files="stretched"))
    return dataset


def _digits(spec: str, ask: Ask) -> Raw:
    from sklearn.datasets import load_digits  # slow to import

    no_columns(ask, spec)
    digits: Any = load_digits()
    x, y = digits.images, digits.target
    return Raw({"train": rows(x, y, lambda n: ask.pick("train", n))}, {"train": y}, layout="NHW")


SOURCES: Table[Source] = Table(
    "data source",
    {
        "digits": Source("1,797 handwritten digits, 8x8x1, 10 classes (scikit-learn)", lambda spec: spec == "digits", _digits),
        "FILE.npz": Source(
            "arrays x and y; or x_train, y_train, x_val, y_val, x_test, y_test; or train_images, train_labels, ...",
            lambda spec: spec.endswith(".npz"),
            arrays.read_arrays,
        ),
        "X.npy,Y.npy": Source("an array each", lambda spec: spec.endswith(".npy"), arrays.read_pair),
        "FILE.csv": Source(
            "a table; .tsv and .parquet too, or a folder of train.csv and test.csv", tables.is_spec, tables.read_tables
        ),
        "FOLDER": Source(
            "a folder of images for each class, or such folders in train, valid and test", images.is_folder, images.read_folder
        ),
        "SAVED": Source("a directory that Hugging Face's datasets wrote with save_to_disk", hub.is_saved, hub.read_saved),
        "tfds:NAME": Source(
            "an image classification set that TensorFlow Datasets has prepared as array_record",
            lambda spec: spec.startswith("tfds:"),
            tfds.read_prepared,
        ),
    },
)
