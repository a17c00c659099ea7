"""The memory-bank space, its networks, and the HyperNet that generates their weights (SMASH)."""

import functools
import importlib.util
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import both_ways, everything, jit, worst

from jaxnas import data, policies
from jaxnas.analysis import ranking
from jaxnas.base import Batch
from jaxnas.evaluate.shared import shared_weights
from jaxnas.nets._memory_bank_net import PointwiseWeights, memory_bank_net
from jaxnas.nets.base import count_parameters, count_used
from jaxnas.nets.hyper_net import HyperNet, embedding, standardised
from jaxnas.spaces._memory_bank import memory_bank
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import frozen

IMAGE, CLASSES, N, G = (4, 5, 1), 3, 2, 3
WIDER = ("x2 x1 0,2>1:k3d2g2 1>0,1,2:k1g1*", "x1 x2 1>0:k3d1g1* 0,1,2>2:k3d2g2*", "x2 x2 0>:k3d1g1 2>0,1:k3d1g2")
ARCHS = ("0,2>1:k3d2 1>0,1,2:k1*", "1>0:k3d1* 0,1,2>2:k3d2*", "0>:k3d1 2>0,1:k3d1")  # the last has one operation


@functools.cache
def tiny(hyper=True):
    """Two blocks of one operation, three banks."""
    space = memory_bank(1, 3, blocks=2, kernels=(1, 3), dilations=(1, 2))
    sizes = dict(channels=N, bottleneck=G, hyper=(4, 2) if hyper else None)
    return memory_bank_net(space, image=IMAGE, classes=CLASSES, **sizes)


@functools.cache
def wider(hyper=True):
    """The same, with groups and sizes of banks to search."""
    space = memory_bank(1, 3, blocks=2, kernels=(1, 3), dilations=(1, 2), groups=(1, 2), sizes=(1, 2))
    sizes = dict(channels=N, bottleneck=4, hyper=(4, 2) if hyper else None)
    return memory_bank_net(space, image=IMAGE, classes=CLASSES, **sizes)


@functools.cache
def drawn(hyper=True, net=tiny):
    """Variables none of which are as they start, in double precision."""
    shapes, rng = jax.eval_shape(net(hyper).init, jax.random.key(0)), np.random.default_rng(0)
    variables = jax.tree.map(lambda a: rng.normal(size=a.shape), shapes)
    return {**variables, "batch_stats": jax.tree.map(abs, variables["batch_stats"])}


def double(gates):
    return jax.tree.map(lambda g: np.asarray(g, np.float64), gates)


def images(n=3):
    return np.random.default_rng(1).normal(size=(n, *IMAGE))


# The space


def test_size():
    """A kernel of 1 has no dilation."""
    assert memory_bank(3, 4, kernels=(1, 3), dilations=(1, 2)).size == (2 ** (4 + 4) * (1 + 2) * 2) ** 3
    assert memory_bank(2, 3, blocks=4, kernels=(3, 5, 7), dilations=(1, 2, 3)).size == (2**6 * 9 * 2) ** 8
    assert memory_bank(2, 3, blocks=2, groups=(1, 2, 4, 8), sizes=(1, 2, 4)).size == (2**6 * (1 + 2 * 2) * 2 * 4) ** 4 * 3**2
    s = tiny().space
    assert s.size == (2**6 * 3 * 2) ** 2
    archs = jit(jax.vmap(s.from_index))(jnp.arange(0, int(np.prod(s.arity)), 997))  # every 997th setting
    on = np.asarray(jit(jax.vmap(s.active))(archs))
    np.testing.assert_array_equal(on[:, 14:16], np.asarray(archs.kernel) == 1)
    assert on[:, :14].all() and on[:, 16:].all()


@pytest.mark.parametrize("net", [tiny, wider])
def test_text_both_ways(net):
    s = net().space
    archs = jax.tree.map(np.asarray, jit(jax.vmap(s.sample))(jax.random.split(jax.random.key(0), 20)))
    v = jit(jax.vmap(s.flat))(archs)
    np.testing.assert_array_equal(jit(jax.vmap(lambda arch: s.flat(s.derive(s.gates(arch)))))(archs), v)
    texts = [s.to_text(jax.tree.map(lambda a, i=i: a[i], archs)) for i in range(20)]
    again = jax.tree.map(lambda *a: jnp.stack(a), *map(s.from_text, texts))
    np.testing.assert_array_equal(jax.vmap(s.flat)(again), v)
    assert [s.to_text(s.from_text(text)) for text in (ARCHS if net is tiny else WIDER)] == list(ARCHS if net is tiny else WIDER)


def test_an_operation_that_reads_or_writes_nothing_is_forgotten():
    s = tiny().space
    text = lambda text: s.to_text(s.canonical(s.from_text(text)))
    assert text(">1,2:k3d2* 0>0:k3d1") == ">:k1 0>0:k3d1"
    assert text("0>0:k3d1 1>:k3d2*") == "0>0:k3d1 >:k1"
    assert text(ARCHS[1]) == ARCHS[1]
    net = tiny()
    with jax.enable_x64(True):
        run = jit(lambda gates: net.apply(drawn(), images(), gates, train=False)[0])
        logits = lambda text: run(double(net.space.gates(s.from_text(text))))
        same, as_well, other = map(logits, (">1,2:k3d2* 0>0:k3d1", "0>:k1 0>0:k3d1", "0>0:k1 0>0:k3d1"))
    np.testing.assert_allclose(same, as_well, rtol=1e-9)
    assert worst(same, other) > 1e-3


# The HyperNet


def test_the_picture_by_hand():
    s = tiny().space
    arch = s.from_text(ARCHS[0])
    picture = np.asarray(embedding(s.gates(arch), G))
    reads, writes = np.asarray(arch.reads), np.asarray(arch.writes)
    assert picture.shape == (3 + 3 + 3 + 2 + 2 + 2 + 2 + 1 + G, G, 2, 3)
    for g, o, m in np.ndindex(G, 2, 3):
        hot = lambda n, i: np.eye(n)[int(i)]
        of_op = [reads[o], writes[o], hot(2, arch.kernel[o]), hot(2, arch.dilation[o]), hot(2, arch.gated[o]), hot(2, o)]
        np.testing.assert_array_equal(picture[:, g, o, m], np.concatenate([hot(3, m), *of_op, reads[o, m : m + 1], hot(G, g)]))


def test_the_picture_shows_groups_and_sizes():
    s = wider().space
    texts = ("x2 x1 0>1:k3d2g2 1>0:k1g1", "x2 x2 0>1:k3d2g2 1>0:k1g1", "x2 x1 0>1:k3d2g1 1>0:k1g1")
    first, size, group = (np.asarray(embedding(s.gates(s.from_text(text)), 4)) for text in texts)
    assert first.shape == (3 + 3 + 3 + 2 + 2 + 2 + 2 + 2 + 2 + 1 + 4, 4, 2, 3)
    assert np.argwhere((first != size).any((1, 3))).tolist() == [[17, 1], [18, 1]]  # label and operation: of the second block
    assert np.argwhere((first != group).any((1, 3))).tolist() == [[15, 0], [16, 0]]
    np.testing.assert_array_equal(first[15:19, 0, :, 0], np.asarray([[0, 1, 0, 1], [1, 0, 1, 0]]).T)


def test_the_hyper_net_is_convolutional():
    """Against loops, and the same parameters on a picture of any size: no bank is another's neighbour."""
    c = np.random.default_rng(0).normal(size=(4, 3, 5, 2))
    net = HyperNet(3, 1, 2)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: np.asarray(a, np.float64), net.init(jax.random.key(0), c))
        run = jit(net.apply)
        kernel = {name: p["kernel"] for name, p in params["params"].items()}

        def conv(x, w):
            k = w.shape[-1]
            x = np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0)))
            at = lambda g, o: np.einsum("dijm,edij->em", x[:, g : g + k, o : o + k], w)
            return np.stack([np.stack([at(g, o) for o in range(x.shape[2] - k + 1)], 1) for g in range(x.shape[1] - k + 1)], 1)

        relu = lambda x: np.maximum(x, 0)
        x = conv(c, kernel["first"])
        x = np.concatenate([x, conv(relu(x), kernel["dense0"])])
        assert worst(run(params, c), conv(relu(x), kernel["last"])) < 1e-9
        wide = np.concatenate([c, c + 1], 2)
        assert worst(run(params, wide)[:, :, :3], run(params, c)[:, :, :3]) < 1e-9  # two 3 x 3: two columns away
        np.testing.assert_array_equal(run(params, c[..., ::-1])[..., ::-1], run(params, c))


def test_generated_weights_have_mean_0_and_norm_1():
    v = np.random.default_rng(0).normal(3, 5, size=(2, G, 3, N))
    reads = np.asarray([[1, 0, 1], [0, 0, 0]], np.float64)
    with jax.enable_x64(True):
        w = np.asarray(standardised(v, reads[:, None]))
        assert abs(w[0].sum((1, 2))).max() < 1e-9  # mean 0 over the fan-in
        np.testing.assert_allclose(w[0].std((1, 2)) * np.sqrt(3 * N), 1, rtol=1e-9)
        np.testing.assert_allclose(w[0][:, [0, 2]].reshape(G, -1).var(1), 1 / (2 * N), rtol=1e-9)
        assert (w[0][:, 1] == 0).all() and (w[1] == 0).all()
        assert worst(w, standardised(7 * v + 2, reads[:, None])) < 1e-9
        narrow = np.asarray(standardised(v, reads[:, None], np.asarray([1.0, 0])))  # the first channel of each bank alone
        np.testing.assert_allclose(narrow[..., :1], standardised(v[..., :1], reads[:, None]), rtol=1e-9)
        assert (narrow[..., 1] == 0).all()


def relabelled(variables, order):
    """The same variables, with the banks' names permuted: wherever an axis has banks, or their labels."""
    rows = np.concatenate([m * N + np.arange(N) for m in order])
    labels = np.concatenate([k * 3 + np.asarray(order) for k in range(3)])

    def leaf(path, v):
        names = [p.key for p in path]
        if names[1] == "pointwise":
            first = names[3] == "first"
            return np.concatenate([v[:, labels], v[:, len(labels) :]], 1) if first else v
        if names[1].startswith("op"):
            return v[rows] if names[2] == "read" else v
        if names[1].startswith("halve") and v.ndim > 1:
            return v[rows][:, rows]
        return v[rows] if names[-1] != "bias" or names[1] != "classifier" else v

    return jax.tree_util.tree_map_with_path(leaf, variables)


def test_bank_labels_are_only_names():
    """Swapping two banks permutes the generated weights, and changes nothing else."""
    net, order = tiny(), [2, 1, 0]
    point = PointwiseWeights(G, N, (4, 2))
    with jax.enable_x64(True):
        run = jit(
            lambda v, gates: (point.apply({"params": v["params"]["pointwise"]}, gates), net.apply(v, images(), gates, train=False))
        )
        other = relabelled(drawn(), order)
        for text in ARCHS:
            gates = double(net.space.gates(net.space.from_text(text)))
            swapped = gates._replace(reads=gates.reads[:, order], writes=gates.writes[:, order])
            w, (logits, _) = run(drawn(), gates)
            w_swapped, (logits_swapped, _) = run(other, swapped)
            assert worst(w[:, :, order], w_swapped) < 1e-9 and worst(logits, logits_swapped) < 1e-9
            assert worst(w, w_swapped) > 1e-2  # and there is something to permute


# The networks


def bn(x, p, s):
    column = lambda a: a[:, None, None, None]
    return (x - column(s["mean"])) / np.sqrt(column(s["var"]) + 1e-5) * column(p["scale"]) + column(p["bias"])


def convolved(x, w, dilation=1):
    """[C, H, W, B] by [D, C, k, k], padded as PyTorch does."""
    k, p = w.shape[-1], dilation * (w.shape[-1] // 2)
    _, H, W, _ = x.shape
    x = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    taps = [(i, j, x[:, i * dilation : i * dilation + H, j * dilation : j * dilation + W]) for i in range(k) for j in range(k)]
    return sum(np.einsum("dc,chwb->dhwb", w[:, :, i, j], tap) for i, j, tap in taps)


def by_hand(text, variables, x):
    """The specialised network at its running statistics, in numpy."""
    params, stats = variables["params"], variables["batch_stats"]
    relu = lambda x: np.maximum(x, 0)
    norm = lambda x, *names: bn(x, *(functools.reduce(lambda t, n: t[n], names, tree) for tree in (params, stats)))
    x = norm(convolved(x.transpose(3, 1, 2, 0), params["stem"]["kernel"]), "stem_norm")
    banks = list(np.split(x, 3))
    for i, word in enumerate(word for word in text.split() if ":" in word):
        if i == 1:  # the second block
            x = convolved(relu(norm(np.concatenate(banks), "halve1_norm")), params["halve1"]["kernel"])
            x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
            x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
            banks = list(np.split(x, 3))
        edges, made = word.split(":")
        reads, writes = ([int(m) for m in part.split(",") if m] for part in edges.split(">"))
        if not reads or not writes:
            continue
        p = params[f"op{i}"]
        h = relu(norm(np.concatenate([banks[m] for m in reads]), f"op{i}", "read"))
        h = relu(convolved(h, p["point"]["kernel"]))
        dilation = 2 if "d2" in made else 1
        assert p["conv"]["kernel"].shape[-1] == int(made[1])
        group = re.search(r"g(\d)", made)
        parts = lambda a: np.split(a, int(group[1]) if group else 1)
        of = lambda name: np.concatenate(
            [convolved(*part, dilation) for part in zip(parts(h), parts(p[name]["kernel"]), strict=True)]
        )
        y = of("conv")
        if made.endswith("*"):
            y = np.tanh(y) / (1 + np.exp(-of("gate")))
        y = norm(y, f"op{i}", "write")
        for m in writes:
            banks[m] = banks[m] + y
    x = relu(norm(np.concatenate(banks), "head_norm"))
    return x.mean((1, 2)).T @ params["classifier"]["kernel"] + params["classifier"]["bias"]


@functools.cache
def program(hyper):
    def run(variables, x, gates):
        def loss(params, x):
            logits, new = tiny(hyper).apply({**variables, "params": params}, x, gates, train=True)
            return jnp.sum(jnp.sin(logits)), (logits, new["batch_stats"])

        grads, (logits, stats) = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)
        return logits, stats, tiny(hyper).apply(variables, x, gates, train=False)[0], grads

    return jit(run)


@pytest.mark.parametrize("text", ARCHS)
def test_the_program_of_any_architecture_is_the_network_of_one(text):
    """Outputs, batch statistics, gradients of images and of what is not generated; and against numpy."""
    net = tiny()
    arch = net.space.from_text(text)
    module, extract = net.specialize(arch)
    with jax.enable_x64(True):
        variables, gates, x = drawn(), double(net.space.gates(arch)), images()
        logits, stats, evaluated, (grads, to_x) = program(True)(variables, x, gates)
        small = jit(extract)(variables)
        wanted = jax.eval_shape(functools.partial(module.init, train=True), jax.random.key(0), x)
        assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, wanted)
        assert worst(evaluated, by_hand(text, jax.tree.map(np.asarray, small), x)) < 1e-9

        def plain(params, x):
            logits, new = module.apply({**small, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(logits)), (logits, new["batch_stats"])

        run = jit(lambda params, x: (jax.grad(plain, (0, 1), has_aux=True)(params, x), module.apply(small, x)))
        ((small_grads, small_to_x), (small_logits, small_stats)), small_evaluated = run(small["params"], x)
        assert worst((logits, evaluated, to_x), (small_logits, small_evaluated, small_to_x)) < 1e-9
        used = net.used(variables, gates)
        moved = jax.tree.map(lambda n, o, m: np.where(m > 0, n, o), stats, variables["batch_stats"], used["batch_stats"])
        found = extract({"params": {**grads, "pointwise": variables["params"]["pointwise"]}, "batch_stats": moved})
        ungenerated = lambda tree: jax.tree_util.tree_map_with_path(lambda p, v: 0 if p[-2].key == "point" else v, tree)
        assert worst(ungenerated(found["params"]), ungenerated(small_grads)) < 1e-9
        assert worst(found["batch_stats"], small_stats) < 1e-9


@functools.cache
def wider_program(hyper):
    return everything(wider(hyper))


@pytest.mark.parametrize("hyper", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("text", WIDER)
def test_with_groups_and_sizes_it_is_the_network_of_one(text, hyper):
    """Gradients of what generates the weights, too; and what an architecture lacks does not matter."""
    net, variables, x = wider(hyper), drawn(hyper, wider), images()
    arch = net.space.from_text(text)
    module, extract = net.specialize(arch)
    with jax.enable_x64(True):
        gates = double(net.space.gates(arch))
        mine, wanted, _ = both_ways(net, wider_program(hyper), arch, variables, x, gates)
        assert worst(mine, wanted) < 1e-9
        small = jax.tree.map(np.asarray, extract(variables))
        shapes = jax.eval_shape(functools.partial(module.init, train=True), jax.random.key(0), x)
        assert jax.tree.map(np.shape, small) == jax.tree.map(np.shape, shapes)
        assert worst(mine[2], by_hand(text, small, x)) < 1e-9
        used = net.used(variables, gates)
        others = jax.tree.map(lambda on, v: np.where(on > 0, v, 3 * v + 1), used, variables)
        assert worst(wider_program(hyper)(others, x, gates)[2], mine[2]) < 1e-9
        if not hyper:  # else the HyperNet is counted, and not what it generates
            assert float(count_used(net, gates)) == count_parameters(small)


@pytest.mark.parametrize("text", ARCHS)
def test_what_an_architecture_does_not_use_has_no_gradient(text):
    """And what it uses is what its module has: with weights of its own."""
    net = tiny(False)
    arch = net.space.from_text(text)
    with jax.enable_x64(True):
        variables, gates = drawn(False), double(net.space.gates(arch))
        _, _, _, (grads, _) = program(False)(variables, images(), gates)
        used = net.used(variables, gates)
        idle = jax.tree.map(lambda g, m: np.where(m > 0, 0, g), grads, used["params"])
        assert max(abs(g).max() for g in jax.tree.leaves(idle)) < 1e-12
        shares = jax.tree.map(lambda m, v: int(np.sum(np.broadcast_to(m, v.shape))), used, variables)
        small = net.specialize(arch)[1](variables)
        assert sum(jax.tree.leaves(shares)) == sum(np.size(v) for v in jax.tree.leaves(small))


def test_the_loss_reaches_every_weight_of_the_hyper_net():
    net = tiny()
    with jax.enable_x64(True):
        gates = double(net.space.gates(net.space.from_text(ARCHS[1])))
        _, _, _, (grads, _) = program(True)(drawn(), images(), gates)
    hyper = jax.tree.map(np.asarray, grads["pointwise"]["hyper"])
    largest = {name: abs(g["kernel"]).max() for name, g in hyper.items()}
    assert set(largest) == {"first", "dense0", "dense1", "last"} and min(largest.values()) > 1e-4
    assert (abs(hyper["first"]["kernel"]).max((0, 2, 3)) > 0).mean() > 0.8  # and nearly every label


@functools.cache
def trained():
    """A few steps on random architectures; (states of one seed before and after, the losses)."""
    net = tiny()
    search = weight_sharing(net, policies.uniform(net.space), frozen, Weights(sgd(0.05)))
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, (1, 12))
    x = rng.normal(size=(1, 12, *IMAGE)) + y[..., None, None, None]
    batch = Batch(train=jax.tree.map(jnp.asarray, (x.astype(np.float32), y.astype(np.int32))))
    start = jit(search.init)(jax.random.key(0))
    scan = lambda key, state: jax.lax.scan(lambda s, k: search.step(k, s, batch), state, jax.random.split(key, 60))
    end, info = jit(scan)(jax.random.key(1), start)
    return batch, start, end, np.asarray(info.loss)


def test_it_trains_and_scores_as_any_supernet_does():
    """The HyperNet as an evaluator is `shared_weights`."""
    batch, start, end, losses = trained()
    assert losses[-20:].mean() < 0.75 * losses[:10].mean()
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), start.variables["params"], end.variables["params"])
    assert min(jax.tree.leaves(moved["pointwise"])) > 0
    net = tiny()
    archs = jax.vmap(net.space.sample)(jax.random.split(jax.random.key(2), 6))
    evaluator = shared_weights(net)
    score = jit(
        lambda archs, fixed: evaluator.step(jax.random.key(0), (), archs, batch._replace(valid=batch.train, fixed=fixed))[1]
    )
    before, after = (np.asarray(score(archs, state.variables)["loss"]) for state in (start, end))
    assert np.isfinite(after).all() and after.mean() < before.mean()
    assert len(np.unique(after)) == 6


def test_bad_input():
    for wrong, says in (
        (dict(ops=0), "ops"),
        (dict(banks=0), "banks"),
        (dict(kernels=(2, 3)), "centre"),
        (dict(kernels=()), "kernels"),
        (dict(dilations=(1, 1)), "dilations"),
        (dict(groups=()), "groups"),
        (dict(sizes=(2, 2)), "sizes"),
    ):
        with pytest.raises(ValueError, match=says):
            memory_bank(**wrong)
    s = tiny().space
    for text, says in (
        ("0>1:k3", "1 words"),
        ("0>1 0>1:k3", "operation 0"),
        ("0>3:k3d1 0>1:k1", "0 to 2"),
        ("0>1:k5 0>1:k1", "kernels"),
        ("0>1:k1g2 0>1:k1", "operation 0"),
    ):
        with pytest.raises(ValueError, match=says):
            s.from_text(text)
    for text, says in (
        ("0>1:k1g1 0>1:k1g1", "2 sizes"),
        ("x1 x3 0>1:k1g1 0>1:k1g1", "block 1 are 'x3'"),
        ("x1 x2 0>1:k1 0>1:k1g1", "operation 0"),
        ("x1 x2 0>1:k1g3 0>1:k1g1", "groups"),
    ):
        with pytest.raises(ValueError, match=says):
            wider().space.from_text(text)
    with pytest.raises(ValueError, match="must divide"):
        memory_bank_net(wider().space, image=IMAGE, classes=CLASSES, channels=3)
    for space, wrong, says in (
        (nasbench201(), {}, "memory_bank"),
        (s, dict(image=(1, 4, 1)), "at least 2"),
        (s, dict(channels=1), "2 channels"),
        (s, dict(hyper=(0, 2)), "positive"),
        (s, dict(stem=2), "centre"),
    ):
        with pytest.raises(ValueError, match=says):
            memory_bank_net(space, **{"image": IMAGE, "classes": CLASSES, **wrong})


@pytest.mark.slow
def test_the_hyper_net_ranks_architectures_and_a_small_one_less(monkeypatch):
    """40 architectures on digits: validation accuracy of generated weights against that of two epochs of their own."""
    path = pathlib.Path(__file__).parents[1] / "experiments" / "smash.py"
    monkeypatch.syspath_prepend(str(path.parent))  # for what experiments share
    made = importlib.util.spec_from_file_location("smash_experiment", path)
    e = importlib.util.module_from_spec(made)
    made.loader.exec_module(e)
    s = e.SMOKE
    k_data, k_archs, k_alone, _, k_train, _ = jax.random.split(jax.random.key(0), 6)  # the experiment's
    dataset, space = data.load(s.data, k_data, valid=s.valid), memory_bank(**s.space)
    make = lambda hyper: memory_bank_net(space, image=dataset.image, classes=dataset.classes, hyper=hyper, **s.net)
    archs = jax.vmap(space.sample)(jax.random.split(k_archs, s.archs))
    truth = e.stand_alone(k_alone, s, make(None), dataset, archs)
    assert ranking.reliability(truth) > 0.8

    def rank(hyper, i):
        variables, score = e.smash(jax.random.fold_in(k_train, i), s, make(hyper), dataset)
        return ranking.spearman(np.asarray(score(variables, archs)), truth.mean(1))

    large, small = (np.mean([rank(hyper, i) for i in range(s.seeds)]) for hyper in (s.hyper, (s.hyper[0] // 16, s.hyper[1])))
    assert large >= 0.4 and small < large, (large, small)
