"""Learning curves: power laws, sums by hand, and the real curves of NAS-Bench-NLP."""

import functools

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from jaxnas.analysis import learning_curves

NLP = nb201_file.PATH.with_name("nas_bench_nlp_wikitext2.npz")
KEY = functools.partial(jax.random.key, 0)


def power_laws(seed, n, epochs=40, noise=0.005):
    """a - b t^-c and noise: n curves that cross."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform([[0.6], [0.2], [0.3]], [[0.95], [0.6], [1.2]], (3, n))
    t = np.arange(1, epochs + 1)
    return a[:, None] - b[:, None] * t[None] ** -c[:, None] + noise * rng.normal(size=(n, epochs))


@functools.cache
def fitted(cut=10):
    curves = power_laws(0, 100)
    return learning_curves.fit(KEY(), curves, curves[:, -1], cut, configurations=100)


def test_features_by_hand():
    found = learning_curves.features([[1.0, 3, 6, 10, 99]], 4, [[7.0]])
    np.testing.assert_array_equal(found, [[1, 3, 6, 10, 2, 3, 4, 1, 1, 7]])
    assert learning_curves.features([[1.0, 3]], 1).tolist() == [[1.0]]


def test_a_quarter_of_a_power_law_tells_its_end():
    curves = power_laws(1, 500)
    final = curves[:, -1]
    found = r2_score(final, learning_curves.predict(fitted(), curves))
    assert found >= 0.9, found
    assert found > 0.1 + r2_score(final, curves[:, 9])  # the last value seen


def test_what_comes_after_the_cut_is_not_looked_at():
    curves = power_laws(0, 100)
    final = curves[:, -1].copy()
    blind = curves.copy()
    blind[:, 10:] = np.nan
    again = learning_curves.fit(KEY(), blind, final, 10, configurations=100)
    assert again.chosen == fitted().chosen and again.sigma == fitted().sigma
    np.testing.assert_array_equal(learning_curves.predict(again, blind[:, :10]), learning_curves.predict(fitted(), curves))


def test_the_unit_of_the_scores_does_not_matter():
    curves = power_laws(0, 100)
    percent = learning_curves.fit(KEY(), 100 * curves, 100 * curves[:, -1], 10, configurations=100)
    np.testing.assert_allclose(percent.sigma, 100 * fitted().sigma, rtol=0.01)  # libsvm stops at 1e-3


def test_what_else_is_known_of_a_network_helps():
    """The first epoch says little of a's effect; a feature that says it must be used."""
    rng = np.random.default_rng(4)
    a = rng.uniform(size=200)
    curves = rng.normal(size=(200, 5))
    errors = [learning_curves.fit(KEY(), curves, a, 1, extra, configurations=60).sigma for extra in (None, a[:, None])]
    assert errors[1] < 0.3 * errors[0]


def test_the_rule_in_closed_form():
    sigma, best, edge = 0.02, 0.9, stats.norm.ppf(0.95)
    predicted = best - 0.01 - sigma * (edge + np.asarray([1e-6, -1e-6]))
    assert learning_curves.stop(predicted, sigma, best, offset=0.01).tolist() == [True, False]
    assert learning_curves.stop(predicted, sigma, best, offset=0.02).tolist() == [False, False]
    assert learning_curves.stop(predicted, 0.0, best).tolist() == [True, True]


def test_the_rule_seldom_ends_a_winner():
    """Of 2,000 new curves against a good one: at most one in twenty of those ended would have won, and most losers are."""
    curves = power_laws(2, 2000)
    final, best = curves[:, -1], np.quantile(curves[:, -1], 0.9)
    predicted = learning_curves.predict(fitted(), curves)
    for delta in (0.95, 0.99):
        ended = learning_curves.stop(predicted, fitted().sigma, best, delta=delta)
        assert np.mean(final[ended] > best) <= 1 - delta
        assert np.mean(ended[final < best]) > 0.7


def test_a_diverged_curve_is_the_worst():
    curves = power_laws(1, 3)
    curves[1, 4] = np.nan
    predicted = learning_curves.predict(fitted(), curves)
    assert np.isneginf(predicted[1]) and np.isfinite(predicted[[0, 2]]).all()
    assert learning_curves.stop(predicted, fitted().sigma, 0.0).tolist() == [False, True, False]


LOSSES = np.asarray([[[4.0, 2], [2, 0], [1, 1]], [[1.0, 1], [1, 1], [1, 3]]])  # [2 networks, T = 3, B = 2]


def test_sums_of_losses_by_hand():
    np.testing.assert_allclose(learning_curves.sotl(LOSSES), [5, 4])
    np.testing.assert_allclose(learning_curves.sotl_e(LOSSES), [1, 2])
    np.testing.assert_allclose(learning_curves.sotl_e(LOSSES, 2), [2, 3])
    np.testing.assert_allclose(learning_curves.tse_ema(LOSSES, 0.5), [3 / 4 + 1 / 2 + 1, 1 / 4 + 1 / 2 + 2])
    np.testing.assert_allclose(learning_curves.tse_ema(LOSSES, 1.0), learning_curves.sotl(LOSSES))


def test_a_population_of_steps_becomes_epochs():
    steps = jnp.asarray(LOSSES.reshape(2, 6), jnp.float32)  # [P, S]
    np.testing.assert_array_equal(learning_curves.by_epoch(steps, 2), LOSSES)
    one = jax.jit(jax.vmap(lambda row: learning_curves.tse_ema(learning_curves.by_epoch(row, 2), 0.5)))
    np.testing.assert_allclose(one(steps), learning_curves.tse_ema(LOSSES, 0.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: learning_curves.features(np.ones((3, 4)), 5), "1 to the length"),
        (lambda: learning_curves.predict(fitted(), np.ones((3, 9))), "1 to the length"),
        (lambda: learning_curves.predict(fitted(), np.ones((3, 10)), np.ones((3, 1))), "same `extra`"),
        (lambda: learning_curves.features(np.ones((3, 4)), 0), "cut=0"),
        (lambda: learning_curves.features(np.ones((3, 4)), 2, np.ones((2, 1))), "one row a curve"),
        (lambda: learning_curves.fit(KEY(), np.ones((3, 4)), np.ones(3), 2), "two curves a fold"),
        (lambda: learning_curves.fit(KEY(), np.ones((9, 4)), np.ones(8), 2), "one final value"),
        (lambda: learning_curves.fit(KEY(), np.ones((9, 4)), np.full(9, np.nan), 2), "curve 0 is not finite"),
        (lambda: learning_curves.stop(np.ones(2), 0.1, 1.0, delta=1.0), "delta is a probability"),
        (lambda: learning_curves.by_epoch(np.ones((2, 5)), 2), "whole number of epochs"),
        (lambda: learning_curves.sotl_e(LOSSES, 4), "the last 4 of 3"),
        (lambda: learning_curves.tse_ema(LOSSES, 0.0), "gamma"),
    ],
)
def test_bad_input_gets_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not NLP.exists(), reason=f"needs the file {NLP}")
def test_real_curves_of_recurrent_cells():
    """NAS-Bench-NLP, 100 cells to learn from: at 10 of 50 epochs nearer to the end than the last value, ranks as good."""
    with np.load(NLP) as file:
        valid, test, params = (np.asarray(file[name], np.float64) for name in ("val_loss", "test_loss", "num_params"))
    whole = np.isfinite(valid).all(1) & np.isfinite(test).all(1)
    assert whole.sum() == 341
    curves, final, extra = -valid[whole], -test[whole, -1], np.log(params[whole])[:, None]
    r2, rho = [], []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(final))
        known, new = order[:100], order[100:]
        model = learning_curves.fit(jax.random.key(seed), curves[known], final[known], 10, extra[known], configurations=60)
        both = learning_curves.predict(model, curves[new], extra[new]), curves[new, 9]
        r2.append([r2_score(final[new], p) for p in both])
        rho.append([stats.spearmanr(p, final[new]).statistic for p in both])
    r2, rho = np.mean(r2, 0), np.mean(rho, 0)
    assert r2[0] > 0.7 > r2[1], r2
    assert rho[0] > 0.95 and rho[0] > rho[1] - 0.01, rho
