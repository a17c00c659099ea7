"""MetaNAS: tasks of a few steps, and the update of where they begin."""

import functools
import importlib.util
import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import laws
import numpy as np
import optax
import pytest
from quick import jit

from jaxnas import nets, policies, spaces, training, weight_sharing
from jaxnas.base import Batch
from jaxnas.training.bilevel import first_order, unrolled
from jaxnas.weight_sharing._metanas import adapt, metanas, prune_gates, soft_pruning
from jaxnas.weight_sharing.base import Given

T, K, WEIGHT_RATE, ARCH_RATE = 3, 4, 0.1, 0.3


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def worst(a, b):
    """The largest difference between two trees."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)))) for x, y in pairs)


def tasks(seed, steps=K):
    """A meta-batch [T, K, 1, B, ...]."""
    batches = [[laws.images(jax.random.fold_in(jax.random.key(seed), 100 * i + k)) for k in range(steps)] for i in range(T)]
    stack = lambda trees: jax.tree.map(lambda *a: jnp.stack(a), *trees)
    return stack([stack(row) for row in batches])


NET = laws.toy_net(laws.cell_space())


def search(temperature=1.0):
    policy = soft_pruning(NET.space, temperature, scale=1.0)
    gradient = weight_sharing.pathwise(policy, optax.sgd(ARCH_RATE))
    weights = weight_sharing.Weights(optax.sgd(WEIGHT_RATE, momentum=0.9), clip=None)
    return weight_sharing.weight_sharing(NET, policy, gradient, weights)


@functools.cache
def start():
    return jit(metanas(search(), optax.sgd(1.0)).init)(jax.random.key(0))


def one_meta_step(optimizer, batch, temperature=1.0):
    strategy = metanas(search(temperature), optimizer)
    state = start()._replace(opt_state=optimizer.init({"params": start().variables["params"], "theta": start().theta}))
    return jit(strategy.step)(jax.random.key(1), state, batch)


def mean_loss(params, theta, batches):
    """Of all tasks, each in one batch [T, 1, 1, B, ...], at alpha's softmax."""

    def one(x, y):
        gates = jax.tree.map(jax.nn.softmax, theta)
        logits, _ = NET.apply({**start().variables, "params": params}, x, gates, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    x, y = jax.tree.map(lambda a: a[:, 0, 0], batches)
    return jnp.mean(jax.vmap(one)(x, y))


def test_one_inner_step_is_the_joint_gradient():
    """Reptile with k = 1, in weights and in alpha; the rate is that of the inner step."""
    params, theta, batch = start().variables["params"], start().theta, tasks(0, steps=1)
    by_weights = jit(jax.grad(mean_loss))(params, theta, batch.train)
    alone, _ = one_meta_step(optax.sgd(1.0), batch._replace(valid=None))
    moved = jax.tree.map(lambda a, b: (a - b) / -WEIGHT_RATE, alone.variables["params"], params)
    assert worst(moved, by_weights) < 1e-5 and worst(by_weights, jax.tree.map(jnp.zeros_like, by_weights)) > 1e-2
    assert worst(alone.theta, theta) < 1e-6  # a warm-up: batches without `valid`

    by_alpha = jit(jax.grad(mean_loss, 1))(params, theta, batch.valid)
    both, _ = one_meta_step(optax.sgd(1.0), batch)
    moved = jax.tree.map(lambda a, b: (a - b) / -ARCH_RATE, both.theta, theta)
    assert worst(moved, by_alpha) < 1e-5 and worst(by_alpha, jax.tree.map(jnp.zeros_like, by_alpha)) > 1e-3


def test_the_meta_update_is_an_optimizer_on_the_mean_difference():
    """Against a loop over the tasks, each adapted alone; with Adam, and as the mean of the tasks' ends."""
    batch, keys = tasks(1), jax.random.split(jax.random.key(1), T)
    run = jit(lambda key, batch, start: adapt(key, search(), start.variables, start.theta, batch))
    ended = [run(keys[i], jax.tree.map(lambda a, i=i: a[i], batch), start()) for i in range(T)]
    of = lambda state: {"params": state.variables["params"], "theta": state.theta}
    ends = [of(state) for state, _ in ended]
    mean = jax.tree.map(lambda *a: sum(a) / T, *ends)
    new, info = one_meta_step(optax.sgd(1.0), batch)
    assert worst(of(new), mean) < 1e-5 and worst(ends[0], ends[1]) > 1e-2
    assert abs(float(info.loss) - np.mean([i.loss[-1] for _, i in ended])) < 1e-5
    assert abs(float(info.first) - np.mean([i.loss[0] for _, i in ended])) < 1e-5
    assert info.failed == 0 and new.step == 1
    assert worst(metanas(search(), optax.sgd(1.0)).best(new), NET.space.derive(jax.tree.map(jax.nn.softmax, new.theta))) == 0

    adam = optax.adam(0.01)
    updates, _ = adam.update(jax.tree.map(jnp.subtract, of(start()), mean), adam.init(of(start())))
    new, _ = one_meta_step(adam, batch)
    assert worst(of(new), optax.apply_updates(of(start()), updates)) < 1e-5


def test_statistics_and_optimizers_are_a_tasks_own():
    """No batch statistic leaves its task, and each begins with those of the start."""
    batch = tasks(2)
    new, _ = one_meta_step(optax.sgd(1.0), batch)
    stats = lambda state: state.variables["batch_stats"]
    assert worst(stats(new), stats(start())) == 0
    run = jit(lambda start, batch: adapt(jax.random.key(3), search(), start.variables, start.theta, batch))
    first = jax.tree.map(lambda a: a[0], batch)
    ended, _ = run(new, first)
    assert worst(stats(ended), stats(start())) > 1e-2
    assert ended.step == K and new.step == 1


def test_the_temperature_falls_within_a_task_and_begins_anew():
    falling = optax.linear_schedule(1.0, 0.1, K - 1)
    run = jit(lambda theta, batch: adapt(jax.random.key(3), search(falling), start().variables, theta, batch))
    first = jax.tree.map(lambda a: a[0], tasks(3))
    softmax = lambda theta, t: jax.tree.map(lambda a: jax.nn.softmax(a / t), theta)
    ended, infos = run(start().theta, first._replace(valid=None))  # alpha stays
    for t, temperature in enumerate((1.0, 0.7, 0.4, 0.1)):
        assert worst(jax.tree.map(lambda g, t=t: g[t], infos.gates), softmax(start().theta, temperature)) < 1e-5
    _, again = run(ended.theta, first._replace(valid=None))
    assert worst(jax.tree.map(lambda g: g[0], again.gates), softmax(start().theta, 1.0)) < 1e-5


def test_what_is_below_the_threshold_goes():
    gates = {"a": jnp.asarray([[0.04, 0.9, 0.06], [0.5, 0.5, 0.0]])}
    np.testing.assert_array_equal(prune_gates(gates)["a"], np.asarray([[0, 0.9, 0.06], [0.5, 0.5, 0]], np.float32))
    np.testing.assert_array_equal(prune_gates(gates, 0.01)["a"], gates["a"])


def test_a_task_that_diverges_is_left_out_and_counted():
    batch = tasks(4)
    broken = batch._replace(train=(batch.train[0].at[1].set(jnp.nan), batch.train[1]))
    run = jit(lambda key, state, batch: metanas(search(), optax.sgd(1.0)).step(key, state, batch))
    new, info = run(jax.random.key(1), start(), broken)
    whole, _ = run(jax.random.key(1), start(), jax.tree.map(lambda a: a[jnp.asarray([0, 2, 0])], batch))
    two, _ = run(jax.random.key(1), start(), jax.tree.map(lambda a: a[jnp.asarray([2, 0, 2])], batch))
    of = lambda state: (state.variables, state.theta)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, of(whole), of(two))  # of tasks 0, 2, 0 and 2, 0, 2: that of 0 and 2
    assert info.failed == 1 and np.isfinite(info.loss) and worst(of(new), mean) < 1e-5
    blank = batch._replace(train=(jnp.full_like(batch.train[0], jnp.nan), batch.train[1]))
    nothing, info = run(jax.random.key(1), start(), blank)
    assert info.failed == T and np.isnan(info.loss) and worst(of(nothing), of(start())) == 0


# The second order

QUADRATIC_RATES = 0.1, 0.3  # of weights and theta


class Quadratic(NamedTuple):
    """L(w, alpha; y) = |w + B alpha - y|^2 / 2: each step is linear in (w, alpha)."""

    mix: Any  # B [n, m]
    search: Any
    variables: Any
    theta: Any


def quadratic(rates=QUADRATIC_RATES, n=3, m=2):
    k_mix, k_w, k_theta = jax.random.split(jax.random.key(0), 3)
    mix, w, theta = jax.random.normal(k_mix, (n, m)), jax.random.normal(k_w, (n,)), jax.random.normal(k_theta, (m,))
    plain = policies.softmax(spaces.space(laws.Flat([2])))  # for its parts
    policy = plain._replace(
        init=lambda key: theta, sample=lambda key, theta, t: theta[None], derive=lambda theta: jnp.argmax(theta)
    )

    def apply(variables, x, gates, *, train, path=False, key=None, t=None):
        return (variables["params"] + mix @ gates)[None], variables

    net = nets.Net(lambda key, gates=None: {"params": w}, apply, None, None, NET.space, (), n)
    halves = lambda logits, y, path=None: jnp.sum(jnp.square(logits - y)) / 2
    numbers = training.NUMBERS._replace(loss=halves, score=lambda logits, y: -halves(logits, y))
    weights = weight_sharing.Weights(optax.sgd(rates[0]), clip=None, criterion=numbers)
    search = weight_sharing.weight_sharing(net, policy, weight_sharing.pathwise(policy, optax.sgd(rates[1])), weights)
    return Quadratic(mix, search, {"params": w}, theta)


def targets(steps, valid=True, n=3):
    """A meta-batch of `steps` batches a task, the query included; x is not read."""
    draw = lambda i: (jnp.zeros((T, steps, 1, 1)), jax.random.normal(jax.random.key(i), (T, steps, 1, 1, n)))
    return Batch(train=draw(1), valid=draw(2) if valid else None)


def meta_gradient(q, batch, order="second"):
    """By a meta-step of SGD at rate 1."""
    strategy = metanas(q.search, optax.sgd(1.0), order)
    state = strategy.init(jax.random.key(0), Given(variables=q.variables, theta=q.theta))
    new, info = jit(strategy.step)(jax.random.key(1), state, batch)
    return state.variables["params"] - new.variables["params"], state.theta - new.theta, info


@pytest.mark.parametrize("valid", [True, False])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_second_order_of_a_quadratic_is_the_closed_form(x64, steps, valid):
    """J^T (the query's gradient), of J the product of the steps' matrices; alpha moves before w, and not in a warm-up."""
    q, batch = quadratic(), targets(steps + 1, valid)
    B, r, s = np.asarray(q.mix), *QUADRATIC_RATES
    n, m = B.shape
    arch = np.block([[np.eye(n), np.zeros((n, m))], [-s * B.T, np.eye(m) - s * B.T @ B]]) if valid else np.eye(n + m)
    weight = np.block([[(1 - r) * np.eye(n), -r * B], [np.zeros((m, n)), np.eye(m)]])
    J, both = np.linalg.matrix_power(weight @ arch, steps), np.hstack([np.eye(n), B])
    wanted, losses = np.zeros(n + m), []
    for i in range(T):
        z = np.concatenate([q.variables["params"], q.theta])
        y, held = (np.asarray(part[1])[i, :, 0, 0] for part in (batch.train, batch.valid if valid else batch.train))
        for k in range(steps):
            if valid:
                z[n:] -= s * B.T @ (both @ z - held[k])
            z[:n] -= r * (both @ z - y[k])
        error = both @ z - held[-1]
        wanted += J.T @ both.T @ error / T
        losses.append(error @ error / 2)
    by_weights, by_theta, info = meta_gradient(q, batch)
    np.testing.assert_allclose(by_weights, wanted[:n], atol=1e-12)
    np.testing.assert_allclose(by_theta, wanted[n:], atol=1e-12)
    np.testing.assert_allclose(info.loss, np.mean(losses), rtol=1e-12)


def test_without_inner_rates_the_second_order_is_the_plain_gradient(x64):
    q, batch = quadratic((0.0, 0.0)), targets(4)
    error = (q.variables["params"] + q.mix @ q.theta)[None] - batch.valid[1][:, -1, 0, 0]  # [T, n]
    by_weights, by_theta, _ = meta_gradient(q, batch)
    np.testing.assert_allclose(by_weights, error.mean(0), atol=1e-12)
    np.testing.assert_allclose(by_theta, q.mix.T @ error.mean(0), atol=1e-12)


def of_a_net(net, inner):
    """(the search, its start) with an optimizer of momentum, a clip, Adam on alpha, and a temperature that falls."""
    policy = soft_pruning(net.space, optax.linear_schedule(1.0, 0.3, 1), scale=1.0)
    gradient = weight_sharing.pathwise(policy, optax.adam(0.1, eps_root=1e-4), inner())
    weights = weight_sharing.Weights(optax.sgd(WEIGHT_RATE, momentum=0.9), clip=0.5)
    search = weight_sharing.weight_sharing(net, policy, gradient, weights)
    wide = lambda a: a.astype(jnp.result_type(float)) if jnp.issubdtype(a.dtype, jnp.floating) else a  # nets are of float32
    return search, jax.tree.map(wide, jit(search.init)(jax.random.key(0)))


def along(net, inner, h, seed=5):
    """(<meta-gradient, v>, the central difference of the query's loss along v, the sizes of both parts of the gradient)."""
    search, state = of_a_net(net, inner)
    strategy, batch = metanas(search, optax.sgd(1.0), "second"), tasks(7, steps=3)
    start = {"params": state.variables["params"], "theta": state.theta}
    meta = strategy.init(jax.random.key(0), Given(variables=state.variables, theta=state.theta))
    new, _ = jit(strategy.step)(jax.random.key(1), meta, batch)
    grads = jax.tree.map(jnp.subtract, start, {"params": new.variables["params"], "theta": new.theta})
    leaves, tree = jax.tree.flatten(start)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    v = tree.unflatten([jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)])

    def loss(start):  # task by task, and the query without the search
        def one(task):
            variables = {**state.variables, "params": start["params"]}
            ended, _ = adapt(jax.random.key(3), search, variables, start["theta"], jax.tree.map(lambda a: a[:-1], task))
            (x, y), gates = task.valid, jax.tree.map(lambda a: jax.nn.softmax(a / 0.3), ended.theta)
            logits, _ = net.apply(ended.variables, x[-1, 0], gates, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[-1, 0]).mean()

        return jnp.mean(jax.lax.map(one, batch))

    at = jit(lambda h: loss(jax.tree.map(lambda a, d: a + h * d, start, v)))
    return optax.tree.vdot(grads, v), (at(h) - at(-h)) / (2 * h), [optax.tree.norm(g) for g in grads.values()]


@pytest.mark.parametrize("inner", [first_order, unrolled])
def test_the_second_order_agrees_with_central_differences(x64, inner):
    exact, measured, sizes = along(laws.toy_net(laws.cell_space()), inner, 1e-5)
    assert min(sizes) > 1e-3
    np.testing.assert_allclose(exact, measured, rtol=1e-6)


@pytest.mark.slow
def test_the_second_order_of_a_cell_net_agrees_with_central_differences(x64):
    exact, measured, sizes = along(laws.tiny_net(laws.cell_space()), first_order, 1e-6)
    assert min(sizes) > 1e-3
    np.testing.assert_allclose(exact, measured, rtol=1e-5)


@pytest.mark.slow
def test_the_second_order_keeps_states_and_no_insides_of_steps():
    """The memory of a derivative through eight steps, with and without `checkpoint`; one gradient."""
    search, state = of_a_net(NET, first_order)
    batch = jax.tree.map(lambda a: jnp.tile(a[0], (1, 1, 64, *[1] * (a.ndim - 4))), tasks(8, steps=8))

    def loss(params, batch, checkpoint):
        ended, infos = adapt(
            jax.random.key(0), search, {**state.variables, "params": params}, state.theta, batch, checkpoint=checkpoint
        )
        return infos.loss[-1] + optax.tree.norm(ended.theta)

    params = state.variables["params"]
    made = {on: jax.jit(jax.grad(loss), static_argnums=2).lower(params, batch, on).compile() for on in (True, False)}
    kept = {on: program.memory_analysis().temp_size_in_bytes for on, program in made.items()}
    assert kept[True] < 0.5 * kept[False], kept
    assert worst(made[True](params, batch), made[False](params, batch)) < 1e-5


@pytest.mark.parametrize(("eps_root", "failed"), [(0.0, T), (1e-8, 0)])
def test_the_second_order_goes_through_adam_with_an_eps_root(eps_root, failed):
    """Adam's derivative has a pole at a gradient of 0, which that of a node's only pair always is; such a task is left out."""
    net = laws.toy_net(spaces.darts(nodes=1, ops=("skip_connect", "max_pool_3x3")))
    policy = policies.input_pairs(net.space, 1.0)
    gradient = weight_sharing.pathwise(policy, training.adam(0.1, weight_decay=0.0, eps_root=eps_root))
    search = weight_sharing.weight_sharing(net, policy, gradient, weight_sharing.Weights(training.sgd(WEIGHT_RATE)))
    strategy = metanas(search, optax.adam(0.01), "second")
    state = strategy.init(jax.random.key(0))
    new, info = jit(strategy.step)(jax.random.key(1), state, tasks(9, steps=3))
    assert info.failed == failed and np.isfinite(info.loss) == (failed == 0)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(new._replace(opt_state=None)))


def test_a_query_is_held_out():
    """Without a batch for it there is none, and what none of the steps may see moves no task."""
    q, batch = quadratic(), targets(3)
    with pytest.raises(ValueError, match="query"):
        meta_gradient(q, targets(1))
    unread = batch._replace(train=(batch.train[0], batch.train[1].at[:, -1].set(jnp.nan)))
    assert worst(meta_gradient(q, batch), meta_gradient(q, unread)) == 0
    broken = batch._replace(valid=(batch.valid[0], batch.valid[1].at[1, -1].set(jnp.nan)))
    by_weights, _, info = meta_gradient(q, broken)
    others = meta_gradient(q, jax.tree.map(lambda a: a[jnp.asarray([0, 2])], batch))[0]
    assert info.failed == 1 and worst(by_weights, others) < 1e-6
    with pytest.raises(ValueError, match="unknown order"):
        metanas(q.search, optax.sgd(1.0), "third")


# Pairs of inputs

PAIRED = spaces.darts(nodes=3, ops=("skip_connect", "max_pool_3x3"))


def paired(theta, temperature, space=PAIRED):
    return policies.input_pairs(space, temperature).sample(jax.random.key(0), theta, 0)


def random_theta(seed, space=PAIRED):
    return policies.input_pairs(space, 1.0, scale=1.0).init(jax.random.key(seed))


def test_an_edge_has_the_weights_of_the_pairs_that_hold_it():
    """Pair by pair, as the paper adds them up; two a node, and no choice at the first."""
    theta, T = random_theta(0), 0.7
    for alpha, beta, gates in zip(theta.alpha, theta.beta, paired(theta, T), strict=True):
        alpha, beta, weight = np.asarray(alpha, float), np.asarray(beta, float), np.zeros(9)
        assert beta.shape == (1 + 3 + 6,)
        for first, inputs, pairs in ((0, 2, beta[:1]), (2, 3, beta[1:4]), (5, 4, beta[4:])):
            share = np.exp(pairs / T) / np.exp(pairs / T).sum()
            for p, two in zip(share, itertools.combinations(range(first, first + inputs), 2), strict=True):
                weight[list(two)] += p
        np.testing.assert_allclose(np.add.reduceat(weight, [0, 2, 5]), 2, rtol=1e-6)
        rows = np.exp(alpha / T) / np.exp(alpha / T).sum(1, keepdims=True)
        np.testing.assert_allclose(gates[0], weight[:, None] * rows, atol=1e-6)
        np.testing.assert_allclose(gates[0, :2].sum(1), 1, rtol=1e-6)


def test_cold_pairs_are_the_derived_architecture():
    """In gates and outputs; the pair is the one with the largest beta, whatever the operations' weights are."""
    policy, cold = policies.input_pairs(PAIRED, 1.0), jit(lambda theta: paired(jax.tree.map(lambda a: 100 * a, theta), 1e-3))
    for seed in range(5):
        theta = random_theta(seed)
        arch = policy.derive(theta)
        for cell, alpha, beta in zip(arch, theta.alpha, theta.beta, strict=True):
            assert [int(p) for p in cell.pair] == [0, int(np.argmax(beta[1:4])), int(np.argmax(beta[4:]))]
            pairs = [tuple(itertools.combinations(range(first, last), 2)) for first, last in ((0, 2), (2, 5), (5, 9))]
            for i in range(3):
                kept = list(pairs[i][int(cell.pair[i])])
                np.testing.assert_array_equal(cell.op[i], np.argmax(np.asarray(alpha)[kept], -1))
        assert worst(jax.tree.map(lambda g: g[0], cold(theta)), PAIRED.gates(arch)) < 1e-6
    net = nets.cell_net(PAIRED, image=(8, 8, 1), classes=2, channels=2, cells=1)
    variables, x = jit(net.init)(jax.random.key(0)), jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    module, extract = net.specialize(arch)
    mixed = jit(lambda gates: net.apply(variables, x, gates, train=False)[0])(jax.tree.map(lambda g: g[0], cold(theta)))
    alone = jit(lambda variables: module.apply(extract(variables), x))(variables)
    np.testing.assert_allclose(mixed, alone, atol=1e-5)


def test_every_architecture_of_a_small_space_is_derived_from_its_pairs():
    space = spaces.darts(nodes=2, ops=("none", "skip_connect", "max_pool_3x3"))
    policy, every = policies.input_pairs(space, 1.0), jax.vmap(space.from_index)(jnp.arange(48**2))

    def of(arch):
        alpha = jax.tree.map(lambda g: 5 * g, space.gates(arch))
        beta = type(arch)(*[jnp.concatenate([jnp.zeros(1), jax.nn.one_hot(cell.pair[1], 3)]) for cell in arch])
        return policy.derive(random_theta(0, space)._replace(alpha=alpha, beta=beta))

    assert worst(jit(jax.vmap(of))(every), every) == 0


@pytest.mark.parametrize("temperature", [1.0, 1e-3])
def test_gradients_of_pairs_are_finite(temperature):
    def loss(theta):
        gates = jax.tree.leaves(paired(theta, temperature))
        return sum(jnp.sum(jnp.sin(jnp.arange(g.size).reshape(g.shape) + g)) for g in gates)

    for theta in (random_theta(1), jax.tree.map(jnp.zeros_like, random_theta(1))):
        grads = jit(jax.grad(loss))(theta)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
        for beta in grads.beta:
            assert beta[0] == 0 and (temperature < 1 or np.abs(beta[1:]).min() > 1e-4)  # of one pair nothing is to learn


def test_a_task_of_pairs_ends_near_one_of_them():
    """Both temperatures fall within the task, and both logits move."""
    net = laws.toy_net(spaces.darts(nodes=2, ops=("skip_connect", "max_pool_3x3")))
    policy = policies.input_pairs(net.space, optax.linear_schedule(1.0, 0.1, K - 1), scale=1.0)
    gradient = weight_sharing.pathwise(policy, optax.sgd(ARCH_RATE))
    search = weight_sharing.weight_sharing(net, policy, gradient, weight_sharing.Weights(optax.sgd(WEIGHT_RATE), clip=None))
    state = search.init(jax.random.key(0))
    run = jit(lambda theta, batch: adapt(jax.random.key(3), search, state.variables, theta, batch))
    ended, infos = run(state.theta, jax.tree.map(lambda a: a[0], tasks(3)))
    weight = lambda k: jax.tree.map(lambda g: g[k].sum(-1), infos.gates)
    away = lambda k: max(float(jnp.max(jnp.minimum(w, 1 - w))) for w in weight(k))
    assert away(K - 1) < away(0)
    assert all(worst(a, b) > 1e-4 for a, b in zip(ended.theta, state.theta, strict=True))


def test_bad_input():
    with pytest.raises(ValueError, match="temperature"):
        policies.input_pairs(PAIRED, 0.0)
    with pytest.raises(ValueError, match="two inputs"):
        policies.input_pairs(spaces.nasbench201(), 1.0)
    with pytest.raises(ValueError, match="two inputs"):
        policies.input_pairs(laws.flat_space(), 1.0)
    with pytest.raises(ValueError, match="temperature"):
        soft_pruning(NET.space, 0.0)
    with pytest.raises(ValueError, match="single operation"):
        soft_pruning(laws.spaces.space(laws.Flat([1, 2])), 1.0)


# Two families of tasks that need two operations


@functools.cache
def experiment():
    path = pathlib.Path(__file__).parents[1] / "experiments" / "metanas.py"
    made = importlib.util.spec_from_file_location("metanas_experiment", path)
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    module.SEEDS = 2
    return module


@functools.cache
def meta_trained():
    e = experiment()
    started = e.meta_trained(jax.random.key(0), e.SEARCH, e.searching, True)
    return e.judged(e.SEARCH, e.searching, started, e.last_gates)  # [1, 200]


@pytest.mark.slow
def test_ten_steps_pick_the_right_operation():
    assert float(jnp.mean(meta_trained().right)) >= 0.9


def test_pruned_equals_unpruned_at_the_last_temperature():
    """In 95 % of the tasks, to 1e-2 of the targets' size; the others still hold two operations."""
    assert float(jnp.quantile(meta_trained().shift, 0.95)) < 1e-2


@pytest.mark.slow
def test_it_beats_reptile_with_a_fixed_architecture():
    """Paired over 200 tasks, against each operation alone and all of them; Reptile trains weights on alpha's examples, too."""
    e = experiment()
    for gates in (*np.eye(3, dtype=np.float32)[:2], np.full(3, 1 / 3, np.float32)):
        fixed = e.of_gates(jnp.asarray(gates))
        started = e.meta_trained(jax.random.key(0), fixed, e.fixed, False)
        other = e.judged(fixed, e.fixed, started, lambda theta, gates=gates: e.Edge(jnp.asarray(gates)))
        gap = np.asarray(other.loss - meta_trained().loss).ravel()
        assert gap.mean() > 2.6 * gap.std(ddof=1) / np.sqrt(len(gap))
