"""What the axes of raw arrays are.

    NHWC  NCHW  NHW    images, the last of them grey and without an axis of channels
    NTC   NCT          time series
    NF                 rows of a table

Without a word from the user a rule decides, in favour of NHWC and NHW, and refuses what can be read in two ways.

Axes: N examples, H height, W width, T times, C channels, F columns.
"""

from typing import Any, Literal, TypeVar, get_args

import numpy as np

from jaxnas.data.errors import DataError

Layout = Literal["NHWC", "NCHW", "NHW", "NTC", "NCT", "NF"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
KIND: dict[str, str] = {"NHWC": "image", "NCHW": "image", "NHW": "image", "NTC": "series", "NCT": "series", "NF": "table"}
COLOURS = (1, 3, 4)  # channels that images are known to have

Array = TypeVar("Array", bound=Any)


def layout_of(x: np.ndarray, layout: str | None = None, name: str = "data") -> tuple[Layout, tuple[str, ...]]:
    """(the layout, notes for a person), by the given word or by the rule.

    Raises:
        DataError: for an unknown layout, one of another rank than x, or axes that can be read in two ways.
    """
    shape = list(x.shape)
    if layout is not None:
        if layout not in LAYOUTS:
            raise DataError(f"{name}: unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
        if len(layout) != x.ndim:
            raise DataError(f"{name}: a layout of {layout} has {len(layout)} axes, and x is {shape}")
        return layout, ()
    if x.ndim == 2:
        return "NF", (f"x: a table of {shape[1]} numbers",)
    if x.ndim == 3:
        return _three_axes(x, name)
    if x.ndim == 4:
        return _four_axes(shape, name)
    raise DataError(
        f"{name}: x must be images [N, H, W] or [N, H, W, C], series [N, T, C] or a table [N, F], not {shape}: "
        "give an array of one of these"
    )


def _three_axes(x: np.ndarray, name: str) -> tuple[Layout, tuple[str, ...]]:
    _, a, b = x.shape
    if a == b or x.dtype == np.uint8:
        return "NHW", (f"x: grey images of {a} x {b} (say layout NTC if they are series)",)
    raise DataError(f"{name}: x is {list(x.shape)}: say layout NHW for grey images, or NTC or NCT for series")


def _four_axes(shape: list[int], name: str) -> tuple[Layout, tuple[str, ...]]:
    """NHWC, but for channels that can only be the first axis."""
    _, a, b, c = shape
    square_first, square_last = b == c and a != c, a == b and a != c  # images are square with the channels first, or last
    if c <= max(COLOURS):
        unclear = a in COLOURS and c in COLOURS and (square_first or a == b == c > 1)
    elif a in COLOURS:
        said = f"x: images of {b} x {c} with {a} channel{'s' * (a > 1)} first (NCHW)"
        return "NCHW", (f"{said}: they were transposed",)
    else:
        unclear = square_first and not square_last
    if unclear:
        raise DataError(f"{name}: x is {shape}, with the channels first or last? Say layout NCHW or NHWC")
    return "NHWC", ()


def canonical(x: Array, layout: str) -> Array:
    """NumPy's or JAX's arrays as [N, H, W, C], [N, T, C] or [N, F]."""
    if layout == "NHW":
        return x[..., None]
    if layout == "NCHW":
        return x.transpose(0, 2, 3, 1)
    return x.transpose(0, 2, 1) if layout == "NCT" else x
