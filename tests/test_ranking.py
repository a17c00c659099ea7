"""Rank quality against closed forms and brute force."""

import itertools

import jax
import numpy as np
import pytest

from jaxnas import plot
from jaxnas.analysis import ranking


def test_kendall_counts_pairs_and_allows_for_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 30), rng.integers(0, 6, 30)
    pairs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in itertools.combinations(range(30), 2)]
    agree = sum(x * y for x, y in pairs)
    loose = lambda k: sum(p[k] != 0 for p in pairs)
    assert abs(ranking.kendall(a, b) - agree / np.sqrt(loose(0) * loose(1))) < 1e-12
    assert abs(ranking.kendall(a, -a) + 1) < 1e-12 and np.isnan(ranking.kendall(a, np.zeros(30)))


def test_spearman_is_the_correlation_of_ranks():
    a, b = np.asarray([3.0, 1, 2, 10, 0]), np.asarray([1.0, 0, 5, 100, -3])
    ranks = lambda v: np.argsort(np.argsort(v))
    assert abs(ranking.spearman(a, b) - np.corrcoef(ranks(a), ranks(b))[0, 1]) < 1e-12
    assert np.isnan(ranking.spearman(a, np.ones(5)))


def test_regret_and_recall_by_hand():
    truth, scores = [90.0, 91, 92, 93, 94], [5.0, 4, 3, 2, 1]
    assert ranking.regret(scores, truth, 1) == 4.0 and ranking.regret(scores, truth, 3) == 2.0
    assert ranking.recall(scores, truth, 2) == 0.0 and ranking.recall(scores, truth, 4) == 0.75
    assert ranking.regret(truth, truth, 1) == 0.0 and ranking.recall(truth, truth, 2) == 1.0


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    """Of 50 samples of 40 from a bivariate normal of correlation 0.6, tau = 2 / pi asin(0.6)."""
    rng, tau, inside = np.random.default_rng(1), 2 / np.pi * np.arcsin(0.6), 0
    for i in range(50):
        x, e = rng.normal(size=(2, 40))
        found = ranking.ranking(jax.random.key(i), x, 0.6 * x + 0.8 * e, k=5, samples=120).tau
        assert found.low <= found.value <= found.high
        inside += found.low <= tau <= found.high
    assert inside >= 43


def test_what_has_no_score_is_left_out_and_counted():
    truth = np.arange(20.0)
    scores = np.where(truth < 3, np.nan, truth)
    found = ranking.ranking(jax.random.key(0), scores, truth, k=5)
    assert (found.count, found.failed) == (17, 3) and abs(found.tau.value - 1) < 1e-12


def test_reliability_is_the_correlation_with_as_many_repeats_more():
    """Spearman and Brown's rule against a simulation of the correlation of two means of three."""
    rng = np.random.default_rng(2)
    worth = rng.normal(size=40_000)
    repeats = lambda: worth[:, None] + 1.5 * rng.normal(size=(40_000, 3))
    both = repeats(), repeats()
    assert abs(ranking.reliability(both[0]) - ranking.spearman(both[0].mean(1), both[1].mean(1))) < 0.02
    assert ranking.reliability(rng.normal(size=(50, 2)) * np.asarray([1, -1])) < 0.5
    assert ranking.reliability(np.asarray([[1.0, 4], [2, 3], [3, 2]])) == 0.0  # repeats that disagree


def test_reliability_of_a_constant_is_nothing():
    assert ranking.reliability(np.ones((5, 3))) == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ranking.ranking(jax.random.key(0), [1.0, 2], [1.0]), "one score and one truth"),
        (lambda: ranking.ranking(jax.random.key(0), [np.nan, 2], [1.0, 2], k=1), "at least two"),
        (lambda: ranking.ranking(jax.random.key(0), [1.0, 2], [1.0, np.nan], k=1), "finite"),
        (lambda: ranking.regret([1.0, 2], [1.0, 2], 3), "give k in 1 to 2"),
        (lambda: ranking.reliability(np.ones((5, 1))), "at least two repeats"),
        (lambda: plot.scatter([1.0, 2], [1.0]), "one score and one truth"),
    ],
)
def test_bad_input_gets_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_scatter_shows_every_architecture_and_tau(tmp_path):
    scores, truth = {"a": np.arange(9.0), "b": np.where(np.arange(9) < 2, np.nan, -np.arange(9.0))}, np.arange(9.0)
    figure = plot.scatter(scores, truth, "two scores")
    (ax,) = figure.axes
    assert [len(line.get_xdata()) for line in ax.lines] == [9, 7]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a, tau = 1.00", "b, tau = -1.00"]
    plot.save(figure, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
