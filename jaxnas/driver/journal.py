"""The journal of a run: log.jsonl, TensorBoard where it is installed, and a progress bar on stderr.

One line of log.jsonl a chunk: {"phase", "step", "seconds", name: mean over the chunk, ...}.  With seeds, `name` is the mean
over them and `name_ci` the half width of its 95 % confidence interval (Student t).  Small arrays (gates) are those of the
chunk's last step, of the first seed.

Axes: S seeds, T steps.
"""

import json
import pathlib
import time
from typing import Any, Self, TextIO

import jax
import numpy as np

from jaxnas.analysis.ranking import interval
from jaxnas.driver.files import read_rows, set_aside, write_whole

LARGEST = 8192  # elements of an array that still goes in a line
SAVE_EVERY = 30.0  # seconds from the beginning of a checkpoint to that of the next


def read(directory: str | pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl up to the first that is damaged or was cut short; none where there is no such file."""
    return _read(pathlib.Path(directory) / "log.jsonl")[0]


def _read(path: pathlib.Path) -> tuple[list[dict[str, Any]], bool]:
    """(its lines, whether there are others behind them)."""
    rows, damaged = read_rows(path)
    at = 0
    for number, row in enumerate(rows):
        step = row.get("step")
        if not isinstance(step, int) or step <= at:
            return rows[:number], True
        at = step
    return rows, damaged


class Journal:
    """Writes a run's log; a context manager."""

    def __init__(self, directory: str | pathlib.Path | None, at: int, total: int, progress: bool, seeds: int | None) -> None:
        self._path = None if directory is None else pathlib.Path(directory) / "log.jsonl"
        self._at, self._total, self._progress, self._seeds = at, total, progress, seeds
        self._file: TextIO | None = None
        self._board: Any = None  # a tensorboardX.SummaryWriter, where it is installed
        self._bar: Any = None  # a tqdm, where progress is shown
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines, damaged = _read(self._path)
            if damaged:
                set_aside(self._path, "is damaged: what can be read of it is kept")
            kept = [line for line in lines if line["step"] <= self._at]  # steps to be run again are not in it
            write_whole(self._path, "".join(json.dumps(line) + "\n" for line in kept))
            self._file = self._path.open("a")
            try:
                from tensorboardX import SummaryWriter

                self._board = SummaryWriter(str(self._path.parent / "tensorboard"))
            except ImportError:  # the extra `tensorboard`
                self._board = None
        if self._progress:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, initial=self._at, unit="step", dynamic_ncols=True)
        return self

    def __exit__(self, *error: object) -> None:
        for resource in (self._bar, self._board, self._file):
            if resource is not None:
                resource.close()

    def write(self, phase: str, step: int, info: Any, seconds: float) -> None:
        """Adds a chunk that ended at `step`: the means of its Info, [T, ...] or [S, T, ...]."""
        line = {"phase": phase, "step": step, "seconds": round(seconds, 3), **self._summary(info)}
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        scalars = {k: v for k, v in line.items() if isinstance(v, float)}
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(f"{phase}/{name}", value, step)
        if self._bar is not None:
            shown = {k: f"{scalars[k]:.4g}" for k in ("loss", "score", "best_score") if k in scalars}
            self._bar.set_description(phase, refresh=False)
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(step - self._bar.n)

    def save_due(self) -> bool:
        """Whether the last checkpoint was begun `SAVE_EVERY` seconds ago."""
        return time.monotonic() - self._saved >= SAVE_EVERY

    def saved(self) -> None:
        """Notes that a checkpoint has just been begun."""
        self._saved = time.monotonic()

    def _summary(self, info: Any) -> dict[str, Any]:
        line = {}
        for path, a in jax.tree_util.tree_flatten_with_path(info)[0]:
            name = "/".join(str(getattr(p, "name", getattr(p, "key", getattr(p, "idx", p)))) for p in path)
            a = np.asarray(a)
            axis = 0 if self._seeds is None else 1
            if a.ndim == axis + 1:
                per_seed = a.astype(np.float64).mean(axis)
                if self._seeds is None:
                    line[name] = float(per_seed)
                else:
                    mean, half = interval(per_seed)
                    line[name] = float(mean)
                    if len(per_seed) > 1:
                        line[f"{name}_ci"] = float(half)
            else:
                last = a[-1] if self._seeds is None else a[0, -1]
                if last.size <= LARGEST:
                    line[name] = np.round(last.astype(np.float64), 5).tolist()
        return line
