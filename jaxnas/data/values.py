"""Targets of any form as arrays of truth values, numbers or text.

Axes: N examples, K columns.
"""

import numpy as np
from numpy.typing import ArrayLike

from jaxnas.data.errors import DataError


def as_targets(y: ArrayLike, name: str) -> np.ndarray:
    """Targets as an array of truth values, numbers or text, [N] or [N, K]; a single column is [N].

    Raises:
        DataError: for ragged or missing targets, another rank, or another type.
    """
    try:
        y = np.asarray(y)
    except ValueError:
        raise DataError(f"{name}: targets are ragged: every example needs as many") from None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2) or (y.ndim == 2 and y.shape[1] == 0):
        raise DataError(f"{name}: targets must be [N] or [N, K], one row for each example, not {list(y.shape)}")
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    y = y.astype(str) if y.dtype.kind == "T" else y
    missing = np.zeros(y.shape, bool)
    if y.dtype.kind == "O":
        from pandas import isna  # slow to import

        missing = np.asarray(isna(y))
        if not missing.any():
            y = _plain(y)
    elif y.dtype.kind == "f":
        missing = ~np.isfinite(y)
    bad = np.flatnonzero(missing.reshape(len(y), -1).any(1))
    if len(bad):
        raise DataError(f"{name}: {len(bad)} of {len(y)} targets are missing, NaN or infinite ({_rows(bad)}): drop those examples")
    if y.dtype.kind not in "buifU":
        raise DataError(f"{name}: targets must be numbers, truth values or text, not {y.dtype}")
    return y


def _plain(y: np.ndarray) -> np.ndarray:
    """Python objects as an array of truth values or numbers where all are, else of text."""
    kinds = {type(v) for v in y.ravel()}
    if kinds <= {bool, np.bool_}:
        return y.astype(bool)
    if all(issubclass(k, int | np.integer) for k in kinds) and not kinds & {bool, np.bool_}:
        with_room = np.asarray(y.tolist())  # int64, or an object where that is too small
        return with_room if with_room.dtype.kind in "iu" else y.astype(float)
    if all(issubclass(k, int | float | np.number) for k in kinds) and not kinds & {bool, np.bool_}:
        return y.astype(float)
    if any(k.__module__.split(".")[0] in ("datetime", "pandas") for k in kinds):
        return y  # refused: a date is no target
    return y.astype(str)


def _rows(at: np.ndarray) -> str:
    shown = ", ".join(map(str, at[:5]))
    return f"row{'s' if len(at) > 1 else ''} {shown}{', ...' if len(at) > 5 else ''}, counted from 0"
