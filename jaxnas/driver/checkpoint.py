"""Checkpoints of a run: (step, state) on disk, written atomically; the last good one is read back.

Each says of which step it is, and of what run: see `jaxnas.driver.fingerprint`.  One of another run is refused by the name of what
differs.

A thin layer over Orbax, which writes while the run goes on.  A save that is cut short (kill -9) leaves nothing behind that
`restore` would read; a checkpoint that was damaged later is skipped with a warning in the log "jaxnas".
"""

import collections
import contextlib
import gc
import hashlib
import json
import logging
import pathlib
import shutil
import sys
from collections.abc import Callable
from concurrent import futures

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxnas.base import State
from jaxnas.driver import processes
from jaxnas.driver.fingerprint import Fingerprint, difference

log = logging.getLogger("jaxnas")


SEED = "resume with the same seed, or start anew in another directory (--out)"


def other(field: str, was: object, now: object) -> str:
    """How two runs differ, and what to do."""
    words = f"{field} changed from {_short(was)} to {_short(now)}"
    return f"{words}; set it back (in config.json, where there is one), or start anew in another directory (--out)"


def again(directory: pathlib.Path) -> str:
    """The way out where checkpoints are lost."""
    return f"remove {directory}, and a resume takes these steps again, to the same result"


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def _sum(said: dict) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


class CheckpointError(ValueError):
    """The checkpoints cannot be used.  One line that says what to do."""


@contextlib.contextmanager
def _quiet():
    """Orbax logs a traceback of a file that is damaged, or has no room on the disk, and what it leaves pending complains when it is
    collected."""
    absl, hook = logging.getLogger("absl"), sys.unraisablehook
    level = absl.level
    absl.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda unraisable: None
    try:
        yield
    finally:
        absl.setLevel(level)
        sys.unraisablehook = hook


class Checkpoints:
    """The checkpoints under `directory`, by step; the newest `keep` stay.

    Args:
        directory: theirs alone.
        keep: so many; None: all.
        of: the fingerprint of the run.
        grows: the field of it that may become larger when a run is gone on with.
    """

    def __init__(
        self, directory: str | pathlib.Path, keep: int | None = 2, of: Fingerprint | None = None, grows: str | None = None
    ) -> None:
        import orbax.checkpoint as ocp  # takes a second: only runs that keep something pay it

        self._ocp = ocp
        self._path = pathlib.Path(directory).absolute()
        self._keep = keep
        self._of, self._grows = of or {}, grows
        self._writer = ocp.StandardCheckpointer()
        self._pool = futures.ThreadPoolExecutor(1, thread_name_prefix="jaxnas-checkpoint")
        self._under_way: futures.Future[str | None] | None = None

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, ascending."""
        if not self._path.is_dir():
            return []
        return sorted(int(p.name) for p in self._path.iterdir() if p.name.isdecimal())

    def save(self, step: int, key: jax.Array, state: State) -> None:
        """Begins to write the state after `step` steps of the run with root `key`, once the save before is whole; see `wait`.

        The state's arrays may be donated at once: Orbax has copied them, or, on CPU, holds their buffers, and then XLA does not
        write into those.  Several processes return when it is whole: Orbax makes them meet, and so do the steps of the run.
        """
        self.wait()
        tree = {"key": np.asarray(jax.random.key_data(key)), "state": state}
        said = {"step": step, "fingerprint": self._of}
        self._writer.save(self._path / str(step), tree, force=True, custom_metadata={**said, "sum": _sum(said)})
        self._under_way = self._pool.submit(self._finish, step)
        if processes.several():
            self.wait()

    def writing(self) -> bool:
        """Whether a save is under way."""
        return self._under_way is not None and not self._under_way.done()

    def wait(self) -> None:
        """Returns when the last save is safe on disk, and older ones are removed.

        Raises:
            CheckpointError: when it could not be written.
        """
        under_way, self._under_way = self._under_way, None
        failed = None if under_way is None else under_way.result()
        if failed is not None:
            with _quiet():
                gc.collect()
            raise CheckpointError(f"{failed}: make room there, and resume")

    def _finish(self, step: int) -> str | None:
        """Ends a write; the words for one that has failed."""
        try:
            with _quiet():
                self._writer.wait_until_finished()
        except Exception as error:  # whatever a disk that is full, or gone, makes the writer raise
            text = " ".join(str(error).split()) or type(error).__name__
            why = ": ".join(text.split(": ")[-2:])  # before that it names the parts of a file
            return f"the checkpoint of step {step} cannot be written to {self._path} ({why})"
        if self._keep is not None and processes.is_first():
            for old in [s for s in self.steps() if s <= step][: -self._keep]:  # a later one is damaged, or not ours to remove
                shutil.rmtree(self._path / str(old), ignore_errors=True)

    def restore(
        self, target_of: Callable[[int], State | None], key: jax.Array, steps: list[int] | None = None
    ) -> tuple[int, State] | None:
        """The newest readable checkpoint.

        Args:
            target_of: step -> the state's shapes (`jax.eval_shape`), or None to pass over this step.  Those with a sharding come
                back where it says, others on the first device.
            key: the root key; a checkpoint of another one is refused.
            steps: which to try; default: all.

        Returns:
            (step, state), or None where there is no checkpoint.

        Raises:
            CheckpointError: when there are checkpoints and none can be used, or one of another run.
        """
        self.wait()
        tried = sorted(self.steps() if steps is None else steps, reverse=True)
        reasons = []
        for step in tried:
            data = np.asarray(jax.random.key_data(key))
            with _quiet():
                found, reason = self._held(step)
            if found is not None:
                self._check(found)
                shapes = target_of(step)
                if shapes is None:
                    continue
                with _quiet():
                    found, reason = self._read(step, {"key": data, "state": shapes})
                    if found is None:
                        gc.collect()
            if found is None:
                reasons.append(reason)
                log.warning("checkpoint %s/%d cannot be used (%s); trying the one before", self._path, step, reason)
                continue
            if not np.array_equal(np.asarray(found["key"]), data):
                raise CheckpointError(f"{self._path} was written from another key: {SEED}")
            return step, found["state"]
        if reasons:
            raise CheckpointError(
                f"no checkpoint in {self._path} can be read ({reasons[0]}): {again(self._path.parent / 'checkpoints')}"
            )
        return None

    def _held(self, step):
        """(the fingerprint of a checkpoint, None), or (None, why there is none)."""
        try:
            held = self._writer.metadata(self._path / str(step)).custom_metadata or {}
            said = {name: held[name] for name in ("step", "fingerprint")}
            if held["sum"] != _sum(said):
                raise ValueError
        except Exception:  # whatever a damaged file makes the reader raise
            return None, "its metadata are damaged, or of another version"
        if said["step"] != step:
            return None, f"it is of step {said['step']}"
        return said["fingerprint"], None

    def _check(self, held: Fingerprint) -> None:
        """Raises CheckpointError for the fingerprint of another run, in a line that says what differs."""
        differs = difference(held, self._of, self._grows)
        if differs is None:
            return
        field, was, now = differs
        if field == "the root key":
            raise CheckpointError(f"{self._path} was written from another key: {SEED}")
        raise CheckpointError(f"{self._path} is of another run: {other(field, was, now)}")

    def _read(self, step, target):
        """(the checkpoint, None), or (None, why not)."""
        path = self._path / str(step)
        leaves = jax.tree.leaves(target["state"])
        mesh = next((s.sharding.mesh for s in leaves if isinstance(getattr(s, "sharding", None), NamedSharding)), None)
        here = SingleDeviceSharding(jax.devices()[0]) if mesh is None else NamedSharding(mesh, PartitionSpec())
        try:
            kinds = lambda tree: collections.Counter((tuple(a.shape), np.dtype(a.dtype).name) for a in jax.tree.leaves(tree))
            stored = self._writer.metadata(path).item_metadata
            if stored is None:
                raise ValueError("its metadata are damaged")
            have, want = kinds(stored.tree), kinds(target)
            if have != want:  # Orbax would cast, and leave reads pending
                shape, dtype = next(iter(want - have or have - want))
                raise ValueError(f"arrays of other shapes or types, such as {dtype}{list(shape)}")
            put = lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=getattr(s, "sharding", None) or here)
            return self._writer.restore(path, jax.tree.map(put, target)), None
        except Exception as error:  # whatever a damaged file makes the reader raise
            return None, (str(error).strip().splitlines() or [type(error).__name__])[0][:160]

    def close(self) -> None:
        """Waits for whatever is still being written; raises as `wait` does."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            self._writer.close()
