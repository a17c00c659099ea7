"""The row of DrNAS, whose search is of two stages."""

import dataclasses
from typing import Literal, NamedTuple

from jaxnas.app.methods.base import CELLS, LOWEST_RATE, MIXES, Job, Method, begun_with, two_inputs
from jaxnas.kinds import NonNegativeNumber, Positive, Probability


@dataclasses.dataclass(frozen=True)
class Drnas:
    stages: Literal[1, 2] | None = None
    """Of equal length; one has all channels and all operations throughout (default: 2 in cells, else 1)."""
    operations: Positive | None = None
    """Left of an edge in the second stage (default: half of them, as published: 3 of 5 and 4 of 7)."""
    partial: tuple[Positive, Positive] | None = None
    """In each stage one channel in so many goes through the operations (default: as published, 4 and 2 in cells of one input, 6
    and 4 in cells of two, or the next smaller numbers that divide --channels)."""
    warm_up: Probability | None = None
    """Of each stage's steps, the first, that train the weights alone (default: 0.2, or 0.4 in cells of two inputs; published: 10 of
    50 epochs and 10 of 25)."""
    kl: NonNegativeNumber = 0.0
    """Weight of the divergence from the uniform Dirichlet (published for some spaces: 0.001)."""


class Stage(NamedTuple):
    partial: int = 1  # K
    keep: int = 0  # operations left of an edge; 0: all


def _drnas_stages(job: Job) -> tuple[Stage, ...]:
    """The stages that the settings ask for.

    Raises:
        ValueError: for two stages of what is no cell, numbers that only two stages have, or more operations than there are.
    """
    s, cells = job.settings, CELLS.holds(job.net)
    if (s.stages or 1 + cells) == 1:
        if s.partial or s.operations:
            raise ValueError("one stage has all channels and operations: leave --strategy.partial and --strategy.operations out")
        return (Stage(),)
    if not cells:
        raise ValueError(f"two stages need {CELLS.text}: give --strategy.stages 1, or search --space nasbench201")
    spec, channels = job.space.spec, job.config.channels
    real = len(spec.ops) - (two_inputs(job) and "none" in spec.ops)
    keep = s.operations or (real + 1) // 2
    if keep > real:
        raise ValueError(f"an edge has {real} operations: give --strategy.operations at most that, not {keep}")
    if s.partial is None:
        divisor = lambda most: max(k for k in range(1, max(most, 1) + 1) if channels % k == 0)
        most = (4, 2) if spec.inputs == 1 else (6, 4)
        first = divisor(most[0])
        return Stage(first), Stage(divisor(min(most[1], first - 1)), keep)
    if s.partial[0] < s.partial[1]:
        raise ValueError(f"channels join in with the second stage: --strategy.partial must not rise, as {s.partial} does")
    return Stage(s.partial[0]), Stage(s.partial[1], keep)


def _last_stage(job: Job) -> dict:
    return {"partial": partial} if (partial := _drnas_stages(job)[-1].partial) > 1 else {}


def _drnas(job: Job):
    """Between the stages the operations of least concentration go, and channels join in; one cosine spans both.

    As published, the architecture stands still at the beginning of each stage, and cells of two inputs are searched without `none`.
    Momenta begin anew with a stage; the authors' code hands on the architecture's, and copies the weights' as it copies channels.
    """
    from jaxnas import base
    from jaxnas import weight_sharing as ws

    stages, steps = _drnas_stages(job), job.config.steps
    if steps < len(stages):
        raise ValueError(f"two stages take 2 steps or more: give more --steps than {steps}, or --strategy.stages 1")
    length = steps // len(stages)
    first = _without_none(_drnas_search(job, stages[0], 0, length), job)
    if len(stages) == 1:
        return base.then(base.Phase(first, steps, job.batches()))
    second = ws.widened(_drnas_search(job, stages[1], length, steps - length), job.net)
    pruned = lambda state: ws.Given(state.variables, theta=state.theta, open=ws.strongest_operations(state.theta, stages[1].keep))
    return base.then(
        base.Phase(first, length, job.batches(), name="stage 1"),
        base.Phase(second, steps - length, job.batches(), pruned, name="stage 2"),
    )


def _drnas_search(job: Job, stage: Stage, begun: int, steps: int):
    """The search of a stage of so many steps, which begins when so many are over."""
    from jaxnas import nets, training
    from jaxnas import weight_sharing as ws

    s, net = job.settings, job.net
    if CELLS.holds(net) and stage != _drnas_stages(job)[-1]:
        size = dict(image=net.image, classes=net.classes, channels=job.config.channels, cells=job.config.cells)
        net = nets.with_precision(nets.cell_net(job.space, **size, partial=stage.partial), job.config.precision)
    whole = job.cosine(job.config.steps, LOWEST_RATE)
    warm_up = (0.4 if two_inputs(job) else 0.2) if s.warm_up is None else s.warm_up
    still = training.delayed(training.adam(job.config.arch_learning_rate), round(warm_up * steps))
    return ws.drnas(net, training.sgd(lambda t: whole(begun + t)), still, kl=s.kl, criterion=job.criterion)


def _without_none(search, job: Job):
    """The search; in cells of two inputs, which can hold no `none`, it begins without it."""
    import jax
    import numpy as np

    from jaxnas.spaces._space import is_shape

    if not two_inputs(job):
        return search
    real = np.asarray([name != "none" for name in job.space.spec.ops])
    still = jax.tree.map(lambda shape: np.broadcast_to(real, shape), job.space.gate_shapes, is_leaf=is_shape)
    return begun_with(search, still)


ROW = Method("Dirichlet gates, in two progressive stages (Chen et al. 2021)", _drnas, Drnas, (MIXES,), _last_stage)
