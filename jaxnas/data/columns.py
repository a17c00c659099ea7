"""The columns of a table, and how each becomes numbers.

    number      (x - mean) / std, with the median where it is missing, and a 0/1 column "missing" if it ever was in the train part
    date        the same, of the days since 1970
    category    a 0/1 column for each value of the train part; being missing is a value too; others are all zeros

What is constant, or names a row and says nothing about it, is dropped.
"""

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.data.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MANY = 100  # values of a category that are kept, the commonest
STRAY = 0.05  # share of a column of numbers that may be other text, which counts as missing
IDENTIFIER = re.compile(r"(^|[_\s.-])(id|uuid|index)$|^unnamed: \d+$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Column:
    """One input column.  Static and hashable."""

    name: str
    kind: Literal["number", "date", "category"]
    mean: float = 0.0  # of numbers, on the train part
    std: float = 1.0
    median: float = 0.0  # stands for a missing one
    missing: bool = False  # a 0/1 column says where it is missing
    values: tuple[str, ...] = ()  # of a category
    day_first: bool = False  # of dates as text: 31/12/1999, and not 12/31/1999

    @property
    def width(self) -> int:
        """Numbers that the network sees."""
        return (len(self.values) if self.kind == "category" else 1) + self.missing

    def encode(self, column: "Series") -> np.ndarray:
        """float32[N, width]."""
        if self.kind != "category":
            x = days(column, self.day_first) if self.kind == "date" else numbers(column)
            gone = ~np.isfinite(x)
            parts = [(np.where(gone, self.median, x) - self.mean) / self.std]
        else:
            text, gone = words(column)
            parts = [(text == value) & ~gone for value in self.values]
        return np.stack([*parts, gone] if self.missing else parts, 1).astype(np.float32)

    def row(self, column: "Series") -> np.ndarray:
        """float32[N], one number a value: see `Inputs.rows`."""
        if self.kind != "category":
            x = days(column, self.day_first) if self.kind == "date" else numbers(column)
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and so counts as missing
                return x.astype(np.float32)
        text, gone = words(column)
        order = {value: i for i, value in enumerate(self.values)}
        at = np.asarray([order.get(str(v), -1) for v in text], np.float32)
        return np.where(gone, np.float32(np.nan), at)

    def normalise(self, x: jax.Array) -> jax.Array:
        """float32[N, width] of what `row` gives, traceable: to rounding what `encode` gives."""
        if self.kind != "category":
            gone = ~jnp.isfinite(x)
            high = np.float32(self.mean)  # the mean in two parts: float32 alone would lose digits of a large one
            low = np.float32(self.mean - float(high))
            shifted = jnp.where(gone, np.float32(self.median - self.mean), (x - high) - low)
            parts = [shifted / np.float32(self.std)]
        else:
            gone = jnp.isnan(x)
            parts = [x == i for i in range(len(self.values))]
        return jnp.stack([p.astype(jnp.float32) for p in ([*parts, gone] if self.missing else parts)], 1)


def numbers(column: "Series") -> np.ndarray:
    """float64[N], NaN where it is missing or no number."""
    from pandas import to_numeric

    return np.asarray(to_numeric(column, errors="coerce"), np.float64, copy=True)


def days(column: "Series", day_first: bool = False) -> np.ndarray:
    """float64[N], days since 1970, NaN where it is missing or no date."""
    from pandas import Timedelta, Timestamp, to_datetime

    when = to_datetime(column, errors="coerce", utc=True, format="mixed", dayfirst=day_first)
    first = Timestamp(0, tz="UTC").as_unit("s")  # nanoseconds would end in 2262, and people write 9999-12-31
    return np.asarray((when - first) / Timedelta(days=1), np.float64, copy=True)


def words(column: "Series") -> tuple[np.ndarray, np.ndarray]:
    """(text [N], bool[N]: where it is missing)."""
    gone = np.asarray(column.isna())
    return np.asarray(["" if m else str(v) for v, m in zip(column, gone, strict=True)], str), gone


def fit(frame: "DataFrame", train: np.ndarray, name: str) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """(the columns, notes for a person): kinds of all rows, numbers of the rows `train` alone.

    Raises:
        DataError: for columns of one name, or when no column is left.
    """
    labels = [str(c) for c in frame.columns]
    if len(set(labels)) < len(labels):
        twice = sorted({c for c in labels if labels.count(c) > 1})
        raise DataError(f"{name}: more than one column is called {', '.join(twice)}: rename them")
    kept: list[Column] = []
    dropped: dict[str, list[str]] = {}
    notes: list[str] = []
    for label, (_, column) in zip(labels, frame.items(), strict=True):
        made = _column(label, column, train, notes)
        if isinstance(made, Column):
            kept.append(made)
        else:
            dropped.setdefault(made, []).append(label)
    notes += [f"x: left out, {why}: {', '.join(which[:10])}{', ...' * (len(which) > 10)}" for why, which in dropped.items()]
    if not kept:
        raise DataError(f"{name}: no column is left to learn from ({'; '.join(notes)}): give other columns")
    count = {kind: sum(c.kind == kind for c in kept) for kind in ("number", "category", "date")}
    plural = {"number": "numbers", "category": "categories", "date": "dates"}
    what = ", ".join(f"{n} {plural[kind] if n > 1 else kind}" for kind, n in count.items() if n)
    return tuple(kept), (f"x: a table of {what}: {sum(c.width for c in kept)} inputs", *notes)


def _column(label: str, column: "Series", train: np.ndarray, notes: list[str]) -> Column | str:
    """A column, or why it is left out."""
    from pandas.api import types

    is_text = not (types.is_numeric_dtype(column.dtype) or types.is_datetime64_any_dtype(column.dtype))
    if types.is_datetime64_any_dtype(column.dtype):
        return _numeric(label, "date", days(column)[train])
    if types.is_bool_dtype(column.dtype) or isinstance(column.dtype, _categorical()):
        return _category(label, column.iloc[train], notes)
    if is_text:
        there = column[column.notna()]
        as_numbers = numbers(there)
        strays = int((~np.isfinite(as_numbers)).sum())
        if (len(there) and strays == 0) or (strays <= STRAY * len(there) and len(np.unique(as_numbers)) > 20):
            if strays:
                odd = sorted(set(map(str, there[~np.isfinite(as_numbers)])))[:3]
                notes.append(f"x: {label} has {strays} values that are no numbers ({', '.join(odd)}): they count as missing")
            is_text = False
        elif _dated(there):
            day_first = any(re.match(r"^\s*(1[3-9]|[23]\d)[-/.]\d{1,2}[-/.]\d{4}", str(v)) for v in there)
            made = _numeric(label, "date", days(column, day_first)[train])
            return dataclasses.replace(made, day_first=day_first) if isinstance(made, Column) else made
    if not is_text:
        x = numbers(column)
        if _indexes(label, x):
            return "an identifier"
        if np.isinf(x).any():
            notes.append(f"x: {label} has {int(np.isinf(x).sum())} infinite values: they count as missing")
        return _numeric(label, "number", np.where(np.isfinite(x), x, np.nan)[train])
    text, gone = words(column)
    different = len(np.unique(text[~gone]))
    if different > 20 and different > 0.5 * (~gone).sum():
        return "an identifier or free text"
    return _category(label, column.iloc[train], notes)


def _categorical() -> type:
    from pandas import CategoricalDtype

    return CategoricalDtype


def _indexes(label: str, x: np.ndarray) -> bool:
    """Whether whole numbers, all different, only count the rows."""
    if len(x) < 3 or not np.isfinite(x).all() or (x != np.round(x)).any() or len(np.unique(x)) < len(x):
        return False
    return bool(IDENTIFIER.search(label)) or x.max() - x.min() == len(x) - 1


def _dated(there: "Series") -> bool:
    """Whether text is dates: each has a digit and a separator, and is read as a date."""
    some = [str(v) for v in there.iloc[:: max(1, len(there) // 200)]]
    if not some or not all(re.match(r"^\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}", v) for v in some):
        return False
    return float(np.isfinite(days(there)).mean()) >= 1 - STRAY


def _numeric(label: str, kind: Literal["number", "date"], train: np.ndarray) -> Column | str:
    there = train[np.isfinite(train)]
    if not len(there):
        return "always missing"
    missing = len(there) < len(train)
    if there.min() == there.max() and not missing:
        return "constant"
    median = float(np.median(there))
    filled = np.where(np.isfinite(train), train, median)
    mean, std = float(filled.mean()), float(filled.std())
    return Column(label, kind, mean, std if std > 1e-12 * abs(mean) else 1.0, median, missing)


def _category(label: str, train: Any, notes: list[str]) -> Column | str:
    text, gone = words(train)
    if gone.all():
        return "always missing"
    values, counts = np.unique(text[~gone], return_counts=True)
    if len(values) == 1 and not gone.any():
        return "constant"
    if len(values) > MANY:
        notes.append(f"x: {label} has {len(values)} values: the {MANY} commonest are told apart")
        values = np.sort(values[np.argsort(-counts, kind="stable")[:MANY]])
    return Column(label, "category", missing=bool(gone.any()), values=tuple(values.tolist()))
