"""Elastic spaces and networks: nested weights, the three ways to run them, sorted channels, multiply-adds."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import both_ways, everything, jit, worst

from jaxnas.nets._elastic_net import elastic_net, sort_channels
from jaxnas.nets.base import count_parameters
from jaxnas.nets.elastic_ops import elastic_block, filters
from jaxnas.spaces._elastic import (
    Elastic,
    ElasticLayer,
    ElasticSpec,
    Unit,
    elastic,
    largest,
    ofa_mobilenet_v3,
    ofa_small,
    rounded,
    smallest,
)
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.spaces._space import is_shape

IMAGE, CLASSES = (6, 4, 1), 3
TINY = ElasticSpec(
    (Unit(2, 1), Unit(3, 2, se=True, swish=True)),
    depths=(2, 1),
    kernels=(5, 3, 1),
    expansions=(4, 3, 2),
    stem=2,
    fixed=2,
    head=3,
    features=4,
    stem_stride=1,
    multiple=1,
)
ARCHS = ("k5e4-k5e4 k5e4-k5e4", "k1e2 k1e2", "k3e3-k1e4 k5e3-k3e2")


@functools.cache
def tiny():
    return elastic_net(elastic(TINY), image=IMAGE, classes=CLASSES)


@functools.cache
def drawn(seed, dtype):
    """Variables and images, none of them as they start."""
    rng = np.random.default_rng(seed)
    draw = lambda a: (0.5 * rng.normal(size=a.shape)).astype(dtype)
    variables = jax.tree.map(draw, jax.eval_shape(tiny().init, jax.random.key(0)))
    return {**variables, "batch_stats": jax.tree.map(abs, variables["batch_stats"])}, rng.normal(size=(4, *IMAGE)).astype(dtype)


def gates_of(text, dtype=np.float64):
    s = tiny().space
    return jax.tree.map(lambda g: np.asarray(g, dtype), s.gates(s.from_text(text)))


# The spaces


def test_published_sizes():
    assert ofa_mobilenet_v3().size == 7371**5
    assert f"{7371**5:.2e}" == "2.18e+19"
    assert ofa_mobilenet_v3(resolutions=tuple(range(224, 127, -4))).size == 25 * 7371**5
    s = ofa_mobilenet_v3().spec
    assert (s.stride, s.units[3], s.head, s.features) == (32, Unit(112, 1, True, True), 960, 1280)
    assert ofa_mobilenet_v3(width=1.2).spec.units[0].channels == rounded(1.2 * 24) == 32


def test_the_size_against_all_settings():
    s = elastic(TINY._replace(units=TINY.units[:1], kernels=(5, 3), resolutions=(4, 2)))
    settings = np.asarray(list(itertools.product(*map(range, s.arity))), np.int32)
    distinct = jit(jax.vmap(lambda v: s.flat(s.canonical(s.unflat(v)))))(settings)
    assert len(np.unique(distinct, axis=0)) == s.size == 2 * (6 + 6**2)


def test_features_are_of_the_layers_that_are_there():
    s = tiny().space
    counts = [int(np.sum(s.features(s.from_text(text)))) for text in ARCHS]
    assert counts == [2 + 2 * 4, 2 + 2 * 2, 2 + 2 * 4]


def test_text_both_ways():
    s = elastic(TINY._replace(resolutions=(16, 12)))
    archs = jit(jax.vmap(s.sample))(jax.random.split(jax.random.key(0), 20))
    v = jit(jax.vmap(s.flat))(archs)
    np.testing.assert_array_equal(jit(jax.vmap(lambda arch: s.flat(s.derive(s.gates(arch)))))(archs), v)
    for i in range(20):
        text = s.to_text(jax.tree.map(lambda a, i=i: a[i], archs))
        assert np.asarray(s.flat(s.from_text(text))).tolist() == v[i].tolist()
    assert [s.to_text(end(s)) for end in (largest, smallest)] == [ARCHS[0] + " r16", ARCHS[1] + " r12"]


# The network


@functools.cache
def program():
    """(variables, x, gates) -> all that follows, of any architecture."""
    return everything(tiny())


def both(text, dtype):
    return both_ways(tiny(), program(), tiny().space.from_text(text), *drawn(0, dtype), gates_of(text, dtype))


@pytest.mark.parametrize("text", [ARCHS[0], *(pytest.param(text, marks=pytest.mark.slow) for text in ARCHS[1:])])
def test_the_ways_agree(text):
    """Any architecture's program and the specialised one: outputs, gradients of all weights and new batch statistics."""
    with jax.enable_x64(True):
        mine, wanted, stats = both(text, np.float64)
        assert worst(mine, wanted) < 1e-9
        variables, _ = drawn(0, np.float64)
        used = tiny().used(variables, gates_of(text))
        moved = jax.tree.map(
            lambda new, old, on: np.where(on > 0, 0, new - old), stats, variables["batch_stats"], used["batch_stats"]
        )
        assert not any(m.any() for m in jax.tree.leaves(moved))


@pytest.mark.slow
def test_the_ways_agree_in_single_precision():
    mine, wanted, _ = both(ARCHS[2], np.float32)
    assert worst(mine, wanted) < 1e-5


@pytest.mark.parametrize("text", ARCHS)
def test_what_is_used(text):
    """Other values of unused weights and statistics change nothing; the used ones are the published arithmetic's."""
    with jax.enable_x64(True):
        (variables, x), (others, _) = drawn(0, np.float64), drawn(1, np.float64)
        used = tiny().used(variables, gates_of(text))
        elsewhere = jax.tree.map(lambda on, v, other: np.where(on > 0, v, other), used, variables, others)
        logits, _, evaluated, grads = program()(variables, x, gates_of(text))
        assert worst(program()(elsewhere, x, gates_of(text))[0], logits) == 0
        assert worst(program()(elsewhere, x, gates_of(text))[2], evaluated) == 0
        unused = jax.tree.map(lambda g, on: np.where(on > 0, 0, g), grads[0], used["params"])
        assert not any(g.any() for g in jax.tree.leaves(unused))
        _, extract = tiny().specialize(tiny().space.from_text(text))
        small, shares = extract(variables), jax.tree.map(lambda on, v: int(np.sum(np.broadcast_to(on, v.shape))), used, variables)
    count = sum(int(np.size(v)) for v in jax.tree.leaves(small))
    layers = [layer for unit in tiny().space.to_text(tiny().space.from_text(text)).split() for layer in unit.split("-")]
    hidden = [small["params"][name]["depthwise"]["kernel"].shape[0] for name in sorted(small["params"]) if "layer" in name]
    for (_, kernel, _, _), h in zip(layers, hidden, strict=True):  # 1: the centre 3 x 3, M to 3's row of its centre, M to 1
        count += {"5": 0, "3": 9**2, "1": h * (9 - 1) + 9 + 1}[kernel]
    assert sum(jax.tree.leaves(shares)) == count


def test_the_largest_is_the_full_network():
    net = tiny()
    variables, x = drawn(0, np.float32)
    module, _ = net.specialize(largest(net.space))
    plain = {**variables, "params": {k: dict(v) for k, v in variables["params"].items()}}
    for name, layer in plain["params"].items():
        if "layer" in name:
            layer["depthwise"] = {"kernel": layer["depthwise"]["kernel"]}
    for train in (False, True):
        full = jit(lambda v, x: module.apply(v, x, train=train, mutable=["batch_stats"])[0])(plain, x)
        assert worst(program()(variables, x, gates_of(ARCHS[0], np.float32))[0 if train else 2], full) < 1e-6


def test_filters_start_as_centres_and_follow_the_matrices():
    rng = np.random.default_rng(0)
    w7 = rng.normal(size=(2, 7, 7)).astype(np.float32)
    start = jit(tiny().init)(jax.random.key(0))["params"]["unit0_layer1"]["depthwise"]
    w5 = start["kernel"]
    for w, wanted in zip(filters(start, TINY.kernels), (w5, w5[:, 1:4, 1:4], w5[:, 2:3, 2:3]), strict=True):
        np.testing.assert_array_equal(w, wanted)
    to5, to3 = rng.normal(size=(25, 25)).astype(np.float32), rng.normal(size=(9, 9)).astype(np.float32)
    moved = filters({"kernel": w7, "to5": to5, "to3": to3}, (7, 5, 3))
    w5 = np.asarray([[sum(to5[i, j] * w[1:6, 1:6].flat[j] for j in range(25)) for i in range(25)] for w in w7]).reshape(2, 5, 5)
    w3 = np.asarray([[sum(to3[i, j] * w[1:4, 1:4].flat[j] for j in range(9)) for i in range(9)] for w in w5]).reshape(2, 3, 3)
    assert worst(moved, [w7, w5, w3]) < 1e-6


def windows(x, k, stride):
    """[C, k, k, Ho, Wo, B], padded as PyTorch does."""
    p = k // 2
    x = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    H, W = (-(-(n - k + 1) // stride) for n in x.shape[1:3])
    cut = lambda i, j: x[:, i : i + (H - 1) * stride + 1 : stride, j : j + (W - 1) * stride + 1 : stride]
    return np.stack([np.stack([cut(i, j) for j in range(k)], 1) for i in range(k)], 1)


def by_hand(spec, text, variables, x):
    """The network of a text at its running statistics, in numpy, of a specialised module's variables."""
    params, stats = variables["params"], variables["batch_stats"]
    relu, gate = lambda x: np.maximum(x, 0), lambda x: np.clip(x + 3, 0, 6) / 6
    swish = lambda x: x * gate(x)
    dense = lambda x, w: np.einsum("chwb,dc->dhwb", x, w[:, :, 0, 0])

    def norm(x, p, s):
        column = lambda a: a[:, None, None, None]
        return (x - column(s["mean"])) / np.sqrt(column(s["var"]) + spec.epsilon) * column(p["scale"]) + column(p["bias"])

    def block(x, name, kernel, stride, act):
        p, s = params[name], stats[name]
        if "expand" in p:
            x = act(norm(dense(x, p["expand"]["kernel"]), p["expand_norm"], s["expand_norm"]))
        x = np.einsum("cijhwb,cij->chwb", windows(x, kernel, stride), p["depthwise"]["kernel"])
        x = act(norm(x, p["depthwise_norm"], s["depthwise_norm"]))
        if "squeeze" in p:
            linear = lambda x, w: x @ w["kernel"] + w["bias"]
            scale = gate(linear(relu(linear(x.mean((1, 2)).T, p["squeeze"])), p["excite"]))
            x = x * scale.T[:, None, None]
        return norm(dense(x, p["project"]["kernel"]), p["project_norm"], s["project_norm"])

    x = np.einsum("cijhwb,dcij->dhwb", windows(x.transpose(3, 1, 2, 0), 3, spec.stem_stride), params["stem"]["kernel"])
    x = swish(norm(x, params["stem_norm"], stats["stem_norm"]))
    x = x + block(x, "fixed", 3, 1, relu)
    for u, unit in enumerate(text.split()):
        for i, layer in enumerate(unit.split("-")):
            y = block(x, f"unit{u}_layer{i}", int(layer[1]), 1 if i else spec.units[u].stride, swish if u else relu)
            x = x + y if x.shape == y.shape else y
    x = swish(norm(dense(x, params["head"]["kernel"]), params["head_norm"], stats["head_norm"])).mean((1, 2)).T
    return swish(x @ params["features"]["kernel"]) @ params["classifier"]["kernel"] + params["classifier"]["bias"]


def test_the_network_against_numpy():
    text = ARCHS[2]
    with jax.enable_x64(True):
        variables, x = drawn(0, np.float64)
        _, extract = tiny().specialize(tiny().space.from_text(text))
        wanted = by_hand(TINY, text, jax.tree.map(np.asarray, extract(variables)), x)
        assert worst(program()(variables, x, gates_of(text))[2], wanted) < 1e-9


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "expansion", "plain", "se"),
    [
        (16, 24, 3, 6, 5_136, 9_864),
        (24, 24, 3, 6, 8_832, 20_536),
        (24, 40, 5, 6, 13_472, 25_176),
        (40, 40, 5, 3, 13_160, 20_992),
        (96, 96, 3, 6, 118_272, 284_880),
    ],
)
def test_parameters_of_published_blocks(inputs, outputs, kernel, expansion, plain, se):
    x = jax.ShapeDtypeStruct((inputs, 8, 8, 1), jnp.float32)
    for with_se, count in ((False, plain), (True, se)):
        made = elastic_block(ofa_mobilenet_v3().spec, ElasticLayer(inputs, outputs, 1, with_se, False), kernel, expansion)
        assert count_parameters(jax.eval_shape(lambda x: made.init(jax.random.key(0), x, True), x)) == count


def test_images_are_resized_to_the_resolution():
    spec = TINY._replace(units=(Unit(2, 2),), kernels=(3,), expansions=(2,), depths=(1,), resolutions=(6, 4))
    net = elastic_net(elastic(spec), image=IMAGE, classes=CLASSES)
    fixed = elastic_net(elastic(spec._replace(resolutions=())), image=(4, 4, 1), classes=CLASSES)
    variables, x = jit(net.init)(jax.random.key(0)), drawn(0, np.float32)[1]
    at = lambda r: Elastic(np.zeros(1, np.int32), np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int32), r)
    run = jit(lambda variables, x, r: net.apply(variables, x, net.space.gates(at(r)), train=True))
    smaller = jax.image.resize(x, (4, 4, 4, 1), "bilinear")
    found = run(variables, x, np.int32(1))
    wanted = jit(lambda variables, x: fixed.apply(variables, x, fixed.space.gates(at(None)), train=True))(variables, smaller)
    assert worst(found, wanted) < 1e-6 < worst(run(variables, x, np.int32(0)), wanted)
    assert net.specialize(at(np.int32(1)))[0].size == 4


# Channels


def importance(layer, which):
    w = np.abs(layer["project" if which == "hidden" else "excite"]["kernel"])
    return w.sum((0, 2, 3)) if which == "hidden" else w.sum(1)


def test_sorting_permutes_the_channels_alone():
    with jax.enable_x64(True):
        variables, x = drawn(0, np.float64)
        moved = sort_channels(tiny(), variables)
        full, two = (gates_of(text) for text in ("k5e4-k5e4 k3e4-k5e4", "k3e3-k3e3 k3e3-k5e3"))
        before, after = program()(variables, x, full), program()(moved, x, full)
        assert worst((before[0], before[2]), (after[0], after[2])) < 1e-5
        assert worst(program()(variables, x, two)[0], program()(moved, x, two)[0]) > 1e-2  # other channels are the first
        for name, layer in moved["params"].items():
            if "layer" in name:
                for which in ("hidden", "squeezed") if "excite" in layer else ("hidden",):
                    assert (np.diff(importance(layer, which)) <= 0).all()
                assert (np.diff(importance(variables["params"][name], "hidden")) > 0).any()
        kept = sort_channels(tiny(), variables, widths=2)
        assert worst(program()(variables, x, two)[0], program()(kept, x, two)[0]) < 1e-5
        assert worst(program()(variables, x, gates_of(ARCHS[1]))[0], program()(kept, x, gates_of(ARCHS[1]))[0]) > 1e-2


def test_a_sorted_net_is_sorted():
    variables, _ = drawn(0, np.float32)
    once = sort_channels(tiny(), variables)
    assert worst(sort_channels(tiny(), once), once) == 0


# Multiply-adds


def counted(module, image):
    """Those of a plain module, from the shapes of its kernels and of what they make."""
    x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    run = lambda x: module.init(jax.random.key(0), x, train=True, capture_intermediates=True, mutable=True)
    made, total = jax.eval_shape(run, x), 0
    for path, w in jax.tree_util.tree_flatten_with_path(made["params"])[0]:
        if path[-1].key == "kernel":
            y = functools.reduce(lambda tree, p: tree[p.key], path[:-1], made["intermediates"])["__call__"][0]
            total += int(np.prod(w.shape)) * (y.shape[1] * y.shape[2] if len(y.shape) == 4 else 1)
    return total


def test_multiply_adds_against_the_specialised_modules():
    image = (224, 224, 3)
    for s, draws in ((ofa_mobilenet_v3(resolutions=(224, 160)), 1), (ofa_small((4, 6)), 2)):
        net = elastic_net(s, image=image, classes=1000)
        of = jit(lambda arch, s=s, net=net: net.macs(s.gates(arch)))
        for arch in (smallest(s), *(s.sample(jax.random.key(i)) for i in range(draws))):
            assert abs(float(of(arch)) / counted(net.specialize(arch)[0], image) - 1) < 1e-6


def test_multiply_adds_of_odds_are_their_mean():
    s = elastic(TINY._replace(units=TINY.units[:1], resolutions=(9, 7)))
    of = elastic_net(s, image=IMAGE, classes=2).macs
    every = np.asarray(list(itertools.product(*map(range, s.arity))), np.int32)
    mean = np.mean(jit(jax.vmap(lambda v: of(s.gates(s.unflat(v)))))(every), dtype=float)
    uniform = jax.tree.map(lambda shape: jnp.full(shape, 1 / shape[-1]), s.gate_shapes, is_leaf=is_shape)
    assert abs(float(of(uniform)) / mean - 1) < 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: elastic(TINY._replace(units=())), "at least one unit"),
        (lambda: elastic(TINY._replace(depths=(2, 3))), "`depths` must be descending"),
        (
            lambda: elastic(TINY._replace(depths=(2, 0))),
            r"`depths` of ElasticSpec must be a list, each item a positive integer; got \(2, 0\)",
        ),
        (lambda: elastic(TINY._replace(kernels=())), "`kernels` is empty"),
        (lambda: elastic(TINY._replace(kernels=(6, 4))), "`kernels` must be odd"),
        (lambda: elastic(TINY._replace(expansions=(3, 3))), "`expansions` must be descending"),
        (lambda: elastic(TINY._replace(resolutions=(128, 160))), "`resolutions` must be descending"),
        (lambda: elastic(TINY._replace(units=(Unit(0, 1),))), "`channels` of Unit must be a positive integer; got 0"),
        (lambda: elastic(TINY._replace(features=0)), "`features` of ElasticSpec must be a positive integer"),
        (lambda: ofa_small((8, 16), (1,)), "2 units, 1 strides"),
        (lambda: ofa_small((), ()), "at least one unit"),
        (lambda: tiny().space.from_text("k5e4"), "1 words; this space has 2 units"),
        (lambda: tiny().space.from_text("k5e4-k5e4-k5e4 k3e2"), "depth of unit 0 must be one of 2, 1; got 3"),
        (lambda: tiny().space.from_text("k5e4 k9e2"), "kernel of 'k9e2' must be one of 5, 3, 1; got 9"),
        (lambda: tiny().space.from_text("k5e4 k3e5"), "expansion of 'k3e5' must be one of 4, 3, 2; got 5"),
        (lambda: tiny().space.from_text("k5e4 zero"), "no layer is called 'zero'"),
        (lambda: elastic(TINY._replace(resolutions=(9, 7))).from_text("k5e4 k5e4 r8"), "'r8' must be one of 9, 7"),
        (lambda: elastic(TINY._replace(resolutions=(9, 7))).from_text("k5e4 k5e4"), "2 units and a resolution"),
        (lambda: elastic_net(nasbench201(), image=IMAGE, classes=2), "no elastic layers"),
        (lambda: elastic_net(tiny().space, image=IMAGE, classes=0), "positive"),
        (lambda: elastic_net(tiny().space, image=(1, 8, 1), classes=2), "strides of this space multiply to 2"),
        (lambda: elastic_net(ofa_mobilenet_v3(resolutions=(32, 16)), image=(32, 32, 3), classes=2), "have a side of 16"),
        (lambda: sort_channels(tiny(), {}, widths=4), "3 expansions are in use; got 4"),
    ],
)
def test_a_bad_space_net_or_text_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
