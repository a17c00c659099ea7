"""The genetic algorithm and tournament evolution: their rules one by one, against random search, and under noise."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import pytest
from scipy import stats
from searching import run, run_seeds

from jaxnas.ask_tell._aging_evolution import aging_evolution, tournament_evolution
from jaxnas.ask_tell._genetic import genetic
from jaxnas.base import Batch, black_box, stateless
from jaxnas.evaluate._table import rows, table
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.spaces._space import space
from jaxnas.spaces.real import Real

CIFAR10, CIFAR100 = 0, 1
DATASETS = pytest.mark.parametrize("dataset", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])

TOY = space((np.asarray([3, 4, 2]),))  # 24 settings
WORTH = np.random.default_rng(0).permutation(24).astype(np.float32)  # of each, all different


def worth(archs):
    return jnp.asarray(WORTH)[jax.vmap(TOY.index)(archs)]


@functools.cache
def jitted(algorithm):
    return [jax.jit(f) for f in (algorithm.init, algorithm.ask, algorithm.tell)]


def history(algorithm, steps, score=worth):
    """A plain loop over ask and tell: [(state before tell, candidates by index, scores, state after)]."""
    init, ask, tell = jitted(algorithm)
    k_init, key = jax.random.split(jax.random.key(0))
    state, out = init(k_init), []
    for k in jax.random.split(key, steps):
        k_ask, k_tell = jax.random.split(k)
        state, archs = ask(k_ask, state)
        scores = score(archs)
        after = tell(k_tell, state, archs, scores)
        out.append((state, np.asarray(jax.vmap(TOY.index)(archs)), np.asarray(scores), after))
        state = after
    return out


def digits(index):
    return np.stack(np.unravel_index(index, TOY.arity), -1)


def members(state):
    """The indices of the population, without the places that nobody has taken."""
    index = np.asarray(jax.vmap(TOY.index)(state.archs))
    return index[np.isfinite(state.fitness)]


# On the real table


@functools.cache
def columns(name, dataset):
    data = nb201_file.load()
    return rows(nasbench201(), data["ops"], {"accuracy": data[name][:, dataset]})


SEEDS = 200
SEARCHES = {  # candidates a step, and the search
    "genetic": (20, black_box(genetic(nasbench201(), population=20), table(nasbench201()))),
    "tournament": (1, black_box(tournament_evolution(nasbench201(), population=10, tournament=3), table(nasbench201()))),
}


@functools.cache
def searched(name, dataset):
    """int[SEEDS, steps]: the index of the best cell by validation after each step."""
    B, strategy = SEARCHES[name]
    _, (best, _) = run_seeds(strategy, 500 // B, Batch(fixed=columns("val_acc_12", dataset)), SEEDS)
    return np.asarray(jax.jit(jax.vmap(jax.vmap(nasbench201().index)))(best))


@nb201_file.needs_file
@pytest.mark.parametrize("trainings", [100, 500])
@pytest.mark.parametrize("name", SEARCHES)
@DATASETS
def test_beats_random_search_at_equal_cost(name, dataset, trainings):
    seen, test = (np.asarray(columns(c, dataset)["accuracy"]) for c in ("val_acc_12", "test_acc_200"))
    drawn = np.random.default_rng(0).integers(len(seen), size=(SEEDS, trainings))
    random = drawn[np.arange(SEEDS), seen[drawn].argmax(1)]
    found = searched(name, dataset)[:, trainings // SEARCHES[name][0] - 1]
    assert stats.mannwhitneyu(test[found], test[random], alternative="greater").pvalue < 1e-3


# The genetic algorithm, line by line


@pytest.mark.parametrize(("batch", "mutation"), [(1, 1.0), (3, 0.3), (9, 1.0)])
def test_survivors_are_the_best_that_were_ever_told(batch, mutation):
    """Where a score has no noise, (P + B) survival keeps the best P of all that was told, each architecture once."""
    told = set()
    for _, asked, _, after in history(genetic(TOY, population=5, batch=batch, mutation=mutation), 30 // batch):
        told |= set(asked.tolist())
        best = sorted(told, key=lambda i: -WORTH[i])[:5]
        assert members(after).tolist() == best
        np.testing.assert_array_equal(after.fitness[: len(best)], WORTH[best])
    assert int(after.told) == 30 // batch * batch


def test_of_equal_architectures_the_last_told_survives():
    init, _, tell_jit = jitted(genetic(TOY, population=3, batch=2))

    def tell(state, index, scores):
        archs = jax.vmap(TOY.from_index)(jnp.asarray(index))
        return tell_jit(jax.random.key(1), state, archs, jnp.asarray(scores, jnp.float32))

    state = tell(tell(init(jax.random.key(0)), [7, 8], [9.0, 5.0]), [9, 10], [4.0, 3.0])
    assert members(state).tolist() == [7, 8, 9]
    state = tell(state, [7, 11], [1.0, 2.0])  # 7 was lucky
    assert members(state).tolist() == [8, 9, 11]
    state = tell(state, [8, 11], [2.0, 6.0])
    assert members(state).tolist() == [11, 9, 8]
    np.testing.assert_array_equal(state.fitness, [6, 4, 2])


def test_the_first_are_random_and_then_come_children():
    zero = TOY.from_index(jnp.asarray(0))
    algorithm = genetic(TOY, population=5, batch=3, mutate=lambda key, arch: zero)
    asked = np.stack([asked for _, asked, _, _ in history(algorithm, 8)])
    assert asked.shape == (8, 3)
    assert (asked[:2] != 0).sum() > 3  # all of the second batch, though the population has 5 places
    assert (asked[2:] == 0).all()


def bred(population=range(24), n=20_000, **settings):
    """int[n]: children, by index, of a population given by index, the fittest first, with room for 24."""
    algorithm = genetic(TOY, population=24, batch=1, **settings)
    index = jnp.asarray([*population, *[0] * 24][:24])
    state = algorithm.init(jax.random.key(0))._replace(
        archs=jax.vmap(TOY.from_index)(index),
        fitness=jnp.where(jnp.arange(24) < len(population), -jnp.arange(24.0), -jnp.inf),
        told=jnp.asarray(24, jnp.int32),
    )
    ask = jax.jit(jax.vmap(lambda key: TOY.index(jax.tree.map(lambda a: a[0], algorithm.ask(key, state)[1]))))
    return np.asarray(ask(jax.random.split(jax.random.key(1), n)))


same = lambda key, arch: arch


def tournament_odds(P, S):
    """Of being the fittest of S draws with replacement, best first."""
    r = np.arange(P)
    return ((P - r) / P) ** S - ((P - r - 1) / P) ** S


def pooled(counts, n):
    """The first n, and the sum of the rare others."""
    return np.append(counts[:n], counts[n:].sum())


def test_a_parent_is_the_fittest_of_a_tournament():
    parents = bred(tournament=3, crossover=0.0, mutate=same)
    observed, expected = (pooled(x, 20) for x in (np.bincount(parents, minlength=24), tournament_odds(24, 3) * len(parents)))
    assert stats.chisquare(observed, expected).pvalue > 0.001


def test_children_take_every_decision_from_one_of_two_parents():
    """Of 0 and 23, which differ in all three decisions, the second is a parent with odds of 1/4."""
    children = digits(bred([0, 23], crossover=0.6, mutate=same))
    assert ((children == 0) | (children == digits(23))).all()
    both = 0.6 * 2 * 3 / 4 * 1 / 4  # the odds of two different parents
    odds = np.full(8, both / 8)
    odds[[0, 7]] += 0.4 * np.asarray([3 / 4, 1 / 4]) + 0.6 * np.asarray([3 / 4, 1 / 4]) ** 2
    observed = np.bincount((children != 0) @ np.asarray([1, 2, 4]), minlength=8)
    assert stats.chisquare(observed, odds * len(children)).pvalue > 0.001


def test_mutation_changes_one_thing_with_its_odds():
    children = bred(tournament=200, crossover=0.0, mutation=0.3)  # of the parent 0, but for odds of (23/24)^200 = 2e-4
    changes = np.bincount(np.count_nonzero(digits(children), axis=1), minlength=4)
    assert changes[2:].sum() < 20
    assert abs(changes[1] / len(children) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(children))


class Net(NamedTuple):
    depth: jax.Array
    width: jax.Array


REALS = space(reals=(Real(np.full(6, -5.0), np.full(6, 5.0)), Real(1e-4, 1.0, log=True)))
MIXED = space(  # a depth, the width of each layer that there is, and three reals
    Net(depth=4, width=np.full(4, 6)),
    reals=Real(np.full(3, -1.0), np.full(3, 1.0)),
    parent=[-1, 0, 0, 0, 0],
    when=np.vstack([np.ones((1, 6), bool), np.tri(6, 4, dtype=bool).T]),
)


def near(s, arch):
    """A score in which every decision that is on and every real has its part."""
    decisions = jnp.where(s.active(arch), s.flat(arch) / jnp.maximum(s.arity - 1, 1), 0.0)
    return jnp.sum(decisions) - jnp.sum((s.unit(arch) - 0.37) ** 2)


@pytest.mark.parametrize("s", [REALS, MIXED], ids=["reals", "mixed"])
def test_beats_random_search_on_reals_and_conditional_decisions(s):
    evaluator = stateless(lambda key, archs, batch: {"accuracy": jax.vmap(lambda a: near(s, a))(archs)})
    found = run_seeds(black_box(genetic(s, population=20), evaluator), 15, seeds=40)[1][1][:, -1]
    drawn = jax.jit(jax.vmap(lambda key: near(s, s.sample(key))))(jax.random.split(jax.random.key(1), 40 * 300))
    assert stats.mannwhitneyu(found, drawn.reshape(40, 300).max(1), alternative="greater").pvalue < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(population=0), "`population` of genetic must be a positive integer; got 0"),
        (dict(population=25), "got population=25"),
        (dict(population=5, tournament=0), "`tournament` of genetic must be a positive integer; got 0"),
        (dict(population=5, batch=0), "`batch` of genetic must be a positive integer or None; got 0"),
        (dict(population=5, crossover=1.1), r"`crossover` of genetic must be a probability, from 0 to 1; got 1\.1"),
        (dict(population=5, crossover=0.0, mutation=0.0), "got crossover=0.0, mutation=0.0"),
    ],
)
def test_genetic_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        genetic(TOY, **arguments)


# Tournament evolution


def test_the_worst_of_the_tournament_dies():
    P, S = 6, 3
    algorithm = tournament_evolution(TOY, P, S, mutate=same)
    state = algorithm.init(jax.random.key(0))._replace(
        archs=jax.vmap(TOY.from_index)(jnp.arange(P)),
        fitness=jnp.asarray([6, 5, 4, 3, 2, 1], jnp.float32),
        told=jnp.asarray(P, jnp.int32),
    )

    def one(key):
        asked, archs = algorithm.ask(key, state)
        after = algorithm.tell(key, asked, archs, jnp.asarray([-1.0], jnp.float32))
        return TOY.index(jax.tree.map(lambda a: a[0], archs)), after

    parent, after = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 20_000))
    dead = np.asarray(after.fitness) == -1  # the child's score, be it as low as it may
    assert (dead.sum(1) == 1).all()
    dead = dead.argmax(1)
    odds = tournament_odds(P, S)
    assert stats.chisquare(np.bincount(parent, minlength=P), odds * len(dead)).pvalue > 0.001
    assert stats.chisquare(np.bincount(dead, minlength=P), odds[::-1] * len(dead)).pvalue > 0.001
    assert (dead >= parent).all()  # of one and the same tournament
    assert (np.asarray(jax.vmap(jax.vmap(TOY.index))(after.archs))[np.arange(len(dead)), dead] == parent).all()


@functools.cache
def of_four(make):
    return make(TOY, population=4, tournament=10)


@pytest.mark.parametrize("make", [aging_evolution, tournament_evolution])
def test_a_lucky_member_stays_where_the_worst_dies(make):
    """The one score of 100 is the third told: under aging it is gone after P = 4 more, else it stays (as it would not
    if all S draws were it)."""
    told = iter([1.0, 2.0, 100.0, *range(3, 60)])
    steps = history(of_four(make), 60, lambda archs: jnp.asarray([next(told)], jnp.float32))
    lucky = [float(after.fitness.max()) == 100 for *_, after in steps]
    assert lucky[2:6] == [True] * 4
    assert lucky[6:] == [make is tournament_evolution] * 54


@pytest.mark.parametrize("make", [aging_evolution, tournament_evolution])
def test_first_come_the_random_architectures_then_mutants_of_members(make):
    steps = history(of_four(make), 30)
    drawn = np.asarray(jax.vmap(TOY.index)(steps[0][0].archs))
    assert [int(asked[0]) for _, asked, _, _ in steps[:4]] == drawn.tolist()
    for before, asked, _, _ in steps[4:]:
        assert len(members(before)) == 4
        assert ((digits(members(before)) != digits(asked)).sum(1) == 1).any()


@pytest.mark.parametrize("make", [aging_evolution, tournament_evolution])
def test_a_tournament_of_one_with_fresh_mutants_is_random_search(make):
    n, seeds = 8, 4_000
    strategy = black_box(make(TOY, population=3, tournament=1, mutate=lambda key, arch: TOY.sample(key)), table(TOY))
    fixed = rows(TOY, digits(np.arange(24)), {"accuracy": WORTH})
    ranks = 23 - np.asarray(run_seeds(strategy, n, Batch(fixed=fixed), seeds)[1][1][:, -1]).astype(int)
    observed, expected = (pooled(x, 9) for x in (np.bincount(ranks, minlength=24), tournament_odds(24, n) * seeds))
    assert stats.chisquare(observed, expected).pvalue > 0.001


def noisy_bits(D, sigma):
    """The paper's toy: D bits, worth the share of ones, seen through Gaussian noise; one bit flips."""
    s = space(np.full(D, 2))
    flip = lambda key, v: v ^ (jnp.arange(D) == jax.random.randint(key, (), 0, D))
    ones = lambda archs: jnp.mean(archs.astype(jnp.float32), -1)
    see = lambda key, archs, batch: {"accuracy": ones(archs) + sigma * jax.random.normal(key, archs.shape[:1])}
    return s, flip, stateless(see), ones


def test_aging_pays_where_the_evaluation_is_noisy():
    """Noise of 1 %, which is what 2.6 of the 256 bits are worth."""
    s, flip, evaluator, ones = noisy_bits(256, 0.01)
    aging, not_aging = (
        ones(run_seeds(black_box(make(s, population=100, tournament=25, mutate=flip), evaluator), 2_000, seeds=40)[0].best)
        for make in (aging_evolution, tournament_evolution)
    )
    assert stats.mannwhitneyu(aging, not_aging, alternative="greater").pvalue < 1e-3


# Both

TOY_SEARCHES = {
    "genetic": black_box(genetic(TOY, population=6, batch=2), table(TOY)),
    "tournament": black_box(tournament_evolution(TOY, population=6, tournament=2), table(TOY)),
}


def toy_batch(values):
    return Batch(fixed=rows(TOY, digits(np.arange(24)), {"accuracy": values}))


@pytest.mark.parametrize("name", TOY_SEARCHES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_candidate_never_wins_and_never_stops_the_search(name, bad):
    batch = toy_batch(np.where(WORTH >= 12, bad, WORTH))  # the better half
    state, (best, score) = run_seeds(TOY_SEARCHES[name], 150, batch)
    assert (score <= 11).all()
    assert (score[:, -1] == 11).sum() >= 18  # the worst of a tournament dies: a population may come to stand on 10
    assert (WORTH[jax.vmap(TOY.index)(jax.tree.map(lambda a: a[:, -1], best))] == score[:, -1]).all()
    assert not np.isnan(state.algorithm.fitness).any()


@pytest.mark.parametrize("name", TOY_SEARCHES)
def test_seeds_as_one_program_equal_a_loop(name):
    strategy, batch = TOY_SEARCHES[name], toy_batch(WORTH)
    many = run_seeds(strategy, 150, batch)
    alone = jax.jit(lambda key: run(strategy, key, 150, batch))
    for i, key in enumerate(jax.random.split(jax.random.key(0), 20)[:4]):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda a: a[i], many), alone(key))


@pytest.mark.parametrize("make", [genetic, functools.partial(genetic, batch=3), tournament_evolution])
@pytest.mark.parametrize("s", [TOY, MIXED], ids=["decisions", "mixed"])
def test_step_is_a_scan_body(make, s):
    algorithm = make(s, population=7)
    state = algorithm.init(jax.random.key(0))
    asked, archs = jax.eval_shape(algorithm.ask, jax.random.key(1), state)
    scores = jax.ShapeDtypeStruct(jax.tree.leaves(archs)[0].shape[:1], jnp.float32)
    told = jax.eval_shape(algorithm.tell, jax.random.key(2), asked, archs, scores)
    kinds = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype, a.weak_type), jax.eval_shape(lambda x: x, tree))
    assert kinds(state) == kinds(told)
    assert not any(a.weak_type for a in jax.tree.leaves(told))
