"""jaxnas.data: splits, bad inputs, augmentations, feeds and TensorFlow Datasets without TensorFlow."""

import io
import subprocess
import sys
import time
import zipfile

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnas import data, sharding
from jaxnas.data.feed import _indices


def key(seed=0):
    return jax.random.key(seed)


def numbered(n=60, shape=(4, 3, 2), classes=3):
    """Images that say which they are: pixel [0, 0, 0] of image i is i, before the normalisation."""
    x = np.random.default_rng(0).normal(3.0, 2.0, (n, *shape)).astype(np.float32)
    x[:, 0, 0, 0] = np.arange(n)
    return x, np.arange(n) % classes


def toy(n=60, **kwargs):
    return data.split(key(), *numbered(n), **kwargs)


# --- splits ---------------------------------------------------------------------------------------------------------


def sources_of(dataset, n):
    """The source numbers of each split: the normalisation is increasing, so ranks of the marked pixel are the numbers."""
    marks = [np.asarray(s.x[:, 0, 0, 0]) for s in (dataset.train, dataset.valid, dataset.test)]
    rank = np.argsort(np.argsort(np.concatenate(marks)))
    assert len(rank) == n
    return np.split(rank, np.cumsum([len(m) for m in marks])[:-1])


@settings(max_examples=15, deadline=None)
@given(n=st.sampled_from([12, 60]), valid=st.floats(0.2, 0.8), test=st.floats(0.1, 0.5), seed=st.integers(0, 9))
def test_splits_are_disjoint_and_complete(n, valid, test, seed):
    x, y = numbered(n)
    d = data.split(key(seed), x, y, valid=valid, test=test)
    train, held, tested = sources_of(d, n)
    assert sorted(np.concatenate([train, held, tested])) == list(range(n))
    assert len(tested) == round(test * n) and len(held) == round(valid * (n - len(tested)))
    for source, part in zip((train, held, tested), (d.train, d.valid, d.test), strict=True):
        np.testing.assert_array_equal(part.y, y[source])


def test_splits_are_a_function_of_the_key():
    a, b, c = (data.split(key(s), *numbered()) for s in (1, 1, 2))
    chex.assert_trees_all_equal(a, b)
    assert not np.array_equal(sources_of(a, 60)[0], sources_of(c, 60)[0])


def test_types_and_static_facts():
    d = toy()
    assert (d.classes, d.name, d.image) == (3, "data", (4, 3, 2))
    assert [len(s.y) for s in (d.train, d.valid, d.test)] == [24, 24, 12]  # 20 % test, then halves
    for part in (d.train, d.valid, d.test):
        assert part.x.dtype == jnp.float32 and part.y.dtype == jnp.int32 and part.x.ndim == 4
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(d))
    assert len(jax.tree.leaves(d)) == 6 and jax.tree.map(lambda a: a, d).classes == 3


def test_the_dataset_is_an_argument_of_jitted_code():
    count = jax.jit(lambda d: jnp.bincount(d.train.y, length=d.classes))  # `classes` is static
    assert count(toy()).shape == (3,)


def test_normalisation_uses_train_alone():
    x, y = numbered()
    d = data.split(key(), x, y)
    train, held, tested = sources_of(d, 60)
    mean, std = x[train].mean((0, 1, 2)), x[train].std((0, 1, 2))
    for source, part in zip((train, held, tested), (d.train, d.valid, d.test), strict=True):
        np.testing.assert_allclose(part.x, (x[source] - mean) / std, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.mean(d.train.x, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(d.train.x, (0, 1, 2)), 1, rtol=1e-5)
    x[np.concatenate([held, tested])] *= 100  # others may be anything
    np.testing.assert_array_equal(data.split(key(), x, y).train.x, d.train.x)


def test_a_constant_channel_is_only_shifted():
    x, y = numbered()
    x[..., 1] = 0.1
    d = data.split(key(), x, y)
    np.testing.assert_allclose(d.test.x[..., 1], 0, atol=1e-6)


def test_own_test_set_is_kept_whole_and_in_order():
    x, y = numbered()
    d = data.split(key(), x[:40], y[:40], test=(x[40:], y[40:]))
    assert [len(s.y) for s in (d.train, d.valid, d.test)] == [20, 20, 20]
    np.testing.assert_array_equal(d.test.y, y[40:])
    assert (np.diff(d.test.x[:, 0, 0, 0]) > 0).all()


def test_classes_count_the_test_labels_too():
    x, y = numbered()
    d = data.split(key(), x, y, test=(x, y + 4))
    assert d.target.names == ("0", "1", "2", "4", "5", "6") and d.classes == 6
    assert any("only the test part has examples of 4, 5, 6" in note for note in d.notes)


# --- load -----------------------------------------------------------------------------------------------------------


def test_digits():
    d = data.load("digits", key())
    assert (d.classes, d.name, d.image) == (10, "digits", (8, 8, 1))
    assert [len(s.y) for s in (d.train, d.valid, d.test)] == [719, 719, 359]
    chex.assert_trees_all_equal(d, data.load("digits", key()))


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("own_test", [False, True])
def test_npz(tmp_path, channels, own_test):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (50, 6, 5, *channels), np.uint8), rng.integers(0, 4, 50).astype(np.uint8)
    path = str(tmp_path / "a.npz")
    if own_test:
        np.savez_compressed(path, x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    else:
        np.savez(path, x=x, y=y)
    d = data.load(path, key())
    assert d.image == (6, 5, *(channels or (1,))) and d.classes == 4 and d.name == path
    sizes = [len(s.y) for s in (d.train, d.valid, d.test)]
    assert sizes == ([15, 15, 20] if own_test else [20, 20, 10])
    if own_test:
        np.testing.assert_array_equal(d.test.y, y[30:])


def test_bytes_are_scaled_to_one():
    x, y = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1), np.arange(40) % 2
    a, b = (data.split(key(), x, y) for x in (x, x.astype(np.float32) / 255))
    assert a.inputs.divide == 255 and b.inputs.divide == 1
    for ours, theirs in ((a.train, b.train), (a.test, b.test)):
        chex.assert_trees_all_equal(ours._replace(x=ours.x[...]), theirs)


def test_limit_draws_by_the_key(tmp_path):
    x, y = numbered(100)
    path = str(tmp_path / "a.npz")
    np.savez(path, x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    a, b, c = (data.load(path, key(s), limit=20) for s in (1, 1, 2))
    assert [len(s.y) for s in (a.train, a.valid, a.test)] == [10, 10, 20]
    chex.assert_trees_all_equal(a, b)
    assert not np.array_equal(a.test.y, c.test.y)


def test_import_is_light():
    heavy = ("sklearn", "tensorflow_datasets", "tensorflow", "pandas", "PIL", "pyarrow")
    code = f"import sys, jaxnas.data; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --- bad inputs: one line that says what to do ------------------------------------------------------------------------

X, Y = np.zeros((8, 4, 4, 1), np.float32) + np.arange(8, dtype=np.float32)[:, None, None, None], np.arange(8) % 2

BAD_ARRAYS = {
    "nan": (np.where(X == 3, np.nan, X), Y, "1 of 8 images hold NaN or infinity"),
    "inf": (np.where(X == 3, -np.inf, X), Y, "NaN or infinity"),
    "too large for float32": (X.astype(np.float64) * 1e300, Y, "7 of 8 images hold NaN or infinity"),
    "videos": (X[..., None], Y, "not \\[8, 4, 4, 1, 1\\]"),
    "lengths": (X, Y[:5], "8 examples and 5 targets"),
    "text images": (X.astype("U4"), Y, "x must be numbers"),
    "one class": (X, Y * 0, "at least two classes"),
    "nothing": (X[:0], Y[:0], "there are no examples"),
    "no pixels": (X[:, :0], Y, "there are no examples"),
    "too few": (X[:2], Y[:2], "2 classes among 2 examples"),
    "an empty part": (X[:2], np.asarray([0.1, 0.2]), "2 examples leave an empty part"),
}


def one_line(caught):
    assert type(caught.value) is data.DataError and isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no chain of tracebacks


@pytest.mark.parametrize("case", BAD_ARRAYS)
@pytest.mark.parametrize("through_file", [False, True])
def test_bad_arrays(tmp_path, case, through_file):
    x, y, message = BAD_ARRAYS[case]
    with pytest.raises(data.DataError, match=message) as caught:
        if through_file:
            np.savez(tmp_path / "a.npz", x=x, y=y)
            data.load(str(tmp_path / "a.npz"), key())
        else:
            data.split(key(), x, y)
    one_line(caught)


def raw(content):
    return lambda path: path.write_bytes(content)


def damaged(path):
    np.savez(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[200:210] = b"\xff" * 10  # inside x: the checksum no longer fits
    path.write_bytes(content)


def cut_short(path):
    np.savez(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:300])


def a_zip_of_text(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", "hello")
        file.writestr("y.npy", "hello")


def a_single_array(path):
    with path.open("wb") as file:
        np.save(file, X)


BAD_FILES = {
    "missing": (lambda path: None, "there is no such file"),
    "a folder": (lambda path: path.mkdir(), "there is no such file"),
    "empty": (raw(b""), "not an .npz file, or a damaged one"),
    "text": (raw(b"x,y\n1,2\n"), "not an .npz file"),
    "pickle": (raw(b"\x80\x04K\x01."), "not an .npz file"),
    "a single array": (a_single_array, "not an .npz file"),
    "damaged": (damaged, "damaged"),
    "cut short": (cut_short, "damaged"),
    "a zip of text": (a_zip_of_text, "not an .npz file, or a damaged one"),
    "without x and y": (lambda path: np.savez(path, images=X), "no array x_train or y_train, only images"),
    "without y": (lambda path: np.savez(path, x=X), "no array y, only x"),
    "without y_test": (lambda path: np.savez(path, x_train=X, y_train=Y, x_test=X), "no array y_test"),
    "objects": (lambda path: np.savez(path, x=np.array([{}, X], object), y=Y), "Python objects"),
    "scalars": (lambda path: np.savez(path, x=1.0, y=1), "x must be images"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path, case):
    make, message = BAD_FILES[case]
    make(tmp_path / "a.npz")
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(str(tmp_path / "a.npz"), key())
    one_line(caught)
    assert "a.npz" in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_to_a_file_is_an_error_or_harmless(tmp_path_factory, draw):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=X, y=Y)
    content = bytearray(buffer.getvalue())
    for at in draw.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = draw.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damage") / "a.npz"
    path.write_bytes(content[: draw.draw(st.integers(1, len(content)))])
    try:
        data.load(str(path), key())
    except data.DataError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("spec", ["cifar", "", "data.txt", "Digits"])
def test_unknown_names_list_what_exists(spec):
    listed = "choose one of digits, FILE.npz, X.npy,Y.npy, FILE.csv, FOLDER, SAVED, tfds:NAME"
    with pytest.raises(data.DataError, match=listed) as caught:
        data.load(spec, key())
    one_line(caught)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"valid": 0.0}, "valid part"),
        ({"valid": 1.5}, "valid part"),
        ({"test": 1.0}, "test part"),
        ({"test": (X[:, :2], Y)}, "make them alike"),
        ({"test": (X, Y[:3])}, r"\(test\): there are 8 examples and 3 targets"),
    ],
)
def test_bad_parts(kwargs, message):
    with pytest.raises(data.DataError, match=message) as caught:
        data.split(key(), X, Y, **kwargs)
    one_line(caught)


def test_ragged_images_and_bad_limits():
    with pytest.raises(data.DataError, match="ragged") as caught:
        data.split(key(), [np.zeros((2, 2)), np.zeros((3, 3))] * 2, [0, 0, 1, 1])
    one_line(caught)
    with pytest.raises(data.DataError, match="at least 1 example"):
        data.load("digits", key(), limit=0)


# --- augmentations ----------------------------------------------------------------------------------------------------

IMAGE = jnp.asarray(np.random.default_rng(1).uniform(1, 2, (8, 6, 3)), jnp.float32)  # no zeros
AUGMENTS = {
    "identity": data.identity,
    "crop": data.crop(2),
    "flip": data.flip(),
    "cutout": data.cutout(3),
    "chain": data.chain(data.crop(2), data.flip(), data.cutout(3)),
}


@pytest.mark.parametrize("name", AUGMENTS)
def test_augments_are_pure_and_keep_shapes(name):
    f = jax.jit(AUGMENTS[name])
    a, b = (f(key(3), IMAGE) for _ in range(2))
    assert a.shape == IMAGE.shape and a.dtype == IMAGE.dtype and not a.weak_type
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, AUGMENTS[name](key(3), IMAGE))
    many = jax.vmap(f, (0, None))(jax.random.split(key(), 64), IMAGE)
    assert (len(np.unique(many, axis=0)) > 1) == (name != "identity")  # each image has a key of its own


def test_a_crop_of_pad_0_and_a_cutout_of_0_are_the_identity():
    for f in (data.crop(0), data.cutout(0), data.chain()):
        np.testing.assert_array_equal(f(key(), IMAGE), IMAGE)


@settings(max_examples=20, deadline=None)
@given(pad=st.integers(0, 9), seed=st.integers(0, 99))
def test_a_crop_is_a_window_of_the_padded_image(pad, seed):
    out = np.asarray(data.crop(pad)(key(seed), IMAGE))
    padded = np.pad(IMAGE, ((pad, pad), (pad, pad), (0, 0)))
    windows = [padded[i : i + 8, j : j + 6] for i in range(2 * pad + 1) for j in range(2 * pad + 1)]
    assert any(np.array_equal(out, w) for w in windows)


def test_crops_reach_every_place():
    mark = jnp.zeros((9, 9, 1)).at[4, 4].set(1.0)
    outs = jax.vmap(data.crop(4), (0, None))(jax.random.split(key(), 4000), mark)
    share = np.mean(outs, 0)[..., 0]
    np.testing.assert_allclose(share, 1 / 81, atol=5 * np.sqrt(1 / 81 / 4000))


def test_flips_are_mirror_images_half_of_the_time():
    outs = np.asarray(jax.vmap(data.flip(), (0, None))(jax.random.split(key(), 1000), IMAGE))
    same = (outs == np.asarray(IMAGE)[None]).all((1, 2, 3))
    mirrored = (outs == np.asarray(IMAGE)[None, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all() and 0.42 < same.mean() < 0.58
    np.testing.assert_array_equal(data.flip()(key(5), data.flip()(key(5), IMAGE)), IMAGE)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 12), seed=st.integers(0, 999))
def test_cutout_zeroes_a_rectangle_and_nothing_else(size, seed):
    out = np.asarray(data.cutout(size)(key(seed), IMAGE))
    hole = (out == 0).all(-1)
    np.testing.assert_array_equal(out[~hole], np.asarray(IMAGE)[~hole])
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    assert hole.sum() == len(rows) * len(columns) > 0
    for found, length in ((rows, 8), (columns, 6)):
        assert (np.diff(found) == 1).all() and len(found) <= size
        assert len(found) == min(size, length) or found[0] == 0 or found[-1] == length - 1  # only the border cuts it


@pytest.mark.parametrize("size", [2, 5])
def test_cutout_has_a_uniform_centre(size):
    def mean_side(length):
        sides = [len(set(range(c - size // 2, c - size // 2 + size)) & set(range(length))) for c in range(length)]
        return np.mean(sides)

    outs = np.asarray(jax.vmap(data.cutout(size), (0, None))(jax.random.split(key(), 4000), IMAGE))
    area = (outs == 0).all(-1).sum((1, 2))
    assert abs(area.mean() - mean_side(8) * mean_side(6)) < 5 * area.std() / np.sqrt(len(area))
    assert area.min() < area.max()  # the border cut some


@pytest.mark.parametrize("make", [data.crop, data.cutout])
def test_augments_refuse_negative_sizes(make):
    with pytest.raises(ValueError, match="-1"):
        make(-1)


# --- feeds ------------------------------------------------------------------------------------------------------------


def test_feed_shapes_and_types():
    d = toy()
    feed = data.batches(d, 8, weight_steps=3, arch_steps=2, look_ahead=4, valid_size=5, augment=data.crop(1))
    batch = jax.eval_shape(feed.draw, key(), feed.arrays, 0)
    assert batch.train[0].shape == (3, 8, 4, 3, 2) and batch.train[1].shape == (3, 8)
    assert batch.valid[0].shape == (2, 5, 4, 3, 2) and batch.valid[1].shape == (2, 5)
    assert batch.look[0].shape == (2, 4, 8, 4, 3, 2) and batch.look[1].shape == (2, 4, 8)
    for x, y in (batch.train, batch.valid, batch.look):
        assert x.dtype == jnp.float32 and y.dtype == jnp.int32 and not x.weak_type and not y.weak_type
    assert batch.fixed is None
    assert jax.eval_shape(data.batches(d, 8).draw, key(), feed.arrays, 0).look is None
    assert jax.eval_shape(data.batches(d, 8, arch_steps=0).draw, key(), feed.arrays, 0).valid is None


def test_draws_are_pure_functions_of_their_key():
    feed = data.batches(toy(), 8, look_ahead=2, augment=AUGMENTS["chain"])
    draw = jax.jit(feed.draw)
    chex.assert_trees_all_equal(draw(key(1), feed.arrays, 0), draw(key(1), feed.arrays, 0))
    a, b = (draw(key(s), feed.arrays, 0) for s in (1, 2))
    assert not np.array_equal(a.train[0], b.train[0]) and not np.array_equal(a.valid[0], b.valid[0])


def test_draws_inside_a_scan_do_not_depend_on_its_chunks():
    feed = data.batches(toy(), 8, augment=data.flip())

    @jax.jit
    def run(steps, arrays):
        return jax.lax.scan(lambda c, t: (c, feed.draw(jax.random.fold_in(key(1), t), arrays, t)), None, steps)[1]

    parts = [run(jnp.arange(3), feed.arrays), run(jnp.arange(3, 6), feed.arrays)]
    whole = run(jnp.arange(6), feed.arrays)
    chex.assert_trees_all_equal(whole, jax.tree.map(lambda a, b: np.concatenate([a, b]), *parts))


def test_data_is_not_baked_into_the_program():
    feed = data.batches(toy(), 8)
    jaxpr = jax.make_jaxpr(feed.draw)(key(), feed.arrays, 0)
    assert all(np.size(c) < feed.arrays[0].x.size / 10 for c in jaxpr.consts)


def test_batches_come_from_their_halves_with_their_labels():
    d = toy()
    feed = data.batches(d, 24, weight_steps=2, arch_steps=2, look_ahead=1)
    batch = jax.jit(feed.draw)(key(), feed.arrays, 0)
    for (x, y), part in ((batch.train, d.train), (batch.valid, d.valid), (batch.look, d.train)):
        label = dict(zip(np.asarray(part.x[:, 0, 0, 0]).tolist(), np.asarray(part.y).tolist(), strict=True))
        marks = np.asarray(x[..., 0, 0, 0])
        assert [label[m] for m in marks.ravel().tolist()] == np.asarray(y).ravel().tolist()
        assert all(len(set(b)) == 24 for b in marks.reshape(-1, 24).tolist())  # a full batch is the whole split
    assert len(feed.arrays) == 2  # the test set never enters


def test_only_train_and_look_are_augmented():
    d = toy()
    feed = data.batches(d, 8, look_ahead=1, augment=lambda key, image: image + jax.random.uniform(key) + 1000)
    batch = jax.jit(feed.draw)(key(), feed.arrays, 0)
    assert batch.train[0].min() > 900 and batch.look[0].min() > 900
    assert np.isin(batch.valid[0][..., 0, 0, 0], d.valid.x[:, 0, 0, 0]).all()


def test_each_image_has_its_own_key():
    feed = data.batches(toy(), 8, weight_steps=3, look_ahead=2, augment=lambda key, image: image * 0 + jax.random.uniform(key))
    batch = jax.jit(feed.draw)(key(), feed.arrays, 0)
    noise = np.concatenate([np.asarray(x[..., 0, 0, 0]).ravel() for x in (batch.train[0], batch.look[0])])
    assert len(np.unique(noise)) == 24 + 16


@pytest.mark.parametrize(("n", "size"), [(1, 1), (7, 3), (10, 10), (70, 64)])
def test_indices_of_a_batch_differ(n, size):
    index = np.asarray(_indices(key(), n, 500, size))
    assert index.shape == (500, size) and index.dtype == np.int32 and index.min() == 0 and index.max() == n - 1
    assert all(len(set(row)) == size for row in index.tolist())


@pytest.mark.parametrize(("n", "size"), [(7, 3), (10, 10), (9, 1)])
def test_indices_are_uniform_and_batches_independent(n, size):
    index = np.asarray(_indices(key(), n, 6000, size))
    sigma = np.sqrt((n - 1) / n**2 / 6000)
    for slot in range(size):
        share = np.bincount(index[:, slot], minlength=n) / 6000
        np.testing.assert_allclose(share, 1 / n, atol=5 * sigma)
    pairs = np.bincount(index[::2, 0] * n + index[1::2, 0], minlength=n * n) / 3000
    np.testing.assert_allclose(pairs, 1 / n**2, atol=5 * np.sqrt(1 / n**2 / 3000))


def test_training_draws_from_both_halves():
    d = toy()
    feed = data.training(d, 48, steps=2)
    batch = jax.jit(feed.draw)(key(), feed.arrays, 0)
    assert batch.train[0].shape == (2, 48, 4, 3, 2) and batch.valid is None and batch.look is None
    both = np.concatenate([d.train.x[:, 0, 0, 0], d.valid.x[:, 0, 0, 0]])
    np.testing.assert_array_equal(np.sort(batch.train[0][1, :, 0, 0, 0]), np.sort(both))


def test_fixed_arrays_ride_in_the_batch():
    feed = data.fixed({"table": jnp.arange(3)})
    batch = jax.jit(feed.draw)(key(), feed.arrays, 0)
    chex.assert_trees_all_equal(batch.fixed, feed.arrays)
    assert batch.train is None and batch.valid is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: data.batches(d, 25), r"a batch of 25 from 24 examples \(data, train part\): choose a size of 1 to 24"),
        (lambda d: data.batches(d, 8, valid_size=30), "a batch of 30 from 24 examples"),
        (lambda d: data.batches(d, 0), "a batch of 0"),
        (lambda d: data.training(d, 49), "a batch of 49 from 48 examples"),
    ],
)
def test_batches_larger_than_the_data(make, message):
    with pytest.raises(data.DataError, match=message) as caught:
        make(toy())
    one_line(caught)


@pytest.mark.parametrize("steps", [{"weight_steps": 0, "arch_steps": 0}, {"look_ahead": -1}])
def test_feeds_refuse_bad_steps(steps):
    with pytest.raises(ValueError, match="a batch needs weight or architecture steps"):
        data.batches(toy(), 8, **steps)
    with pytest.raises(ValueError, match="at least one step"):
        data.training(toy(), 8, steps=0)


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
def test_the_batch_axis_is_sharded_on_a_mesh():
    feed = data.batches(toy(), 8, weight_steps=2, look_ahead=3, augment=data.flip())
    plain = jax.jit(feed.draw)(key(), feed.arrays, 0)
    with jax.set_mesh(sharding.mesh(batch=2)):
        batch = jax.jit(feed.draw)(key(), feed.arrays, 0)
    assert batch.train[0].sharding.shard_shape(batch.train[0].shape) == (2, 4, 4, 3, 2)
    assert batch.valid[1].sharding.shard_shape(batch.valid[1].shape) == (1, 4)
    assert batch.look[1].sharding.shard_shape(batch.look[1].shape) == (1, 3, 4)
    chex.assert_trees_all_equal(jax.device_get(plain), jax.device_get(batch))


# --- TensorFlow Datasets ----------------------------------------------------------------------------------------------

RNG = np.random.default_rng(2)
TFDS_X, TFDS_Y = RNG.integers(0, 256, (40, 6, 5, 3), np.uint8), np.arange(40) % 3


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """Four local sets, prepared as array_record without TensorFlow: Image features from PNG bytes, and Tensor features."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from PIL import Image

    def png(x):
        out = io.BytesIO()
        Image.fromarray(x).save(out, "PNG")
        return out.getvalue()

    tensor = tfds.features.Tensor(shape=(6, 5, 3), dtype=np.uint8)
    sets = {
        "jaxnas_png": (tfds.features.Image(shape=(6, 5, 3)), png, {"train": range(30), "test": range(30, 40)}),
        "jaxnas_tensor": (tensor, lambda x: x, {"train": range(40)}),
        "jaxnas_no_train": (tensor, lambda x: x, {"other": range(40)}),
        "jaxnas_sizes": (
            tfds.features.Image(),
            lambda x: png(x[: 2 + int(x[0, 0, 0]) % 4]),
            {"train": range(40)},
        ),
    }
    path = tmp_path_factory.mktemp("tfds")
    for name_, (feature, encode_, splits_) in sets.items():

        class Local(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            name, VERSION = name_, tfds.core.Version("1.0.0")
            image, encode, splits = feature, staticmethod(encode_), splits_

            def _info(self):
                features = {"image": self.image, "label": tfds.features.ClassLabel(num_classes=3)}
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
                )

            def _split_generators(self, dl_manager):
                return {name: self._generate_examples(rows) for name, rows in self.splits.items()}

            def _generate_examples(self, rows):
                for i in rows:
                    yield i, {"image": self.encode(TFDS_X[i]), "label": int(TFDS_Y[i])}

        Local(data_dir=path, file_format=tfds.core.FileFormat.ARRAY_RECORD).download_and_prepare()
    return path


def raw_pixels(monkeypatch, spec, data_dir):
    """What `load` hands to `assemble`: the raw arrays, train and test."""
    seen = {}

    def spy(key, parts, reading, **options):
        seen.update({"train": parts["train"], "test": parts.get("test")})
        return data.split(jax.random.clone(key), X, Y)

    monkeypatch.setattr("jaxnas.data.sources.assemble", spy)
    data.load(spec, key(), data_dir=data_dir)
    monkeypatch.undo()
    return seen


def same_examples(x, y, want_x, want_y):
    """Equal up to order: TensorFlow Datasets shuffles when it writes."""
    listed = lambda x, y: sorted((a.tobytes(), int(b)) for a, b in zip(x, y, strict=True))
    assert x.dtype == np.uint8 and x.shape == want_x.shape
    assert listed(x, y) == listed(want_x, want_y)


def test_tfds_is_read_pixel_by_pixel_without_tensorflow(tfds_dir, monkeypatch, capsys):
    seen = raw_pixels(monkeypatch, "tfds:jaxnas_png", tfds_dir)
    same_examples(*seen["train"], TFDS_X[:30], TFDS_Y[:30])
    same_examples(*seen["test"], TFDS_X[30:], TFDS_Y[30:])
    seen = raw_pixels(monkeypatch, "tfds:jaxnas_tensor", tfds_dir)
    same_examples(*seen["train"], TFDS_X, TFDS_Y)
    assert seen["test"] is None
    assert "tensorflow" not in sys.modules and capsys.readouterr().out == ""


def test_tfds_is_streamed_as_it_is_read(tfds_dir):
    """Its files stay encoded until a step wants them."""
    memory = data.load("tfds:jaxnas_png", key(), data_dir=tfds_dir)
    options = {"image": memory.image, "mean": memory.inputs.mean, "std": memory.inputs.std, "data_dir": tfds_dir}
    outside = data.streamed("tfds:jaxnas_png", key(), **options)
    assert (outside.target, outside.image) == (memory.target, memory.image)
    for part in ("train", "valid", "test"):
        [found] = outside.in_order(getattr(outside, part), 100)
        held = getattr(memory, part)
        chex.assert_trees_all_equal(found, held._replace(x=held.x[...]))


def test_tfds_datasets(tfds_dir):
    d = data.load("tfds:jaxnas_png", key(), data_dir=tfds_dir)
    assert [len(s.y) for s in (d.train, d.valid, d.test)] == [15, 15, 10]  # its own test set
    assert (d.classes, d.image, d.name) == (3, (6, 5, 3), "tfds:jaxnas_png")
    chex.assert_trees_all_equal(d, data.load("tfds:jaxnas_png", key(), data_dir=tfds_dir))
    assert len(data.load("tfds:jaxnas_png", key(), data_dir=tfds_dir, limit=8).train.y) == 4
    assert [len(s.y) for s in data_splits(data.load("tfds:jaxnas_tensor", key(), data_dir=tfds_dir))] == [16, 16, 8]


def data_splits(d):
    return d.train, d.valid, d.test


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tfds:jaxnas_no_train", "no train split, only other"),
        ("tfds:jaxnas_sizes", "images of different sizes"),
        ("tfds:jaxnas_nothing", "has no 'jaxnas_nothing'.*--data digits or --data file.npz"),
        ("tfds:", "--data digits or --data file.npz"),
        ("tfds:../x y", "--data digits or --data file.npz"),
    ],
)
def test_bad_tfds(tfds_dir, spec, message):
    start = time.monotonic()
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(spec, key(), data_dir=tfds_dir)
    one_line(caught)
    assert time.monotonic() - start < 20


def test_tfds_that_is_not_on_disk_without_a_network(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr("jaxnas.data.tfds._online", lambda: False)
    with pytest.raises(data.DataError, match=r"is not in .* no network: .*--data digits or --data file.npz") as caught:
        data.load("tfds:mnist", key(), data_dir=tmp_path)
    one_line(caught)
    assert capsys.readouterr() == ("", "")


def test_tfds_that_cannot_be_prepared(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    def fail(self):
        raise OSError("the disk is full\nand more")

    monkeypatch.setattr("jaxnas.data.tfds._online", lambda: True)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(data.DataError, match=r"could not be prepared \(the disk is full\)") as caught:
        data.load("tfds:mnist", key(), data_dir=tmp_path)
    one_line(caught)


def test_a_damaged_tfds_file(tfds_dir, tmp_path):
    import shutil

    shutil.copytree(tfds_dir / "jaxnas_tensor", tmp_path / "jaxnas_tensor")
    (file,) = tmp_path.rglob("*.array_record-*")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(data.DataError, match="jaxnas_tensor") as caught:
        data.load("tfds:jaxnas_tensor", key(), data_dir=tmp_path)
    one_line(caught)
