"""Where data comes from: `load("digits", key)`, `load("file.npz", key)`, `load("tfds:mnist", key)`.

To add a source of your own, read arrays x and y as you like and call `split(key, x, y)`.
"""

import contextlib
import logging
import pathlib
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnas.base import Key
from jaxnas.data.dataset import DataError, Dataset, permutation, split
from jaxnas.data.npz import read_npz
from jaxnas.registry import Table

_INSTEAD = "or use --data digits or --data file.npz"


def load(
    spec: str, key: Key, *, valid: float = 0.5, limit: int | None = None, data_dir: str | pathlib.Path | None = None
) -> Dataset:
    """Reads a data set and cuts it; see `split`.

    A test set that the source has is kept; else 20 % of the examples become one.

    Args:
        spec: one of `SOURCES`.
        key: draws the splits and, with a limit, the examples.
        valid: the part of what is not test that moves the architecture.
        limit: use at most this many examples, and at most this many of a test set that the source has; default: all.
        data_dir: where TensorFlow Datasets keeps its files; default: its own choice.

    Raises:
        DataError: for a source that does not exist, cannot be read, or holds what `split` refuses.
    """
    if limit is not None and limit < 1:
        raise DataError(f"the limit must be at least 1 example, not {limit}")
    k_split, k_train, k_test = jax.random.split(key, 3)

    def pick(k, n):  # which of n examples are used
        return np.arange(n) if limit is None or limit >= n else permutation(k, n)[:limit]

    source = next((source for source in SOURCES.values() if source.matches(spec)), None)
    if source is None:
        raise DataError(f"unknown data {spec!r}: choose one of {', '.join(SOURCES)}")
    train, test = source.read(spec, data_dir)
    x, y = train(lambda n: pick(k_train, n))
    own = {} if test is None else {"test": test(lambda n: pick(k_test, n))}
    return split(k_split, x, y, valid=valid, name=spec, **own)


# A reader returns two functions, for the train and the test set (None where there is none): (n -> indices) -> (x, y).


def _rows(x, y):
    def read(pick):
        if not (np.ndim(x) and np.shape(x)[:1] == np.shape(y)[:1]):
            return x, y  # `split` says what is wrong
        rows = pick(len(x))
        return x[rows], y[rows]

    return read


def _digits(spec, data_dir):
    from sklearn.datasets import load_digits  # slow to import

    digits: Any = load_digits()
    return _rows(digits.images, digits.target), None


def _npz(spec, data_dir):
    path = pathlib.Path(spec).expanduser()
    wanted = ("x", "y", "x_train", "y_train", "x_test", "y_test")
    write = "np.savez(path, x=x, y=y)"
    arrays, names = read_npz(path, wanted, instead="use --data digits", write=write)
    x, y = ("x", "y") if "x" in arrays or "y" in arrays else ("x_train", "y_train")
    needed = [x, y] + (["x_test", "y_test"] if x == "x_train" and {"x_test", "y_test"} & set(arrays) else [])
    missing = [n for n in needed if n not in arrays]
    if missing:
        have = ", ".join(names) or "nothing"
        raise DataError(f"{path}: no array {' or '.join(missing)}, only {have}: write it with {write}")
    return _rows(arrays[x], arrays[y]), (_rows(arrays["x_test"], arrays["y_test"]) if len(needed) == 4 else None)


def _tfds(spec, data_dir):
    """Reads what TensorFlow Datasets prepared, without TensorFlow; prepares it first where there is a network.

    Preparing many of its image sets (MNIST, CIFAR) does need TensorFlow, once, on some machine.  The "test" split is the
    test set; other splits than "train" and "test" are not used.
    """
    name = spec.removeprefix("tfds:")
    with _quiet():
        import tensorflow_datasets as tfds  # slow to import

        try:
            builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
        except tfds.core.DatasetNotFoundError:
            raise DataError(f"TensorFlow Datasets has no {name!r}: check the name, {_INSTEAD}") from None
        except Exception as error:  # a malformed name, a namespace without network, code that needs TensorFlow, ...
            raise DataError(f"tfds:{name} could not be opened ({_line(error)}): check the name, {_INSTEAD}") from None
        if not builder.is_prepared():
            if not _online():
                raise DataError(f"tfds:{name} is not in {builder.data_dir} and there is no network: copy it there, {_INSTEAD}")
            try:
                builder = tfds.builder(name, data_dir=data_dir, file_format="array_record", try_gcs=False)
                builder.download_and_prepare()
            except Exception as error:
                why = _line(error)
                raise DataError(f"tfds:{name} could not be prepared ({why}): install what it needs, {_INSTEAD}") from None
        try:
            sources: Any = builder.as_data_source()
        except Exception:
            how = "prepare it again with file_format='array_record'"
            raise DataError(f"tfds:{name} in {builder.data_dir} is not readable without TensorFlow: {how}, {_INSTEAD}") from None
        keys = builder.info.supervised_keys or ("image", "label")
    if len(keys) != 2 or any(not isinstance(k, str) or k not in builder.info.features for k in keys):
        raise DataError(f"tfds:{name} has no images with labels, only {', '.join(builder.info.features)}: choose another one")
    if "train" not in sources:
        raise DataError(f"tfds:{name} has no train split, only {', '.join(sources)}: choose another one")

    def examples(source):
        def read(pick):
            with _quiet():
                try:
                    rows = [source[int(i)] for i in pick(len(source))]
                except Exception as error:
                    raise DataError(f"tfds:{name}: damaged ({_line(error)}): delete {builder.data_dir}, {_INSTEAD}") from None
            shapes = {np.shape(row[keys[0]]) for row in rows}
            if len(shapes) > 1:
                raise DataError(f"tfds:{name} has images of different sizes, which have no one shape: choose another one")
            return np.asarray([row[keys[0]] for row in rows]), np.asarray([row[keys[1]] for row in rows])

        return read

    return examples(sources["train"]), examples(sources["test"]) if "test" in sources else None


def _line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _online():
    """Whether downloads can work.  TensorFlow Datasets itself finds out by minutes of retries."""
    try:
        urllib.request.urlopen("https://storage.googleapis.com", timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()  # it answered
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _quiet():
    """TensorFlow Datasets prints, and warns of what is no fault; its progress goes to the error output instead."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        log.setLevel(level)


class Source(NamedTuple):
    """Where data may come from."""

    about: str
    matches: Callable[[str], bool]  # whether a spec is of this source
    read: Callable  # (spec, data_dir) -> (readers of the train set and of the test set, or None), as above


SOURCES: Table[Source] = Table(
    "data source",
    {
        "digits": Source("1,797 handwritten digits, 8x8x1, 10 classes (scikit-learn)", lambda spec: spec == "digits", _digits),
        "FILE.npz": Source(
            "arrays x [N, H, W(, C)] and y [N], or x_train, y_train, x_test, y_test", lambda spec: spec.endswith(".npz"), _npz
        ),
        "tfds:NAME": Source(
            "an image classification set that TensorFlow Datasets has prepared as array_record",
            lambda spec: spec.startswith("tfds:"),
            _tfds,
        ),
    },
)
