"""Choice blocks of ShuffleNet units, and their networks of any width (Single Path One-Shot)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import both_ways, everything, jit, worst

from jaxnas.nets._shuffle_net import shuffle_net
from jaxnas.nets.base import count_parameters, count_used
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.spaces._shuffle import MODELS, ShuffleBlock, ShuffleSpec, shuffle, spos

leaves = jax.tree.leaves
IMAGE, CLASSES = (5, 4, 1), 3
SPEC = ShuffleSpec((ShuffleBlock(3, 8, 2), ShuffleBlock(8, 8, 1)), 3, 4, (0.5, 1.0, 1.7), stem_stride=1)
ARCHS = ("k3:0.5 xception:1", "xception:1.7 k5:0.5", "k7:1 k7:1.7")


@functools.cache
def tiny():
    """A block that halves the image and adds channels, and one that splits them."""
    return shuffle_net(shuffle(SPEC), image=IMAGE, classes=CLASSES)


@functools.cache
def program():
    return everything(tiny())


def drawn(seed=0):
    """Variables none of which are as they start, and images, in double precision."""
    shapes, rng = jax.eval_shape(tiny().init, jax.random.key(0)), np.random.default_rng(seed)
    variables = jax.tree.map(lambda a: rng.normal(size=a.shape), shapes)
    return {**variables, "batch_stats": jax.tree.map(abs, variables["batch_stats"])}, rng.normal(size=(6, *IMAGE))


# The space


def test_sizes():
    assert spos((1.0,)).size == 4**20  # as published, and with channels:
    assert spos().size == 40**20
    assert len(spos().spec.blocks) == 20 and spos().spec.stride == 32
    assert spos().spec.factors == (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    assert [block.hidden(0.6) for block in spos().spec.blocks[::4]] == [19, 48, 96, 96, 192]  # rounded down


@pytest.mark.parametrize("s", [tiny().space, spos((1.0,))], ids=["channels", "units alone"])
def test_text_and_gates_both_ways(s):
    archs = jit(jax.vmap(s.sample))(jax.random.split(jax.random.key(0), 20))
    v = jit(jax.vmap(s.flat))(archs)
    np.testing.assert_array_equal(jit(jax.vmap(lambda arch: s.flat(s.derive(s.gates(arch)))))(archs), v)
    texts = [s.to_text(jax.tree.map(lambda a, i=i: np.asarray(a[i]), archs)) for i in range(20)]
    assert [s.flat(s.from_text(text)).tolist() for text in texts] == v.tolist()


@pytest.mark.parametrize(
    ("name", "parameters", "multiplied"),
    [
        ("SPOS_BLOCKS", 3_558_464, 322_918_720),  # published: 323 M multiply-adds, 3.5 M parameters
        ("SPOS_BLOCKS_AND_CHANNELS", 3_432_579, 327_857_888),  # 328 M
    ],
)
def test_published_counts(name, parameters, multiplied):
    s, image = spos(), (224, 224, 3)
    arch = s.from_text(name)
    assert s.to_text(arch) == MODELS[name]
    net = shuffle_net(s, image=image, classes=1000)
    assert count_parameters(net.specialize(arch)[0], image) == parameters
    assert abs(float(net.macs(s.gates(arch))) / multiplied - 1) < 1e-6


# The network


def by_hand(text, variables, x):
    """The specialised network at its running statistics, in numpy."""
    params, stats = variables["params"], variables["batch_stats"]
    column = lambda a: a[:, None, None, None]

    def conv(x, w, stride=1):
        k = w.shape[-1]
        pad = np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0)))
        rows, columns = (range(0, n, stride) for n in x.shape[1:3])
        at = lambda i, j: np.einsum("dchw,chwb->db", w, pad[:, i : i + k, j : j + k])
        return np.stack([np.stack([at(i, j) for j in columns], 1) for i in rows], 1)

    def depthwise(x, w, stride=1):
        return conv(x, np.eye(len(w))[:, :, None, None] * w[:, None], stride)

    def norm(x, p, s):
        return (x - column(s["mean"])) / np.sqrt(column(s["var"]) + 1e-5) * column(p["scale"]) + column(p["bias"])

    def layer(f, name, x, p, s, *stride):
        return norm(f(x, p[name]["kernel"], *stride), p[f"{name}_norm"], s[f"{name}_norm"])

    relu = lambda x: np.maximum(x, 0)
    x = relu(layer(conv, "stem", x.transpose(3, 1, 2, 0), params, stats))
    for i, (word, block) in enumerate(zip(text.split(), SPEC.blocks, strict=True)):
        p, s, stride = params[f"block{i}"], stats[f"block{i}"], block.stride
        if i == 1:
            kept, x = x[[0, 2, 4, 6]], x[[1, 3, 5, 7]]
        else:
            kept = relu(layer(conv, "shortcut", layer(depthwise, "shortcut_depthwise", x, p, s, stride), p, s))
        if word.startswith("xception"):
            for k in range(3):
                x = relu(layer(conv, f"point{k}", layer(depthwise, f"depthwise{k}", x, p, s, 1 if k else stride), p, s))
        else:
            assert p["depthwise"]["kernel"].shape[-1] == int(word[1])
            x = layer(depthwise, "depthwise", relu(layer(conv, "expand", x, p, s)), p, s, stride)
            x = relu(layer(conv, "project", x, p, s))
        x = np.concatenate([kept, x])
    x = relu(layer(conv, "head", x, params, stats))
    return x.mean((1, 2)).T @ params["classifier"]["kernel"]


@pytest.mark.parametrize("text", [ARCHS[0], *(pytest.param(text, marks=pytest.mark.slow) for text in ARCHS[1:])])
def test_a_masked_network_is_the_sliced_one(text):
    """Outputs in training and evaluation, gradients of weights and images, new statistics; the rest neither moves nor matters."""
    net = tiny()
    arch = net.space.from_text(text)
    module, extract = net.specialize(arch)
    gates = net.space.gates(arch)
    with jax.enable_x64(True):
        variables, x = drawn()
        double = jax.tree.map(lambda g: np.asarray(g, np.float64), gates)
        mine, wanted, stats = both_ways(net, program(), arch, variables, x, double)
        assert worst(mine, wanted) < 1e-9
        small = jax.tree.map(np.asarray, extract(variables))
        assert worst(mine[2], by_hand(text, small, x)) < 1e-9
        shapes = jax.eval_shape(functools.partial(module.init, train=True), jax.random.key(0), x)
        assert jax.tree.map(np.shape, small) == jax.tree.map(np.shape, shapes)
        used = net.used(variables, gates)
        still = lambda new, old, on: np.where(on > 0, 0, new - old)
        assert not any(m.any() for m in leaves(jax.tree.map(still, stats, variables["batch_stats"], used["batch_stats"])))
        others = jax.tree.map(lambda on, v, other: np.where(on > 0, v, other), used, variables, drawn(1)[0])
        again = program()(others, x, double)
        assert worst(again[0], mine[0]) == 0 and worst(again[2], mine[2]) == 0
        assert float(count_used(net, gates)) == count_parameters(small)


def test_a_narrow_unit_has_the_first_channels_of_the_widest():
    net = tiny()
    variables = jit(net.init)(jax.random.key(0))
    _, extract = net.specialize(net.space.from_text("k3:0.5 xception:1.7"))
    small, wide = extract(variables)["params"], variables["params"]
    np.testing.assert_array_equal(small["block0"]["expand"]["kernel"], wide["block0"]["k3"]["expand"]["kernel"][:2])
    np.testing.assert_array_equal(small["block0"]["project"]["kernel"], wide["block0"]["k3"]["project"]["kernel"][:, :2])
    assert small["block1"]["point1"]["kernel"].shape[:2] == (6, 6)  # 1.7 times 4, rounded down
    _, extract = net.specialize(net.space.from_text("k3:0.5 xception:0.5"))
    cut = extract(variables)["params"]["block1"]["point1"]["kernel"]
    np.testing.assert_array_equal(cut, wide["block1"]["xception"]["point1"]["kernel"][:2, :2])


@pytest.mark.parametrize("text", ARCHS)
def test_multiply_adds_are_counted_in_the_network(text):
    """By the shapes of its kernels, and of the maps that they are moved over."""
    net = tiny()
    arch = net.space.from_text(text)
    module, _ = net.specialize(arch)
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *IMAGE)), train=True))["params"]
    whole, half = 20, 6  # pixels
    total = params["stem"]["kernel"].size * whole + params["head"]["kernel"].size * half + params["classifier"]["kernel"].size
    for i in range(2):
        for name, p in params[f"block{i}"].items():
            if "kernel" in p:
                total += p["kernel"].size * (whole if i == 0 and name == "expand" else half)
    assert float(net.macs(net.space.gates(arch))) == total


def test_bad_input():
    fine = SPEC.blocks
    for wrong, says in (
        (dict(blocks=()), "at least one block"),
        (dict(factors=()), "`factors`"),
        (dict(factors=(1.0, 1.0)), "`factors`"),
        (dict(stem=4), "block 0 reads 3"),
        (dict(blocks=(*fine, ShuffleBlock(8, 8, 2))), "more outputs"),
        (dict(blocks=(ShuffleBlock(3, 3, 1),)), "even number"),
    ):
        with pytest.raises(ValueError, match=says):
            shuffle(SPEC._replace(**wrong))
    s = tiny().space
    for text, says in (("k3:1", "1 blocks"), ("k3:1 k9:1", "block 1 is 'k9:1'"), ("k3 k3:1", "block 0 is 'k3'")):
        with pytest.raises(ValueError, match=says):
            s.from_text(text)
    with pytest.raises(ValueError, match="ShuffleNet units"):
        shuffle_net(nasbench201(), image=IMAGE, classes=CLASSES)
    with pytest.raises(ValueError, match="multiply to 2"):
        shuffle_net(s, image=(1, 1, 1), classes=CLASSES)
