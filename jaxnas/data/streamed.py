"""Data that do not fit in memory: `streamed(source, key)` -> Streamed -> `batches` or `training` -> Stream.

Images stay uint8 until they are on the device, where each batch is normalised and augmented; the host reads and decodes only what
the next steps see (`jaxnas.driver.ahead`).  A step sees the batch that it would see of the same images in memory, bit for bit.

Axes: N examples, S steps, B examples of a batch, H height, W width, C channels.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import Image, RandomKey, checked, require
from jaxnas.data import rows as _rows
from jaxnas.data.augment import MEAN, STD
from jaxnas.data.dataset import Split, choosing_share
from jaxnas.data.errors import DataError
from jaxnas.data.images import list_files
from jaxnas.data.inputs import Inputs
from jaxnas.data.parts import cut, permutation
from jaxnas.data.pixels import normalised
from jaxnas.data.rows import Arrays, Files, Reader, Reading, Rows
from jaxnas.data.target import Target
from jaxnas.kinds import Positive, Share

Unreadable = Literal["error", "skip"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Streamed:
    """Three disjoint parts of sources that are read by index.  What `Dataset` is to data in memory; no pytree."""

    train: Rows
    valid: Rows
    test: Rows | None  # None: the source has none
    target: Target
    reading: Reading
    mean: tuple[float, ...]  # [C], of images / 255
    std: tuple[float, ...]
    origin: str  # tells its sources from others: see `jaxnas.data.rows.origin`
    name: str = "data"

    @property
    def classes(self) -> int:
        """Outputs of a network."""
        return self.target.outputs

    @property
    def inputs(self) -> Inputs | None:
        """How bytes and image files become inputs; None: images are read as floats."""
        if self.reading.dtype != np.uint8:
            return None
        return Inputs("image", self.image, "NHWC", 255.0, self.mean, self.std, files="covered")

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided about the data, each a line for a person."""
        count = sum(len(rows) for rows in (self.train, self.valid, self.test) if rows is not None)
        H, W, C = self.image
        return (f"x: {count:,} images, read as they are wanted as {H} x {W} x {C}; of another shape their middle",)

    @property
    def identity(self) -> str:
        """What tells it from other data, without reading them all."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return _rows.identity(self.origin, {name: rows for name, rows in parts.items() if rows is not None}, self.reading)

    @property
    def image(self) -> tuple[int, int, int]:
        """(H, W, C) of one example."""
        return self.reading.image

    def encode(self, x: jax.Array) -> jax.Array:
        """float32[..., H, W, C] of what is read: uint8 images are normalised, others are as they are."""
        return normalised(x, self.mean, self.std) if x.dtype == jnp.uint8 else x.astype(jnp.float32)

    def read(self, part: Rows, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(x [..., H, W, C], y int32[...]) of places in a part, on the host; x is not normalised."""
        return Reader({"part": part}, self.reading)({"part": index})["part"]

    def in_order(self, part: Rows, size: int) -> Iterator[Split]:
        """The examples of a part from the first to the last, `size` at a time (the last fewer), normalised, on the device.

        Raises:
            ValueError: for a size below 1.
        """
        if size < 1:
            raise ValueError(f"at least 1 example at a time, not {size}")
        encode = jax.jit(self.encode)
        for begin in range(0, len(part), size):
            x, y = self.read(part, np.arange(begin, min(begin + size, len(part))))
            yield Split(encode(x), jnp.asarray(y))


@checked
def streamed(
    source: Any,
    key: RandomKey,
    *,
    valid: Any = 0.5,
    test: Any = None,
    image: Image | None = None,
    names: Sequence[str] | None = None,
    decode: Callable[[Any], Any] | None = None,
    fields: tuple[str, str] = ("image", "label"),
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    valid_as_test: bool = False,
    unreadable: str = "error",
    workers: Positive | None = None,
    data_dir: str | pathlib.Path | None = None,
    name: str | None = None,
) -> Streamed:
    """Images in classes that are read while a search runs, from a source of any size.

    Args:
        source: a folder of class folders, as `load` takes; "tfds:NAME"; a pair of arrays or memory maps (x [N, H, W, C], y [N]); or
            what has `__len__` and `__getitem__` (array_record, `tfds.data_source`, a Grain `MapDataset`), whose rows are pairs
            (image, label) or dicts.  An image is an array, an encoded file as bytes, or a path.
        key: draws the split, as `load` does of a folder or tfds, and `split` of arrays, where they have a test part.
        valid: the part of the examples that moves the architecture, where the source has none of its own; or a source of its own;
            None: as much as choices among trained networks need.
        test: the part of all examples that becomes the test set, where the source has none of its own; or a source of its own;
            None: there is no test set but that of the source.
        image: (H, W, C); images of another size are resized until they cover it, and their middle is taken.  Default: the size
            of the arrays; without arrays (224, 224, 3).
        names: of the classes, which labels number from 0; default: those that a folder or tfds has; of arrays, the numbers.
        decode: row -> (image, label), for rows of another form.  It runs in several threads.
        fields: of rows that are dicts: where the image and the label are.
        mean: of each channel, of images / 255; default: ImageNet's.
        std: likewise.
        valid_as_test: the validation part that the source has is the test set, and its test part is left out, as is usual with
            ImageNet, whose test labels are not public.
        unreadable: "error" ends the run at an image that cannot be read; "skip" takes the next of its part that can, and counts
            it in the stream's `read.unreadable`, of each process that of the rows that it reads.
        workers: threads that decode; default: as many as there are cores.  Pillow does not hold Python's lock while it decodes.
            Where your `decode` does, let the threads wait for processes: decode=lambda row: pool.submit(decode, row).result(), with
            pool = ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")), closed when the run has ended.
        data_dir: of TensorFlow Datasets.
        name: what messages call the data.

    Raises:
        DataError: for a source that does not exist or cannot be read, parts without examples, or no names of classes.
        ValueError: for bad arguments.
    """
    if unreadable not in get_args(Unreadable):
        raise ValueError(f"`unreadable` must be one of {', '.join(get_args(Unreadable))}; got {unreadable!r}")
    if not _is_source(valid):
        require(Share | None, "streamed", valid=valid)
    if not _is_source(test):
        require(Share | None, "streamed", test=test)
    called = name or (os.fspath(source) if isinstance(source, str | os.PathLike) else "data")
    parts, found, fields = _parts(source, called, fields, data_dir)
    if valid_as_test:
        if "valid" not in parts:
            raise DataError(f"{called} has no validation part: leave valid_as_test out")
        parts["test"] = parts.pop("valid")
    parts |= {part: _source(own, called) for part, own in (("valid", valid), ("test", test)) if _is_source(own)}
    if names is None and isinstance(parts["train"], Arrays):
        found = tuple(map(str, range(1 + int(np.max(parts["train"].y)))))
    names = found if names is None else tuple(names)
    if names is None or len(names) < 2:
        raise DataError(f"{called}: give the names of its classes, at least two: names=(...)")
    first = parts["train"]
    dtype = np.dtype(first.x.dtype) if isinstance(first, Arrays) else np.dtype(np.uint8)
    image = _image(first, image, called)
    if not len(mean) == len(std) == image[-1]:
        raise ValueError(f"`mean` and `std` need {image[-1]} numbers, one a channel; got {len(mean)} and {len(std)}")
    if not all(s > 0 for s in std):
        raise ValueError(f"`std` must be positive; got {tuple(std)}")
    reading = Reading(image, dtype, len(names), tuple(fields), decode, workers or os.cpu_count() or 1, unreadable == "skip", called)
    if isinstance(source, str | os.PathLike):
        key = jax.random.split(key, 3)[0]  # as `load`, and below as `split` cuts
    n, share = _rows.length(first), choosing_share(_rows.length(first)) if valid is None else valid
    held = {part: Rows(of, np.arange(_rows.length(of))) for part, of in parts.items()}
    if "valid" in parts:
        key, k_valid = jax.random.split(key)
        held["valid"] = Rows(parts["valid"], permutation(k_valid, len(held["valid"])))
    where = cut(key, n, 0.0 if "valid" in parts else share, 0.0 if "test" in parts or test is None else test)
    held["train"] = Rows(first, where.train)
    held.setdefault("valid", Rows(first, where.valid))
    if test is not None:
        held.setdefault("test", Rows(first, where.test))
    if not all(map(len, held.values())):
        sizes = ", ".join(f"{len(rows)} {part}" for part, rows in held.items())
        raise DataError(f"{called}: {n} examples leave an empty part ({sizes}): give more, or other parts")
    numbers = lambda a: tuple(map(float, a))
    return Streamed(
        train=held["train"],
        valid=held["valid"],
        test=held.get("test"),
        target=Target("classes", tuple(names)),
        reading=reading,
        mean=numbers(mean),
        std=numbers(std),
        origin=_rows.origin(parts),
        name=called,
    )


def _is_source(given: Any) -> bool:
    """Whether it is not a share or None."""
    return not isinstance(given, int | float | str | np.number | type(None))


def _parts(
    source: Any, name: str, fields: tuple[str, str], data_dir: Any
) -> tuple[dict[str, Any], tuple[str, ...] | None, tuple[str, str]]:
    """({part: its source}, the names of the classes, the fields of a row)."""
    if isinstance(source, str) and source.startswith("tfds:"):
        from jaxnas.data.tfds import open_encoded

        return open_encoded(source, data_dir)
    if not isinstance(source, str | os.PathLike):
        return {"train": _source(source, name)}, None, fields
    folder = pathlib.Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder: check the path")
    listed = list_files(folder)
    names = tuple(sorted({c for files in listed.values() for c in files.classes}))
    number = {c: i for i, c in enumerate(names)}
    found = {p: Files(folder, f.paths, np.asarray([number[c] for c in f.classes], np.int32)) for p, f in listed.items()}
    return found, names, fields


def _source(source: Any, name: str) -> Any:
    """A source as it is read.

    Raises:
        DataError: for what is none.
    """
    if isinstance(source, tuple | list) and len(source) == 2 and all(hasattr(a, "shape") for a in source):
        x, y = source
        if np.ndim(x) != 4 or np.shape(y) != (len(x),) or np.dtype(x.dtype) not in (np.uint8, np.float32):
            raise DataError(
                f"{name}: arrays are images [N, H, W, C] as uint8 or float32, and labels [N]; these are "
                f"{x.dtype}{[*x.shape]} and {[*y.shape]}"
            )
        return Arrays(x, y)
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")) or isinstance(source, str | dict):
        raise DataError(f"{name}: a source is a folder, tfds:NAME, a pair of arrays, or has a length and rows by index")
    return source


def _image(source: Any, image: Any, name: str) -> tuple[int, int, int]:
    of = tuple(source.x.shape[1:]) if isinstance(source, Arrays) else None
    if image is None:
        return of or (224, 224, 3)
    image = tuple(int(n) for n in image)
    if of is not None and image != of:
        raise DataError(f"{name}: arrays are read as they are, {of}, not resized to {image}: leave image out")
    if len(image) != 3 or image[-1] not in (1, 3):
        raise ValueError(f"`image` is (height, width, 1 or 3 channels); got {image}")
    return image


def joined(a: Rows, b: Rows, name: str) -> Rows:
    """Two parts as one.

    Raises:
        DataError: for parts of different sources.
    """
    if a.source is b.source:
        return Rows(a.source, np.concatenate([a.at, b.at]))
    if isinstance(a.source, Files) and isinstance(b.source, Files):
        both = Files(a.source.folder, [*a.source.paths, *b.source.paths], np.concatenate([a.source.labels, b.source.labels]))
        return Rows(both, np.concatenate([a.at, b.at + len(a.source.paths)]))
    if isinstance(a.source, Arrays) or isinstance(b.source, Arrays):
        raise DataError(f"{name}: arrays of different files cannot be read as one part: join them, or train on one")
    n = _rows.length(a.source)
    return Rows(_Chained(a.source, b.source), np.concatenate([a.at, b.at + n]))


class _Chained:
    """Two sources, one behind the other."""

    def __init__(self, first: Any, second: Any):
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, i: int) -> Any:
        n = len(self._first)
        return self._first[i] if i < n else self._second[i - n]
