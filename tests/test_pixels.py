"""Images that stay bytes: what is drawn, scored and predicted is what normalised floats would give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import data, training
from jaxnas.data.pixels import Pixels, normalised, plain
from jaxnas.driver.fingerprint import of_arrays

key = jax.random.key


def images(channels=3, layout="NHWC"):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 8, 6, channels), dtype=np.uint8)
    x[..., -1] = 7  # a constant channel
    x = {"NHWC": x, "NCHW": x.transpose(0, 3, 1, 2), "NHW": x[..., 0]}[layout]
    return x, np.arange(60) % 3


def by_hand(x, train):
    """float64 (x / 255 - mean) / std of the train part, a constant channel only shifted; x [N, H, W, C]."""
    x = x / 255
    mean, std = x[train].mean((0, 1, 2)), x[train].std((0, 1, 2))
    return (x - mean) / np.where(std > 1e-9, std, 1.0)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_bytes_in_memory_are_normalised_when_they_are_looked_at(layout):
    raw, _ = images(layout=layout)
    dataset = data.split(key(0), raw, np.arange(60), kind="numbers", layout=layout)
    assert all(
        isinstance(part.x, Pixels) and part.x.raw.dtype == jnp.uint8 for part in (dataset.train, dataset.valid, dataset.test)
    )
    target = dataset.target
    at = {name: np.rint(np.asarray(getattr(dataset, name).y)[:, 0] * target.std[0] + target.mean[0]).astype(int) for name in PARTS}
    canonical = {"NHWC": raw, "NCHW": raw.transpose(0, *range(2, raw.ndim), 1), "NHW": raw[..., None]}[layout]
    expected = by_hand(canonical, at["train"])
    for name in PARTS:
        x = getattr(dataset, name).x
        np.testing.assert_allclose(np.asarray(x), expected[at[name]], atol=2e-6)
        np.testing.assert_array_equal(x[2:5], np.asarray(x)[2:5])
        assert (x.shape, x.ndim, x.dtype, len(x)) == (expected[at[name]].shape, 4, np.float32, len(at[name]))


PARTS = ("train", "valid", "test")


def test_feeds_hold_bytes_and_draw_the_floats():
    raw, y = images()
    dataset = data.split(key(0), raw, y)
    floats = jax.tree.map(lambda part: part._replace(x=part.x[...]), dataset, is_leaf=lambda a: isinstance(a, data.Split))
    feeds = {
        "batches": lambda d: data.batches(d, 5, weight_steps=2, look_ahead=1, augment=data.flip()),
        "training": lambda d: data.training(d, 7),
        "epochs": lambda d: data.epochs(data.batches(d, 4), 3),
        "calibration": lambda d: data.calibration(d, 4, 3),
    }
    for make in feeds.values():
        bytes_, plain_ = make(dataset), make(floats)
        assert sum(a.nbytes for a in jax.tree.leaves(bytes_.arrays)) < 0.4 * sum(a.nbytes for a in jax.tree.leaves(plain_.arrays))
        drawn = [jax.jit(feed.draw)(key(1), feed.arrays, jnp.zeros((), jnp.int32)) for feed in (bytes_, plain_)]
        jax.tree.map(np.testing.assert_array_equal, *drawn)
        assert jax.tree.leaves(drawn[0])


def test_scores_and_outputs_of_bytes():
    """More examples than a chunk, the last chunk not full."""
    raw, y = images()
    dataset = data.split(key(0), raw, y)
    w = jax.random.normal(key(1), (8 * 6 * 3, 3))
    logits_of = lambda x: x.reshape(len(x), -1) @ w
    x, y = np.asarray(dataset.train.x), np.asarray(dataset.train.y)
    whole = x.reshape(len(x), -1) @ np.asarray(w)
    np.testing.assert_allclose(training.outputs(logits_of, dataset.train.x, 7), whole, rtol=1e-4, atol=1e-4)
    assert float(training.accuracy(logits_of, dataset.train, 7)) == pytest.approx((whole.argmax(-1) == y).mean())


def test_a_platform_whose_lookups_are_slow_computes():
    x, mean, std = jnp.arange(256, dtype=jnp.uint8).reshape(1, 128, 2), (0.1, 0.5), (0.3, 1.0)
    lowered = jax.jit(lambda x: normalised(x, mean, std)).trace(x).lower(lowering_platforms=("tpu",)).as_text()
    assert "gather" not in lowered and "divide" in lowered
    here = jax.jit(lambda x: normalised(x, mean, std)).lower(x).as_text()
    assert "gather" in here
    np.testing.assert_allclose(normalised(x, mean, std), (np.asarray(x) / 255 - np.float32(mean)) / np.float32(std), atol=1e-6)


def test_one_byte_tells_data_apart():
    raw, y = images()
    other = raw.copy()
    other[3, 0, 0, 0] ^= 1
    a, b = (data.split(key(0), x, y) for x in (raw, other))
    assert of_arrays((a.train, a.valid, a.test)) != of_arrays((b.train, b.valid, b.test))


def test_arrays_are_as_they_are():
    x = jnp.ones((2, 3))
    assert plain(x) is x
    with pytest.raises(ValueError, match="leave copy out"):
        np.asarray(Pixels(jnp.zeros((1, 1, 1, 1), jnp.uint8), (0.0,), (1.0,)), copy=False)
