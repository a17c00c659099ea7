"""Tables in files: FILE.csv, .tsv, .parquet, or a folder of train.csv, test.csv and valid.csv.

A file's separator, decimal sign and encoding are found out, and whether its first row names the columns.
"""

import csv
import io
import itertools
import pathlib
import warnings
from typing import TYPE_CHECKING

from jaxnas.data.errors import DataError
from jaxnas.data.raw import TARGETS, Ask, Raw

if TYPE_CHECKING:
    from pandas import DataFrame

ENDINGS = (".csv", ".tsv", ".parquet")
PARTS = {"train": ("train", "training"), "valid": ("val", "valid", "validation"), "test": ("test", "testing")}
SEPARATORS = ",;\t|"


def is_spec(spec: str) -> bool:
    """Whether it names a file of a table, or a folder of a train part and perhaps others."""
    return spec.lower().endswith(ENDINGS) or bool(spec and parts_of(pathlib.Path(spec).expanduser()))


def parts_of(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """{part: file} of a folder of tables; {} where there is no train part."""
    found = {}
    for part, stems in PARTS.items():
        paths = [path for stem in stems for ending in ENDINGS if (path := folder / f"{stem}{ending}").is_file()]
        if paths:
            found[part] = paths[0]
    return found if "train" in found else {}


def read_tables(spec: str, ask: Ask) -> Raw:
    """One file, or the files of a folder."""
    path = pathlib.Path(spec).expanduser()
    files = parts_of(path) if path.is_dir() else {"train": path}
    notes: list[str] = []
    return from_frames({part: read_frame(file, notes) for part, file in files.items()}, ask, notes, spec)


def from_frames(frames: dict[str, "DataFrame"], ask: Ask, notes: list[str], name: str) -> Raw:
    """Tables that hold their targets, and perhaps groups, as columns."""
    columns = [str(c) for c in frames["train"].columns]
    wanted, said = _targets(columns, ask, name)
    notes += said
    if ask.group is not None and ask.group not in columns:
        raise DataError(f"{name}: no column {ask.group} for groups, only {', '.join(columns[:20])}: check the name")
    apart = [*wanted, *([ask.group] if ask.group is not None else [])]
    parts, targets, groups = {}, {}, {}
    for part, whole in frames.items():
        absent = [c for c in wanted if c not in whole.columns]
        if absent and part != "train":
            notes.append(f"the {part} part has no column {', '.join(absent)}, so it is not used")
            continue
        y = (whole[wanted[0]] if len(wanted) == 1 else whole[wanted]).to_numpy()
        at = ask.pick(part, len(whole))
        parts[part] = whole.drop(columns=apart, errors="ignore").iloc[at], y[at]
        targets[part] = y
        if ask.group is not None and ask.group in whole.columns:
            groups[part] = whole[ask.group].iloc[at]
    if len(wanted) == len(columns):
        raise DataError(f"{name}: {', '.join(wanted)} is its only column: a table needs columns to predict it from")
    return Raw(parts, targets, columns=tuple(wanted), groups=groups, notes=tuple(notes))


def _targets(columns: list[str], ask: Ask, name: str) -> tuple[list[str], list[str]]:
    """(the columns to predict, notes)."""
    if ask.target is not None:
        wanted = [ask.target] if ask.target in columns else [c.strip() for c in ask.target.split(",")]
        absent = [c for c in wanted if c not in columns]
        if absent:
            raise DataError(f"{name}: no column {', '.join(absent)} to predict, only {', '.join(columns[:20])}: check the name")
        return wanted, []
    candidates = [c for c in columns if c != ask.group]
    named = [c for known in TARGETS for c in candidates if c.strip().lower() == known]
    found = named[0] if named else candidates[-1]
    how = "it is called so" if named else "it is the last column"
    return [found], [f"target: {found}, since {how} (say target for another)"]


def read_frame(path: pathlib.Path, notes: list[str]) -> "DataFrame":
    """A table of a file; what was found out about it is added to the notes.

    Raises:
        DataError: for a file that is not there, is empty, or cannot be read as a table.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file: check the path")
    if path.suffix.lower() == ".parquet":
        return _parquet(path)
    from pandas import read_csv

    text = _text(path, notes)
    lines = text.splitlines()
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: the file is empty")
    separator = "\t" if path.suffix.lower() == ".tsv" and "\t" in text else _separator(lines)
    some = list(csv.reader(lines[:200], delimiter=separator))
    some = [row for row in some if row]
    if len(some) < 2:
        raise DataError(f"{path}: there is one row: a table has a row of names and a row for each example")
    header = [cell.strip() for cell in some[0]]
    if all(len(row) == len(header) + 1 for row in some[1:]):  # as R writes row names
        header = ["Unnamed: 0", *header]
        some[0] = header
        text = separator.join(f'"{c}"' for c in header) + "\n" + text.split("\n", 1)[1]
    unnamed = not _has_header(some)
    if unnamed:
        notes.append(f"{path.name}: its first row is an example, so columns are called column1 to column{len(header)}")
    elif len(set(header)) < len(header):
        twice = sorted({c for c in header if header.count(c) > 1})
        raise DataError(f"{path}: more than one column is called {', '.join(c or 'nothing' for c in twice)}: rename them")
    if separator != (usual := "\t" if path.suffix.lower() == ".tsv" else ","):
        said = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars"}
        notes.append(f"{path.name}: its columns are parted by {said[separator]}, not {said[usual]}")
    decimal = "," if separator != "," and _decimal_commas(some[1:]) else "."
    names = [f"column{i + 1}" for i in range(len(header))] if unnamed else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # rows that are longer than the first
            frame = read_csv(
                io.StringIO(text),
                sep=separator,
                decimal=decimal,
                header=None if unnamed else 0,
                names=names,
                index_col=False,
                skipinitialspace=True,
                na_values=["?"],
                low_memory=False,
            )
    except Exception as error:
        raise DataError(f"{path}: not a table ({_line(error)}): every row needs as many cells as the first") from None
    frame.columns = [str(c).strip() for c in frame.columns]
    return frame


def _parquet(path: pathlib.Path) -> "DataFrame":
    from pandas import read_parquet

    try:
        frame = read_parquet(path)
    except Exception as error:
        raise DataError(f"{path}: not a .parquet file, or a damaged one ({_line(error)}): write it anew") from None
    if not len(frame) or not len(frame.columns):
        raise DataError(f"{path}: the file is empty")
    frame.columns = [str(c) for c in frame.columns]
    return frame


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]


def _text(path: pathlib.Path, notes: list[str]) -> str:
    raw = path.read_bytes()
    if b"\0" in raw[:4096] and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: not a table of text: check the file")
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        notes.append(f"{path.name}: it is not in UTF-8, and was read as Windows-1252")
        return raw.decode("cp1252", "replace")


def _separator(lines: list[str]) -> str:
    """That by which the first lines have as many columns each, and the most."""
    some = [line for line in lines[:50] if line.strip()]

    def columns(separator: str) -> tuple[bool, int]:
        widths = [len(row) for row in csv.reader(some, delimiter=separator) if row]
        return len(set(widths)) == 1 and widths[0] > 1, min(widths)

    return max(SEPARATORS, key=columns)


def _number(cell: str) -> bool:
    try:
        float(cell.strip().replace(",", "."))
    except ValueError:
        return False
    return True


def _has_header(table: list[list[str]]) -> bool:
    """Whether the first row names the columns: it is text above numbers, or counts the columns, or no cell of it is a number."""
    head, body = table[0], table[1:]
    counted = [i for i, cell in enumerate(head) if _number(cell)]
    if not counted:
        return True
    above = lambda i: all(_number(row[i]) or row[i].strip() in ("", "?", "NA") for row in body if len(row) > i)
    if any(above(i) for i in range(len(head)) if i not in counted and head[i].strip()):
        return True
    counting = [float(head[i].replace(",", ".")) for i in counted]
    steps = {b - a for a, b in itertools.pairwise(counting)}
    return len(counted) > 2 and steps == {1.0}  # 1990, 1991, ...: columns that count


def _decimal_commas(body: list[list[str]]) -> bool:
    cells = [cell.strip() for row in body for cell in row if "," in cell]
    return bool(cells) and sum(map(_number, cells)) > 0.5 * len(cells)
