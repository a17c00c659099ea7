"""Checkpoints of a run: (step, state) on disk, written atomically, the last good one read back.

A thin layer over Orbax.  A save that is cut short (kill -9) leaves nothing behind that `restore` would take; a checkpoint
that was damaged later is passed over with a warning in the log "jaxnas".
"""

import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np

log = logging.getLogger("jaxnas")


class CheckpointError(ValueError):
    """The checkpoints cannot be used.  One line that says what to do."""


class Checkpoints:
    """The checkpoints under `directory`, by step; the newest `keep` stay."""

    def __init__(self, directory, keep: int | None = 2):
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

    def save(self, step: int, key: jax.Array, state) -> None:
        """Writes the state after `step` steps of the run with root `key`; returns when it is safe on disk."""
        tree = {"key": np.asarray(jax.random.key_data(key)), "state": state}
        self._writer.save(self._path / str(step), tree, force=True)
        self._writer.wait_until_finished()
        if self._keep is not None:
            for old in self.steps()[: -self._keep]:
                shutil.rmtree(self._path / str(old), ignore_errors=True)

    def restore(self, target_of, key: jax.Array, steps: list[int] | None = None):
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
            here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            put = lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here)
            data = jax.random.key_data(key)
            target = {
                "key": jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=here),
                "state": jax.tree.map(put, shapes),
            }
            try:
                found = self._writer.restore(self._path / str(step), target)
                mismatch = [
                    f"{tuple(f.shape)} is not {tuple(s.shape)}"
                    for f, s in zip(jax.tree.leaves(found["state"]), jax.tree.leaves(shapes), strict=True)
                    if f.shape != s.shape or f.dtype != s.dtype
                ]
                if mismatch:
                    raise ValueError(mismatch[0])
            except Exception as error:  # whatever a damaged file makes the reader raise
                reasons.append(str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__)
                log.warning("checkpoint %s/%d is damaged or of another search; trying the one before", self._path, step)
                continue
            if not bool(jnp.all(found["key"] == data)):
                raise CheckpointError(
                    f"{self._path} was written from another key: resume with the same --seed, or use a new --out"
                )
            return step, found["state"]
        if reasons:
            raise CheckpointError(
                f"no checkpoint in {self._path} can be read by this search ({reasons[0]}): "
                "resume it with its own configuration (jaxnas resume RUN), or start anew in another --out"
            )
        return None

    def close(self) -> None:
        self._writer.close()
