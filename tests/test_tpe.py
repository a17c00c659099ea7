"""The tree-structured Parzen estimator: its densities by enumeration, its choice by the book, and whole searches."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import pytest
import quick
from scipy import integrate, stats
from searching import MIXED, TOY, asked, mixed_score, run_seeds

from jaxnas.ask_tell._random_search import random_search
from jaxnas.ask_tell._tpe import Points, _weights, hyperopt_gamma, independent, joint, normal_reference, optuna_gamma, tpe
from jaxnas.base import Batch, black_box, stateless
from jaxnas.evaluate._table import rows, table
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.spaces._space import space
from jaxnas.spaces.real import Real

TREE = space((3, 2, 4, 1), parent=[-1, 0, 1, -1], when=[[1, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]])
LINE = space(reals={"x": Real(0.0, 1.0)})

DENSITIES = {
    "independent": independent,
    "joint": joint,
    "joint, normal reference": functools.partial(joint, bandwidth=normal_reference(0.05)),
}
EACH_DENSITY = pytest.mark.parametrize("density", DENSITIES.values(), ids=DENSITIES)


def settings(s):
    """Points of every legal setting of the decisions, once, and of 0.5 for the reals."""
    v = np.stack(np.unravel_index(np.arange(np.prod(s.arity)), s.arity), -1).reshape(-1, len(s.arity))
    half = jnp.full(jax.eval_shape(lambda key: s.unit(s.sample(key)), jax.random.key(0)).shape, 0.5)
    on = np.asarray(jax.vmap(lambda v: s.active(s.unflat(v, half)))(jnp.asarray(v, jnp.int32)))
    legal = ((v == 0) | on).all(1)
    return Points(jnp.asarray(v[legal], jnp.int32), jnp.stack([half] * legal.sum()), jnp.asarray(on[legal]))


def observed(s, n=12, reals=0, seed=0):
    """Points [N] of which n have a weight."""
    rng = np.random.default_rng(seed)
    every = settings(s)
    i = rng.integers(0, len(every.v), n + 4)
    u = jnp.asarray(rng.uniform(size=(n + 4, reals)), jnp.float32)
    weight = np.where(rng.permutation(n + 4) < n, rng.uniform(0.2, 1, n + 4), 0)
    return Points(every.v[i], u, every.on[i]), jnp.asarray(weight, jnp.float32)


# Densities


@EACH_DENSITY
@pytest.mark.parametrize("s", [TOY, TREE], ids=["flat", "conditional"])
@pytest.mark.parametrize("n", [0, 1, 12])
def test_the_density_of_decisions_sums_to_one(density, s, n):
    points, weight = observed(s, n)
    p = np.exp(quick.jit(jax.vmap(density(s, points, weight).log_prob))(settings(s)))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert (p > 0).all()


@EACH_DENSITY
@pytest.mark.parametrize("n", [0, 1, 12])
def test_the_density_of_a_real_integrates_to_one(density, n):
    rng = np.random.default_rng(n)
    points = Points(jnp.zeros((16, 0), jnp.int32), jnp.asarray(rng.uniform(size=(16, 1)), jnp.float32), jnp.zeros((16, 0), bool))
    x = np.linspace(0, 1, 4001)
    at = Points(jnp.zeros((4001, 0), jnp.int32), jnp.asarray(x[:, None], jnp.float32), jnp.zeros((4001, 0), bool))
    weight = jnp.asarray(np.arange(16) < n, jnp.float32)
    p = np.exp(quick.jit(jax.vmap(density(LINE, points, weight).log_prob))(at))
    assert integrate.trapezoid(p, x) == pytest.approx(1, abs=1e-3)


@EACH_DENSITY
def test_the_density_of_decisions_and_a_real_sums_to_one(density):
    s = space((3, 2), reals=Real(0.0, 1.0))
    points, weight = observed(s, reals=1)
    every, x = settings(s), np.linspace(0, 1, 801)
    each = lambda p, u: density(s, points, weight).log_prob(Points(p.v, u, p.on))
    p = np.exp(quick.jit(jax.vmap(jax.vmap(each, (None, 0)), (0, None)))(every, jnp.asarray(x[:, None], jnp.float32)))
    assert integrate.trapezoid(p, x).sum() == pytest.approx(1, abs=1e-3)


@EACH_DENSITY
def test_draws_follow_the_density_of_decisions(density):
    n = 20_000
    points, weight = observed(TREE)
    fitted = density(TREE, points, weight)
    every = settings(TREE)

    @quick.jit
    def drawn(key):
        v, _ = fitted.sample(key, n)
        on = jax.vmap(lambda v: TREE.active(TREE.unflat(v)))(v)
        return jax.vmap(lambda v: TREE.index(TREE.unflat(v)))(jnp.where(on, v, 0)), jax.vmap(fitted.log_prob)(every)

    index, log_p = drawn(jax.random.key(0))
    seen = np.bincount(index, minlength=24)[np.asarray(jax.vmap(lambda v: TREE.index(TREE.unflat(v)))(every.v))]
    assert seen.sum() == n
    expected = np.exp(np.asarray(log_p, np.float64))
    assert stats.chisquare(seen, expected / expected.sum() * n).pvalue > 1e-3


@EACH_DENSITY
def test_draws_follow_the_density_of_a_real(density):
    rng = np.random.default_rng(0)
    points = Points(jnp.zeros((8, 0), jnp.int32), jnp.asarray(rng.beta(1, 4, (8, 1)), jnp.float32), jnp.zeros((8, 0), bool))
    fitted = density(LINE, points, jnp.asarray([1.0, 1, 1, 0.5, 0.2, 1, 0, 0]))
    x = np.linspace(0, 1, 2001)
    at = Points(jnp.zeros((2001, 0), jnp.int32), jnp.asarray(x[:, None], jnp.float32), jnp.zeros((2001, 0), bool))
    (_, u), log_p = quick.jit(lambda key: (fitted.sample(key, 5_000), jax.vmap(fitted.log_prob)(at)))(jax.random.key(1))
    cumulative = integrate.cumulative_trapezoid(np.exp(np.asarray(log_p, np.float64)), x, initial=0)
    assert stats.kstest(np.asarray(u[:, 0], np.float64), lambda q: np.interp(q, x, cumulative)).pvalue > 1e-3


def test_independent_densities_by_hand():
    """Counts with a prior of one each; a decision that is off does not count; a normal as wide as its farther neighbour is far."""
    v, on = (
        jnp.asarray([[1, 0, 0, 0], [1, 1, 3, 0], [0, 0, 0, 0], [2, 1, 0, 0]]),
        [[1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 0, 1]],
    )
    points, weight = Points(v, jnp.zeros((4, 0)), jnp.asarray(on, bool)), jnp.asarray([1.0, 0.5, 1.0, 0.0])
    log_p = lambda v, on: float(
        independent(TREE, points, weight).log_prob(Points(jnp.asarray(v), jnp.zeros(0), jnp.asarray(on, bool)))
    )
    first, second, third = np.asarray([2.0, 2.5, 1.0]) / 5.5, np.asarray([2.0, 1.5]) / 3.5, np.asarray([1, 1, 1, 1.5]) / 4.5
    assert log_p([0, 0, 0, 0], [1, 0, 0, 1]) == pytest.approx(np.log(first[0]), abs=1e-6)
    assert log_p([1, 0, 0, 0], [1, 1, 0, 1]) == pytest.approx(np.log(first[1] * second[0]), abs=1e-6)
    assert log_p([1, 1, 3, 0], [1, 1, 1, 1]) == pytest.approx(np.log(first[1] * second[1] * third[3]), abs=1e-6)

    x, weight = np.asarray([0.1, 0.3, 0.9, 0.32, 0.2]), np.asarray([1.0, 1.0, 0.5, 1.0, 0.0])
    centers, widths = np.asarray([0.1, 0.3, 0.9, 0.32, 0.5]), np.asarray([0.2, 0.2, 0.4, 0.18, 1.0])  # 1 / 6 at least
    weights = np.asarray([1.0, 1.0, 0.5, 1.0, 1.0]) / 4.5
    q = np.linspace(0, 1, 11)
    components = [stats.truncnorm(-c / w, (1 - c) / w, c, w).pdf(q) for c, w in zip(centers, widths, strict=True)]
    points = Points(jnp.zeros((5, 0), jnp.int32), jnp.asarray(x[:, None], jnp.float32), jnp.zeros((5, 0), bool))
    fitted = independent(LINE, points, jnp.asarray(weight, jnp.float32))
    at = Points(jnp.zeros((11, 0), jnp.int32), jnp.asarray(q[:, None], jnp.float32), jnp.zeros((11, 0), bool))
    np.testing.assert_allclose(np.exp(jax.vmap(fitted.log_prob)(at)), weights @ components, rtol=1e-4)


def test_joint_densities_by_hand():
    """Aitchison and Aitken's kernels around each observation, what is off tells nothing, and one uniform component."""
    points, weight = observed(TREE, 3)
    v, on, w = (np.asarray(a) for a in (points.v, points.on, weight))
    c, n = TREE.arity, 3
    lam = (c - 1) / (n + 1 + c)
    for x, active in zip(*(np.asarray(a) for a in (settings(TREE).v, settings(TREE).on)), strict=True):
        total = np.prod(1 / c[active])
        for i in np.flatnonzero(w):
            factors = [
                1 / c[d] if not on[i, d] else 1 - lam[d] if v[i, d] == x[d] else lam[d] / (c[d] - 1) for d in np.flatnonzero(active)
            ]
            total += w[i] * np.prod(factors)
        found = joint(TREE, points, weight).log_prob(Points(jnp.asarray(x), jnp.zeros(0), jnp.asarray(active)))
        assert float(found) == pytest.approx(np.log(total / (w.sum() + 1)), abs=1e-5)


def test_normal_reference_bandwidths():
    """For decisions of two values, and for reals, they are statsmodels' and BOHB's: 1.06 sd n^-1/(4 + dimensions)."""
    s = space((2, 2), reals=Real(0.0, 1.0))
    rng = np.random.default_rng(0)
    v, u, there = rng.integers(0, 2, (9, 2)), rng.uniform(size=(9, 1)), np.arange(9) < 7
    points = Points(jnp.asarray(v, jnp.int32), jnp.asarray(u, jnp.float32), jnp.ones((9, 2), bool))
    lam, sigma = normal_reference(1e-3)(s, points, jnp.asarray(there, jnp.float32))
    want = 1.06 * np.concatenate([v, u], 1)[there].std(0) * 7 ** (-1 / 7)
    np.testing.assert_allclose(lam, np.clip(want[:2], 1e-3, 0.5), rtol=1e-5)
    np.testing.assert_allclose(sigma, want[2:], rtol=1e-5)
    same = points._replace(v=jnp.zeros((9, 2), jnp.int32))
    np.testing.assert_allclose(normal_reference(0.3)(s, same, jnp.ones(9))[0], 0.3)


def test_quantile_rules():
    assert [optuna_gamma(n) for n in (1, 10, 11, 30, 31, 250, 1000)] == [1, 1, 2, 3, 4, 25, 25]
    assert [hyperopt_gamma(n) for n in (1, 16, 17, 64, 65, 100, 10_000, 40_000)] == [1, 1, 2, 2, 3, 3, 25, 25]


# The search, line by line


TOY_VALUES = np.random.default_rng(0).permutation(24).astype(np.float32)


def by_the_book(told, scores, left):
    """The unseen setting with the largest l / g, in plain NumPy: hyperopt's counts, weights and Optuna's split."""

    def weights(n):
        return np.ones(n) if n <= 25 else np.concatenate([np.linspace(1 / n, 1, n - 25), np.ones(25)])

    def odds(members):
        p = [np.ones(c) for c in TOY.arity]
        for i, w in zip(members, weights(len(members)), strict=True):
            for d, a in enumerate(np.unravel_index(told[i], TOY.arity)):
                p[d][a] += w
        return [counts / counts.sum() for counts in p]

    n = len(told)
    good = sorted(np.argsort(-np.asarray(scores), kind="stable")[: min(math.ceil(n / 10), 25)])  # in the order told
    among, rest = odds(good), odds([i for i in range(n) if i not in good])
    ratio = lambda i: sum(np.log(among[d][a] / rest[d][a]) for d, a in enumerate(np.unravel_index(i, TOY.arity)))
    return max(map(ratio, left)), ratio


def test_the_choice_is_the_largest_ratio_of_the_densities():
    """With candidates enough to hold every setting; scores with ties, 40 told, so that old ones are half forgotten."""
    scores = np.floor(TOY_VALUES / 3)
    algorithm = tpe(TOY, capacity=60, initial=40, candidates=3000, unique=False)
    order = np.concatenate([index for _, index in asked(algorithm, scores, 60)])
    for n in range(40, 60):
        best, ratio = by_the_book(order[:n], scores[order[:n]], range(24))
        assert ratio(order[n]) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("density", [independent, joint])
def test_nothing_is_asked_for_twice_while_something_is_left(density):
    algorithm = tpe(TOY, capacity=30, initial=6, candidates=300, density=density)
    order = np.concatenate([index for _, index in asked(algorithm, TOY_VALUES, 30)])
    first = len(set(order[:6].tolist()))
    assert len(set(order[: 6 + 24 - first].tolist())) == 24


def test_without_leaving_out_what_was_told_the_search_repeats_itself():
    algorithm = tpe(TOY, capacity=40, initial=6, candidates=300, unique=False)
    order = np.concatenate([index for _, index in asked(algorithm, TOY_VALUES, 40)])
    assert len(set(order[6:].tolist())) < 20


def test_a_batch_of_different_ones_and_a_ring():
    algorithm = tpe(TOY, capacity=12, initial=6, candidates=300, batch=4)
    history = asked(algorithm, TOY_VALUES, 7)
    for _, index in history[2:]:
        assert len(set(index.tolist())) == 4
    recent = np.concatenate([index for _, index in history[-3:]])
    state = history[-1][0]
    assert sorted(np.asarray(jax.vmap(TOY.index)(state.archs)).tolist()) == sorted(recent.tolist())
    assert sorted(state.scores.tolist()) == sorted(TOY_VALUES[recent].tolist())
    assert int(state.told) == 28


@pytest.mark.parametrize("density", [independent, joint])
@pytest.mark.parametrize("s", [TOY, TREE, MIXED, LINE], ids=["flat", "conditional", "mixed", "reals"])
def test_step_is_a_scan_body(s, density):
    algorithm = tpe(s, capacity=9, initial=3, batch=2, density=density)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    asked, archs = jax.eval_shape(algorithm.ask, jax.random.key(1), state)
    told = jax.eval_shape(algorithm.tell, jax.random.key(2), asked, archs, jax.ShapeDtypeStruct((2,), jnp.float32))
    kinds = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype, a.weak_type), jax.eval_shape(lambda x: x, tree))
    assert kinds(state) == kinds(asked) == kinds(told)
    assert not any(a.weak_type for a in jax.tree.leaves(told))
    assert kinds(archs) == kinds(jax.eval_shape(jax.vmap(s.sample), jax.random.split(jax.random.key(0), 2)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(capacity=0), "`capacity` of tpe must be a positive integer; got 0"),
        (dict(initial=0), "`initial` of tpe must be a positive integer; got 0"),
        (dict(initial=31), "got initial=31"),
        (dict(batch=0), "`batch` of tpe must be a positive integer; got 0"),
        (dict(batch=31), "got batch=31"),
        (dict(batch=4, candidates=3), "at least as many candidates as the batch .4.; got candidates=3"),
        (dict(gamma=0.0), "`gamma` of tpe must be a share"),
        (dict(gamma=1.2), "`gamma` of tpe must be a share"),
        (dict(gamma=lambda n: 2), "at least 1 and at most n of n observations"),
    ],
)
def test_tpe_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        tpe(TOY, **{"capacity": 30, **arguments})


# Whole searches


def searched(algorithm, evaluator, steps, seeds, batch=None):
    """(best archs, best scores), leaves [seeds, steps]."""
    return run_seeds(black_box(algorithm, evaluator), steps, batch, seeds, jit=quick.jit)[1]


PAIRS = space((np.full(16, 2),))


def different(archs):
    """How many of eight pairs of bits differ: one bit alone tells nothing."""
    pairs = archs[0].reshape(-1, 8, 2)
    return jnp.sum(pairs[..., 0] != pairs[..., 1], -1).astype(jnp.float32)


def test_a_joint_density_sees_an_interaction_that_independent_ones_can_not():
    """What 200 searches ask for first, after 100 random draws.

    Of the first choice only: a whole search breaks the symmetry of the bits, and then independent densities do as well.
    """
    n, seeds = 100, 200

    def first(density):
        algorithm = tpe(PAIRS, capacity=n, density=density)

        def score(key):
            k_draw, k_init, k_ask = jax.random.split(key, 3)
            archs = jax.vmap(PAIRS.sample)(jax.random.split(k_draw, n))
            state = algorithm.init(k_init)._replace(archs=archs, scores=different(archs), told=jnp.asarray(n, jnp.int32))
            return different(algorithm.ask(k_ask, state)[1])[0]

        return np.asarray(quick.jit(jax.vmap(score))(jax.random.split(jax.random.key(0), seeds)), np.float64)

    alone, both = first(independent), first(joint)
    assert stats.mannwhitneyu(both, alone, alternative="greater").pvalue < 0.01


NB201 = nasbench201()


@nb201_file.needs_file
def test_leaving_out_what_was_told_beats_random_search_by_far_and_repeating():
    """Random search's exact mean after 100 is 93.730."""
    data = nb201_file.load()
    fixed = rows(NB201, data["ops"], {"accuracy": data["val_acc_12"][:, 0]})
    test = np.asarray(rows(NB201, data["ops"], {"test": data["test_acc_200"][:, 0]})["test"], np.float64)

    def final(**arguments):
        best, _ = searched(tpe(NB201, capacity=100, **arguments), table(NB201), 100, 300, Batch(fixed=fixed))
        return test[np.asarray(jax.vmap(NB201.index)(jax.tree.map(lambda a: a[:, -1], best)))]

    ours, naive = final(), final(unique=False)
    assert ours.mean() - 3 * ours.std() / np.sqrt(300) > 93.730 + 0.15
    assert stats.mannwhitneyu(ours, naive, alternative="greater").pvalue < 0.01


def test_a_mixed_space_is_searched_better_than_at_random():
    steps, seeds = 60, 50
    (_, random), *found = (
        searched(algorithm, stateless(mixed_score), steps, seeds)
        for algorithm in (random_search(MIXED), tpe(MIXED, capacity=steps), tpe(MIXED, capacity=steps, density=joint))
    )
    for archs, ours in found:
        assert stats.mannwhitneyu(ours[:, -1], random[:, -1], alternative="greater").pvalue < 1e-4
        last = jax.tree.map(lambda a: np.asarray(a)[:, -1], archs)
        inside = (last.decisions[0] == 2) & (last.decisions[1] == 1) & (abs(last.reals["x"] - 0.3) < 0.2)
        assert inside.mean() > 0.8


def tree_score(key, archs, batch):
    """1 at (1, 1, 3), the setting that is deepest in the tree; a little for each of its decisions."""
    del key, batch
    a, b, c, _ = archs
    return {"accuracy": 0.2 * (a == 1) + 0.2 * ((a == 1) & (b == 1)) + 0.6 * ((a == 1) & (b == 1) & (c == 3))}


@EACH_DENSITY
def test_conditional_decisions_are_found(density):
    """11 settings: without repeating itself the search has seen all of them but by bad luck."""
    algorithm = tpe(TREE, capacity=14, initial=4, density=density)
    archs, score = searched(algorithm, stateless(tree_score), 14, 100)
    assert (np.asarray(score)[:, -1] == 1).mean() > 0.9
    v = np.asarray(jax.vmap(jax.vmap(TREE.flat))(archs)).reshape(-1, 4)
    assert set(map(tuple, v.tolist())) <= set(map(tuple, settings(TREE).v.tolist()))


def test_every_setting_is_listed_once():
    assert len(settings(TREE).v) == TREE.size == 1 + 2 * (1 + 4) == len(set(map(tuple, settings(TREE).v.tolist())))
    assert len(settings(TOY).v) == 24 == len(list(itertools.product(*map(range, TOY.arity))))


@pytest.mark.parametrize("n", [0, 1, 24, 25, 26, 27, 28, 40])
def test_the_newest_25_weigh_one_and_the_oldest_one_nth(n):
    """Bergstra, Yamins and Cox's linear forgetting: a ramp of n - 25 values from 1/n to 1, then 25 ones."""
    members = np.random.default_rng(n).permutation(np.arange(50) < n)
    ramp = np.linspace(1 / n, 1, n - 25) if n > 25 else []
    np.testing.assert_allclose(_weights(jnp.asarray(members))[members], [*ramp, *np.ones(min(n, 25))], rtol=1e-6)
    assert not _weights(jnp.asarray(members))[~members].any()
