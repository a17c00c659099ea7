"""Rows of data bigger than memory: any random access, read on the host by index, decoded by threads.

A source has `__len__` and `__getitem__`: arrays or memory maps, a folder of images, `tfds.data_source`, `array_record`, a Grain
`MapDataset`.  A row is a pair (image, label) or a dict of fields; an image is an array, an encoded file as bytes, or a path.

Axes: N rows, H height, W width, C channels.
"""

import dataclasses
import hashlib
import mmap
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxnas.data.errors import DataError
from jaxnas.data.images import cover

PROBED = 8  # rows that tell a source from others of its length
TRIED = 100  # rows in a row that may be unreadable


class Arrays(NamedTuple):
    """Rows that arrays or memory maps hold: read by all indices at once."""

    x: Any  # [N, H, W, C]
    y: Any  # [N]


class Files(NamedTuple):
    """Images of class folders."""

    folder: pathlib.Path
    paths: Sequence[pathlib.Path]
    labels: np.ndarray  # int32[N]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some rows of a source: a part of a data set."""

    source: Any  # Arrays, Files, or what has `__len__` and `__getitem__`
    at: np.ndarray  # int64[N], which

    def __len__(self) -> int:
        return len(self.at)


def length(source: Any) -> int:
    """N of a source."""
    return len(source.x if isinstance(source, Arrays) else source.paths if isinstance(source, Files) else source)


class Reading(NamedTuple):
    """How a row becomes an example."""

    image: tuple[int, int, int]  # (H, W, C)
    dtype: np.dtype  # of images
    classes: int
    fields: tuple[str, str]  # of a row that is a dict: its image and its label
    decode: Callable[[Any], Any] | None  # row -> (image, label)
    workers: int
    skip: bool
    name: str


class Reader:
    """`read` of a stream: {part: int32[...]} -> {part: (x [..., H, W, C], y int32[...])}."""

    def __init__(self, parts: Mapping[str, Rows], reading: Reading):
        self._parts, self._reading = parts, reading
        self.unreadable: dict[str, set[int]] = {part: set() for part in parts}  # rows of the source that others stood in for

    def __call__(self, indices: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {part: self._read(part, np.asarray(index)) for part, index in indices.items()}

    def _read(self, part: str, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, reading = self._parts[part], self._reading
        flat = index.reshape(-1)
        if isinstance(rows.source, Arrays):
            x, y = _gather(rows.source.x, rows.at[flat]), _gather(rows.source.y, rows.at[flat])
            y = _labels(y, reading)
        else:
            x, y = np.empty((len(flat), *reading.image), reading.dtype), np.empty(len(flat), np.int32)

            def fill(i: int) -> None:
                x[i], y[i] = self._example(part, int(flat[i]))

            with ThreadPoolExecutor(reading.workers, thread_name_prefix="jaxnas-decode") as pool:
                try:
                    for _ in pool.map(fill, range(len(flat))):
                        pass
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
        return x.reshape(*index.shape, *reading.image), y.reshape(index.shape)

    def _example(self, part: str, place: int) -> tuple[np.ndarray, int]:
        """The example at a place of a part; where it is unreadable and may be, the next one that is not, from the part's start
        behind its end."""
        rows, reading = self._parts[part], self._reading
        for i in range(min(TRIED, len(rows))):
            row = int(rows.at[(place + i) % len(rows)])
            try:
                return _example(_row(rows.source, row), reading)
            except (DataError, MemoryError):
                raise
            except Exception as error:  # a damaged file fails in many ways: OSError, SyntaxError, ValueError, ...
                if not reading.skip:
                    why = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
                    raise DataError(
                        f"{_called(rows.source, row, reading)} cannot be read ({why}): repair it, or say unreadable='skip'"
                    ) from None
                self.unreadable[part].add(row)
        raise DataError(f"{reading.name}: {TRIED} rows one after the other cannot be read: look at row {rows.at[place]}")


def _row(source: Any, i: int) -> Any:
    return (source.paths[i], source.labels[i]) if isinstance(source, Files) else source[i]


def _called(source: Any, row: int, reading: Reading) -> str:
    return str(source.paths[row]) if isinstance(source, Files) else f"{reading.name}: row {row}"


def _gather(array: Any, at: np.ndarray) -> np.ndarray:
    """Rows of an array or of a memory map, whose pages the process then gives back: they would count as its memory."""
    found = np.asarray(array[at])
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and not array.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    return found


def _labels(y: Any, reading: Reading) -> np.ndarray:
    """int32 labels.

    Raises:
        DataError: for what is no label of a class.
    """
    y = np.asarray(y)
    if y.dtype.kind not in "iu" or ((y < 0) | (y >= reading.classes)).any():
        raise DataError(
            f"{reading.name}: labels are whole numbers from 0 to {reading.classes - 1}, not {y.reshape(-1)[:3].tolist()}"
        )
    return y.astype(np.int32)


def _example(row: Any, reading: Reading) -> tuple[np.ndarray, int]:
    """(x [H, W, C], label) of a row."""
    if reading.decode is not None:
        row = reading.decode(row)
    if isinstance(row, Mapping):
        missing = [name for name in reading.fields if name not in row]
        if missing:
            raise DataError(f"{reading.name}: a row has no field {missing[0]}, only {', '.join(map(str, row))}: say fields=...")
        row = tuple(row[name] for name in reading.fields)
    if not isinstance(row, tuple | list) or len(row) != 2:
        raise DataError(
            f"{reading.name}: a row is a pair (image, label) or a dict of fields: say decode=..., which makes one of it"
        )
    image, label = row
    return as_image(image, reading), int(_labels(label, reading))


def as_image(image: Any, reading: Reading) -> np.ndarray:
    """[H, W, C] of an array, an encoded file or its path; of another size, its middle, resized in proportion."""
    if isinstance(image, bytes | pathlib.Path | str):
        return cover(pathlib.Path(image) if isinstance(image, str) else image, reading.image)
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    if image.shape == reading.image and image.dtype == reading.dtype:
        return image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != reading.image[-1]:
        raise DataError(f"{reading.name}: images are {reading.dtype}{[*reading.image]}; one is {image.dtype}{[*image.shape]}")
    return cover(image, reading.image)


def origin(sources: Mapping[str, Any]) -> str:
    """What tells sources from others, without reading them all: how many rows, the names and sizes of files, a few rows."""
    digest = hashlib.sha256()
    for part, source in sources.items():
        n = length(source)
        digest.update(f"{part} {n} ".encode())
        if isinstance(source, Files):
            for path, label in zip(source.paths, source.labels, strict=True):
                digest.update(f"{path.relative_to(source.folder).as_posix()} {os.stat(path).st_size} {label}\n".encode())
            continue
        for i in np.unique(np.linspace(0, n - 1, PROBED).astype(int)):
            digest.update(_plain((source.x[i], source.y[i]) if isinstance(source, Arrays) else source[int(i)]))
    return digest.hexdigest()


def identity(of: str, parts: Mapping[str, Rows], reading: Reading) -> str:
    """That of a stream: of where its rows come from, of which they are, and of how they are read."""
    digest = hashlib.sha256(repr((of, reading.image, str(reading.dtype), reading.classes, reading.skip)).encode())
    for part, rows in parts.items():
        digest.update(part.encode() + np.ascontiguousarray(rows.at).tobytes())
    counts = ", ".join(f"{len(rows)} {part}" for part, rows in parts.items())
    return f"{reading.dtype}{[*reading.image]}, {counts} {digest.hexdigest()[:12]}"


def _plain(row: Any) -> bytes:
    if isinstance(row, Mapping):
        return b"".join(str(name).encode() + _plain(row[name]) for name in sorted(row, key=str))
    if isinstance(row, tuple | list):
        return b"".join(map(_plain, row))
    if isinstance(row, bytes | str):
        return row if isinstance(row, bytes) else row.encode()
    array = np.asarray(row)
    return f"{array.dtype}{array.shape}".encode() + (b"" if array.dtype == object else np.ascontiguousarray(array).tobytes())
