"""Where the arrays of a step come from: a feed's lie on the device, a stream's are read ahead, block by block, in a thread.

A block holds the arrays of some steps in a row, [L, ...]; while the loop runs on one, the thread reads the next and puts it on
the device.  What a step sees depends on its key and number alone, so neither the length of a block nor where it begins changes
a bit, and nothing of a stream is kept in a checkpoint.  All blocks have one shape, the last one too, whose rest is not looked
at: the loop is compiled once.

Axes: L steps of a block, S seeds.
"""

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxnas import sharding
from jaxnas.base import Feed, Phase, Stream
from jaxnas.driver.fingerprint import of_arrays

Indices = Callable[[int, int, Any], Any]  # (first step, L, the device that computes them) -> pytree of int32[L, ...]


class Block(NamedTuple):
    """What the compiled loop is given of a stream."""

    arrays: Any  # [L, ...], or [L, S, ...] under `seeds`
    begin: jax.Array  # int32[]; the step of the first


def of_step(data: Feed | Stream, given: Any, t: jax.Array) -> Any:
    """The arrays that `draw` is given at step t: all of a feed's, or this step's of a block."""
    if isinstance(data, Feed):
        return given
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, t - given.begin, keepdims=False), given.arrays)


def drawn(data: Feed | Stream, key: jax.Array, t: jax.Array) -> Any:
    """The indices of step t; none of a feed."""
    return () if isinstance(data, Feed) else data.indices(key, t)


def shapes(data: Feed | Stream, seeds: int | None) -> Any:
    """Arrays, or shapes and dtypes, of one step."""
    if isinstance(data, Feed):
        return data.arrays
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((*(() if seeds is None else (seeds,)), *a.shape), a.dtype), data.like)


def identity(data: Feed | Stream) -> str:
    """What tells these data from others: a hash of a feed's arrays; what a stream says of itself."""
    return of_arrays(data.arrays) if isinstance(data, Feed) else data.identity


def placed(data: Feed | Stream, mesh: jax.sharding.Mesh) -> Feed | Stream:
    """The same, a feed's arrays whole on every device of a mesh."""
    return data._replace(arrays=sharding.replicate(data.arrays, mesh)) if isinstance(data, Feed) else data


def source(phase: Phase, indices: Indices, start: int, most: int, seeds: int | None, mesh: jax.sharding.Mesh | None):
    """Where the loop takes the arrays of a phase from: `Resident` or `Ahead`.

    Args:
        phase: its data and its steps.
        indices: of a stream.
        start: the first step that is wanted.
        most: steps of a block.
        seeds: of the run.
        mesh: where a block lies: its seeds on the axis "seed", all else on every device.
    """
    if isinstance(phase.data, Feed):
        return Resident(phase.data, phase.steps)
    one = sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(shapes(phase.data, seeds)))
    length = max(1, min(phase.data.block // max(one, 1), most, phase.steps))
    place = None
    if mesh is not None:
        on_seeds = seeds is not None and "seed" in mesh.axis_names
        place = NamedSharding(mesh, PartitionSpec(None, "seed") if on_seeds else PartitionSpec())
    return Ahead(phase.data, indices, start, phase.steps, length, place)


class Resident:
    """A feed's arrays, which are on the device already."""

    def __init__(self, feed: Feed, stop: int):
        self._feed, self._stop = feed, stop

    def ready(self, t: int) -> bool:
        """Always."""
        return True

    def take(self, t: int) -> tuple[Any, int]:
        """(what the loop is given at step t, for how many steps from there on)."""
        return self._feed.arrays, self._stop - t

    def close(self) -> None:
        """Nothing to end."""


class Ahead:
    """A stream's blocks from a thread that is one block ahead.  What the thread raises, `take` raises."""

    def __init__(self, stream: Stream, indices: Indices, start: int, stop: int, length: int, place: Any):
        self._stream, self._indices, self._stop, self._length, self._place = stream, indices, stop, length, place
        self._closed = threading.Event()
        self._block: Block | None = None
        self._end = start  # of the block at hand
        self._pool = futures.ThreadPoolExecutor(1, thread_name_prefix="jaxnas-ahead")
        self._next: futures.Future[Block] = self._pool.submit(self._read, start)

    def ready(self, t: int, seconds: float = 0.1) -> bool:
        """Whether `take` has what it needs, after waiting for it for at most so many seconds."""
        return (self._block is not None and t < self._end) or bool(futures.wait([self._next], seconds).done)

    def take(self, t: int) -> tuple[Block, int]:
        """(the block of step t, how many of its steps are left from there on); t is never before the t of the last call."""
        if self._block is None or t >= self._end:
            self._block = None  # free before the next but one is read
            self._block = self._next.result()
            self._end = min(t + self._length, self._stop)
            if self._end < self._stop:
                self._next = self._pool.submit(self._read, self._end)
        return self._block, self._end - t

    def close(self) -> None:
        """Ends the thread, behind the step that it is reading."""
        self._closed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._block = None

    def _read(self, begin: int) -> Block:
        wanted = jax.tree.map(np.asarray, self._indices(begin, self._length, _host()))
        held = None
        for i in range(min(self._length, self._stop - begin)):
            if self._closed.is_set():
                raise RuntimeError("this stream is closed")
            rows = self._stream.read(jax.tree.map(lambda a, i=i: a[i], wanted))
            if held is None:
                held = jax.tree.map(lambda a: np.zeros((self._length, *a.shape), a.dtype), rows)
            jax.tree.map(lambda all, a, i=i: all.__setitem__(i, a), held, rows)
        return jax.block_until_ready(Block(jax.device_put(held, self._place), jnp.asarray(begin, jnp.int32)))


def _host() -> Any:
    """The CPU, which computes indices while an accelerator is busy with the loop; the default device where JAX has none."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]
