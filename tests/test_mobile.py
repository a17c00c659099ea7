"""Mobile spaces, their supernet with one path or all of them in memory, and differentiable costs."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit, worst

from jaxnas.hardware import (
    absolute_reward,
    additive,
    cost,
    dual_ascent,
    expected,
    fbnet_product,
    lagrangian,
    power_reward,
    priced,
    proxyless_product,
    relative_excess,
)
from jaxnas.nets._mobile_net import Paths, mobile_macs, mobile_net
from jaxnas.nets.base import count_parameters, count_used
from jaxnas.nets.mobile_ops import MBConv, shuffle, single
from jaxnas.spaces._mobile import MODELS, Mobile, MobileLayer, MobileSpec, block, fairnas, fbnet, mobile, proxylessnas
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.spaces._space import space

IMAGE, CLASSES = (6, 5, 1), 3
TINY = MobileSpec(
    (
        MobileLayer(4, 4, 1, ("k3_e1", "zero", "k3_e2_g2", "k5_e2")),
        MobileLayer(4, 2, 2, ("k3_e2", "k3_e1_g2")),
        MobileLayer(2, 2, 1, ("k3_e1",)),
    ),
    stem=2,
    fixed=4,
    head=3,
    stem_stride=1,
)
ARCHS = ("k3_e2_g2 k3_e2 k3_e1", "zero k3_e1_g2 k3_e1", "k5_e2 k3_e2 k3_e1")


def drawn(seed, shapes, wide=True):
    """Variables of these shapes, none of them as they start."""
    rng, dtype = np.random.default_rng(seed), np.float64 if wide else np.float32
    variables = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(dtype), shapes)
    return {**variables, "batch_stats": jax.tree.map(abs, variables["batch_stats"])}


@functools.cache
def tiny(**changes):
    return mobile_net(mobile(TINY._replace(**changes)), image=IMAGE, classes=CLASSES)


@functools.cache
def shapes():
    return jax.eval_shape(tiny().init, jax.random.key(0))


# The spaces


def test_sizes():
    assert proxylessnas().size == 6**6 * 7**15
    assert f"{3 * proxylessnas().size:.1e}" == "6.6e+17"  # TuNAS's count, which also searches the kernel of the fixed block
    assert fbnet().size == 8**6 * 9**16  # skips only where they fit; the paper counts one everywhere:
    assert f"{9 ** len(fbnet().spec.layers):.1e}" == "9.8e+20"
    assert fairnas().size == 6**19  # as published
    assert [len(s().spec.layers) for s in (proxylessnas, fbnet, fairnas)] == [21, 22, 19]
    assert [s().spec.stride for s in (proxylessnas, fbnet, fairnas)] == [32, 32, 32]
    assert tiny().space.size == 8


def test_text_both_ways():
    s = fbnet()
    archs = jit(jax.vmap(s.sample))(jax.random.split(jax.random.key(0), 20))
    v = jit(jax.vmap(s.flat))(archs)
    np.testing.assert_array_equal(jit(jax.vmap(lambda arch: s.flat(s.derive(s.gates(arch)))))(archs), v)
    archs, texts = jax.tree.map(np.asarray, archs), set()
    for i in range(20):
        text = s.to_text(jax.tree.map(lambda a, i=i: a[i], archs))
        again = s.from_text(text)
        assert [int(a) for a in again.op] == v[i].tolist()
        assert s.to_text(again) == text
        texts.add(text)
    assert len(texts) == 20
    for name, text in MODELS.items():
        s = {"PROXYLESS": proxylessnas, "FBNET": fbnet, "FAIRNAS": fairnas}[name.split("_")[0]]()
        assert s.to_text(s.from_text(name)) == text


def test_the_published_indices_are_the_gates_order():
    """Those of ProxylessNAS-Mobile in TuNAS's notation: expansions 3 then 6, kernels 3, 5, 7; 6 leaves the layer out."""
    s = proxylessnas(first=32)
    indices = [1, 0, 6, 6, 2, 0, 1, 1, 5, 1, 1, 1, 4, 1, 1, 1, 5, 5, 2, 2, 5]
    assert s.flat(s.from_text("PROXYLESS_MOBILE")).tolist() == indices


@pytest.mark.parametrize(
    ("name", "make", "parameters", "multiplied"),
    [
        ("PROXYLESS_MOBILE", lambda: proxylessnas(first=32), 4_080_512, 320_427_584),
        ("FBNET_A", lambda: fbnet(head=1504), 4_304_584, 244_452_664),
        ("FBNET_B", fbnet, 4_801_368, 291_004_424),
        ("FBNET_C", fbnet, 5_572_200 - 1_536, 378_136_224),  # the sheet's count has expansions of 1; here there are none
        ("FAIRNAS_A", fairnas, 4_651_352, 388_122_848),  # published: 388 M, 345 M and 321 M multiply-adds
        ("FAIRNAS_B", fairnas, 4_506_272, 345_297_632),
        ("FAIRNAS_C", fairnas, 4_397_864, 321_024_992),
    ],
)
def test_published_counts(name, make, parameters, multiplied):
    s, image = make(), (224, 224, 3)
    arch = s.from_text(name)
    net = mobile_net(s, image=image, classes=1000)
    module, _ = net.specialize(arch)
    assert count_parameters(module, image) == parameters
    table, base = mobile_macs(s.spec, image, 1000)
    assert base + sum(row[int(k)] for row, k in zip(table.op, arch.op, strict=True)) == multiplied
    assert abs(float(net.macs(s.gates(arch))) / multiplied - 1) < 1e-6


def test_the_weights_that_gates_use_are_those_of_the_network():
    net = tiny()
    used = jit(jax.vmap(lambda arch: count_used(net, net.space.gates(arch))))
    archs = jax.vmap(net.space.from_index)(jnp.arange(8))
    each = [net.specialize(jax.tree.map(lambda a, i=i: a[i], archs))[0] for i in range(8)]
    assert used(archs).tolist() == [count_parameters(module, net.image) for module in each]


@pytest.mark.parametrize(
    ("inputs", "outputs", "op", "count"),
    [(16, 24, "k3_e6", 5_136), (40, 40, "k5_e3", 13_160), (96, 96, "k3_e6", 118_272), (32, 16, "k3_e1", 896)],
)
def test_parameters_of_published_blocks(inputs, outputs, op, count):
    made = MBConv(outputs, *block(op), stride=1, relu6=True, epsilon=1e-3)
    x = jax.ShapeDtypeStruct((inputs, 8, 8, 1), jnp.float32)
    assert count_parameters(jax.eval_shape(lambda x: made.init(jax.random.key(0), x, True), x)) == count


def test_multiply_adds_by_hand():
    """Of odd maps, of groups, and of what is fixed."""
    table, base = mobile_macs(tiny().space.spec, (7, 5, 1), CLASSES)
    half = 4 * 3  # ceil(7 / 2) x ceil(5 / 2)
    assert table.op[0].tolist() == [35 * (36 + 16), 0, 35 * (16 + 9 * 8 + 16), 35 * (32 + 25 * 8 + 32)]
    assert table.op[1].tolist() == [35 * 32 + half * (72 + 16), half * (36 + 4)]
    assert table.op[2].tolist() == [half * (18 + 4)]
    assert base == 35 * 9 * 2 + 35 * (9 * 2 + 2 * 4) + half * 2 * 3 + 3 * CLASSES


# The supernet


def bn(x, p, s, eps):
    column = lambda a: a[:, None, None, None]
    return (x - column(s["mean"])) / np.sqrt(column(s["var"]) + eps) * column(p["scale"]) + column(p["bias"])


def windows(x, k, stride):
    """[C, k, k, Ho, Wo, B], padded as PyTorch does."""
    p = k // 2
    x = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    H, W = (-(-(n - k + 1) // stride) for n in x.shape[1:3])
    cut = lambda i, j: x[:, i : i + (H - 1) * stride + 1 : stride, j : j + (W - 1) * stride + 1 : stride]
    return np.stack([np.stack([cut(i, j) for j in range(k)], 1) for i in range(k)], 1)


def by_hand(spec, choice, variables, x):
    """The network of a choice at its running statistics, in numpy."""
    params, stats = variables["params"], variables["batch_stats"]
    act = (lambda x: np.clip(x, 0, 6)) if spec.relu6 else (lambda x: np.maximum(x, 0))

    def dense(x, w, groups=1):
        parts = zip(np.split(x, groups), np.split(w[:, :, 0, 0], groups), strict=True)
        return np.concatenate([np.einsum("chwb,dc->dhwb", x, w) for x, w in parts])

    def bottleneck(x, name, op, stride):
        p, s, made = params[name], stats[name], block(op)
        norm = lambda x, which: bn(x, p[which], s[which], spec.epsilon)
        if made.expansion > 1:
            x = act(norm(dense(x, p["expand"]["kernel"], made.groups), "expand_norm"))
        half = len(x) // 2
        if made.groups == 2:  # channels of the two groups in turn
            x = x[[c for pair in zip(range(half), range(half, 2 * half), strict=True) for c in pair]]
        y = np.einsum("cijhwb,cij->chwb", windows(x, made.kernel, stride), p["depthwise"]["kernel"])
        return norm(dense(act(norm(y, "depthwise_norm")), p["project"]["kernel"], made.groups), "project_norm")

    x = np.einsum("cijhwb,dcij->dhwb", windows(x.transpose(3, 1, 2, 0), 3, spec.stem_stride), params["stem"]["kernel"])
    x = act(bn(x, params["stem_norm"], stats["stem_norm"], spec.epsilon))
    x = bottleneck(x, "fixed", "k3_e1", 1)
    for i, (layer, op) in enumerate(zip(spec.layers, choice, strict=True)):
        y = 0 if op == "zero" else bottleneck(x, f"layer{i}", op, layer.stride)
        x = y + (x if (layer.inputs, layer.stride) == (layer.outputs, 1) else 0)
    x = act(bn(dense(x, params["head"]["kernel"]), params["head_norm"], stats["head_norm"], spec.epsilon))
    return x.mean((1, 2)).T @ params["classifier"]["kernel"] + params["classifier"]["bias"]


@pytest.mark.parametrize(
    ("text", "changes"), [(ARCHS[0], {}), (ARCHS[1], dict(relu6=False)), (ARCHS[2], dict(stem_stride=2, epsilon=0.1))]
)
def test_the_network_against_numpy(text, changes):
    net = tiny(**changes)
    with jax.enable_x64(True):
        x = 4 * np.random.default_rng(1).normal(size=(2, *IMAGE))
        module, extract = net.specialize(net.space.from_text(text))
        small = extract(drawn(0, shapes()))
        wanted = by_hand(net.space.spec, text.split(), small, x)
        assert worst(wanted, jit(module.apply)(small, x)) < 1e-9
        if not changes:  # and relu6 has something to do
            assert worst(wanted, by_hand(net.space.spec._replace(relu6=False), text.split(), small, x)) > 1e-2


def test_shuffle_mixes_the_groups():
    x = np.arange(6.0).reshape(6, 1, 1, 1)
    assert shuffle(x, 2).ravel().tolist() == [0, 3, 1, 4, 2, 5]
    np.testing.assert_array_equal(shuffle(shuffle(x, 2), 3), x)


@functools.cache
def program(path):
    """(variables, x, indices of Paths, weights) -> all that follows: of paths where there are indices, else of gates."""

    def run(variables, x, index, weight):
        gates = lambda weight: weight if index is None else Mobile(tuple(map(Paths, index.op, weight.op)))

        def loss(params, x, weight):
            logits, new = tiny().apply({**variables, "params": params}, x, gates(weight), train=True, path=path)
            return jnp.sum(jnp.sin(logits)), (logits, new["batch_stats"])

        grads, (logits, stats) = jax.grad(loss, (0, 1, 2), has_aux=True)(variables["params"], x, weight)
        return logits, stats, tiny().apply(variables, x, gates(weight), train=False, path=path)[0], grads

    return jit(run)


def setting(text):
    """Variables, images, and the one-hot gates of an architecture, in double precision."""
    s = tiny().space
    gates = jax.tree.map(lambda g: np.asarray(g, np.float64), s.gates(s.from_text(text)))
    return drawn(0, shapes()), np.random.default_rng(1).normal(size=(4, *IMAGE)), gates


@pytest.mark.parametrize("text", ARCHS)
def test_three_ways_agree(text):
    """Mixture, single path and specialised: outputs, gradients and new batch statistics."""
    net = tiny()
    module, extract = net.specialize(net.space.from_text(text))
    with jax.enable_x64(True):
        variables, x, gates = setting(text)
        used = net.used(variables, gates)
        logits, stats, evaluated, (grads, to_x, _) = program(False)(variables, x, None, gates)
        path = program(True)(variables, x, None, gates)
        moved = jax.tree.map(lambda n, o, m: np.where(m > 0, n, o), stats, variables["batch_stats"], used["batch_stats"])
        assert worst((logits, moved, evaluated, grads, to_x), (*path[:3], *path[3][:2])) < 1e-9

        small = extract(variables)
        wanted = jax.eval_shape(functools.partial(module.init, train=True), jax.random.key(0), x)
        assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, wanted)

        def plain(params, x):
            logits, new = module.apply({**small, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(logits)), (logits, new["batch_stats"])

        run = jit(lambda params, x: (jax.grad(plain, (0, 1), has_aux=True)(params, x), module.apply(small, x)))
        ((small_grads, small_to_x), (small_logits, small_stats)), small_evaluated = run(small["params"], x)
        assert worst((logits, evaluated, to_x), (small_logits, small_evaluated, small_to_x)) < 1e-9
        assert worst(extract({"params": grads, "batch_stats": moved}), {"params": small_grads, "batch_stats": small_stats}) < 1e-9
        unused = jax.tree.map(lambda g, m: np.where(m > 0, 0, g), grads, used["params"])
        assert not any(g.any() for g in jax.tree.leaves(unused))
        shares = jax.tree.map(lambda m, v: int(np.sum(np.broadcast_to(m, v.shape))), used, variables)
        assert sum(jax.tree.leaves(shares)) == sum(np.size(v) for v in jax.tree.leaves(small))


INDEX = Mobile((np.asarray([2, 1, 3], np.int32), np.asarray([1, 0], np.int32), np.asarray([0], np.int32)))  # of 3, 2 and 1 paths
ACTIVE = "k3_e2_g2 k3_e1_g2 k3_e1"


@pytest.fixture(scope="module")
def of_paths():
    """(what paths of weights 1, 0, 0 give; what the mixture and the single path give at the same point)."""
    with jax.enable_x64(True):
        variables, x, gates = setting(ACTIVE)
        weight = Mobile(tuple(np.eye(len(i))[0] for i in INDEX.op))
        run = lambda path, *args: jax.tree.map(np.asarray, program(path)(variables, x, *args))
        return run(False, INDEX, weight), run(False, None, gates), run(True, None, gates)


def test_paths_run_the_active_one(of_paths):
    paths, _, single = of_paths
    for a, b in zip(jax.tree.leaves((paths[:3], paths[3][:2])), jax.tree.leaves((single[:3], single[3][:2])), strict=True):
        np.testing.assert_array_equal(a, b)  # logits, statistics, evaluated logits, gradients of params and image


def test_paths_know_what_every_path_says(of_paths):
    """The gradient of every weight is the mixture's there, for the active path and for the others."""
    (*_, (_, _, weight)), (*_, (_, _, gates)), _ = of_paths
    wanted = [g[i] for g, i in zip(gates.op, INDEX.op, strict=True)]
    assert worst(list(weight.op), wanted) < 1e-9
    assert min(abs(wanted[0][[0, 2]]).min(), abs(wanted[1]).min()) > 1e-3 and wanted[0][1] == 0  # and there is one, but for zero


def test_only_the_active_path_moves():
    with jax.enable_x64(True):
        variables, x, _ = setting(ACTIVE)
        weight = Mobile((np.asarray([0.5, 0.2, 0.3]), np.asarray([0.6, 0.4]), np.ones(1)))
        logits, stats, evaluated, (grads, _, _) = program(False)(variables, x, INDEX, weight)
        soft = Mobile((np.asarray([0, 0.2, 0.5, 0.3]), np.asarray([0.4, 0.6]), np.ones(1)))
        mixed, _, mixed_evaluated, _ = program(False)(variables, x, None, soft)
        assert worst((logits, evaluated), (mixed, mixed_evaluated)) < 1e-9
        used = tiny().used(variables, Mobile(tuple(map(Paths, INDEX.op, weight.op))))
    for name, idle in (("layer0", {"k3_e1", "k5_e2"}), ("layer1", {"k3_e2"}), ("layer2", set())):
        for op in grads[name]:
            still = worst(stats[name][op], variables["batch_stats"][name][op]) == 0
            no_gradient = not any(g.any() for g in jax.tree.leaves(grads[name][op]))
            on = all(m.all() for m in jax.tree.leaves(used["params"][name][op]))
            assert (still, no_gradient, on) == ((True, True, False) if op in idle else (False, False, True))


def test_the_other_paths_are_constants():
    """f = p x^2, by hand: dL/dp and dL/dx through the first path alone, dL/dweight through both."""

    def loss(weight, params, x):
        run = lambda op, params, stats, x: (params[op] * x**2, stats)
        return jnp.sum(single(run, ("k3_e1", "k5_e1"), Paths(jnp.asarray([1, 0]), weight), params, {}, x)[0])

    x = jnp.asarray([2.0, 3.0])
    value, grads = jax.value_and_grad(loss, (0, 1, 2))(jnp.asarray([0.5, 0.3]), {"k3_e1": 7.0, "k5_e1": 5.0}, x)
    assert worst(value, (0.5 * 5 + 0.3 * 7) * 13) < 1e-6
    assert worst(grads, (np.asarray([5 * 13, 7 * 13]), {"k3_e1": 0, "k5_e1": 0.5 * 13}, 0.5 * 5 * 2 * x)) < 1e-6


@pytest.mark.slow
def test_one_path_is_in_memory():
    """Temporary bytes of a training step.  Measured: mixture 4.90 MB, one path 0.96 MB, two paths 0.98 MB."""
    layer = MobileLayer(4, 4, 1, tuple(f"k3_e{e}" for e in range(2, 8)))
    net = mobile_net(mobile(MobileSpec((layer, layer), stem=4, head=4, stem_stride=1)), image=(8, 8, 1), classes=2)
    variables = jax.eval_shape(net.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((16, 8, 8, 1), jnp.float32)
    row = lambda n, dtype=jnp.float32: Mobile((jax.ShapeDtypeStruct((n,), dtype),) * 2)

    def bytes_of(index, weight):
        def step(variables, x, index, weight):
            def loss(params, weight):
                gates = weight if index is None else Mobile(tuple(map(Paths, index.op, weight.op)))
                logits, new = net.apply({**variables, "params": params}, x, gates, train=True)
                return jnp.sum(jnp.sin(logits)), new["batch_stats"]

            return jax.grad(loss, (0, 1), has_aux=True)(variables["params"], weight)

        return jit(step).lower(variables, x, index, weight).compile().memory_analysis().temp_size_in_bytes

    mixture = bytes_of(None, row(6))
    one, two = (bytes_of(row(n, jnp.int32), row(n)) for n in (1, 2))
    assert one < 0.3 * mixture and two < 1.1 * one


@pytest.mark.parametrize("forward", [True, False])
def test_the_active_path_has_second_derivatives(forward):
    """H u in forward over reverse, as `jaxnas.training.bilevel` has it, and in reverse over reverse: those of the mixture."""
    layer = MobileLayer(2, 2, 1, ("k3_e2", "zero"))
    net = mobile_net(mobile(MobileSpec((layer,), stem=2, head=2, stem_stride=1)), image=(3, 3, 1), classes=2)
    with jax.enable_x64(True):
        variables, u = (drawn(seed, jax.eval_shape(net.init, jax.random.key(0))) for seed in (0, 1))
        x, gates = np.random.default_rng(2).normal(size=(3, 3, 3, 1)), Mobile((np.asarray([1.0, 0.0]),))

        def product(path):
            loss = lambda p: jnp.sum(jnp.sin(net.apply({**variables, "params": p}, x, gates, train=True, path=path)[0]))
            along = lambda g: sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (g, u["params"])), strict=True))
            over = lambda p: jax.jvp(jax.grad(loss), (p,), (u["params"],))[1]
            return jit(over if forward and path else jax.grad(lambda p: along(jax.grad(loss)(p))))(variables["params"])

        assert worst(product(False), product(True)) < 1e-9


@pytest.mark.parametrize("path", [False, True])
def test_a_layer_of_one_candidate(path):
    layers = (MobileLayer(2, 2, 1, ("skip",)), MobileLayer(2, 2, 1, ("k3_e1",)))
    net = mobile_net(mobile(MobileSpec(layers, stem=2, head=2, stem_stride=1)), image=(3, 3, 1), classes=2)
    arch = net.space.from_text("skip k3_e1")
    module, extract = net.specialize(arch)
    variables, x = drawn(0, jax.eval_shape(net.init, jax.random.key(0)), wide=False), np.ones((2, 3, 3, 1), np.float32)
    logits = jit(lambda v: net.apply(v, x, net.space.gates(arch), train=False, path=path)[0])(variables)
    assert worst(jit(module.apply)(extract(variables), x), logits) < 1e-6


def test_weights_start_as_he_does():
    """Second moments: 2 / inputs of a filter; a group reads its own channels only."""
    run = jax.vmap(lambda key: tiny().init(key)["params"]["layer0"]["k3_e2_g2"])
    params = jit(run)(jax.random.split(jax.random.key(0), 200))
    for name, inputs in (("expand", 2), ("depthwise", 9), ("project", 4)):
        square = np.square(params[name]["kernel"])
        assert abs(np.mean(square) * inputs / 2 - 1) < 5 * np.sqrt(2 / square.size)
    assert np.all(params["project_norm"]["scale"] == 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mobile_net(nasbench201(), image=IMAGE, classes=2), "no mobile layers"),
        (lambda: mobile_net(tiny().space, image=IMAGE, classes=0), "positive"),
        (lambda: mobile_net(tiny().space, image=(1, 5, 1), classes=2), "`image` is"),
        (lambda: mobile_net(fbnet(), image=(28, 28, 1), classes=10), "`image` is .* multiply to 32"),
        (lambda: mobile_net(space([2]), image=IMAGE, classes=2), "no mobile layers"),
        (lambda: mobile(TINY._replace(layers=())), "at least one layer"),
        (lambda: mobile(TINY._replace(head=0)), "must be a positive integer"),
        (lambda: mobile(TINY._replace(fixed=3)), "layer 0 reads 4 channels"),
        (lambda: mobile(TINY._replace(layers=TINY.layers[1:])._replace(layers=TINY.layers[::2])), "layer 1 reads 2"),
        (lambda: mobile(TINY._replace(layers=(MobileLayer(4, 4, 1, ()),))), "needs candidates"),
        (lambda: mobile(TINY._replace(layers=(MobileLayer(4, 4, 1, ("zero", "zero")),))), "each once"),
        (lambda: mobile(TINY._replace(layers=(MobileLayer(4, 4, 2, ("k3_e1", "skip")),))), "cannot be left out"),
        (lambda: mobile(TINY._replace(layers=(MobileLayer(4, 5, 1, ("k3_e1_g2",)),))), "channels that 2 divides"),
        (lambda: mobile(TINY._replace(layers=(MobileLayer(4, 4, 1, ("k4_e1",)),))), "no candidate is called 'k4_e1'"),
        (lambda: mobile(TINY._replace(layers=(MobileLayer(4, 4, 0, ("k3_e1",)),))), "must be a positive integer"),
        (lambda: proxylessnas(widths=(40, 80)), "five stages"),
        (lambda: tiny().space.from_text("zero zero"), "has 2 layers"),
        (lambda: tiny().space.from_text("zero zero k3_e1"), "layer 1 is 'zero': it must be one of k3_e2, k3_e1_g2"),
    ],
)
def test_a_bad_space_net_or_text_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Costs


def toy():
    """(a space of three decisions, a cost of it)"""
    s = space([2, 3, 2])
    return s, cost(s, [[1, 4], [2, 0, 7], [3, 5]], base=10)


def test_one_hot_gates_cost_what_was_chosen():
    s, c = toy()
    archs = jit(jax.vmap(s.from_index))(jnp.arange(12))
    values = jit(jax.vmap(lambda arch: expected(c, s.gates(arch))))(archs)
    assert values.tolist() == [10 + sum(p) for p in itertools.product([1, 4], [2, 0, 7], [3, 5])]
    cells = nasbench201()  # whose gates are one matrix
    gates = cells.gates(cells.unflat(jnp.arange(6) % 5))
    assert float(expected(cost(cells, np.arange(30).reshape(6, 5)), gates)) == 0 + 6 + 12 + 18 + 24 + 25


def test_expected_cost_against_all_architectures_and_its_gradient():
    s, c = toy()
    alpha = [jax.random.normal(k, (n,)) for k, n in zip(jax.random.split(jax.random.key(0), 3), s.arity.tolist(), strict=True)]
    p = [np.asarray(jax.nn.softmax(a), float) for a in alpha]
    chances = [np.prod(one) for one in itertools.product(*p)]
    costs = [10 + sum(one) for one in itertools.product(*c.table)]
    value, grad = jit(jax.value_and_grad(lambda alpha: expected(c, jax.tree.map(jax.nn.softmax, alpha))))(alpha)
    np.testing.assert_allclose(value, np.dot(chances, costs), rtol=1e-6)
    for g, row, t in zip(grad, p, c.table, strict=True):
        np.testing.assert_allclose(g, row * (t - row @ t), rtol=1e-4, atol=1e-6)


FORMS = {
    "fbnet": (fbnet_product(), lambda loss, cost: loss * 0.2 * np.log(cost) ** 0.6),
    "proxyless": (proxyless_product(80.0), lambda loss, cost: 0.2 * loss * (np.log(cost) / np.log(80)) ** 0.3),
    "linear": (relative_excess(80.0), lambda loss, cost: loss + 0.1 * (cost - 80) / 80),
    "additive": (additive(0.02), lambda loss, cost: loss + 0.02 * cost),
    "absolute": (absolute_reward(70.0), lambda quality, cost: quality - 0.1 * abs(cost / 70 - 1)),  # not at its kink
    "power": (power_reward(80.0), lambda quality, cost: quality * (80 / cost) ** 0.1),
}


@pytest.mark.parametrize("name", list(FORMS))
def test_loss_forms(name):
    form, wanted = FORMS[name]
    with jax.enable_x64(True):
        for loss, c in ((2.3, 17.0), (0.4, 19_800.0), (1.0, 80.0)):
            value, slopes = jax.value_and_grad(form, (0, 1))(loss, c)
            np.testing.assert_allclose(value, wanted(loss, c), rtol=1e-12)
            h = 1e-4
            near = [(wanted(loss + h, c) - wanted(loss - h, c)) / (2 * h), (wanted(loss, c + h) - wanted(loss, c - h)) / (2 * h)]
            np.testing.assert_allclose(slopes, near, rtol=1e-6)


def test_a_cost_below_its_logarithm_is_finite():
    for form in (fbnet_product(), proxyless_product(80.0)):
        for c in (0.0, 0.5, 1.0):
            value, slope = jax.value_and_grad(form, 1)(1.0, c)
            assert np.isfinite(value) and slope == 0
        assert jax.grad(form, 1)(1.0, 1.1) > 0


def searched(form):
    """The odds of the cheaper of two candidates of equal accuracy and costs 1 and 3, after descent on the relaxed loss."""
    s = space([2])
    c = cost(s, [np.asarray([1.0, 3.0])], base=9)

    def loss(alpha):
        p = jax.nn.softmax(alpha)
        return form(jnp.sum(p * jnp.asarray([0.7, 0.7])), expected(c, [p]))

    return jit(lambda a: jax.nn.softmax(jax.lax.fori_loop(0, 500, lambda _, a: a - jax.grad(loss)(a), a)))(jnp.zeros(2))[0]


def test_the_cheaper_of_two_equals_wins():
    for form in (fbnet_product(alpha=1.0), proxyless_product(10.0, alpha=2.0), relative_excess(10.0, weight=0.3)):
        assert searched(form) > 0.95
    assert abs(searched(lambda loss, cost: loss) - 0.5) < 1e-6


def test_the_multiplier_of_a_constraint():
    """min x^2 + y^2 with cost 10 - x - 2 y at most 5: at (1, 2), where the multiplier is 2 x target = 10."""
    form, cost_of = lagrangian(5.0), lambda v: 10 - v[0] - 2 * v[1]

    def step(_, state):
        v, m = state
        v = v - 0.05 * jax.grad(lambda v: form(jnp.sum(v**2), cost_of(v), m))(v)
        return v, dual_ascent(m, cost_of(v), 5.0, 0.5)

    v, m = jit(lambda state: jax.lax.fori_loop(0, 3000, step, state))((jnp.zeros(2), jnp.zeros(())))
    assert abs(m / 10 - 1) < 0.01 and abs(cost_of(v) / 5 - 1) < 0.01
    assert dual_ascent(jnp.asarray(0.1), 1.0, 5.0, 1.0) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cost(space([2, 3]), [[1, 2]]), "`table` needs the structure"),
        (lambda: cost(space([2, 3]), [[1, 2], [1, 2]]), r"`table`\[1\] has shape \(2,\): give it the gates' \(3,\)"),
        (lambda: cost(space([2]), [[1, np.nan]]), r"`table`\[0\] has entries"),
        (lambda: cost(space([2]), [[1, -1]]), "negative or not finite"),
        (lambda: cost(space([2]), [[1, 1]], base=np.inf), "`base` of cost must be a number of at least 0; got inf"),
        (lambda: cost(tiny().space, mobile_macs(fbnet().spec, (32, 32, 1), 10)[0]), "`table` needs the structure"),
        (lambda: cost(mobile(TINY._replace(layers=TINY.layers[:1])), Mobile((np.ones(3),))), r"`table`\.op\[0\] has shape"),
        (lambda: fbnet_product(alpha=0), "`alpha` of fbnet_product must be a positive number; got 0"),
        (lambda: fbnet_product(beta=-1), "`beta` of fbnet_product must be a positive number; got -1"),
        (lambda: proxyless_product(0.08), "`reference` stands under a logarithm"),
        (lambda: relative_excess(0.0), "must be a positive number"),
        (lambda: relative_excess(1.0, weight=-1), "must be a number of at least 0"),
        (lambda: lagrangian(0.0), "must be a positive number"),
        (lambda: additive(-1.0), "must be a number of at least 0"),
        (lambda: absolute_reward(0.0), "must be a positive number"),
        (lambda: absolute_reward(1.0, beta=0.1), "`beta` must not be positive"),
        (lambda: power_reward(0.0), "must be a positive number"),
        (lambda: power_reward(1.0, power=-0.1), r"`power` of power_reward must be a number of at least 0; got -0\.1"),
        (lambda: priced(1.0, additive(1.0)), r"`cost` of priced must be a Cost or a function; got 1\.0"),
    ],
)
def test_a_bad_cost_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
