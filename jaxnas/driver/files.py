"""Files of a run that may be damaged, or not be what their name says: read in one clear line, set aside, written whole."""

import io
import json
import logging
import pathlib
import zlib
from typing import Any

import numpy as np

log = logging.getLogger("jaxnas")


def parse_json(text: str | bytes) -> Any:
    """What JSON holds.

    Raises:
        ValueError: in a few words, whatever is wrong with it: bytes that are no text, no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON from line {error.lineno} on") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:  # a number of too many digits
        raise ValueError("it holds a number that cannot be read") from None


def read_json(path: pathlib.Path) -> Any:
    """What a JSON file holds; ValueError as `parse_json`, OSError where there is no such file."""
    return parse_json(path.read_bytes())


def read_rows(path: pathlib.Path) -> tuple[list[dict[str, Any]], bool]:
    """(the rows of a .jsonl file up to the first that is no table, whether there is more behind them than a line cut short)."""
    rows: list[dict[str, Any]] = []
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines):
        try:
            row = parse_json(line)
        except ValueError:
            return rows, number + 1 < len(lines) or line.endswith(b"\n")
        if not isinstance(row, dict):
            return rows, True
        rows.append(row)
    return rows, path.exists() and not path.is_file()


def set_aside(path: pathlib.Path, why: str) -> None:
    """Renames what cannot be used, and says so in the log "jaxnas"; nothing is lost."""
    names = [f"{path.name}.aside", *(f"{path.name}.aside-{i}" for i in range(2, 1000))]
    kept = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    path.rename(kept)
    log.warning("%s %s; it is set aside as %s", path, why, kept.name)


def make_way(directory: pathlib.Path, *, files: tuple[str, ...] = (), folders: tuple[str, ...] = ()) -> None:
    """Sets aside what stands where these files and folders of a run are to be written: folders, and files."""
    for name in files:
        if (directory / name).is_dir():
            set_aside(directory / name, "is a folder, and a file belongs there")
    for name in folders:
        if (directory / name).exists() and not (directory / name).is_dir():
            set_aside(directory / name, "is a file, and a folder belongs there")


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a text file at once: a kill leaves the old one or the new one."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def save_array(path: pathlib.Path, values: np.ndarray) -> None:
    """Writes a .npy file at once, with a checksum behind it, which other readers of .npy pass over."""
    held = io.BytesIO()
    np.save(held, values)
    part = path.with_name(path.name + ".part")
    part.write_bytes(held.getvalue() + zlib.crc32(held.getvalue()).to_bytes(4, "little"))
    part.replace(path)


def load_array(path: pathlib.Path) -> np.ndarray:
    """What `save_array` wrote; ValueError for a file that is damaged, OSError where there is none."""
    held = path.read_bytes()
    if zlib.crc32(held[:-4]).to_bytes(4, "little") != held[-4:]:
        raise ValueError(f"{path} is damaged")
    return np.load(io.BytesIO(held[:-4]))
