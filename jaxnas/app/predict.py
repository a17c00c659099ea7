"""`jaxnas predict`: examples from files, by the readers of `jaxnas.data`, and what a network says of them.

    FILE.csv, .tsv, .parquet    the target's column may be there, and then the predictions are scored
    FILE.png, ...               one image
    FOLDER                      of images, flat or a folder a class; its test part, where it has one
    FILE.npz, X.npy             raw arrays; x_test or test_images where an .npz has it, else x, else the only array that fits
    anything else that --data reads: its test part, where it has one

Axes: N examples, K classes, labels or numbers.
"""

import csv
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxnas.app.network import Network
from jaxnas.app.tasks import WHAT
from jaxnas.data import arrays, images, sources, tables
from jaxnas.data.errors import DataError
from jaxnas.data.npz import read_npz
from jaxnas.data.raw import TARGETS, Ask
from jaxnas.data.target import names_of
from jaxnas.data.values import as_targets
from jaxnas.driver.files import read_json


class Examples(NamedTuple):
    names: Sequence[str]  # [N]
    x: Any  # what `Network.outputs` takes
    y: Any = None  # [N] or [N, K], as they come, where they are known
    test: bool = False  # whether they are a test part, which no network has learnt from


# --- reading ----------------------------------------------------------------------------------------------------------


def read(spec: str, network: Network, target: str | None, say: Callable[[str], None]) -> Examples:
    """Examples of what `jaxnas predict` is given.

    Args:
        spec: a path, or a source of `jaxnas.data.SOURCES`.
        network: what will read them.
        target: the column or array of the targets, if a person has said it.
        say: takes a line for a person.

    Raises:
        DataError: for what is not there, cannot be read, or is of another kind than the network reads.
    """
    path = pathlib.Path(spec).expanduser()
    if spec.lower().endswith(images.ENDINGS):
        return _of_images([path], path.parent, network, say)
    if tables.is_spec(spec):
        return _of_table(path, network, target, say)
    if images.is_folder(spec):
        return _of_folder(path, network, say)
    if spec.endswith(".npz"):
        return _of_npz(path, network, target, say)
    if spec.endswith(".npy") and "," not in spec:
        return _numbered(arrays.read_npy(path))
    source = next((source for source in sources.SOURCES.values() if source.matches(spec)), None)
    if source is None:
        raise DataError(f"{spec}: there is no such file or folder: check the path")
    raw = source.read(spec, Ask(lambda part, n: np.arange(n)))
    part = "test" if "test" in raw.parts else "train"
    return _numbered(*raw.parts[part], part == "test")


def _numbered(x: Any, y: Any = None, test: bool = False) -> Examples:
    if np.ndim(x) == 0:
        raise DataError("x is a single number: give examples [N, ...]")
    return Examples([str(i) for i in range(len(x))], x, y, test)


def _of_table(path: pathlib.Path, network: Network, target: str | None, say: Callable[[str], None]) -> Examples:
    test = False
    if network.inputs is not None and network.inputs.kind != "table":
        has = WHAT[network.inputs.kind]
        raise DataError(f"{path.name} is a table, and the network has learnt from {has}: give data of that kind")
    if path.is_dir():
        files = tables.parts_of(path)
        path, test = files.get("test", files["train"]), "test" in files
        say(f"data: {path.name} is read")
    notes: list[str] = []
    frame = tables.read_frame(path, notes)
    for note in notes:
        say(f"data: {note}")
    columns = target_columns(list(frame.columns), network, target)
    if not columns:
        return _numbered(frame)
    y = frame[columns[0]] if len(columns) == 1 else frame[columns]
    if network.target.kind == "classes" and not np.isin(names_of(np.asarray(y.dropna())), network.names).any():
        return _numbered(frame)  # it is no such column
    if np.asarray(y.isna()).any():
        say(f"data: {', '.join(columns)} has gaps, so there is no score")
        return _numbered(frame)
    return _numbered(frame, y.to_numpy(), test)


def target_columns(columns: list[str], network: Network, target: str | None) -> list[str]:
    """The columns of a table that hold the targets, none or all of them: as a person has said, by their names, or the last."""
    inputs = set() if network.inputs is None else {c.name for c in network.inputs.columns}
    others = [c for c in columns if c not in inputs]
    if network.target.kind != "classes":
        wanted = list(network.names)
    elif target is not None:
        wanted = [target] if target in columns else [c.strip() for c in target.split(",")]
    else:
        named = [c for known in TARGETS for c in others if c.strip().lower() == known]
        wanted = named[:1] or columns[-1:]
    return wanted if wanted and all(c in others for c in wanted) else []


def _of_folder(folder: pathlib.Path, network: Network, say: Callable[[str], None]) -> Examples:
    """Images; the folder of each, where it is named like a class, is its target."""
    try:
        parts = images.list_files(folder)
    except DataError:  # no class folders
        parts = {}
    if "test" in parts:
        say(f"data: {folder} has parts, and its test part is read")
        paths = parts["test"].paths
    else:
        paths = images.list_images(folder)
    if not paths:
        raise DataError(f"{folder}: it has no images ({', '.join(images.ENDINGS)}): give a folder of images")
    return _of_images(paths, folder, network, say)._replace(test="test" in parts)


def _of_images(paths: list[pathlib.Path], folder: pathlib.Path, network: Network, say: Callable[[str], None]) -> Examples:
    inputs = network.inputs
    if inputs is None or inputs.kind != "image" or inputs.raw_dtype != np.uint8:
        has = "plain arrays" if inputs is None else "a table" if inputs.kind == "table" else f"{inputs.kind}s of other numbers"
        raise DataError(f"{paths[0].name} is an image file, and the network has learnt from {has}: give data of that kind")
    if not paths[0].is_file():
        raise DataError(f"{paths[0]}: there is no such file: check the path")

    def pixels(path: pathlib.Path) -> np.ndarray | None:
        try:
            return images.read_image(path, inputs.shape)
        except DataError:
            return None

    with ThreadPoolExecutor() as pool:
        every = list(pool.map(pixels, paths))
    at = [i for i, x in enumerate(every) if x is not None]
    name = lambda i: paths[i].relative_to(folder).as_posix()
    if len(at) < len(paths):
        bad = [name(i) for i, x in enumerate(every) if x is None]
        shown = ", ".join(bad[:10]) + ", ..." * (len(bad) > 10)
        if not at:
            raise DataError(f"{shown}: cannot be read as an image: check the file")
        say(f"data: {len(bad)} of {len(paths)} images cannot be read and are left out: {shown}")
    x = np.stack([x for x in every if x is not None])  # [N, H, W, C]
    x = {"NHWC": x, "NCHW": x.transpose(0, 3, 1, 2), "NHW": x[..., 0]}[inputs.layout]
    classes = [next((p for p in reversed(pathlib.Path(name(i)).parts[:-1]) if p in network.names), None) for i in at]
    known = network.target.kind == "classes" and all(c is not None for c in classes)
    return Examples([name(i) for i in at], x, np.asarray(classes) if known else None)


def _of_npz(path: pathlib.Path, network: Network, target: str | None, say: Callable[[str], None]) -> Examples:
    how = dict(instead="give other data", write=arrays.WRITE)
    every = read_npz(path, (), **how)[1]
    forms = [(f.format(x=x, part=p), f.format(x=y, part=p)) for x, y in arrays.PAIRS for p in ("test",) for f in arrays.FORMS]
    pairs = [*forms, *((x, target) for x, _ in arrays.PAIRS if target is not None), *arrays.PAIRS]
    pair = next((p for p in pairs if set(p) <= set(every)), None) or next((p for p in pairs if p[0] in every), None)
    if pair is not None:
        held = read_npz(path, [name for name in pair if name in every], **how)[0]
        if len(every) > len(held):
            say(f"data: {' and '.join(held)} of {path.name} {'is' if len(held) == 1 else 'are'} read, and its other arrays are not")
        x, y = held[pair[0]], held.get(pair[1])
        return _numbered(x, y if y is not None and np.shape(y)[:1] == np.shape(x)[:1] else None, pair in forms)
    held = read_npz(path, every, **how)[0]
    fitting = [name for name, a in held.items() if a.ndim == _rank(network)]
    if len(fitting) != 1:
        raise DataError(f"{path}: which of its arrays ({', '.join(every) or 'none'}) holds the examples? Call it x")
    return _numbered(held[fitting[0]])


def _rank(network: Network) -> int:
    return len(network.shape) + 1


# --- saying -----------------------------------------------------------------------------------------------------------


def lines(network: Network, names: Sequence[str], outputs: np.ndarray) -> Iterable[str]:
    """A line an example: its name, what is predicted, and with what probability."""
    for name, row in zip(names, outputs, strict=True):
        if network.target.kind == "classes":
            k = int(row.argmax())
            said = f"{network.names[k]}  {row[k]:.3f}"
        elif network.target.kind == "labels":
            said = ", ".join(f"{n} {p:.3f}" for n, p in zip(network.names, row, strict=True) if p > 0.5) or "none"
        elif network.target.outputs == 1:
            said = f"{row[0]:.6g}"
        else:
            said = ", ".join(f"{n} {v:.6g}" for n, v in zip(network.names, row, strict=True))
        yield f"{name}  {said}"


def write_csv(path: pathlib.Path, network: Network, names: Sequence[str], outputs: np.ndarray) -> None:
    """example, prediction, and a probability for each class or label; of several numbers, a column each and no prediction."""
    decided = network.decide(outputs)
    cells = [[f"{float(v):.7g}" for v in row] for row in outputs]
    head = ["example", "prediction", *network.names]
    if network.target.kind == "classes":
        rows = [[what, *row] for what, row in zip(decided, cells, strict=True)]
    elif network.target.kind == "labels":
        rows = [[", ".join(what), *row] for what, row in zip(decided, cells, strict=True)]
    else:
        head, rows = ["example", *(network.names if network.target.outputs > 1 else ["prediction"])], cells
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows([name, *row] for name, row in zip(names, rows, strict=True))


def score(network: Network, outputs: np.ndarray, y: Any) -> str:
    """Accuracy, or the root of the mean squared error in the target's units, in words; a class that is unknown counts as wrong.

    Raises:
        DataError: for targets that are missing or are not of the network's kind.
    """
    y = as_targets(y, "targets")
    if network.target.kind == "classes":
        y = y.argmax(1) if y.ndim == 2 else y
        true = names_of(y)
        if y.dtype.kind in "iu" and not set(true) <= set(network.names) and y.min() >= 0 and y.max() < len(network.names):
            true = [network.names[i] for i in y]  # a source that names its classes indexes them
        right = np.asarray(true) == network.decide(outputs)
        return f"accuracy {100 * right.mean():.2f} % of {len(right)}"
    y = y.reshape(len(y), -1)
    if y.dtype.kind == "U" or y.shape != outputs.shape:
        raise DataError(f"targets are {list(y.shape)}, and the network predicts {list(outputs.shape)} {network.target.kind}")
    if network.target.kind == "labels":
        return f"accuracy {100 * ((outputs > 0.5) == (y > 0.5)).mean():.2f} % of the labels of {len(y)}"
    return f"RMSE {np.sqrt(((outputs - y) ** 2).mean(0)).mean():.6g} on {len(y)}"


def said_target(run: str | os.PathLike[str]) -> str | None:
    """The --target of the run, if it had one."""
    try:
        return read_json(pathlib.Path(run) / "config.json").get("target")
    except (OSError, ValueError, AttributeError):
        return None  # the network is enough
