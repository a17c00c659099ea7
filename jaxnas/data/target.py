"""What is to be predicted: one class an example, any number of labels, or real numbers.

A rule reads the targets as they come, strings, gaps, one-hot rows or a single column, and says what it made of them:

    classes    strings, truth values, whole numbers; floats of at most 20 different whole numbers; 0/1 rows with a single 1
    labels     0/1 rows with any number of 1s
    numbers    other floats

Axes: N examples, K classes, labels or numbers.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from jaxnas.data.errors import DataError
from jaxnas.data.values import as_targets

Kind = Literal["classes", "labels", "numbers"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FEW = 20  # different whole numbers, held as floats, that are still read as classes


@dataclasses.dataclass(frozen=True)
class Target:
    """What a network's outputs mean.  Static and hashable."""

    kind: Kind
    names: tuple[str, ...]  # of the classes, labels or numbers: one output each
    mean: tuple[float, ...] = ()  # of numbers, on the train part: what they were shifted by
    std: tuple[float, ...] = ()  # and scaled by

    @property
    def outputs(self) -> int:
        """Outputs of a network; two classes have two."""
        return len(self.names)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Target":
        return cls(values["kind"], tuple(values["names"]), tuple(values["mean"]), tuple(values["std"]))


class Reading(NamedTuple):
    """A target, and how raw targets become its arrays."""

    target: Target
    encode: Callable[[ArrayLike], np.ndarray]  # -> classes int32[N], labels float32[N, K], or numbers float64[N, K]
    notes: tuple[str, ...]  # lines for a person


def read_target(
    parts: Mapping[str, ArrayLike],
    *,
    kind: str | None = None,
    names: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    name: str = "data",
) -> Reading:
    """Decides what targets are, on all parts together.

    A class that only the test part has is kept, and noted: what no network can have learnt counts as wrong.

    Args:
        parts: {"train", and where the source has them "valid" and "test"}: the targets of each, [N] or [N, K].
        kind: of `KINDS`, where the rule of this module should not decide.
        names: of the classes, for whole numbers that index them.
        columns: what the columns of [N, K], or the one of [N], are called; default: their numbers.
        name: what messages call the data.

    Raises:
        DataError: for another kind, missing targets, a single value, fewer than two examples of a class, more classes than half
            of the examples, and targets that are not of the kind.
    """
    if kind is not None and kind not in KINDS:
        raise DataError(f"{name}: unknown kind {kind!r} of target: choose one of {', '.join(KINDS)}")
    arrays = {part: as_targets(y, f"{name}, {part} part" if len(parts) > 1 else name) for part, y in parts.items()}
    if len({a.shape[1:] for a in arrays.values()}) > 1:
        shapes = ", ".join(f"{part} {list(a.shape)}" for part, a in arrays.items())
        raise DataError(f"{name}: the targets of the parts are not alike ({shapes}): give each part the same columns")
    if len({a.dtype.kind == "U" for a in arrays.values()}) > 1:  # numbers here and text there: the text decides
        arrays = {part: np.asarray(names_of(a)) for part, a in arrays.items()}
    whole = np.concatenate(list(arrays.values()))
    K = whole.shape[1] if whole.ndim == 2 else 1
    if names is not None and whole.ndim == 1 and kind in (None, "classes"):
        return _declared(arrays, tuple(map(str, names)), name)
    called = names if columns is None else columns
    if called is not None and len(called) != K:
        raise DataError(f"{name}: there are {len(called)} names for {K} column{'s' * (K > 1)} of targets: give one each")
    own = None if called is None else tuple(map(str, called))
    kind = kind or _kind_of(whole, name)
    if kind == "numbers":
        return _numbers(whole, own, name)
    if kind == "labels":
        return _labels(whole, own, name)
    return _classes(arrays, name) if whole.ndim == 1 else _one_hot(whole, own, name)


def _kind_of(y: np.ndarray, name: str) -> Kind:
    """The rule."""
    if y.ndim == 2:
        if y.dtype.kind == "U":
            raise DataError(f"{name}: targets are {y.shape[1]} columns of text: give one column, or 0 and 1 for each label")
        if np.isin(y, (0, 1)).all():
            return "classes" if (y.sum(1) == 1).all() else "labels"
        if y.dtype.kind != "f":
            raise DataError(f"{name}: targets are {y.shape[1]} columns of whole numbers: say kind numbers, or give 0 and 1")
        return "numbers"
    if y.dtype.kind != "f":
        return "classes"
    values = np.unique(y)
    return "classes" if len(values) <= FEW and (values == np.round(values)).all() else "numbers"


def names_of(values: np.ndarray) -> list[str]:
    """What classes of these values are called: whole floats as whole numbers."""
    if values.dtype.kind == "f":
        return [str(int(v)) if v == np.round(v) else repr(float(v)) for v in values]
    return [str(v) for v in values.tolist()]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names if len(names) <= 10 else [*names[:3], "...", names[-1]])


def _class_notes(names: Sequence[str], codes: dict[str, np.ndarray]) -> tuple[str, ...]:
    """What a person is told of classes, and those that only the test part has."""
    counts = np.bincount(np.concatenate(list(codes.values())), minlength=len(names))
    notes = [f"y: {len(names)} classes {_shown(names)} with {counts.min()} to {counts.max()} examples each"]
    if len(codes) > 1 and "test" in codes:
        learnt = np.concatenate([c for part, c in codes.items() if part != "test"])
        alone = np.setdiff1d(codes["test"], learnt)
        if len(alone):
            which = _shown([names[i] for i in alone])
            notes.append(f"y: only the test part has examples of {which}: no network can learn them, and they count as wrong")
    return tuple(notes)


def _classes(arrays: dict[str, np.ndarray], name: str) -> Reading:
    values, counts = np.unique(np.concatenate(list(arrays.values())), return_counts=True)
    names, N = names_of(values), int(counts.sum())
    if len(values) < 2:
        raise DataError(f"{name}: all labels are {''.join(names) or 'missing'}: there must be at least two classes")
    if len(values) > N / 2:
        wrong = "an identifier, not a target" if values.dtype.kind == "U" else "an identifier, or say kind numbers for a regression"
        raise DataError(f"{name}: {len(values)} classes among {N} examples ({_shown(names)}): this looks like {wrong}")
    if counts.min() < 2:
        lone = [n for n, count in zip(names, counts, strict=True) if count < 2]
        raise DataError(f"{name}: one example of class {_shown(lone)}: every class needs at least two, drop it or add some")

    def encode(y: ArrayLike) -> np.ndarray:
        y = as_targets(y, name)
        y = np.asarray(names_of(y)) if values.dtype.kind == "U" and y.dtype.kind != "U" else y
        at = np.minimum(np.searchsorted(values, y), len(values) - 1)
        unknown = np.flatnonzero(values[at] != y)
        if len(unknown):
            raise DataError(f"{name}: {names_of(y[unknown[:1]])[0]} is not one of the classes {_shown(names)}")
        return at.astype(np.int32)

    codes = {part: encode(y) for part, y in arrays.items()}
    return Reading(Target("classes", tuple(names)), encode, _class_notes(names, codes))


def _declared(arrays: dict[str, np.ndarray], names: tuple[str, ...], name: str) -> Reading:
    """Classes that a source names, by number."""

    def encode(y: ArrayLike) -> np.ndarray:
        y = as_targets(y, name)
        outside = y.dtype.kind not in "biu" or not ((y >= 0) & (y < len(names))).all()
        if outside:
            raise DataError(f"{name}: labels must be 0 to {len(names) - 1}, one for each of the {len(names)} classes it names")
        return y.astype(np.int32)

    codes = {part: encode(y) for part, y in arrays.items()}
    present = np.unique(np.concatenate(list(codes.values())))
    if len(present) < 2:
        raise DataError(f"{name}: all labels are {_shown([names[i] for i in present])}: there must be at least two classes")
    return Reading(Target("classes", names), encode, _class_notes(names, codes))


def _one_hot(y: np.ndarray, names: tuple[str, ...] | None, name: str) -> Reading:
    if not np.isin(y, (0, 1)).all() or not (y.sum(1) == 1).all():
        raise DataError(f"{name}: not every row of the {y.shape[1]} columns is one-hot: say kind labels for any number of 1s")
    K = y.shape[1]
    read = _declared({"": y.argmax(1)}, names or tuple(map(str, range(K))), name)
    if np.bincount(y.argmax(1), minlength=K).min() == 1:
        raise DataError(f"{name}: one example of a class: every class needs at least two, drop it or add some")
    return Reading(read.target, lambda y: as_targets(y, name).argmax(1).astype(np.int32), (f"{read.notes[0]}, one-hot",))


def _labels(y: np.ndarray, names: tuple[str, ...] | None, name: str) -> Reading:
    y = y[:, None] if y.ndim == 1 else y
    if y.dtype.kind == "U" or not np.isin(y, (0, 1)).all():
        raise DataError(f"{name}: labels must be 0 and 1 in a column for each label")
    share = y.mean(0)
    if np.isin(share, (0, 1)).all():
        raise DataError(f"{name}: every label is the same for all examples: there is nothing to predict")
    names = names or tuple(map(str, range(y.shape[1])))
    notes = [f"y: {len(names)} labels {_shown(names)}, each set in {share.min():.0%} to {share.max():.0%} of the examples"]
    still = [n for n, s in zip(names, share, strict=True) if s in (0, 1)]
    if still:
        notes.append(f"y: the same for all examples: {_shown(still)}")

    def encode(y: ArrayLike) -> np.ndarray:
        return as_targets(y, name).reshape(-1, len(names)).astype(np.float32)

    return Reading(Target("labels", names), encode, tuple(notes))


def _numbers(y: np.ndarray, names: tuple[str, ...] | None, name: str) -> Reading:
    y = y[:, None] if y.ndim == 1 else y
    if y.dtype.kind == "U":
        raise DataError(f"{name}: the targets are text ({_shown(np.unique(y).tolist())}), not numbers: leave the kind out")
    y = y.astype(np.float64)
    low, high = y.min(0), y.max(0)
    names = names or (("y",) if y.shape[1] == 1 else tuple(map(str, range(y.shape[1]))))
    still = [n for n, a, b in zip(names, low, high, strict=True) if a == b]
    if still:
        raise DataError(f"{name}: the target {_shown(still)} is {low[0]:g} for all examples: there is nothing to predict")
    what = f"a number from {low[0]:g} to {high[0]:g}" if len(names) == 1 else f"{len(names)} numbers {_shown(names)}"

    def encode(y: ArrayLike) -> np.ndarray:
        return as_targets(y, name).reshape(-1, len(names)).astype(np.float64)

    return Reading(Target("numbers", names), encode, (f"y: {what}, a regression",))


def standardised(target: Target, train: np.ndarray, name: str) -> Target:
    """The target with the mean and the standard deviation of the numbers of the train part, [N, K].

    Raises:
        DataError: where a number is the same in the whole train part.
    """
    mean, std = train.mean(0), train.std(0)
    if not (std > 1e-12 * np.abs(mean)).all():
        raise DataError(f"{name}: a number to predict is the same in the whole train part: give more examples, or another seed")
    return dataclasses.replace(target, mean=tuple(map(float, mean)), std=tuple(map(float, std)))
