"""Ridge against dense formulas, trees against scikit-learn, and how far to trust either."""

import functools

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import pytest
from quick import jit
from scipy import stats
from searching import TOY, run_seeds

from jaxnas import evaluate
from jaxnas.ask_tell._bayesian import bayesian, random_draws
from jaxnas.ask_tell._random_search import random_search
from jaxnas.base import Batch, black_box
from jaxnas.evaluate._surrogate import surrogate
from jaxnas.evaluate._table import rows
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.surrogates._ridge import ridge
from jaxnas.surrogates.acquisition import thompson, upper_confidence_bound
from jaxnas.surrogates.kernels import path_encoding
from jaxnas.surrogates.surrogate import Surrogate
from jaxnas.surrogates.trees import boosted_trees, forest
from jaxnas.surrogates.validate import cross_validated, fitted, predicted

N, TOLD, F, C = 40, 25, 6, 9
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, F)).astype(np.float32)
Y = (X @ RNG.normal(size=F) + 0.3 * RNG.normal(size=N)).astype(np.float32)
NEW = RNG.normal(size=(C, F)).astype(np.float32)
MASK = np.arange(N) % 8 < 5
GRID = (0.003, 0.1, 30.0)


@functools.cache
def ridge_fit(penalty, garbled=False):
    """The fitted model, and what it says of NEW; what was not told may be anything."""
    model = ridge(lambda x: x, penalty)
    x, y = (np.where(MASK[:, None], X, 7), np.where(MASK, Y, 99)) if garbled else (X, Y)

    @jit
    def both(x, y, new):
        state = model.fit(jax.random.key(0), model.init(jax.random.key(1), x), x, y, MASK)
        draws = jax.vmap(lambda k: model.draw(k, state, new))(jax.random.split(jax.random.key(2), 4000))
        return state, model.predict(state, new), draws

    return jax.tree.map(np.asarray, both(x, y, NEW))


def dense(v):
    """(mean [C], covariance [C, C], log likelihood) of y = m + X w + e through its N x N covariance, in float64."""
    x, y, new = (np.asarray(a, np.float64) for a in (X[MASK], Y[MASK], NEW))
    center, m, n = x.mean(0), y.mean(), MASK.sum()
    x, new, y = x - center, new - center, y - m
    k = x @ x.T + v * np.eye(n)
    s2 = y @ np.linalg.solve(k, y) / n
    mean = m + new @ x.T @ np.linalg.solve(k, y)
    covariance = s2 * (new @ new.T - new @ x.T @ np.linalg.solve(k, x @ new.T) + v / n)
    return mean, covariance, stats.multivariate_normal(np.zeros(n), s2 * k).logpdf(y)


def predictions(model, x, y, mask, new):
    key, k_init = jax.random.split(jax.random.key(0))
    return jit(lambda x, y, mask, new: model.predict(model.fit(key, model.init(k_init, x), x, y, mask), new))(x, y, mask, new)


@pytest.mark.parametrize("v", GRID)
def test_ridge_is_the_gaussian_process_of_its_kernel(v):
    state, (mean, std), draws = ridge_fit(v)
    want, covariance, likelihood = dense(v)
    np.testing.assert_allclose(mean, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std, np.sqrt(np.diag(covariance)), rtol=1e-4)
    np.testing.assert_allclose(state.log_likelihood, likelihood, rtol=1e-4)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.1 * covariance.max())
    assert np.abs(draws.mean(0) - want).max() < 5 * std.max() / np.sqrt(4000)


def test_ridge_takes_the_likeliest_penalty():
    likeliest = GRID[int(np.argmax([dense(v)[2] for v in GRID]))]
    assert ridge_fit(GRID)[0].penalty == np.float32(likeliest) and likeliest not in (GRID[0], GRID[-1])


def test_ridge_does_not_look_at_what_was_not_told():
    jax.tree.map(np.testing.assert_array_equal, ridge_fit(GRID), ridge_fit(GRID, garbled=True))


def test_ridge_without_scores_is_finite():
    model = ridge(lambda x: x)
    nothing = X, np.zeros(N, np.float32), np.zeros(N, bool), NEW
    assert all(np.isfinite(a).all() for a in predictions(model, *nothing))


# Trees


def test_boosted_trees_predict_what_scikit_learn_predicts():
    from sklearn.ensemble import GradientBoostingRegressor

    bits = np.asarray(jax.random.bits(jax.random.split(jax.random.key(0))[0], (4,)))
    seed = int(np.random.default_rng(bits).integers(2**31))  # it breaks ties between splits
    model = boosted_trees(lambda x: x, members=1, trees=30, depth=2, rate=0.2)
    mean, std = predictions(model, X, Y, MASK, NEW)
    truth = GradientBoostingRegressor(n_estimators=30, max_depth=2, learning_rate=0.2, random_state=seed)
    truth.fit(X[MASK], Y[MASK].astype(float))
    np.testing.assert_allclose(mean, truth.predict(NEW), rtol=1e-5, atol=1e-6)
    assert (np.asarray(std) == 0).all()


def test_a_threshold_between_two_neighbouring_floats_parts_them():
    """In float32 the middle of some neighbours is the upper one: it must not go down with the lower."""
    x = np.float32(4) + np.float32(2**-21) * np.arange(8, dtype=np.float32)[:, None]  # successive floats
    y = (np.arange(8) % 2).astype(np.float32)
    model = boosted_trees(lambda x: x, members=1, trees=1, depth=8, rate=1.0)
    mean, _ = predictions(model, x, y, np.ones(8, bool), x)
    np.testing.assert_allclose(mean, y, atol=1e-6)


def test_a_forest_is_the_mean_of_full_trees():
    """One tree on a bootstrap of the data: each prediction is a mean of scores told; many trees disagree away from the data."""
    one, _ = predictions(forest(lambda x: x, trees=1), X, Y, MASK, X)
    np.testing.assert_allclose(np.asarray(one)[MASK], Y[MASK], rtol=1e-6)  # a single tree sees everything
    mean, std = predictions(forest(lambda x: x, trees=40), X, Y, MASK, 3 * NEW)
    assert (np.asarray(std) > 0).all() and mean.min() > Y[MASK].min() and mean.max() < Y[MASK].max()


def test_trees_of_several_seeds_are_those_of_each():
    model = forest(lambda x: x, trees=3)
    blank = model.init(jax.random.key(1), X)
    keys = jax.random.split(jax.random.key(0), 3)
    fit = lambda key: model.predict(model.fit(key, blank, X, Y, MASK), NEW)[0]
    many = jit(jax.vmap(fit))(keys)
    np.testing.assert_allclose(many, np.stack([fit(k) for k in keys]), rtol=1e-6)
    assert len(np.unique(np.asarray(many)[:, 0])) == 3


def test_trees_refuse_a_mesh():
    model = forest(lambda x: x, trees=1)
    with (
        jax.set_mesh(jax.make_mesh((2,), ("seed",), axis_types=(jax.sharding.AxisType.Auto,))),
        pytest.raises(ValueError, match="no mesh"),
    ):
        jit(model.fit)(jax.random.key(0), None, X, Y, MASK)


# In a search


SCORE = TOY.features  # decision values that count 1 to 9, additive
WORTH = np.arange(1.0, 10.0, dtype=np.float32)


def additive(key, archs, batch):
    del key, batch
    return {"accuracy": jax.vmap(SCORE)(archs) @ WORTH}


def found_by(model, acquisition):
    """The scores of the answers of six searches of 16 of the 24 settings; the optimum is 19."""
    algorithm = bayesian(TOY, model, acquisition, random_draws(TOY, 40), capacity=16, initial=6)
    _, (_, score) = run_seeds(black_box(algorithm, evaluate.table(TOY)), 16, Batch(fixed=toy_table()), seeds=6, jit=jit)
    return np.asarray(score)[:, -1]


def test_a_search_with_ridge_finds_the_optimum_of_a_sum():
    assert (found_by(ridge(TOY.features, (0.1, 1.0)), thompson()) == 19).all()  # of random searches, two thirds


@pytest.mark.slow
def test_a_search_with_trees_finds_the_optimum_of_a_sum():
    assert (found_by(boosted_trees(TOY.features, members=5, trees=20), upper_confidence_bound()) == 19).all()


@functools.cache
def toy_table():
    every = np.stack(np.unravel_index(np.arange(24), TOY.arity), -1)
    hot = np.asarray(jax.vmap(lambda v: SCORE(TOY.unflat(v)))(every.astype(np.int32)))
    return rows(TOY, every, {"accuracy": hot @ WORTH})


def test_a_fitted_surrogate_is_an_evaluator():
    model = ridge(TOY.features, 1e-3)
    archs = jax.vmap(TOY.from_index)(jnp.arange(0, 24, 2))
    known = jit(lambda key, archs: fitted(key, model, archs, additive(None, archs, None)["accuracy"]))(jax.random.key(0), archs)
    every = jax.vmap(TOY.from_index)(jnp.arange(24))
    _, metrics = jit(surrogate(model).step)(jax.random.key(1), (), every, Batch(fixed=known))
    seen = np.arange(24) % 2 == 0
    np.testing.assert_allclose(metrics["accuracy"][seen], additive(None, every, None)["accuracy"][seen], atol=0.02)  # in their unit
    assert (metrics["std"] >= 0).all() and metrics["std"].shape == (24,)
    search = black_box(random_search(TOY, batch=8), surrogate(model))
    _, info = jit(search.step)(jax.random.key(2), search.init(jax.random.key(3)), Batch(fixed=known))
    assert info.best_score == info.metrics["accuracy"].max()
    with pytest.raises(ValueError, match=r"batch\.fixed"):
        surrogate(model).step(jax.random.key(1), (), every, Batch())


# Cross-validation


def test_no_architecture_is_predicted_by_a_fit_that_saw_it():
    """A surrogate that knows by heart what it was told, and nothing else: out of fold it can only say the mean."""
    learn = lambda key, model, archs, y, mask: jnp.where(mask, y, 0)
    parrot = Surrogate(lambda key, archs: jnp.zeros(N), learn, lambda model, archs: (model, jnp.ones(N)))
    found = cross_validated(jax.random.key(0), parrot, X, Y, folds=4)
    means = np.unique(found.mean.round(5))
    assert len(means) == 4 and np.abs(4 * Y.mean() - means.sum()) < 1e-4  # each fold's: the mean of the three others
    assert abs(found.ranking.spearman.value) < 0.7  # not of what it knows by heart, which is 1


def test_folds_rank_what_can_be_learnt():
    found = cross_validated(jax.random.key(0), ridge(lambda x: x), X, Y)
    assert found.ranking.spearman.value > 0.9 and found.ranking.count == N
    np.testing.assert_allclose(found.ranking.spearman.value, stats.spearmanr(found.mean, Y).statistic)
    assert (found.std > 0).all()
    noise = cross_validated(jax.random.key(0), ridge(lambda x: x), X, np.random.default_rng(5).normal(size=N))
    assert noise.ranking.spearman.value < 0.4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ridge(lambda x: x, 0.0), "positive number"),
        (lambda: ridge(lambda x: x, ()), "positive number"),
        (lambda: boosted_trees(lambda x: x, trees=0), "`trees` of boosted_trees must be a positive integer; got 0"),
        (lambda: forest(lambda x: x, share=0.0), r"`share` of forest must be a share, above 0 and at most 1; got 0\.0"),
        (lambda: cross_validated(jax.random.key(0), ridge(lambda x: x), X, Y, folds=1), "2 to 40 folds"),
        (
            lambda: cross_validated(jax.random.key(0), ridge(lambda x: x), X, Y[:3]),
            r"`archs` must be a pytree of arrays with 3 rows each; got an array float32\[40, 6\]",
        ),
        (lambda: cross_validated(jax.random.key(0), ridge(lambda x: x), X, np.where(Y > 1, np.nan, Y)), "is not finite"),
    ],
)
def test_bad_input_gets_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


# The real table


@functools.cache
def cells():
    space, data = nasbench201(), nb201_file.load()
    return jax.vmap(space.unflat)(jnp.asarray(data["ops"], jnp.int32)), nb201_file.column("val_acc_12", 0)


def correlations(make, encode, seeds):
    """Spearman's rho on 2,000 cells, after 200 others, for each seed."""
    model, (every, y) = make(encode(nasbench201())), cells()
    run = jit(lambda key, archs, y, others: predicted(model, fitted(key, model, archs, y), others)[0])
    out = []
    for seed in range(seeds):
        at = np.random.default_rng(seed).permutation(len(y))[:2200]
        archs, others = (jax.tree.map(lambda a, r=r: a[r], every) for r in (at[:200], at[200:]))
        out.append(stats.spearmanr(run(jax.random.key(seed), archs, y[at[:200]], others), y[at[200:]]).statistic)
    return np.asarray(out)


@nb201_file.needs_file
@pytest.mark.slow
def test_paths_predict_better_than_operations_for_ridge():
    paths, operations = (correlations(ridge, e, 3).mean() for e in (path_encoding, lambda space: space.features))
    assert paths > operations + 0.03, (paths, operations)


@nb201_file.needs_file
@pytest.mark.slow
def test_a_forest_reaches_the_sheet():
    """The sheet, ten seeds of a forest of 200 trees that sees all features: .760 +- .024 on paths, .689 +- .034 on operations."""
    sheet = functools.partial(forest, share=1.0)
    paths, operations = (correlations(sheet, e, 10) for e in (path_encoding, lambda space: space.features))
    assert abs(paths.mean() - 0.760) < 3 * 0.024 / np.sqrt(10), paths
    assert abs(operations.mean() - 0.689) < 3 * 0.034 / np.sqrt(10), operations


@nb201_file.needs_file
@pytest.mark.slow
@pytest.mark.parametrize("make", [forest, boosted_trees], ids=["forest", "boosted"])
def test_paths_predict_better_than_operations_for_trees(make):
    paths, operations = (correlations(make, e, 10).mean() for e in (path_encoding, lambda space: space.features))
    assert paths > operations + 0.03 and paths > 0.72, (paths, operations)
