"""Zero-cost proxies against what the specialised network, NumPy and the published counts say."""

import contextlib
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import cell_space, toy_net
from quick import jit

import jaxnas as nas
from jaxnas import proxies
from jaxnas.app import rank
from jaxnas.evaluate import zero_cost
from jaxnas.nets import probe
from jaxnas.nets.cell_cost import multiply_adds
from jaxnas.nets.layers import BatchNorm, Conv, Dense, Depthwise, to_net
from jaxnas.proxies._synflow import flows
from jaxnas.proxies.kernel import _signs, sign_kernel
from jaxnas.proxies.saliency import _activation
from jaxnas.proxies.size import _counted
from jaxnas.spaces._space import is_shape
from jaxnas.weight_sharing._te_nas import _mixing, ntk_of_all

SPACE = nas.spaces.nasbench201()
RICH = SPACE.from_text("|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|nor_conv_3x3~1|skip_connect~2|")
SKIPS = SPACE.from_text("|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|")
CUT = SPACE.from_text("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|none~1|none~2|")  # nothing reaches the end
S, B, IMAGE, CLASSES = 2, 4, (6, 6, 2), 3
NAMES = tuple(proxies.PROXIES)


class Toy(nn.Module):
    """Two ways of a gate each, and what the cell nets have around them: stem, norms, cuts, head."""

    @nn.compact
    def __call__(self, x, gates, train):
        x = probe.relu(BatchNorm(name="norm0")(Conv(3, 3, name="stem")(to_net(x)), train))
        (x,) = probe.whole(x)
        x = gates[0] * Conv(3, name="dense")(x) + gates[1] * Depthwise(3, name="depthwise")(x)
        x = probe.relu(BatchNorm(name="norm1")(x, train))
        return Dense(CLASSES, name="classifier")(jnp.mean(probe.last(x), (1, 2)).T)


@functools.cache
def toy():
    """-> (net of two decisions, each there or not, variables, batch), in float64."""
    on = lambda gates: (gates > 0.5).astype(jnp.int32)
    space = nas.spaces.space((np.full(2, 2),), gates=lambda a: a[0].astype(float), derive=lambda g: (on(g),), gate_shapes=(2,))
    module = Toy()

    def apply(variables, x, gates, *, train, path=False, key=None, t=None):
        logits, new = module.apply(variables, x, gates, train, mutable=["batch_stats"])
        return logits, {**variables, **new}

    def used(variables, gates):
        on = {"dense": gates[0], "depthwise": gates[1]}
        return jax.tree_util.tree_map_with_path(lambda path, v: jnp.full((1,) * v.ndim, on.get(path[1].key, 1.0)), variables)

    init = lambda key, gates=None: module.init(key, jnp.zeros((1, *IMAGE)), jnp.ones(2), True)
    net = nas.nets.Net(init, apply, used, None, space, IMAGE, CLASSES)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: np.asarray(a, np.float64), proxies.drawn(net, jax.random.key(0), "uniform"))
        k_x, k_y = jax.random.split(jax.random.key(1))
        x = jax.random.normal(k_x, (S, B, *IMAGE), jnp.float64)
        return net, variables, (np.asarray(x), np.asarray(jax.random.randint(k_y, (S, B), 0, CLASSES)))


@functools.cache
def scores():
    """{proxy: [3]} of both ways, of the dense one alone, and of none."""
    net, variables, batch = toy()
    with jax.enable_x64(True):
        all_of = lambda v, gates, batch: {n: f(net, v, gates, batch) for n, f in proxies.PROXIES.items()}
        run = lambda v, gates, batch: jax.lax.map(lambda g: all_of(v, g, batch), gates)
        return jax.tree.map(np.asarray, jit(run)(variables, jnp.asarray([[1.0, 1], [1, 0], [0, 0]]), batch))


def alone():
    """The network of both ways as a function: (logits_of(params, x), params, its kernels of a tree)."""
    net, variables, _ = toy()
    logits_of = lambda params, x: net.apply({**variables, "params": params}, x, jnp.ones(2), train=True)[0]
    kernels = lambda tree: [a for path, a in jax.tree_util.tree_leaves_with_path(tree) if path[-1].key == "kernel"]
    return logits_of, variables["params"], kernels


def loss(params, x, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(alone()[0](params, x)), y[:, None], 1))


@functools.cache
def gradients():
    """The gradient of each batch, of the specialised network's kernels."""
    with jax.enable_x64(True):
        g = jit(jax.vmap(jax.grad(loss), (None, 0, 0)))(alone()[1], *toy()[2])
        return [np.asarray(a) for a in alone()[2](g)]


@pytest.mark.slow
def test_saliencies_are_those_of_the_network_alone():
    w, g = [np.asarray(a) for a in alone()[2](alone()[1])], gradients()
    assert scores()["grad_norm"][0] == pytest.approx(sum(np.linalg.norm(a[0]) for a in g), rel=1e-9)
    assert scores()["snip"][0] == pytest.approx(sum(np.abs(a[0] * b).sum() for a, b in zip(g, w, strict=True)), rel=1e-9)
    size = [np.abs(a) for a in g]
    ratios = [a.mean(0)[a.std(0) > 0] / a.std(0)[a.std(0) > 0] for a in size]
    assert scores()["zico"][0] == pytest.approx(sum(np.log(r.sum()) for r in ratios), rel=1e-9)
    assert scores()["params"].tolist() == [sum(a.size for a in w), sum(a.size for a in w) - 27, sum(a.size for a in w) - 36]


def test_grasp_is_minus_the_hessian_times_the_gradient_by_finite_differences():
    x, y = (a[0] for a in toy()[2])
    _, params, kernels = alone()
    with jax.enable_x64(True):
        is_kernel = jax.tree_util.tree_map_with_path(lambda path, a: float(path[-1].key == "kernel"), params)
        grad = jit(lambda p: jax.tree.map(jnp.multiply, jax.grad(loss)(p, x, y), is_kernel))
        g, step = grad(params), 1e-5
        there, back = (grad(jax.tree.map(lambda p, d: p + s * d, params, g)) for s in (step, -step))
        inner = lambda a: sum(np.sum(u * v) for u, v in zip(kernels(a), kernels(params), strict=True))
        assert scores()["grasp"][0] == pytest.approx(float(inner(back) - inner(there)) / (2 * step), rel=1e-6)


def test_fisher_is_the_square_of_the_gradient_of_each_channel_s_gate():
    """sum over the map of a dL/da is the derivative of a factor m[c, b] on the output, at m = 1."""
    x, y = (a[0] for a in toy()[2])
    with jax.enable_x64(True):
        fans, shapes = [], []
        with probe.probing(probe.Probe(linear=lambda tap, a, n: (fans.append(n), shapes.append((a.shape[0], B)), a)[-1])):
            jax.eval_shape(lambda: loss(alone()[1], x, y))

        def gated(gates):
            left = iter(gates)
            factor = lambda tap, a, n: a * jnp.expand_dims(m, tuple(range(1, a.ndim - 1))) if (m := next(left)) is not None else a
            with probe.probing(probe.Probe(linear=factor)):
                return loss(alone()[1], x, y)

        g = jit(jax.grad(gated))([jnp.ones(shape) for shape in shapes])
    expected = sum(n / 2 * np.sum(np.mean(np.square(a), -1)) for n, a in zip(fans, g, strict=True))
    assert scores()["fisher"][0] == pytest.approx(expected, rel=1e-9)


def test_synflow_is_conserved():
    """Every layer that all paths cross has sum |W dR/dW| = R, and so have two ways together; the score is the log of the sum."""
    net, variables, batch = toy()
    with jax.enable_x64(True):
        log_r, flow = jit(lambda v: flows(net, v, jnp.ones(2), batch))(variables)
        with probe.probing(probe.Probe(norms=False)):
            R = np.sum(alone()[0](jax.tree.map(jnp.abs, alone()[1]), jnp.ones((1, *IMAGE))))
    sums = {
        name: float(np.exp(log_r) * np.sum(np.asarray(leaves["kernel"]))) for name, leaves in flow.items() if "kernel" in leaves
    }
    ways = sums.pop("dense") + sums.pop("depthwise")
    assert [*sums.values(), ways] == pytest.approx([float(R)] * 3, rel=1e-9)
    assert scores()["synflow"][0] == pytest.approx(np.log(3 * float(R)), rel=1e-12)


def test_synflow_needs_no_float64():
    """Weights a thousand million times as large: three layers that all cross, each adds its log to the score."""
    net, variables, batch = jax.tree.map(lambda a: a.astype(np.float32) if isinstance(a, np.ndarray) else a, toy())
    large = {**variables, "params": jax.tree.map(lambda w: 1e15 * w, variables["params"])}
    score = jit(lambda v: proxies.synflow(net, v, jnp.ones(2), batch))(large)
    assert score == pytest.approx(scores()["synflow"][0] + 3 * np.log(1e15), rel=1e-5) and score > 88.7  # float32 ends at e^88.7


def test_the_kernel_of_signs_counts_agreements():
    x = toy()[2][0][0]
    signs = []
    with jax.enable_x64(True):
        with probe.probing(probe.Probe(relu=lambda tap, a, f: (signs.append(np.asarray(a > 0)), f(a))[-1])):
            alone()[0](alone()[1], x)
        K, _ = jit(lambda v: sign_kernel(toy()[0], v, jnp.ones(2), x))(toy()[1])
    z = np.concatenate([s.reshape(-1, B) for s in signs]).T  # [B, units]
    assert np.array_equal(K, (z[:, None] == z[None]).sum(-1)) and np.array_equal(K, K.T)
    assert (np.diagonal(K) == z.shape[1]).all()
    assert scores()["nwot"][0] == pytest.approx(np.linalg.slogdet(np.asarray(K))[1], rel=1e-9)
    assert scores()["regions"][0] == len(np.unique(z, axis=0))


def counting(tap):
    return probe.Probe(tap, linear=lambda tap, y, n: _counted(tap, y, jnp.asarray(n, y.dtype)))


def comparing(tap):
    return probe.Probe(tap, relu=lambda tap, x, f: _signs(tap, x, f(x)))


def gating(tap):
    """The square of what reaches each output of a layer: it depends on the cotangents, which others must not change."""
    return probe.Probe(tap, linear=lambda tap, y, n: _activation(tap, y, jnp.asarray(n, y.dtype)))


def looking(seen):
    return lambda tap: probe.Probe(tap, last=seen.append)


def probed(net, variables, gates, x, path, probes):
    """The cotangents of the probes' taps and of the weights, of the sum of a net's logits."""

    def out(taps, params):
        with contextlib.ExitStack() as stack:
            for make, tap in zip(probes, taps, strict=True):
                stack.enter_context(probe.probing(make(tap)))
            return jnp.sum(net.apply({**variables, "params": params}, x, gates, train=True, path=path)[0])

    zeros = {comparing: jnp.zeros((len(x), len(x)), x.dtype)}
    taps = tuple(zeros.get(make, jnp.zeros((), x.dtype)) for make in probes)
    return jax.grad(out, (0, 1))(taps, variables["params"])


@pytest.mark.parametrize("path", [True, False])
def test_nested_probes_tell_what_each_tells_alone(path):
    """Through the scans, switches and vmaps of a cell net, of one path and of a mixture with gates of 0; to the last bit."""
    space = nas.spaces.darts(nodes=1, ops=("skip_connect", "nor_conv_1x1", "nor_conv_3x3"))
    net = nas.cell_net(space, image=IMAGE, classes=CLASSES, channels=2, cells=1)
    variables, x = jit(net.init)(jax.random.key(0)), toy()[2][0][0].astype(np.float32)
    rows = jnp.asarray([[0.0, 0, 1], [0, 1, 0]] if path else [[0.25, 0.75, 0], [0.5, 0, 0.5]])
    gates = jax.tree.map(lambda shape: rows, space.gate_shapes, is_leaf=is_shape)
    run = lambda *probes: jit(lambda v: probed(net, v, gates, x, path, probes))(variables)
    (count,), bare = run(counting)
    (signs,), under_signs = run(comparing)
    (squares,), _ = run(gating)
    assert count > 0
    assert signs.min() > 0
    assert squares > 0
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    jax.tree.map(close, under_signs, bare)  # a probe changes no gradient
    order = (gating, counting, comparing) if path else (comparing, gating, counting)
    found, moved = run(*order)
    found = dict(zip(order, found, strict=True))
    assert found[counting] == count
    np.testing.assert_array_equal(found[comparing], signs)
    close(found[gating], squares)
    jax.tree.map(close, moved, bare)


def test_nested_probes_both_see_the_last_maps_and_both_may_take_the_norms_out():
    net, variables, (x, _) = toy()
    inner, outer = [], []
    with jax.enable_x64(True):
        apply = lambda: net.apply(variables, x[0], jnp.ones(2), train=True)[0]
        with probe.probing(probe.Probe(norms=False)):
            bare = apply()
        for off in (0, 1):
            with probe.probing(probe.Probe(last=outer.append, norms=off != 0)):
                with probe.probing(probe.Probe(last=inner.append, norms=off != 1)):
                    np.testing.assert_array_equal(apply(), bare)
                assert probe.norms() == (off != 0)
    assert len(inner) == len(outer) == 2
    assert all(a is b for a, b in zip(inner, outer, strict=True))
    assert probe.norms()


def test_what_is_measured_on_the_side_is_not_seen():
    """Multiply-adds of a module are counted by tracing it: that is no part of the net which is looked at."""
    seen = []
    with probe.probing(probe.Probe(linear=lambda tap, y, n: (seen.append(n), y)[1])):
        assert multiply_adds(Conv(3, 3), (2, 4, 4, 1)) == 4 * 4 * 3 * 18
    assert not seen


def test_jacobians_are_those_of_the_network_alone():
    x, _ = (a[0] for a in toy()[2])
    logits_of, params, kernels = alone()
    with jax.enable_x64(True):
        J = np.asarray(jit(jax.grad(lambda x: jnp.sum(logits_of(params, x))))(x)).reshape(B, -1)
        rows = jit(jax.jacrev(lambda p: jnp.sum(logits_of(p, x), -1)))(params)
    v = np.linalg.eigvalsh(np.corrcoef(J))
    assert scores()["jacob_cov"][0] == pytest.approx(-np.sum(np.log(v + 1e-5) + 1 / (v + 1e-5)), rel=1e-4)  # v goes to 0
    rows = np.concatenate([np.asarray(a).reshape(B, -1) for a in kernels(rows)], 1)
    v = np.linalg.eigvalsh(rows @ rows.T)
    assert scores()["ntk"][0] == pytest.approx(-v[-1] / v[0], rel=1e-6)


def condition(jacobian, name):
    """v_max / v_min of J J^T over the leaves of these names, in NumPy; jacobian: a tree of [B, ...]."""
    leaves = [a for path, a in jax.tree_util.tree_leaves_with_path(jacobian) if path[-1].key in name]
    J = np.concatenate([np.asarray(a).reshape(len(a), -1) for a in leaves], 1)
    v = np.linalg.eigvalsh(J @ J.T)
    return v[-1] / v[0]


def test_the_tangent_kernel_may_be_over_the_norms_scales_too():
    """And never over biases; those scales' derivatives are also finite differences."""
    net, variables, batch = toy()
    x, (logits_of, params, _) = batch[0][0], alone()
    with jax.enable_x64(True):
        both, plain = jit(lambda v: [proxies.ntk(net, v, jnp.ones(2), batch, scales) for scales in (True, False)])(variables)
        run = lambda p: jnp.sum(logits_of(p, x), -1)
        fast, jacobian = jit(run), jit(jax.jacrev(run))(params)
        for norm, c in itertools.product(("norm0", "norm1"), range(3)):
            scale = lambda by, norm=norm, c=c: {**params[norm], "scale": params[norm]["scale"] + by * np.eye(3)[c]}
            up, down = (np.asarray(fast({**params, norm: scale(by)})) for by in (1e-6, -1e-6))
            np.testing.assert_allclose(jacobian[norm]["scale"][:, c], (up - down) / 2e-6, rtol=1e-6, atol=1e-8)
    assert -float(both) == pytest.approx(condition(jacobian, ("kernel", "scale")), rel=1e-9)
    assert -float(plain) == pytest.approx(condition(jacobian, ("kernel",)), rel=1e-9)
    assert abs(float(both) / float(plain) - 1) > 1e-3


def test_te_nas_measures_a_supernet_with_affine_norms():
    """Its default, of a mixture with gates of 0: J over the kernels and scales of what is alive, in float64."""
    cells = nas.spaces.darts(nodes=1, ops=("skip_connect", "nor_conv_1x1", "avg_pool_3x3"))
    build = lambda affine: nas.cell_net(cells, image=IMAGE, classes=CLASSES, channels=2, cells=1, affine=affine)
    net, batch = build(True), toy()[2]
    gates = jax.tree.map(lambda shape: jnp.asarray([[0.5, 0.5, 0], [0.5, 0, 0.5]]), cells.gate_shapes, is_leaf=is_shape)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: np.asarray(a, np.float64), jit(net.init)(jax.random.key(0)))
        found = jit(lambda v: ntk_of_all(_mixing(net), v, gates, batch))(variables)
        run = lambda p: jnp.sum(net.apply({**variables, "params": p}, batch[0][0], gates, train=True)[0], -1)
        jacobian = jit(jax.jacrev(run))(variables["params"])
    assert -float(found) == pytest.approx(condition(jacobian, ("kernel", "scale")), rel=1e-7)
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"]["cell0"])
    assert [a.shape for path, a in leaves if path[-1].key == "scale"] == [(1, 4)] * 4  # two operations of each of the two edges
    without = jax.eval_shape(build(False).init, jax.random.key(0))["params"]["cell0"]
    assert {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(without)} == {"kernel"}


def test_zen_is_the_difference_of_maps_and_the_running_variances():
    net, variables, _ = toy()
    with jax.enable_x64(True):
        x, e = (jax.random.normal(k, (B, *IMAGE), jnp.float64) for k in jax.random.split(jax.random.key(0)))
        maps = []
        with probe.probing(probe.Probe(last=maps.append)):
            for image in (x, x + 0.01 * e):
                _, variables = net.apply(variables, image, jnp.ones(2), train=True)
        norms = jax.tree_util.tree_leaves_with_path(variables["batch_stats"])
        scale = sum(np.log(np.mean(v)) / 2 for path, v in norms if path[-1].key == "var")
        expected = np.log(np.mean(np.sum(np.abs(maps[0] - maps[1]), (0, 1, 2)))) + scale
    assert scores()["zen"][0] == pytest.approx(float(expected), rel=1e-9)


def test_a_network_without_a_way_from_input_to_output_scores_lowest():
    for name in set(NAMES) - {"params", "flops"}:  # sizes count what is there
        assert np.isfinite(scores()[name]).all(), name
        assert scores()[name][2] == proxies.LOWEST < min(scores()[name][:2]), name


def test_multiply_adds_are_the_published_ones():
    net = nas.cell_net(SPACE, image=(32, 32, 3), classes=10)
    batch = jnp.zeros((1, 2, 32, 32, 3)), jnp.zeros((1, 2), jnp.int32)
    archs = jax.tree.map(lambda *a: jnp.stack(a), SKIPS, SPACE.unflat(jnp.full(6, 3)))
    count = lambda variables, archs: jax.lax.map(lambda a: proxies.flops(net, variables, SPACE.gates(a), batch), archs)
    variables = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(net.init, jax.random.key(0)))
    assert jit(count)(variables, archs).tolist() == [7_783_040, 220_119_680]


@functools.cache
def in_cells(names):
    """{proxy: [2]} of RICH and CUT by the supernet's single path, and of RICH by its specialised network; float64."""
    net = nas.cell_net(SPACE, image=IMAGE, classes=CLASSES, channels=2, cells=2)
    batch = toy()[2]
    with jax.enable_x64(True):
        variables = jit(lambda key: proxies.drawn(net, key, "uniform"))(jax.random.key(0))
        variables = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
        of = lambda net, v, gates: {name: proxies.PROXIES[name](net, v, gates, batch) for name in names}
        archs = jax.tree.map(lambda *a: jnp.stack(a), RICH, CUT)
        path = jit(lambda v: jax.lax.map(lambda arch: of(net, v, SPACE.gates(arch)), archs))(variables)
        module, extract = net.specialize(RICH)

        def apply(variables, x, gates, *, train, path=False, key=None, t=None):
            logits, new = module.apply(variables, x, train=True, mutable=["batch_stats"])
            return logits, {**variables, **new}

        used = lambda variables, gates: jax.tree.map(lambda v: jnp.ones((1,) * v.ndim), variables)
        plain = net._replace(apply=apply, used=used)
        return path, jit(lambda v: of(plain, v, None))(extract(variables))


def agrees(names):
    path, plain = in_cells(names)
    for name in names:
        assert float(path[name][0]) == pytest.approx(float(plain[name]), rel=1e-5 if name == "jacob_cov" else 1e-8), name
        assert float(path[name][1]) == proxies.LOWEST, name


@pytest.mark.slow
def test_a_single_path_of_cells_scores_as_the_specialised_network():
    """Through the scan over cells, the scan over edges, the switch, and its backward pass of its own."""
    agrees(("fisher", "nwot"))


@pytest.mark.slow
@pytest.mark.parametrize("names", [("grad_norm", "snip", "zico"), ("grasp",), ("synflow", "zen"), ("jacob_cov", "regions", "ntk")])
def test_and_so_do_the_others(names):
    agrees(names)


def test_aggregates_are_of_ranks():
    columns = jnp.asarray([[1.0, 10.0, 3.0], [2.0, 30.0, 1.0], [2.0, 20.0, 2.0], [0.0, 0.0, 0.0]])
    assert np.array_equal(proxies.aggregate.rank_scores(columns), [[2, 2, 4], [3.5, 4, 2], [3.5, 3, 3], [1, 1, 1]])
    assert np.allclose(proxies.rank_average(columns), [8 / 12, 9.5 / 12, 9.5 / 12, 3 / 12])
    assert np.allclose(proxies.vote(columns), [1.0, 2.5, 2.5, 0.0])  # the two in the middle tie, one for each
    assert np.allclose(proxies.log_rank(columns)[3], 3 * np.log(1 / 4))


def test_what_cannot_be_scored_is_said():
    net, variables, (x, y) = toy()
    gates = jnp.ones(2)
    for f, batch, word in (
        (proxies.snip, (x[:, :1], y[:, :1]), "two examples"),
        (proxies.snip, (x[0], y[0]), "batches"),
        (proxies.zico, (x[:1], y[:1]), "at least two"),
    ):
        with pytest.raises(ValueError, match=word):
            f(net, variables, gates, batch)
    for args, word in ((("foo",), "unknown proxy foo"), ((), "unknown proxy"), (("zen", "snip"), "other weights")):
        with pytest.raises(ValueError, match=word):
            zero_cost(net, *args)
    odd = {"params": {"cell": {"taps": np.ones((2, 3))}}}
    other = net._replace(used=lambda variables, gates: jax.tree.map(np.ones_like, variables))
    with pytest.raises(ValueError, match=r"this net has .*taps.*: take another evaluator"):
        proxies.params(other, odd, gates, (x, y))
    with pytest.raises(ValueError, match="unknown draw"):
        zero_cost(net, "snip", draw="zero")


def test_candidates_share_a_draw_or_have_their_own():
    net, _, (x, y) = toy()
    net = net._replace(space=net.space._replace(gates=lambda a: a[0].astype(np.float32)))
    alike, data = (jnp.ones((5, 2), jnp.int32),), (x.astype(np.float32), y)
    of = lambda own, chunk=2: rank.scored(
        jax.random.key(0), net, alike, data, ("params", "snip"), evaluator=functools.partial(zero_cost, own=own), chunk=chunk
    )
    shared, own = of(False), of(True)
    assert np.array_equal(own["snip"], of(True, 5)["snip"])
    assert len(set(shared["snip"])) == 1 and len(set(own["snip"])) == 5
    assert len({*shared["params"], *own["params"]}) == 1


def test_constant_inputs_and_one_class_are_scored():
    net, variables, (x, y) = toy()
    gates = jnp.ones(2)
    with jax.enable_x64(True):
        for f in (proxies.nwot, proxies.jacob_cov):
            assert jit(lambda v, f=f: f(net, v, gates, (np.zeros_like(x), y)))(variables) <= 0
        assert np.isfinite(jit(lambda v: proxies.snip(net, v, gates, (x, np.zeros_like(y))))(variables))


@pytest.mark.parametrize("by", ["trainability", "expressivity"])
def test_te_nas_keeps_what_the_ranks_say(by):
    """A mixture costs the mean price of its operations.  By trainability the dearest goes, by expressivity the cheapest."""
    net = toy_net(cell_space())
    price = jax.random.permutation(jax.random.key(0), jnp.arange(1.0, 13)).reshape(4, 3)
    rows = lambda gates: jnp.concatenate(jax.tree.leaves(gates))
    flat = lambda sign: lambda *_: jnp.asarray(sign)
    total = lambda sign: lambda net, variables, gates, batch: sign * jnp.sum(rows(gates) * price)
    slots = dict(trainability=flat(-1.0), expressivity=flat(1.0))
    slots[by] = total(-1.0 if by == "trainability" else 1.0)
    search = nas.weight_sharing.te_nas(net, net, draws=1, points=2, **slots)
    state, left = search.init(jax.random.key(1)), []
    for _ in range(2):
        mean = jnp.mean(price, -1, where=state.alive)
        state, info = jit(search.step)(jax.random.key(2), state, nas.Batch(train=()))
        left.append(int(info.left))
        np.testing.assert_allclose(info.kappa if by == "trainability" else info.regions, jnp.sum(mean), rtol=1e-6)
    kept = jnp.argmin(price, -1) if by == "trainability" else jnp.argmax(price, -1)
    assert left == [8, 4] and jnp.array_equal(jnp.argmax(state.alive, -1), kept)


def test_te_nas_refuses_what_it_can_not_prune():
    net = toy_net(cell_space())
    for other, options, word in (
        (toy()[0], {}, "one cell space"),
        (net, {"draws": 0}, "`draws` of te_nas must be a positive integer; got 0"),
        (net, {"points": 1}, "points"),
    ):
        with pytest.raises(ValueError, match=word):
            nas.weight_sharing.te_nas(net, other, **options)


@pytest.mark.slow
def test_a_mixture_counts_what_has_a_gate():
    """Of a mixture with one-hot gates the operations that are closed have no signs: K is the single path's."""
    net = nas.cell_net(SPACE, image=IMAGE, classes=CLASSES, channels=2, cells=1)
    x, gates = jnp.asarray(toy()[2][0][0], jnp.float32), SPACE.gates(RICH)
    soft = net._replace(apply=lambda *args, path, **kw: net.apply(*args, path=False, **kw))
    variables = jit(net.init)(jax.random.key(0))
    one, other = (jit(lambda v, n=n: sign_kernel(n, v, gates, x)[0])(variables) for n in (net, soft))
    assert jnp.array_equal(one, other)
