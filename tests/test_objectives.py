"""Objectives against their formulas, and through a search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import ask_tell, base, objectives, spaces
from jaxnas.base import Batch
from jaxnas.evaluate import rows, table

METRICS = {"accuracy": jnp.asarray([0.7, 0.8, 0.9]), "latency": jnp.asarray([40.0, 80.0, 160.0])}


def test_formulas():
    np.testing.assert_allclose(objectives.weighted(accuracy=1.0, latency=-0.01)(METRICS), [0.3, 0.0, -0.7], atol=1e-6)
    over = objectives.penalised(objectives.metric("accuracy"), penalty=0.5, latency=80.0)
    np.testing.assert_allclose(over(METRICS), [0.7, 0.8, 0.4], atol=1e-6)
    both = objectives.columns(objectives.metric("accuracy"), objectives.negative("latency"), objectives.below("latency", 100.0))
    np.testing.assert_allclose(both(METRICS), [[0.7, -40, 60], [0.8, -80, 20], [0.9, -160, -60]], atol=1e-6)


def test_mnasnet_rewards():
    soft = objectives.mnasnet("accuracy", "latency", 80.0)(METRICS)
    np.testing.assert_allclose(soft, [0.7 * 0.5**-0.07, 0.8, 0.9 * 2**-0.07], rtol=1e-6)
    np.testing.assert_allclose(soft[2] / 0.9, 0.9526, atol=1e-4)  # twice the latency for 5 %
    hard = objectives.mnasnet("accuracy", "latency", 80.0, alpha=0.0, beta=-1.0)(METRICS)
    np.testing.assert_allclose(hard, [0.7, 0.8, 0.45], rtol=1e-6)


def test_an_objective_decides_what_a_search_finds():
    toy = spaces.space((np.asarray([3, 4]),))
    archs = np.stack(np.unravel_index(np.arange(12), (3, 4)), -1)
    fixed = rows(toy, archs, {"accuracy": np.arange(12.0), "latency": 10.0 * np.arange(12)})

    def found(objective):
        strategy = base.black_box(ask_tell.random_search(toy, batch=100), table(toy), objective)
        state, info = strategy.step(jax.random.key(1), strategy.init(jax.random.key(0)), Batch(fixed=fixed))
        assert int(info.failed) == 0
        return int(toy.index(strategy.best(state)))

    accuracy = objectives.metric("accuracy")
    assert found(accuracy) == 11
    assert found(objectives.negative("latency")) == 0
    assert found(objectives.penalised(accuracy, penalty=100.0, latency=70.0)) == 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: objectives.weighted(), "at least one metric"),
        (lambda: objectives.weighted(acuracy=1.0)(METRICS), "no metric named 'acuracy': the evaluator reports accuracy, latency"),
        (lambda: objectives.penalised(objectives.metric("accuracy"), latency=0.0), "positive limits"),
        (lambda: objectives.penalised(objectives.metric("accuracy")), "positive limits"),
        (lambda: objectives.mnasnet("accuracy", "latency", 0.0), "target of 'latency' must be positive"),
        (lambda: objectives.columns(), "at least one objective"),
    ],
)
def test_bad_objectives_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_scores_of_another_shape_are_refused():
    toy = spaces.space((2, 2))
    fixed = rows(toy, [[0, 0], [0, 1], [1, 0], [1, 1]], {"accuracy": np.arange(4.0)})
    two = objectives.columns(objectives.metric("accuracy"), objectives.metric("accuracy"))
    strategy = base.black_box(ask_tell.random_search(toy), table(toy), two)
    with pytest.raises(ValueError, match=r"takes scores \[B\]"):
        strategy.step(jax.random.key(1), strategy.init(jax.random.key(0)), Batch(fixed=fixed))
