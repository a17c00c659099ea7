"""Directories that the `datasets` library of Hugging Face has written with `save_to_disk`, read without it.

    dataset_dict.json, train/, test/ ...                                several parts
    dataset_info.json (the features), state.json (the files), *.arrow   one part

References: the format is Arrow's IPC stream; a ClassLabel is an int64 that indexes names, an Image a struct of bytes and path.
"""

import io
import json
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnas.data.errors import DataError
from jaxnas.data.images import decode
from jaxnas.data.raw import TARGETS, Ask, Raw
from jaxnas.data.tables import from_frames

if TYPE_CHECKING:
    from pyarrow import Table

PARTS = {"train": ("train", "training"), "valid": ("validation", "valid", "val", "dev"), "test": ("test", "testing")}
SERIAL = ("Sequence", "List", "LargeList", "Array2D", "Array3D")  # features that are arrays


def is_saved(spec: str) -> bool:
    folder = pathlib.Path(spec).expanduser()
    return folder.is_dir() and any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def read_saved(spec: str, ask: Ask) -> Raw:
    """One or several parts; where there is no part for training, the only one is it."""
    folder = pathlib.Path(spec).expanduser()
    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json").get("splits", [])
        places = {part: folder / name for part, known in PARTS.items() for name in splits if name in known}
        if not places and len(splits) == 1:
            places = {"train": folder / splits[0]}
        if "train" not in places:
            raise DataError(f"{spec}: no train part, only {', '.join(splits) or 'nothing'}: save one with it")
    else:
        places = {"train": folder}
    tables = {part: _table(place) for part, place in places.items()}
    features = _json(places["train"] / "dataset_info.json").get("features") or {}
    kind = lambda name: (features.get(name) or {}).get("_type") if isinstance(features.get(name), dict) else None
    inputs = [c for c in tables["train"].column_names if kind(c) in ("Image", *SERIAL) and c != ask.target]
    target = _target(tables["train"], features, inputs, ask, spec)
    if target in inputs:
        inputs.remove(target)
    if not inputs:
        return _frames(tables, features, target, ask, spec)
    if ask.group is not None and ask.group not in tables["train"].column_names:
        raise DataError(f"{spec}: no column {ask.group} for groups, only {', '.join(tables['train'].column_names)}")
    return _arrays(tables, features, inputs[0], target, ask, spec)


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text())
    except (OSError, ValueError):
        raise DataError(f"{path} cannot be read: save the data again with save_to_disk") from None
    return held if isinstance(held, dict) else {}


def _table(folder: pathlib.Path) -> "Table":
    import pyarrow as pa

    state = _json(folder / "state.json")
    if state.get("_indices_data_files"):
        raise DataError(f"{folder}: its rows were shuffled after they were written: save it again, behind flatten_indices()")
    files = [folder / f["filename"] for f in state.get("_data_files") or [] if isinstance(f, dict)]
    files = files or sorted(folder.glob("*.arrow"))
    tables = []
    for file in files:
        try:
            with pa.OSFile(str(file)) as source:
                tables.append(pa.ipc.open_stream(source).read_all())
        except (pa.ArrowInvalid, OSError) as error:
            why = (str(error).splitlines() or ["damaged"])[0][:80]
            raise DataError(f"{file} cannot be read ({why}): save the data again with save_to_disk") from None
    if not tables or not sum(map(len, tables)):
        raise DataError(f"{folder}: there are no examples")
    return pa.concat_tables(tables)


def _is_list(feature: Any) -> bool:
    """Whether a feature holds a list in each row."""
    if isinstance(feature, list):
        return len(feature) == 1
    return isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList")


def _names(feature: Any) -> tuple[str, ...] | None:
    """Of a ClassLabel, or of the labels of a sequence of them."""
    if _is_list(feature):
        feature = feature[0] if isinstance(feature, list) else feature.get("feature")
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names"):
        return tuple(map(str, feature["names"]))
    return None


def _target(table: "Table", features: dict[str, Any], inputs: list[str], ask: Ask, spec: str) -> str:
    columns = table.column_names
    if ask.target is not None:
        if ask.target not in columns and not all(c.strip() in columns for c in ask.target.split(",")):
            raise DataError(f"{spec}: no column {ask.target} to predict, only {', '.join(columns)}: check the name")
        return ask.target
    labelled = [c for c in columns if _names(features.get(c)) is not None]
    named = [c for known in TARGETS for c in columns if c.lower() == known and c != ask.group]
    found = (named or labelled or [c for c in columns if c not in inputs and c != ask.group][-1:] or [None])[0]
    if found is None:
        raise DataError(f"{spec}: no column to predict, only {', '.join(columns)}: name it with target")
    return found


def _frames(tables: dict[str, "Table"], features: dict[str, Any], target: str, ask: Ask, spec: str) -> Raw:
    """Of columns of numbers and text; classes by their names."""
    frames = {part: table.to_pandas() for part, table in tables.items()}
    for column in frames["train"].columns:
        names = _names(features.get(column))
        if names is not None:
            for frame in frames.values():
                frame[column] = [names[int(v)] if v == v and v is not None and v >= 0 else None for v in frame[column]]
    return from_frames(frames, ask._replace(target=target), [f"target: {target}"] if ask.target is None else [], spec)


def _arrays(tables: dict[str, "Table"], features: dict[str, Any], source: str, target: str, ask: Ask, spec: str) -> Raw:
    """Of images or arrays, one column; the first where there are several."""
    notes = [f"x: {source}, target: {target}"]
    wanted = [target] if target in tables["train"].column_names else [c.strip() for c in target.split(",")]
    names, listed = _names(features.get(target)), _is_list(features.get(target))
    targets = {}
    for part, table in tables.items():
        if all(c in table.column_names for c in wanted):
            columns = [_labels(table.column(c), names if listed else None) for c in wanted]
            targets[part] = columns[0] if len(wanted) == 1 else np.stack(columns, 1)
        else:
            notes.append(f"the {part} part has no column {target}, so it is not used")
    at = {part: ask.pick(part, len(tables[part])) for part in targets}
    groups = {p: np.asarray(tables[p].column(ask.group).to_pylist())[at[p]] for p in at} if ask.group is not None else {}
    chosen = {part: tables[part].column(source).take(at[part]).to_pylist() for part in at}
    images = features[source].get("_type") == "Image"
    if images:
        files = {part: [_stream(cell, spec) for cell in cells] for part, cells in chosen.items()}
        decoded, said = decode(files, ask.size, spec)
        notes += said
        x = {part: pixels for part, (pixels, _) in decoded.items()}
        kept = {part: at[part][which] for part, (_, which) in decoded.items()}
        groups = {part: g[decoded[part][1]] for part, g in groups.items()}
    else:
        x, kept = {part: _stacked(cells, spec) for part, cells in chosen.items()}, at
    parts = {part: (x[part], targets[part][kept[part]]) for part in at}
    return Raw(
        parts,
        targets,
        names=None if listed else names,
        columns=names if listed else tuple(wanted),
        groups=groups,
        layout="NHWC" if images else None,
        notes=tuple(notes),
        files=images,
    )


def _stacked(cells: list[Any], spec: str) -> np.ndarray:
    try:
        return np.asarray(cells)
    except ValueError:
        raise DataError(f"{spec}: its examples are of different sizes, which have no one shape: cut or pad them") from None


def _stream(cell: Any, spec: str) -> Any:
    """An image's file."""
    held = cell if isinstance(cell, dict) else {}
    if held.get("bytes"):
        stream = io.BytesIO(held["bytes"])
        stream.name = str(held.get("path") or "an image without a name")
        return stream
    return pathlib.Path(str(held.get("path") or spec))


def _labels(column: Any, names: tuple[str, ...] | None) -> np.ndarray:
    """Targets [N]; of lists of labels 0/1 [N, K]."""
    values = column.to_pylist()
    if names is None:
        return np.asarray(values, object) if any(v is None for v in values) else np.asarray(values)
    y = np.zeros((len(values), len(names)), np.int8)
    for i, labels in enumerate(values):
        y[i, labels or []] = 1
    return y
