"""The stages of a run: each is a search of the driver in the run directory, or the rest of it, on the devices that there are."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxnas.base import Key
    from jaxnas.driver import Result


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the devices and processes of a run share."""

    mesh: Any  # None: one device
    batch: int  # examples a batch
    own: pathlib.Path  # where this process writes what all of them compute
    shared: pathlib.Path  # the run directory, of checkpoints and log

    def mesh_of(self, seeds: int | None) -> Any:
        """The mesh of a stage: without seeds its devices share the batch, or all do the same where they do not divide it."""
        from jaxnas import sharding

        if self.mesh is None or seeds is not None or "seed" not in self.mesh.axis_names:
            return self.mesh
        n = self.mesh.size
        return sharding.mesh(batch=n) if self.batch % n == 0 else sharding.mesh(pop=n)


@dataclasses.dataclass(frozen=True)
class Resumable:
    """A driver run in a directory, or the rest of it."""

    progress: bool
    settings: dict[str, Any]  # what the run depends on
    layout: Layout

    def run(self, key: "Key", plan: Any, where: pathlib.Path, seeds: int | None = None, **options: Any) -> "Result":
        import jax

        from jaxnas.driver import processes, run

        where, mesh = self.layout.shared / where.relative_to(self.layout.own), self.layout.mesh_of(seeds)
        going = bool(processes.on_first(lambda: "going" if (where / "checkpoints").exists() else ""))
        named = dict(seeds=seeds, directory=where, resume=going, progress=self.progress, settings=self.settings, mesh=mesh)
        result = run(key, plan, **named, **options)
        return result if mesh is None else jax.device_get(processes.fetch(result))
