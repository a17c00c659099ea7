"""Paired differences against closed forms, and what an ensemble is fitted to."""

import numpy as np
import pytest

from jaxnas.analysis.paired import difference
from jaxnas.app.main_job.ensemble import averaged, greedy
from jaxnas.data.target import Target

CLASSES = Target("classes", ("a", "b", "c"))


def test_equal_networks_are_level():
    scores = np.random.default_rng(0).integers(0, 2, (3, 50)).astype(float)
    d = difference(scores, scores)
    assert d == (0.0, 0.0, 0.0, 0.5) and d.verdict == "level"


def test_the_interval_of_one_seed_is_that_of_the_examples():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.3, 1, (1, 400)), rng.normal(0.0, 1, (1, 400))
    d, half = difference(a, b), 1.96 * (a - b).std(ddof=1) / 20
    assert d.value == pytest.approx((a - b).mean())
    assert d.low == pytest.approx(d.value - half, abs=0.1 * half) and d.high == pytest.approx(d.value + half, abs=0.1 * half)
    assert d.verdict == "better" and difference(b, a).verdict == "worse"
    assert difference(b, a).probability == pytest.approx(1 - d.probability, abs=0.02)


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 0.1, (4, 400))
    alike = difference(noise + 0.05, np.zeros((4, 400)))
    apart = difference(noise + 0.05 + 0.2 * np.asarray([[1], [-1], [1], [-1]]), np.zeros((4, 400)))
    assert alike.verdict == "better" and apart.verdict == "level"


def test_the_interval_covers_as_often_as_it_says():
    """Of 200 pairs without a difference about 5 % are called one: at most 10 % here."""
    rng = np.random.default_rng(3)
    calls = [difference(rng.random((2, 100)) < 0.8, rng.random((2, 100)) < 0.8, samples=400).verdict for _ in range(200)]
    assert 0 < 200 - calls.count("level") <= 20


@pytest.mark.parametrize(
    "a, b", [(np.zeros((2, 3)), np.zeros((2, 4))), (np.zeros(3), np.zeros(3)), (np.full((1, 2), np.nan), np.zeros((1, 2)))]
)
def test_what_cannot_be_compared_is_refused(a, b):
    with pytest.raises(ValueError, match=r"give two tables|not finite"):
        difference(a, b)


def logits(p):
    return np.log(np.asarray(p, float))


def test_an_ensemble_takes_members_that_complement_each_other():
    y = np.asarray([0, 1, 2, 0])
    right = lambda rows: logits(
        [[0.8 if k == (c if ok else (c + 1) % 3) else 0.1 for k in range(3)] for c, ok in zip(y, rows, strict=True)]
    )
    outputs = [right([1, 1, 0, 0]), right([0, 0, 1, 1]), right([1, 1, 0, 0])]
    score = lambda o: (o.argmax(-1) == y).astype(float) + 1e-3 * np.take_along_axis(o, y[:, None], -1)[:, 0]
    counts, best = greedy(CLASSES, outputs, score)
    assert counts[0] + counts[2] > 0 and counts[1] > 0
    assert best >= max(score(o).mean() for o in outputs)


def test_probabilities_are_averaged():
    p, q = np.asarray([[0.7, 0.2, 0.1]]), np.asarray([[0.1, 0.2, 0.7]])
    both = averaged(CLASSES, [logits(p), logits(q) + 5], [1, 3])
    np.testing.assert_allclose(np.exp(both), (p + 3 * q) / 4, rtol=1e-6)
    labels = averaged(Target("labels", ("a", "b")), [np.zeros((1, 2)), np.full((1, 2), 50.0)], [1, 1])
    np.testing.assert_allclose(1 / (1 + np.exp(-labels)), 0.75, rtol=1e-5)
    np.testing.assert_allclose(averaged(Target("numbers", ("a",)), [np.zeros((2, 1)), np.ones((2, 1))], [1, 3]), 0.75)
