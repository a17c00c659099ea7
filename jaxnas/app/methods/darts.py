"""Rows: DARTS, and what differs from it in one thing."""

import dataclasses
import math
from typing import Literal

from jaxnas.app.methods.base import CELLS, IMAGES, LOWEST_RATE, MIXES, Job, Method, one_phase, ramp
from jaxnas.kinds import NonNegative, NonNegativeNumber, Positive, PositiveNumber, Probability, Share


@dataclasses.dataclass(frozen=True)
class Darts:
    order: Literal["exact", "first", "finite_difference"] = "exact"
    """Of the architecture's gradient: exact second order, first order, or the published finite differences."""


def _darts(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    return ws.darts(job.net, weights, architecture, order=job.settings.order, criterion=job.criterion)


@dataclasses.dataclass(frozen=True)
class FirstOrder:
    order: Literal["exact", "first", "finite_difference"] = "first"
    """Of the architecture's gradient."""


def _pc_darts(job, weights, architecture):
    from jaxnas import training
    from jaxnas import weight_sharing as ws

    still = training.delayed(architecture, round(job.settings.warm_up * job.config.steps))
    return ws.pc_darts(job.net, weights, still, order=job.settings.order, criterion=job.criterion)


@dataclasses.dataclass(frozen=True)
class PcDarts(FirstOrder):
    partial: Positive = 4
    """One channel in so many goes through the operations."""
    warm_up: Probability = 0.3
    """Of the steps, the first, that train the weights alone (published: 15 of 50 epochs)."""


def _partial(job: Job) -> dict:
    return {"partial": job.settings.partial}


def _auxiliary_skip(job: Job) -> dict:
    return {"auxiliary_skip": ramp(job, 1.0, 0.0)}


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    factor: PositiveNumber = 1.3
    """Of the eigenvalue's means at which the search stops."""
    window: Positive = 5
    """Epochs to a mean."""
    lag: Positive = 4
    """Epochs between the two means."""
    first: Positive = 10
    """The epoch from which on it may stop."""


def _robust_darts(job: Job):
    from jaxnas import base, training
    from jaxnas import weight_sharing as ws

    watched, epochs, feed = _watched(job, training.sgd(job.cosine(job.config.steps, LOWEST_RATE)))
    stopping = ws.early_stopping(watched, **dataclasses.asdict(job.settings))
    return base.then(base.Phase(stopping, epochs, feed))


def _watched(job: Job, weights):
    """(first-order DARTS with measurements, its epochs, their feed): 50 looks at the eigenvalue in a short search, and one in 20
    steps of a longer."""
    from jaxnas import data, policies, training
    from jaxnas import weight_sharing as ws

    steps = job.config.steps
    epoch = min(20, max(1, steps // 50))
    search = ws.darts(job.net, weights, training.adam(job.config.arch_learning_rate), order="first", criterion=job.criterion)
    watched = ws.with_measurements(search, ws.measurements(job.net, policies.softmax(job.space), criterion=job.criterion))
    return watched, -(-steps // epoch), data.epochs(job.batches(), epoch)


@dataclasses.dataclass(frozen=True)
class AdaptiveRegularisation(EarlyStopping):
    weight_decay: PositiveNumber = 3e-4
    """Of the weights, at first."""
    increase: PositiveNumber = 3.0
    """What it is multiplied by when the search is rolled back; more than 1."""
    maximum: PositiveNumber = 0.0243
    """The most weight decay."""
    stop_at_limit: bool = True
    """With no more weight decay to give, stop as robust-darts does (published: train on to the end)."""


def _darts_ada(job: Job):
    """The epochs that are rolled back come on top of --steps: the phase has room for all, and a search that needs less waits."""
    import optax

    from jaxnas import base, training
    from jaxnas import weight_sharing as ws

    s, rate = dataclasses.asdict(job.settings), job.cosine(job.config.steps, LOWEST_RATE)
    decay = s.pop("weight_decay")
    watched, epochs, feed = _watched(job, optax.chain(training.adjustable_decay(decay), optax.sgd(rate, momentum=0.9)))
    search = ws.adaptive_regularisation(watched, epochs=epochs, **s)
    again = max(0, math.floor(math.log(s["maximum"] / decay) / math.log(s["increase"]) + 1e-3))  # times it is rolled back at most
    return base.then(base.Phase(search, epochs + again * s["lag"], feed))


@dataclasses.dataclass(frozen=True)
class Perturbed:
    perturbation: Literal["random", "adversarial"] = "random"
    """Of the gates that the weights see."""
    start: NonNegativeNumber = 0.03
    """Its size at first."""
    end: NonNegativeNumber = 0.3
    """Its size at the end."""
    ascents: Positive = 7
    """Steps of the adversarial one."""


def _smooth_darts(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    size, s = ramp(job, job.settings.start, job.settings.end), job.settings
    perturb = ws.random_noise(size) if s.perturbation == "random" else ws.adversarial(size, s.ascents)
    return ws.smooth_darts(job.net, weights, architecture, perturb=perturb, criterion=job.criterion)


@dataclasses.dataclass(frozen=True)
class BetaDecay:
    weight: NonNegativeNumber = 50.0
    """Of the regulariser at the end of the search; it rises linearly from 0."""


def _beta_darts(job, weights, architecture):
    from jaxnas import training
    from jaxnas import weight_sharing as ws

    without_decay = training.adam(job.config.arch_learning_rate, 0.0)
    return ws.beta_darts(job.net, weights, without_decay, decay=ramp(job, 0.0, job.settings.weight), criterion=job.criterion)


@dataclasses.dataclass(frozen=True)
class Projection:
    share: Share = 0.5
    """Of the steps that train the supernet before its operations are decided, one a step."""
    weight_steps: NonNegative = 5
    """Training steps behind each decision."""


def _darts_pt(job: Job):
    """First-order DARTS, then the operations by what their removal costs, then the edges where two a node are kept."""
    from jaxnas import base, training
    from jaxnas import weight_sharing as ws

    spec, s = job.space.spec, job.settings
    steps, kinds = max(1, round(s.share * job.config.steps)), max(len(spec.kinds), 1)
    weights = training.sgd(job.cosine(steps, LOWEST_RATE))
    tuned = training.sgd(job.config.learning_rate / 10)
    feed = job.batches(s.weight_steps, 1)
    handed = lambda state: ws.Given(state.variables, None, state.theta)
    search = ws.darts(job.net, weights, training.adam(job.config.arch_learning_rate), order="first", criterion=job.criterion)
    phases = [
        base.Phase(search, steps, job.batches()),
        base.Phase(
            ws.project_operations(job.net, tuned, criterion=job.criterion), kinds * len(spec.edges), feed, handed, name="operations"
        ),
    ]
    if spec.inputs == 2:
        spare = kinds * (len(spec.edges) - 2 * spec.nodes)
        kept = lambda state: ws.Given(state.search.variables, state.search.opt_state, state.search.theta)
        if spare:
            phases.append(base.Phase(ws.project_edges(job.net, tuned, criterion=job.criterion), spare, feed, kept, name="edges"))
    return base.then(*phases)


ROWS: dict[str, Method] = {
    "darts": Method("softmax mixture, exact second order (Liu et al. 2019)", one_phase(_darts), Darts, (MIXES,)),
    "robust-darts": Method(
        "first order, stopped before the Hessian's eigenvalue rises (Zela et al. 2020)", _robust_darts, EarlyStopping, (MIXES,)
    ),
    "darts-ada": Method(
        "robust-darts that goes back and raises the weight decay before it stops (Zela et al. 2020)",
        _darts_ada,
        AdaptiveRegularisation,
        (MIXES,),
    ),
    "pc-darts": Method(
        "one channel in four, normalised edges (Xu et al. 2020)", one_phase(_pc_darts), PcDarts, (MIXES, CELLS), _partial
    ),
    "sdarts": Method(
        "DARTS under random or adversarial perturbations (Chen and Hsieh 2020)", one_phase(_smooth_darts), Perturbed, (MIXES,)
    ),
    "darts-minus": Method(
        "DARTS with an auxiliary skip that fades (Chu et al. 2021)",
        one_phase(_darts),
        FirstOrder,
        (MIXES, CELLS, IMAGES),
        _auxiliary_skip,
    ),
    "beta-darts": Method("DARTS with beta decay (Ye et al. 2022)", one_phase(_beta_darts), BetaDecay, (MIXES,)),
    "darts-pt": Method(
        "DARTS, then operations by what their removal costs (Wang et al. 2021)", _darts_pt, Projection, (MIXES, CELLS)
    ),
}
