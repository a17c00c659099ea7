"""Many budgets: published schedules, survivors by enumeration and by plain loops, members that go on, and proxy settings."""

import functools
import itertools

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import optax
import pytest
import quick
from laws import CLASSES, IMAGE, cell_space, toy_net
from scipy import stats
from searching import MIXED, TOY, run_seeds

from jaxnas import data, nets, spaces
from jaxnas.ask_tell._asha import asha
from jaxnas.ask_tell._bohb import KernelModel, ModelState, bohb, kernel_model, split_at
from jaxnas.ask_tell._hyperband import hyperband, hyperband_plan
from jaxnas.ask_tell._tpe import joint, normal_reference, points_of
from jaxnas.ask_tell.halving import brackets, plan_cost, steps, successive_halving
from jaxnas.ask_tell.trial import Trial, levels
from jaxnas.base import Batch, black_box, stateless
from jaxnas.evaluate._table import rows
from jaxnas.evaluate.fidelity import Fidelity, relative_cost, setting
from jaxnas.evaluate.population import batch_score, population
from jaxnas.evaluate.trials import Held, by_budget, train_trials
from jaxnas.spaces._space import space
from jaxnas.spaces.real import Real
from jaxnas.training import CLASSES as OF_CLASSES

# Schedules


def test_the_published_tables_of_hyperband():
    plain = lambda plan: [[tuple(rung) for rung in bracket] for bracket in plan]
    assert plain(hyperband_plan(81, form="table")) == [  # table 1 of the paper
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(27, 3), (9, 9), (3, 27), (1, 81)],
        [(9, 9), (3, 27), (1, 81)],
        [(6, 27), (2, 81)],
        [(5, 81)],
    ]
    assert plain(hyperband_plan(81)) == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    firsts = lambda *args, **kw: [tuple(bracket[0]) for bracket in hyperband_plan(*args, **kw)]
    assert firsts(27, form="table") == [(27, 1), (9, 3), (6, 9), (4, 27)]
    assert firsts(27) == [(27, 1), (12, 3), (6, 9), (4, 27)]
    assert firsts(200, 16, r=12) == [(16, 12), (2, 200)]
    assert levels(200, 12, 16) == [12, 200] and levels(243) == [1, 3, 9, 27, 81, 243] and levels(5, 5) == [5]


@pytest.mark.parametrize("form", ["jmlr", "table"])
def test_a_pass_costs_at_most_its_budget(form):
    """Even if members began anew at every rung; and what going on saves is counted."""
    for R, eta in itertools.product((9, 16, 27, 64, 81, 243), (2, 3, 4)):
        plan = hyperband_plan(R, eta, form)
        s = len(plan)
        assert plan_cost(plan, restart=True) <= s * s * R
        assert plan_cost(plan) < plan_cost(plan, restart=True)
    assert plan_cost([[(9, 1), (3, 3), (1, 9)]]) == 9 + 3 * 2 + 6 and plan_cost([[(9, 1), (3, 3), (1, 9)]], restart=True) == 27
    assert steps([[(9, 1), (3, 3), (1, 9)]], batch=4) == 3 + 1 + 1


# Successive halving


def by_stop(values):
    """The evaluator of a toy: values [settings, budget + 1], looked up at a trial's stop."""
    return stateless(lambda key, trials, batch: {"accuracy": jnp.asarray(values)[jax.vmap(TOY.index)(trials.arch), trials.stop]})


def watch(strategy, state, info):
    return info.archs, info.scores, strategy.best(state)


def searched(algorithm, values, n, seeds):
    """(trials, scores, best) of every step, leaves [seeds, steps, ...]."""
    found = run_seeds(black_box(algorithm, by_stop(values)), n, seeds=seeds, watch=watch, jit=quick.jit)[1]
    return jax.tree.map(np.asarray, found)


RANDOM = np.random.default_rng(0).uniform(size=(24, 28)).astype(np.float32)


def test_curves_that_do_not_cross_never_lose_the_best():
    worth = np.random.default_rng(1).permutation(24).astype(np.float32)
    growing = np.sqrt(np.arange(10, dtype=np.float32))[None] * worth[:, None]
    (trials, _, best) = searched(successive_halving(TOY, 9, 1, 9, batch=2), growing, 5 + 2 + 1, 300)
    drawn = np.where(trials.start == 0, worth[jax.vmap(jax.vmap(jax.vmap(TOY.index)))(trials.arch)], -1).max((1, 2))
    np.testing.assert_array_equal(worth[jax.vmap(jax.vmap(TOY.index))(best)][:, -1], drawn)


def test_curves_that_cross_lose_the_best_as_often_as_enumeration_says():
    five, n, seeds = space((5,)), 6, 4000
    worth = np.random.default_rng(2).permuted(np.tile(np.arange(5.0), (3, 1)), axis=1).T  # [arch, level]
    right = total = 0
    for drawn in itertools.product(range(5), repeat=n):
        left = list(drawn)
        for level, keep in ((0, 3), (1, 1)):
            left = sorted(left, key=lambda a: -worth[a, level])[:keep]  # equal scores are equal architectures
        right += worth[left[0], 2] == max(worth[a, 2] for a in drawn)
        total += 1
    fails = 1 - right / total
    assert 0.2 < fails < 0.8
    values = jnp.asarray(worth, jnp.float32)
    score = stateless(lambda key, trials, batch: {"accuracy": values[trials.arch[0], jnp.asarray([0, 0, 1, 1, 2])[trials.stop]]})
    strategy = black_box(successive_halving(five, n, 1, 4, eta=2, batch=n), score)
    trials, _, best = jax.tree.map(np.asarray, run_seeds(strategy, 3, seeds=seeds, watch=watch, jit=quick.jit)[1])
    lost = np.mean(worth[best[0][:, -1], 2] < worth[trials.arch[0][:, 0], 2].max(1))
    assert abs(lost - fails) < 4 * np.sqrt(fails * (1 - fails) / seeds)


def test_a_plan_is_carried_out_rung_by_rung():
    """Hyperband with batches that do not fit the rungs, twice over: who is asked for, from where to where, and who survives."""
    plan, B = hyperband_plan(9), 4
    trials, scores, best = searched(hyperband(TOY, 9, batch=B), RANDOM, 2 * steps(plan, B), 3)
    for seed in range(3):
        arch, slot, start, stop, score = (a[seed] for a in (trials.arch[0], trials.slot, trials.start, trials.stop, scores))
        at, t, top = {}, 0, (0, -1.0, None)
        for bracket in plan * 2:
            survivors = None
            for i, (n, budget) in enumerate(bracket):
                done = []
                for _ in range(-(-n // B)):
                    assert len(set(slot[t].tolist())) == B
                    for b in range(B):
                        s = int(slot[t, b])
                        if len(done) == n:
                            assert start[t, b] == stop[t, b] == at[s][0] and score[t, b] == at[s][1]  # idle
                            assert (arch[t, b] == at[s][2]).all()
                            continue
                        assert (start[t, b], stop[t, b]) == (bracket[i - 1].budget if i else 0, budget)
                        assert i == 0 or (arch[t, b] == at[s][2]).all()
                        at[s] = (budget, score[t, b], arch[t, b])
                        done.append((float(score[t, b]), s))
                        top = max(top, (budget, float(score[t, b]), tuple(arch[t, b].tolist())), key=lambda x: x[:2])
                    t += 1
                assert survivors is None or sorted(s for _, s in done) == survivors
                keep = bracket[i + 1].members if i + 1 < len(bracket) else 0
                survivors = sorted(s for _, s in sorted(done, key=lambda x: -x[0])[:keep])
        assert tuple(best[0][seed, -1].tolist()) == top[2]  # the best at the largest budget


NB201 = spaces.nasbench201()


@functools.cache
def two_fidelities(dataset):
    """What the table has at 12 epochs, then the true accuracy; in the order of `index`."""
    held = nb201_file.load()
    columns = {"short": held["val_acc_12"][:, dataset], "long": held["test_acc_200"][:, dataset]}
    columns = rows(NB201, held["ops"], columns)
    return {"accuracy": jnp.stack([columns["short"], columns["long"]], -1)}


PUBLISHED = {  # (n, m) -> mean and sd of 2,000 seeds, CIFAR-10 then CIFAR-100; no sd where the sheet has none
    (81, 3): ((93.73, 0.37), (71.21, 1.00)),
    (100, 5): ((93.82, 0.30), (71.45, 0.92)),
    (243, 9): ((94.00, None), (72.08, None)),
    (500, 27): ((94.12, 0.16), (72.53, 0.58)),
}


@nb201_file.needs_file
@pytest.mark.parametrize(("n", "m"), [(81, 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in list(PUBLISHED)[1:])])
def test_promotion_from_12_epochs_reproduces_the_sheet(n, m):
    strategy = black_box(brackets(NB201, [[(n, 12), (m, 200)]], batch=m), by_budget(NB201, (12, 200), restart=True))
    for dataset, (mean, sd) in enumerate(PUBLISHED[n, m]):
        fixed = two_fidelities(dataset)
        asked = -(-n // m) + 1
        state, _ = run_seeds(strategy, asked, Batch(fixed=fixed), 2000, watch=lambda *_: (), jit=quick.jit)
        found = np.asarray(fixed["accuracy"][jax.vmap(NB201.index)(state.algorithm.answer.arch), 1], np.float64)
        assert abs(found.mean() - mean) < 3 * found.std() * np.sqrt(2 / 2000) + 0.005, (found.mean(), found.std())
        assert sd is None or found.std() == pytest.approx(sd, rel=0.15)


@pytest.mark.slow
@nb201_file.needs_file
def test_hyperband_beats_random_search_at_equal_epochs_and_bohb_beats_hyperband():
    """4,000 epochs, 12 and 200 of them a training; members begin anew, as the table's do."""
    seeds, spent = 100, 4000
    held = nb201_file.load()
    names = {"short": held["val_acc_12"][:, 0], "long": held["val_acc_200"][:, 0, 0], "test": held["test_acc_200"][:, 0]}
    columns = rows(NB201, held["ops"], names)
    fixed = {"accuracy": jnp.stack([columns["short"], columns["long"]], -1)}
    found = {}
    for name, algorithm, asks in (
        ("random", brackets(NB201, [[(1, 200)]]), 21),
        ("hyperband", hyperband(NB201, 200, 16, r=12), 110),
        ("bohb", bohb(NB201, 200, eta=16, r=12, capacity=110), 110),
    ):
        strategy = black_box(algorithm, by_budget(NB201, (12, 200), restart=True))
        seen = lambda strategy, state, info: (NB201.index(strategy.best(state)), info.metrics["cost"])
        index, cost = map(np.asarray, run_seeds(strategy, asks, Batch(fixed=fixed), seeds, watch=seen, jit=quick.jit)[1])
        total = np.cumsum(cost[..., 0], 1)
        assert (total[:, -1] >= spent).all()
        last = np.sum(total <= spent, 1) - 1
        found[name] = np.asarray(columns["test"], np.float64)[index[np.arange(seeds), last]]
    for better, worse in itertools.pairwise(("bohb", "hyperband", "random")):
        assert stats.mannwhitneyu(found[better], found[worse], alternative="greater").pvalue < 0.01


# ASHA


def reference_asha(score, budgets, eta, B, jobs):
    """[(member, rung)] of the paper's get_job, in plain Python; members are numbered as they start."""
    rung, asked, given = [{} for _ in budgets], 0, []
    promoted = [set() for _ in budgets]
    while len(given) < jobs:
        batch = []
        for _ in range(B):
            job = None
            for k in reversed(range(len(budgets) - 1)):
                order = sorted(rung[k], key=lambda m: (-rung[k][m], m))
                free = [m for m in order[: len(order) // eta] if m not in promoted[k]]
                if free:
                    promoted[k].add(free[0])
                    job = (free[0], k + 1)
                    break
            if job is None:
                job, asked = (asked, 0), asked + 1
            batch.append(job)
        given += batch
        for m, k in batch:
            rung[k][m] = score(m, k)
    return given


@pytest.mark.parametrize(("batch", "eta", "r"), [(1, 2, 1), (5, 3, 1), (4, 2, 16)])
def test_promotions_are_those_of_the_paper(batch, eta, r):
    budgets = levels(16, r, eta)
    worth = np.round(np.random.default_rng(3).uniform(size=(200, len(budgets))), 1).astype(np.float32)  # with ties
    algorithm = asha(TOY, 16, r, eta, capacity=200, batch=batch)
    at = jnp.asarray(np.searchsorted(budgets, np.arange(17)))
    score = stateless(lambda key, trials, _: {"accuracy": jnp.asarray(worth)[trials.slot, at[trials.stop]]})
    n = 120 // batch
    (trials, _, _) = jax.tree.map(np.asarray, run_seeds(black_box(algorithm, score), n, seeds=1, watch=watch, jit=quick.jit)[1])
    rung = np.searchsorted(budgets, trials.stop[0]).ravel()
    given = list(zip(trials.slot[0].ravel().tolist(), rung.tolist(), strict=True))
    assert given == reference_asha(lambda m, k: worth[m, k], budgets, eta, batch, 120)
    assert max(rung) == len(budgets) - 1
    before = np.concatenate([[0], budgets])[rung]
    np.testing.assert_array_equal(trials.start[0].ravel(), before)


def test_a_full_ring_forgets_the_oldest_and_gives_no_slot_twice():
    assert asha(TOY, 9, capacity=1).init(jax.random.key(0)).rung.shape == (1,)
    trials, _, _ = searched(asha(TOY, 9, capacity=7, batch=3), RANDOM, 60, 2)
    assert all(len(set(row.tolist())) == 3 for row in trials.slot.reshape(-1, 3))
    at = {}
    for slot, begin, stop in zip(*(a[0].ravel().tolist() for a in (trials.slot, trials.start, trials.stop)), strict=True):
        assert begin == 0 or at[slot] == begin
        at[slot] = stop
    assert (trials.stop == 9).any()


# BOHB


def model_of(archs, budget, scores):
    put = lambda a, kind: jnp.asarray(a, kind)
    return ModelState(
        jax.vmap(TOY.from_index)(put(archs, jnp.int32)),
        put(scores, jnp.float32),
        put(budget, jnp.int32),
        jnp.asarray(len(archs), jnp.int32),
    )


def test_the_model_is_of_the_largest_budget_with_scores_enough():
    """Of 3 decisions: N_min = 4, so 6 scores are enough."""
    budgets, rng = np.asarray([1, 3, 9], np.int32), np.random.default_rng(0)
    split = quick.jit(lambda state: split_at(state, budgets, least=4))
    for at_three, at_nine, b in ((5, 5, 1), (6, 5, 3), (40, 5, 3), (40, 6, 9)):
        budget = rng.permutation(np.repeat([1, 3, 9, 0], [20, at_three, at_nine, 49 - at_three - at_nine]))
        scores = rng.uniform(size=len(budget))
        found, good, bad = split(model_of(rng.integers(0, 24, len(budget)), budget, scores))
        order = sorted(np.flatnonzero(budget == b), key=lambda i: -scores[i])
        goods = max(4, int(0.15 * len(order)))
        assert int(found) == b
        assert set(np.flatnonzero(good)) == set(order[:goods])
        assert set(np.flatnonzero(bad)) == set(order[-max(4, len(order) - goods) :])
    assert int(split(model_of([0] * 69, [9] * 5 + [0] * 64, [0.0] * 69))[0]) == 0


def densities(archs, weight, minimum, prior=0.0):
    """Those of all 24 settings, under each of weights [..., N]."""

    @quick.jit
    def of(archs, weight):
        points = lambda index: points_of(TOY, jax.vmap(TOY.from_index)(index))
        density = lambda weight: joint(TOY, points(archs), weight, normal_reference(minimum), prior)
        return jnp.exp(jax.vmap(lambda w: jax.vmap(density(w).log_prob)(points(jnp.arange(24))))(weight))

    return np.asarray(of(jnp.asarray(archs), jnp.asarray(weight, jnp.float32)), np.float64)


def test_new_members_maximise_the_ratio_at_that_budget():
    """With candidates enough to hold every setting; scores at the other budgets say the opposite."""
    rng = np.random.default_rng(15)
    archs, budget = rng.integers(0, 24, 60), np.repeat([1, 9], 30)
    worth = rng.permutation(24)
    scores = np.where(budget == 9, worth[archs], -worth[archs])
    propose = kernel_model(TOY, [1, 3, 9], 60, model=KernelModel(rho=0.0, candidates=3000, minimum=0.2))
    state = model_of(archs, budget, scores)
    asked = int(jax.vmap(TOY.index)(quick.jit(propose.ask)(jax.random.key(0), state))[0])
    order = sorted(range(30, 60), key=lambda i: -scores[i])
    members = [np.isin(np.arange(60), chosen) for chosen in (order[:4], order[4:])]
    ratio, with_prior = (np.subtract(*np.log(densities(archs, members, 0.2, prior))) for prior in (0.0, 1.0))
    assert ratio[asked] == pytest.approx(ratio.max(), abs=1e-5)
    assert ratio[with_prior.argmax()] < ratio.max() - 1e-3  # so a prior would be seen


def test_candidates_are_drawn_from_wider_kernels():
    """Where the good are one architecture, a candidate of three decisions is it with odds (1 - 3 * 0.1)^3."""
    n = 4000
    propose = kernel_model(TOY, [1], 12, model=KernelModel(rho=0.0, candidates=1, minimum=0.1))
    state = model_of([7] * 6 + [16] * 6, [1] * 12, [1.0] * 6 + [0.0] * 6)
    drawn = quick.jit(jax.vmap(lambda key: TOY.index(jax.tree.map(lambda a: a[0], propose.ask(key, state)))))
    share = np.mean(np.asarray(drawn(jax.random.split(jax.random.key(0), n))) == 7)
    assert abs(share - 0.7**3) < 4 * np.sqrt(0.25 / n)


def test_candidates_of_a_real_dimension_are_drawn_from_wider_kernels():
    """Where the good are one point in the middle: normal around it, three times as wide as the least kernel, cut at the bounds."""
    n, line = 4000, space(reals=Real(0.0, 1.0))
    propose = kernel_model(line, [1], 12, model=KernelModel(rho=0.0, candidates=1, minimum=0.1))
    at, scores = jnp.repeat(jnp.asarray([0.5, 0.9]), 6), jnp.repeat(jnp.asarray([1.0, 0.0]), 6)
    archs = jax.vmap(lambda u: line.unflat(jnp.zeros(0, jnp.int32), u[None]))(at)
    state = ModelState(archs, scores, jnp.ones(12, jnp.int32), jnp.asarray(12, jnp.int32))
    drawn = quick.jit(jax.vmap(lambda key: propose.ask(key, state)))(jax.random.split(jax.random.key(0), n))
    x = np.ravel(jax.tree.leaves(drawn)[0])
    low, high = (0 - 0.5) / 0.3, (1 - 0.5) / 0.3
    wanted = stats.truncnorm(low, high, loc=0.5, scale=0.3)
    assert stats.kstest(x, wanted.cdf).pvalue > 1e-4


def test_a_density_without_a_prior_sums_to_one_and_is_its_kernels():
    (p,) = densities([7, 7, 7], [[1, 1, 0]], 1e-3)
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p[7] == pytest.approx((1 - 1e-3) ** 3, abs=1e-5)


def test_scores_of_all_budgets_are_kept_and_idle_trials_are_not():
    algorithm = bohb(TOY, 9, capacity=100, batch=4)
    plan = hyperband_plan(9)
    strategy = black_box(algorithm, by_stop(RANDOM))
    state, (trials, scores, _) = run_seeds(strategy, steps(plan, 4), seeds=1, watch=watch, jit=quick.jit)
    busy = np.asarray(trials.start < trials.stop)[0]
    model = jax.tree.map(lambda a: np.asarray(a)[0], state.algorithm.proposer)
    n = sum(rung.members for bracket in plan for rung in bracket)
    assert int(model.told) == n == busy.sum() < busy.size
    np.testing.assert_array_equal(model.budget, np.append(np.asarray(trials.stop)[0][busy], np.zeros(100 - n)))
    np.testing.assert_array_equal(model.scores[:n], np.asarray(scores)[0][busy])
    np.testing.assert_array_equal(model.archs[0][:n], np.asarray(trials.arch[0])[0][busy])


def test_a_third_is_drawn_at_random():
    """A model so narrow that its own candidates are one architecture: what else is asked for was drawn."""
    n, B = 400, 8
    propose = kernel_model(TOY, [1], 12, B, KernelModel(candidates=4))
    state = model_of([7] * 6 + [16] * 6, [1] * 12, [1.0] * 6 + [0.0] * 6)
    asked = quick.jit(jax.vmap(lambda key: jax.vmap(TOY.index)(propose.ask(key, state))))(jax.random.split(jax.random.key(0), n))
    share = np.mean(np.asarray(asked) != 7)
    expected = 1 / 3 * 23 / 24
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / (n * B)) + 0.01


# What both are


SHORT = {
    "halving": lambda s: successive_halving(s, 9, 1, 9, batch=2),
    "hyperband": lambda s: hyperband(s, 9, batch=3),
    "asha": lambda s: asha(s, 9, capacity=40, batch=2),
    "bohb": lambda s: bohb(s, 9, capacity=40, batch=2),
}


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("s", [TOY, MIXED], ids=["flat", "mixed"])
def test_step_is_a_scan_body(name, s):
    algorithm = SHORT[name](s)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    asked, trials = jax.eval_shape(algorithm.ask, jax.random.key(1), state)
    B = trials.slot.shape[0]
    told = jax.eval_shape(algorithm.tell, jax.random.key(2), asked, trials, jax.ShapeDtypeStruct((B,), jnp.float32))
    kinds = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype, a.weak_type), tree)
    assert kinds(state) == kinds(asked) == kinds(told)
    assert not any(a.weak_type for a in jax.tree.leaves(told))
    assert all(a.dtype == jnp.int32 for a in trials[1:])
    assert kinds(jax.eval_shape(algorithm.best, told)) == kinds(jax.eval_shape(s.sample, jax.random.key(0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: successive_halving(TOY, 0, 1, 9), "`n` of successive_halving must be a positive integer; got 0"),
        (lambda: successive_halving(TOY, 9, 0, 9), "`r` of successive_halving must be a positive integer; got 0"),
        (lambda: successive_halving(TOY, 9, 10, 9), "1 <= r <= R"),
        (lambda: successive_halving(TOY, 9, 1, 9, eta=1), "eta of at least 2"),
        (lambda: successive_halving(TOY, 9, 1, 9, batch=10), "1 to 9 trials a step.*got batch=10"),
        (lambda: successive_halving(TOY, 9, 1, 9, batch=0), "`batch` of successive_halving must be a positive integer; got 0"),
        (lambda: brackets(TOY, []), "at least one bracket"),
        (lambda: brackets(TOY, [[(3, 1), (4, 3)]]), "budgets rise and members do not"),
        (lambda: brackets(TOY, [[(3, 3), (2, 3)]]), "budgets rise and members do not"),
        (lambda: brackets(TOY, [[(3, 3)], [(4, 3)]]), "the first bracket must be the widest"),
        (lambda: hyperband(TOY, 9, form="paper"), "unknown form 'paper'"),
        (lambda: asha(TOY, 9, capacity=0), "`capacity` of asha must be a positive integer; got 0"),
        (lambda: asha(TOY, 9, capacity=4, batch=5), "got batch=5"),
        (lambda: bohb(TOY, 9, capacity=5), "needs 6 scores of one budget"),
        (
            lambda: bohb(TOY, 9, capacity=50, model=KernelModel(rho=1.5)),
            r"`rho` of KernelModel must be a probability, from 0 to 1; got 1\.5",
        ),
        (lambda: by_budget(TOY, (12, 12)), "budgets of a table rise"),
        (
            lambda: train_trials(None, None, None, slots=0, budget=3),
            r"`net` of train_trials must be a net such as nas\.cell_net\(space, image=\(32, 32, 3\), classes=10\); got None",
        ),
        (
            lambda: train_trials(None, None, None, slots=3, budget=3, anneal="short"),
            r"`net` of train_trials must be a net such as nas\.cell_net\(space, image=\(32, 32, 3\), classes=10\); got None",
        ),
        (
            lambda: train_trials(None, None, None, slots=3, budget=3, mode="loop"),
            r"`net` of train_trials must be a net such as nas\.cell_net\(space, image=\(32, 32, 3\), classes=10\); got None",
        ),
    ],
)
def test_they_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def some(stop, begin=0, archs=(3, 4, 5)):
    n = len(archs)
    full = lambda value: jnp.broadcast_to(jnp.asarray(value, jnp.int32), (n,))
    return Trial(jax.vmap(TOY.from_index)(jnp.asarray(archs)), jnp.arange(n), full(begin), full(stop))


def test_a_table_of_budgets():
    columns = jnp.arange(48.0).reshape(24, 2)
    evaluate = lambda trials, **kw: by_budget(TOY, (12, 200), **kw).step(None, (), trials, Batch(fixed={"accuracy": columns}))[1]
    found = evaluate(some([12, 200, 100]))
    np.testing.assert_array_equal(found["accuracy"], [6, 9, np.nan])  # no budget of the table: not scored
    np.testing.assert_array_equal(found["cost"], [12, 200, 100])
    later = some([12, 200, 200], [0, 12, 200])
    np.testing.assert_array_equal(evaluate(later)["cost"], [12, 188, 0])
    np.testing.assert_array_equal(evaluate(later, restart=True)["cost"], [12, 200, 0])
    with pytest.raises(ValueError, match=r"one column a budget, \[N, 2\]; got \[N, 3\]"):
        by_budget(TOY, (12, 200)).step(None, (), some(12), Batch(fixed={"accuracy": jnp.zeros((24, 3))}))


# Members in training


def examples(n=48):
    k_x, k_y = jax.random.split(jax.random.key(7))
    y = jax.random.randint(k_y, (n,), 0, CLASSES)
    return jax.random.normal(k_x, (n, *IMAGE)) + y[:, None, None, None], y


def draw(key, arrays, t):
    del t
    i = jax.random.randint(key, (1, 8), 0, len(arrays[1]))
    return Batch(train=jax.tree.map(lambda a: a[i], arrays))


@functools.cache
def trainer(rate=0.1, mode="map", anneal="whole"):
    """(init, step) of an evaluator."""
    falling = lambda progress: optax.sgd(lambda t: rate * (1 - progress(t)))
    net = toy_net(cell_space())
    made = train_trials(net, falling, draw, slots=3, budget=4, unit=2, anneal=anneal, mode=mode)
    return quick.jit(made.init), quick.jit(made.step)


def members(evaluator, *trials):
    """(state, metrics) after a sequence of trials."""
    init, step = evaluator
    state = init(jax.random.key(0))
    for t, trial in enumerate(trials):
        state, metrics = step(jax.random.key(9 + t), state, trial, Batch(fixed=Held(examples(), examples())))
    return state, metrics


def train(begin, stop, slots=(0, 2)):
    s = cell_space()
    archs = jax.vmap(s.sample)(jax.random.split(jax.random.key(3), 2))
    full = lambda value: jnp.full(2, value, jnp.int32)
    return Trial(archs, jnp.asarray(slots, jnp.int32), full(begin), full(stop))


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("mode", ["map", pytest.param("vmap", marks=pytest.mark.slow)])
def test_a_training_cut_into_trials_is_the_same_training(mode):
    evaluator = trainer(mode=mode)
    once, scores = members(evaluator, train(0, 4))
    cut, last = members(evaluator, train(0, 1), train(1, 3), train(3, 3), train(3, 4))
    same_bits(once, cut)
    same_bits({**scores, "cost": 0}, {**last, "cost": 0})
    losses = np.asarray(once.members.losses)  # [slots, steps]
    assert np.isfinite(losses[[0, 2]]).all() and losses[0, -2:].mean() < losses[0, :2].mean()
    assert (losses[1] == 0).all()  # a slot that nobody was in
    begun_again, _ = members(evaluator, train(0, 1), train(0, 4))
    assert (np.asarray(begun_again.members.losses)[0] != losses[0]).all()


def test_the_two_schedules():
    """One schedule over the largest budget is not a schedule within each trial, but where the trial is all of it."""
    whole, own = trainer(), trainer(anneal="own")
    same_bits(members(whole, train(0, 4)), members(own, train(0, 4)))
    short = members(whole, train(0, 2))[0].members, members(own, train(0, 2))[0].members
    a, b = (np.asarray(m.losses)[0, :4] for m in short)
    assert a[0] == b[0] and (a[2:] != b[2:]).all()


class Count:
    """An optimizer that counts how often it is asked to move the weights of a member alone."""

    def __init__(self, rate):
        self.moves = 0
        inner = optax.sgd(rate)

        def update(grads, state, params=None):
            jax.debug.callback(self.one)
            return inner.update(grads, state, params)

        self.optimizer = optax.GradientTransformation(inner.init, update)

    def one(self):
        self.moves += 1


def population_of(mode, rate=0.1, every=None, P=4, S=6, optimizer=None):
    net = toy_net(cell_space())
    archs = jax.vmap(net.space.sample)(jax.random.split(jax.random.key(3), P))
    score = lambda logits_of, held: {"accuracy": jnp.mean((jnp.argmax(logits_of(held[0]), -1) == held[1]).astype(jnp.float32))}
    x, y = examples(8 * S)
    run = population(net, optax.sgd(rate) if optimizer is None else optimizer, score, mode, every)
    train = x.reshape(S, 8, *IMAGE), y.reshape(S, 8)
    return functools.partial(quick.jit(run), jax.random.split(jax.random.key(5), P), archs, train, examples())


def test_learning_curves_and_three_modes_that_agree():
    last = population_of("map")()
    found = {mode: population_of(mode, every=2)() for mode in ("map", "vmap", 2)}
    for mode, metrics in found.items():
        assert metrics["losses"].shape == (4, 6) and metrics["curves"]["accuracy"].shape == (4, 3)
        assert list(metrics["curves"]) == ["accuracy"]  # the loss has a curve of its own, step by step
        assert quick.worst(metrics, found["map"]) < 1e-5, mode
        np.testing.assert_array_equal(metrics["curves"]["accuracy"][:, -1], metrics["accuracy"])
        np.testing.assert_array_equal(metrics["losses"][:, -1], metrics["loss"])
    for name in ("accuracy", "loss"):
        np.testing.assert_allclose(last[name], found["map"][name], rtol=1e-6)
    with pytest.raises(ValueError, match="4 does not divide 6"):
        population_of("map", every=4)()


def test_a_member_that_diverged_is_trained_no_further():
    for rate, moves in ((0.1, 4 * 6), (jnp.nan, 4 * 2)):  # the first loss is finite, the second is not
        count = Count(rate)
        metrics = jax.block_until_ready(population_of("map", optimizer=count.optimizer)())
        jax.effects_barrier()
        assert count.moves == moves
        assert np.isnan(metrics["accuracy"]).all() == np.isnan(metrics["loss"]).all() == (moves == 8)
    _, metrics = members(trainer(rate=jnp.nan), train(0, 2), train(2, 4))
    assert np.isnan(metrics["accuracy"]).all() and (np.asarray(metrics["cost"]) == 2).all()


@pytest.mark.parametrize(
    "make", [lambda s: successive_halving(s, 9, 1, 3, batch=3), lambda s: asha(s, 3, 1, 3, capacity=9, batch=3)]
)
def test_a_member_that_diverged_at_the_largest_budget_is_no_answer(make):
    """Who goes on diverges: the answer is the best of those that did not, at the budget that they were trained to."""

    def diverging(key, trials, batch):
        return {"accuracy": jnp.where(trials.stop > 1, jnp.nan, -1.0 - trials.arch[0])}

    strategy = black_box(make(space([20])), stateless(diverging))
    step = jax.jit(strategy.step)
    state, asked = strategy.init(jax.random.key(0)), []
    for key in jax.random.split(jax.random.key(1), 6):
        state, info = step(key, state, Batch())
        asked += [(int(a), int(b)) for a, b in zip(info.archs.arch[0], info.archs.stop, strict=True)]
    assert any(stop > 1 for _, stop in asked)
    assert int(strategy.best(state)[0]) == min(a for a, stop in asked if stop == 1)


@pytest.mark.slow
def test_memory_grows_with_the_chunk_and_not_with_the_population():
    def temporary(P, chunk):
        run = population_of(chunk, P=P, S=64)
        return run.func.lower(*run.args).compile().memory_analysis().temp_size_in_bytes

    small, more, wider = temporary(8, 2), temporary(32, 2), temporary(32, 8)
    assert more < 1.3 * small
    assert wider > 2.5 * more


@pytest.mark.slow
def test_a_real_net_goes_on_where_it_was():
    """NAS-Bench-201 cells, one at a time, digits."""
    dataset = data.load("digits", jax.random.key(0))
    net = nets.cell_net(NB201, image=dataset.image, classes=10, channels=2, cells=1)
    feed = data.batches(dataset, 16, arch_steps=0)
    moves = lambda progress: optax.sgd(lambda t: 0.1 * (1 - progress(t)), momentum=0.9)
    evaluator = train_trials(net, moves, feed.draw, slots=9, budget=9, unit=4, mode="map")
    step = jax.jit(evaluator.step)
    archs = jax.vmap(NB201.sample)(jax.random.split(jax.random.key(1), 2))
    trial = lambda a, b: Trial(archs, jnp.arange(2), jnp.full(2, a, jnp.int32), jnp.full(2, b, jnp.int32))
    held = Batch(fixed=Held(feed.arrays, dataset.valid))

    def run(*cuts):
        state = evaluator.init(jax.random.key(0))
        for t, (a, b) in enumerate(itertools.pairwise(cuts)):
            state, metrics = step(jax.random.key(2 + t), state, trial(a, b), held)
        return state, {**metrics, "cost": 0}

    same_bits(run(0, 9), run(0, 1, 3, 9))
    search = black_box(hyperband(NB201, 9, batch=3), evaluator)
    state, trained = search.init(jax.random.key(4)), 0
    for t in range(4):
        state, info = jax.jit(search.step)(jax.random.key(20 + t), state, held)
        trained += float(np.sum(info.metrics["cost"]))
    assert trained == 9 + 3 * 2
    assert 0 < float(state.best_score) <= 1


# Proxy settings


def test_what_a_proxy_costs():
    full = Fidelity()
    assert relative_cost(full, full) == 1
    assert relative_cost(full._replace(epochs=12), full) == pytest.approx(0.06)
    assert relative_cost(full._replace(channels=8, resolution=16), full) == pytest.approx(1 / 16)
    assert relative_cost(full._replace(cells=1, data_fraction=0.25), full) == pytest.approx(1 / 20)


@pytest.mark.parametrize("field", Fidelity._fields)
def test_a_fidelity_above_the_maximum_is_refused(field):
    full = Fidelity()
    for value in (getattr(full, field) * 2, 0):
        with pytest.raises(ValueError, match=f"{field} of a proxy lies above 0 and at most"):
            relative_cost(full._replace(**{field: value}), full)


def test_a_setting_is_what_a_recipe_trains():
    dataset = data.load("digits", jax.random.key(0))
    made = setting(Fidelity(3, 0.5, 4, 1, 4), NB201, dataset, 32)
    n = len(dataset.train.y) // 2
    assert made.steps == 3 * (n // 32)
    assert made.dataset.train.x.shape == (n, 4, 4, 1) and made.dataset.valid.x.shape[1:] == (4, 4, 1) == made.net.image
    np.testing.assert_array_equal(made.dataset.train.y, dataset.train.y[:n])
    assert len(made.dataset.test.y) == len(dataset.test.y)
    boxes = np.asarray(dataset.test.x).reshape(-1, 4, 2, 4, 2).mean((2, 4))
    assert np.corrcoef(boxes.ravel(), np.ravel(made.dataset.test.x))[0, 1] > 0.97
    for wrong, message in ((dict(resolution=16), "resolution of a proxy"), (dict(data_fraction=1.5), "data_fraction of a proxy")):
        with pytest.raises(ValueError, match=message):
            setting(Fidelity(3, 0.5, 4, 1, 4)._replace(**wrong), NB201, dataset, 32)
    with pytest.raises(ValueError, match="less than a batch of 32"):
        setting(Fidelity(3, 0.01, 4, 1, 8), NB201, dataset, 32)


def test_the_score_of_several_batches_is_the_share_of_all_their_examples():
    logits, y = jnp.asarray([[[2.0, 1.0], [0.0, 1.0]], [[0.0, 3.0], [1.0, 0.0]]]), jnp.asarray([[0, 0], [1, 0]])
    assert float(batch_score(OF_CLASSES)(lambda x: x, (logits, y))["accuracy"]) == 0.75
