"""Where the arrays of a step come from: a feed's lie on the device, a stream's are read ahead, block by block, in a thread.

A block holds the arrays of some steps in a row, [L, ...]; while the loop runs on one, the thread reads the next and puts it on
the device.  What a step sees depends on its key and number alone, so neither the length of a block nor where it begins changes
a bit, and nothing of a stream is kept in a checkpoint.  All blocks have one shape, the last one too, whose rest is not looked
at: the loop is compiled once.  On a mesh a device holds its part of a block, and a process reads those of its devices.

Axes: L steps of a block, S seeds.
"""

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import sharding
from jaxnas.base import Feed, Phase, Stream
from jaxnas.driver import processes
from jaxnas.driver.fingerprint import of_arrays
from jaxnas.driver.slices import Slices, require_divides, slices

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
    """The same, a feed's arrays whole on every device of a mesh.

    Raises:
        ValueError: for a stream whose batches the mesh does not divide.
    """
    if isinstance(data, Feed):
        return data._replace(arrays=sharding.replicate(data.arrays, mesh))
    require_divides(data, mesh)
    return data


def source(phase: Phase, indices: Indices, start: int, most: int, seeds: int | None, mesh: jax.sharding.Mesh | None):
    """Where the loop takes the arrays of a phase from: `Resident` or `Ahead`.

    Args:
        phase: its data and its steps.
        indices: of a stream.
        start: the first step that is wanted.
        most: steps of a block.
        seeds: of the run.
        mesh: where a block lies: see `jaxnas.driver.slices`.
    """
    if isinstance(phase.data, Feed):
        return Resident(phase.data, phase.steps)
    step = shapes(phase.data, seeds)
    one = sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(step))
    length = max(1, min(phase.data.block // max(one, 1), most, phase.steps))
    on = None if mesh is None else slices(phase.data, seeds, mesh)
    return Ahead(phase.data, indices, start, phase.steps, length, step, on)


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
    """A stream's blocks from a thread that is one block ahead.  What the thread of any process raises, `take` raises in all."""

    def __init__(self, stream: Stream, indices: Indices, start: int, stop: int, length: int, step: Any, on: Slices | None):
        self._stream, self._indices, self._stop, self._length, self._step, self._on = stream, indices, stop, length, step, on
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
            self._block = processes.all_or_none(self._next.result, "cannot read the data")
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
        wanted = wanted if self._on is None else self._on.mine(wanted)
        held = None
        for i in range(min(self._length, self._stop - begin)):
            if self._closed.is_set():
                raise RuntimeError("this stream is closed")
            rows = self._stream.read(jax.tree.map(lambda a, i=i: a[i], wanted))
            if held is None:
                held = jax.tree.map(lambda a: np.zeros((self._length, *a.shape), a.dtype), rows)
            jax.tree.map(lambda all, a, i=i: all.__setitem__(i, a), held, rows)
        arrays = jax.device_put(held) if self._on is None else self._on.put(held, self._step)
        return jax.block_until_ready(Block(arrays, jnp.asarray(begin, jnp.int32)))


def _host() -> Any:
    """The CPU, which computes indices while an accelerator is busy with the loop; the default device where JAX has none."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]
