"""Reinforcement learning: policies, their updates, and Q-learning, against enumeration, plain loops and the real table."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import optax
import pytest
import searching
from quick import jit
from scipy import stats

from jaxnas.ask_tell._policy_gradient import policy_gradient
from jaxnas.ask_tell._q_learning import SCHEDULE, mdp_of, q_learning
from jaxnas.ask_tell._random_search import random_search
from jaxnas.base import Batch, black_box, metric, stateless
from jaxnas.evaluate._table import rows, table
from jaxnas.policies._block_controller import block_controller
from jaxnas.policies._categorical import categorical
from jaxnas.policies._controller import controller
from jaxnas.policies._softmax import softmax
from jaxnas.policies.updates import ppo, reinforce
from jaxnas.spaces import blocks
from jaxnas.spaces._metaqnn import MDP, longest_walk, metaqnn
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.spaces._space import space
from jaxnas.spaces.enas import enas_micro
from jaxnas.spaces.real import Real

CIFAR10, CIFAR100 = 0, 1
DATASETS = pytest.mark.parametrize("dataset", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
SEEDS = 2_000


class Flat(NamedTuple):
    v: Any


def layers_with_skips(L, tokens):
    """(arities, anchors) of L layers of some tokens each, every layer followed by the skip bits from all earlier ones."""
    arity, anchors, ends = [], [], []
    for layer in range(L):
        arity += tokens
        anchors += [-1] * len(tokens)
        ends.append(len(arity) - 1)
        arity += [2] * layer
        anchors += ends[:layer]
    return np.asarray(arity), np.asarray(anchors)


def conditional():
    """Two of the decisions hang on the first, and one of those on another."""
    when = np.asarray([[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 1]], bool)
    return space(Flat(np.asarray([3, 3, 2, 2])), parent=[-1, 0, 0, 1], when=when)


def some(s, n, seed=1):
    """n architectures of a space without conditions."""
    return Flat(jnp.asarray(np.random.default_rng(seed).integers(0, s.arity, (n, len(s.arity))), jnp.int32))


FLAT = space(Flat(np.asarray([3, 4, 2])))
SKIPS, ANCHORS = layers_with_skips(2, [2, 3, 2])  # the spec's: L = 2, 3 tokens, 1 skip
BLOCKS = enas_micro(1, ("skip_connect", "sep_conv_3x3", "avg_pool_3x3"))
TWO_WAYS = blocks.nasnet(1, ("skip_connect", "sep_conv_3x3"))
ENUMERABLE = {
    "categorical": (FLAT, lambda s: categorical(s, scale=1.0)),
    "categorical, conditional": (conditional(), lambda s: categorical(s, scale=1.0)),
    "controller": (FLAT, lambda s: controller(s, 5, 2, scale=4.0)),
    "controller, conditional": (conditional(), lambda s: controller(s, 5, 1, scale=4.0)),
    "block controller": (BLOCKS, lambda s: block_controller(s, 4, scale=2.0, learnt=1.0)),
    "block controller, two ways": (TWO_WAYS, lambda s: block_controller(s, 4, 2, scale=2.0, learnt=1.0, tanh=2.0)),
    "controller with anchors": (space(Flat(SKIPS)), lambda s: controller(s, 5, 1, scale=4.0, anchors=ANCHORS)),
}


@functools.cache
def enumerated(name):
    """(space, policy, theta, distinct archs flat [N, D], log p [N, D], entropy [N, D]) of a policy far from uniform."""
    s, make = ENUMERABLE[name]
    policy = make(s)
    theta = jit(policy.init)(jax.random.key(3))
    every = np.stack(np.unravel_index(np.arange(np.prod(s.arity)), s.arity), -1).astype(np.int32)
    on = jax.vmap(lambda v: s.active(s.unflat(v)))(every)
    every = np.unique(np.where(on, every, 0), axis=0)
    assert len(every) == s.size
    scores = jit(jax.vmap(lambda v: policy.log_prob(theta, s.unflat(v))))(every)
    return s, policy, theta, every, *map(np.asarray, scores)


# Policies


@pytest.mark.parametrize("name", ENUMERABLE)
def test_the_likelihood_sums_to_one(name):
    *_, logp, _ = enumerated(name)
    p = np.exp(logp.astype(np.float64).sum(-1))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.max() / p.min() > 3  # far from uniform


@pytest.mark.parametrize("name", ENUMERABLE)
def test_the_entropies_are_those_of_the_distribution(name):
    *_, logp, entropy = enumerated(name)
    logp = logp.astype(np.float64).sum(-1)
    p = np.exp(logp)
    assert p @ entropy.sum(-1) == pytest.approx(-p @ logp, abs=1e-5)  # the chain rule


@pytest.mark.parametrize("name", ENUMERABLE)
def test_inactive_decisions_add_nothing(name):
    s, _, _, every, logp, entropy = enumerated(name)
    off = ~np.asarray(jax.vmap(lambda v: s.active(s.unflat(v)))(every))
    assert (logp[off] == 0).all()
    assert (entropy[off] == 0).all()
    assert off.any() == ("conditional" in name)
    assert (entropy[~off] > 0).all()


@pytest.mark.parametrize("name", ENUMERABLE)
def test_draws_follow_the_likelihood(name):
    s, policy, theta, every, logp, _ = enumerated(name)
    n = 20_000
    sample = jit(jax.vmap(lambda key: jax.vmap(s.flat)(policy.sample(key, theta, 0))[0]))
    drawn = np.asarray(sample(jax.random.split(jax.random.key(0), n)))
    code = lambda v: np.ravel_multi_index(tuple(v.T), tuple(s.arity))
    observed = np.bincount(np.searchsorted(code(every), code(drawn)), minlength=len(every))
    assert observed.sum() == n
    assert (every[np.searchsorted(code(every), code(drawn))] == drawn).all()  # nothing else is ever drawn
    expected = np.exp(logp.astype(np.float64).sum(-1)) * n
    rare = expected < 5
    pooled = [np.append(x[~rare], x[rare].sum()) if rare.any() else x for x in (observed, expected)]
    assert stats.chisquare(pooled[0], pooled[1] * n / pooled[1].sum()).pvalue > 0.001


@pytest.mark.parametrize("name", ENUMERABLE)
def test_the_derived_architecture_is_greedy(name):
    s, policy, theta, every, logp, _ = enumerated(name)
    derived = np.asarray(jit(lambda theta: s.flat(policy.derive(theta)))(theta))
    mine = logp[(every == derived).all(1)][0]  # it is in the space
    for d in range(len(derived)):  # no other value, after the same beginning, is likelier
        same = (every[:, :d] == derived[:d]).all(1)
        if not name.startswith("categorical"):
            assert mine[d] == pytest.approx(logp[same, d].max(), abs=1e-6)
    if name == "categorical":
        assert mine.sum() == logp.sum(-1).max()  # independent decisions: the mode


@pytest.mark.parametrize("make", [categorical, functools.partial(controller, hidden=4, layers=1)])
def test_several_paths_are_several_draws_and_gates_are_the_spaces(make):
    policy = make(FLAT, paths=7)
    drawn = jit(policy.sample)(jax.random.key(0), jit(policy.init)(jax.random.key(1)), 0)
    assert drawn.v.shape == (7, 3)
    assert drawn.v.dtype == jnp.int32
    assert len(np.unique(np.asarray(drawn.v), axis=0)) > 2
    arch = jax.tree.map(lambda a: a[0], drawn)
    jax.tree.map(np.testing.assert_array_equal, policy.gates(arch), FLAT.gates(arch))
    assert policy.hard


def test_the_initial_logits_and_weights_are_those_published():
    theta = jit(jax.vmap(categorical(nasbench201()).init))(jax.random.split(jax.random.key(0), 1000))
    assert theta.shape == (1000, 6, 5)
    assert theta.std() == pytest.approx(1e-3, rel=0.03)
    leaves = jit(controller(nasbench201()).init)(jax.random.key(0))
    flat = np.concatenate([np.ravel(a) for a in jax.tree.leaves(leaves)])
    assert 0.079 < flat.max() <= 0.08
    assert -0.08 <= flat.min() < -0.079
    assert leaves["lstm"].shape == (2, 70, 140)


def test_the_score_function_has_mean_zero():
    """Over 100,000 draws of a categorical, every component within 4.5 standard errors."""
    s, policy, theta, *_ = enumerated("categorical")
    n = 100_000
    keys = jax.random.split(jax.random.key(0), n)

    def grad(key):
        arch = jax.tree.map(lambda a: a[0], policy.sample(key, theta, 0))
        return jax.grad(lambda theta: policy.log_prob(theta, arch)[0].sum())(theta)

    g = np.asarray(jit(jax.vmap(grad))(keys), np.float64)  # [n, D, A]
    assert (np.abs(g.mean(0)) <= 4.5 * g.std(0) / np.sqrt(n)).all()
    legal = np.arange(4) < s.arity[:, None]
    assert (g.std(0)[legal] > 0.1).all()
    assert (g[:, ~legal] == 0).all()


@pytest.mark.parametrize("name", ["controller", "controller with anchors"])
def test_the_score_function_of_the_controller_has_mean_zero(name):
    """Exactly, by enumeration: sum_a p(a) grad log p(a) = 0."""
    s, policy, theta, every, logp, _ = enumerated(name)
    grad = jax.grad(lambda theta, v: policy.log_prob(theta, s.unflat(v))[0].sum())
    grads = jax.tree.leaves(jit(jax.vmap(grad, (None, 0)))(theta, every))  # [N, ...] each
    mean = [np.tensordot(np.exp(logp.sum(-1)), np.asarray(g, np.float64), 1) for g in grads]
    assert max(np.abs(g).max() for g in mean) < 1e-5
    assert all(np.abs(g).max() > 1e-3 for g in grads)  # every part of theta matters


def written_out(theta, tokens, arity, anchors, kind, temperature, tanh):
    """log p of each token, in a plain loop of float64."""
    theta = jax.tree.map(lambda a: np.asarray(a, np.float64), theta)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    H, L = len(theta["start"]), len(theta["lstm"])
    h, c, x = np.zeros((L, H)), np.zeros((L, H)), theta["start"]
    after, logp, kept = {}, [], []  # after[k]: the state that has read token k
    for d, token in enumerate(tokens):
        if anchors[d] < 0 or anchors[d - 1] < 0:
            below = x
            for layer in range(L):
                i, f, o, g = np.split(np.concatenate([below, h[layer]]) @ theta["lstm"][layer], 4)
                c[layer] = sigmoid(f) * c[layer] + sigmoid(i) * np.tanh(g)
                below = h[layer] = sigmoid(o) * np.tanh(c[layer])
            after[d - 1] = below.copy()
        if anchors[d] < 0:
            kept, z = [], (h[-1] @ theta["head"][kind[d]])[: arity[d]] / temperature
            z = z if tanh is None else tanh * np.tanh(z)
            logp.append(z[token] - np.log(np.exp(z).sum()))
            x = theta["embed"][kind[d]][token]
        else:
            there = after[anchors[d]]
            q = theta["v"] @ np.tanh(theta["previous"] @ there + theta["current"] @ h[-1])
            chance = sigmoid(q)
            if (temperature, tanh) != (1, None):  # of the two logits -q / 2 and q / 2
                chance = sigmoid(2 * tanh * np.tanh(q / 2 / temperature))
            logp.append(np.log(chance if token else 1 - chance))
            kept += [there] * token
            x = sum(kept, np.zeros(H)) / (1 + len(kept))
    return np.asarray(logp)


@pytest.mark.parametrize(("temperature", "tanh", "shared"), [(1, None, False), (5.0, 2.5, True)])
def test_the_controller_equals_a_loop_written_out(temperature, tanh, shared):
    arity, anchors = layers_with_skips(4, [3, 2])
    kind = np.unique([[3, 2][d % 2] if a < 0 else -1 for d, a in enumerate(anchors)], return_inverse=True)[1]
    kind = kind if shared else np.arange(len(arity))
    s = space(Flat(arity))
    options = dict(temperature=temperature, tanh=tanh, anchors=anchors, kind=kind if shared else None)
    policy = controller(s, 6, 2, scale=1.0, **options)
    theta = jit(policy.init)(jax.random.key(0))
    archs = some(s, 20)
    found = np.asarray(jit(jax.vmap(policy.log_prob, (None, 0)))(theta, archs)[0])
    wanted = [written_out(theta, v, arity, anchors, kind, temperature, tanh) for v in np.asarray(archs.v)]
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert (len(theta["head"]) == 3) == shared


def test_the_tanh_constant_bounds_the_odds():
    """ENAS: the likeliest operation is at most e^2c times as likely as the least, 20.09 for c = 1.5."""
    s = space(Flat(np.full(4, 6)))
    policy = controller(s, 8, 1, scale=30.0, tanh=1.5)
    theta = jit(policy.init)(jax.random.key(0))
    archs = some(s, 500)
    logp = np.asarray(jit(jax.vmap(policy.log_prob, (None, 0)))(theta, archs)[0])
    assert np.exp(logp[:, 0].max() - logp[:, 0].min()) == pytest.approx(np.exp(3), rel=1e-3)


def nasnet():
    """Two cells of five blocks: two of b + 2 states, two of 13 operations, one of 2 ways to combine."""
    return space(Flat(np.asarray([n for _ in range(2) for b in range(5) for n in (b + 2, b + 2, 13, 13, 2)])))


def test_no_block_selects_a_state_that_is_not_there():
    """NASNet: in 100,000 blocks, block b reads one of b + 2 states, and reads all of them."""
    s = nasnet()
    policy = controller(s, 4, 1, scale=0.1, paths=10_000)
    theta = jit(policy.init)(jax.random.key(0))
    tokens = np.asarray(jax.jit(policy.sample)(jax.random.key(1), theta, 0).v)
    assert tokens.shape == (10_000, 50)
    assert (tokens.max(0) == s.arity - 1).all()
    assert (tokens.min(0) == 0).all()


# Updates


def two_updates(policy, optimizer, **options):
    return {
        "reinforce": reinforce(policy, optimizer, **options),
        "ppo": ppo(policy, optimizer, **({"entropy": 0.0} | options)),
    }


@pytest.mark.parametrize("name", ["reinforce", "ppo"])
def test_a_constant_reward_moves_nothing(name):
    """Not even under Adam, which would blow up a rounding error of the baseline."""
    policy = categorical(FLAT)
    update = two_updates(policy, optax.adam(0.1))[name]
    theta = first = jit(policy.init)(jax.random.key(0))
    state, step = update.init(theta), jit(update.step)
    for t in range(5):
        archs = some(FLAT, 3, t)
        theta, state = step(jax.random.key(t), theta, state, archs, jnp.full(3, 91.27, jnp.float32), t)
    np.testing.assert_array_equal(theta, first)


def test_reinforce_equals_a_loop_written_out():
    """The gradient of log softmax by hand, and the baseline in its biased form, corrected; the reward is already in it."""
    policy, lr, decay, c = categorical(FLAT, scale=1.0), 0.3, 0.9, 0.05
    update = reinforce(policy, optax.sgd(lr), baseline=decay, entropy=c)
    theta = jit(policy.init)(jax.random.key(0))
    state, step, average = update.init(theta), jit(update.step), 0.0
    wanted = np.asarray(theta, np.float64)
    legal, rng = np.arange(4) < FLAT.arity[:, None], np.random.default_rng(0)
    for t in range(6):
        archs, rewards = some(FLAT, 2, t), jnp.asarray(rng.normal(5, 3, 2), jnp.float32)
        theta, state = step(jax.random.key(t), theta, state, archs, rewards, t)
        average = decay * average + (1 - decay) * np.asarray(rewards, np.float64).mean()
        advantage = np.asarray(rewards, np.float64) - average / (1 - decay ** (t + 1))
        e = np.where(legal, np.exp(wanted), 0)
        p = e / e.sum(-1, keepdims=True)
        logp = np.log(np.where(legal, p, 1))
        hot = np.eye(4)[np.asarray(archs.v)]  # [B, D, A]
        entropy_grad = -p * (logp - (p * logp).sum(-1, keepdims=True))
        wanted = wanted + lr * (np.mean(advantage[:, None, None] * (hot - p), 0) + c * entropy_grad)
        np.testing.assert_allclose(np.where(legal, theta, 0), np.where(legal, wanted, 0), atol=2e-5)


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("make", [lambda s: categorical(s, scale=1.0), lambda s: controller(s, 5, 1, scale=4.0)])
def test_ppo_at_ratio_one_is_reinforce(make, per_token):
    """One epoch, one minibatch: equal to 1e-6."""
    policy = make(FLAT)
    theta = jit(policy.init)(jax.random.key(0))
    archs = some(FLAT, 6)
    rewards = jnp.asarray(np.random.default_rng(2).normal(size=6), jnp.float32)
    options = dict(baseline=0.95, entropy=0.01)
    a = reinforce(policy, optax.sgd(1.0), **options)
    b = ppo(policy, optax.sgd(1.0), epochs=1, minibatches=1, per_token=per_token, **options)
    moved = [jit(u.step)(jax.random.key(3), theta, u.init(theta), archs, rewards, 0)[0] for u in (a, b)]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), *moved)
    assert optax.tree.norm(jax.tree.map(jnp.subtract, moved[0], theta)) > 0.1


@pytest.mark.parametrize("per_token", [True, False])
def test_ppo_stops_where_the_ratio_leaves_the_clip(per_token):
    """A first step so long that every ratio is beyond 1 + e (A > 0) or below 1 - e (A < 0): no later epoch moves anything."""
    policy = categorical(FLAT)
    theta = jit(policy.init)(jax.random.key(0))
    archs = Flat(jnp.asarray([[0, 1, 0], [2, 3, 1]], jnp.int32))
    rewards = jnp.asarray([1.0, 0.0])

    def after(epochs, clip):
        update = ppo(policy, optax.sgd(5.0), clip, epochs, entropy=0.0, per_token=per_token)
        return jit(update.step)(jax.random.key(1), theta, update.init(theta), archs, rewards, 0)[0]

    once = after(1, 0.2)
    ratio = np.exp([policy.log_prob(once, Flat(v))[0] - policy.log_prob(theta, Flat(v))[0] for v in archs.v])
    assert (ratio[0] > 1.2).all()
    assert (ratio[1] < 0.8).all()
    np.testing.assert_array_equal(after(4, 0.2), once)
    assert np.abs(np.asarray(after(2, 1e3) - once)).max() > 1e-3  # without the clip it goes on


@pytest.mark.parametrize("minibatches", [1, 3])
def test_ppo_sees_every_row_once_an_epoch(minibatches):
    """At steps so small that the policy stands still, three epochs are three steps of REINFORCE."""
    policy = categorical(FLAT, scale=1.0)
    theta = jit(policy.init)(jax.random.key(0))
    archs = some(FLAT, 6)
    rewards = jnp.asarray(np.random.default_rng(2).normal(size=6), jnp.float32)
    a = reinforce(policy, optax.sgd(3e-3), baseline=0.95)
    b = ppo(policy, optax.sgd(1e-3 / minibatches), epochs=3, minibatches=minibatches, entropy=0.0)
    moved = [jit(u.step)(jax.random.key(3), theta, u.init(theta), archs, rewards, 0)[0] - theta for u in (a, b)]
    np.testing.assert_allclose(*moved, atol=5e-6)
    assert np.abs(moved[0]).max() > 3e-4


# Searches


def answer_and_mean(strategy, state, info):
    """The best architecture so far, its score, and the mean score of the step."""
    return strategy.best(state), state.best_score, jnp.mean(info.scores)


run_seeds = functools.partial(searching.run_seeds, watch=answer_and_mean, jit=jit)


@functools.cache
def fixed(dataset):
    data = nb201_file.load()
    return Batch(fixed=rows(nasbench201(), data["ops"], {"accuracy": data["val_acc_12"][:, dataset]}))


def final_accuracy(dataset, best):
    """float64, of the cells found; the search never sees it."""
    data = nb201_file.load()
    column = rows(nasbench201(), data["ops"], {"test": data["test_acc_200"][:, dataset]})["test"]
    return np.asarray(column, np.float64)[np.asarray(jit(jax.vmap(jax.vmap(nasbench201().index)))(best))]


def tabular(policy, update, batch=1):
    return black_box(policy_gradient(nasbench201(), policy, update, batch), table(nasbench201()))


CELLS = categorical(nasbench201())
REINFORCE = {lr: tabular(CELLS, reinforce(CELLS, optax.adam(lr))) for lr in (0.01, 0.1)}

REFERENCE = {  # (mean, sd) of another implementation, 20,000 seeds
    (0.01, CIFAR10, 100): (93.782, 0.34),
    (0.01, CIFAR10, 150): (93.891, 0.27),
    (0.01, CIFAR100, 100): (71.381, 1.00),
    (0.01, CIFAR100, 150): (71.751, 0.91),
    (0.1, CIFAR10, 100): (93.935, 0.38),
    (0.1, CIFAR10, 150): (94.044, 0.33),
    (0.1, CIFAR100, 100): (72.173, 0.95),
    (0.1, CIFAR100, 150): (72.425, 0.82),
}


@functools.cache
def reinforced(lr, dataset):
    _, (best, _, _) = run_seeds(REINFORCE[lr], 150, fixed(dataset), SEEDS)
    return final_accuracy(dataset, best)


@nb201_file.needs_file
@pytest.mark.parametrize(("lr", "dataset", "trainings"), REFERENCE, ids=str)
def test_reinforce_reproduces_the_reference(lr, dataset, trainings):
    mean, sd = REFERENCE[lr, dataset, trainings]
    found = reinforced(lr, dataset)[:, trainings - 1]
    assert abs(found.mean() - mean) <= 3 * sd / np.sqrt(SEEDS)
    assert found.std() == pytest.approx(sd, rel=0.2)


RANDOM_500 = 93.999  # test of the best of 500 random cells on CIFAR-10, in closed form


@nb201_file.needs_file
@pytest.mark.slow
def test_the_controller_beats_random_search_on_cells():
    """500 trainings, Adam at 1e-3, the best of {1e-3, 3e-3, 1e-2, 3e-2, 1e-1}."""
    policy = controller(nasbench201())
    search = tabular(policy, reinforce(policy, optax.adam(1e-3)))
    _, (best, _, _) = run_seeds(search, 500, fixed(CIFAR10), 100, jit=jax.jit)
    assert final_accuracy(CIFAR10, best)[:, -1].mean() >= RANDOM_500 + 0.1


@nb201_file.needs_file
def test_ppo_reaches_reinforce_on_cells():
    """At least the row of REINFORCE at lr .01 (94.16 at 500 trainings) less 0.05."""
    _, (best, _, _) = run_seeds(tabular(CELLS, ppo(CELLS, optax.adam(0.03)), batch=10), 50, fixed(CIFAR10), seeds=200)
    assert final_accuracy(CIFAR10, best)[:, -1].mean() >= 94.16 - 0.05


@nb201_file.needs_file
@pytest.mark.slow
def test_ppo_with_the_controller_reaches_reinforce_on_cells():
    policy = controller(nasbench201())
    search = tabular(policy, ppo(policy, optax.adam(1e-3)), batch=10)
    _, (best, _, _) = run_seeds(search, 50, fixed(CIFAR10), 100, jit=jax.jit)
    assert final_accuracy(CIFAR10, best)[:, -1].mean() >= 94.16 - 0.05


@functools.cache
def additive():
    """The evaluator that adds up one random number a token, scaled to [0, 1] over the space."""
    s = nasnet()
    legal = np.arange(13) < s.arity[:, None]
    worth = np.random.default_rng(0).uniform(size=legal.shape)
    low, high = np.where(legal, worth, 2).min(1).sum(), np.where(legal, worth, -1).max(1).sum()
    worth = jnp.asarray(worth, jnp.float32)
    score = lambda arch: (jnp.sum(worth[np.arange(50), arch.v]) - low) / (high - low)
    return stateless(lambda key, archs, batch: {"accuracy": jax.vmap(score)(archs)})


def additive_search(policy, lr, seeds, jit=jit):
    """(mean score of the last step [seeds], best score [seeds]) after 5,000 sequences in batches of 20."""
    search = black_box(policy_gradient(nasnet(), policy, ppo(policy, optax.adam(lr)), 20), additive())
    _, (_, best, mean) = run_seeds(search, 250, seeds=seeds, jit=jit)
    return np.asarray(mean)[:, -1], np.asarray(best)[:, -1]


def beats_random_search_by_five_sigma(best):
    search = black_box(random_search(nasnet(), batch=20), additive())
    random = np.asarray(run_seeds(search, 250, seeds=50)[1][1])[:, -1]
    return best.min() > random.mean() + 5 * random.std()


def test_ppo_solves_an_additive_reward_over_50_tokens():
    mean, best = additive_search(categorical(nasnet()), 0.03, seeds=5)
    assert mean.min() >= 0.9
    assert beats_random_search_by_five_sigma(best)


@pytest.mark.slow
def test_ppo_solves_it_with_nasnets_controller():
    mean, best = additive_search(controller(nasnet(), hidden=100, layers=1, scale=0.1), 1e-3, 2, jax.jit)
    assert mean.min() >= 0.9
    assert beats_random_search_by_five_sigma(best)


def skip_agreement(make, lr, entropy, jit, seeds=20):
    """The share of the bits of a hidden skip matrix (6 layers) that the derived architecture has after 2,000 samples."""
    arity, anchors = layers_with_skips(6, [3])
    s, bits = space(Flat(arity)), np.flatnonzero(anchors >= 0)
    policy = make(s, anchors)
    algorithm = policy_gradient(s, policy, reinforce(policy, optax.adam(lr), entropy=entropy))

    def search(key):
        k_hidden, k_run = jax.random.split(key)
        hidden = jax.random.bernoulli(k_hidden, 0.5, bits.shape)
        agree = lambda arch: jnp.mean((arch.v[bits] == hidden).astype(jnp.float32))
        strategy = black_box(algorithm, stateless(lambda key, archs, batch: {"accuracy": jax.vmap(agree)(archs)}))
        state, _ = searching.run(strategy, k_run, 2_000, Batch())
        return agree(policy.derive(state.algorithm.theta))

    return np.asarray(jit(jax.vmap(search))(jax.random.split(jax.random.key(0), seeds)))


@pytest.mark.slow
def test_attention_learns_a_hidden_skip_matrix():
    found = skip_agreement(lambda s, anchors: controller(s, scale=0.5, anchors=anchors), 3e-3, 0.03, jax.jit)
    assert found.mean() > 0.95


def test_independent_logits_learn_a_hidden_skip_matrix():
    """The control: bits that do not depend on one another need no attention."""
    assert skip_agreement(lambda s, anchors: categorical(s), 0.03, 0.0, jit).mean() > 0.95


def test_batches_and_paths_are_all_asked_for():
    policy = categorical(FLAT, paths=2)
    algorithm = policy_gradient(FLAT, policy, reinforce(policy, optax.adam(0.1)), batch=3)
    state = algorithm.init(jax.random.key(0))
    state, archs = jit(algorithm.ask)(jax.random.key(1), state)
    assert archs.v.shape == (6, 3)
    told = jit(algorithm.tell)(jax.random.key(2), state, archs, jnp.arange(6.0))
    assert int(told.step) == 1
    kinds = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype, a.weak_type), jax.eval_shape(lambda x: x, tree))
    assert kinds(told) == kinds(state)
    assert np.abs(np.asarray(told.theta - state.theta)).max() > 0.05


# Q-learning


def layered(D=7, width=30, A=4):
    """A walk of D steps over `width` random states a step; (MDP, the score of every path [A] * D)."""
    rng = np.random.default_rng(0)
    S = 2 + (D - 1) * width
    to = np.full((S, A), S - 1)
    to[0] = 1 + rng.choice(width, A, replace=False)
    to[1 : 1 + (D - 2) * width] = (
        1 + width * np.repeat(np.arange(1, D - 1), width)[:, None] + rng.integers(0, width, ((D - 2) * width, A))
    )
    end = np.arange(S) == S - 1
    mdp = MDP(np.broadcast_to(~end[:, None], (S, A)), to, end, Flat, lambda arch: arch.v)
    paths = np.stack(np.unravel_index(np.arange(A**D), (A,) * D), -1)
    s = functools.reduce(lambda s, a: to[s, a], paths.T[:-1], np.zeros(len(paths), int))
    last = rng.uniform(0.1, 0.9, (S, A)).astype(np.float32)  # the score is that of the last state and action
    return mdp, last[s, paths[:, -1]].reshape((A,) * D)


def scored_by(scores):
    return stateless(lambda key, archs, batch: {"accuracy": jnp.asarray(scores)[tuple(archs.v.T)]})


@pytest.mark.parametrize("replay", [128, 1])
def test_q_learning_finds_the_optimal_walk_with_replay_only(replay):
    """182 states, 2,700 trainings: replay brings Q(s0) to the optimum; one update a training, the control, does not."""
    mdp, scores = layered()
    assert mdp.legal.shape[0] <= 200
    state, _ = run_seeds(black_box(q_learning(mdp, replay=replay), scored_by(scores)), 2_700, seeds=5)
    share, found = [], []
    for q in np.asarray(state.algorithm.q):
        s, walk = 0, []
        while not mdp.terminal[s]:
            walk.append(q[s].argmax())
            s = mdp.next[s, walk[-1]]
        share.append(q[0].max() / scores.max())
        found.append(scores[tuple(walk)])
    if replay == 128:
        assert (np.asarray(found) == scores.max()).all()
        assert min(share) >= 0.98
    else:
        assert max(share) < 0.7
        assert not (np.asarray(found) == scores.max()).all()


def test_q_learning_equals_a_loop_written_out():
    """Each replayed trajectory from its end, one update after another, on what was stored first."""
    s = space(Flat(np.asarray([3, 2, 3])))
    mdp, replay, alpha = mdp_of(s), 5, 0.3
    algorithm = q_learning(mdp, ((1.0, 4), (0.5, 3)), replay, alpha)
    ask, tell = jit(algorithm.ask), jit(algorithm.tell)
    state = algorithm.init(jax.random.key(0))
    q, stored = np.asarray(state.q, np.float64), []  # (actions, score), at most the last 7
    models, again = 0, 0
    for t in range(25):
        k_ask, k_tell = jax.random.split(jax.random.key(t))
        state, archs = ask(k_ask, state)
        actions = np.asarray(archs.v)[0].tolist()
        score = np.float32(0.1 + 0.02 * t)  # a model that comes again would score more
        state = tell(k_tell, state, archs, jnp.asarray([score]))
        if actions in [a for a, _ in stored]:
            again += 1
        else:
            stored[models % 7 : models % 7 + 1] = [(actions, score)]
            models += 1
        drawn = jax.random.randint(jax.random.fold_in(jax.random.clone(k_tell), 0), (replay,), 0, min(models, 7))
        for i in np.asarray(drawn):
            walk, states = stored[i][0], [0]
            for a in walk:
                states.append(mdp.next[states[-1], a])
            for step in reversed(range(3)):
                here, there = states[step], states[step + 1]
                target = stored[i][1] if mdp.terminal[there] else q[there].max()
                q[here, walk[step]] = (1 - alpha) * q[here, walk[step]] + alpha * target
        np.testing.assert_allclose(state.q, q, atol=1e-6)
        assert int(state.models) == models
    assert again >= 3
    assert models > 7  # the ring has turned


def walks(algorithm, state, n=4_000):
    """Flat actions [n, T] of n asks."""
    ask = jit(jax.vmap(lambda key: algorithm.ask(key, state)[1].v[0]))
    return np.asarray(ask(jax.random.split(jax.random.key(5), n)))


def test_epsilon_falls_with_the_number_of_different_models():
    s = space(Flat(np.asarray([4, 4])))
    algorithm = q_learning(mdp_of(s), ((1.0, 3), (0.4, 2)))
    state = algorithm.init(jax.random.key(0))
    state = state._replace(q=state.q.at[:, 2].add(0.1))
    for models, epsilon in ((0, 1.0), (2, 1.0), (3, 0.4), (4, 0.4), (5, 0.4), (50, 0.4)):
        drawn = walks(algorithm, state._replace(models=jnp.asarray(models, jnp.int32)))
        odds = np.full(4, epsilon / 4) + (1 - epsilon) * np.eye(4)[2]
        assert stats.chisquare(np.bincount(drawn.ravel(), minlength=4), odds * drawn.size).pvalue > 0.001
    tell = jit(algorithm.tell)
    for t, arch in enumerate([[0, 0], [0, 0], [1, 2], [0, 0], [1, 2]]):  # a model that comes again is not counted
        state = tell(jax.random.key(t), state, Flat(jnp.asarray([arch], jnp.int32)), jnp.asarray([0.9]))
    assert int(state.models) == 2


def test_ties_are_broken_at_random_among_the_legal():
    s = space(Flat(np.asarray([4, 3])))
    algorithm = q_learning(mdp_of(s), ((0.0, 1),))
    state = algorithm.init(jax.random.key(0))
    state = state._replace(q=state.q.at[0, 1].add(-0.1))
    drawn = walks(algorithm, state)
    first, second = np.bincount(drawn[:, 0], minlength=4), np.bincount(drawn[:, 1], minlength=4)
    assert first[1] == second[3] == 0
    assert stats.chisquare(first[[0, 2, 3]]).pvalue > 0.001
    assert stats.chisquare(second[:3]).pvalue > 0.001


@pytest.mark.parametrize("s", [FLAT, nasbench201(), conditional()], ids=["flat", "nasbench201", "conditional"])
def test_every_architecture_is_a_walk(s):
    mdp = mdp_of(s)
    assert longest_walk(mdp) == len(s.arity)
    assert len(mdp.legal) == 2 + (len(s.arity) - 1) * s.arity.max()
    for key in jax.random.split(jax.random.key(0), 20):
        arch = s.sample(key)
        state, seen = 0, []
        for a in np.asarray(mdp.actions(arch)):
            assert mdp.legal[state, a]
            state = mdp.next[state, a]
            seen.append(state)
        assert mdp.terminal[seen].tolist() == [False] * (len(s.arity) - 1) + [True]
        jax.tree.map(np.testing.assert_array_equal, mdp.arch(mdp.actions(arch)), arch)


# The walk of 500 trainings: the published schedule, scaled
SCALED = ((1.0, 100), *((e / 10, 44) for e in range(9, 0, -1)))


@functools.cache
def q_cells():
    """(score of each step [seeds, steps], models told before it, test accuracy of the best so far)."""
    strategy = black_box(q_learning(mdp_of(nasbench201()), SCALED), table(nasbench201()), lambda m: metric("accuracy")(m) / 100)

    def search(key, batch):
        k_init, k_steps = jax.random.split(key)

        def body(state, t):
            new, info = strategy.step(jax.random.fold_in(k_steps, t), state, batch)
            return new, (info.scores[0], state.algorithm.models, strategy.best(new))

        return jax.lax.scan(body, strategy.init(k_init), jnp.arange(600))[1]

    scores, models, best = jax.jit(jax.vmap(search, (0, None)))(jax.random.split(jax.random.key(0), 100), fixed(CIFAR10))
    return np.asarray(scores), np.asarray(models), final_accuracy(CIFAR10, best)


@nb201_file.needs_file
def test_q_learning_scores_more_when_it_explores_less():
    scores, models, _ = q_cells()
    first, last = models < 100, models >= 100 + 44 * 8
    first, last = (
        np.asarray([row[of].mean() for row, of in zip(scores, phase, strict=True) if of.any()]) for phase in (first, last)
    )
    assert len(last) > 80
    assert last.mean() - first.mean() > 2 * np.sqrt(last.var() / len(last) + first.var() / len(first))


@nb201_file.needs_file
def test_q_learning_is_no_worse_than_random_search_on_cells():
    *_, test = q_cells()
    assert test[:, 499].mean() >= RANDOM_500


# MetaQNN's layers


def broken_rule(layers, image, limit):
    """The first rule that a list of layers breaks, None if it breaks none; written from the sheet, size in three buckets."""
    size, dense, previous = image, [], None
    if len(layers) > limit:
        return "too many layers"
    for kind, *what in layers:
        seen = next(b for least, b in ((8, 8), (4, 4), (0, 1)) if size >= least)
        if previous == "average" or (dense and kind != "dense"):
            return "a layer after the head"
        if kind == "conv" and what[1] >= seen:
            return "a kernel as large as the image"
        if kind == "pool":
            if previous != "conv":
                return "a pool that is first or follows a pool"
            if what[0] >= seen:
                return "a pool as large as the image"
            size = int(np.ceil((size - what[0] + 1) / what[1]))
        if kind == "dense":
            if not dense and seen > 4:
                return "a dense layer on a large image"
            if len(dense) == 2 or (dense and what[0] > dense[-1]):
                return "more than two dense layers, or a larger second"
            dense.append(what[0])
        previous = kind
    return None


@pytest.mark.parametrize(("image", "layers"), [(16, 3), (9, 4), (4, 3), (2, 2)])
def test_the_walks_are_all_chains_that_break_no_rule(image, layers):
    """By brute force over every list of layers."""
    mdp = metaqnn(image, layers, filters=(8,), kernels=(1, 5), pools=((4, 3), (2, 2)), dense=(512, 128))
    walks, ended = [((), 0)], set()
    while walks:
        walk, s = walks.pop()
        if mdp.terminal[s]:
            ended.add(walk[:-1])
        walks += [((*walk, int(a)), mdp.next[s, a]) for a in np.flatnonzero(mdp.legal[s])]
    assert mdp.meaning[0] == ("stop",)
    every = itertools.chain(*(itertools.product(range(1, len(mdp.meaning)), repeat=n) for n in range(layers + 1)))
    allowed = {chain for chain in every if broken_rule([mdp.meaning[a] for a in chain], image, layers) is None}
    assert ended == allowed
    assert len(allowed) > 2


def test_the_published_configuration():
    mdp = metaqnn()
    assert len(mdp.meaning) == 1 + 12 + 3 + 3 + 1
    assert longest_walk(mdp) == 19  # 18 layers, and the stop
    assert sum(models for _, models in SCHEDULE) == 2_700
    assert mdp.legal[~mdp.terminal, 0].all()  # any state may stop ...
    assert mdp.terminal[mdp.next[~mdp.terminal, 0]].all()
    assert mdp.terminal.sum() == 1
    assert mdp.row.max() + 1 < len(mdp.row)  # true sizes share the Q of their bucket ...
    for r in range(mdp.row.max() + 1):
        assert len(np.unique(mdp.legal[mdp.row == r], axis=0)) == 1  # ... and their legal actions


def test_q_learning_of_layers_asks_for_chains_that_break_no_rule():
    """Random walks at the published size, and the search itself: deeper chains score more, and it finds the deepest."""
    mdp = metaqnn()
    algorithm = q_learning(mdp)
    state = algorithm.init(jax.random.key(0))
    ask = jit(jax.vmap(lambda key: algorithm.ask(key, state)[1].action[0]))
    drawn = np.asarray(ask(jax.random.split(jax.random.key(1), 1_000)))
    assert drawn.shape == (1_000, 19)
    lengths = []
    for actions in drawn:
        n = int(np.flatnonzero(actions == 0)[0])
        assert (actions[n:] == 0).all()
        assert broken_rule([mdp.meaning[a] for a in actions[:n]], 32, 18) is None
        lengths.append(n)
    assert min(lengths) == 0
    assert max(lengths) == 18
    depth = stateless(lambda key, archs, batch: {"accuracy": jnp.mean((archs.action > 0).astype(jnp.float32), -1)})
    small = q_learning(metaqnn(layers=5), ((1.0, 60), (0.5, 60), (0.1, 60)))
    _, (_, best, mean) = run_seeds(black_box(small, depth), 200, seeds=5)
    np.testing.assert_allclose(np.asarray(best)[:, -1], 5 / 6, atol=1e-6)
    assert np.asarray(mean)[:, -50:].mean() > np.asarray(mean)[:, :50].mean() + 0.1


# Refusals


MIXED = space((2, 3), reals=Real(0.0, 1.0))
CYCLE = MDP(np.ones((2, 1), bool), np.asarray([[0], [1]]), np.asarray([False, True]), Flat, lambda arch: arch.v)
STUCK = CYCLE._replace(legal=np.zeros((2, 1), bool))
SHARED = mdp_of(FLAT)._replace(row=np.zeros(len(mdp_of(FLAT).legal), int))
BOTH = space(Flat(np.asarray([3, 2, 3, 2])))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: categorical(MIXED), "draws decisions only"),
        (lambda: controller(MIXED), "draws decisions only"),
        (lambda: categorical(FLAT, paths=0), "`paths` of categorical must be a positive integer; got 0"),
        (lambda: controller(FLAT, hidden=0), "`hidden` of controller must be a positive integer; got 0"),
        (lambda: controller(FLAT, temperature=0), "`temperature` of controller must be a positive number; got 0"),
        (lambda: controller(FLAT, kind=[0, 1]), r"`kind` must number each of the 3 tokens by integers of at least 0; got \[0, 1\]"),
        (lambda: controller(BOTH, anchors=[-1, -1]), "each of the 4 tokens"),
        (lambda: controller(BOTH, anchors=[-1, -1, -1, 2]), "token 3 cannot be a skip bit of token 2"),
        (lambda: controller(BOTH, anchors=[-1, -1, 0, -1]), "token 2 cannot be a skip bit of token 0"),
        (lambda: reinforce(softmax(nasbench201()), optax.adam(0.1)), "has no log_prob"),
        (lambda: reinforce(CELLS, optax.adam(0.1), baseline=1.0), "got baseline=1.0"),
        (lambda: ppo(CELLS, optax.adam(0.1), clip=0), "`clip` of ppo must be a positive number; got 0"),
        (lambda: ppo(CELLS, optax.adam(0.1), epochs=0), "`epochs` of ppo must be a positive integer; got 0"),
        (lambda: policy_gradient(FLAT, CELLS, reinforce(CELLS, optax.adam(0.1))), "make it from the same space"),
        (lambda: policy_gradient(nasbench201(), softmax(nasbench201()), None), "`update` of policy_gradient must be an update"),
        (
            lambda: policy_gradient(nasbench201(), CELLS, reinforce(CELLS, optax.adam(0.1)), 0),
            "`batch` of policy_gradient must be a positive integer; got 0",
        ),
        (lambda: mdp_of(MIXED), "walks through decisions only"),
        (lambda: metaqnn(layers=0), "`layers` of metaqnn must be a positive integer; got 0"),
        (lambda: q_learning(CYCLE), "there is a cycle"),
        (lambda: q_learning(STUCK), "a state without a legal action"),
        (lambda: q_learning(SHARED), "share a row of Q"),
        (lambda: q_learning(mdp_of(FLAT), replay=0), "`replay` of q_learning must be a positive integer; got 0"),
        (lambda: q_learning(mdp_of(FLAT), alpha=0), "`alpha` of q_learning must be a share, above 0 and at most 1; got 0"),
        (lambda: q_learning(mdp_of(FLAT), schedule=((1.1, 5),)), "`schedule` of q_learning must be"),
        (lambda: q_learning(mdp_of(FLAT), schedule=()), "pairs .epsilon in"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_batch_must_split_into_minibatches():
    policy = categorical(FLAT)
    update = ppo(policy, optax.adam(0.1), minibatches=2)
    theta = jit(policy.init)(jax.random.key(0))
    with pytest.raises(ValueError, match="a batch of 3 does not split into 2 minibatches"):
        update.step(jax.random.key(1), theta, update.init(theta), Flat(jnp.zeros((3, 3), jnp.int32)), jnp.zeros(3), 0)
