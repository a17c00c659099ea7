"""Rows: differentiable searches that draw samples or weigh a cost, one phase each."""

import dataclasses

from jaxnas.app.methods import drnas
from jaxnas.app.methods.base import (
    CELLS,
    COUNTED,
    FREE,
    LOWEST_RATE,
    MIXES,
    MOBILE,
    ONE_INPUT,
    Job,
    Method,
    begun_with,
    one_phase,
    ramp,
    two_inputs,
)
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber, Probability

# --- samples ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Snas:
    start: PositiveNumber = 1.0
    """Temperature at first."""
    end: PositiveNumber = 0.03
    """Temperature at the end."""
    paths: Positive = 1
    """Samples a step."""


def _snas(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    s = job.settings
    return ws.snas(job.net, weights, architecture, temperature=ramp(job, s.start, s.end), paths=s.paths, criterion=job.criterion)


@dataclasses.dataclass(frozen=True)
class Gdas:
    start: PositiveNumber = 10.0
    """Temperature at first."""
    end: PositiveNumber = 0.1
    """Temperature at the end."""
    bare_zeros: bool = False
    """The gradient also goes through the bare zeros of the operations that are not run, as in the authors' code."""
    reduction: str | None = None
    """A genotype, or a published name, whose reduction cell is fixed, as GDAS-FRC fixes one made by hand."""


def _bare_zeros(job: Job) -> dict:
    if not job.settings.bare_zeros:
        return {}
    if not CELLS.holds(job.net):
        raise ValueError(f"--strategy.bare-zeros needs {CELLS.text}: leave it out, or search --space nasbench201")
    return {"bare_zeros": True}


def _gdas(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    search = ws.gdas(
        job.net, weights, architecture, temperature=ramp(job, job.settings.start, job.settings.end), criterion=job.criterion
    )
    return search if job.settings.reduction is None else begun_with(search, _fixed_reduction(job))


def _fixed_reduction(job: Job):
    """bool, of the gates' structure: all of the normal cell, and of the reduction cell what the given one has."""
    import numpy as np

    if not two_inputs(job) or "none" not in job.space.spec.ops:
        raise ValueError("--strategy.reduction needs normal and reduction cells, and `none`: search --space darts, or leave it out")
    gates = job.space.gates(job.space.from_text(job.settings.reduction))
    return gates._replace(normal=np.ones(gates.normal.shape, bool), reduce=np.asarray(gates.reduce) > 0)


@dataclasses.dataclass(frozen=True)
class Gaea:
    rate: PositiveNumber = 0.1
    """Of the exponentiated gradient."""
    single_level: bool = False
    """The architecture follows the training loss."""


def _gaea(job, weights, architecture):
    from jaxnas import policies
    from jaxnas import weight_sharing as ws

    del architecture  # a rate of its own
    rate = policies.exponentiated(job.settings.rate)
    return ws.gaea(job.net, weights, rate, single_level=job.settings.single_level, criterion=job.criterion)


# --- costs ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Proxyless:
    target: PositiveNumber | None = None
    """Multiply-adds to aim at (default: none, accuracy alone)."""
    weight: NonNegativeNumber = 0.1
    """Of the relative excess over the target, in the loss."""
    reinforce: bool = False
    """REINFORCE instead of two paths; the reward is accuracy times (target / cost)^weight."""
    networks: Positive = 10
    """Drawn for an update of REINFORCE."""


def _proxylessnas(job, weights, architecture):
    import optax

    from jaxnas import hardware
    from jaxnas import weight_sharing as ws

    del architecture  # Adam with b1 = 0
    s, adam = job.settings, optax.adam(job.config.arch_learning_rate, b1=0.0)
    if s.reinforce:
        if s.target is not None and job.criterion.name == "negative_squared_error":
            raise ValueError("a reward times a cost needs accuracies, not errors: leave --strategy.target or .reinforce out")
        priced = None if s.target is None else hardware.priced(job.cost(), hardware.power_reward(s.target, s.weight))
        return ws.proxylessnas_reinforce(job.net, weights, adam, cost=priced, networks=s.networks, criterion=job.criterion)
    priced = None if s.target is None else hardware.priced(job.cost(), hardware.relative_excess(s.target, s.weight))
    return ws.proxylessnas(job.net, weights, adam, cost=priced, criterion=job.criterion)


@dataclasses.dataclass(frozen=True)
class Fbnet:
    start: PositiveNumber = 5.0
    """Temperature at first."""
    end: PositiveNumber = 0.1
    """Temperature at the end."""
    priced: bool = False
    """Multiply-adds are in the loss, as alpha log(cost)^beta times it."""
    alpha: NonNegativeNumber = 0.2
    """Of the cost."""
    beta: NonNegativeNumber = 0.6
    """Of the cost."""


def _fbnet(job, weights, architecture):
    from jaxnas import hardware
    from jaxnas import weight_sharing as ws

    s = job.settings
    priced = hardware.priced(job.cost(), hardware.fbnet_product(s.alpha, s.beta)) if s.priced else None
    return ws.fbnet(job.net, weights, architecture, temperature=ramp(job, s.start, s.end), cost=priced, criterion=job.criterion)


@dataclasses.dataclass(frozen=True)
class Enas:
    networks: Positive | None = None
    """Drawn for an update of the controller (default: the space's published number)."""
    hidden: Positive = 64
    """Units of the controller."""


def _enas(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    del architecture  # the controller's own
    return ws.enas(job.net, weights, networks=job.settings.networks, hidden=job.settings.hidden, criterion=job.criterion)


@dataclasses.dataclass(frozen=True)
class TuNas:
    target: PositiveNumber | None = None
    """Multiply-adds to stay at (default: the mean of random architectures)."""
    beta: float = -0.1
    """Reward of the relative distance to the target."""
    networks: Positive = 1
    """Drawn a step for the policy."""
    warm_up: Probability = 0.25
    """Of the steps that train the weights alone, all of a decision's operations fading."""


def _tunas(job: Job):
    import jax
    import optax

    from jaxnas import base, hardware, spaces, training
    from jaxnas import weight_sharing as ws

    s, steps, net = job.settings, job.config.steps, job.net
    if not 0 <= s.warm_up < 1:
        raise ValueError(f"--strategy.warm-up is a part of the steps, from 0 to below 1: not {s.warm_up}")
    target = s.target
    if target is None:
        archs = jax.vmap(job.space.sample)(jax.random.split(jax.random.key(0), 100))
        target = float(jax.vmap(lambda arch: net.macs(job.space.gates(arch)))(archs).mean())
    priced = hardware.priced(net.macs, hardware.absolute_reward(target, s.beta))
    weights = training.sgd(job.cosine(steps, LOWEST_RATE))
    adam = optax.adam(job.config.arch_learning_rate, b1=0.0)
    first = round(s.warm_up * steps)
    search = ws.tunas(net, weights, adam, cost=priced, networks=s.networks, criterion=job.criterion)
    moving = base.Phase(search, steps - first, job.batches())
    if not first:
        return base.then(moving)
    full = spaces.widest(job.space) if type(job.space.spec).__name__ == "TunasSpec" else None
    warm = ws.op_warm_up(net, weights, share=optax.linear_schedule(1.0, 0.0, first), full=full, criterion=job.criterion)
    handed = lambda state: ws.Given(state.variables, state.opt_state)
    return base.then(base.Phase(warm, first, job.batches(1, 0), name="warm-up"), moving._replace(give=handed))


@dataclasses.dataclass(frozen=True)
class TeNas:
    draws: Positive = 3
    """Of the weights, to a mean."""
    points: Positive = 1000
    """Whose linear regions are counted."""


def _affine(job: Job) -> dict:
    return {"affine": True}


def _te_nas(job: Job):
    """One step less than there are operations, whatever --steps says."""
    from jaxnas import base, nets
    from jaxnas import weight_sharing as ws

    thin = nets.cell_net(job.space, image=(3, 3, 1), classes=job.data.classes, channels=1, cells=1, bare=True, affine=True)
    pruning = ws.te_nas(job.net, thin, draws=job.settings.draws, points=job.settings.points)
    return base.then(base.Phase(pruning, len(job.space.spec.ops) - 1, job.batches(1, 0)))


ROWS: dict[str, Method] = {
    "snas": Method("concrete samples on the training loss (Xie et al. 2019)", one_phase(_snas), Snas, (MIXES,), child=True),
    "gdas": Method(
        "straight-through Gumbel, one operation an edge (Dong and Yang 2019)", one_phase(_gdas), Gdas, (MIXES,), _bare_zeros
    ),
    "drnas": drnas.ROW,
    "gaea": Method("exponentiated gradients on the simplex (Li et al. 2021)", one_phase(_gaea), Gaea, (MIXES,)),
    "proxylessnas": Method(
        "binary gates, two paths, a cost in the loss (Cai et al. 2019)",
        one_phase(_proxylessnas),
        Proxyless,
        (MIXES, MOBILE),
        space="mobile",
    ),
    "fbnet": Method("Gumbel softmax with the sample's cost (Wu et al. 2019)", one_phase(_fbnet), Fbnet, (MIXES,)),
    "enas": Method("REINFORCE of an LSTM on shared weights (Pham et al. 2018)", one_phase(_enas), Enas, (FREE,)),
    "tunas": Method(
        "REINFORCE at a given cost, after a warm-up (Bender et al. 2020)",
        _tunas,
        TuNas,
        (MIXES, COUNTED),
        space="tunas",
    ),
    "te-nas": Method("pruning at initialisation, without labels (Chen et al. 2021)", _te_nas, TeNas, (ONE_INPUT,), _affine),
}
