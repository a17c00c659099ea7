"""TensorFlow Datasets, read without TensorFlow."""

import contextlib
import logging
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from typing import Any

import numpy as np

from jaxnas.data.errors import DataError
from jaxnas.data.raw import Ask, Raw, no_columns

INSTEAD = "or use --data digits or --data file.npz"


PARTS = {"train": ("train",), "valid": ("validation", "valid"), "test": ("test",)}


def read_prepared(spec: str, ask: Ask) -> Raw:
    """Reads what TensorFlow Datasets prepared, without TensorFlow; prepares it first where there is a network.

    Preparing many of its image sets (MNIST, CIFAR) does need TensorFlow, once, on some machine.  The "test" split is the
    test set and "validation" the valid part; other splits are not used.
    """
    no_columns(ask, spec)
    name = spec.removeprefix("tfds:")
    builder, sources, keys, names = _with_labels(name, ask.data_dir)
    parts = {}
    for part, source in sources.items():
        with _quiet():
            try:
                rows = [source[int(i)] for i in ask.pick(part, len(source))]
            except Exception as error:
                raise DataError(f"tfds:{name}: damaged ({_line(error)}): delete {builder.data_dir}, {INSTEAD}") from None
        if len({np.shape(row[keys[0]]) for row in rows}) > 1:
            raise DataError(f"tfds:{name} has images of different sizes, which have no one shape: choose another one")
        parts[part] = np.asarray([row[keys[0]] for row in rows]), np.asarray([row[keys[1]] for row in rows])
    layout = "NHWC" if np.ndim(parts["train"][0]) == 4 else None
    return Raw(parts, names=names, layout=layout)


def open_encoded(spec: str, data_dir: Any) -> tuple[dict[str, Any], tuple[str, ...] | None, tuple[str, str]]:
    """({part: its data source}, the names of the classes, the fields of image and label): rows whose images are still encoded.

    Raises:
        DataError: as `read_prepared`.
    """
    _, sources, keys, names = _with_labels(spec.removeprefix("tfds:"), data_dir, encoded=True)
    return sources, names, keys


def _with_labels(
    name: str, data_dir: Any, encoded: bool = False
) -> tuple[Any, dict[str, Any], tuple[str, str], tuple[str, ...] | None]:
    """(the builder, its data sources by part, its fields of image and label, the names of the classes)."""
    with _quiet():
        builder, sources = _open(name, data_dir, encoded)
        features, keys = builder.info.features, builder.info.supervised_keys or ("image", "label")
    if len(keys) != 2 or any(not isinstance(k, str) or k not in features for k in keys):
        raise DataError(f"tfds:{name} has no images with labels, only {', '.join(features)}: choose another one")
    if "train" not in sources:
        raise DataError(f"tfds:{name} has no train split, only {', '.join(sources)}: choose another one")
    names = getattr(features[keys[1]], "names", None)
    parts = {part: sources[split] for part, known in PARTS.items() for split in known[::-1] if split in sources}
    return builder, parts, (keys[0], keys[1]), None if names is None else tuple(names)


def _open(name: str, data_dir: Any, encoded: bool = False) -> tuple[Any, Any]:
    """(the builder, its data sources by split); `encoded`: images are left as the bytes of their files."""
    import tensorflow_datasets as tfds  # slow to import

    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
        raise DataError(f"TensorFlow Datasets has no {name!r}: check the name, {INSTEAD}") from None
    except Exception as error:  # a malformed name, a namespace without network, code that needs TensorFlow, ...
        raise DataError(f"tfds:{name} could not be opened ({_line(error)}): check the name, {INSTEAD}") from None
    if not builder.is_prepared():
        if not _online():
            raise DataError(f"tfds:{name} is not in {builder.data_dir} and there is no network: copy it there, {INSTEAD}")
        try:
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record", try_gcs=False)
            builder.download_and_prepare()
        except Exception as error:
            why = _line(error)
            raise DataError(f"tfds:{name} could not be prepared ({why}): install what it needs, {INSTEAD}") from None
    try:
        images = [k for k, f in builder.info.features.items() if encoded and isinstance(f, tfds.features.Image)]
        return builder, builder.as_data_source(decoders={k: tfds.decode.SkipDecoding() for k in images} or None)
    except Exception:
        how = "prepare it again with file_format='array_record'"
        raise DataError(f"tfds:{name} in {builder.data_dir} is not readable without TensorFlow: {how}, {INSTEAD}") from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _online() -> bool:
    """Whether downloads can work.  TensorFlow Datasets itself finds out by minutes of retries."""
    try:
        urllib.request.urlopen("https://storage.googleapis.com", timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()  # it answered
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """TensorFlow Datasets prints, and warns of what is no fault; its progress goes to the error output instead."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        log.setLevel(level)
