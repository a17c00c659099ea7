"""Rows: differentiable searches that draw samples or weigh a cost, one phase each."""

import dataclasses
from typing import Literal, NamedTuple

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
    one_phase,
    ramp,
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
    return search if job.settings.reduction is None else _begun_with(search, _fixed_reduction(job))


def _fixed_reduction(job: Job):
    """bool, of the gates' structure: all of the normal cell, and of the reduction cell what the given one has."""
    import numpy as np

    if not _two_inputs(job) or "none" not in job.space.spec.ops:
        raise ValueError("--strategy.reduction needs normal and reduction cells, and `none`: search --space darts, or leave it out")
    gates = job.space.gates(job.space.from_text(job.settings.reduction))
    return gates._replace(normal=np.ones(gates.normal.shape, bool), reduce=np.asarray(gates.reduce) > 0)


def _begun_with(search, still):
    """The search, begun with the operations of `still`, bool, alone."""
    from jaxnas import weight_sharing as ws

    return search._replace(init=lambda key, given=None: search.init(key, ws.Given(open=still)))


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
    real = len(spec.ops) - (_two_inputs(job) and "none" in spec.ops)
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
        net = nets.cell_net(job.space, **size, partial=stage.partial)
    whole = job.cosine(job.config.steps, LOWEST_RATE)
    warm_up = (0.4 if _two_inputs(job) else 0.2) if s.warm_up is None else s.warm_up
    still = training.delayed(training.adam(job.config.arch_learning_rate), round(warm_up * steps))
    return ws.drnas(net, training.sgd(lambda t: whole(begun + t)), still, kl=s.kl, criterion=job.criterion)


def _two_inputs(job: Job) -> bool:
    return CELLS.holds(job.net) and job.space.spec.inputs == 2


def _without_none(search, job: Job):
    """The search; in cells of two inputs, which can hold no `none`, it begins without it."""
    import jax
    import numpy as np

    from jaxnas.spaces._space import is_shape

    if not _two_inputs(job):
        return search
    real = np.asarray([name != "none" for name in job.space.spec.ops])
    still = jax.tree.map(lambda shape: np.broadcast_to(real, shape), job.space.gate_shapes, is_leaf=is_shape)
    return _begun_with(search, still)


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
    "drnas": Method("Dirichlet gates, in two progressive stages (Chen et al. 2021)", _drnas, Drnas, (MIXES,), _last_stage),
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
