"""Objectives: what a search maximises, from what the evaluator measured.

An objective maps metrics {name: [B]} to scores [B], or to columns [B, M] for an algorithm that takes several.

    weighted        sum_k weight_k metric_k
    penalised       score - penalty sum_k max(0, metric_k / limit_k - 1)
    mnasnet         ACC (LAT / T)^w,  w = alpha if LAT <= T else beta     (Tan et al., MnasNet, CVPR 2019, arXiv:1807.11626, eq. 2)
    absolute        ACC + beta |LAT / T - 1|                              (Bender et al., TuNAS, CVPR 2020, arXiv:2008.06120)
    columns         several of them side by side; `below` makes the column of a constraint

Axes: B candidates, M columns.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Metrics = dict[str, jax.Array]  # name -> [B]
Objective = Callable[[Metrics], jax.Array]


def _read(metrics: Metrics, name: str) -> jax.Array:
    if name not in metrics:
        raise ValueError(f"no metric named {name!r}: the evaluator reports {', '.join(sorted(metrics)) or 'none'}")
    return metrics[name]


def metric(name: str) -> Objective:
    """One metric.  Like all objectives it raises a ValueError when the evaluator does not report that metric."""
    return lambda metrics: _read(metrics, name)


def weighted(**weights: float) -> Objective:
    """The weighted sum of metrics; a cost has a negative weight: `weighted(accuracy=1.0, flops=-0.02)`.

    Raises:
        ValueError: for no weight at all.
    """
    if not weights:
        raise ValueError("weighted(...) needs at least one metric: weighted(accuracy=1.0)")

    def objective(metrics: Metrics) -> jax.Array:
        return jnp.asarray(sum(w * _read(metrics, name) for name, w in weights.items()))

    return objective


def penalised(objective: Objective, penalty: float = 1.0, **limits: float) -> Objective:
    """`objective`, less `penalty` times the relative excess of each metric over its limit.

    Raises:
        ValueError: for a limit or a penalty that is not positive.
    """
    if not limits or min(limits.values()) <= 0 or penalty <= 0:
        raise ValueError(f"penalised(...) needs positive limits and a positive penalty; got {limits} and {penalty}")

    def penalised_objective(metrics: Metrics) -> jax.Array:
        excess = sum(jnp.maximum(_read(metrics, name) / limit - 1, 0) for name, limit in limits.items())  # [B]
        return objective(metrics) - penalty * excess

    return penalised_objective


def mnasnet(quality: str, cost: str, target: float, alpha: float = -0.07, beta: float = -0.07) -> Objective:
    """MnasNet's reward: soft by default (twice the cost is worth 5 % of quality); alpha=0, beta=-1 is the hard one.

    Raises:
        ValueError: for a target that is not positive.
    """
    if target <= 0:
        raise ValueError(f"the target of {cost!r} must be positive; got {target}")

    def objective(metrics: Metrics) -> jax.Array:
        ratio = _read(metrics, cost) / target
        return _read(metrics, quality) * ratio ** jnp.where(ratio <= 1, alpha, beta)

    return objective


def absolute(quality: str, cost: str, target: float, beta: float = -0.1) -> Objective:
    """TuNAS's reward: `quality` + beta |cost / target - 1|, which keeps a search at the target.

    Raises:
        ValueError: for a target that is not positive, or a beta that is.
    """
    if not target > 0 or not beta <= 0:
        raise ValueError(f"the target of {cost!r} must be positive and beta must not; got {target} and {beta}")
    return lambda metrics: _read(metrics, quality) + beta * jnp.abs(_read(metrics, cost) / target - 1)


def negative(name: str) -> Objective:
    """A metric to be minimised."""
    return lambda metrics: -_read(metrics, name)


def below(name: str, limit: float) -> Objective:
    """The slack of a constraint: `limit` less the metric, satisfied when it is not negative."""
    return lambda metrics: limit - _read(metrics, name)


def columns(*objectives: Objective) -> Objective:
    """Several objectives [B, M], then constraints: `columns(metric("accuracy"), negative("flops"), below("latency", 80))`.

    Raises:
        ValueError: for none.
    """
    if not objectives:
        raise ValueError("columns(...) needs at least one objective")
    return lambda metrics: jnp.stack([objective(metrics) for objective in objectives], -1)
