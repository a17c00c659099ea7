"""What the searches of a comparison have asked, kept so that one that is cut goes on where it was.

Axes: Q queries.
"""

import contextlib
import json
import pathlib
from collections.abc import Generator, Mapping

import numpy as np

from jaxnas.app.config import empty
from jaxnas.driver.files import read_json, read_rows, write_whole


class Kept:
    """What the searches of a comparison have asked: searches.jsonl, one line a search, and bench.json, which says of what.

    A line is written at once, when its search is known.  A last line that was cut short is dropped.
    """

    def __init__(self, directory: pathlib.Path, made: dict) -> None:
        """Raises FileExistsError for a directory that holds anything but the same comparison, not finished."""
        self.directory, self.made = directory, made
        self.file, self.lines = directory / "searches.jsonl", []
        names = {p.name for p in directory.iterdir()} if directory.is_dir() else set()
        if not names - {"bench.json.part"}:
            return
        if "bench.json" not in names or "results.csv" in names:
            raise FileExistsError(f"{directory} exists: give another --out")
        try:
            held = read_json(directory / "bench.json")
            differ = [name for name, value in json.loads(json.dumps(made)).items() if held[name] != value]
        except (OSError, ValueError, TypeError, KeyError):
            raise FileExistsError(f"{directory} exists, and its bench.json is damaged: give another --out") from None
        if differ:
            raise FileExistsError(f"{directory} exists and compares other {', '.join(differ)}: give another --out")
        for row in read_rows(self.file)[0]:
            try:
                seed, asked = row["seed"], np.asarray(row["asked"], np.int32)
                self.lines.append((row["table"], row["algorithm"], int(seed), asked))
            except (ValueError, TypeError, KeyError):
                break
        write_whole(self.file, "".join(map(_line, self.lines)))

    def of(self, table: str, algorithm: str, queries: int) -> dict[int, np.ndarray]:
        """{seed: int32[Q]} of what is there."""
        return {s: asked for t, a, s, asked in self.lines if (t, a) == (table, algorithm) and asked.shape == (queries,)}

    def add(self, table: str, algorithm: str, found: Mapping[int, np.ndarray]) -> None:
        if not (self.directory / "bench.json").exists():
            write_whole(self.directory / "bench.json", json.dumps(self.made, indent=2) + "\n")
        with open(self.file, "a") as file:
            file.write("".join(_line((table, algorithm, seed, row)) for seed, row in found.items()))


def _line(search):
    table, algorithm, seed, asked = search
    return json.dumps({"table": table, "algorithm": algorithm, "seed": seed, "asked": np.asarray(asked).tolist()}) + "\n"


@contextlib.contextmanager
def part_of(out: str | pathlib.Path, made: dict) -> Generator[Kept, None, None]:
    """A directory for a comparison, new or with a part of it; removed again where nothing was kept.

    Raises:
        FileExistsError, PermissionError: as `Kept`, and as `jaxnas.app.config.empty`.
    """
    kept = Kept(pathlib.Path(out), made)
    if kept.directory.is_dir() and any(kept.directory.iterdir()):
        yield kept
        return
    with empty(out):
        yield kept
