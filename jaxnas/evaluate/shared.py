"""Shared weights as an evaluator: a candidate is worth what its part of a trained supernet is worth.

    train = Phase(spos(net), steps, batches)
    search = Phase(black_box(algorithm, shared_weights(net)), trials, calibration, fix=lambda s: s.variables)
    run(key, then(train, search))

The supernet's variables ride in `batch.fixed`, calibration batches in `batch.train`, validation batches in `batch.valid`: see
`jaxnas.data.calibration`.

References: Guo et al., Single Path One-Shot, ECCV 2020, arXiv:1904.00420 (statistics of each path's own); Bender et al.,
Understanding and Simplifying One-Shot Architecture Search, ICML 2018 (the batch's own statistics).

Axes: P candidates, C calibration batches, A validation batches, B batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.ask_tell.trial import require_archs_alone
from jaxnas.base import Arch, Evaluator, stateless
from jaxnas.checks import checked
from jaxnas.nets._recalibrate import recalibrate
from jaxnas.nets.base import Net, check_variables
from jaxnas.training._criterion import CLASSES, Criterion

STATISTICS = ("recalibrated", "running", "batch")


@checked
def shared_weights(
    net: Net,
    statistics: str = "recalibrated",
    pick: Callable[[Any, Arch], Any] | None = None,
    criterion: Criterion = CLASSES,
) -> Evaluator:
    """The evaluator that runs a candidate's part of the supernet in `batch.fixed`, one candidate after the other.

    Metrics: the criterion's, "accuracy" of classes, and "loss", means over the validation batches [A, B, ...]; NaN for a candidate
    whose logits are not finite, which `black_box` counts and never lets win.

    Args:
        net: the supernet.
        statistics: of its norms: "recalibrated" on the calibration batches [C, B, ...], the supernet's "running" ones, or those
            of each validation "batch".
        pick: (`batch.fixed`, arch) -> variables, where there are several supernets (`weight_sharing.few_shot`); default: it is one.
        criterion: the loss and the score; default: of classes.

    Raises:
        ValueError: for other statistics; when traced, for variables of another net, or variables or calibration batches that are
            missing.
    """
    if statistics not in STATISTICS:
        raise ValueError(f"unknown statistics {statistics!r}: choose one of {', '.join(STATISTICS)}")

    def one(arch, fixed, train, valid):
        gates = net.space.gates(arch)
        variables = fixed if pick is None else pick(fixed, arch)
        if statistics == "recalibrated":
            variables = recalibrate(net, variables, gates, train[0])

        def on(batch):
            x, y = batch
            logits, _ = net.apply(variables, x, gates, train=statistics == "batch", path=True)
            return {criterion.name: jnp.mean(criterion.score(logits, y)), "loss": criterion.loss(logits, y)}

        metrics = jax.tree.map(jnp.mean, jax.lax.map(on, valid))
        return jax.tree.map(lambda m: jnp.where(jnp.isfinite(metrics["loss"]), m, jnp.nan), metrics)

    def evaluate(key, archs, batch):
        require_archs_alone(archs)
        del key  # deterministic
        if not isinstance(batch.fixed, dict) or "params" not in batch.fixed:
            raise ValueError("shared weights are read from `batch.fixed`: give a phase `fix=lambda state: state.variables`")
        if pick is None:
            check_variables(net, batch.fixed)
        if statistics == "recalibrated" and batch.train is None:
            raise ValueError("recalibration needs calibration batches in `batch.train`: see jaxnas.data.calibration")
        return jax.lax.map(lambda arch: one(arch, batch.fixed, batch.train, batch.valid), archs)

    return stateless(evaluate)
