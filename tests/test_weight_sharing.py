"""DARTS on a supernet, unsampled weights, and training from scratch."""

import functools
import inspect
import sys

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from laws import IMAGE, cell_space, descent, flat_space, images, mobile_net, tiny_net, toy_net
from quick import jit

from jaxnas import base, evaluate, hardware, nets, spaces, training, weight_sharing
from jaxnas.base import Batch
from jaxnas.policies import softmax
from jaxnas.training import losses, scratch
from jaxnas.training.bilevel import Bilevel, finite_difference, first_order, unrolled
from jaxnas.weight_sharing import Given, core


def double(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def flat(tree):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])


@functools.cache
def lookahead():
    """A supernet's bilevel problem in float64, at a state with momentum: (problem, its arguments)."""
    net = tiny_net(cell_space())
    policy = softmax(net.space)
    tx = training.sgd(0.1, weight_decay=3e-2)
    seen = {}

    def spy(key, theta, state, problem, t):
        seen["problem"] = problem
        return theta, state, {}

    search = weight_sharing.weight_sharing(net, policy, weight_sharing.Gradient(lambda theta: (), spy), weight_sharing.Weights(tx))
    state = jit(search.init)(jax.random.key(0))
    state = state._replace(theta=jax.tree.map(lambda a: 300 * a, state.theta))
    batch = images(jax.random.key(1))
    for t in range(2):  # momentum
        state, _ = jit(search.step)(jax.random.key(2 + t), state, batch)
    state, batch = double(state), double(batch)
    search.step(jax.random.key(9), state, batch)
    problem, key = seen["problem"], jax.random.key(4)

    def loss(theta, params, xy):
        gates = jax.tree.map(lambda a: a[0], policy.sample(key, theta, 0))
        return problem.loss(params, gates, xy, key)[0]

    bilevel = Bilevel(loss, loss, lambda a, grads, s, w: problem.update(grads, s, w))
    return bilevel, (state.theta, problem.params, problem.opt_state, problem.look, problem.valid)


@pytest.mark.slow  # the recurrent cell's is the quick one (tests/test_darts_rnn.py)
def test_exact_second_order_is_the_derivative_of_the_whole_look_ahead():
    """B2, A2: against central differences of (one step of momentum SGD with weight decay, then the validation loss)."""
    with jax.enable_x64(True):
        problem, (theta, w, opt_state, look, valid) = lookahead()

        def whole(theta, opt_state):
            batch = jax.tree.map(lambda a: a[0], look)
            moved, _ = problem.update(theta, jax.grad(problem.inner, 1)(theta, w, batch), opt_state, w)
            return problem.outer(theta, moved, valid)

        gradient = lambda method: jit(lambda t: method(problem, t, w, opt_state, look, valid).grad)(theta)
        exact, first, approximate = gradient(unrolled()), gradient(first_order()), gradient(finite_difference(1e-4))
        forgetful = jit(jax.grad(whole))(theta, jax.tree.map(jnp.zeros_like, opt_state))
        value = jit(whole)
        for i in range(5):
            d = jax.tree.map(lambda a: jax.random.normal(jax.random.key(10 + i), a.shape, jnp.float64), theta)
            move = lambda e: jax.tree.map(lambda a, b: a + e * b, theta, d)
            numeric = float(value(move(1e-5), opt_state) - value(move(-1e-5), opt_state)) / 2e-5
            along = lambda g: float(np.vdot(flat(g), flat(d)))
            assert abs(along(exact) - numeric) < 1e-6 * max(1e-2, abs(numeric))
        size = np.linalg.norm(flat(exact))
        off = lambda g: np.linalg.norm(flat(g) - flat(exact)) / size
        assert off(first) > 1e-3  # first order is another number,
        assert off(forgetful) > 1e-3  # and so is a look-ahead that forgot its momentum
        assert off(approximate) < 1e-2


@pytest.mark.slow
def test_a_joint_gradient_is_that_of_the_mean_over_the_paths():
    """Against autodiff of the mean training loss of the same paths, in theta and in the weights."""
    net = tiny_net(cell_space())
    plain, rate = softmax(net.space), 0.5
    warmer = lambda theta: [jax.tree.map(lambda a: jax.nn.softmax(s * a)[None], theta) for s in (1.0, 300.0)]
    both = lambda key, theta, t: jax.tree.map(lambda *a: jnp.concatenate(a), *warmer(theta))
    policy, batch = plain._replace(sample=both), images(jax.random.key(1))
    search = weight_sharing.weight_sharing(net, policy, descent(rate, True), weight_sharing.Weights(optax.sgd(rate), clip=None))
    state = jit(search.init)(jax.random.key(0))
    moved, _ = jit(search.step)(jax.random.key(2), state, batch)
    x, y = (a[0] for a in batch.train)

    def loss(params, theta):
        gates = both(None, theta, 0)
        variables = {**state.variables, "params": params}
        on = lambda m: net.apply(variables, x, jax.tree.map(lambda g: g[m], gates), train=True)[0]
        return sum(losses.cross_entropy(on(m), y) for m in range(2)) / 2

    grads = jit(jax.grad(loss, (0, 1)))(state.variables["params"], state.theta)
    for before, after, grad in zip(
        (state.variables["params"], state.theta), (moved.variables["params"], moved.theta), grads, strict=True
    ):
        chex.assert_trees_all_close(after, jax.tree.map(lambda a, g: a - rate * g, before, grad), rtol=1e-4, atol=1e-5)
    assert float(optax.tree.norm(grads[1])) > 1e-3


@pytest.mark.parametrize("planted", ["sep_conv_3x3", pytest.param("skip_connect", marks=pytest.mark.slow)])
def test_a_planted_operation_is_found(planted):
    """A5: labels from a teacher whose first edge is `planted`, a supernet that starts at the teacher's weights."""
    space = cell_space()
    net = nets.cell_net(space, image=(8, 8, 1), classes=3, channels=4, cells=1)
    columns, seeds, steps, size = space.spec.ops, 5, 200, 32
    kept = [(planted, 0), ("skip_connect", 1)]
    arch = space.from_text(f"Genotype(normal={kept}, normal_concat=[2], reduce={kept}, reduce_concat=[2])")
    search = weight_sharing.darts(net, training.sgd(0.025), training.adam(3e-3), order="first")

    def start(key):
        k_net, k_x, k_init = jax.random.split(key, 3)
        variables = net.init(k_net)
        x = jax.random.normal(k_x, (2, 512, 8, 8, 1))
        logits = net.apply(variables, x.reshape(-1, 8, 8, 1), space.gates(arch), train=True)[0]
        y = jnp.argmax(logits - jnp.mean(logits, 0, keepdims=True), -1).reshape(2, 512)
        return search.init(k_init, Given(variables)), (x, y)

    def step(key, state, data):
        k_draw, k_step = jax.random.split(key)
        rows = jax.random.randint(k_draw, (2, 1, size), 0, 512)
        train, valid = ([a[half][rows[half]] for a in data] for half in (0, 1))
        return search.step(k_step, state, Batch(train=tuple(train), valid=tuple(valid)))[0]

    keys = jax.random.split(jax.random.key(0), seeds)
    state, data = jit(jax.vmap(start))(keys)
    step = jit(jax.vmap(step))
    for t in range(steps):
        state = step(jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1 + t), i))(jnp.arange(seeds)), state, data)
    found = np.asarray(jax.nn.softmax(state.theta.reduce[:, 0]))  # [seeds, O]
    other = {"sep_conv_3x3": "skip_connect", "skip_connect": "sep_conv_3x3"}[planted]
    assert (found[:, columns.index(planted)] > found[:, columns.index(other)]).sum() >= 4


def test_unsampled_weights_statistics_and_momenta_do_not_move():
    net = tiny_net(cell_space())
    search = weight_sharing.spos(net, training.sgd(0.1))
    state = jit(search.init)(jax.random.key(0))
    step = jit(search.step)
    for t in range(3):
        before, (state, info) = state, step(jax.random.key(t), state, images(jax.random.key(50 + t)))
        used = net.used(before.variables, info.gates)
        change = lambda a, b: jax.tree.map(lambda x, y: jnp.max(jnp.abs(x - y)), a, b)
        still = jax.tree.map(lambda u, a, b: jnp.max(jnp.where(u > 0, 0, jnp.abs(a - b))), used, before.variables, state.variables)
        assert max(float(x) for x in jax.tree.leaves(still)) == 0.0
        assert max(float(x) for x in jax.tree.leaves(change(before.variables, state.variables))) > 0.0
        trace = lambda s: optax.tree_utils.tree_get(s.opt_state, "trace")
        asleep = jax.tree.map(
            lambda u, a, b: jnp.max(jnp.where(u > 0, 0, jnp.abs(a - b))), used["params"], trace(before), trace(state)
        )
        assert max(float(x) for x in jax.tree.leaves(asleep)) == 0.0


@pytest.mark.parametrize(
    "search",
    [
        lambda net, tx: weight_sharing.spos(net, tx),
        lambda net, tx: weight_sharing.one_shot(net, tx, rate=0.5),
        lambda net, tx: weight_sharing.op_warm_up(net, tx, share=lambda t: 0.3),
    ],
    ids=["hard", "path dropout", "op warm-up"],
)
def test_what_a_sparse_relaxation_closes_stands_still(search):
    """A net that computes every operation, closed ones too: weights, momenta and statistics of those are kept by the mask alone."""
    net = toy_net(cell_space())
    strategy = search(net, training.sgd(0.1, weight_decay=0.1))
    state = jit(strategy.init)(jax.random.key(0))
    step = jit(strategy.step)
    closed, open_ = 0, 0
    for t in range(3):
        before, (state, info) = state, step(jax.random.key(t), state, images(jax.random.key(50 + t)))
        used = net.used(before.variables, info.gates)
        trace = lambda s: optax.tree_utils.tree_get(s.opt_state, "trace")
        moved = jax.tree.map(lambda a, b: a != b, (before.variables, trace(before)), (state.variables, trace(state)))
        for on, changed in zip(jax.tree.leaves((used, used["params"])), jax.tree.leaves(moved), strict=True):
            on = np.broadcast_to(np.asarray(on) > 0, changed.shape)
            assert not np.asarray(changed)[~on].any()
            assert np.asarray(changed)[on].mean() > 0.9 if on.any() else True
            closed, open_ = closed + (~on).sum(), open_ + on.sum()
    assert min(closed, open_) > 0


CLIP = 1e-3  # below every gradient here


def test_a_clip_that_binds_is_the_length_of_the_step():
    """Plain SGD at rate 1 moves the weights by the clipped gradient: along the whole one, and as long as the clip."""
    batch = images(jax.random.key(1))
    net, policy = toy_net(cell_space()), softmax(cell_space())
    weights = lambda clip: weight_sharing.Weights(optax.sgd(1.0), clip=clip)

    class Head(nn.Module):
        @nn.compact
        def __call__(self, x, train=False, rate=None):
            return nn.Dense(3)(x.reshape(len(x), -1))

    of_weights = lambda clip: weight_sharing.weight_sharing(net, policy, weight_sharing.frozen, weights(clip))
    of_training = lambda clip: scratch.train(Head(), optax.sgd(1.0), IMAGE, steps=1, clip=clip)
    for make in (of_weights, of_training):
        state = jit(make(None).init)(jax.random.key(0))
        after = [jit(make(clip).step)(jax.random.key(2), state, batch)[0].variables["params"] for clip in (None, CLIP)]
        whole, clipped = (jax.tree.map(jnp.subtract, params, state.variables["params"]) for params in after)
        assert float(optax.tree.norm(whole)) > 10 * CLIP
        assert float(optax.tree.norm(clipped)) == pytest.approx(CLIP, rel=1e-2)
        shorter = jax.tree.map(lambda a: a * CLIP / optax.tree.norm(whole), whole)
        chex.assert_trees_all_close(clipped, shorter, rtol=1e-2, atol=1e-6)


def test_weight_and_architecture_cadence_is_the_batch():
    """Two weight steps in one step move the weights as two steps of one do; without validation batches alpha rests."""
    search = weight_sharing.darts(tiny_net(cell_space()), order="first")
    start = jit(search.init)(jax.random.key(0))
    parts = [images(jax.random.key(1 + i)).train for i in range(2)]
    step = jit(search.step)
    once, _ = step(jax.random.key(3), start, Batch(train=jax.tree.map(lambda *a: jnp.concatenate(a), *parts)))
    twice = start
    for i, train in enumerate(parts):
        twice, _ = step(jax.random.key(4 + i), twice, Batch(train=train))
    assert (int(once.step), int(twice.step)) == (1, 2)
    chex.assert_trees_all_close(once.variables, twice.variables, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(once.theta, start.theta)
    moved = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), once.variables["params"], start.variables["params"])
    assert max(float(m) for m in jax.tree.leaves(moved)) > 1e-4


def test_darts_derives_from_the_softmax_and_refuses_other_orders():
    net = tiny_net(cell_space())
    with pytest.raises(ValueError, match="unknown order 'third'"):
        weight_sharing.darts(net, order="third")


def test_population_modes_agree_and_a_diverged_candidate_is_nan():
    net = tiny_net(cell_space())
    space = net.space
    data = images(jax.random.key(0))
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(1), 2))
    found = {}
    for mode in ("map", "vmap"):
        evaluator = evaluate.train_from_scratch(net, optax.sgd(0.1), mode=mode)
        found[mode] = jit(evaluator.step)(jax.random.key(2), evaluator.init(jax.random.key(0)), archs, data)[1]
    chex.assert_trees_all_close(found["map"], found["vmap"], rtol=1e-4, atol=1e-5)
    wild = evaluate.train_from_scratch(net, optax.sgd(jnp.nan), mode="map")
    two = Batch(train=jax.tree.map(lambda a: jnp.concatenate([a, a]), data.train), valid=data.valid)
    assert np.isnan(jit(wild.step)(jax.random.key(2), (), archs, two)[1]["accuracy"]).all()
    with pytest.raises(ValueError, match="unknown mode"):
        evaluate.train_from_scratch(net, optax.sgd(0.1), mode="loop")


def test_accuracy_counts_every_example_once():
    y = jnp.arange(10) % 3
    logits = jax.nn.one_hot(jnp.where(jnp.arange(10) < 7, y, (y + 1) % 3), 3)
    for size in (1, 3, 4, 10, 64):
        assert float(scratch.accuracy(lambda x: x, (logits, y), size)) == pytest.approx(0.7)


def test_training_learns_and_checks_its_probabilities():
    space = spaces.nasbench201()
    arch = space.from_text("|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|")
    module = nets.evaluation_net(space, arch, classes=2, channels=2, cells=1)
    strategy = scratch.train(module, training.sgd(0.1), IMAGE, steps=30, drop_path=0.1, label_smoothing=0.1)
    x = jax.random.normal(jax.random.key(0), (1, 32, *IMAGE))
    y = (jnp.mean(x, (2, 3, 4)) > 0).astype(jnp.int32)
    step, state = jit(strategy.step), jit(strategy.init)(jax.random.key(1))
    losses = []
    for t in range(30):
        state, info = step(jax.random.key(10 + t), state, Batch(train=(x, y)))
        losses.append(float(info.loss))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert isinstance(strategy, base.Strategy)
    with pytest.raises(ValueError, match=r"`drop_path` of train must be a probability below 1; got 1\.0"):
        scratch.train(module, optax.sgd(0.1), IMAGE, steps=1, drop_path=1.0)


# One signature

# What a method may be told by keyword alone, besides the numbers of its own paper.
SHARED = ("cost", "clip", "criterion")
OWN = {
    *("allowed", "data", "decay", "decisions", "edges", "full", "ghosts", "hidden", "kl", "networks", "order", "paths", "perturb"),
    *("quality", "rate", "share", "single_level", "smoothing", "steps", "temperature", "update", "warm_up"),
}
OTHERS = {"measurements", "te_nas", "weight_sharing"}  # take a net, and are no method that trains shared weights


def takes_a_net(name):
    of = getattr(weight_sharing, name)
    return inspect.isfunction(of) and next(iter(inspect.signature(of).parameters), None) == "net"


METHODS = [name for name in weight_sharing.__all__ if takes_a_net(name) and name not in OTHERS]


def test_methods_are_found():
    """A wrong filter would make the next test empty."""
    assert {"darts", "enas", "fairnas", "in_place_distillation", "progressive_shrinking", "project_edges", "tunas"} <= {*METHODS}
    assert len(METHODS) >= 22


GIVEN = dict(
    **dict(decay=lambda t: 0.0, temperature=1.0, share=lambda t: 0.5, decisions=(0,), perturb=lambda key, gates, loss_of, t: gates),
    cost=hardware.priced(lambda gates: 0.0, hardware.absolute_reward(1.0)),
)


def test_every_method_clips_as_it_is_told(monkeypatch):
    """Each method that takes a clip hands it on to the weights' step, whatever else it is made of."""
    clipped = [n for n in METHODS if "clip" in inspect.signature(getattr(weight_sharing, n)).parameters]
    assert len(clipped) >= 18
    handed, real = [], core.weight_sharing
    keep = lambda net, policy, gradient, weights: handed.append(weights.clip) or real(net, policy, gradient, weights)
    for module in [m for name, m in sys.modules.items() if name.startswith("jaxnas.weight_sharing.")]:
        if getattr(module, "weight_sharing", None) is real:
            monkeypatch.setattr(module, "weight_sharing", keep)
    for name in clipped:
        of, handed[:] = getattr(weight_sharing, name), []
        required = {p.name for p in inspect.signature(of).parameters.values() if p.default is p.empty} - {"net"}
        net = mobile_net() if name.startswith("proxylessnas") else toy_net(flat_space() if name == "fairnas" else cell_space())
        of(net, **{n: GIVEN[n] for n in required}, clip=0.125)
        assert handed == [0.125], name


@pytest.mark.parametrize("name", METHODS)
def test_one_signature_serves_every_method(name):
    """net, weights, where theta moves architecture, then by keyword the method's own numbers, cost, clip, criterion."""
    parameters = inspect.signature(getattr(weight_sharing, name)).parameters
    by_kind = {kind: [p.name for p in parameters.values() if p.kind is kind] for kind in {p.kind for p in parameters.values()}}
    assert by_kind.keys() <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}  # no *args, no **options
    first = by_kind[inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert first in (["net", "weights"], ["net", "weights", "architecture"])
    assert all(parameters[p].default is not inspect.Parameter.empty for p in first[1:])
    named = by_kind[inspect.Parameter.KEYWORD_ONLY]
    shared = [p for p in named if p in SHARED]
    assert shared == [p for p in SHARED if p in shared] and named[len(named) - len(shared) :] == shared
    assert {*named} <= OWN | {*SHARED}
    assert len(parameters) <= 9
