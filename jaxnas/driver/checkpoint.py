"""Checkpoints of a run: (step, state) on disk, written atomically; the last good one is read back.

A thin layer over Orbax.  A save that is cut short (kill -9) leaves nothing behind that `restore` would read; a checkpoint
that was damaged later is skipped with a warning in the log "jaxnas".
"""

import collections
import contextlib
import gc
import logging
import pathlib
import shutil
import sys
from collections.abc import Callable

import jax
import numpy as np

from jaxnas.base import State

log = logging.getLogger("jaxnas")


class CheckpointError(ValueError):
    """The checkpoints cannot be used.  One line that says what to do."""


@contextlib.contextmanager
def _quiet():
    """Orbax logs what a damaged file held, and leaves other reads pending, which complain when they are collected."""
    level, hook = logging.root.manager.disable, sys.unraisablehook
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda unraisable: None
    try:
        yield
    finally:
        logging.disable(level)
        sys.unraisablehook = hook


class Checkpoints:
    """The checkpoints under `directory`, by step; the newest `keep` stay."""

    def __init__(self, directory: str | pathlib.Path, keep: int | None = 2) -> None:
        import orbax.checkpoint as ocp  # takes a second: only runs that keep something pay it

        self._ocp = ocp
        self._path = pathlib.Path(directory).absolute()
        self._keep = keep
        self._writer = ocp.StandardCheckpointer()

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, ascending."""
        if not self._path.is_dir():
            return []
        return sorted(int(p.name) for p in self._path.iterdir() if p.name.isdecimal())

    def save(self, step: int, key: jax.Array, state: State) -> None:
        """Writes the state after `step` steps of the run with root `key`; returns when it is safe on disk."""
        tree = {"key": np.asarray(jax.random.key_data(key)), "state": state}
        self._writer.save(self._path / str(step), tree, force=True)
        self._writer.wait_until_finished()
        if self._keep is not None:
            for old in [s for s in self.steps() if s <= step][: -self._keep]:  # a later one is damaged, or not ours to remove
                shutil.rmtree(self._path / str(old), ignore_errors=True)

    def restore(
        self, target_of: Callable[[int], State | None], key: jax.Array, steps: list[int] | None = None
    ) -> tuple[int, State] | None:
        """The newest readable checkpoint.

        Args:
            target_of: step -> the state's shapes (`jax.eval_shape`), or None to pass over this step.
            key: the root key; a checkpoint of another one is refused.
            steps: which to try; default: all.

        Returns:
            (step, state), or None where there is no checkpoint.

        Raises:
            CheckpointError: when there are checkpoints and none can be used.
        """
        tried = sorted(self.steps() if steps is None else steps, reverse=True)
        reasons = []
        for step in tried:
            shapes = target_of(step)
            if shapes is None:
                continue
            data = np.asarray(jax.random.key_data(key))
            with _quiet():
                found, reason = self._read(step, {"key": data, "state": shapes})
                if found is None:
                    gc.collect()
            if found is None:
                reasons.append(reason)
                log.warning("checkpoint %s/%d is damaged or of another search; trying the one before", self._path, step)
                continue
            if not np.array_equal(np.asarray(found["key"]), data):
                raise CheckpointError(f"{self._path} was written from another key: resume with the same --seed, or use a new --out")
            return step, found["state"]
        if reasons:
            raise CheckpointError(
                f"no checkpoint in {self._path} can be read by this search ({reasons[0]}): "
                "resume it with its own configuration (jaxnas resume RUN), or start anew in another --out"
            )
        return None

    def _read(self, step, target):
        """(the checkpoint, None), or (None, why not)."""
        path = self._path / str(step)
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        try:
            kinds = lambda tree: collections.Counter((tuple(a.shape), np.dtype(a.dtype).name) for a in jax.tree.leaves(tree))
            stored = self._writer.metadata(path).item_metadata
            if stored is None:
                raise ValueError("its metadata are damaged")
            have, want = kinds(stored.tree), kinds(target)
            if have != want:  # Orbax would cast, and leave reads pending
                shape, dtype = next(iter(want - have or have - want))
                raise ValueError(f"arrays of other shapes or types, such as {dtype}{list(shape)}")
            put = lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here)
            return self._writer.restore(path, jax.tree.map(put, target)), None
        except Exception as error:  # whatever a damaged file makes the reader raise
            return None, (str(error).strip().splitlines() or [type(error).__name__])[0][:160]

    def close(self) -> None:
        """Waits for whatever is still being written."""
        self._writer.close()
