"""Mixed precision: what is float32, what is bfloat16, and that a network learns as well."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from quick import jit

from jaxnas import data, nets, spaces, training, weight_sharing
from jaxnas.app.config import Config, complete, load_config, prepare
from jaxnas.app.search import make_job, net_entry
from jaxnas.app.tasks import final_module
from jaxnas.base import Batch
from jaxnas.nets import layers
from jaxnas.nets._language_model import Tokens
from jaxnas.nets.hyper_net import HyperNet
from jaxnas.nets.precision import InPrecision, scaled
from jaxnas.nets.recurrent_cell import TreeCell

IMAGE, CLASSES, B = (4, 4, 1), 3, 7  # a dimension that 7 divides has the batch in it: no size of these nets is such a number


def cells(space, **sizes):
    return nets.cell_net(space, image=IMAGE, classes=CLASSES, **{"channels": 2, "cells": 1, **sizes})


NETS = {
    "nasbench201": lambda: cells(spaces.nasbench201()),
    "darts": lambda: cells(spaces.darts(2, ops=("none", "skip_connect", "dil_conv_3x3", "max_pool_3x3", "avg_pool_3x3")), cells=3),
    "partial": lambda: cells(spaces.darts(1, ops=("none", "skip_connect", "sep_conv_3x3")), channels=4, cells=3, partial=2),
    "noise": lambda: cells(spaces.darts(1, ops=("noise", "nor_conv_1x1"))),
    "pnas": lambda: cells(spaces.pnas(2, ("skip_connect", "conv_1x3_3x1"))),
    "nasnet": lambda: cells(spaces.nasnet(2, ("skip_connect", "nor_conv_1x1"))),
    "macro": lambda: nets.macro_net(spaces.enas_macro(2), image=IMAGE, classes=CLASSES, channels=2),
    "mobile": laws.mobile_net,
    "elastic": laws.elastic_net,
    "tunas": lambda: nets.tunas_net(
        spaces.tunas(spaces.TunasSpec((spaces.TunasStage((4, 2), 1, 1, (2, 1)),), (2,), (4,), (3, 1), stem_stride=1)),
        image=IMAGE,
        classes=CLASSES,
    ),
    "shuffle": laws.shuffle_net,
    "layer": lambda: nets.layer_net(
        spaces.layerwise(2, heights=(1, 3), widths=(1, 3), filters=(2, 3), strides=(1, 2)), image=IMAGE, classes=CLASSES
    ),
    "chain": lambda: nets.chain_net(
        spaces.chain(spaces.metaqnn(image=4, layers=3, filters=(2, 3), kernels=(1, 3), pools=((2, 2),), dense=(4, 2))),
        image=IMAGE,
        classes=CLASSES,
    ),
    "memory bank": laws.memory_bank_net,
}


def dtypes(tree):
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


def equations(jaxpr):
    """All of a program's, those of its inner ones as well."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def products(jaxpr):
    """(name, dtypes, shapes) of the products of maps: matrix products and convolutions over every place of the batch's examples."""
    for equation in equations(jaxpr):
        name, operands = equation.primitive.name, [v.aval for v in equation.invars]
        if name.startswith("dense"):
            yield name, dtypes(operands), [a.shape for a in operands]
        elif name.startswith("depthwise"):
            if any(a.shape[-2:] not in ((1, 1), (7, 1)) for a in operands if a.ndim >= 3 and a.shape[-1] % B):  # no scale alone
                yield name, dtypes(operands), [a.shape for a in operands]
        elif name == "dot_general" and any(n > B and n % B == 0 for a in operands for n in a.shape):
            yield name, dtypes(operands), [a.shape for a in operands]


class Between:
    """Watches the maps that go into and out of every layer."""

    def __init__(self):
        self.seen, self.wide = 0, []

    def __call__(self, call, args, kwargs, context):
        out = call(*args, **kwargs)
        if isinstance(context.module, HyperNet) or context.module.path[:1] == ("pointwise",) or "hyper" in context.module.path:
            return out  # it computes weights
        given = [a for a in (*args, out) if not isinstance(context.module, layers.Logits)]
        maps = [a.y if isinstance(a, layers.Affine) else a for a in given]
        maps = [
            a
            for a in maps
            if isinstance(a, jax.Array) and a.ndim == 4 and B in (a.shape[0], a.shape[-1]) and jnp.issubdtype(a.dtype, jnp.floating)
        ]
        inside = not isinstance(context.module, InPrecision)  # what it is given is the image
        self.seen += len(maps)
        self.wide += [(type(context.module).__name__, a.dtype.name, a.shape) for a in maps if inside and a.dtype != jnp.bfloat16]
        return out


def watched(f, *args):
    between = Between()
    with nn.intercept_methods(between):
        jaxpr = jax.make_jaxpr(f)(*args)
    return jaxpr, between


@pytest.mark.parametrize("name", NETS)
def test_maps_are_bfloat16_and_all_that_is_kept_is_float32(name):
    """Of the supernet and of one architecture's module: by what the layers are given, and by every product of the program."""
    net = nets.with_precision(NETS[name](), "bfloat16")
    k_net, k_x, k_arch, k_drop = jax.random.split(jax.random.key(0), 4)
    variables = jit(net.init)(k_net)
    x, arch = jax.random.normal(k_x, (B, *net.image)), net.space.sample(k_arch)
    gates = jax.tree.map(jnp.asarray, net.space.gates(arch))
    assert dtypes(variables) == {"float32"}

    def supernet(path, variables, x, gates):
        def loss(params, gates):
            logits, new = net.apply({**variables, "params": params}, x, gates, train=True, path=path)
            return jnp.mean(jnp.square(logits)), (logits, new)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], gates)

    module, extract = net.specialize(arch)
    small = extract(variables)

    def alone(variables, x, key):
        def loss(params):
            given = {**variables, "params": params}
            logits, new = module.apply(given, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})
            return jnp.mean(jnp.square(logits)), (logits, new)

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    runs = [(functools.partial(supernet, False), (variables, x, gates)), (functools.partial(supernet, True), (variables, x, gates))]
    for f, args in (*runs, (alone, (small, x, k_drop))):
        jaxpr, between = watched(f, *args)
        assert between.wide == []
        assert {leaf.dtype.name for leaf in jaxpr.out_avals} <= {"float32"}
        of_maps = list(products(jaxpr.jaxpr))
        assert of_maps
        assert [row for row in of_maps if row[1] != {"bfloat16"} and row[0] == "dot_general" and name != "chain"] == []
        assert all(len(row[1]) == 1 for row in of_maps)
    (value, (logits, _)), grads = jit(runs[1][0])(variables, x, gates)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, logits, grads)))
    plain = NETS[name]()
    exact = jit(lambda v: plain.apply(v, x, gates, train=True, path=True)[0])(variables)
    difference = np.abs(exact - logits).max()
    assert difference > 0 and (name == "noise" or difference < 0.3 * np.abs(exact).max())  # noise is drawn anew in another dtype


def test_a_language_model_keeps_float32_and_computes_in_bfloat16():
    sizes = dict(vocabulary=5, batch=2, hidden=3, dropouts=None, uniform=0.5)
    net = nets.language_model(spaces.darts_rnn(2), **sizes, precision="bfloat16")
    x = Tokens(jnp.asarray([[0, 1, 2], [3, 4, 0]]), jnp.asarray(False))
    variables = jit(net.init)(jax.random.key(0))
    assert dtypes(variables) == {"float32"}
    arch = net.space.sample(jax.random.key(1))

    def loss(params, apply):
        logits, new = apply({**variables, "params": params})
        return jnp.mean(jnp.square(logits)), (logits, new)

    of_all = lambda v: net.apply(v, x, net.space.gates(arch), train=True)
    module, _ = net.specialize(arch)
    of_one = lambda v: module.apply(v, x, train=True, mutable=["batch_stats", "carry", "losses"])
    for apply in (of_all, of_one):
        f = lambda params, apply=apply: jax.value_and_grad(loss, has_aux=True)(params, apply)
        jaxpr = jax.make_jaxpr(f)(variables["params"])
        assert dtypes(jaxpr.out_avals) == {"float32"}
        forward = jax.make_jaxpr(lambda v, apply=apply: apply(v)[0])(variables)
        of_words = [e for e in equations(forward.jaxpr) if e.primitive.name == "dot_general"]
        assert len(of_words) >= 4
        assert all(dtypes([v.aval for v in e.invars]) == {"bfloat16"} for e in of_words)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jit(f)(variables["params"])))


@pytest.mark.parametrize("kind", ["backbones", "tabular"])
def test_networks_that_are_built_one_by_one(kind):
    if kind == "backbones":
        space, image = spaces.macro((8, 8, 1)), (8, 8, 1)
        made = nets.backbones(space, image=image, classes=CLASSES)
    else:
        space, image = spaces.tabular(5), (5,)
        made = nets.tabular_nets(space, image=image, classes=CLASSES)
    made, x = nets.with_precision(made, "bfloat16"), jax.random.normal(jax.random.key(0), (B, *image))
    for key in jax.random.split(jax.random.key(1), 12):
        module = made.build(space.choice(space.sample(key)))
        variables = jax.eval_shape(functools.partial(module.init, train=True), jax.random.key(0), x)
        assert dtypes(variables) == {"float32"}

        def loss(params, variables=variables, module=module):
            given = {**variables, "params": params}
            logits, new = module.apply(given, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
            return jnp.mean(jnp.square(logits)), (logits, new)

        run = lambda variables, module=module: jax.value_and_grad(lambda params: loss(params, variables, module), has_aux=True)(
            variables["params"]
        )
        jaxpr, between = watched(run, variables)
        assert between.wide == []
        assert dtypes(jaxpr.out_avals) == {"float32"}
        linear = ("dot_general", "dense", "depthwise")
        by = [dtypes([v.aval for v in e.invars]) for e in equations(jaxpr.jaxpr) if e.primitive.name in linear]
        assert {"bfloat16"} in by
        assert all(len(kinds) == 1 for kinds in by)


def test_a_recurrent_cell_computes_in_the_dtype_of_its_input():
    space = spaces.recurrent(2)
    cell, gates = TreeCell(space.spec, 3), space.gates(space.sample(jax.random.key(0)))
    x, state = jnp.ones((2, 4), jnp.bfloat16), (jnp.zeros((2, 3), jnp.bfloat16),) * 2
    state, variables = cell.init_with_output(jax.random.key(1), state, x, gates)
    assert (dtypes(state), dtypes(variables)) == ({"bfloat16"}, {"float32"})


def test_a_layer_casts_its_weights_to_its_input():
    """Whatever form a convolution has: both operands are of one dtype."""
    x = jnp.ones((2, 4, 4, 3))
    for layer in (layers.Conv(2, 3), layers.Conv(2, 3, 2), layers.Conv(2), layers.Depthwise(3)):
        variables = layer.init(jax.random.key(0), x)
        assert layer.apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
        assert dtypes(variables) == dtypes(layer.init(jax.random.key(0), x.astype(jnp.bfloat16))) == {"float32"}
    assert scaled(x.astype(jnp.bfloat16), jnp.float32(0.3)).dtype == jnp.bfloat16
    logits = layers.Logits(2)
    assert logits.apply(logits.init(jax.random.key(0), x[0, 0]), x[0, 0].astype(jnp.bfloat16)).dtype == jnp.float32


def test_statistics_are_summed_in_float32():
    x = (100 + jax.random.normal(jax.random.key(0), (2, 8, 8, 16))).astype(jnp.bfloat16)
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(0), x, True)
    y, new = norm.apply(variables, x, True, mutable=["batch_stats"])
    wide, same = norm.apply(variables, x.astype(jnp.float32), True, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, new, same)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), wide, rtol=2**-8)


def test_exact_second_order_in_bfloat16():
    net = nets.with_precision(cells(spaces.darts(1, ops=("none", "skip_connect", "sep_conv_3x3"))), "bfloat16")
    search = weight_sharing.darts(net)
    k_x, k_y, k_init, k_step = jax.random.split(jax.random.key(0), 4)
    split = jax.random.normal(k_x, (1, B, *IMAGE)), jax.random.randint(k_y, (1, B), 0, CLASSES)
    start = search.init(k_init)
    state, info = jit(search.step)(k_step, start, Batch(train=split, valid=split))
    assert dtypes(state) == {"float32"}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.variables, state.theta, info)))
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(state.theta), jax.tree.leaves(start.theta), strict=True))


def test_bfloat16_learns_digits_as_well():
    """400 steps of one small network; over seeds and longer: `experiments/precision.py`."""
    digits = data.load("digits", jax.random.key(0))
    space = spaces.layerwise(2, heights=(3,), widths=(3,), filters=(8,), strides=(1,))
    arch = space.sample(jax.random.key(0))
    module, _ = nets.layer_net(space, image=(8, 8, 1), classes=10).specialize(arch)
    found = {}
    for precision in ("float32", "bfloat16"):
        search = training.train(module, training.sgd(0.1), (8, 8, 1), steps=400, precision=precision)
        x, y = digits.train
        rows = jnp.arange(400 * 16).reshape(400, 16) % len(y)
        batches = Batch(train=(x[rows], y[rows]))
        state, _ = jit(search.step)(jax.random.key(2), jit(search.init)(jax.random.key(1)), batches)
        assert dtypes(state) == {"float32"}
        wrapped = nets.with_precision(module, precision)
        judge = jit(lambda v, wrapped=wrapped: training.accuracy(lambda x: wrapped.apply(v, x), tuple(digits.test)))
        found[precision] = float(judge(state.variables))
    assert found["float32"] > 0.8
    assert abs(found["bfloat16"] - found["float32"]) < 0.05


def test_a_run_keeps_its_precision(tmp_path):
    config = complete(Config(space="nasbench201", channels=2, precision="bfloat16"))
    assert load_config(prepare(str(tmp_path / "run"), config)).precision == "bfloat16"
    digits = data.load("digits", jax.random.key(0))
    job = make_job(config, digits)
    arch = job.space.sample(jax.random.key(0))
    assert isinstance(job.net.specialize(arch)[0], InPrecision)
    assert isinstance(final_module(config, net_entry(config), job.net, digits, arch), InPrecision)
    plain = dataclasses.replace(config, precision="float32")
    assert not isinstance(final_module(plain, net_entry(plain), make_job(plain, digits).net, digits, arch), InPrecision)


def test_float32_is_the_network_itself():
    net = NETS["nasbench201"]()
    assert nets.with_precision(net) is net


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nets.with_precision(nn.Dense(2), "float16"), "unknown precision 'float16': choose float32 or bfloat16"),
        (lambda: training.train(nn.Dense(2), training.sgd(0.1), (3,), steps=1, precision="half"), "float32 or bfloat16"),
        (lambda: nets.language_model(spaces.darts_rnn(2), vocabulary=5, batch=2, precision="half"), "float32 or bfloat16"),
        (
            lambda: nets.with_precision(nets.language_model(spaces.darts_rnn(2), vocabulary=5, batch=2), "bfloat16"),
            "language_model",
        ),
    ],
)
def test_bad_precisions(make, message):
    with pytest.raises(ValueError, match=message):
        make()
