"""Black-box search on a table: the published benchmark's own numbers, and what must hold on any table."""

import functools

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import pytest
from scipy import stats
from searching import run, run_seeds

from jaxnas.ask_tell import aging_evolution, random_search
from jaxnas.base import Batch, black_box
from jaxnas.evaluate._table import rows, table
from jaxnas.spaces._darts import darts
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.spaces._space import space

SEEDS = 2_000  # with 500, some row of the sixteen lies beyond 3 standard errors for one root key in twenty-five
CIFAR10, CIFAR100 = 0, 1
BUDGETS = (100, 150, 500)
DATASETS = pytest.mark.parametrize("dataset", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])

TOY = space((np.asarray([3, 4, 2]),))  # 24 settings
TOY_VALUES = np.random.default_rng(0).permutation(24).astype(np.float32)


@functools.cache
def fixed(dataset):
    data = nb201_file.load()
    return rows(nasbench201(), data["ops"], {"accuracy": data["val_acc_12"][:, dataset]})


def final_accuracy(dataset, index):
    """float64, of cells given by `space.index`: looked up after the search, which never sees it."""
    data = nb201_file.load()
    return rows(nasbench201(), data["ops"], {"test": data["test_acc_200"][:, dataset]})["test"][np.asarray(index)]


ALGORITHMS = {
    "random": random_search(nasbench201()),
    "aging P10 S3": aging_evolution(nasbench201(), population=10, tournament=3),
    "aging P10 S10": aging_evolution(nasbench201(), population=10, tournament=10),
}
SEARCHES = {name: black_box(algorithm, table(nasbench201())) for name, algorithm in ALGORITHMS.items()}


@functools.cache
def searched(name, dataset):
    """float[SEEDS, steps]: the final test accuracy of the best cell by validation, after each training."""
    _, (best, _) = run_seeds(SEARCHES[name], max(BUDGETS), Batch(fixed=fixed(dataset)), SEEDS)
    index = jax.jit(jax.vmap(jax.vmap(nasbench201().index)))(best)
    return np.asarray(final_accuracy(dataset, index), np.float64)


# The file


@nb201_file.needs_file
def test_the_file_holds_the_published_table():
    data = nb201_file.load()
    assert data["ops"].shape == (15_625, 6)
    assert len(np.unique(data["ops"], axis=0)) == 15_625
    assert data["op_names"].tolist() == list(nasbench201().spec.ops)
    assert [(j, i - 1) for j, i in data["edges"].tolist()] == list(nasbench201().spec.edges)
    for dataset, best, row in ((CIFAR10, 94.3733, 6111), (CIFAR100, 73.5133, 9930)):
        test = nb201_file.column("test_acc_200", dataset)
        assert test.argmax() == row
        assert test.max() == pytest.approx(best, abs=5e-5)
    assert data["ops"][0].tolist() == [4, 2, 1, 2, 1, 1]
    assert data["test_acc_200"][0, CIFAR10] == pytest.approx(85.8633, abs=5e-5)
    assert data["params"][0, CIFAR10] == 129_306
    on = data["ops"] != 0  # a path from 0 to 3 by edges 0->1, 0->2, 1->2, 0->3, 1->3, 2->3
    one, two = on[:, 0], on[:, 1] | (on[:, 0] & on[:, 2])
    path = on[:, 3] | (one & on[:, 4]) | (two & on[:, 5])
    assert (~path).sum() == 341
    np.testing.assert_allclose(nb201_file.column("test_acc_200", CIFAR10)[~path], 10.0, atol=0.01)
    np.testing.assert_allclose(nb201_file.column("test_acc_200", CIFAR100)[~path], 1.0, atol=0.01)


@nb201_file.needs_file
def test_rows_reorders_the_official_order():
    data, s = nb201_file.load(), nasbench201()
    for row in (0, 1, 6111, 15_624):
        arch = s.unflat(jnp.asarray(data["ops"][row], jnp.int32))
        assert fixed(CIFAR10)["accuracy"][s.index(arch)] == data["val_acc_12"][row, CIFAR10]
    assert fixed(CIFAR10)["accuracy"].dtype == jnp.float32


# Reproduction


def random_search_exactly(dataset, n):
    """Mean and sd of the test accuracy of the best by validation of n uniform draws: an order statistic.

    The i-th best cell by validation wins with odds ((N - i) / N)^n - ((N - i - 1) / N)^n.
    """
    test = nb201_file.column("test_acc_200", dataset)[np.argsort(-nb201_file.column("val_acc_12", dataset), kind="stable")]
    left = np.arange(len(test), -1, -1) / len(test)  # share of cells not above the i-th
    odds = -np.diff(left**n)
    mean = odds @ test
    return mean, np.sqrt(odds @ (test - mean) ** 2)


EXACT = {  # the reference sheet
    (CIFAR10, 100): (93.730, 0.362),
    (CIFAR10, 150): (93.828, 0.283),
    (CIFAR10, 500): (93.999, 0.226),
    (CIFAR100, 100): (71.183, 1.024),
    (CIFAR100, 150): (71.455, 0.951),
    (CIFAR100, 500): (72.091, 0.766),
}

# (mean, sd, seeds behind it) of another implementation: 20,000 seeds where there are, else 500
REFERENCE = {
    ("aging P10 S3", CIFAR10, 100): (93.904, 0.45, 20_000),
    ("aging P10 S3", CIFAR10, 150): (94.041, 0.33, 20_000),
    ("aging P10 S3", CIFAR10, 500): (94.28, 0.18, 500),
    ("aging P10 S3", CIFAR100, 100): (71.838, 1.16, 20_000),
    ("aging P10 S3", CIFAR100, 150): (72.172, 0.95, 20_000),
    ("aging P10 S3", CIFAR100, 500): (72.70, 0.50, 500),
    ("aging P10 S10", CIFAR10, 100): (94.042, 0.38, 20_000),
    ("aging P10 S10", CIFAR10, 150): (94.127, 0.30, 20_000),
    ("aging P10 S10", CIFAR100, 100): (72.084, 1.11, 20_000),
    ("aging P10 S10", CIFAR100, 150): (72.265, 0.98, 20_000),
}


@nb201_file.needs_file
@pytest.mark.parametrize(("case", "published"), EXACT.items(), ids=str)
def test_random_search_in_closed_form(case, published):
    assert random_search_exactly(*case) == pytest.approx(published, abs=6e-4)


@nb201_file.needs_file
@pytest.mark.parametrize("trainings", BUDGETS)
@DATASETS
def test_random_search_reproduces_its_closed_form(dataset, trainings):
    mean, sd = random_search_exactly(dataset, trainings)
    found = searched("random", dataset)[:, trainings - 1]
    assert abs(found.mean() - mean) <= 3 * sd / np.sqrt(SEEDS)
    assert found.std() == pytest.approx(sd, rel=0.2)


@nb201_file.needs_file
@pytest.mark.parametrize(("algorithm", "dataset", "trainings"), REFERENCE, ids=str)
def test_aging_evolution_reproduces_the_reference(algorithm, dataset, trainings):
    mean, sd, n = REFERENCE[algorithm, dataset, trainings]
    found = searched(algorithm, dataset)[:, trainings - 1]
    assert abs(found.mean() - mean) <= 3 * sd * np.sqrt(1 / SEEDS + 1 / n)


@nb201_file.needs_file
@pytest.mark.parametrize("trainings", BUDGETS)
@DATASETS
def test_aging_evolution_beats_random_search_at_equal_cost(dataset, trainings):
    evolved, random = (searched(name, dataset)[:, trainings - 1] for name in ("aging P10 S3", "random"))
    assert stats.mannwhitneyu(evolved, random, alternative="greater").pvalue < 0.01


# Aging evolution, line by line


def toy_fixed(values=TOY_VALUES):
    every = np.stack(np.unravel_index(np.arange(24), TOY.arity), -1)
    return rows(TOY, every, {"accuracy": values})


def step_by_step(algorithm, score, steps, jit=jax.jit):
    """A plain loop over ask and tell; [(state before tell, archs, state after)]."""
    algorithm = algorithm._replace(init=jit(algorithm.init), ask=jit(algorithm.ask), tell=jit(algorithm.tell))
    k_init, key = jax.random.split(jax.random.key(0))
    state, history = algorithm.init(k_init), []
    for k in jax.random.split(key, steps):
        k_ask, k_tell = jax.random.split(k)
        state, archs = algorithm.ask(k_ask, state)
        after = algorithm.tell(k_tell, state, archs, score(archs))
        history.append((state, archs, after))
        state = after
    return history


def toy_score(archs):
    return jnp.asarray(TOY_VALUES)[jax.vmap(TOY.index)(archs)]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_member_leaves_after_exactly_as_many_tells_as_the_population(batch):
    population = 5  # 3 does not divide it: an ask that holds both the last of `init` and the first children
    unique = iter(range(10_000))

    def score(archs):
        return jnp.asarray([float(next(unique)) for _ in range(len(archs[0]))], jnp.float32)

    algorithm = aging_evolution(TOY, population, tournament=2, batch=batch)
    for t, (_, _, after) in enumerate(step_by_step(algorithm, score, 8)):
        told = (t + 1) * batch
        alive = {float(f) for f in after.fitness if np.isfinite(f)}
        assert alive == set(map(float, range(max(0, told - population), told)))  # not the worst dies: the oldest
        assert int(after.told) == told


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_first_come_the_random_architectures_then_mutants_of_members(batch):
    population = 5
    algorithm = aging_evolution(TOY, population, tournament=2, batch=batch)
    history = step_by_step(algorithm, toy_score, 6)
    drawn = np.asarray(jax.vmap(TOY.flat)(history[0][0].archs))
    asked = 0
    for before, archs, _ in history:
        members = np.asarray(jax.vmap(TOY.flat)(before.archs))
        for child in np.asarray(jax.vmap(TOY.flat)(archs)):
            if asked < population:
                np.testing.assert_array_equal(child, drawn[asked])
            else:
                assert ((members != child).sum(1) == 1).any()
            asked += 1


def test_the_tournament_is_drawn_with_replacement():
    """The fittest of P parents a child unless S draws all miss it: (1 - 1/P)^S, which is 0 without replacement and S = P."""
    P = S = 4
    algorithm = aging_evolution(TOY, P, S, mutate=lambda key, arch: arch)
    state = algorithm.init(jax.random.key(0))
    ring = jax.vmap(TOY.from_index)(jnp.arange(P))
    state = state._replace(archs=ring, fitness=jnp.asarray([1.0, 4.0, 2.0, 3.0], jnp.float32), told=jnp.asarray(P, jnp.int32))
    ask = jax.jit(jax.vmap(lambda key: algorithm.ask(key, state)[1]))
    parents = np.asarray(jax.vmap(TOY.index)(jax.tree.map(lambda a: a[:, 0], ask(jax.random.split(jax.random.key(1), 10_000)))))
    rank = np.asarray([3, 0, 2, 1])[parents]  # 0 the fittest
    odds = [((P - r) / P) ** S - ((P - r - 1) / P) ** S for r in range(P)]
    assert stats.chisquare(np.bincount(rank, minlength=P), np.asarray(odds) * 10_000).pvalue > 0.001


def test_a_tournament_of_one_with_fresh_mutants_is_random_search():
    s, n = TOY, 4_000
    algorithm = aging_evolution(s, 1, 1, mutate=lambda key, arch: s.sample(key))
    _, (_, score) = run_seeds(black_box(algorithm, table(s)), 6, Batch(fixed=toy_fixed()), seeds=n)
    ranks = 23 - np.asarray(score[:, -1]).astype(int)  # the toy's scores are 0 .. 23
    odds = ((24 - np.arange(24)) / 24) ** 6 - ((23 - np.arange(24)) / 24) ** 6
    observed, expected = np.bincount(ranks, minlength=24), odds * n
    cut = 12  # pool the rare ones
    observed, expected = (np.append(x[:cut], x[cut:].sum()) for x in (observed, expected))
    assert stats.chisquare(observed, expected).pvalue > 0.001


def test_a_plain_loop_outside_jit_gives_what_the_scan_gives():
    strategy = black_box(aging_evolution(TOY, population=4, tournament=2), table(TOY))
    batch = Batch(fixed=toy_fixed())
    scanned, _ = jax.jit(lambda key: run(strategy, key, 12, batch))(jax.random.key(3))
    k_init, k_steps = jax.random.split(jax.random.key(3))
    state = strategy.init(k_init)
    for t in range(12):
        state, _ = strategy.step(jax.random.fold_in(k_steps, t), state, batch)
    jax.tree.map(np.testing.assert_array_equal, state, scanned)


def test_a_python_loop_finds_the_optimum_outside_jit():
    algorithm = aging_evolution(TOY, population=6, tournament=3)
    history = step_by_step(algorithm, toy_score, 60, jit=lambda f: f)
    assert max(float(toy_score(archs)[0]) for _, archs, _ in history) == TOY_VALUES.max()


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("make", [random_search, functools.partial(aging_evolution, population=7, tournament=3)])
@pytest.mark.parametrize("s", [TOY, darts()], ids=["flat", "darts"])
def test_step_is_a_scan_body(make, batch, s):
    algorithm = make(s, batch=batch)
    state = algorithm.init(jax.random.key(0))
    asked, archs = jax.eval_shape(algorithm.ask, jax.random.key(1), state)
    told = jax.eval_shape(algorithm.tell, jax.random.key(2), asked, archs, jax.ShapeDtypeStruct((batch,), jnp.float32))
    kinds = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype, a.weak_type), jax.eval_shape(lambda x: x, tree))
    assert kinds(state) == kinds(told)
    assert not any(a.weak_type for a in jax.tree.leaves(told))
    assert all(a.shape[0] == batch and a.dtype == jnp.int32 for a in jax.tree.leaves(archs))


def test_seeds_as_one_program_equal_a_loop():
    strategy = black_box(aging_evolution(TOY, population=4, tournament=2, batch=2), table(TOY))
    batch = Batch(fixed=toy_fixed())
    _, (_, many) = run_seeds(strategy, 20, batch, seeds=4)
    alone = jax.jit(lambda key: run(strategy, key, 20, batch)[1][1])
    for i, key in enumerate(jax.random.split(jax.random.key(0), 4)):
        np.testing.assert_array_equal(many[i], alone(key))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(population=0), "`population` of aging_evolution must be a positive integer; got 0"),
        (dict(tournament=0), "`tournament` of aging_evolution must be a positive integer; got 0"),
        (dict(population=10, batch=11), "at most the population .10. a step; got batch=11"),
        (dict(batch=0), "must be a positive integer"),
    ],
)
def test_aging_evolution_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        aging_evolution(TOY, **arguments)


def test_random_search_refuses():
    with pytest.raises(ValueError, match="must be a positive integer"):
        random_search(TOY, batch=0)


# Candidates that diverge


TOY_SEARCHES = {
    "random": black_box(random_search(TOY), table(TOY)),
    "aging": black_box(aging_evolution(TOY, population=6, tournament=3), table(TOY)),
}


@pytest.mark.parametrize("name", TOY_SEARCHES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_candidate_never_wins_and_never_stops_the_search(name, bad):
    values = TOY_VALUES.copy()
    values[TOY_VALUES >= 12] = bad  # the whole better half
    state, (best, score) = run_seeds(TOY_SEARCHES[name], 150, Batch(fixed=toy_fixed(values)), seeds=20)
    score = np.asarray(score)
    assert not np.isnan(score).any()
    assert (score < np.inf).all()
    assert (score[:, -1] == 11).all()  # the best that has a score
    final = jax.tree.map(lambda a: a[:, -1], best)
    assert (TOY_VALUES[jax.vmap(TOY.index)(final)] == 11).all()
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(state.algorithm))


def test_black_box_tells_the_worst_finite_score():
    algorithm = aging_evolution(TOY, population=24, tournament=1)
    values = np.where(TOY_VALUES % 2 == 0, np.nan, TOY_VALUES - 30)  # negative: 0 would be better than all
    strategy = black_box(algorithm, table(TOY))
    k_init, k_steps = jax.random.split(jax.random.key(0))
    state, step, seen = strategy.init(k_init), jax.jit(strategy.step), []
    for t, key in enumerate(jax.random.split(k_steps, 24)):
        state, info = step(key, state, Batch(fixed=toy_fixed(values)))
        seen.append(float(info.scores[0]))
        finite = [x for x in seen if np.isfinite(x)]
        told = float(state.algorithm.fitness[t])
        assert told == (seen[-1] if np.isfinite(seen[-1]) else min(finite, default=0.0))
        assert float(info.best_score) == max(finite, default=-np.inf)
    assert 0 < len(finite) < 24


def test_a_search_survives_until_the_first_finite_score():
    strategy = black_box(aging_evolution(TOY, population=4, tournament=2), table(TOY))
    k_init, k_bad, k_good = jax.random.split(jax.random.key(0), 3)
    step = jax.jit(strategy.step)
    state = strategy.init(k_init)
    for key in jax.random.split(k_bad, 10):  # a table in which nothing has a score
        state, info = step(key, state, Batch(fixed=toy_fixed(np.full(24, np.nan))))
        assert float(info.best_score) == -np.inf
        assert np.isnan(info.scores).all()
    for key in jax.random.split(k_good, 60):
        state, info = step(key, state, Batch(fixed=toy_fixed()))
    assert float(info.best_score) == TOY_VALUES.max()
    assert TOY_VALUES[TOY.index(strategy.best(state))] == TOY_VALUES.max()


# The table


def test_a_missing_row_has_no_score():
    columns = rows(TOY, np.asarray([[0, 0, 1], [2, 3, 1]]), {"accuracy": [5, 7], "size": np.asarray([1.0, 2.0])})
    assert set(columns) == {"accuracy", "size"}
    assert all(c.shape == (24,) and c.dtype == jnp.float32 for c in columns.values())
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(columns["accuracy"])), [1, 23])
    assert columns["accuracy"][23] == 7
    assert columns["size"][1] == 1
    _, (_, score) = run_seeds(black_box(random_search(TOY, batch=4), table(TOY)), 50, Batch(fixed=columns), seeds=3)
    assert (np.asarray(score)[:, -1] == 7).all()


def test_every_column_is_a_metric():
    columns = toy_fixed() | {"cost": -toy_fixed()["accuracy"]}
    evaluator = table(TOY)
    archs = jax.vmap(TOY.from_index)(jnp.asarray([3, 0, 3]))
    state, metrics = evaluator.step(jax.random.key(1), evaluator.init(jax.random.key(0)), archs, Batch(fixed=columns))
    assert state == ()
    np.testing.assert_array_equal(metrics["accuracy"], TOY_VALUES[[3, 0, 3]])
    np.testing.assert_array_equal(metrics["cost"], -TOY_VALUES[[3, 0, 3]])


def test_a_table_of_a_conditional_space_ignores_what_is_off():
    when = np.asarray([[True, True], [False, True]])
    s = space((2, 2), parent=[-1, 0], when=when)
    columns = rows(s, np.asarray([[0, 1], [1, 0], [1, 1]]), {"accuracy": [1, 2, 3]})  # [0, 1] is [0, 0]
    np.testing.assert_array_equal(columns["accuracy"], [1, np.nan, 2, 3])
    with pytest.raises(ValueError, match="rows 0 and 1 are the same architecture"):
        rows(s, np.asarray([[0, 1], [0, 0]]), {"accuracy": [1, 2]})


@pytest.mark.parametrize(
    ("archs", "values", "message"),
    [
        ([[0, 0, 0], [1, 0, 0], [0, 0, 0]], [1, 2, 3], "rows 0 and 2 are the same architecture"),
        ([[0, 0, 0], [0, 4, 0]], [1, 2], "row 1 is not in the space"),
        ([[0, 0, -1]], [1], "row 0 is not in the space"),
        ([[0, 0, 0]], [1, 2], "column 'accuracy' has shape .2.; the table has 1 rows"),
        ([[0, 0]], [1], "integers .N, 3."),
        ([[0.5, 0, 0]], [1], "integers .N, 3."),
        ([0, 0, 0], [1], "integers .N, 3."),
    ],
)
def test_rows_refuses(archs, values, message):
    with pytest.raises(ValueError, match=message):
        rows(TOY, np.asarray(archs), {"accuracy": values})


def test_a_table_needs_an_index_and_a_batch_that_holds_it():
    with pytest.raises(ValueError, match="fewer than 2\\*\\*31"):
        table(darts())
    with pytest.raises(ValueError, match="fewer than 2\\*\\*31"):
        table(space((np.full(31, 2),)))  # exactly so many
    with pytest.raises(ValueError, match="fewer than 2\\*\\*31"):
        rows(darts(), np.zeros((1, 24), int), {})
    evaluator = table(TOY)
    with pytest.raises(ValueError, match=r"batch\.fixed"):
        evaluator.step(jax.random.key(0), (), jax.vmap(TOY.from_index)(jnp.arange(2)), Batch())
