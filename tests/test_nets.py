"""Layers, nets, and the three ways to run a supernet."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from jaxnas import nets, proxies, spaces
from jaxnas.nets import convolution, layers
from jaxnas.nets.layers import drop_path
from jaxnas.nets.ops import OPS

ALL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def worst(a, b):
    """The largest difference between two trees, relative to the largest entry."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0)) for x, y in pairs) / max(
        1.0, max(float(np.max(np.abs(np.asarray(x)), initial=0)) for x, _ in pairs)
    )


@pytest.mark.parametrize(
    ("k", "stride", "dilation", "size"), [(3, 1, 1, 6), (5, 1, 2, 6), (3, 2, 1, 6), (5, 2, 2, 7), (3, 3, 1, 7)]
)
def test_shifts_and_dense_forms_agree_to_second_order(k, stride, dilation, size):
    with jax.enable_x64(True):
        k_x, k_w, k_d = jax.random.split(jax.random.key(0), 3)
        x = jax.random.normal(k_x, (2, size, size, 3), jnp.float64)
        w = jax.random.normal(k_w, (2, 2, k, k), jnp.float64)  # two edges
        d = jax.random.normal(k_d, w.shape, jnp.float64)

        def loss(form, x, w):
            one = lambda w: convolution.depthwise(jnp.sin(x), w, stride, dilation, form)
            few, many = w, jnp.concatenate([w, jnp.cos(w), jnp.sin(w), -w])  # the form takes their number into account
            dense = [convolution.conv(x, filters, stride, dilation, form=form) for filters in (few, many)]
            return sum(jnp.sum(jnp.tanh(y) ** 2) for y in (jax.vmap(one)(w), *dense))

        def everything(form, x, w, d):
            f = functools.partial(loss, form)
            grad = jax.grad(f, (0, 1))
            second = jax.grad(lambda x, w: sum(jnp.sum(jnp.sin(g)) for g in grad(x, w)), (0, 1))
            forward = jax.jvp(lambda w: grad(x, w), (w,), (d,))[1]
            searches = jax.vmap(second)(jnp.stack([x, jnp.cos(x)]), jnp.stack([w, d]))  # whole searches, side by side
            return f(x, w), grad(x, w), second(x, w), forward, searches

        assert worst(*(jit(functools.partial(everything, form))(x, w, d) for form in ("shifts", "dense"))) < 1e-12


def test_mix_is_the_weighed_sum_of_what_the_operations_say():
    k_w, k_y, k_s = jax.random.split(jax.random.key(0), 3)
    y = jax.random.normal(k_y, (3, 2, 5, 4, 2))
    scale, shift = jax.random.normal(k_s, (2, 2, 2))
    ys = lambda y: [y[0], *(layers.Affine(y[i], scale[i - 1], shift[i - 1]) for i in (1, 2))]
    mixed = lambda w, y: jnp.sum(jnp.sin(layers.mix(list(w), ys(y))))
    plain = lambda w, y: jnp.sum(jnp.sin(sum(v * layers.apply_norm(one) for v, one in zip(w, ys(y), strict=True))))
    w = jax.random.normal(k_w, (4, 3))  # four edges that leave one node
    for of in (lambda f: jax.vmap(f, (0, None))(w, y), lambda f: jax.grad(lambda w, y: jnp.sum(of_edges(f, w, y)), (0, 1))(w, y)):
        of_edges = lambda f, w, y: jax.vmap(f, (0, None))(w, y)
        assert worst(*(jit(functools.partial(of, f))() for f in (mixed, plain))) < 1e-5


@pytest.mark.parametrize(
    ("filters", "k", "stride"), [(1, (7, 1), 1), (4, (7, 1), 1), (4, (3, 5), (1, 2)), (4, (1, 3), 1), (4, (5, 3), (2, 1))]
)
def test_rectangular_kernels_agree_too(filters, k, stride):
    """The first and the third add up rows, the others gather every view."""
    with jax.enable_x64(True):
        k_x, k_w = jax.random.split(jax.random.key(0))
        args = jax.random.normal(k_x, (3, 9, 8, 2), jnp.float64), jax.random.normal(k_w, (filters, 3, *k), jnp.float64)

        def everything(form, *args):
            y = lambda *args: convolution.conv(*args, stride, form=form)
            return y(*args), jax.grad(lambda *args: jnp.sum(jnp.sin(y(*args))), (0, 1))(*args)

        assert worst(*(jit(functools.partial(everything, form))(*args) for form in ("shifts", "dense"))) < 1e-12


@pytest.mark.parametrize("from_outside", [False, True])
def test_a_walk_is_its_edges_one_after_another(from_outside):
    sources, targets = np.array([0, 0, 1, 0, 1, 2]), np.array([1, 2, 2, 3, 3, 3])
    nodes, w = jax.random.normal(jax.random.key(0), (4, 5)), jax.random.normal(jax.random.key(1), (6, 5))
    outer = jax.random.normal(jax.random.key(2), (3, 5))
    edge = lambda x, w: (jnp.sin(w * x), jnp.cos(w + x).sum())

    def plain(nodes, w, outer):
        auxs = []
        for source, target, row in zip(sources, targets, w, strict=True):
            y, aux = edge((outer if from_outside else nodes)[source], row)
            nodes, auxs = nodes.at[target].add(y), [*auxs, aux]
        return nodes, jnp.stack(auxs)

    def walked(nodes, w, outer):
        return layers.walk(edge, nodes, jnp.asarray(sources), jnp.asarray(targets), w, outer if from_outside else None)

    def everything(f):
        args = nodes, w, outer
        gradient = jax.grad(lambda *args: sum(jnp.sum(jnp.tanh(y) ** 2) for y in f(*args)), (0, 1, 2))
        second = jax.grad(lambda *args: sum(jnp.sum(jnp.sin(g)) for g in gradient(*args)), (0, 1, 2))
        return f(*args), gradient(*args), second(*args), jax.vmap(gradient)(*both(*args))

    both = lambda *args: jax.tree.map(lambda a: jnp.stack([a, jnp.cos(a)]), args)
    assert worst(*(jit(functools.partial(everything, f))() for f in (plain, walked))) < 1e-5


def test_a_fence_changes_nothing():
    x = jnp.arange(6.0).reshape(2, 3)
    f = lambda x: jnp.sum(jnp.sin(convolution.fence(jnp.cos(x))) ** 2)
    g = lambda x: jnp.sum(jnp.sin(jnp.cos(x)) ** 2)
    for of in (jax.grad, lambda f: jax.vmap(jax.grad(f)), lambda f: jit(jax.hessian(f))):
        np.testing.assert_allclose(of(f)(x), of(g)(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [5, 6])
def test_pools_against_windows(stride, size):
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, size, size, 3)))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    window = lambda i, j: padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
    n = -(-size // stride)
    for pool, reduce in ((convolution.max_pool, np.nanmax), (convolution.avg_pool, np.nanmean)):
        want = np.stack([np.stack([reduce(window(i, j), (1, 2)) for j in range(n)], 1) for i in range(n)], 1)
        np.testing.assert_allclose(jit(lambda x: pool(x, 3, stride))(x), want, rtol=1e-5, atol=1e-6)


def test_tied_maxima_share_the_gradient():
    grad = jax.grad(lambda x: jnp.sum(convolution.max_pool(x)))(jnp.zeros((1, 4, 4, 1)))
    np.testing.assert_allclose(jnp.sum(grad), 16.0, rtol=1e-6)
    assert float(jnp.max(grad)) < 4.0  # not all on one entry


def test_batch_norm_keeps_running_statistics_out_of_the_gradient():
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4)) * 3 + 1
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(1), x, True)
    y, new = norm.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(np.mean(y, (1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(y, (1, 2, 3)), 1, atol=1e-4)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * np.mean(x, (1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.9 + 0.1 * np.var(x, (1, 2, 3), ddof=1), rtol=1e-4)
    moved = lambda x: jnp.sum(norm.apply(variables, x, True, mutable=["batch_stats"])[1]["batch_stats"]["mean"])
    assert float(jnp.max(jnp.abs(jax.grad(moved)(x)))) == 0.0


@pytest.mark.parametrize("name", list(OPS))
@pytest.mark.parametrize("stride", [1, 2])
def test_ops_keep_their_shape(name, stride):
    x = jax.ShapeDtypeStruct((4, 7, 7, 2), jnp.float32)
    op = OPS[name](4, stride, True)
    shapes = jax.eval_shape(lambda x: layers.apply_norm(op.init_with_output(jax.random.key(0), x, True)[0]), x)
    assert shapes.shape == (4, 7, 7, 2) if stride == 1 else (4, 4, 4, 2)


def test_published_parameter_counts():
    table, cells = spaces.nasbench201(), spaces.darts()
    count201 = lambda text: nets.count_parameters(
        nets.evaluation_net(table, table.from_text(text), classes=10, channels=16), (32, 32, 3)
    )
    assert count201(ALL) == 1_531_546
    assert count201(ALL.replace("nor_conv_3x3", "skip_connect")) == 73_306

    def count(name, **kw):
        net = nets.evaluation_net(cells, cells.from_text(name), auxiliary=True, **kw)
        return nets.count_parameters(net, (224, 224, 3) if kw.get("imagenet") else (32, 32, 3))

    assert count("DARTS_V1", classes=10) == 3_169_414
    assert count("DARTS_V2", classes=10) == 3_349_342
    assert count("DARTS_V2", classes=1000, channels=48, cells=14, imagenet=True) == 4_718_752


def test_supernet_and_auxiliary_counts():
    cells = spaces.darts()
    net = nets.cell_net(cells, image=(32, 32, 3), classes=10)
    assert nets.count_parameters(jax.eval_shape(net.init, jax.random.key(0))) == 1_930_618
    module = nets.evaluation_net(cells, cells.from_text("DARTS_V2"), classes=10, auxiliary=True)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=True), x)
    assert sum(int(np.prod(a.shape)) for a in jax.tree.leaves(shapes["params"]["auxiliary"])) == 476_426
    logits, auxiliary = jax.eval_shape(
        lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"])[0],
        shapes,
        jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32),
    )
    assert logits.shape == auxiliary.shape == (2, 10)


BLOCK_OPS = ("skip_connect", "nor_conv_1x1")
NETS = {
    "nasbench201": lambda: nets.cell_net(spaces.nasbench201(), image=(4, 4, 1), classes=3, channels=2, cells=1),
    "bare": lambda: nets.cell_net(spaces.nasbench201(), image=(4, 4, 1), classes=3, channels=1, cells=2, bare=True),
    "darts": lambda: nets.cell_net(
        spaces.darts(nodes=2, ops=("none", "skip_connect", "nor_conv_1x1")),
        image=(4, 4, 1),
        classes=3,
        channels=2,
        cells=3,
    ),
    "noise": lambda: nets.cell_net(
        spaces.darts(nodes=2, ops=("noise", "nor_conv_1x1")), image=(4, 4, 1), classes=3, channels=2, cells=3
    ),
    "nasnet": lambda: nets.cell_net(spaces.nasnet(2, BLOCK_OPS), image=(4, 4, 1), classes=3, channels=2, cells=1),
    "pnas": lambda: nets.cell_net(spaces.pnas(3, BLOCK_OPS), image=(4, 4, 1), classes=3, channels=2, cells=1),
}


def double(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in ("pnas", "nasnet") else ()) for n in NETS])
@pytest.mark.parametrize("wide", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_three_ways_agree(name, wide):
    """Mixture, single path and specialised: outputs, gradients and new batch statistics."""
    net = NETS[name]()
    tolerance = 1e-9 if wide else 1e-5
    k_net, k_x, k_arch = jax.random.split(jax.random.key(2), 3)
    with jax.enable_x64(wide):
        variables = jit(net.init)(k_net)
        x = jax.random.normal(k_x, (4, 4, 4, 1))
        if wide:
            variables, x = double(variables), double(x)
        arch = net.space.sample(k_arch)
        gates = double(net.space.gates(arch)) if wide else net.space.gates(arch)
        module, extract = net.specialize(arch)
        split = lambda v: (v["params"], {k: w for k, w in v.items() if k != "params"})

        def supernet(path):
            def loss(params, stats):
                logits, new = net.apply({**stats, "params": params}, x, gates, train=True, path=path)
                return jnp.sum(jnp.sin(logits)), (logits, new["batch_stats"])

            grads, (logits, stats) = jit(jax.grad(loss, has_aux=True))(*split(variables))
            used = net.used(variables, gates)
            stats = jax.tree.map(lambda n, o, m: jnp.where(m > 0, n, o), stats, variables["batch_stats"], used["batch_stats"])
            evaluated = jit(lambda v: net.apply(v, x, gates, train=False, path=path)[0])(variables)
            return logits, evaluated, grads, stats

        def plain(params, stats):
            logits, new = module.apply({**stats, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(logits)), (logits, new["batch_stats"])

        mixture, path = supernet(False), supernet(True)
        assert worst(mixture, path) < tolerance
        small = extract(variables)
        assert jax.tree.structure(small) == jax.tree.structure(
            jax.eval_shape(functools.partial(module.init, train=True), jax.random.key(0), x)
        )
        grads, (logits, stats) = jit(jax.grad(plain, has_aux=True))(*split(small))
        evaluated = jit(lambda v: module.apply(v, x))(small)
        kept = extract({"params": mixture[2], "batch_stats": mixture[3]})
        assert worst((mixture[0], mixture[1]), (logits, evaluated)) < tolerance
        assert worst(kept["params"], grads) < tolerance
        assert worst(kept["batch_stats"], stats) < tolerance
        unused = jax.tree.map(lambda g, m: jnp.where(m > 0, 0, g), mixture[2], net.used(variables, gates)["params"])
        assert worst(unused, jax.tree.map(jnp.zeros_like, unused)) == 0.0


def test_single_path_computes_what_was_chosen():
    net = NETS["nasbench201"]()
    variables = jax.eval_shape(net.init, jax.random.key(0))
    x, gates = jax.ShapeDtypeStruct((4, 4, 4, 1), jnp.float32), jax.ShapeDtypeStruct((6, 5), jnp.float32)
    text = {
        path: str(jax.make_jaxpr(lambda v, x, g: net.apply(v, x, g, train=True, path=path)[0])(variables, x, gates))
        for path in (False, True)
    }
    assert "cond[" in text[True] and "cond[" not in text[False]


def test_no_convolution_in_a_cpu_step():
    """`lax.conv` inside a scan is 10 to 20 times slower on CPU, and the driver's loop is one."""
    for make in NETS.values():
        net = make()
        variables = jax.eval_shape(net.init, jax.random.key(0))
        blank = net.space.gates(net.space.sample(jax.random.key(0)))
        loss = lambda v, x, net=net, blank=blank: jnp.sum(net.apply(v, x, blank, train=True)[0])
        step = jax.jit(jax.grad(lambda p, v, x, loss=loss: loss({**v, "params": p}, x)))
        lowered = step.lower(variables["params"], variables, jax.ShapeDtypeStruct((4, 4, 4, 1), jnp.float32))
        assert "stablehlo.convolution" not in lowered.as_text()


def test_drop_path_keeps_the_expectation_and_spares_identities():
    class Drop(nn.Module):
        @nn.compact
        def __call__(self, y):
            return drop_path(y, self.make_rng("drop_path"), 0.3)

    y = Drop().apply({}, jnp.ones((1, 2, 2, 20_000)), rngs={"drop_path": jax.random.key(0)})
    assert set(np.unique(np.round(y, 4))) == {0.0, np.float32(np.round(1 / 0.7, 4))}
    assert (np.ptp(np.asarray(y), (0, 1, 2)) == 0).all()  # a whole example's path, not its pixels
    assert abs(float(jnp.mean(y)) - 1) < 3 * np.sqrt(0.3 / 0.7 / 20_000)

    space = spaces.nasbench201()
    skip = space.from_text(ALL.replace("nor_conv_3x3", "skip_connect"))
    net = nets.evaluation_net(space, skip, classes=3, channels=2, cells=1)
    x = jax.random.normal(jax.random.key(1), (4, 4, 4, 1))
    variables = jit(functools.partial(net.init, train=True))(jax.random.key(0), x)
    apply = functools.partial(net.apply, train=True, mutable=["batch_stats"])
    run = lambda rate, k: jit(lambda key: apply(variables, x, rate=rate, rngs={"drop_path": key})[0])(jax.random.key(k))
    np.testing.assert_array_equal(run(0.9, 0), run(None, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nets.cell_net(spaces.space([2, 3]), image=(4, 4, 1), classes=2), "no cell description"),
        (lambda: nets.cell_net(spaces.nasbench201(), image=(4, 4, 1), classes=2, channels=3), r"channels \(even"),
        (
            lambda: nets.cell_net(spaces.darts(ops=("skip_connect", "mine")), image=(4, 4, 1), classes=2),
            "no operation named mine",
        ),
        (lambda: nets.cell_net(spaces.nasbench201(), image=(4, 4, 3), classes=2, bare=True), "give channels=3"),
        (lambda: nets.cell_net(spaces.darts(), image=(4, 4, 16), classes=2, bare=True), "one input each"),
    ],
)
def test_bad_nets(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("space", "sizes"),
    [
        (spaces.nasbench201(), {"cells": 1}),
        (spaces.nasbench201(), {"cells": 1, "partial": 2}),
        (spaces.darts(2), {"cells": 3}),
        (spaces.darts_subspace("S4", 2), {"cells": 3}),
    ],
    ids=["one input", "partial channels", "two inputs", "noise"],
)
def test_cells_cost_what_their_program_multiplies(space, sizes):
    """The sum of the table against the count of what is traced, of an image of odd height."""
    net = nets.cell_net(space, image=(9, 8, 1), classes=3, channels=4, **sizes)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(net.init, jax.random.key(0)))
    gates = jax.vmap(lambda key: space.gates(space.sample(key)))(jax.random.split(jax.random.key(1), 3))
    batch = jnp.zeros((1, 1, 9, 8, 1)), jnp.zeros((1, 1), jnp.int32)
    counted = jax.jit(lambda gates: jax.lax.map(lambda g: proxies.flops(net, zeros, g, batch), gates))(gates)
    assert (jax.vmap(net.macs)(gates) == counted).all() and len(set(counted.tolist())) > 1


@pytest.mark.parametrize("stride", [1, 2])
def test_noise_is_standard_normal_whatever_it_replaces(stride):
    op = OPS["noise"](4, stride, False)
    x = 100 * jax.random.normal(jax.random.key(0), (4, 31, 31, 32)) + 7
    variables = op.init(jax.random.key(1), x, True)
    draw = lambda variables, x: op.apply(variables, x, True, mutable=["batch_stats"])
    y, moved = draw(variables, x)
    assert y.shape == (4, -(-31 // stride), -(-31 // stride), 32) and y.dtype == x.dtype
    n = y.size
    assert abs(float(jnp.mean(y))) < 4 / np.sqrt(n) and abs(float(jnp.var(y)) - 1) < 4 * np.sqrt(2 / n)
    assert abs(float(jnp.mean(y**4)) - 3) < 4 * np.sqrt(96 / n)  # the normal's kurtosis
    assert (draw(variables, 1e-3 * x - 5)[0] == y).all()  # nothing of the input is left
    again, _ = draw(moved, x)  # the next batch's
    other, _ = draw(op.init(jax.random.key(2), x, True), x)  # another edge's
    for z in (again, other):
        assert abs(float(jnp.mean(y * z))) < 4 / np.sqrt(n)
    few = op.apply(variables, x[..., :3], False)
    assert (few == y[..., :3]).all() and (op.apply(variables, x, False) == y).all()  # outside training it stands still
    loss = lambda variables, x: jnp.sum(jnp.sin(draw(variables, x)[0]))
    assert all((g == 0).all() for g in jax.tree.leaves(jax.grad(loss, (0, 1))(variables, x)))


def test_each_edge_of_a_net_has_noise_of_its_own():
    net = NETS["noise"]()
    variables = jit(net.init)(jax.random.key(0))
    named = jax.tree_util.tree_leaves_with_path(variables["batch_stats"])
    edges = np.concatenate([np.asarray(a).reshape(-1, 2) for path, a in named if path[-1].key == "noise"])
    assert len(edges) == 3 * 5 and len(set(edges[:, 0].tolist())) == 3 * 5 and (edges[:, 1] == 0).all()
    gates = net.space.gates(net.space.sample(jax.random.key(1)))
    x = jax.random.normal(jax.random.key(2), (2, 3, 4, 4, 1))
    chosen = nets.recalibrate(net, variables, gates, x)  # the averages are recalibrated, the noise is what it was
    same = lambda path, a, b: path[-1].key != "noise" or bool((a == b).all())
    assert all(jax.tree.leaves(jax.tree_util.tree_map_with_path(same, variables["batch_stats"], chosen["batch_stats"])))
