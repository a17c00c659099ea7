"""Pretext tasks: what they make of images, the heads of their nets, and a search that sees no label."""

import functools
import hashlib
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import jit, worst
from scipy import stats

from jaxnas import data, evaluate, nets, spaces, training, weight_sharing
from jaxnas.base import Batch
from jaxnas.data import pretext
from jaxnas.nets import probe
from jaxnas.nets._pretext_net import pretext_net
from jaxnas.spaces._space import is_shape

RAW = np.zeros(3), np.ones(3)  # mean and standard deviation of images that nothing was done to


def key(seed=0):
    return jax.random.key(seed)


def images(n=6, side=8, channels=3, seed=0):
    return np.random.default_rng(seed).random((n, side, side, channels)).astype(np.float32)


def tiny():
    """DARTS's cells with one node and two operations: the least to compile."""
    return spaces.darts(1, ("avg_pool_3x3", "nor_conv_1x1"))


def tasks(side=8):
    image = (side, side, 3)
    made = {"rotation": pretext.rotation(image), "jigsaw": pretext.jigsaw(image)}
    return {**made, "colourisation": pretext.colourisation(image, *RAW)}


def net_of(task, space=None):
    return pretext_net(task, functools.partial(nets.cell_net, space or tiny(), channels=2, cells=1))


slowly = lambda *names: [pytest.param(name, marks=pytest.mark.slow) for name in names]


# --- rotation -------------------------------------------------------------------------------------------------------


def test_u1_turning_back_returns_the_image_and_all_four_targets_are_as_many():
    x = images()
    turned, targets = pretext.rotation(x.shape[1:]).make(key(), x)
    assert turned.shape == (24, 8, 8, 3) and targets.dtype == jnp.int32
    np.testing.assert_array_equal(np.bincount(targets), [6] * 4)
    for i, (image, k) in enumerate(zip(np.asarray(turned), np.asarray(targets), strict=True)):
        np.testing.assert_array_equal(np.rot90(image, -k), x[i // 4])
    again, more = pretext.rotation(x.shape[1:]).make(key(), turned)
    home = (np.repeat(np.asarray(targets), 4) + np.asarray(more)) % 4 == 0  # turned by 360 degrees in all
    np.testing.assert_array_equal(np.asarray(again)[home], np.repeat(x, 4, 0))


# --- jigsaw ---------------------------------------------------------------------------------------------------------


def test_u2_the_inverse_order_restores_the_tiles_for_all_24():
    x = np.zeros((400, 8, 8, 4), np.float32)  # patch k has something in channel k only
    for k, (i, j) in enumerate(itertools.product(range(2), repeat=2)):
        x[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4, k] = images(400, 4, 1, k)[..., 0]
    table = pretext.orders(24, 4)
    tiles, targets = jit(pretext.jigsaw(x.shape[1:], grey=0.0).make)(key(), x)
    assert tiles.shape == (400, 4, 3, 3, 4) and set(np.asarray(targets)) == set(range(24)) and len(np.unique(table, axis=0)) == 24
    patch = np.abs(np.asarray(tiles)).sum((2, 3)).argmax(-1)  # [B, T]
    np.testing.assert_array_equal(patch, table[np.asarray(targets)])
    restored = np.take_along_axis(patch, np.argsort(table[np.asarray(targets)], 1), 1)
    np.testing.assert_array_equal(restored, np.broadcast_to(np.arange(4), patch.shape))


def test_tiles_lie_anywhere_in_their_patches_and_are_normalised_by_themselves():
    rows, columns = np.indices((8, 8)).astype(np.float32)
    x = np.broadcast_to((rows**2 + 3 * columns**2)[None, :, :, None], (300, 8, 8, 1)) * 5 + 7
    tiles, targets = map(np.asarray, jit(pretext.jigsaw((8, 8, 1)).make)(key(), x))
    np.testing.assert_allclose(tiles.mean((2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(tiles.std((2, 3)), 1, atol=1e-4)
    of = pretext.orders(24, 4)[targets]
    places = [(r, c) for r in (0, 1) for c in (0, 1)]  # a tile of 3 in a patch of 4
    seen = np.zeros((4, 4), int)
    for tile, k in zip(tiles.reshape(-1, 3, 3), of.reshape(-1), strict=True):
        own = [x[0, 4 * (k // 2) + r :, 4 * (k % 2) + c :, 0][:3, :3] for r, c in places]
        seen[k, np.argmin([np.abs((cut - cut.mean()) / cut.std() - tile).max() for cut in own])] += 1
        assert min(np.abs((cut - cut.mean()) / cut.std() - tile).max() for cut in own) < 1e-4
    assert stats.chisquare(seen.reshape(-1)).pvalue > 1e-3 and seen.sum() == 1200


def test_three_tenths_of_the_jigsaws_are_grey():
    tiles, _ = jit(pretext.jigsaw((8, 8, 3)).make)(key(), images(1000))
    grey = int((np.ptp(np.asarray(tiles), axis=-1).max((1, 2, 3)) < 1e-3).sum())
    low, high = stats.binom.interval(0.999, 1000, 0.3)
    assert low <= grey <= high
    x = images(1)
    one = jit(pretext.jigsaw((8, 8, 3), grey=1.0, tile=1.0, table=[[0, 1, 2, 3]]).make)(key(), x)[0][0, 0, :, :, 0]
    luma = (x[0, :4, :4] * [0.299, 0.587, 0.114]).sum(-1)  # ITU-R BT.601
    np.testing.assert_allclose(one, (luma - luma.mean()) / luma.std(), atol=1e-4)


def test_orders_are_far_apart():
    table = pretext.orders(30, 5)
    apart = (table[:, None] != table[None]).sum(-1)[np.triu_indices(30, 1)]
    assert (np.sort(table, 1) == np.arange(5)).all() and apart.min() >= 3 and apart.mean() > 3.9
    assert len(np.unique(pretext.orders(120, 5), axis=0)) == 120


@pytest.mark.slow
def test_a_thousand_orders_of_nine_tiles():
    table = pretext.orders(1000, 9)
    apart = (table[:, None] != table[None]).sum(-1)[np.triu_indices(1000, 1)]
    assert apart.min() == 5 and apart.mean() > 7.9
    tiles, _ = pretext.jigsaw((12, 12, 1), grid=3, table=table).make(key(), images(2, 12, 1))
    assert tiles.shape == (2, 9, 3, 3, 1)


# --- colourisation --------------------------------------------------------------------------------------------------


def lab(rgb):
    """CIE Lab in double precision, from the standard's own numbers: IEC 61966-2-1, D65."""
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = np.asarray([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    t = linear @ to_xyz.T / [0.95047, 1.0, 1.08883]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def test_u3_lab_of_known_colours():
    red, blue, grey = np.asarray(pretext.lab(jnp.asarray([[255, 0, 0], [0, 0, 255], [119, 119, 119]]) / 255))
    np.testing.assert_allclose(red, [53.24, 80.09, 67.20], atol=0.02)
    np.testing.assert_allclose(blue, [32.30, 79.19, -107.86], atol=0.02)
    np.testing.assert_allclose(grey[1:], 0, atol=0.02)
    rgb = np.concatenate([images(50).reshape(-1, 3), images(5).reshape(-1, 3) / 30])  # dark ones too
    np.testing.assert_allclose(pretext.lab(jnp.asarray(rgb)), lab(rgb.astype(np.float64)), atol=0.03)


def test_u3_the_bins_are_the_squares_that_hold_a_colour():
    levels, found = np.arange(256) / 255, set()
    side = np.stack(np.meshgrid(levels, levels), -1).reshape(-1, 2)
    for axis, end in itertools.product(range(3), (0, 1)):  # the surface of the cube has every hue
        ab = lab(np.insert(side, axis, end, axis=1))[:, 1:]
        found |= set(map(tuple, np.unique(10 * np.round(ab / 10), axis=0)))
    assert sorted(found) == [tuple(row) for row in pretext.BINS.tolist()] and len(found) == 261
    digest = hashlib.sha256(pretext.BINS.astype("<i2").tobytes()).hexdigest()
    assert digest == "54c3ac3ee51706f6d52e1cb9296eeb6fb7b6ebb35d1467bdf4f0d664ba65202a"


def test_u3_a_colour_goes_to_the_nearest_bin_and_a_centre_to_its_own():
    np.testing.assert_array_equal(pretext.bin_of(pretext.BINS), np.arange(261))
    ab = lab(np.random.default_rng(0).integers(0, 256, (3000, 3)) / 255)[:, 1:].astype(np.float32)
    distance = np.linalg.norm(ab[:, None] - pretext.BINS[None], axis=-1)
    np.testing.assert_array_equal(pretext.bin_of(ab), distance.argmin(1))


def test_colourisation_shows_lightness_and_asks_for_colour():
    x, mean, std = images(), np.asarray([0.5, 0.4, 0.3]), np.asarray([0.2, 0.3, 0.4])
    task = pretext.colourisation((8, 8, 3), mean, std, lightness=(0.6, 0.2))
    inputs, targets = jit(task.make)(key(), jnp.asarray((x - mean) / std, jnp.float32))
    assert (inputs.shape[1:], targets.shape[1:], targets.dtype) == (task.inputs, task.targets, jnp.int32)
    true = lab(x.astype(np.float64))
    np.testing.assert_allclose(inputs[..., 0], (true[..., 0] / 100 - 0.6) / 0.2, atol=1e-3)
    assert np.mean(np.asarray(targets) == np.asarray(pretext.bin_of(true[..., 1:].astype(np.float32)))) > 0.99


# --- nets -----------------------------------------------------------------------------------------------------------


def chance(task, n):
    """How many of n new nets, each with an example of its own, are right on it."""
    net = net_of(task)
    gates = jax.tree.map(lambda shape: jnp.full(shape, 0.5), net.space.gate_shapes, is_leaf=is_shape)

    def one(k, x, i):
        k_net, k_task = jax.random.split(k)
        inputs, targets = task.make(k_task, x[None])
        logits, _ = net.apply(net.init(k_net), inputs, gates, train=False)
        right = (jnp.argmax(logits, -1) == targets).reshape(-1)
        return right[i % right.size]

    return jit(jax.vmap(one))(jax.random.split(key(), n), images(n, 4), jnp.arange(n))


@pytest.mark.parametrize("name", slowly("rotation", "jigsaw", "colourisation"))
def test_u4_untrained_nets_are_right_by_chance(name):
    task, n = tasks(4)[name] if name != "jigsaw" else pretext.jigsaw((4, 4, 3), tile=1.0), 4000
    assert task.classes == {"rotation": 4, "jigsaw": 24, "colourisation": 261}[name]
    low, high = stats.binom.interval(0.99, n, 1 / task.classes)
    assert low <= int(np.sum(chance(task, n))) <= high


@pytest.mark.parametrize("name", ["jigsaw", "colourisation"])
def test_a_head_is_made_of_the_nets_own_classifier(name):
    task = tasks()[name]
    net, x = net_of(task), images(5)
    trunk = nets.cell_net(tiny(), image=task.inputs[-3:], classes=net.classes * (4 if name == "jigsaw" else 1), channels=2, cells=1)
    arch = net.space.sample(key(1))
    module, extract = net.specialize(arch)
    assert (net.image, net.classes) == (task.inputs, task.classes)

    @jit
    def outputs(key, x):
        k_net, k_task = jax.random.split(key)
        variables, gates, maps = net.init(k_net), net.space.gates(arch), []
        dense = variables["params"]["classifier"]
        dense["bias"] = jnp.linspace(-1, 1, len(dense["bias"]))  # 0 in a new net
        inputs, targets = task.make(k_task, x)
        logits, moved = net.apply(variables, inputs, gates, train=True)
        flat = inputs.reshape(-1, *task.inputs[-3:])
        with probe.probing(probe.Probe(last=maps.append)):
            plain, same = trunk.apply(variables, flat, gates, train=True)
        small, _ = module.apply(extract(variables), inputs, train=True, mutable=["batch_stats"])
        return variables, logits, moved, targets, plain, same, maps[0], small

    variables, logits, moved, targets, plain, same, maps, small = outputs(key(), x)
    assert logits.shape == (*targets.shape, task.classes)
    chex.assert_trees_all_equal_shapes(variables, jax.eval_shape(trunk.init, key()))
    assert worst(moved, same) < 1e-6 and worst(logits, small) < 1e-5
    if name == "jigsaw":  # linear in the concatenated features of the tiles
        features = maps.mean((1, 2)).T.reshape(5, -1)  # [B, T C]
        dense = variables["params"]["classifier"]
        kernel = dense["kernel"].reshape(-1, 4, 24).transpose(1, 0, 2).reshape(-1, 24)
        expected, seen = features @ kernel + dense["bias"].reshape(4, 24).sum(0)[None], logits
    else:  # the mean over pixels of what is linear in them
        expected, seen = plain, logits.mean((1, 2))
        corner = logits[:, :3, 0]  # of maps of half the size: m0, (3 m0 + m1) / 4, (m0 + 3 m1) / 4
        assert float(jnp.abs(corner[:, 1] - corner[:, 0]).max()) > 0.01
        assert worst(corner[:, 2] - corner[:, 1], 2 * (corner[:, 1] - corner[:, 0])) < 1e-5
    assert worst(seen, expected) < 1e-5


@pytest.mark.slow
def test_a_mobile_net_colours_too():
    layers = (spaces.MobileLayer(4, 4, 1, ("k3_e1", "k5_e1")),)
    space = spaces.mobile(spaces.MobileSpec(layers, stem=4, head=8, stem_stride=2))
    task, x = tasks()["colourisation"], images(3)
    build = functools.partial(nets.mobile_net, space)
    net, trunk, gates = pretext_net(task, build), build(image=(8, 8, 1), classes=261), space.gates(space.sample(key(1)))
    inputs, _ = task.make(key(), jnp.asarray(x))
    both = jit(lambda v, x: [n.apply(v, x, gates, train=False, path=True)[0] for n in (net, trunk)])
    logits, plain = both(net.init(key()), inputs)
    assert logits.shape == (3, 8, 8, 261) and worst(logits.mean((1, 2)), plain) < 1e-5


def test_a_net_without_maps_cannot_colour():
    blind = net_of(tasks()["rotation"])._replace(apply=lambda variables, x, gates, **more: (x, variables))
    net = pretext_net(tasks()["colourisation"], lambda **of: blind)
    with pytest.raises(ValueError, match="averages maps"):
        net.apply({}, images(1), None, train=False)


# --- searches -------------------------------------------------------------------------------------------------------


def searched(task, look_ahead=0):
    """arrays -> one step of DARTS."""
    strategy = weight_sharing.darts(net_of(task), order="first")
    dataset = data.split(key(), images(40), np.arange(40) % 2)
    feed = pretext.pretext_feed(data.batches(dataset, 4, look_ahead=look_ahead), task)

    def step(key, arrays):
        k_init, k_step, k_draw = jax.random.split(key, 3)
        state = strategy.init(k_init)
        return state.theta, *strategy.step(k_step, state, feed.draw(k_draw, arrays, 0))

    return jit(step), feed.arrays


@pytest.mark.parametrize("name", ["rotation", *slowly("jigsaw", "colourisation")])
def test_u6_darts_takes_a_step_without_labels(name):
    step, arrays = searched(tasks()[name])
    given = [tuple(part._replace(y=f(part.y)) for part in arrays) for f in (jnp.float32, lambda y: jnp.full(y.shape, jnp.nan))]
    (theta, state, info), unlabelled = (step(key(1), a) for a in given)
    chex.assert_trees_all_equal((theta, state, info), unlabelled)
    assert np.isfinite(info.loss) and worst(theta, state.theta) > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_every_batch_of_a_draw_is_made_by_a_key_of_its_own():
    task, x = tasks()["jigsaw"], np.broadcast_to(images(1)[None], (2, 5, 8, 8, 3))
    batch = Batch(train=(x, None), valid=(x[:1], None), look=(x[:, None], None), fixed=jnp.ones(2))
    made = jit(lambda key, batch: pretext.pretext_batch(key, batch, task))(key(), batch)
    assert [made.train[0].shape, made.valid[1].shape] == [(2, 5, 4, 3, 3, 3), (1, 5)]
    assert made.look[0].shape == (2, 1, 5, 4, 3, 3, 3) and made.look[1].shape == (2, 1, 5) and made.fixed.shape == (2,)
    parts = [*made.train[0], *made.valid[0], *made.look[0][:, 0]]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(parts, 2))
    assert pretext.pretext_batch(key(), Batch(fixed=1), task) == Batch(fixed=1)


BAD = {
    "must be square": lambda: pretext.rotation((8, 6, 3)),
    "a grid of 3": lambda: pretext.jigsaw((9, 9, 3), grid=3),
    "permutations of 4 tiles": lambda: pretext.jigsaw((8, 8, 3), table=[[0, 0, 1, 2]]),
    "enlarge": lambda: pretext.jigsaw((2, 2, 3)),
    "is a probability": lambda: pretext.jigsaw((8, 8, 3), grey=1.5),
    "choose 2 to 24": lambda: pretext.orders(25, 4),
    "red, green and blue": lambda: pretext.colourisation((8, 8, 1), [0.5], [0.2]),
}


@pytest.mark.parametrize("says", BAD)
def test_bad_tasks_say_what_to_do(says):
    with pytest.raises(ValueError, match=says):
        BAD[says]()


@pytest.mark.parametrize("name", slowly("rotation", "jigsaw", "colourisation"))
def test_a_cell_learns_each_task_on_shaded_images(name):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    ramp = np.linspace(0, 1, 8)[None, :, None] + 0.3 * np.linspace(0, 1, 8)[None, None] + 0.1 * rng.random((400, 8, 8))
    if name == "jigsaw":  # tiles of a ramp are all alike; light in the middle shades each patch its own way
        ramp = 1.5 - sum((np.indices((8, 8)) - 3.5) ** 2) / 18 + 0.1 * rng.random((400, 8, 8))
    ramp = ramp[..., None] / 1.5
    colour = np.asarray([[1.0, 0.3, 0.3], [0.3, 0.3, 1.0]])[y][:, None, None]  # of those lighter at the top, and at the bottom
    x = np.where(y[:, None, None, None] == 0, ramp, ramp[:, ::-1] if name == "colourisation" else ramp) * colour
    arrays = data.split(key(), x.astype(np.float32), y)
    std = x.std((0, 1, 2)) / np.concatenate([part.x for part in (arrays.train, arrays.valid, arrays.test)]).std((0, 1, 2))
    task = {**tasks(), "colourisation": pretext.colourisation((8, 8, 3), x.mean((0, 1, 2)), std)}[name]
    space = spaces.nasbench201()
    net = pretext_net(task, functools.partial(nets.cell_net, space, channels=4, cells=1))
    feed = pretext.pretext_feed(data.batches(arrays, 32, weight_steps=200, arch_steps=4), task)
    evaluator = evaluate.train_from_scratch(net, training.sgd(optax.cosine_decay_schedule(0.1, 200)))

    def whole(key, held, archs):
        k_data, k_weights = jax.random.split(key)
        return evaluator.step(k_weights, (), archs, feed.draw(k_data, held, 0))[1]["accuracy"]

    conv = jax.vmap(space.unflat)(jnp.full((1, 6), 3, jnp.int32))
    [accuracy] = jit(whole)(key(2), feed.arrays, conv)
    assert accuracy > {"rotation": 0.95, "jigsaw": 0.5, "colourisation": 0.3}[name]
