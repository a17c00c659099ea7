"""Which rows of a stream a process reads under a mesh: those of its own devices, each once.

The arrays of a block lie split: their seeds over "seed", the examples of a batch over "batch".  What a device holds is its part;
several devices may hold the same one, over "pop" for instance.  The parts of a process are read behind each other, in one call, so
that all its threads decode together.

Axes: L steps of a block, S seeds, B examples of a batch, K different parts that the devices of this process hold.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnas import sharding
from jaxnas.base import Stream


class Slices(NamedTuple):
    """Where the arrays [L, S, ..., B, ...] of a block lie."""

    place: NamedSharding
    axis: int  # along which the parts of this process are read behind each other
    held: dict[jax.Device, int]  # by each device of this process: one of the parts 0 to K - 1

    def mine(self, wanted: Any) -> Any:
        """Of indices, those of this process: its parts behind each other along `axis`."""
        first = {part: device for device, part in self.held.items()}

        def leaf(a: np.ndarray) -> np.ndarray:
            where = self.place.addressable_devices_indices_map(a.shape)
            return np.concatenate([a[where[first[part]]] for part in range(len(first))], self.axis)

        return jax.tree.map(leaf, wanted)

    def put(self, read: Any, shapes: Any) -> Any:
        """A block on the mesh.

        Args:
            read: what has been read for `mine`, [L, ...].
            shapes: of one step, in all processes together.
        """

        def leaf(a: np.ndarray, whole: jax.ShapeDtypeStruct) -> jax.Array:
            parts = np.split(a, 1 + max(self.held.values()), self.axis)
            pieces = [jax.device_put(parts[part], device) for device, part in self.held.items()]
            return jax.make_array_from_single_device_arrays((len(a), *whole.shape), self.place, pieces)

        return jax.tree.map(leaf, read, shapes)


def slices(stream: Stream, seeds: int | None, mesh: Mesh) -> Slices:
    """How the blocks of a stream lie on a mesh: seeds on its axis "seed", examples on its axis "batch", all else whole."""
    names: dict[int, str] = {}  # dimension of a block's arrays -> axis of the mesh
    if seeds is not None and "seed" in mesh.axis_names:
        names[1] = "seed"
    if stream.batch_axis is not None and "batch" in mesh.axis_names:
        names[(1 if seeds is None else 2) + stream.batch_axis] = "batch"
    dimensions = range(1 + max(names, default=0))
    place = NamedSharding(mesh, PartitionSpec(*map(names.get, dimensions)))
    parts = tuple(mesh.shape[names[d]] if d in names else 1 for d in dimensions)  # a block of one row to a part
    at = {d: tuple(s.start or 0 for s in where or ()) for d, where in place.addressable_devices_indices_map(parts).items()}
    different = sorted(set(at.values()))
    return Slices(place, dimensions[-1], {device: different.index(where) for device, where in at.items()})


def require_divides(stream: Stream, mesh: Mesh) -> None:
    """Raises ValueError for examples of a batch that the mesh does not divide, or arrays without the axis that they are on."""
    if stream.batch_axis is None or "batch" not in mesh.axis_names:
        return
    for a in jax.tree.leaves(stream.like):
        if len(a.shape) <= stream.batch_axis:
            raise ValueError(
                f"a stream with batch_axis={stream.batch_axis} reads an array of shape {[*a.shape]}, which has no such axis: say "
                "batch_axis=None"
            )
        sharding.require_divides(a.shape[stream.batch_axis], "batch", mesh)
