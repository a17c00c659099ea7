"""Labelled examples: a pytree of arrays on the device, cut into train, valid and test by a key.

Axes: N examples, H height, W width, C channels, T times, F inputs of a table, K labels or numbers.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Key
from jaxnas.data.errors import DataError
from jaxnas.data.inputs import Inputs, arrays_alike, as_frame, fit_bytes, fit_channels, fit_columns, is_table, scaled
from jaxnas.data.parts import cut, permutation
from jaxnas.data.pixels import Pixels
from jaxnas.data.target import Reading, Target, read_target, standardised


class Split(NamedTuple):
    x: Any  # float32[N, H, W, C], [N, T, C] or [N, F], normalised; `Pixels` of images that came as bytes, which reads the same
    y: jax.Array  # of classes int32[N]; of labels float32[N, K], 0 or 1; of numbers float32[N, K], standardised


def choosing_share(n: int) -> float:
    """The part of n examples by which trained networks are chosen: 15 %, or 500 examples where that is not above a third."""
    return min(max(0.15, 500 / max(n, 1)), 1 / 3)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["train", "valid", "test"],
    meta_fields=["target", "inputs", "name", "notes"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Three disjoint splits.  A pytree: hand it to jitted code as an argument, never close over it.

    `train` moves the weights, `valid` the architecture, and no search ever sees `test`.
    """

    train: Split
    valid: Split
    test: Split
    target: Target  # static, like all that follows
    inputs: Inputs | None = None  # how raw examples became `x`; None: they are as they were
    name: str = "data"
    notes: tuple[str, ...] = ()  # what was decided about the data, each a line for a person

    @property
    def classes(self) -> int:
        """Outputs of a network: classes, labels or numbers."""
        return self.target.outputs

    @property
    def image(self) -> tuple[int, ...]:
        """The shape of one example: (H, W, C) of an image, (T, C) of a series, (F,) of a row of a table."""
        return self.train.x.shape[1:]


def split(
    key: Key,
    x: Any,
    y: ArrayLike,
    *,
    valid: float | tuple[Any, ArrayLike] | None = 0.5,
    test: float | tuple[Any, ArrayLike] = 0.2,
    groups: ArrayLike | None = None,
    stratified: bool = False,
    kind: str | None = None,
    layout: str | None = None,
    names: Sequence[str] | None = None,
    name: str = "data",
) -> Dataset:
    """Cuts examples into train, valid and test by a permutation from the key, and normalises them.

    Images and series are shifted and scaled by the mean and the standard deviation of each channel of the train part alone (a
    constant channel is only shifted); for tables see `jaxnas.data.columns`, for targets `jaxnas.data.target`.

    Args:
        key: the only source of randomness: the same key and data give the same splits.
        x: images [N, H, W] or [N, H, W, C], series [N, T, C] or a table [N, F] of any number type (uint8 images are divided by
            255); or a table as a DataFrame or a list of dicts.
        y: targets [N] or [N, K] of any type: classes, labels or numbers, by the rule of `jaxnas.data.target`.
        valid: the part of what is not test that becomes `valid` (DARTS halves it), or a pair (x, y) of its own; None: as much as
            choices among trained networks need, `choosing_share`, with the shares of the classes kept where there are no groups.
        test: the part of all examples that becomes `test`, or the source's own test set, a pair (x, y), which is kept whole
            and in order.
        groups: [N] of any type; examples of a group are never in different parts.
        stratified: every part keeps the shares of the classes, to within one example of each.
        kind: classes, labels or numbers, where the rule should not decide.
        layout: of the axes of x, one of `jaxnas.data.layouts.LAYOUTS`, where the rule should not decide.
        names: of the classes that whole numbers in y index, or of the columns of y.
        name: what messages and records call the data.

    Raises:
        DataError: for examples or targets of a wrong rank, type, length or value, a single class, parts outside (0, 1), or too
            few examples to fill every part.
    """
    parts = {"train": (x, y)}
    parts |= {part: own for part, own in (("valid", valid), ("test", test)) if isinstance(own, tuple)}
    check_lengths(parts, name)
    reading = read_target({part: target for part, (_, target) in parts.items()}, kind=kind, names=names, name=name)
    return assemble(
        key,
        parts,
        reading,
        valid=0.0 if isinstance(valid, tuple) else valid,
        test=0.0 if isinstance(test, tuple) else test,
        groups={} if groups is None else {"train": groups},
        stratified=stratified,
        layout=layout,
        name=name,
    )


def check_lengths(parts: Mapping[str, tuple[Any, Any]], name: str) -> None:
    """Raises DataError where examples and targets are not as many, or there are none."""
    for part, (x, y) in parts.items():
        called = name if part == "train" else f"{name} ({part})"
        sizes = [_rows(x), _rows(y)]
        if None in sizes:
            raise DataError(f"{called}: x must be images, series or a table, and y their targets, not single numbers")
        if sizes[0] != sizes[1]:
            raise DataError(f"{called}: there are {sizes[0]} examples and {sizes[1]} targets: give one target for each example")
        if not sizes[0]:
            raise DataError(f"{called}: there are no examples")


def _rows(x: Any) -> int | None:
    """How many examples; None for a single number."""
    if isinstance(x, Mapping):
        return _rows(next(iter(x.values()), ()))
    shape = getattr(x, "shape", None)
    if shape is not None:
        return shape[0] if shape else None
    return len(x) if hasattr(x, "__len__") else None


def assemble(
    key: Key,
    parts: Mapping[str, tuple[Any, ArrayLike]],
    reading: Reading,
    *,
    valid: float | None,
    test: float,
    groups: Mapping[str, ArrayLike],
    stratified: bool,
    layout: str | None,
    name: str,
    notes: Sequence[str] = (),
) -> Dataset:
    """`split` of what a source has: parts "train", and where it has them "valid" and "test", with their targets read."""
    for part, value in (("valid", valid), ("test", test)):
        if part not in parts and value is not None and not 0 < value < 1:
            raise DataError(f"the {part} part must lie between 0 and 1, not {value}")
    check_lengths(parts, name)
    targets = {part: reading.encode(y) for part, (_, y) in parts.items()}
    if stratified and reading.target.kind != "classes":
        raise DataError(f"{name}: parts are stratified by classes, and the target is {reading.target.kind}: leave it out")
    of_group = {part: _numbered(values, len(targets[part]), name) for part, values in groups.items()}
    n, k_valid = len(targets["train"]), None
    if valid is None:
        valid = choosing_share(n if "test" in parts else n - round(test * n))
        stratified = reading.target.kind == "classes" and not of_group
    if "valid" in parts:
        key, k_valid = jax.random.split(key)
    shares = (0.0 if part in parts else share for part, share in (("valid", valid), ("test", test)))
    strata = targets["train"] if stratified else None
    where = cut(key, n, *shares, strata=strata, groups=_codes(of_group.get("train")))
    rows = {part: ("train", at) for part, at in zip(("train", "valid", "test"), where, strict=True) if part not in parts}
    rows["train"] = ("train", where.train)
    if k_valid is not None:
        rows["valid"] = ("valid", permutation(k_valid, len(targets["valid"])))
    if "test" in parts:
        rows["test"] = ("test", np.arange(len(targets["test"])))
    if not all(len(at) for _, at in rows.values()):
        sizes = ", ".join(f"{len(rows[part][1])} {part}" for part in ("train", "valid", "test"))
        raise DataError(f"{name}: {n} examples leave an empty part ({sizes}): give more, or other parts")

    inputs, encoded, said = _encoded({part: x for part, (x, _) in parts.items()}, rows, layout, name)
    y = {part: targets[source][at] for part, (source, at) in rows.items()}
    target = reading.target
    if target.kind == "numbers":
        target = standardised(target, y["train"], name)
        y = {part: ((a - np.asarray(target.mean)) / np.asarray(target.std)).astype(np.float32) for part, a in y.items()}
    splits = {part: Split(encoded[part], jnp.asarray(y[part])) for part in ("train", "valid", "test")}
    said = (*notes, *reading.notes, *_unlearnt(target, y, rows), *said, *_shared_groups(of_group))
    return Dataset(**splits, target=target, inputs=inputs, name=name, notes=said)


def _encoded(
    raw: dict[str, Any], rows: dict[str, tuple[str, np.ndarray]], layout: str | None, name: str
) -> tuple[Inputs, dict[str, jax.Array | Pixels], tuple[str, ...]]:
    """(inputs, {part: float32[N, ...]}, notes) of the raw examples of each source, by the rows of each part, on the device."""
    notes: tuple[str, ...] = ()
    if not is_table(raw["train"]):
        raw, found, divide, notes = arrays_alike(raw, layout, name)
        if divide == 255:
            inputs = fit_bytes(raw["train"], rows["train"][1], found)
            bytes_of = lambda source, at: Pixels(jnp.asarray(raw[source][at]), inputs.mean, inputs.std)
            return inputs, {part: bytes_of(*of) for part, of in rows.items()}, notes
        if found != "NF":
            x = {part: scaled(a, divide, name if part == "train" else f"{name} ({part})") for part, a in raw.items()}
            inputs = fit_channels(x["train"][rows["train"][1]], found, divide)
            standard = lambda source, at: jnp.asarray(inputs.standardise(x[source][at]))
            return inputs, {part: standard(*of) for part, of in rows.items()}, notes
        notes = ()  # the columns say more
    from pandas import concat

    frames = {part: as_frame(a) for part, a in raw.items()}
    first = frames["train"]
    for part, frame in frames.items():
        missing = [str(c) for c in first.columns if c not in frame.columns]
        if missing:
            raise DataError(f"{name}: the {part} part has no column {', '.join(missing)}: give every part the same columns")
    whole = first if len(frames) == 1 else concat([f[list(first.columns)] for f in frames.values()], ignore_index=True)
    inputs, notes = fit_columns(whole, rows["train"][1], name)  # the train part's rows come first
    return inputs, {part: jnp.asarray(inputs.encode(frames[source].iloc[at])) for part, (source, at) in rows.items()}, notes


def _numbered(groups: ArrayLike, n: int, name: str) -> np.ndarray:
    """Groups as text [N]."""
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise DataError(f"{name}: groups must be one for each of the {n} examples, not {list(groups.shape)}")
    return groups.astype(str)


def _codes(groups: np.ndarray | None) -> np.ndarray | None:
    return None if groups is None else np.unique(groups, return_inverse=True)[1]


def _unlearnt(target: Target, y: dict[str, np.ndarray], rows: dict[str, tuple[str, np.ndarray]]) -> tuple[str, ...]:
    """A note where chance left the train part without a class."""
    if target.kind != "classes":
        return ()
    drawn = np.concatenate([y[part] for part, (source, _) in rows.items() if source == "train"])
    missing = [target.names[c] for c in np.setdiff1d(drawn, y["train"])]
    if not missing:
        return ()
    return (f"y: chance left no example of {', '.join(missing[:5])} to train on: stratified parts would have some",)


def _shared_groups(groups: dict[str, np.ndarray]) -> tuple[str, ...]:
    train = np.unique(groups["train"]) if "train" in groups else np.zeros(0, str)
    both = {part: len(np.intersect1d(train, of)) for part, of in groups.items() if part != "train"}
    return tuple(f"group: {count} groups of the {part} part are in the train part too" for part, count in both.items() if count)
