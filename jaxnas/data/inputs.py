"""From a person's examples, as they hold them, to what a network reads.

    image     [H, W, C]   (x / divide - mean) / std, each channel for itself
    series    [T, C]      the same
    table     [F]         see `jaxnas.data.columns`

All numbers are those of the train part alone.

Axes: N examples, H height, W width, T times, C channels, F inputs of a table.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.data.columns import Column, fit
from jaxnas.data.errors import DataError
from jaxnas.data.layouts import KIND, Layout, canonical, layout_of

ROWS = 1024  # of bytes that are counted at once

if TYPE_CHECKING:
    from pandas import DataFrame, Series


@dataclasses.dataclass(frozen=True)
class Inputs:
    """How raw examples become inputs.  Static and hashable."""

    kind: Literal["image", "series", "table"]
    shape: tuple[int, ...]  # of one input: (H, W, C), (T, C) or (F,)
    layout: Layout = "NF"  # of raw arrays
    divide: float = 1.0  # of images and series; 255 for bytes
    mean: tuple[float, ...] = ()  # [C], of images and series
    std: tuple[float, ...] = ()
    columns: tuple[Column, ...] = ()  # of a table
    files: Literal["", "stretched", "covered"] = ""  # how images in files become `shape`: each side for itself, or in proportion

    def encode(self, raw: Any) -> np.ndarray:
        """float32[N, *shape], on the host.

        Args:
            raw: as the training data were: an array of the same layout and range; for a table a DataFrame, a list of dicts or an
                array of all its columns; for image files also their paths.

        Raises:
            DataError: for examples of another shape, a column that is missing, or values that are not finite.
        """
        if self.kind == "table":
            return np.concatenate([c.encode(series) for c, series in self._series(raw)], 1)
        return self.standardise(scaled(canonical(self._array(raw), self.layout), self.divide, "x"))

    def rows(self, raw: Any) -> np.ndarray:
        """float32[N, number of columns] of a table, one number a value, which `normalise` reads.

        Numbers are as they are; dates are days since 1970; categories are positions in the column's `values`, or -1 for others.
        What is missing is NaN.  float32 has seven digits: of columns whose spread is below a millionth of their values the rest
        is lost here, and not in `encode`.

        Args:
            raw: as for `encode`.

        Raises:
            DataError: for a column that is missing.
            ValueError: for images or series.
        """
        if self.kind != "table":
            raise ValueError(f"rows are of a table, and this reads {self.kind}: hand arrays to `normalise`")
        return np.stack([c.row(series) for c, series in self._series(raw)], 1)

    def examples(self, raw: Any) -> np.ndarray:
        """[N, *raw_shape] of `raw_dtype`: raw examples as `normalise`, and so an export, reads them.

        Args:
            raw: as for `encode`.

        Raises:
            DataError: for what `encode` refuses, and for bytes where the training data were none, or the other way round.
        """
        if self.kind == "table":
            return self.rows(raw)
        raw = self._array(raw)
        whole = raw.dtype.kind in "ui" and (raw.size == 0 or (raw.min() >= 0 and raw.max() <= 255))
        if self.raw_dtype == np.uint8 and not whole:
            raise DataError(f"x is {raw.dtype}, and the network has learnt from bytes: give whole numbers from 0 to 255")
        if self.raw_dtype != np.uint8 and raw.dtype == np.uint8:
            raise DataError("x is bytes, and the network has learnt from other numbers: give x in the range that they had")
        if self.raw_dtype != np.uint8:
            scaled(raw, 1.0, "x")  # only to refuse what is not finite
        return raw.astype(self.raw_dtype)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Of one raw example: by the layout; of a table, a number for each column."""
        if self.kind == "table":
            return (len(self.columns),)
        axes = dict(zip("HWC" if self.kind == "image" else "TC", self.shape, strict=True))
        return tuple(axes[axis] for axis in self.layout[1:])

    @property
    def raw_dtype(self) -> np.dtype:
        """uint8 where bytes are divided by 255, else float32."""
        return np.dtype(np.uint8 if self.divide == 255 else np.float32)

    def _series(self, raw: Any) -> list[tuple[Column, "Series"]]:
        """Each column of a table with its values."""
        frame = as_frame(raw)
        names = [str(c) for c in frame.columns]
        missing = [c.name for c in self.columns if c.name not in names]
        if missing:
            raise DataError(f"there is no column {' or '.join(missing)}, only {', '.join(names[:20])}: the network needs it")
        return [(c, frame.iloc[:, names.index(c.name)]) for c in self.columns]

    def _array(self, raw: Any) -> np.ndarray:
        """Images or series as an array, those of files read."""
        if self.files and not isinstance(raw, np.ndarray) and all(isinstance(p, str | pathlib.Path) for p in raw):
            from jaxnas.data.images import read_image

            raw = np.stack([read_image(pathlib.Path(p), self.shape, self.files == "covered") for p in raw])
        raw = np.asarray(raw)
        if raw.dtype.kind not in "buif":
            raise DataError(f"x must be numbers, not {raw.dtype}")
        got = tuple(canonical(np.empty((0, *raw.shape[1:])), self.layout).shape[1:]) if raw.ndim == len(self.layout) else None
        if got != self.shape:
            raise DataError(f"examples must be of the shape {self._raw_shape()}, and x is {list(raw.shape)}: {self.layout}")
        return raw

    def _raw_shape(self) -> str:
        axes = dict(zip({"image": "HWC", "series": "TC", "table": "F"}[self.kind], self.shape, strict=True))
        return f"[{', '.join(str(axes.get(axis, axis)) for axis in self.layout)}]"

    def standardise(self, x: np.ndarray) -> np.ndarray:
        """float32[N, *shape] of scaled images or series."""
        return (x - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)

    def normalise(self, x: jax.Array) -> jax.Array:
        """`encode` as code that can be traced, which goes inside an export: float32[N, *shape], the same to rounding.

        Args:
            x: what `examples` gives: images or series [N, *raw_shape] as they were, of a table `rows`.
        """
        if self.kind == "table":
            return jnp.concatenate([c.normalise(x[:, i]) for i, c in enumerate(self.columns)], 1)
        x = canonical(x, self.layout).astype(jnp.float32) / np.float32(self.divide)
        along = (1,) * (x.ndim - 1) + (-1,)
        return (x - np.asarray(self.mean, np.float32).reshape(along)) / np.asarray(self.std, np.float32).reshape(along)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Inputs":
        columns = tuple(Column(**_tuples(c)) for c in values["columns"])
        held: dict[str, Any] = {**_tuples(values), "columns": columns}
        return cls(**held)


def _tuples(held: Mapping[str, Any]) -> dict[str, Any]:
    """Lists, as JSON has them, as tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in held.items()}


def as_frame(raw: Any) -> "DataFrame":
    """A table of a DataFrame, dicts, columns or an array [N, F], whose columns are called by their numbers."""
    from pandas import DataFrame

    if isinstance(raw, DataFrame):
        return raw
    if hasattr(raw, "to_pandas"):
        return raw.to_pandas()
    if isinstance(raw, np.ndarray) and raw.dtype.names is None:
        if raw.ndim != 2:
            raise DataError(f"a table is [N, F], and x is {list(raw.shape)}")
        made = DataFrame(raw, columns=[str(i) for i in range(raw.shape[1])])
        return made.infer_objects() if raw.dtype == object else made
    if isinstance(raw, Mapping):
        raw = [raw] if not any(np.ndim(v) for v in raw.values()) else raw
    return DataFrame(raw)


def is_table(x: Any) -> bool:
    """Whether x is no array of numbers, but a DataFrame, dicts, or an array of columns of different types."""
    if type(x).__module__.split(".")[0] in ("pandas", "polars") or isinstance(x, Mapping):
        return True
    if isinstance(x, np.ndarray):
        return x.dtype.names is not None or (x.ndim == 2 and x.dtype.kind in "OUST")
    return isinstance(x, Sequence) and len(x) > 0 and isinstance(x[0], Mapping)


def scaled(x: np.ndarray, divide: float, name: str) -> np.ndarray:
    """float32 of the same shape.

    Raises:
        DataError: for values that are not finite.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold is found below
        x = np.ascontiguousarray(x.astype(np.float32) / np.float32(divide))
    bad = len(x) - int(np.isfinite(x).reshape(len(x), -1).all(1).sum())
    if bad:
        raise DataError(f"{name}: {bad} of {len(x)} {_called(x)} hold NaN or infinity: repair or drop them")
    return x


def _called(x: np.ndarray) -> str:
    return "images" if x.ndim == 4 else "series"


def fit_columns(frame: "DataFrame", train: np.ndarray, name: str) -> tuple[Inputs, tuple[str, ...]]:
    """(the inputs of a table, notes): see `jaxnas.data.columns.fit`."""
    columns, notes = fit(frame, train, name)
    return Inputs("table", (sum(c.width for c in columns),), columns=columns), notes


def fit_channels(x: np.ndarray, layout: Layout, divide: float) -> Inputs:
    """The inputs of scaled images or series, by the mean and standard deviation of each channel of x, the train part.

    A constant channel is only shifted.
    """
    channels = range(x.shape[-1])  # one at a time: float64 sums without a float64 copy of everything
    mean = np.asarray([x[..., c].mean(dtype=np.float64) for c in channels])  # [C]
    std = np.asarray([x[..., c].std(dtype=np.float64) for c in channels])  # [C]
    return _of_channels(mean, std, x.shape[1:], layout, divide)


def fit_bytes(x: np.ndarray, at: np.ndarray, layout: Layout) -> Inputs:
    """`fit_channels` of the rows `at` of bytes x [N, ..., C], divided by 255; counted, since floats take four times the room."""
    C = x.shape[-1]
    count = np.zeros((C, 256), np.int64)
    for start in range(0, len(at), ROWS):
        each = x[at[start : start + ROWS]].reshape(-1, C)
        count += np.stack([np.bincount(each[:, c], minlength=256) for c in range(C)])
    values = (np.arange(256, dtype=np.float32) / np.float32(255)).astype(np.float64)
    share = count / count.sum(1, keepdims=True)  # [C, 256]
    mean = share @ values
    std = np.sqrt(np.sum(share * (values[None] - mean[:, None]) ** 2, 1))
    return _of_channels(mean, std, x.shape[1:], layout, 255.0)


def _of_channels(mean: np.ndarray, std: np.ndarray, shape: tuple[int, ...], layout: Layout, divide: float) -> Inputs:
    std = np.where(std > 1e-7 * np.abs(mean), std, 1.0)  # below float32's resolution a channel is constant
    numbers = lambda a: tuple(float(v) for v in a.astype(np.float32))
    kind: Any = KIND[layout]
    return Inputs(kind, shape, layout, divide, numbers(mean), numbers(std))


def arrays_alike(parts: Mapping[str, Any], layout: str | None, name: str) -> tuple[dict[str, np.ndarray], Layout, float, tuple]:
    """({part: canonical array}, layout, divisor, notes) of the images, series or tables of numbers of all parts.

    Raises:
        DataError: for what is no array of numbers, parts that are not alike, or no examples.
    """
    raw: dict[str, np.ndarray] = {}
    for part, x in parts.items():
        try:
            raw[part] = np.asarray(x)
        except ValueError:
            raise DataError(f"{name}: examples are ragged: every one needs the same shape") from None
        if raw[part].dtype.kind not in "buif":
            raise DataError(f"{name}: x must be numbers, not {raw[part].dtype}")
        if raw[part].ndim and raw[part].size == 0:
            raise DataError(f"{name}: there are no examples: their shape is {list(raw[part].shape)}")
    first = raw["train"]
    found, notes = layout_of(first, layout, name)
    for part, x in raw.items():
        if x.shape[1:] != first.shape[1:]:
            raise DataError(f"{name}: train examples are {first.shape[1:]} and {part} examples {x.shape[1:]}: make them alike")
        if (x.dtype == np.uint8) != (first.dtype == np.uint8) and found != "NF":
            raise DataError(f"{name}: train examples are {first.dtype} and {part} examples {x.dtype}: make them alike")
    divide = 255.0 if first.dtype == np.uint8 and found != "NF" else 1.0
    return {part: canonical(x, found) for part, x in raw.items()}, found, divide, notes
