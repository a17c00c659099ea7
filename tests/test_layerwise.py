"""The layer-wise space and its networks, chains of layers, and recurrent cells that are trees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import jit, worst

from jaxnas.base import Batch
from jaxnas.evaluate.population import train_from_scratch
from jaxnas.nets._chain_net import chain_net
from jaxnas.nets._layer_net import layer_net
from jaxnas.nets.base import count_parameters
from jaxnas.nets.recurrent_cell import TreeCell
from jaxnas.policies._controller import controller
from jaxnas.spaces._chain import chain
from jaxnas.spaces._layerwise import anchors, kind, layerwise
from jaxnas.spaces._metaqnn import Layers, metaqnn
from jaxnas.spaces._recurrent import recurrent
from jaxnas.spaces._space import space

SMALL = dict(heights=(1, 3), widths=(3, 1, 5), filters=(2, 3))
IMAGE, CLASSES = (5, 6, 2), 3


def relu(x):
    return np.maximum(x, 0)


def drawn(seed, shapes):
    """Variables of these shapes, none of them as they start."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), shapes)


def double(tree):
    return jax.tree.map(lambda a: a.astype(np.float64), tree)


# The space


def test_size_and_token_order():
    s = layerwise()
    assert s.size == 64**6 * 2**15
    assert layerwise(15, strides=(1, 2, 3)).size == (64 * 9) ** 15 * 2**105
    first, second, third = [4, 4, 4], [4, 4, 4, 2], [4, 4, 4, 2, 2]
    assert s.arity[:12].tolist() == first + second + third
    assert kind(s)[:12].tolist() == [0, 1, 2, 0, 1, 2, 5, 0, 1, 2, 5, 5]
    assert anchors(s)[:12].tolist() == [-1] * 6 + [2] + [-1] * 3 + [2, 5]
    t = layerwise(3, strides=(1, 2))
    assert kind(t).tolist() == [*range(5), *range(5), 5, *range(5), 5, 5]
    assert anchors(t).tolist() == [-1] * 10 + [4] + [-1] * 5 + [4, 9]


@pytest.mark.parametrize("strides", [None, (1, 2)])
def test_text_both_ways(strides):
    s = layerwise(4, **SMALL, strides=strides)
    archs = jit(jax.vmap(s.sample))(jax.random.split(jax.random.key(0), 50))
    flat = jit(jax.vmap(s.flat))
    np.testing.assert_array_equal(flat(jit(jax.vmap(lambda arch: s.derive(s.gates(arch))))(archs)), v := flat(archs))
    archs, texts = jax.tree.map(np.asarray, archs), set()
    for i in range(50):
        arch = jax.tree.map(lambda a, i=i: a[i], archs)
        again = s.from_text(s.to_text(arch))
        assert jax.tree.structure(again) == jax.tree.structure(arch)
        np.testing.assert_array_equal(np.concatenate([np.ravel(a) for a in jax.tree.leaves(again)]), v[i])
        texts.add(s.to_text(arch))
    assert len(texts) == 50


def test_text_says_what_is_built():
    text = "3x5:24 7x1:36<0 1x7:48 5x5:64<0,2"
    s = layerwise(4)
    layers = s.choice(s.from_text(text))
    assert [layer.kernel for layer in layers] == [(3, 5), (7, 1), (1, 7), (5, 5)]
    assert [layer.filters for layer in layers] == [24, 36, 48, 64]
    assert [layer.inputs for layer in layers] == [(), (0,), (), (0, 2)]
    assert all(layer.stride == (1, 1) for layer in layers)
    assert s.to_text(s.from_text(text)) == text
    strided = layerwise(2, strides=(1, 2, 3))
    assert [layer.stride for layer in strided.choice(strided.from_text("1x1:24/2x3 1x1:24/1x2<0"))] == [(2, 3), (1, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3x3:24", "has 1 layers"),
        ("3x3:24 3x3:24/1x1", "is not a layer"),
        ("3x3:24 3x3:24<", "is not a layer"),
        ("3x3:24 3x3:24<1", "earlier layers only"),
        ("3x3:24 9x3:24", "its height must be one of 1, 3, 5, 7"),
        ("3x3:24 3x3:25", "its filters must be one of"),
    ],
)
def test_a_bad_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        layerwise(2).from_text(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(layers=0), "`layers` of layerwise must be a positive integer; got 0"),
        (dict(heights=()), "`heights` needs positive"),
        (dict(filters=(4, 4)), "each once"),
        (dict(strides=()), "`strides` needs positive"),
        (dict(widths=(1, 2)), "need a centre"),
    ],
)
def test_a_bad_space_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        layerwise(**arguments)


def test_the_controller_emits_the_space_and_its_bits():
    s = layerwise(3, heights=(1,), widths=(1,), filters=(1, 2))
    policy = controller(s, 4, 1, scale=2.0, kind=kind(s), anchors=anchors(s))
    theta = policy.init(jax.random.key(0))
    raw = np.stack(np.unravel_index(np.arange(64), s.arity), -1)
    logp, _ = jit(jax.vmap(lambda v: policy.log_prob(theta, s.unflat(v))))(jnp.asarray(raw, jnp.int32))
    assert abs(np.sum(np.exp(np.sum(logp, -1))) - 1) < 1e-5  # all of its networks and nothing else


# Its networks


@functools.cache
def nets(strides):
    return layer_net(layerwise(3, **SMALL, strides=strides), image=IMAGE, classes=CLASSES)


@functools.cache
def program(strides):
    """(variables, x, arch) -> logits, evaluated logits, gradients, new statistics, `used`: one program for every architecture."""
    net = nets(strides)

    def run(variables, x, arch):
        gates = net.space.gates(arch)

        def loss(params):
            logits, new = net.apply({**variables, "params": params}, x, gates, train=True)
            return jnp.sum(jnp.sin(logits)), (logits, new["batch_stats"])

        grads, (logits, stats) = jax.grad(loss, has_aux=True)(variables["params"])
        return logits, net.apply(variables, x, gates, train=False)[0], grads, stats, net.used(variables, gates)

    return jit(run)


TEXTS = {
    None: ["3x1:2 1x5:3<0 3x3:2<0,1", "1x3:3 3x5:2 3x1:3<0", "3x5:3 1x1:2 3x3:2"],
    (1, 2, 3): ["3x1:2/2x1 1x5:3/1x3<0 3x3:2/1x1<0,1", "1x3:3/1x2 3x5:2/3x2<0 3x1:3/2x2<0"],
}


@pytest.mark.parametrize(("strides", "text"), [(strides, text) for strides, texts in TEXTS.items() for text in texts])
def test_two_ways_agree(strides, text):
    """Any architecture in one program, and that one alone: outputs, gradients and new batch statistics."""
    net = nets(strides)
    arch = net.space.from_text(text)
    module, extract = net.specialize(arch)
    with jax.enable_x64(True):
        variables = double(drawn(1, jax.eval_shape(net.init, jax.random.key(0))))
        variables["batch_stats"] = jax.tree.map(abs, variables["batch_stats"])
        x = np.random.default_rng(2).normal(size=(4, *IMAGE))
        logits, evaluated, grads, stats, used = jax.tree.map(np.asarray, program(strides)(variables, x, arch))
        small = extract(variables)
        assert jax.tree.map(jnp.shape, small) == jax.tree.map(
            jnp.shape, jax.eval_shape(functools.partial(module.init, train=True), jax.random.key(0), x)
        )

        def plain(params):
            logits, new = module.apply({**small, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(logits)), (logits, new["batch_stats"])

        wanted = jit(lambda params: (jax.grad(plain, has_aux=True)(params), module.apply(small, x)))(small["params"])
        (small_grads, (small_logits, small_stats)), small_evaluated = wanted
        kept = extract({"params": grads, "batch_stats": stats})
        assert worst((logits, evaluated), (small_logits, small_evaluated)) < 1e-9
        assert worst(kept["params"], small_grads) < 1e-9
        assert worst(kept["batch_stats"], small_stats) < 1e-9
        unused = jax.tree.map(lambda g, m: np.where(m > 0, 0, g), grads, used["params"])
        assert not any(g.any() for g in jax.tree.leaves(unused))
        shares = jax.tree.map(lambda m, v: int(np.sum(np.broadcast_to(m, v.shape))), used, variables)
        sizes = jax.tree.map(lambda s: int(np.size(s)), small)
        assert sum(jax.tree.leaves(shares)) == sum(jax.tree.leaves(sizes))  # `used` marks what `extract` takes, and no more


FIGURE_7 = (  # of the paper, without strides: the network of 15 layers
    "3x3:36 3x3:48<0 3x3:36<0,1 5x5:36<0,1,2 3x7:48<2,3 7x7:48<1,2,3,4 7x7:48<1,2,3,4,5 7x3:36<0,5,6 7x1:36<0,4,5,7 "
    "7x7:36<0,2,3,4,5,6,7,8 5x7:36<0,1,4,5,6,7,8,9 7x7:48<0,1,2,3,5,10 7x5:48<0,2,5,6,7,8,9,10,11 7x5:48<2,6,11,12 "
    "7x5:48<5,6,10,11,12,13"
)


def test_published_parameter_count():
    net = layer_net(layerwise(15), image=(32, 32, 3), classes=10)
    module, _ = net.specialize(net.space.from_text(FIGURE_7))
    assert round(count_parameters(module, (32, 32, 3)) / 1e6, 1) == 4.2


def test_parameter_count_by_hand():
    net = layer_net(layerwise(3), image=(32, 32, 3), classes=10)
    arch = net.space.from_text("3x3:24 5x1:36<0 1x7:48<0,1")
    kernels = 3 * 3 * 3 * 24 + 5 * 1 * 24 * 36 + 1 * 7 * (24 + 36) * 48
    count = kernels + 2 * (24 + 36 + 48) + (48 + 1) * 10  # with the norms; only the last layer is unread
    assert count_parameters(net.specialize(arch)[0], (32, 32, 3)) == count == 25_834
    everything = jax.eval_shape(net.init, jax.random.key(0))
    used = net.used(everything, net.space.gates(arch))["params"]
    assert (
        sum(np.broadcast_to(m, v.shape).sum() for m, v in zip(*map(jax.tree.leaves, (used, everything["params"])), strict=True))
        == count
    )


def test_who_reads_the_image_and_whom_the_classifier_reads():
    """The image feeds every row without inputs; the classifier reads every column that nobody reads."""
    net = nets(None)
    archs = jit(jax.vmap(net.space.sample))(jax.random.split(jax.random.key(0), 40))
    variables = jit(net.init)(jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (3, *IMAGE))

    def touched(arch):
        loss = lambda params: jnp.sum(jnp.sin(net.apply({**variables, "params": params}, x, net.space.gates(arch), train=False)[0]))
        moved = jax.tree.map(lambda g: g != 0, jax.grad(loss)(variables["params"]))
        image = jnp.stack([jnp.any(moved[f"conv{i}"]["kernel"][:, :2]) for i in range(3)])
        return image, jnp.any(moved["classifier"]["kernel"].reshape(3, -1), -1)

    image, last = jit(jax.vmap(touched))(archs)
    skip = np.zeros((40, 3, 3), bool)
    for i in range(1, 3):
        skip[:, i, :i] = archs[i].skip
    np.testing.assert_array_equal(image, ~skip.any(2))
    np.testing.assert_array_equal(last, ~skip.any(1))


def test_weights_start_as_those_of_the_architecture_alone():
    """Second moments: 2 / inputs in a convolution (He), 1 / inputs in the classifier (LeCun)."""
    net = layer_net(layerwise(3, filters=(4, 9)), image=(6, 6, 3), classes=10)
    arch = net.space.from_text("3x5:9 1x3:4<0 3x3:4<0,1")
    _, extract = net.specialize(arch)
    run = jax.vmap(lambda key: extract(net.init(key, net.space.gates(arch)))["params"])
    params = jit(run)(jax.random.split(jax.random.key(0), 100))
    for name, wanted in (("conv0", 2 / (3 * 15)), ("conv1", 2 / (9 * 3)), ("conv2", 2 / (13 * 9)), ("classifier", 1 / 4)):
        square = np.square(params[name]["kernel"])
        assert abs(np.mean(square) / wanted - 1) < 5 * np.sqrt(2 / square.size)
    assert np.all(params["norm0"]["scale"] == 1)


def test_a_layer_ends_in_its_norm():
    """Then what the classifier averages is 0 in the mean over a batch, and the logits are its bias; a relu would lift them."""
    net = nets(None)
    module, _ = net.specialize(net.space.from_text(TEXTS[None][0]))
    x = jax.random.normal(jax.random.key(0), (8, *IMAGE))
    run = lambda key: module.init_with_output(key, x, train=True)[0]
    logits = jit(run)(jax.random.key(1))
    assert float(jnp.max(jnp.abs(logits))) > 1e-2
    assert float(jnp.max(jnp.abs(jnp.mean(logits, 0)))) < 1e-6


def test_a_population_trains():
    net = layer_net(layerwise(2, (1, 3), (1, 3), (2, 4)), image=(4, 4, 1), classes=2)
    archs = jax.vmap(net.space.sample)(jax.random.split(jax.random.key(0), 3))
    y = jax.random.bernoulli(jax.random.key(1), 0.5, (30, 16)).astype(jnp.int32)
    x = y[..., None, None, None] + 0.3 * jax.random.normal(jax.random.key(2), (30, 16, 4, 4, 1))
    evaluator = train_from_scratch(net, optax.sgd(0.1, momentum=0.9, nesterov=True), "vmap")
    step = jit(lambda key: evaluator.step(key, (), archs, Batch(train=(x, y), valid=(x[:4], y[:4])))[1])
    assert (step(jax.random.key(3))["accuracy"] > 0.9).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layer_net(space([2, 3]), image=(4, 4, 1), classes=2), "no description of layers"),
        (lambda: layer_net(layerwise(2), image=(4, 4, 1), classes=0), "`classes` of layer_net must be a positive integer; got 0"),
    ],
)
def test_a_bad_net_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Chains of layers


@functools.cache
def mdp():
    return metaqnn(layers=8)


def module_of(m, arch, image=(32, 32, 3), classes=10):
    """The network of one chain."""
    return chain_net(chain(m), image=image, classes=classes).specialize(arch)[0]


def spell(m, *layers):
    """The walk that spells these layers, and no steps of it left."""
    actions = [m.meaning.index(layer) for layer in layers]
    return Layers(np.asarray(actions + [0] * 30)[:20])


def walks(m, count):
    """(layers, states) of random legal walks, each state the one that its layer is added to."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        state, layers, states = 0, [], []
        while not m.terminal[state]:
            action = rng.choice(np.flatnonzero(m.legal[state]))
            layers, states, state = [*layers, m.meaning[action]], [*states, state], m.next[state, action]
        yield layers[:-1], states


def test_shapes_of_chains_are_the_ones_that_the_walk_assumes():
    m, image = mdp(), (32, 32, 3)
    kernels = {name: [a for a in m.meaning if a[0] == name] for name in ("conv", "pool", "dense")}
    seen = set()
    for layers, states in walks(m, 50):
        net = module_of(m, spell(m, *layers))
        assert net.layers == tuple(layers)
        x = jax.ShapeDtypeStruct((2, *image), jnp.float32)
        run = functools.partial(net.init, mutable=True, capture_intermediates=True)
        made = jax.eval_shape(run, jax.random.key(0), x)["intermediates"]
        size = 32
        for i, (name, *numbers) in enumerate(layers):
            legal = {m.meaning[a] for a in np.flatnonzero(m.legal[states[i]])}
            bucket = 8 if size >= 8 else 4 if size >= 4 else 1
            if i and layers[i - 1][0] == "conv":  # what is legal tells the size that the walk believes in
                assert all((a in legal) == (a[2] < bucket) for a in kernels["conv"])
                assert all((a in legal) == (a[1] < bucket) for a in kernels["pool"])
                assert all((a in legal) == (bucket <= 4) for a in kernels["dense"])
            if name == "pool":
                size = -(-(size - numbers[0] + 1) // numbers[1])
            if name in ("conv", "pool"):
                [shape] = [a.shape for a in made[f"layer{i}"]["__call__"]]
                assert shape[1:] == (size, size, 2)
                assert name == "pool" or shape[0] == numbers[0]
            elif name == "dense":
                assert made[f"layer{i}"]["__call__"][0].shape == (2, *numbers)
            seen.add(name)
        assert made["__call__"][0].shape == (2, 10)
    assert seen == {"conv", "pool", "dense", "average"}


def conv(n, k):
    return ("conv", n, k)


BEST = (conv(512, 5), conv(256, 3), conv(256, 5), conv(256, 3), ("pool", 5, 3), conv(512, 3), conv(512, 5), ("pool", 2, 2))
SECOND = (conv(128, 1), conv(512, 3), conv(64, 1), conv(128, 3), ("pool", 2, 2), conv(256, 3), ("pool", 2, 2), conv(512, 3))


@pytest.mark.parametrize(("layers", "millions"), [(BEST, 11.18), ((*SECOND, ("pool", 3, 2)), 2.17)])
def test_published_counts_of_chains(layers, millions):
    """Those of the paper's two best networks leave the classifier out."""
    m = metaqnn(layers=9)
    net = module_of(m, spell(m, *layers))
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))["params"]
    del shapes["classifier"]
    assert round(count_parameters({"params": shapes}) / 1e6, 2) == millions


def test_parameter_count_of_a_chain_by_hand():
    m = mdp()
    net = module_of(m, spell(m, conv(64, 3), ("pool", 2, 2), conv(128, 5), ("pool", 5, 3), ("dense", 256)))
    body = 3 * 3 * 3 * 64 + 64 + 5 * 5 * 64 * 128 + 128 + 4 * 4 * 128 * 256 + 256  # maps of 32, 16 and 4
    assert count_parameters(net, (32, 32, 3)) == body + 256 * 10 + 10 == 733_834
    net = module_of(m, spell(m, conv(64, 1), ("average",)))
    assert count_parameters(net, (32, 32, 3)) == 3 * 64 + 64 + 64 * 10 + 10


def test_chains_against_numpy():
    m = metaqnn(8, 4, (2,), (3,), ((3, 2),), (4,))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    padded = np.pad(x[..., 0], ((0, 0), (1, 1), (1, 1)))

    def conv_relu(p):
        window = lambda i, j: np.einsum("bhw,dhw->bd", padded[:, i : i + 3, j : j + 3], p["kernel"][:, 0]) + p["bias"]
        return relu(np.stack([np.stack([window(i, j) for j in range(8)], 1) for i in range(8)], 1))  # [B, H, W, D]

    def pool_dense(p):
        y = conv_relu(p["layer0"])
        y = np.stack([np.stack([y[:, i : i + 3, j : j + 3].max((1, 2)) for j in (0, 2, 4)], 1) for i in (0, 2, 4)], 1)
        return relu(affine(p["layer2"], y.transpose(0, 3, 1, 2).reshape(2, -1)))  # channels first

    affine = lambda p, y: y @ p["kernel"] + p["bias"]
    average = lambda p: conv_relu(p["layer0"]).mean((1, 2))
    for layers, body in (([("pool", 3, 2), ("dense", 4)], pool_dense), ([("average",)], average)):
        net = module_of(m, spell(m, conv(2, 3), *layers), (8, 8, 1), classes=3)
        variables = drawn(3, jax.eval_shape(net.init, jax.random.key(0), x))
        p = variables["params"]
        np.testing.assert_allclose(jit(net.apply)(variables, x), affine(p["classifier"], body(p)), rtol=1e-4, atol=1e-5)


def test_chains_drop_more_the_deeper_they_are():
    """Two dropouts behind layers 2 and 4, of 1/4 and 2/4."""
    m = metaqnn(8, 4, (512,), (1,), (), ())
    net = module_of(m, spell(m, *[conv(512, 1)] * 4), (8, 8, 512), classes=2)
    ones = lambda path, a: jnp.full(a.shape, {"kernel": 1 / 512, "bias": 0.0}[path[-1].key])  # every layer averages its inputs
    x = jnp.full((1, 8, 8, 512), 1.0)
    variables = jax.tree_util.tree_map_with_path(ones, jax.eval_shape(net.init, jax.random.key(0), x))
    run = functools.partial(net.apply, train=True, rngs={"dropout": jax.random.key(1)}, mutable=True, capture_intermediates=True)
    made = jit(run)(variables, x)[1]["intermediates"]
    for name, p in (("Dropout_0", 0.25), ("Dropout_1", 0.5)):
        y = made[name]["__call__"][0]
        assert abs(float(jnp.mean(y == 0)) - p) < 4 * np.sqrt(p * (1 - p) / y.size)
        kept = y[y > 0]
        assert abs(float(jnp.mean(kept)) * (1 - p) - 1) < 0.01  # survivors are scaled
    assert set(made) == {"Dropout_0", "Dropout_1", "classifier", "layer0", "layer1", "layer2", "layer3", "__call__"}
    np.testing.assert_allclose(jit(net.apply)(variables, x), 64.0, rtol=1e-4)  # none outside training: 8 x 8 x 512 times 1 / 512


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: chain_net(space([2, 3]), image=(8, 8, 1), classes=2), "give it a space `chain"),
        (lambda: module_of(mdp(), spell(mdp(), ("pool", 2, 2))), "not allowed where"),
        (lambda: chain_net(chain(metaqnn(8, 2, (4,), (2,))), image=(8, 8, 1), classes=2), "odd kernels"),
        (lambda: chain_net(chain(mdp()), image=(32, 32, 3), classes=0), "`classes` of chain_net must be a positive integer; got 0"),
        (lambda: chain_net(chain(mdp()), image=(28, 28, 1), classes=10), "images of side 32"),
    ],
)
def test_a_bad_chain_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Recurrent cells


def test_sizes_of_the_recurrent_space():
    """The paper says about 6e16 for base 8: every node and the injection choose both, and two indices one of 15 nodes each."""
    assert recurrent().size == 8**16 * 15**2
    assert abs(recurrent().size / 6e16 - 1) < 0.06
    s = recurrent(2)
    assert s.size == 8**4 * 3**2
    assert s.arity.tolist() == [2, 4] * 4 + [3, 3]
    tokens = s.flat(s.from_text("FIGURE_5"))
    assert tokens.tolist() == [0, 1, 1, 3, 1, 2, 0, 3, 1, 0]  # add tanh, elem_mult relu, elem_mult sigmoid, add relu, 1, 0


def test_text_of_recurrent_cells_both_ways():
    s = recurrent(3)
    archs = jit(jax.vmap(s.sample))(jax.random.split(jax.random.key(0), 20))
    v = jit(jax.vmap(s.flat))(archs)
    np.testing.assert_array_equal(jit(jax.vmap(lambda arch: s.flat(s.derive(s.gates(arch)))))(archs), v)
    archs = jax.tree.map(np.asarray, archs)
    for i in range(20):
        text = s.to_text(jax.tree.map(lambda a, i=i: a[i], archs))
        again = s.from_text(text)
        assert [int(a) for a in jax.tree.leaves(again)] == v[i].tolist()
        assert s.to_text(again) == text


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def figure_5(a, b, c):
    """a, b: what the leaves make of x and of h."""
    before = a[1] * b[1]
    return before, sigmoid(relu(np.tanh(a[0] + b[0]) + c) * relu(before))


def nascell(a, b, c):
    s = a + b
    kept = np.tanh(np.tanh(sigmoid(s[0]) * relu(s[1])) + c)
    new = kept * np.tanh(sigmoid(s[2]) + relu(a[3] * b[3]))
    gate = np.tanh(np.tanh(np.tanh(s[4]) * sigmoid(s[5])) + sigmoid(np.tanh(s[6]) + sigmoid(s[7])))
    return new, np.tanh(new * gate)


def lstm(a, b, c):
    s = a + b
    new = sigmoid(s[0] + s[1]) * c + sigmoid(s[2]) * np.tanh(s[3])
    return new, sigmoid(s[4:].sum(0)) * np.tanh(new)


@pytest.mark.parametrize(("base", "cells"), [(2, {"FIGURE_5": figure_5}), (8, {"NASCELL": nascell, "LSTM": lstm})])
def test_published_cells_against_numpy(base, cells):
    """Cells of one base are one program; three steps, so that what is written is read."""
    s = recurrent(base)
    cell = TreeCell(s.spec, 5)
    k_net, k_x, k_start = jax.random.split(jax.random.key(0), 3)
    with jax.enable_x64(True):
        xs = jax.random.normal(k_x, (3, 4, 2), jnp.float64)
        start = tuple(jax.random.normal(k_start, (2, 4, 5), jnp.float64))
        archs = jax.tree.map(lambda *a: jnp.stack(a), *map(s.from_text, cells))
        gates = double(jit(jax.vmap(s.gates))(archs))
        variables = jit(cell.init)(k_net, start, xs[0], jax.tree.map(lambda g: g[0], gates))
        roll = lambda gates: jax.lax.scan(lambda state, x: (cell.apply(variables, state, x, gates),) * 2, start, xs)[1]
        cs, hs = jit(jax.vmap(roll))(gates)
    w, u = (np.asarray(variables["params"][name]) for name in ("kernel", "recurrent_kernel"))
    assert w.shape == (base, 2, 5) and u.shape == (base, 5, 5)
    for n, step in enumerate(cells.values()):
        c, h = map(np.asarray, start)
        for t in range(3):
            c, h = step(np.asarray(xs[t]) @ w, h @ u, c)
            np.testing.assert_allclose(cs[n, t], c, atol=1e-12)
            np.testing.assert_allclose(hs[n, t], h, atol=1e-12)


def test_trees_side_by_side_are_the_trees_alone():
    s = recurrent(3)
    cell = TreeCell(s.spec, 3)
    archs = jit(jax.vmap(s.sample))(jax.random.split(jax.random.key(0), 6))
    xs = jax.random.normal(jax.random.key(1), (4, 2))
    start = (jnp.zeros(3), jnp.zeros(3))

    def run(arch):
        gates = s.gates(arch)
        variables = cell.init(jax.random.key(2), start, xs[0], gates)
        return jax.lax.scan(lambda state, x: (cell.apply(variables, state, x, gates), None), start, xs)[0]

    together, alone = jit(jax.vmap(run))(archs), jit(run)
    for i in range(6):
        assert worst(jax.tree.map(lambda a, i=i: a[i], together), alone(jax.tree.map(lambda a, i=i: a[i], archs))) < 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: recurrent(1), "at least two leaves"),
        (lambda: recurrent(combine=("add", "add")), "each once"),
        (lambda: recurrent(activations=("gelu",)), "choose from identity"),
        (lambda: recurrent(2).from_text("LSTM"), "has 34 tokens; a cell of base 2 has 10"),
        (lambda: recurrent(2).from_text("add tanh add relu add relu add relu 1 3"), "token 9 is '3': it must be one of 0, 1, 2"),
    ],
)
def test_a_bad_recurrent_space_or_cell_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
