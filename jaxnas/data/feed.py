"""Feeds: the batch of a step as a pure function of the step's key and number, drawn inside the scan.

The driver passes `feed.arrays` as an argument of its jitted scan and calls `feed.draw(key, arrays, t)` in the body: no
iterator, nothing to resume, and any chunking of the scan sees the same batches.  Of data that are not in memory (`streamed`) the
same functions make a `Stream`, whose steps see the same batches.

Axes: B examples, W weight steps, A architecture steps, K look-ahead steps, N examples of a split.
"""

from collections.abc import Callable
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import sharding, trees
from jaxnas.base import Batch, Feed, Stream
from jaxnas.checks import require_labels
from jaxnas.data.augment import Augment, below, identity
from jaxnas.data.dataset import Dataset, Split
from jaxnas.data.errors import DataError
from jaxnas.data.pixels import Pixels, plain
from jaxnas.data.rows import Reader, Rows
from jaxnas.data.rows import identity as identity_of
from jaxnas.data.streamed import Streamed, joined


@overload
def batches(
    dataset: Dataset,
    size: int,
    *,
    weight_steps: int = ...,
    arch_steps: int = ...,
    look_ahead: int = ...,
    augment: Augment = ...,
    valid_size: int | None = ...,
) -> Feed: ...
@overload
def batches(
    dataset: Streamed,
    size: int,
    *,
    weight_steps: int = ...,
    arch_steps: int = ...,
    look_ahead: int = ...,
    augment: Augment = ...,
    valid_size: int | None = ...,
) -> Stream: ...
def batches(
    dataset: Dataset | Streamed,
    size: int,
    *,
    weight_steps: int = 1,
    arch_steps: int = 1,
    look_ahead: int = 0,
    augment: Augment = identity,
    valid_size: int | None = None,
) -> Feed | Stream:
    """Batches for a search: `train` from the train half, `valid` from the valid half, never from the test set.

    A draw is a Batch with train = (x [W, B, H, W, C], y [W, B]), valid = (x [A, B, ...], y [A, B]) and
    look = (x [A, K, B, ...], y [A, K, B]), from the train half; what has no steps is None.

    Args:
        dataset: only its train and valid halves become `arrays`.
        size: B.
        weight_steps: W.
        arch_steps: A.
        look_ahead: K.
        augment: of the train and look-ahead images, each with its own key; never of the valid images.
        valid_size: B of the architecture steps; default: `size`.

    Raises:
        DataError: for a batch larger than its split, or without examples.
        ValueError: for negative or no steps at all, or labels that the target does not have.
    """
    _check_labels(dataset)
    valid_size = size if valid_size is None else valid_size
    if min(weight_steps, arch_steps, look_ahead) < 0 or weight_steps + arch_steps == 0:
        raise ValueError(f"a batch needs weight or architecture steps, not {weight_steps} and {arch_steps} ({look_ahead} ahead)")
    if weight_steps or look_ahead:
        _check_size(size, count(dataset.train), f"{dataset.name}, train part")
    if arch_steps:
        _check_size(valid_size, count(dataset.valid), f"{dataset.name}, valid part")

    ahead = arch_steps * look_ahead
    shapes = (weight_steps + ahead, size), (arch_steps, valid_size)

    def batch(moved, valid):
        look = jax.tree.map(lambda a: a[weight_steps:].reshape(arch_steps, look_ahead, *a.shape[1:]), moved)
        return Batch(
            train=trees.take(moved, slice(weight_steps)) if weight_steps else None,
            valid=valid,
            look=look if ahead else None,
        )

    def draw(key, arrays, t):
        del t  # every batch is drawn anew
        train, valid = arrays
        k_train, k_valid = jax.random.split(key)
        moved = _take(k_train, train, shapes[0], augment)  # at once: half the code to compile
        return batch(moved, _take(k_valid, valid, shapes[1], identity))

    if isinstance(dataset, Streamed):
        parts = {"train": (dataset.train, shapes[0], augment), "valid": (dataset.valid, shapes[1], identity)}
        return _stream(dataset, parts, jax.random.split, batch)
    return Feed((dataset.train, dataset.valid), draw)


@overload
def training(dataset: Dataset, size: int, *, steps: int = ..., augment: Augment = ...) -> Feed: ...
@overload
def training(dataset: Streamed, size: int, *, steps: int = ..., augment: Augment = ...) -> Stream: ...
def training(dataset: Dataset | Streamed, size: int, *, steps: int = 1, augment: Augment = identity) -> Feed | Stream:
    """Batches to train one network from scratch: `train` alone, from the train and valid halves together.

    Args:
        dataset: its halves are joined here, once: a copy on the device.
        size: B.
        steps: W.
        augment: of every image, each with its own key.

    Raises:
        DataError: for a batch larger than the halves together, or without examples.
        ValueError: for less than one step.
    """
    if steps < 1:
        raise ValueError(f"training needs at least one step to a batch, not {steps}")
    _check_labels(dataset)
    if isinstance(dataset, Streamed):
        rows = joined(dataset.train, dataset.valid, dataset.name)
        _check_size(size, len(rows), f"{dataset.name}, train and valid parts")
        part = {"train": (rows, (steps, size), augment)}
        return _stream(dataset, part, lambda key: (key,), lambda train: Batch(train=train))
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), dataset.train, dataset.valid)
    _check_size(size, len(both.y), f"{dataset.name}, train and valid parts")
    return Feed(both, lambda key, arrays, t: Batch(train=_take(key, arrays, (steps, size), augment)))


def calibration(dataset: Dataset | Streamed, size: int, batches: int, *, valid_batches: int | None = None) -> Feed:
    """What shared weights are judged on, the same at every step: `train` to recalibrate on, `valid` to score on.

    A draw is a Batch with train = (x [C, B, H, W, C], y [C, B]), the first examples of the train half (the split has shuffled
    them), and valid = (x [A, B', ...], y [A, B']), the valid half in as few equal batches of at most B as there can be: up to
    A - 1 examples are left over.

    Args:
        dataset: its train and valid halves.
        size: B.
        batches: C.
        valid_batches: A, where fewer than all are to be used (a quick look).

    Raises:
        DataError: for no calibration batch, or for more examples than there are.
    """
    _check_labels(dataset)
    n, m = count(dataset.train), count(dataset.valid)
    if size < 1 or batches < 1 or batches * size > n:
        raise DataError(
            f"{batches} calibration batches of {size} from {n} examples ({dataset.name}, train part): give 1 to {n} in all"
        )
    A = -(-m // size)
    per = m // A
    take = A if valid_batches is None else valid_batches
    if not 1 <= take <= A:
        raise DataError(f"{take} validation batches of {per} from {m} examples ({dataset.name}, valid part): give 1 to {A}")

    def held(part, count, each):  # bytes stay bytes, and are normalised where they are drawn
        if isinstance(dataset, Streamed):
            x, y = map(jnp.asarray, dataset.read(part, np.arange(count * each).reshape(count, each)))
            return Split(Pixels(x, dataset.mean, dataset.std) if x.dtype == jnp.uint8 else x, y)
        return jax.tree.map(lambda a: a[: count * each].reshape(count, each, *a.shape[1:]), part)

    draw = lambda part: (plain(part.x), part.y)
    arrays = Batch(train=held(dataset.train, batches, size), valid=held(dataset.valid, take, per))
    return Feed(arrays, lambda key, arrays, t: arrays._replace(train=draw(arrays.train), valid=draw(arrays.valid)))


def fixed(arrays: Any) -> Feed:
    """The same read-only arrays at every step, in `batch.fixed`: a table, a trained supernet."""
    return Feed(arrays, lambda key, arrays, t: Batch(fixed=arrays))


def count(part: Split | Rows) -> int:
    """N, the examples of a part, in memory or not."""
    return len(part.y) if isinstance(part, Split) else len(part)


def _check_size(size, count, name):
    if not 1 <= size <= count:
        raise DataError(f"a batch of {size} from {count} examples ({name}): choose a size of 1 to {count}")


def _check_labels(dataset):
    """ValueError for labels, of a dataset that was made by hand, that its target does not have."""
    if isinstance(dataset, Streamed):
        return  # its labels are looked at when they are read
    for part in (dataset.train, dataset.valid):
        if dataset.target.kind == "classes" and not isinstance(part.y, jax.core.Tracer):
            require_labels(part.y, dataset.target.outputs)


def _indices(key, n, steps, size):
    """Indices int32[steps, B] into n examples: each uniform, and all B of one batch different.

    A batch is a stratified sample: [0, n) is rotated by a uniform offset and cut into B strata, one example from each.
    That costs B + 1 random numbers, where a permutation would sort n (50,000 for CIFAR-10) at every step; the split has
    shuffled the examples, so neighbours have nothing in common.  Batches are independent of each other.
    """
    edge = np.arange(size + 1, dtype=np.int64) * n // size  # [B + 1]
    top = np.concatenate([[n], np.diff(edge)])  # of the offset, then of the place in each stratum
    draws = below(key, np.broadcast_to(top, (steps, size + 1)))
    start = np.broadcast_to(edge[:-1].astype(np.int32), (steps, size))
    return (draws[:, :1] + start + draws[:, 1:]) % n


def _take(key, part: Split, shape, augment):
    """Examples (x [S, B, H, W, C], y [S, B]) with `shape` = (S, B); None without steps."""
    if shape[0] == 0:
        return None
    k_index, k_augment = jax.random.split(key)
    index = _indices(k_index, len(part.y), *shape)
    return _moved(k_augment, part.x[index], part.y[index], shape, augment)


def _moved(k_augment, x, y, shape, augment):
    """Examples, augmented."""
    if augment is not identity:
        x = jax.vmap(jax.vmap(augment))(jax.random.split(k_augment, shape), x)
    return sharding.constrain((x, y), "batch", dim=1)


def _stream(dataset: Streamed, parts: dict[str, tuple[Rows, tuple[int, int], Augment]], split: Callable, batch: Callable) -> Stream:
    """The stream whose steps see what a feed of the same parts in memory draws.

    Args:
        dataset: how rows are read and normalised.
        parts: name -> (its rows, (S, B), augmentation), in the order of the keys.
        split: key -> a key for each part.
        batch: the examples (x [S, B, H, W, C], y [S, B]) of each part, None without steps -> Batch.
    """
    wanted = {name: part for name, part in parts.items() if part[1][0]}

    def indices(key, t):
        del t  # every batch is drawn anew
        keys = dict(zip(parts, split(key), strict=True))
        return {name: _indices(jax.random.split(keys[name])[0], len(rows), *shape) for name, (rows, shape, _) in wanted.items()}

    def draw(key, arrays, t):
        del t
        keys = dict(zip(parts, split(key), strict=True))
        take = lambda name, k_augment: _moved(k_augment, dataset.encode(arrays[name][0]), arrays[name][1], *parts[name][1:])
        return batch(*(take(name, jax.random.split(keys[name])[1]) if name in wanted else None for name in parts))

    rows = {name: part[0] for name, part in wanted.items()}
    of = lambda shape: (
        jax.ShapeDtypeStruct((*shape, *dataset.image), dataset.reading.dtype),
        jax.ShapeDtypeStruct(shape, jnp.int32),
    )
    return Stream(
        indices=indices,
        read=Reader(rows, dataset.reading),
        draw=draw,
        like={name: of(shape) for name, (_, shape, _) in wanted.items()},
        identity=identity_of(dataset.origin, rows, dataset.reading),
        batch_axis=1,
    )


@overload
def epochs(feed: Feed, steps: int) -> Feed: ...
@overload
def epochs(feed: Stream, steps: int) -> Stream: ...
def epochs(feed: Feed | Stream, steps: int) -> Feed | Stream:
    """A feed of `steps` batches at once, for a search that is monitored between epochs: every array gets a leading axis n.

    Raises:
        ValueError: for fewer than 1 step, or more than a stream reads at a time.
    """
    if steps < 1:
        raise ValueError(f"an epoch has at least 1 step; got steps={steps}")

    if isinstance(feed, Stream):
        return _epochs(feed, steps)

    def draw(key, arrays, t):
        keys = jax.random.split(key, steps)
        return jax.vmap(lambda k, i: feed.draw(k, arrays, t * steps + i))(keys, jnp.arange(steps))

    return Feed(feed.arrays, draw)


def _epochs(stream: Stream, steps: int) -> Stream:
    """`epochs` of a stream, all of whose batches are in memory at once."""
    one = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(stream.like))
    if steps > 1 and steps * one > stream.block:
        most = max(1, stream.block // one)
        raise ValueError(f"a stream reads {stream.block:.2g} bytes at a time, {most} of its steps, not {steps}: make it shorter")

    def indices(key, t):
        keys = jax.random.split(key, steps)
        return jax.vmap(lambda k, i: stream.indices(k, t * steps + i))(keys, jnp.arange(steps))

    def draw(key, arrays, t):
        keys = jax.random.split(key, steps)
        return jax.vmap(lambda k, a, i: stream.draw(k, a, t * steps + i))(keys, arrays, jnp.arange(steps))

    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct((steps, *a.shape), a.dtype), stream.like)
    axis = None if stream.batch_axis is None else 1 + stream.batch_axis
    return stream._replace(indices=indices, draw=draw, like=like, batch_axis=axis)
