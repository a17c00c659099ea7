"""The distinctive lines of the differentiable methods, against closed forms, brute force and planted problems."""

import itertools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import CLASSES, IMAGE, cell_space, images, mobile_net, tiny_net, toy_net
from quick import jit
from scipy import stats

from jaxnas import data, hardware, nets, policies, spaces, training, weight_sharing
from jaxnas.analysis import diagnostics
from jaxnas.base import Batch, Feed, Phase, Strategy, then
from jaxnas.driver import run
from jaxnas.nets.layers import shuffle
from jaxnas.nets.mobile_ops import Paths
from jaxnas.nets.ops import OPS
from jaxnas.nets.super_cell import FINAL, Anneal, SuperCell
from jaxnas.policies._concrete import concrete_log_density
from jaxnas.policies._dirichlet import concentration, divergence
from jaxnas.spaces._space import is_shape
from jaxnas.training import losses
from jaxnas.training.optimizers import DecayState
from jaxnas.weight_sharing import Given
from jaxnas.weight_sharing._adaptive_regularisation import AdaptiveState
from jaxnas.weight_sharing._beta_darts import beta_decay
from jaxnas.weight_sharing._early_stopping import WatchInfo
from jaxnas.weight_sharing._smooth_darts import on_simplex
from jaxnas.weight_sharing._snas import child
from jaxnas.weight_sharing._tunas import warming

ROW = spaces.space(
    (4,), gates=lambda a: (jax.nn.one_hot(a[0], 4),), derive=lambda g: (jnp.argmax(g[0]).astype(jnp.int32),), gate_shapes=((4,),)
)
ALPHA = jnp.asarray([0.5, -1.0, 0.2, 0.0])


def draws(policy, theta, n, t=0, seed=0):
    """n gates of a policy on ROW: [n, 4]."""
    one = lambda k: policy.sample(k, theta, t)[0][0]
    return jax.vmap(one)(jax.random.split(jax.random.key(seed), n))


# What a method's factory puts together: one step of each, by hand


def one_step(search, seed=2, **changed):
    """theta before and after a step, and the state before."""
    state = jit(search.init)(jax.random.key(0))
    return state.theta, jit(search.step)(jax.random.key(seed), state, images(jax.random.key(1))._replace(**changed))[0].theta, state


def by_hand(net, state, gates_of, theta):
    """The gradient of the validation loss in theta."""
    x, y = (a[0] for a in images(jax.random.key(1)).valid)
    loss = lambda theta: losses.cross_entropy(net.apply(state.variables, x, gates_of(theta), train=True)[0], y)
    return jit(jax.grad(loss))(theta)


def close(a, b, atol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), a, b)


def test_a_first_order_gradient_is_that_of_the_validation_loss():
    net, softmax = toy_net(cell_space()), lambda theta: jax.tree.map(lambda a: jax.nn.softmax(a, -1), theta)
    beta = weight_sharing.beta_darts(net, architecture=optax.sgd(1.0), decay=lambda t: 0.0)
    noisy = weight_sharing.random_noise(lambda t: 0.3)
    for search in (beta, weight_sharing.smooth_darts(net, architecture=optax.sgd(1.0), perturb=noisy)):
        before, after, state = one_step(search)
        close(after, jax.tree.map(jnp.subtract, before, by_hand(net, state, softmax, before)))


def test_random_smoothing_pushes_both_ways():
    """Before the rows are put back on the simplex an entry moves by a uniform number of either sign, at most eps."""
    gates, eps = (jnp.full((1, 2), 0.5),), 0.2
    moved = jit(jax.vmap(lambda key: weight_sharing.random_noise(lambda t: eps)(key, gates, None, 0)))
    first = np.asarray(moved(jax.random.split(jax.random.key(0), 500))[0])[:, 0, 0]  # (0.5 + u) / (1 + u + v)
    assert abs(first.mean() - 0.5) < 4 * first.std() / 500**0.5
    assert 0.3 <= first.min() < 0.35 and 0.65 < first.max() <= 0.7


def test_gaea_takes_an_exponentiated_step():
    net = toy_net(cell_space())
    before, after, state = one_step(weight_sharing.gaea(net, architecture=policies.exponentiated(0.5)))
    grad = by_hand(net, state, lambda theta: theta, before)
    unscaled = jax.tree.map(lambda a, g: a * jnp.exp(-0.5 * g), before, grad)
    close(after, jax.tree.map(lambda u: u / u.sum(-1, keepdims=True), unscaled))


def test_pc_darts_moves_alpha_and_beta():
    space = spaces.darts(nodes=2, ops=("none", "skip_connect", "sep_conv_3x3"))
    net = toy_net(space)
    before, after, state = one_step(weight_sharing.pc_darts(net, architecture=optax.sgd(1.0)))
    node = lambda b: jnp.concatenate([jax.nn.softmax(b[:2]), jax.nn.softmax(b[2:])])  # edges 0, 1 and 2, 3, 4 meet
    gates_of = lambda theta: jax.tree.map(lambda a, b: jax.nn.softmax(a, -1) * node(b)[:, None], theta.alpha, theta.beta)
    close(after, jax.tree.map(jnp.subtract, before, by_hand(net, state, gates_of, before)))


def test_a_delayed_optimizer_begins_as_if_nothing_had_been():
    """Five updates without a word, and then those of the optimizer itself on what is left of the gradients."""
    gradients = jax.random.normal(jax.random.key(0), (9, 3))
    late, plain = training.delayed(training.adam(0.1), 5), training.adam(0.1)

    def updates(optimizer, gradients):
        theta = jnp.ones(3)
        state, moved = optimizer.init(theta), []
        for g in gradients:
            update, state = optimizer.update(g, state, theta)
            theta = optax.apply_updates(theta, update)
            moved.append(update)
        return jnp.stack(moved)

    got = updates(late, gradients)
    assert (got[:5] == 0).all()
    np.testing.assert_allclose(got[5:], updates(plain, gradients[5:]), rtol=1e-5, atol=1e-7)
    assert training.delayed(plain, 0) is plain


def test_gaea_moves_alpha_row_by_row_and_beta_node_by_node():
    net = toy_net(spaces.darts(nodes=2, ops=("none", "skip_connect", "sep_conv_3x3")))
    architecture = policies.exponentiated_edges(net.space, 0.5)
    before, after, state = one_step(weight_sharing.gaea(net, architecture=architecture, edges=True))
    np.testing.assert_allclose(before.beta.normal, [1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)  # edges 0, 1 and 2, 3, 4 meet
    gates_of = lambda theta: jax.tree.map(lambda a, b: a * b[:, None], theta.alpha, theta.beta)
    grad = by_hand(net, state, gates_of, before)
    unscaled = jax.tree.map(lambda a, g: a * jnp.exp(-0.5 * g), before, grad)
    whole = lambda b: jnp.concatenate([b[:2] / b[:2].sum(), b[2:] / b[2:].sum()])
    rows = jax.tree.map(lambda u: u / u.sum(-1, keepdims=True), unscaled.alpha)
    close(after, type(before)(rows, jax.tree.map(whole, unscaled.beta)))


def test_gdas_sees_one_hot_gates():
    search = weight_sharing.gdas(toy_net(cell_space()), temperature=5.0)
    _, info = jit(search.step)(jax.random.key(2), jit(search.init)(jax.random.key(0)), images(jax.random.key(1)))
    assert all(set(np.unique(g)) == {0, 1} for g in jax.tree.leaves(info.gates))


def test_drnas_adds_the_divergence_and_draws_from_it():
    net, theta = toy_net(cell_space()), {}
    for kl in (0.0, 3.0):
        before, theta[kl], _ = one_step(weight_sharing.drnas(net, architecture=optax.sgd(1.0), kl=kl))
    close(jax.tree.map(jnp.subtract, theta[3.0], theta[0.0]), jax.tree.map(lambda g: -3 * g, jax.grad(divergence)(before)), 1e-5)
    other = one_step(weight_sharing.drnas(net, architecture=optax.sgd(1.0)), seed=3)[1]
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(*map(jax.tree.leaves, (theta[0.0], other)), strict=True))
    np.testing.assert_allclose(concentration(ALPHA), [1.5, np.exp(-1), 1.2, 1.0], rtol=1e-6)


def test_fbnet_and_proxylessnas_descend_their_cost():
    """With the cost alone for a loss, only what has a price moves, and by the cost's gradient."""
    net, alone = toy_net(cell_space()), lambda loss, cost: cost + 0 * loss
    cost = hardware.priced(lambda gates: jnp.sum(gates.normal[0] * jnp.asarray([1.0, 5.0, 2.0])), alone)
    before, after, _ = one_step(weight_sharing.fbnet(net, architecture=optax.sgd(1.0), temperature=1.0, cost=cost))
    moved = jax.tree.map(lambda a, b: np.asarray(abs(a - b).sum(-1)), before, after)
    assert moved.normal[0] > 1e-2 and moved.normal[1] == 0 and (moved.reduce == 0).all()
    net = mobile_net()
    cost = hardware.priced(lambda gates: gates.op[0] @ jnp.asarray([1.0, 5.0, 2.0]), alone)
    before, after, _ = one_step(weight_sharing.proxylessnas(net, architecture=optax.sgd(1.0), cost=cost), seed=3)
    p = np.asarray(jax.nn.softmax(before[0]))
    grad = p * (np.asarray([1.0, 5.0, 2.0]) - p @ np.asarray([1.0, 5.0, 2.0]))
    change = np.asarray(after - before)
    assert (change[1] == 0).all()
    assert (change[0] == 0).all() or sum(abs(change[0] + grad) < 1e-5) == 1  # zero was active; or the two others share a shift
    assert np.ptp((change[0] + grad)[abs(change[0] + grad) > 1e-5]) < 1e-5


# Concrete: SNAS, FBNet


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_the_argmax_of_a_concrete_sample_is_a_draw_from_the_softmax(temperature):
    n = 20_000
    for make in (policies.concrete, policies.straight_through):
        z = jit(lambda: draws(make(ROW, temperature), (ALPHA,), n))()
        counts = np.bincount(np.asarray(z.argmax(-1)), minlength=4)
        expected = np.exp(np.asarray(ALPHA, float))
        assert stats.chisquare(counts, n * expected / expected.sum()).pvalue > 0.01


def test_the_concrete_density_integrates_to_one():
    z = np.linspace(1e-6, 1 - 1e-6, 200_001)
    with jax.enable_x64(True):
        log_p = concrete_log_density(jnp.stack([z, 1 - z], -1), jnp.asarray([0.3, -0.2], jnp.float64), 0.7)
        assert abs(np.trapezoid(np.exp(log_p), z) - 1) < 2e-3


def test_the_pathwise_gradient_of_a_concrete_sample_is_that_of_its_expectation():
    """SNAS: a loss linear in z, at lambda = 1, against finite differences with common random numbers."""
    c, n = jnp.asarray([1.0, -2.0, 0.5, 3.0]), 200_000
    policy = policies.concrete(ROW, 1.0)
    mean = jit(lambda alpha, seed: jnp.mean(draws(policy, (alpha,), n, seed=seed) @ c))
    grads = jit(jax.vmap(jax.grad(lambda alpha, key: policy.sample(key, (alpha,), 0)[0][0] @ c), (None, 0)))
    each = np.asarray(grads(ALPHA, jax.random.split(jax.random.key(1), 20_000)))  # [n, 4]
    eps = 0.05
    for i in range(4):
        step = eps * jnp.eye(4)[i]
        numeric = float(mean(ALPHA + step, 0) - mean(ALPHA - step, 0)) / (2 * eps)
        assert abs(each[:, i].mean() - numeric) < 4 * each[:, i].std() / np.sqrt(len(each)) + 2e-3


def test_snas_expects_its_cost_exactly_and_follows_the_training_loss_alone():
    space = cell_space()
    net = toy_net(space)
    prices = [1.0, 5.0, 2.0]
    cost = lambda gates: sum(jnp.sum(g @ jnp.asarray(prices)) for g in jax.tree.leaves(gates))
    alpha = jnp.asarray([[0.3, -1.0, 0.5], [1.0, 0.0, -0.4], [0.0, 0.1, 2.0]])
    p = np.asarray(jax.nn.softmax(alpha, -1))
    brute = sum(
        np.prod([p[e, o] for e, o in enumerate(choice)]) * sum(prices[o] for o in choice)
        for choice in itertools.product(range(3), repeat=3)
    )
    np.testing.assert_allclose(float(cost(jax.nn.softmax(alpha, -1))), brute, rtol=1e-5)
    moved = {}
    for name, price in {"free": None, "priced": hardware.priced(cost, hardware.additive(10.0))}.items():
        search = weight_sharing.snas(net, optax.sgd(0.1), optax.sgd(0.1), temperature=1.0, cost=price)
        state = jit(search.init)(jax.random.key(0))
        batch = images(jax.random.key(1))
        step = jit(search.step)
        a, b = (step(jax.random.key(2), state, batch._replace(valid=v))[0].theta for v in (batch.valid, batch.train))
        jax.tree.map(np.testing.assert_array_equal, a, b)  # the validation batch is not looked at
        moved[name] = jax.tree.map(lambda new, old: new - old, a, state.theta)
    grad = jax.grad(lambda theta: 10.0 * cost(jax.tree.map(lambda a: jax.nn.softmax(a, -1), theta)))(state.theta)
    extra = jax.tree.map(lambda a, b: a - b, moved["priced"], moved["free"])
    jax.tree.map(lambda e, g: np.testing.assert_allclose(e, -0.1 * g, atol=1e-5), extra, grad)


def test_the_child_of_snas_is_the_argmax_over_all_operations():
    """On each edge; a cell that keeps two inputs a node takes first the edges on which `none` does not win."""
    p = lambda *rows: jnp.asarray(rows, jnp.float32)
    bench = spaces.nasbench201()
    rows = jax.random.dirichlet(jax.random.key(0), jnp.ones(5), (6,)).at[0].set(p(0.4, 0.3, 0.1, 0.1, 0.1))
    np.testing.assert_array_equal(child(bench, rows).op, np.argmax(rows, -1))
    assert child(bench, rows).op[0] == 0
    space = spaces.darts(nodes=2, ops=("none", "skip_connect", "sep_conv_3x3"))
    won = p((0.55, 0.45, 0.0), (0.2, 0.39, 0.41), (0.52, 0.0, 0.48), (0.1, 0.44, 0.46), (0.3, 0.36, 0.34))  # `none` on edges 0, 2
    gates = type(space.decisions)(won, jnp.eye(3)[jnp.asarray([0, 0, 0, 0, 1])])
    found, plain = child(space, gates), space.derive(gates)
    edges = lambda cell: [e for e, row in enumerate(np.asarray(space.gates(cell).normal)) if row[1:].any()]
    assert edges(found) == [0, 1, 3, 4]  # of node 1, the two that are there; node 0 is filled up with edge 0
    assert edges(plain) == [0, 1, 2, 3]  # DARTS's rule takes 0.48 of an edge that `none` has won
    assert found.normal.op.tolist() == [[0, 1], [1, 0]]
    assert [row[1:].any() for row in np.asarray(space.gates(found).reduce)] == [True, True, True, False, True]
    recurrent = spaces.darts_rnn(nodes=2, ops=("none", "tanh", "relu"))
    cell = child(recurrent, p((0.5, 0.3, 0.2), (0.5, 0.05, 0.45), (0.2, 0.41, 0.39)))
    assert cell.previous.tolist() == [0, 1] and cell.op.tolist() == [0, 0]
    assert recurrent.derive(p((0.5, 0.3, 0.2), (0.5, 0.05, 0.45), (0.2, 0.41, 0.39))).previous.tolist() == [0, 0]
    search = weight_sharing.snas(tiny_net(space), temperature=1.0)
    state = jax.eval_shape(search.init, jax.random.key(0))
    blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), state.theta)
    answer = search.best(state._replace(theta=blank._replace(normal=jnp.log(won + 1e-6))))
    np.testing.assert_array_equal(answer.normal.pair, found.normal.pair)


# Straight through: GDAS


def test_a_straight_through_gate_is_hard_forwards_and_soft_backwards():
    policy, v = policies.straight_through(ROW, 2.0), jnp.asarray([1.0, 2.0, 3.0, 4.0])
    for seed in range(5):
        key = jax.random.key(seed)
        gate = policy.sample(key, (ALPHA,), 0)[0][0]
        assert sorted(np.asarray(gate).tolist()) == [0, 0, 0, 1]  # to the last bit
        soft = policies.concrete(ROW, 2.0).sample(jax.random.clone(key), (ALPHA,), 0)[0][0]
        grad = jax.grad(lambda a: policy.sample(jax.random.clone(key), (a,), 0)[0][0] @ v)(ALPHA)
        jacobian = lambda a: jax.nn.softmax((jax.nn.log_softmax(a) + (jnp.log(soft) * 2.0 - jax.nn.log_softmax(ALPHA))) / 2.0) @ v
        np.testing.assert_allclose(grad, jax.grad(jacobian)(ALPHA), atol=1e-5)


def test_gdas_runs_one_operation_an_edge():
    """The draw's output is the discrete network's to the last bit, and what is compiled branches."""
    net = tiny_net(cell_space())
    variables = jit(net.init)(jax.random.key(0))
    policy = policies.straight_through(net.space, 1.0)
    gates = jax.tree.map(lambda a: a[0], policy.sample(jax.random.key(1), policy.init(jax.random.key(2)), 0))
    x = jax.random.normal(jax.random.key(3), (4, *IMAGE))
    apply = jit(lambda gates: net.apply(variables, x, gates, train=True, path=True)[0])
    hard = jax.tree.map(lambda g: jnp.round(g), gates)
    np.testing.assert_array_equal(apply(gates), apply(hard))
    assert "conditional" in apply.lower(gates).compile().as_text()
    rows = jax.tree.leaves(jax.grad(lambda g: jnp.sum(net.apply(variables, x, g, train=True, path=True)[0] ** 2))(gates))
    assert all((np.asarray(r)[np.asarray(g) == 0] == 0).all() for r, g in zip(rows, jax.tree.leaves(gates), strict=True))


@pytest.mark.parametrize(
    "ops", [("none", "skip_connect", "max_pool_3x3"), ("skip_connect", "sep_conv_3x3", "none", "dil_conv_3x3")]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_bare_zeros_open_the_other_gates_to_the_gradient_alone(ops, stride):
    """GDAS's code, in closed form: a loss linear in y, with weights c, gives the softmax's Jacobian at the draw times
    <c, o_k(x)> for what was chosen, and sum(c) for every other operation."""
    spec, tau = spaces.darts(nodes=1, ops=ops).spec, 2.0
    x = [jax.random.normal(jax.random.key(i), (4, 4, 4, 3)) for i in range(2)]
    c = jax.random.normal(jax.random.key(5), (4, 4 // stride, 4 // stride, 3))
    cells = {
        bare: SuperCell(spec=spec, ops={name: OPS[name] for name in ops}, features=4, stride=stride, bare_zeros=bare)
        for bare in (False, True)
    }
    blank = np.zeros((2, len(ops)), np.float32)
    variables = jit(lambda k: cells[True].init(k, x, blank, True, False, None))(jax.random.key(2))
    alpha = jax.random.normal(jax.random.key(3), blank.shape)
    output = lambda gates, bare: cells[bare].apply(variables, x, gates, True, True, None, mutable=["batch_stats"])[0][0]

    def soft(alpha, noise):
        return jax.nn.softmax((jax.nn.log_softmax(alpha, -1) + noise) / tau, -1)

    def loss(alpha, noise, bare):
        z = soft(alpha, noise)
        y = output(jax.nn.one_hot(jnp.argmax(z, -1), len(ops)) + (z - jax.lax.stop_gradient(z)), bare)
        return jnp.sum(c * y), y

    found = {bare: jit(jax.grad(lambda a, n, bare=bare: loss(a, n, bare), has_aux=True)) for bare in cells}
    alone = jit(lambda gates: jnp.sum(c * output(gates, False)))
    for seed in range(4):
        noise = jax.random.gumbel(jax.random.key(10 + seed), alpha.shape)
        grads, ys = {}, {}
        for bare in cells:
            grads[bare], ys[bare] = found[bare](alpha, noise)
        assert np.asarray(ys[True]).tobytes() == np.asarray(ys[False]).tobytes()
        z, back = jax.vjp(lambda a, noise=noise: soft(a, noise), alpha)
        hard = jax.nn.one_hot(jnp.argmax(z, -1), len(ops))
        worth = jnp.stack([hard[e] * alone(blank.copy() + hard * np.eye(2)[e][:, None]) for e in range(2)])  # <c, o_k(x)>
        np.testing.assert_allclose(grads[False], back(worth)[0], atol=2e-4)
        np.testing.assert_allclose(grads[True], back(worth + (1 - hard) * jnp.sum(c))[0], atol=2e-4)
        assert np.abs(grads[True] - grads[False]).max() > 1e-2


def test_bare_zeros_reach_alpha_through_a_net_and_change_no_forward_bit():
    space = cell_space()
    size = dict(image=IMAGE, classes=CLASSES, channels=2, cells=1)
    logits, grads = {}, {}
    policy = policies.straight_through(space, 1.0)
    for bare in (False, True):
        net = nets.cell_net(space, **size, bare_zeros=bare)
        variables = jit(net.init)(jax.random.key(0))
        theta = policy.init(jax.random.key(2))

        def loss(theta, variables, net=net):
            gates = jax.tree.map(lambda a: a[0], policy.sample(jax.random.key(1), theta, 0))
            y = net.apply(variables, jax.random.normal(jax.random.key(3), (4, *IMAGE)), gates, train=True, path=True)[0]
            return jnp.sum(y**2), y

        grads[bare], logits[bare] = jit(jax.grad(loss, has_aux=True))(theta, variables)
    np.testing.assert_array_equal(logits[True], logits[False])
    assert (np.asarray(grads[True].reduce) != np.asarray(grads[False].reduce)).any()  # the one cell that there is
    with pytest.raises(ValueError, match="bare_zeros"):
        nets.cell_net(spaces.pnas(1), image=(8, 8, 1), classes=2, channels=4, bare_zeros=True)


# PC-DARTS


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([(4, 12), (2, 8), (3, 9), (6, 6)]))
def test_shuffling_twice_is_the_identity(size):
    groups, channels = size
    x = jnp.arange(channels * 2.0).reshape(channels, 2)
    np.testing.assert_array_equal(shuffle(shuffle(x, groups), channels // groups), x)
    assert channels == groups or groups == 1 or not (np.asarray(shuffle(x, groups)) == np.asarray(x)).all()


def one_cell(spec, **kw):
    """(apply of a stride-1 cell, its variables, its inputs)."""
    cell = SuperCell(spec=spec, ops={name: OPS[name] for name in spec.ops}, features=4, stride=1, **kw)
    x = [jax.random.normal(jax.random.key(i), (4, 4, 4, 3)) for i in range(2)]
    blank = np.zeros((len(spec.edges), len(spec.ops)), np.float32)
    variables = jit(lambda k: cell.init(k, x, blank, True, False, None))(jax.random.key(2))

    def apply(gates, anneal=FINAL, train=False, key=None):
        rngs = {} if key is None else {"dropout": key}
        out = cell.apply(variables, x, gates, train, False, None, anneal, rngs=rngs, mutable=["batch_stats"])[0]
        return out[0]

    return apply, x


def test_uniform_edges_divide_a_node_by_its_inputs_and_bypassed_channels_go_around():
    space = spaces.darts(nodes=1, ops=("none", "skip_connect", "max_pool_3x3"))
    policy, plain = policies.edge_normalised(space), policies.softmax(space)
    theta = policy.init(jax.random.key(0))
    even = theta._replace(beta=jax.tree.map(jnp.zeros_like, theta.beta))
    gates = lambda p, theta: p.sample(jax.random.key(0), theta, 0).normal[0]
    apply, _ = one_cell(space.spec)
    np.testing.assert_allclose(apply(gates(policy, even)), apply(gates(plain, even.alpha)) / 2, atol=1e-6)
    steep = even._replace(beta=jax.tree.map(lambda b: b.at[0].set(3.0), even.beta))
    assert float(gates(policy, steep)[0].sum()) > 0.9  # an edge's weight reaches its gates, and so what is derived
    partial, x = one_cell(space.spec, partial=2)
    absent = np.zeros((2, 3), np.float32)
    absent[:, 0] = (0.25, 0.75)  # `none` on both edges: only what goes around is left
    y = partial(absent)
    around = 0.25 * x[0][2:] + 0.75 * x[1][2:]
    np.testing.assert_allclose(y, shuffle(jnp.concatenate([jnp.zeros_like(around), around]), 2), atol=1e-6)


@pytest.mark.slow
def test_partial_channels_have_the_published_weights_and_less_than_half_the_memory():
    count = lambda space, **kw: nets.count_parameters(
        jax.eval_shape(nets.cell_net(space, image=(32, 32, 3), classes=10, **kw).init, jax.random.key(0))
    )
    assert count(spaces.darts(), channels=16, cells=8, partial=4) == 299_578
    spec, bytes_of = spaces.darts(nodes=2).spec, {}
    ops, x = {name: OPS[name] for name in spec.ops}, [jnp.zeros((16, 16, 16, 32))] * 2
    gates = jnp.ones((len(spec.edges), len(ops))) / len(ops)
    for K in (1, 4):  # a cell of the search net
        cell = SuperCell(spec=spec, ops=ops, features=16, stride=1, partial=K)
        variables = jax.eval_shape(lambda key, cell=cell: cell.init(key, x, gates, True, False, None), jax.random.key(0))
        nodes = lambda v, g, cell=cell: cell.apply(v, x, g, True, False, None, mutable=["batch_stats"])[0]
        loss = lambda v, g, nodes=nodes: sum(jnp.sum(n**2) for n in nodes(v, g))
        bytes_of[K] = jit(jax.grad(loss, (0, 1))).lower(variables, gates).compile().memory_analysis().temp_size_in_bytes
    assert bytes_of[4] <= 0.45 * bytes_of[1]  # 0.31


# DrNAS


def test_the_pathwise_gradient_of_a_dirichlet_draw_is_that_of_its_mean():
    c, n = jnp.asarray([1.0, -2.0, 0.5, 3.0]), 20_000
    policy = policies.dirichlet(ROW)
    grads = jit(jax.vmap(jax.grad(lambda alpha, key: policy.sample(key, (alpha,), 0)[0][0] @ c), (None, 0)))
    each = np.asarray(grads(ALPHA, jax.random.split(jax.random.key(0), n)), float)
    mean = lambda alpha: concentration(alpha) @ c / concentration(alpha).sum()
    error = each.mean(0) - np.asarray(jax.grad(mean)(ALPHA))
    assert (abs(error) < 3.5 * each.std(0) / np.sqrt(n)).all()


def test_a_closed_operation_is_never_drawn_nor_moved():
    still = (jnp.asarray([True, False, True, True]),)
    theta = policies.close((ALPHA,), still)
    simplex = policies.simplex(ROW)
    left = simplex.close((jnp.asarray([0.1, 0.6, 0.2, 0.1]),), still)[0]
    np.testing.assert_allclose(left, [0.25, 0, 0.5, 0.25])
    assert float((left + policies.exponentiated(0.5).update((ALPHA,), (), (left,))[0][0])[1]) == 0
    for policy in (policies.dirichlet(ROW), policies.softmax(ROW), policies.concrete(ROW, 0.5)):
        loss = lambda theta: jnp.sum(policy.sample(jax.random.key(0), theta, 0)[0][0] ** 2)
        gates = policy.sample(jax.random.key(0), theta, 0)[0][0]
        assert float(gates[1]) == 0 and abs(float(gates.sum()) - 1) < 1e-5
        grad = jax.grad(loss)(theta)[0]
        assert float(grad[1]) == 0 and np.isfinite(grad).all() and np.abs(grad).sum() > 0
        optimizer = training.adam()
        updates, _ = optimizer.update((grad,), optimizer.init(theta), theta)
        assert not policies.still_open(optax.apply_updates(theta, updates))[0][1]


def test_the_divergence_of_a_dirichlet_is_scipys():
    beta = np.asarray(concentration(ALPHA), float)
    sample = stats.dirichlet(beta).rvs(200_000, random_state=0)
    monte_carlo = np.mean(stats.dirichlet(beta).logpdf(sample.T) - stats.dirichlet(np.ones(4)).logpdf(sample.T))
    assert abs(float(divergence((ALPHA,))) - monte_carlo) < 0.02
    assert abs(float(divergence((jnp.zeros(4),)))) < 1e-5


# GAEA


def test_gaea_on_a_linear_loss_is_its_closed_form_and_sparser_than_a_softmax():
    c, rate, steps = jnp.asarray([0.3, -0.1, 0.7, 0.0]), 0.1, 50
    policy, optimizer = policies.simplex(ROW), policies.exponentiated(rate)
    theta = policy.init(jax.random.key(0))
    np.testing.assert_allclose(theta[0], 0.25)
    logits = jnp.zeros(4)
    for _ in range(steps):
        updates, _ = optimizer.update((c,), optimizer.init(theta), theta)
        theta = optax.apply_updates(theta, updates)
        logits = logits - rate * jax.grad(lambda a: jax.nn.softmax(a) @ c)(logits)
    np.testing.assert_allclose(theta[0], jax.nn.softmax(-rate * steps * c), atol=2e-6)
    assert float(diagnostics.entropy(theta)) < float(diagnostics.entropy((jax.nn.softmax(logits),)))


# ProxylessNAS: two paths


def small_mobile():
    layers = (
        spaces.MobileLayer(4, 4, 1, ("k3_e1", "k3_e2", "k5_e1", "k5_e2", "k3_e3", "zero")),
        spaces.MobileLayer(4, 4, 2, ("k3_e1", "k3_e2")),
    )
    space = spaces.mobile(spaces.MobileSpec(layers, stem=4, head=4, stem_stride=1))
    return space


def linear_problem(space, c):
    """A bilevel problem whose loss is linear in the two paths' weights."""

    def loss(params, gates, batch, key):
        del params, batch, key
        rows = [jnp.sum(g.weight * c[d][g.index]) for d, g in enumerate(gates.op)]
        return sum(rows), (None, None)

    return weight_sharing.Problem(loss, None, None, None, None, None, None)


def two_paths(space, optimizer, **kw):
    gates_of = lambda index, weight: type(space.decisions)(tuple(Paths(index[d], weight[d]) for d in range(len(space.arity))))
    return weight_sharing.two_paths(space, optimizer, gates_of, **kw)


def test_two_paths_leave_the_other_probabilities_where_they_are():
    space = small_mobile()
    gradient = two_paths(space, optax.adam(0.3, b1=0.0))
    c = [jnp.asarray([0.1, 0.9, -0.4, 2.0, 0.3, 0.0]), jnp.asarray([1.0, -1.0])]
    theta = policies.categorical(space, scale=1.0).init(jax.random.key(0))
    before = np.asarray(jax.nn.softmax(theta[0]))
    state, touched = gradient.init(theta), 0
    for seed in range(5):
        new, _, _ = gradient.step(jax.random.key(seed), theta, state, linear_problem(space, c), 0)
        after = np.asarray(jax.nn.softmax(new[0]))
        moved = np.flatnonzero(abs(after - before) > 1e-6)
        touched += len(moved)
        assert len(moved) in (0, 2)
    assert touched >= 6


def test_a_row_whose_absent_layer_is_active_stands_still():
    space = small_mobile()
    theta = policies.categorical(space).init(jax.random.key(0)).at[0, 5].set(20.0)  # zero is always active
    problem = linear_problem(space, [jnp.arange(6.0), jnp.asarray([1.0, -1.0])])
    for zero, still in (((5, -1), True), (None, False)):
        gradient = two_paths(space, optax.sgd(1e9), zero=zero)
        new = gradient.step(jax.random.key(1), theta, gradient.init(theta), problem, 0)[0]
        assert bool((new[0] == theta[0]).all()) == still and not (new[1] == theta[1]).all()


def test_the_two_path_gradient_points_where_the_exact_one_does():
    """On random linear problems; the exact gradient is that of the expectation over the softmax."""
    space, rate = small_mobile(), 1.0
    gradient = two_paths(space, optax.sgd(rate))
    n = 10_000

    @jit
    def directions(theta, c):
        step = lambda key: gradient.step(key, theta, gradient.init(theta), linear_problem(space, [c, jnp.zeros(2)]), 0)[0]
        probabilities = lambda theta: jax.nn.softmax(theta[0])
        each = jax.vmap(lambda k: probabilities(step(k)) - probabilities(theta))(jax.random.split(jax.random.key(9), n))
        return jnp.mean(each, 0), jnp.std(each, 0) / np.sqrt(n)

    for seed in range(5):
        k_theta, k_c = jax.random.split(jax.random.key(seed))
        theta, c = 0.5 * jax.random.normal(k_theta, (2, 6)), jax.random.normal(k_c, (6,)).at[5].set(0.0)
        mean, error = (np.asarray(a) for a in directions(theta, 0.05 * c))
        p = np.asarray(jax.nn.softmax(theta[0]))
        exact = -p * (np.asarray(c) - p @ np.asarray(c))  # descent of the expectation, as a change of logits weighed by p
        clear = (abs(mean) > 3 * error) & (abs(exact) > 0.15 * abs(exact).max())
        assert clear.sum() >= 2
        assert (np.sign(mean[clear]) == np.sign(exact[clear])).mean() >= 0.75
        assert np.corrcoef(mean, exact)[0, 1] > 0.5


def test_of_two_equal_operations_the_cheap_one_wins():
    space = spaces.mobile(spaces.MobileSpec((spaces.MobileLayer(4, 4, 1, ("k3_e1", "k5_e1")),), stem=4, head=4, stem_stride=1))
    prices = jnp.asarray([1.0, 3.0])
    found = {}
    for name, weight in {"free": 0.0, "priced": 1.0}.items():
        total = lambda loss, theta, t, weight=weight: loss + weight * jnp.sum(jax.nn.softmax(theta[0]) * prices)
        gradient = two_paths(space, optax.adam(0.02, b1=0.0), total=total)
        problem = linear_problem(space, [jnp.zeros(2)])
        theta = policies.categorical(space).init(jax.random.key(0))
        step = lambda carry, key: (gradient.step(key, *carry, problem, 0)[:2], None)
        (theta, _), _ = jax.lax.scan(step, (theta, gradient.init(theta)), jax.random.split(jax.random.key(1), 300))
        found[name] = float(jax.nn.softmax(theta[0])[0])
    assert found["priced"] > 0.95 and abs(found["free"] - 0.5) < 0.1


# SmoothDARTS


def test_perturbed_gates_are_on_the_simplex_and_an_attack_never_lowers_the_loss():
    gates = (jax.nn.softmax(jax.random.normal(jax.random.key(0), (6, 5))),)
    loss_of = lambda g: jnp.sum(jnp.sin(3 * g[0]) * jnp.arange(30.0).reshape(6, 5))
    for make in (weight_sharing.random_noise, weight_sharing.adversarial):
        for eps in (0.03, 0.3):
            moved = make(lambda t, eps=eps: eps)(jax.random.key(1), gates, loss_of, 0)[0]
            assert (moved >= 0).all() and np.allclose(moved.sum(-1), 1, atol=1e-6)
            assert float(abs(moved - gates[0]).max()) > 0
            if make is weight_sharing.adversarial:
                assert float(loss_of((moved,))) > float(loss_of(gates))
        still = make(lambda t: 0.0)(jax.random.key(1), gates, loss_of, 0)[0]
        np.testing.assert_array_equal(still, gates[0])
    rows, plain = jnp.asarray([[2.0, -1.0, 1.0], [-0.1, -0.2, 0.0]]), jnp.asarray([[0.0, 0.0, 1.0], [0.2, 0.3, 0.5]])
    np.testing.assert_allclose(on_simplex((rows,), (plain,))[0], [[0.5, 0, 0.5], [0.2, 0.3, 0.5]])  # nothing left: the plain row


def test_an_attack_on_a_linear_loss_ends_on_the_surface_of_the_ball():
    """Of a slope of +1 and -1 in turn the worst point of the ball is gates + eps * slope, which is on the simplex as well.

    Seven steps of 2 eps / 7 lead past it from any start in the ball: the projection is what keeps the attack there.
    """
    slope = jnp.asarray([1.0, -1.0, 1.0, -1.0])
    gates = (jnp.full((50, 4), 0.25),)
    for eps in (0.03, 0.1):
        attack = weight_sharing.adversarial(lambda t, eps=eps: eps)
        (moved,) = attack(jax.random.key(1), gates, lambda g: jnp.sum(g[0] @ slope), 0)
        np.testing.assert_allclose(moved - 0.25, jnp.broadcast_to(eps * slope, moved.shape), atol=0.15 * eps)


def test_smooth_darts_perturbs_the_weights_step_only():
    net, batch = toy_net(cell_space()), images(jax.random.key(1))
    smooth = lambda eps: weight_sharing.smooth_darts(net, perturb=weight_sharing.random_noise(eps))
    state = jit(smooth(lambda t: 0.0).init)(jax.random.key(0))
    both = (jit(search.step) for search in (smooth(lambda t: 0.0), weight_sharing.darts(net, order="first")))
    jax.tree.map(np.testing.assert_array_equal, *(step(jax.random.key(2), state, batch)[0] for step in both))
    step = jit(smooth(lambda t: 0.3 * t).step)  # one program: what is compiled apart may differ by rounding
    after = {}
    for name, t in {"plain": 0, "noisy": 1}.items():
        after[name] = step(jax.random.key(2), state._replace(step=jnp.asarray(t, jnp.int32)), batch)[0]
    jax.tree.map(np.testing.assert_array_equal, after["noisy"].theta, after["plain"].theta)
    assert any(
        (np.asarray(a) != np.asarray(b)).any() for a, b in zip(*(jax.tree.leaves(s.variables) for s in after.values()), strict=True)
    )


# DARTS-, and P-DARTS's dropout


def test_the_auxiliary_skip_is_added_to_every_edge_and_gone_at_zero():
    spec = spaces.darts(nodes=1, ops=("none", "skip_connect", "max_pool_3x3")).spec
    gates = jnp.asarray([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    plain, x = one_cell(spec)
    helped, _ = one_cell(spec, auxiliary_skip=True)
    np.testing.assert_allclose(helped(gates, Anneal(auxiliary_skip=0.7)), plain(gates) + 0.7 * (x[0] + x[1]), atol=1e-5)
    np.testing.assert_array_equal(helped(gates, Anneal(auxiliary_skip=0.0)), plain(gates))
    np.testing.assert_array_equal(helped(gates), plain(gates))


def test_the_auxiliary_skip_follows_its_schedule_and_is_in_no_derived_network():
    space = cell_space()
    net = nets.cell_net(
        space, image=IMAGE, classes=CLASSES, channels=2, cells=1, auxiliary_skip=lambda t: jnp.where(t < 5, 1.0, 0.0)
    )
    plain = tiny_net(space)
    variables = jit(net.init)(jax.random.key(0))
    gates, x = space.gates(space.sample(jax.random.key(1))), jax.random.normal(jax.random.key(2), (4, *IMAGE))
    at = jit(lambda t: net.apply(variables, x, gates, train=False, t=t)[0])
    module, extract = net.specialize(space.derive(gates))
    alone = jit(module.apply)(extract(variables), x)
    np.testing.assert_allclose(at(5), alone, atol=1e-5)
    assert abs(np.asarray(at(0)) - np.asarray(alone)).max() > 1e-3
    params = lambda net: sum(p.size for p in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0))["params"]))
    assert params(net) == params(plain) + 2 * 4 * 4  # a FactorizedReduce of 4 x 4 weights on each of the two strided edges


def test_dropout_is_behind_the_skips_alone():
    spec = spaces.darts(nodes=1, ops=("none", "skip_connect", "max_pool_3x3")).spec
    apply, x = one_cell(spec)
    skips, pools = (jnp.zeros((2, 3)).at[:, k].set(1.0) for k in (1, 2))
    drop = lambda gates, rate: apply(gates, Anneal(skip_dropout=rate), train=True, key=jax.random.key(0))
    np.testing.assert_array_equal(drop(skips, 1.0), jnp.zeros_like(x[0]))
    np.testing.assert_allclose(drop(skips, 0.0), x[0] + x[1], atol=1e-6)
    np.testing.assert_allclose(drop(pools, 1.0), drop(pools, 0.0), atol=1e-6)
    y = np.asarray(drop(skips.at[1].set(0.0), 0.5))  # one edge: each entry is gone, or twice as large
    np.testing.assert_allclose(np.where(y == 0, 0, y / 2), np.where(y == 0, 0, np.asarray(x[0])), atol=1e-6)
    assert 0.3 < (y == 0).mean() < 0.7


# beta-DARTS


def test_beta_decay_has_its_gradient_and_shrinks_the_spread():
    theta = {"a": jax.random.normal(jax.random.key(0), (4, 5)), "b": jax.random.normal(jax.random.key(1), (2, 5))}
    grad = jax.grad(beta_decay)(theta)
    for name, a in theta.items():
        np.testing.assert_allclose(grad[name], jax.nn.softmax(a, -1) / 6, atol=1e-6)
    spread = lambda theta: float(np.mean([np.std(jax.nn.softmax(a, -1), -1).mean() for a in theta.values()]))
    seen = [spread(theta)]
    for _ in range(20):
        theta = jax.tree.map(lambda a, g: a - 2.0 * g, theta, jax.grad(beta_decay)(theta))
        seen.append(spread(theta))
    assert (np.diff(seen) < 0).all()


def test_beta_darts_adds_the_decay_to_the_architectures_loss():
    net, batch = toy_net(cell_space()), images(jax.random.key(1))
    theta = {}
    for weight in (0.0, 3.0):
        search = weight_sharing.beta_darts(net, architecture=optax.sgd(1.0), decay=lambda t, w=weight: w)
        state = jit(search.init)(jax.random.key(0))
        theta[weight] = jit(search.step)(jax.random.key(2), state, batch)[0].theta
    decay = jax.grad(beta_decay)(state.theta)
    jax.tree.map(lambda a, b, d: np.testing.assert_allclose(a - b, -3.0 * d, atol=1e-5), theta[3.0], theta[0.0], decay)


# DARTS-PT


def load_bearing(space, bearing, labels_from):
    """A toy supernet in which only the operations in `bearing`, (kind, edge, operation), know labels: {which: of these classes}."""
    net = toy_net(space)
    variables = jit(net.init)(jax.random.key(0))
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    teacher = variables["params"][list(params)[labels_from[0]]][labels_from[1], labels_from[2]]
    for (kind, edge, op), known in bearing.items():
        name = list(params)[kind]
        params[name] = params[name].at[edge, op].set(16 * teacher * jnp.isin(jnp.arange(CLASSES), jnp.asarray(known))[None])
    x = jax.random.normal(jax.random.key(1), (1, 256, *IMAGE))
    y = jnp.argmax(x.reshape(1, 256, -1) @ teacher, -1)
    return net, {**variables, "params": params}, Batch(train=(x[:, :8], y[:, :8]), valid=(x, y))


def test_perturbation_finds_the_operation_that_bears_the_load_where_alpha_misleads():
    space = cell_space()
    net, variables, batch = load_bearing(space, {(0, 1, 2): range(CLASSES)}, (0, 1, 2))  # normal, edge 1, sep_conv_3x3
    theta = jax.tree.map(jnp.zeros_like, policies.softmax(space).init(jax.random.key(0)))
    theta = theta._replace(normal=theta.normal.at[1, 1].set(2.0))  # alpha prefers the skip
    search = weight_sharing.project_operations(net, optax.sgd(0.0))
    state, step = jit(search.init)(jax.random.key(2), Given(variables, theta=theta)), jit(search.step)
    for t in range(4):  # two edges of two kinds
        state, info = step(jax.random.key(3 + t), state, batch)
    assert np.asarray(state.decided).all()
    by_alpha, by_loss = policies.softmax(space).derive(theta), search.best(state)
    real = [name for name in space.spec.ops if name != "none"]
    assert real[int(by_alpha.normal.op[0, 1])] == "skip_connect"
    assert real[int(by_loss.normal.op[0, 1])] == "sep_conv_3x3"
    assert 0 <= float(info.score) <= 1


def test_what_is_out_of_the_search_is_never_decided_on():
    """Of images that are black no operation makes anything: all are worth the same, and a closed one comes first."""
    net = toy_net(cell_space())
    still = jax.tree.map(lambda shape: np.broadcast_to([True, False, True], shape), net.space.gate_shapes, is_leaf=is_shape)
    search = weight_sharing.project_operations(net, optax.sgd(0.0))
    state, step = jit(search.init)(jax.random.key(2), Given(open=still)), jit(search.step)
    black = jax.tree.map(jnp.zeros_like, images(jax.random.key(1)))
    for t in range(4):
        state, _ = step(jax.random.key(3 + t), state, black)
    assert np.asarray(state.decided).all()
    real = [name for name in net.space.spec.ops if name != "none"]
    assert {real[int(k)] for cell in search.best(state) for k in np.ravel(cell.op)} == {"sep_conv_3x3"}


def test_perturbation_deletes_the_edges_that_bear_least():
    space = spaces.darts(nodes=2, ops=("none", "skip_connect", "sep_conv_3x3"))
    bearing = {(0, 2, 1): (0, 1), (0, 4, 1): (2,)}  # node 1 has edges 2, 3, 4
    net, variables, batch = load_bearing(space, bearing, (0, 2, 1))
    rows = jnp.zeros((10, 3)).at[:, 1].set(1.0).at[3, 1].set(5.0)  # the idle edge has the largest gate
    search = weight_sharing.project_edges(net, optax.sgd(0.0))
    state, step = jit(search.init)(jax.random.key(2), Given(variables, theta=rows)), jit(search.step)
    for t in range(4):  # two would do: with two edges a node nothing more goes
        state, _ = step(jax.random.key(3 + t), state, batch)
    left = np.asarray(state.decided)
    assert left[:5].tolist() == [True, True, True, False, True] and left[5:7].all() and left[7:].sum() == 2
    with pytest.raises(ValueError, match="two inputs"):
        weight_sharing.project_edges(toy_net(spaces.nasbench201()))


# RobustDARTS


def test_power_iteration_finds_the_dominant_eigenvalue():
    a = jax.random.normal(jax.random.key(0), (12, 12))
    for sign in (1.0, -1.0):
        hessian = sign * (a @ a.T) / 12
        loss = lambda theta: 0.5 * jnp.concatenate(theta) @ hessian @ jnp.concatenate(theta)
        theta = (jnp.ones(5), jnp.ones(7))
        found = jit(lambda t: diagnostics.dominant_eigenvalue(loss, t, jax.random.key(1), 60))(theta)
        values = np.linalg.eigvalsh(np.asarray(hessian, float))
        assert abs(float(found) / values[np.argmax(abs(values))] - 1) < 1e-3


def test_the_measured_eigenvalue_is_that_of_the_hessian_in_alpha():
    net = toy_net(cell_space())
    search, policy = weight_sharing.darts(net, order="first"), policies.softmax(net.space)
    state, batch = jit(search.init)(jax.random.key(0)), images(jax.random.key(1))
    measured = jit(weight_sharing.measurements(net, policy, iterations=200))(jax.random.key(2), state, batch)
    flat, back = jax.flatten_util.ravel_pytree(state.theta)
    x, y = (a[0] for a in batch.valid)
    gates = lambda v: jax.tree.map(lambda a: jax.nn.softmax(a, -1), back(v))
    loss = lambda v: losses.cross_entropy(net.apply(state.variables, x, gates(v), train=True)[0], y)
    values = np.linalg.eigvalsh(np.asarray(jit(jax.hessian(loss))(flat), float))
    assert abs(float(measured["eigenvalue"]) / values[np.argmax(abs(values))] - 1) < 1e-3
    assert abs(float(measured["entropy"]) - np.log(3)) < 1e-3  # alpha has just begun


def scripted(values):
    """A watched search that reports these eigenvalues, and whose architecture is the epoch's number."""
    step = lambda key, state, batch: (
        state + 1,
        WatchInfo(jnp.zeros(()), None, {"eigenvalue": jnp.asarray(values, jnp.float32)[state]}),
    )
    return Strategy(lambda key, given=None: jnp.zeros((), jnp.int32), step, lambda state: state)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("jump", "stops"), [(14, 16), (None, None)])
def test_early_stopping_answers_with_the_epoch_before_the_eigenvalue_rose(jump, stops, sign):
    """Window 5, lag 4: at epoch e the means of e-4..e and e-8..e-4 are compared, and the answer is that of e-4."""
    values = [1.0] * 30 if jump is None else [1.0] * jump + [2.0] * (30 - jump)
    search = weight_sharing.early_stopping(scripted([sign * value for value in values]))
    state, step = search.init(jax.random.key(0)), jit(search.step)
    seen = []
    for t in range(25):
        state, info = step(jax.random.key(t), state, Batch())
        seen.append(int(info.watched["stopped"]))
    if stops is None:
        assert sum(seen) == 0 and int(search.best(state)) == 25
        return
    epochs = np.arange(1, 26)
    mean = lambda e: np.mean(values[e - 5 : e])
    first = next(e for e in epochs if e >= 10 and mean(e) > 1.3 * mean(e - 4))  # the rule, in plain Python
    assert seen.index(1) + 1 == first == stops and seen[-1] == 1
    assert int(search.best(state)) == first - 4


def noisy_net(space, size):
    """A linear map and noise on each edge of S4, added and weighed: two logits."""
    noise, blank = OPS["noise"](2, 1, False), lambda n: jnp.zeros((2, 1, 1, n))

    def init(key, gates=None):
        k_map, k_noise = jax.random.split(key)
        stats = jax.vmap(lambda key: noise.init(key, blank(1), True)["batch_stats"])(jax.random.split(k_noise, 4))
        return {"params": 0.01 * jax.random.normal(k_map, (4, size, 2)), "batch_stats": stats}

    def apply(variables, x, gates, *, train, path=False, key=None, t=None):
        draw = lambda stats: noise.apply({"batch_stats": stats}, blank(len(x)), train, mutable=["batch_stats"])
        y, moved = jax.vmap(draw)(variables["batch_stats"])  # [E, 2, 1, 1, B]
        g = jnp.concatenate(gates)
        logits = jnp.einsum("e,ekb->bk", g[:, 0], y[:, :, 0, 0]) + jnp.einsum("e,bi,eik->bk", g[:, 1], x, variables["params"])
        return logits, {**variables, **moved} if train else variables

    return nets.Net(init, apply, lambda variables, gates: variables, None, space, (size,), 2)


def test_early_stopping_is_what_keeps_noise_out_of_s4():
    """64 labels, a fifth of them wrong, are learned by heart: then noise, which shrinks the logits, is worth more than the map."""
    space, steps, size = spaces.darts_subspace("S4", nodes=1), 10, 32
    net = noisy_net(space, size)
    search = weight_sharing.darts(net, training.sgd(0.01, weight_decay=0.0), training.adam(0.01, 0.0), order="first")
    watched = weight_sharing.with_measurements(search, weight_sharing.measurements(net, policies.softmax(space), iterations=10))

    def examples(key, w, n):
        k_x, k_flip = jax.random.split(key)
        x = jax.random.normal(k_x, (n, size))
        y = ((x @ w > 0) ^ jax.random.bernoulli(k_flip, 0.2, (n,))).astype(jnp.int32)
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (steps, 1, *a.shape)), (x, y))

    def problem(key):
        k_w, k_train, k_valid = jax.random.split(key, 3)
        w = jax.random.normal(k_w, (size,))
        return Batch(train=examples(k_train, w, 64), valid=examples(k_valid, w, 256))

    batches = jit(jax.vmap(problem))(jax.random.split(jax.random.key(0), 4))
    states, step = jit(jax.vmap(watched.init))(jax.random.split(jax.random.key(1), 4)), jit(jax.vmap(watched.step))
    values, noises = [], []
    for t in range(20):
        states, info = step(jax.random.split(jax.random.key(10 + t), 4), states, batches)
        values.append(np.asarray(info.watched["eigenvalue"]))
        archs = jax.vmap(watched.best)(states)
        noises.append(np.asarray(jax.vmap(lambda arch: diagnostics.count_operations(space, arch, ("noise",)))(archs)))
    for seed in range(4):
        stopping = weight_sharing.early_stopping(scripted([v[seed] for v in values]))
        state = stopping.init(jax.random.key(0))
        for t in range(20):
            state, _ = stopping.step(jax.random.key(t), state, Batch())
        assert bool(state.stopped)
        assert noises[int(stopping.best(state)) - 1][seed] < noises[-1][seed] == 4  # all edges, without the rule


def test_adjustable_decay_is_the_decay_of_sgd():
    params = {"w": jax.random.normal(jax.random.key(0), (5, 3))}
    mine, plain = optax.chain(training.adjustable_decay(), optax.sgd(0.1, momentum=0.9)), training.sgd(0.1)
    ours, theirs = (params, mine.init(params)), (params, plain.init(params))
    for t in range(3):
        grads = {"w": jax.random.normal(jax.random.key(t + 1), (5, 3))}
        for optimizer, (w, state) in ((mine, ours), (plain, theirs)):
            updates, state = optimizer.update(grads, state, w)
            moved = optax.apply_updates(w, updates), state
            ours, theirs = (moved, theirs) if optimizer is mine else (ours, moved)
    chex.assert_trees_all_equal(ours[0], theirs[0])


def decays(state):
    """The weight decay in the state of a search's optimizer."""
    return float(optax.tree_utils.tree_get(state.opt_state, "weight_decay"))


def test_adaptive_regularisation_goes_back_and_on_with_three_times_the_decay():
    """To the last bit what a search does that is started by hand from the state of four epochs before."""
    optimizer = optax.chain(training.adjustable_decay(0.01), optax.sgd(0.025, momentum=0.9))

    def measure(key, state, batch):  # it rises after epoch 14 unless there is more weight decay
        little = optax.tree_utils.tree_get(state.opt_state, "weight_decay") < 0.02
        return {"eigenvalue": jnp.where((state.step > 14) & little, 2.0, 1.0)}

    watched = weight_sharing.with_measurements(weight_sharing.darts(toy_net(cell_space()), optimizer, order="first"), measure)
    adaptive = weight_sharing.adaptive_regularisation(watched, maximum=0.05)
    step, one = jit(adaptive.step), jit(watched.step)
    key_of, batch_of = lambda t: jax.random.key(100 + t), lambda t: jax.tree.map(lambda a: a[None], images(jax.random.key(t)))
    seen, plain = [jit(adaptive.init)(jax.random.key(0))], jit(watched.init)(jax.random.key(0))
    for t in range(1, 17):  # the rule fires at epoch 16, as that of early stopping
        seen.append(step(key_of(t), seen[-1], batch_of(t))[0])
        if t < 16:
            plain, _ = one(key_of(t), plain, batch_of(t))
    chex.assert_trees_all_close(seen[15].now.search, plain, atol=1e-5)  # two programs round apart
    before, state = seen[12].now, seen[16]
    tripled = np.float32(0.01) * np.float32(3.0)
    with_more = optax.tree_utils.tree_set(before.search.opt_state, weight_decay=jnp.asarray(tripled))
    hand = before._replace(search=before.search._replace(opt_state=with_more))
    assert int(before.number) == 12 and not bool(state.stopped)
    chex.assert_trees_all_equal(state.now, hand)
    hand = AdaptiveState(hand, jax.tree.map(lambda a: jnp.stack([a] * 4), hand), jnp.zeros((), bool))
    chex.assert_trees_all_equal(state, hand)
    plain = hand.now.search
    for t in range(17, 31):
        state, info = step(key_of(t), state, batch_of(t))
        hand, _ = step(key_of(t), hand, batch_of(t))
        plain, _ = one(key_of(t), plain, batch_of(t))
    chex.assert_trees_all_equal(state, hand)
    chex.assert_trees_all_close(state.now.search, plain, atol=1e-5)
    assert decays(plain) == float(info.watched["weight_decay"]) == tripled and int(state.now.number) == 12 + 14
    with pytest.raises(ValueError, match="adjustable_decay"):
        fixed = weight_sharing.darts(toy_net(cell_space()), order="first")
        weight_sharing.adaptive_regularisation(weight_sharing.with_measurements(fixed, measure)).init(jax.random.key(0))


class Scripted(NamedTuple):
    opt_state: Any
    epoch: jax.Array
    values: jax.Array


def decayed(values, **how):
    """`adaptive_regularisation` of a search whose eigenvalues are values[epoch], and whose architecture is the epoch's number."""

    def init(key, given=None):
        return Scripted(DecayState(jnp.asarray(3e-4, jnp.float32)), jnp.zeros((), jnp.int32), jnp.asarray(values, jnp.float32))

    def step(key, state, batch):
        value = jnp.asarray(state.values)[state.epoch]
        return state._replace(epoch=state.epoch + 1), WatchInfo(jnp.zeros(()), None, {"eigenvalue": value})

    return weight_sharing.adaptive_regularisation(Strategy(init, step, lambda state: state.epoch), **how)


RISING_VALUES = [1.5**t for t in range(40)]


def trace(search, steps=40):
    state, step, seen = search.init(jax.random.key(0)), jit(search.step), []
    for t in range(steps):
        state, info = step(jax.random.key(t), state, Batch())
        seen.append([float(info.watched[name]) for name in ("epoch", "weight_decay", "stopped")])
    return int(search.best(state)), np.asarray(seen)


@pytest.mark.parametrize("stop", [True, False])
def test_the_weight_decay_is_raised_four_times_and_never_above_the_maximum(stop):
    best, seen = trace(decayed(RISING_VALUES, epochs=12, stop_at_limit=stop))
    epoch, decay, stopped = seen.T
    raised = np.flatnonzero(np.diff(decay, prepend=3e-4) > 1e-6)
    assert (raised == 9 + 4 * np.arange(4)).all()  # at epoch 10, each time, and back to 6
    assert (epoch[raised] == 6).all()
    np.testing.assert_allclose(decay[raised], 3e-4 * 3.0 ** np.arange(1, 5), rtol=1e-6)
    assert decay.max() <= np.float32(0.0243)
    assert best == (6 if stop else 12) and stopped.sum() == (40 - 25 if stop else 0)
    few = trace(decayed(RISING_VALUES, epochs=12, maximum=2e-3))[1][:, 1]
    assert few.max() == np.float32(3e-4) * np.float32(3)  # the next would be 2.7e-3


def test_seeds_side_by_side_are_rolled_back_each_for_itself():
    once = [1.0] * 14 + [2.0] * 26
    tables = jnp.asarray([once, [1.0] * 40, RISING_VALUES], jnp.float32)
    search = decayed(RISING_VALUES)
    first = jax.vmap(lambda values: search.init(jax.random.key(0)), axis_size=3)(tables)
    first = first._replace(now=first.now._replace(search=first.now.search._replace(values=tables)))
    past = jnp.broadcast_to(tables[:, None], (3, 4, 40))
    first = first._replace(past=first.past._replace(search=first.past.search._replace(values=past)))
    many, step = first, jit(jax.vmap(lambda state: search.step(jax.random.key(0), state, Batch())[0]))
    for _ in range(33):
        many = step(many)
    alone = jit(lambda state: search.step(jax.random.key(0), state, Batch())[0])
    for i in range(3):
        state = jax.tree.map(lambda a: a[i], first)
        for _ in range(33):
            state = alone(state)
        chex.assert_trees_all_equal(state, jax.tree.map(lambda a: a[i], many))
    assert many.stopped.tolist() == [True, False, True]  # in steps 16 + 4 * 4, never, and 10 + 4 * 4
    assert many.now.number.tolist() == [12, 33, 6]


@pytest.mark.parametrize(
    "make",
    [
        policies.softmax,
        policies.dirichlet,
        policies.simplex,
        policies.edge_normalised,
        policies.edge_simplex,
        lambda space: policies.concrete(space, 1.0),
        lambda space: policies.straight_through(space, 1.0),
        lambda space: policies.path_dropout(space, 0.1),
        lambda space: warming(space, lambda t: 0.5),
        policies.categorical,
    ],
    ids=["softmax", "dirichlet", "simplex", "edges", "edge simplex", "concrete", "gumbel", "dropout", "warm-up", "categorical"],
)
def test_what_a_row_does_not_have_gets_no_weight(make):
    space = spaces.darts_subspace("S1", nodes=2)
    policy = make(space)

    def gates(key):
        k_init, k_sample = jax.random.split(key)
        actions = policy.sample(k_sample, policy.init(k_init), jnp.zeros((), jnp.int32))
        return jax.vmap(policy.gates)(actions)

    drawn = jit(jax.vmap(gates))(jax.random.split(jax.random.key(0), 60))
    for kind in ("normal", "reduce"):
        g, on = np.asarray(getattr(drawn, kind)), getattr(space.open, kind)
        assert (g[..., ~on] == 0).all() and np.isfinite(g).all()
        assert (g != 0).any((0, 1))[on].all()
    one = jax.tree.map(lambda a: a[0, 0], drawn)
    for perturb in (weight_sharing.random_noise(lambda t: 0.3), weight_sharing.adversarial(lambda t: 0.3)):
        outside = lambda gates: sum(jnp.sum(jnp.where(on, 0, g)) for g, on in zip(gates, space.open, strict=True))  # tempting
        moved = jit(lambda key, gates, perturb=perturb: perturb(key, gates, outside, 0))(jax.random.key(1), one)
        assert all((np.asarray(getattr(moved, kind))[~getattr(space.open, kind)] == 0).all() for kind in ("normal", "reduce"))


def test_a_search_of_s1_and_its_projection_stay_in_it():
    net = toy_net(spaces.darts_subspace("S1", nodes=2))
    out = lambda tree: [np.asarray(getattr(tree, kind))[~getattr(net.space.open, kind)] for kind in ("normal", "reduce")]
    search = weight_sharing.darts(net, order="first")
    state, step = jit(search.init)(jax.random.key(0)), jit(search.step)
    for t in range(3):
        state, info = step(jax.random.key(t), state, images(jax.random.key(t)))
    assert all((g == 0).all() for g in out(info.gates)) and bool(jnp.isfinite(info.loss))
    rows = weight_sharing.project_operations(net).init(jax.random.key(0)).search.theta
    uniform = jnp.concatenate([jnp.asarray(getattr(net.space.open, kind)) for kind in ("normal", "reduce")]) / 2
    assert (rows == uniform).all()


def test_collapse_and_skips_are_named():
    space = spaces.nasbench201()
    arch = lambda op: space.from_text("+".join(["|" + "|".join(f"{op}~{j}" for j in range(i + 1)) + "|" for i in range(3)]))
    assert diagnostics.collapsed(space, arch("skip_connect")) == "skip connections"
    assert diagnostics.collapsed(space, arch("none")) == "none"
    assert diagnostics.collapsed(space, arch("nor_conv_3x3")) is None
    cell = lambda *rows: space.from_text("+".join(rows))
    pools = cell("|avg_pool_3x3~0|", "|none~0|none~1|", "|none~0|none~1|avg_pool_3x3~2|")
    assert diagnostics.collapsed(space, pools) == "none"  # node 2 hears nothing
    pools = cell("|avg_pool_3x3~0|", "|none~0|none~1|", "|none~0|avg_pool_3x3~1|none~2|")
    assert diagnostics.collapsed(space, pools) == "pools"
    mixed = cell("|avg_pool_3x3~0|", "|none~0|skip_connect~1|", "|none~0|none~1|skip_connect~2|")
    assert diagnostics.collapsed(space, mixed) == "skip connections and pools"
    cut = cell("|nor_conv_3x3~0|", "|nor_conv_3x3~0|nor_conv_3x3~1|", "|none~0|none~1|none~2|")
    assert diagnostics.collapsed(space, cut) == "none"
    beside = cell("|nor_conv_3x3~0|", "|none~0|nor_conv_3x3~1|", "|skip_connect~0|none~1|none~2|")
    assert diagnostics.collapsed(space, beside) == "skip connections"  # the convolutions lead nowhere
    assert int(diagnostics.count_operations(space, arch("skip_connect"))) == 6
    darts = spaces.darts()
    assert int(diagnostics.count_operations(darts, darts.from_text("DARTS_V2"))) == 5
    assert diagnostics.collapsed(darts, darts.from_text("DARTS_V2")) is None
    noisy = spaces.darts_subspace("S4", nodes=1)
    text = "Genotype(normal=[('noise', 0), ('{}', 1)], normal_concat=[2], reduce=[('noise', 0), ('{}', 1)], reduce_concat=[2])"
    assert diagnostics.collapsed(noisy, noisy.from_text(text.format("noise", "noise"))) == "none"
    assert diagnostics.collapsed(noisy, noisy.from_text(text.format("noise", "sep_conv_3x3"))) is None


def test_cells_without_weights_have_collapsed_in_every_space():
    """Of pools, of pools and `none`, and of skips beside them; one convolution anywhere is enough to be sound."""
    nb201, darts = spaces.nasbench201(), spaces.darts(nodes=2)
    for ops, wanted in (
        ((4, 4, 4, 4, 4, 4), "pools"),
        ((4, 0, 4, 4, 0, 4), "pools"),
        ((0, 0, 0, 4, 0, 0), "pools"),
        ((4, 1, 4, 4, 0, 4), "skip connections and pools"),
        ((0, 0, 0, 0, 4, 4), "none"),  # the pools hear nothing
        ((4, 0, 4, 4, 0, 3), None),
    ):
        assert diagnostics.collapsed(nb201, nb201.unflat(np.asarray(ops))) == wanted
    for normal, reduce, wanted in (
        ((1, 2, 0, 2, 1), (2, 0, 0, 0, 0), "pools"),
        ((1, 2, 0, 2, 1), (0, 0, 0, 0, 0), "pools"),
        ((1, 2, 0, 2, 1), (3, 0, 0, 0, 0), "skip connections and pools"),
        ((1, 2, 0, 2, 1), (4, 0, 0, 0, 0), None),
    ):
        gates = darts.gates(darts.from_index(0))
        rows = (jax.nn.one_hot(np.asarray(ops), gates.normal.shape[1]) for ops in (normal, reduce))
        with_gates = darts._replace(gates=lambda arch, rows=tuple(rows): type(gates)(*rows))
        assert diagnostics.collapsed(with_gates, darts.from_index(0)) == wanted


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])  # of three, a block's input is one of five, as its operation is
def test_blocks_and_layers_without_weights_have_collapsed(blocks):
    """What is read is no operation, however many there are to choose from."""
    micro = spaces.enas_micro(blocks)
    text = lambda first, *rest: " ".join([f"[{' '.join([first, *rest * (blocks - 1)])}]"] * 2)
    pools, skips = "max_pool_3x3~1+avg_pool_3x3~0", "skip_connect~1+max_pool_3x3~1"
    assert diagnostics.collapsed(micro, micro.from_text(text(pools, pools))) == "pools"
    assert diagnostics.collapsed(micro, micro.from_text(text(skips, pools))) == "skip connections and pools"
    assert diagnostics.collapsed(micro, micro.from_text(text("sep_conv_3x3~0+skip_connect~1", pools))) is None
    assert int(diagnostics.count_operations(micro, micro.from_text(text(skips, skips)))) == 2 * blocks
    macro = spaces.enas_macro(3, ("avg_pool_3x3", "conv_3x3"))  # two operations, and bits of two values
    assert diagnostics.collapsed(macro, macro.from_text("avg_pool_3x3 avg_pool_3x3<0 avg_pool_3x3<1")) == "pools"
    assert diagnostics.collapsed(macro, macro.from_text("avg_pool_3x3 avg_pool_3x3 conv_3x3")) is None


# P-DARTS: the plan of stages


def test_three_stages_leave_one_of_three_operations_an_edge_and_at_most_two_skips():
    space = spaces.darts(nodes=2)
    plan, keep = [], (None, 5, 3)
    make = lambda: weight_sharing.darts(toy_net(space), order="first")
    feed = Feed((), lambda key, arrays, t: images(key))
    for n in keep:
        without = (space.spec.ops.index("none"),) if n == 3 else ()
        give = (
            (lambda state: None)
            if n is None
            else lambda s, n=n, w=without: Given(open=weight_sharing.strongest_operations(s.theta, n, w))
        )
        plan.append(Phase(make(), 3, feed, give, name=f"stage{n}"))
    result = run(jax.random.key(0), then(*plan))
    counts = [jax.tree.map(lambda a: np.asarray(policies.still_open(a)).sum(-1), s.theta) for s in result.states]
    assert [set(np.concatenate(jax.tree.leaves(c)).tolist()) for c in counts] == [{8}, {5}, {3}]
    last = result.states[2].theta
    assert not np.asarray(policies.still_open(last).normal)[:, 0].any()  # `none` is out for certain
    nested = jax.tree.map(
        lambda a, b: (~np.asarray(a) | np.asarray(b)).all(), *(policies.still_open(s.theta) for s in result.states[:0:-1])
    )
    assert all(jax.tree.leaves(nested))
    chosen = space.gates(result.best)
    assert all((np.asarray(g)[:, 1:] <= np.asarray(o)[:, 1:]).all() for g, o in zip(chosen, policies.still_open(last), strict=True))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**20), st.integers(0, 3))
def test_at_most_so_many_skips(seed, most):
    space = spaces.darts()
    gates = policies.softmax(space, 1.0)
    theta = gates.init(jax.random.key(seed))
    theta = theta._replace(normal=theta.normal.at[:, 3].add(1.5))  # a search that has come to like skips
    soft = jax.tree.map(lambda a: a[0], gates.sample(jax.random.key(0), theta, 0))
    arch, plain = weight_sharing.at_most_skips(space, soft, most), space.derive(soft)
    count = lambda a: int((np.asarray(space.gates(a).normal)[:, 3] > 0).sum())
    assert count(arch) <= most
    np.testing.assert_array_equal(arch.reduce.op, plain.reduce.op)
    if count(plain) <= most:
        np.testing.assert_array_equal(arch.normal.op, plain.normal.op)


@pytest.mark.parametrize(
    ("name", "cifar", "imagenet"), [("PDARTS", 3_433_798, 4_944_352), ("PC_DARTS_CIFAR", 3_634_678, 5_270_560)]
)
def test_published_cells_have_the_published_weights(name, cifar, imagenet):
    space = spaces.darts()
    arch = space.from_text(name)
    assert nets.count_parameters(nets.evaluation_net(space, arch, classes=10), (32, 32, 3)) == cifar
    big = nets.evaluation_net(space, arch, classes=1000, channels=48, cells=14, imagenet=True)
    assert nets.count_parameters(big, (224, 224, 3)) == imagenet


def test_a_widened_net_computes_the_same_function():
    """Channels 4 -> 6 of a net with both kinds of cells: logits at soft gates, in training and at the running statistics."""
    space = cell_space()
    make = lambda channels, K=1: nets.cell_net(space, image=IMAGE, classes=CLASSES, channels=channels, cells=2, partial=K)
    narrow, wide = make(4), make(6)
    variables = jit(narrow.init)(jax.random.key(0))
    statistics = jax.tree.map(lambda a: a + jnp.arange(a.size).reshape(a.shape) / a.size, variables["batch_stats"])
    variables = {**variables, "batch_stats": statistics}  # of no two channels alike
    grown = weight_sharing.widen_variables(jax.random.key(1), variables, narrow, wide)
    assert jax.tree.map(jnp.shape, grown) == jax.tree.map(jnp.shape, jax.eval_shape(wide.init, jax.random.key(0)))
    x = jax.random.normal(jax.random.key(2), (4, *IMAGE))
    gates = jax.tree.map(lambda g: jax.nn.softmax(jnp.arange(g.size * 1.0).reshape(g.shape) % 5), nets.base.blank_gates(space))
    for train in (True, False):
        apply = lambda net, v: jit(lambda v: net.apply(v, x, gates, train=train)[0])(v)
        logits = apply(narrow, variables), apply(wide, grown)
        np.testing.assert_allclose(logits[1], logits[0], atol=1e-4 * float(jnp.max(jnp.abs(logits[0]))))


def test_a_net_whose_function_cannot_be_kept_is_refused():
    space = cell_space()
    make = lambda channels, K: nets.cell_net(space, image=IMAGE, classes=CLASSES, channels=channels, cells=1, partial=K)
    variables = jit(make(4, 2).init)(jax.random.key(0))
    for wide in (make(4, 1), make(8, 2)):  # more of the channels take part; copies are shuffled among others
        with pytest.raises(ValueError, match="copy_channels"):
            weight_sharing.widen_variables(jax.random.key(1), variables, make(4, 2), wide)


def test_channels_that_join_in_are_copies_and_what_was_there_stays():
    space = cell_space()
    make = lambda K: nets.cell_net(space, image=IMAGE, classes=CLASSES, channels=8, cells=1, partial=K)
    narrow, wide = make(4), make(2)
    variables = jit(narrow.init)(jax.random.key(0))
    shapes = jax.eval_shape(wide.init, jax.random.key(0))
    grown = weight_sharing.copy_channels(jax.random.key(1), variables, shapes)
    assert jax.tree.map(jnp.shape, grown) == jax.tree.map(jnp.shape, shapes)
    depthwise = lambda v: np.asarray(v["params"]["cell0"]["from0"]["sep_conv_3x3"]["Depthwise_0"]["kernel"])
    np.testing.assert_array_equal(depthwise(grown)[:, :4], depthwise(variables))
    assert all((depthwise(grown)[0, i] == depthwise(variables)[0]).all((1, 2)).any() for i in range(8))
    one, many = (np.asarray(v["params"]["cell0"]["from0"]["sep_conv_3x3"]["Conv_0"]["kernel"]) for v in (variables, grown))
    np.testing.assert_allclose(many[:, :4].sum(2), one.sum(2), atol=1e-6)  # what reads copies is shared among them
    with pytest.raises(ValueError, match="shrinks"):
        weight_sharing.copy_channels(jax.random.key(1), grown, jax.eval_shape(narrow.init, jax.random.key(0)))


# What makes no sense


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: policies.concrete(ROW, 0.0), "temperature"),
        (lambda: policies.straight_through(ROW, optax.linear_schedule(-1.0, 1.0, 3)), "temperature"),
        (lambda: policies.softmax(spaces.darts(ops=("skip_connect",))), "single operation"),
        (lambda: nets.cell_net(cell_space(), image=IMAGE, classes=2, channels=6, partial=4), "partial"),
        (lambda: nets.cell_net(spaces.pnas(), image=IMAGE, classes=2, partial=2), "partial"),
        (lambda: policies.exponentiated(0.0), "rate"),
        (lambda: weight_sharing.drnas(toy_net(cell_space()), kl=-1.0), "kl"),
        (lambda: weight_sharing.adversarial(lambda t: 0.1, 0), "`steps` of adversarial must be a positive integer; got 0"),
        (lambda: policies.edge_normalised(ROW), "cell space"),
        (lambda: weight_sharing.proxylessnas(toy_net(cell_space())), "mobile"),
        (lambda: weight_sharing.fbnet(toy_net(cell_space()), temperature=1.0, cost=lambda g: 0.0), "hardware.priced"),
        (
            lambda: weight_sharing.snas(
                toy_net(cell_space()), temperature=1.0, cost=hardware.priced(lambda g: 0.0, hardware.fbnet_product())
            ),
            "adds the expected cost",
        ),
        (lambda: weight_sharing.strongest_operations((ALPHA[None],), 5), "keep"),
        (lambda: weight_sharing.project_edges(toy_net(cell_space())).init(jax.random.key(0)), "project_operations"),
        (lambda: weight_sharing.proxylessnas_reinforce(mobile_net(), cost=lambda g: 1.0), "hardware.priced"),
        (lambda: weight_sharing.early_stopping(scripted([1.0]), first=3), "window"),
        (lambda: data.epochs(None, 0), "at least 1 step"),
        (lambda: diagnostics.dominant_eigenvalue(lambda t: t, 1.0, None, 0), "at least 1 product"),
        (
            lambda: weight_sharing.darts(toy_net(cell_space())).init(jax.random.key(0), Given(theta=(jnp.asarray([jnp.nan]),))),
            "theta",
        ),
    ],
)
def test_bad_input_is_named(build, words):
    with pytest.raises(ValueError, match=words):
        build()
