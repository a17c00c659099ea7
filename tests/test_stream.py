"""Data bigger than memory: what a stream gives is what the same data in memory give, bit for bit, however it is cut."""

import dataclasses
import io
import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxnas as nas
from jaxnas import data
from jaxnas.base import Phase, Strategy
from jaxnas.data.rows import Arrays, Rows
from jaxnas.driver import CheckpointError, Stopped, ahead, run
from jaxnas.driver.program import Program

N, SIDE, CLASSES, B, STEPS = 90, 8, 3, 4, 40
AUGMENT = data.chain(data.crop(2), data.flip())
NAMES = ("a", "b", "c")
key = jax.random.key


class State(NamedTuple):
    w: jax.Array  # [8 x 8 x 3, classes]
    t: jax.Array


class Info(NamedTuple):
    loss: jax.Array
    seen: jax.Array  # labels [B]


def linear() -> Strategy:
    """Softmax regression on the training batch, moved by noise and by the validation batch, too."""

    def loss(w, x, y):
        return jnp.mean(-jnp.take_along_axis(jax.nn.log_softmax(x.reshape(len(x), -1) @ w), y[:, None], 1))

    def step(k, state, batch):
        (x, y), (v, u) = jax.tree.map(lambda a: a[0], (batch.train, batch.valid))
        value, gradient = jax.value_and_grad(loss)(state.w, x, y)
        w = state.w - 0.1 * gradient - 0.01 * jax.grad(loss)(state.w, v, u) + 1e-3 * jax.random.normal(k, state.w.shape)
        return State(w, state.t + 1), Info(value, y)

    init = lambda k, given=None: State(jax.random.normal(k, (SIDE * SIDE * 3, CLASSES)), jnp.zeros((), jnp.int32))
    return Strategy(init, step, lambda state: state.w)


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, SIDE, SIDE, 3), np.uint8), (np.arange(N) % CLASSES).astype(np.int32)


@pytest.fixture(scope="module")
def memory(pixels):
    x, y = pixels
    return data.split(key(1), x[10:], y[10:], test=(x[:10], y[:10]))


@pytest.fixture
def outside(pixels, memory, tmp_path):
    """The same data from a memory map."""
    return stream_of(mapped(tmp_path, *pixels), memory)


def mapped(folder, x, y):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")[10:], y[10:]


def stream_of(source, memory, **more):
    options = {
        "mean": memory.inputs.mean,
        "std": memory.inputs.std,
        "image": None if isinstance(source, tuple) else (SIDE, SIDE, 3),
    }
    return data.streamed(source, key(1), **{**options, **more})


def searched(dataset, steps=STEPS, block=None, **options):
    feed = data.batches(dataset, B, augment=AUGMENT)
    if block is not None:
        feed = feed._replace(block=block * sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(feed.like)))
    return run(key(2), linear(), steps=steps, data=feed, **options)


def same(a, b):
    chex.assert_trees_all_equal(a.state, b.state)


def nothing_left():
    names = [t.name for t in threading.enumerate() if t.name.startswith("jaxnas")]
    assert not names, names


@pytest.mark.parametrize("block", [1, 7, 20, None])
def test_a_stream_is_the_feed_of_the_same_data(memory, outside, block):
    whole, streamed = searched(memory), searched(outside, block=block, chunk=9)
    same(whole, streamed)
    chex.assert_trees_all_equal(whole.infos, streamed.infos)
    nothing_left()


def test_training_and_look_ahead_are_those_of_the_feed(memory, outside):
    for make in (
        lambda d: data.training(d, B, steps=2, augment=AUGMENT),
        lambda d: data.batches(d, B, weight_steps=2, arch_steps=3, look_ahead=2, augment=AUGMENT, valid_size=5),
        lambda d: data.batches(d, B, arch_steps=0),
        lambda d: data.batches(d, B, weight_steps=0),
        lambda d: data.epochs(data.batches(d, B, augment=AUGMENT), 3),
    ):
        feed, stream = make(memory), make(outside)
        read = stream.read(jax.tree.map(np.asarray, jax.jit(stream.indices)(key(5), 3)))
        chex.assert_trees_all_equal_shapes_and_dtypes(read, stream.like)
        chex.assert_trees_all_equal(jax.jit(feed.draw)(key(5), feed.arrays, 3), jax.jit(stream.draw)(key(5), read, 3))


def test_calibration_is_that_of_the_feed(memory, outside):
    """Of the same rows in order; their normalisation, too."""
    a, b = (data.calibration(d, 8, 2) for d in (memory, outside))
    assert a.arrays.train.x.raw.dtype == b.arrays.train.x.raw.dtype == jnp.uint8
    chex.assert_trees_all_equal(jax.jit(a.draw)(key(0), a.arrays, 0), jax.jit(b.draw)(key(0), b.arrays, 0))


def test_parts_in_order_are_those_in_memory(memory, outside):
    found = list(outside.in_order(outside.valid, 16))
    chex.assert_trees_all_equal(jax.tree.map(lambda *a: jnp.concatenate(a), *found), memory.valid._replace(x=memory.valid.x[...]))
    with pytest.raises(ValueError, match="at least 1"):
        next(outside.in_order(outside.valid, 0))


@pytest.mark.parametrize("at", [1, 33])
def test_a_cut_and_a_resume_change_no_bit(memory, outside, tmp_path, at):
    run_ = tmp_path / "run"
    with pytest.raises(Stopped):
        searched(Interrupting.of(outside, at), block=5, chunk=3, directory=run_)
    nothing_left()
    same(searched(memory), searched(outside, block=20, directory=run_, resume=True))


class Interrupting:
    """Rows of which the n-th that is read comes with a Ctrl-C."""

    def __init__(self, source, at):
        self.source, self.left = source, at

    @classmethod
    def of(cls, dataset, at):
        source = cls(dataset.train.source, at * B)
        swap = lambda rows: Rows(source, rows.at)
        return dataclasses.replace(dataset, train=swap(dataset.train), valid=swap(dataset.valid))

    def __len__(self):
        return len(self.source.x)

    def __getitem__(self, i):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return self.source.x[i], self.source.y[i]


def test_seeds_see_their_own_indices(memory, outside):
    same(searched(memory, 6, seeds=3), searched(outside, 6, block=2, seeds=3))


@pytest.mark.parametrize("axis", ["seed", "batch"])
def test_a_stream_on_a_mesh(memory, outside, axis):
    options = {"mesh": nas.sharding.mesh(**{axis: 2}), "seeds": 2 if axis == "seed" else None}
    a, b = (searched(d, 6, **options) for d in (memory, outside))
    chex.assert_trees_all_close(a.state, b.state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mesh, parts", [({"batch": 2}, 2), ({"seed": 2}, 2), ({"pop": 2}, 1)])
def test_a_block_lies_in_parts_and_each_row_is_read_once(outside, mesh, parts):
    """Rows that are their own indices tell which were read, and where they lie."""
    feed, read, mesh = data.epochs(data.batches(outside, B, valid_size=6), 2), [], nas.sharding.mesh(**mesh)

    def echo(indices):
        read.append(indices)
        return indices

    like = jax.tree.map(lambda pair: pair[1], feed.like, is_leaf=lambda a: isinstance(a, tuple))  # indices have the labels' shape
    program = Program(Phase(linear(), 3, feed), 0, jax.random.split(key(2), 4), 4, 3, mesh)
    of = Phase(linear(), 3, feed._replace(read=echo, like=like))
    source = ahead.source(of, program.indices, 0, 3, 4, mesh)
    block, _ = source.take(0)
    source.close()
    want = program.indices(0, 3, jax.devices()[0])
    chex.assert_trees_all_equal(block.arrays, want)
    assert len(read) == 3 and sum(a.size for a in jax.tree.leaves(read)) == sum(a.size for a in jax.tree.leaves(want))
    for a in jax.tree.leaves(block.arrays):  # [L, S, n, W, B]
        assert [s.data.size * parts for s in a.addressable_shards] == [a.size] * 2
        assert a.sharding.shard_shape(a.shape)[-1] == a.shape[-1] // mesh.shape.get("batch", 1)


def test_a_stream_that_a_mesh_does_not_divide(outside):
    mesh = nas.sharding.mesh(batch=2)
    odd = data.batches(outside, B, valid_size=5)
    odd = odd._replace(draw=lambda k, arrays, t: nas.Batch(), batch_axis=1)  # nothing that is drawn is marked as split
    with pytest.raises(ValueError, match="5 examples of a batch cannot be split over the 2 parts"):
        run(key(2), linear(), steps=2, data=odd, mesh=mesh)
    with pytest.raises(ValueError, match=r"batch_axis=2 reads an array of shape \[1, 4\], .* say batch_axis=None"):
        run(key(2), linear(), steps=2, data=data.batches(outside, B)._replace(batch_axis=2), mesh=mesh)


def test_the_last_and_shorter_block_is_not_compiled_anew(outside):
    traced = []
    strategy = linear()
    counted = strategy._replace(step=lambda k, s, b: (traced.append(0), strategy.step(k, s, b))[1])
    for steps in (10, 23):
        feed = data.batches(outside, B)
        feed = feed._replace(block=10 * sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(feed.like)))
        before = len(traced)
        run(key(2), counted, steps=steps, data=feed)
        assert len(traced) - before <= 3


def test_a_resume_with_other_data_is_refused(pixels, memory, tmp_path):
    """Which data they are is told by their number and by some of them."""
    x, y = pixels
    of = lambda x: stream_of((x[10:], y[10:]), memory)
    searched(of(x), 4, directory=tmp_path / "run")
    searched(of(x.copy()), 6, directory=tmp_path / "run", resume=True)
    with pytest.raises(CheckpointError, match="data"):
        searched(of(255 - x), 8, directory=tmp_path / "run", resume=True)
    with pytest.raises(CheckpointError, match="data"):
        searched(stream_of((x[10:-1], y[10:-1]), memory), 8, directory=tmp_path / "run", resume=True)


# --- files and records ------------------------------------------------------------------------------------------------


def write_folder(folder, x, y, ending="png"):
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        path = folder / f"class {label}" / f"{i:03d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def encoded(image, ending="png"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, ending)
    return file.getvalue()


@pytest.mark.parametrize("valid", [False, True])
def test_a_folder_is_read_as_load_reads_it(pixels, tmp_path, valid):
    folder = tmp_path / "images"
    write_folder(folder / "test", *(a[:9] for a in pixels))
    write_folder(folder / "train", *pixels)
    if valid:
        write_folder(folder / "val", *(a[:20] for a in pixels))
    memory = data.load(str(folder), key(1))
    streamed = stream_of(str(folder), memory)
    assert streamed.target.names == memory.target.names and len(streamed.test) == 9
    same(searched(memory, 5), searched(streamed, 5))


class Records:
    """Encoded images by index, a dict each."""

    def __init__(self, x, y, damaged=()):
        self.rows = [
            {"png": b"no image" if i in damaged else encoded(a), "class": b} for i, (a, b) in enumerate(zip(x, y, strict=True))
        ]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def records(pixels, memory, damaged=(), **more):
    x, y = pixels
    return stream_of(Records(x[10:], y[10:], damaged), memory, fields=("png", "class"), names=NAMES, workers=2, **more)


def test_records_are_the_arrays_that_they_encode(pixels, memory):
    same(searched(memory, 5), searched(records(pixels, memory), 5))


def test_an_array_record_is_a_source(pixels, memory, tmp_path):
    record = pytest.importorskip("array_record.python.array_record_module")
    sources = pytest.importorskip("array_record.python.array_record_data_source")
    x, y = pixels
    writer = record.ArrayRecordWriter(str(tmp_path / "rows"), "group_size:1")
    for image, label in zip(x[10:], y[10:], strict=True):
        writer.write(bytes([label]) + encoded(image))
    writer.close()
    source = sources.ArrayRecordDataSource(str(tmp_path / "rows"))
    streamed = stream_of(source, memory, decode=lambda row: (row[1:], row[0]), names=NAMES)
    same(searched(memory, 5), searched(streamed, 5))


def test_processes_decode(pixels, memory):
    """As the guide shows it: the threads wait for them, and what fails there is told with its row."""
    x, y = pixels
    rows = [pickle.dumps((image, int(label))) for image, label in zip(x[10:], y[10:], strict=True)]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        options = {"decode": lambda row: pool.submit(pickle.loads, row).result(), "workers": 4, "names": NAMES}
        same(searched(memory, 5), searched(stream_of(rows, memory, **options), 5))
        with pytest.raises(data.DataError, match=r"row \d+ cannot be read"):
            searched(stream_of([row[:-1] for row in rows], memory, **options), 5)


def test_an_unreadable_image_ends_the_run(pixels, memory):
    with pytest.raises(data.DataError, match=r"row \d+ cannot be read .*unreadable='skip'"):
        searched(records(pixels, memory, range(30)), block=3)
    nothing_left()


def test_an_unreadable_image_is_skipped_and_counted(pixels, memory, tmp_path):
    """What stands in for it depends on the indices alone: a resumed and differently cut run sees the same."""
    streamed = records(pixels, memory, range(30), unreadable="skip")
    feed = data.batches(streamed, B)
    whole = run(key(2), linear(), steps=12, data=feed)
    counted = {i for rows in feed.read.unreadable.values() for i in rows}
    assert counted and counted <= set(range(30))
    run(key(2), linear(), steps=5, data=feed, directory=tmp_path / "run")
    same(whole, run(key(2), linear(), steps=12, data=feed._replace(block=3000), directory=tmp_path / "run", resume=True))
    with pytest.raises(data.DataError, match="cannot be read: look at row"):
        searched(records(pixels, memory, range(80), unreadable="skip"))


def test_a_skipped_image_is_replaced_by_the_next_of_its_part(pixels, memory):
    streamed = records(pixels, memory, unreadable="skip")
    bad = streamed.valid.at[[3, 4, len(streamed.valid) - 1]]
    damaged = records(pixels, memory, bad, unreadable="skip")
    x, y = damaged.read(damaged.valid, np.arange(len(damaged.valid)))
    want, labels = streamed.read(streamed.valid, np.r_[0:3, 5, 5, 5 : len(streamed.valid) - 1, 0])
    np.testing.assert_array_equal(x, want)
    np.testing.assert_array_equal(y, labels)


@pytest.mark.parametrize("error", [OSError("the disk is gone"), SystemExit(3), MemoryError()])
def test_a_thread_that_dies_is_heard(pixels, memory, error):
    """Once blocks have been used, whatever ends the reading ends the run."""
    x, y = pixels

    class Dying:
        def __len__(self):
            return 80

        def __getitem__(self, i):
            if self.left <= 0:
                raise error
            self.left -= 1
            return x[10 + i], int(y[10 + i])

    source = Dying()
    source.left = 10**6
    streamed = stream_of(source, memory, names=NAMES)
    source.left = 9 * 2 * B
    with pytest.raises((type(error), data.DataError)):
        searched(streamed, block=3)
    nothing_left()


def test_a_second_interrupt_leaves_no_thread(pixels, memory):
    x, y = pixels
    streamed = stream_of((x[10:], y[10:]), memory)
    feed = data.batches(streamed, B)

    def read(indices):
        if threading.current_thread() is not threading.main_thread():
            os.kill(os.getpid(), signal.SIGINT)
        return feed.read(indices)

    with pytest.raises((KeyboardInterrupt, Stopped)):
        run(key(2), linear(), steps=STEPS, data=feed._replace(read=read))
    nothing_left()


def test_images_of_many_sizes_are_covered():
    """The middle of an image, in proportion; a JPEG that is much too large is decoded smaller."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    found = data.images.cover(wide, (10, 10, 3))
    assert found.shape == (10, 10, 3) and (found[:, 1:-1] == 200).all()
    smooth = np.broadcast_to(np.linspace(0, 255, 640, dtype=np.uint8)[:, None, None], (640, 640, 3))
    small, full = data.images.cover(encoded(smooth, "jpeg"), (64, 64, 3)), data.images.cover(smooth, (64, 64, 3))
    assert np.abs(small.astype(int) - full).max() <= 4
    assert data.images.cover(encoded(wide), (8, 8, 1)).shape == (8, 8, 1)


MISTAKES: dict[str, tuple[Any, str]] = {
    "no folder": (lambda x, y: data.streamed("/no such folder", key(0)), "no such folder"),
    "no source": (lambda x, y: data.streamed(3, key(0)), "a source is"),
    "another type": (lambda x, y: data.streamed((x.astype(np.float64), y), key(0)), "uint8 or float32"),
    "labels missing": (lambda x, y: data.streamed((x, y[1:]), key(0)), "labels"),
    "no names": (lambda x, y: data.streamed(Records(x[:4], y[:4]), key(0)), "names of its classes"),
    "another size": (lambda x, y: data.streamed((x, y), key(0), image=(9, 9, 3)), "leave image out"),
    "means": (lambda x, y: data.streamed((x, y), key(0), mean=(0.5,)), "3 numbers"),
    "no spread": (lambda x, y: data.streamed((x, y), key(0), std=(0.0, 1.0, 1.0)), "positive"),
    "a third way": (lambda x, y: data.streamed((x, y), key(0), unreadable="ignore"), "error, skip"),
    "an empty part": (lambda x, y: data.streamed((x, y), key(0), valid=1.0), "empty part"),
    "a share": (lambda x, y: data.streamed((x, y), key(0), valid=1.5), "`valid`"),
    "no workers": (lambda x, y: data.streamed((x, y), key(0), workers=0), "`workers`"),
    "a large batch": (lambda x, y: data.batches(data.streamed((x, y), key(0)), 46), "choose a size of 1 to 45"),
    "an epoch": (lambda x, y: data.epochs(data.batches(data.streamed((x, y), key(0)), 4), 10**5), "make it shorter"),
    "fields": (lambda x, y: searched(data.streamed(Records(x, y), key(0), names=NAMES, image=(8, 8, 3))), "no field image"),
    "a label": (lambda x, y: searched(data.streamed((x, y), key(0), names=NAMES[:2])), "from 0 to 1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line(pixels, name):
    call, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words) as caught:
        call(*pixels)
    assert "\n" not in str(caught.value)
    nothing_left()


def test_parts_of_their_own(pixels):
    x, y = pixels
    options = {"fields": ("png", "class"), "names": NAMES, "image": (8, 8, 3)}
    own = data.streamed(Records(x[:50], y[:50]), key(0), valid=Records(x[50:], y[50:]), **options)
    assert [len(own.train), len(own.valid), own.test] == [50, 40, None]
    both = data.training(own, B).read({"train": np.arange(90)})["train"]
    order = np.argsort(np.r_[own.train.at, 50 + own.valid.at])
    np.testing.assert_array_equal(both[0][order], x)
    arrays = data.streamed((x[:50], y[:50]), key(0), valid=(x[50:], y[50:]))
    assert isinstance(arrays.valid.source, Arrays)
    with pytest.raises(data.DataError, match="cannot be read as one part"):
        data.training(arrays, B)


# --- augmentations of ImageNet ----------------------------------------------------------------------------------------


def test_a_resized_crop_is_a_part_of_the_image():
    """Of an image whose values are its places: the part is within bounds of area and ratio, and is not outside."""
    size = 32
    ramp = jnp.linspace(0.5, size - 0.5, size)  # the middle of each pixel
    image = jnp.stack(jnp.broadcast_arrays(ramp[:, None], ramp[None, :]), -1)
    crops = jax.jit(jax.vmap(data.resized_crop(), (0, None)))(jax.random.split(key(0), 200), image)
    inner = np.asarray(crops)[:, 4:-4, 4:-4]  # away from borders, whose filter is cut
    step = np.stack([np.diff(inner[..., 0], axis=1).mean((1, 2)), np.diff(inner[..., 1], axis=2).mean((1, 2))], 1)  # height, width
    area, ratio = step.prod(1), step[:, 1] / step[:, 0]
    assert 0.07 < area.min() < 0.2 and 0.8 < area.max() <= 1.01
    assert 0.74 < ratio.min() < 0.85 and 1.2 < ratio.max() < 1.35
    assert crops.min() >= 0 and crops.max() <= size
    whole = data.resized_crop((1.0, 1.0), (1.0, 1.0))
    np.testing.assert_allclose(jax.jit(whole)(key(1), image), image, rtol=1e-5, atol=1e-5)


def test_colours_move_within_their_bounds():
    image = jax.random.normal(key(0), (6, 6, 3)) * 0.1
    still = jax.jit(data.colour_jitter(0, 0, 0))(key(1), image)
    np.testing.assert_allclose(still, image, atol=1e-6)
    mean, std = (jnp.asarray(a)[None, None] for a in (data.augment.MEAN, data.augment.STD))
    raw = lambda x: np.asarray(x * std + mean)
    lit = raw(jax.jit(jax.vmap(data.colour_jitter(0.4, 0, 0), (0, None)))(jax.random.split(key(2), 100), image)[0])
    factors = lit / raw(image)
    np.testing.assert_allclose(factors, factors.flat[0], rtol=1e-5)
    assert factors.min() >= 0.6 and factors.max() <= 1.4
    grey = raw(jax.jit(data.colour_jitter(0, 0, 0.999))(key(3), image))
    light = lambda x: x @ np.asarray(data.augment.GREY)
    np.testing.assert_allclose(light(grey), light(raw(image)), rtol=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: data.resized_crop((0.0, 1.0)),
        lambda: data.resized_crop((0.5, 2.0)),
        lambda: data.resized_crop(ratio=(2, 1)),
        lambda: data.colour_jitter(-1),
        lambda: data.colour_jitter()(key(0), jnp.zeros((4, 4, 1))),
    ],
)
def test_augmentations_that_cannot_be(call):
    with pytest.raises(ValueError):
        call()
