"""Rows: differentiable searches, one phase each."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from jaxnas.app.methods.base import CELLS, COUNTED, FREE, IMAGES, MIXES, MOBILE, ONE_INPUT, Job, Method, Plan

if TYPE_CHECKING:
    import optax

    from jaxnas.base import Strategy

LOWEST_RATE = 0.001  # of the weights, at the end of a search


def search(make: Callable[..., "Strategy"], weight_steps: int = 1, arch_steps: int = 1) -> Plan:
    """The plan of one phase: make(job, weights, architecture) -> Strategy, its schedules over the whole search."""

    def plan(job: Job):
        from jaxnas import base, training

        weights = training.sgd(job.cosine(job.config.steps, LOWEST_RATE))
        strategy = make(job, weights, training.adam(job.config.arch_learning_rate))
        return base.then(base.Phase(strategy, job.config.steps, job.batches(weight_steps, arch_steps)))

    return plan


def over(job: Job, start: float, end: float) -> "optax.Schedule":
    """A number that goes linearly from start to end over the search."""
    import optax

    return optax.linear_schedule(start, end, job.config.steps)


# --- DARTS and what differs from it in one thing ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Darts:
    order: Literal["exact", "first", "finite_difference"] = "exact"
    """Of the architecture's gradient: exact second order, first order, or the published finite differences."""


def _darts(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    return ws.darts(job.net, weights, architecture, order=job.settings.order)


@dataclasses.dataclass(frozen=True)
class FirstOrder:
    order: Literal["exact", "first", "finite_difference"] = "first"
    """Of the architecture's gradient."""


def _pc_darts(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    return ws.pc_darts(job.net, weights, architecture, order=job.settings.order)


@dataclasses.dataclass(frozen=True)
class PcDarts(FirstOrder):
    partial: int = 4
    """One channel in so many goes through the operations."""


def _partial(settings, steps):
    return {"partial": settings.partial}


def _auxiliary_skip(settings, steps):
    import optax

    return {"auxiliary_skip": optax.linear_schedule(1.0, 0.0, steps)}


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    factor: float = 1.3
    """Of the eigenvalue's means at which the search stops."""
    window: int = 5
    """Epochs to a mean."""
    lag: int = 4
    """Epochs between the two means."""
    first: int = 10
    """The epoch from which on it may stop."""


def _robust_darts(job: Job):
    """50 looks at the eigenvalue in a short search, and one in 20 steps of a longer."""
    from jaxnas import base, data, policies, training
    from jaxnas import weight_sharing as ws

    steps = job.config.steps
    epoch = min(20, max(1, steps // 50))
    weights = training.sgd(job.cosine(steps, LOWEST_RATE))
    search = ws.darts(job.net, weights, training.adam(job.config.arch_learning_rate), order="first")
    watched = ws.with_measurements(search, ws.measurements(job.net, policies.softmax(job.space)))
    stopping = ws.early_stopping(watched, **dataclasses.asdict(job.settings))
    return base.then(base.Phase(stopping, -(-steps // epoch), data.epochs(job.batches(), epoch)))


@dataclasses.dataclass(frozen=True)
class Perturbed:
    perturbation: Literal["random", "adversarial"] = "random"
    """Of the gates that the weights see."""
    start: float = 0.03
    """Its size at first."""
    end: float = 0.3
    """Its size at the end."""
    ascents: int = 7
    """Steps of the adversarial one."""


def _smooth_darts(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    size, s = over(job, job.settings.start, job.settings.end), job.settings
    perturb = ws.random_noise(size) if s.perturbation == "random" else ws.adversarial(size, s.ascents)
    return ws.smooth_darts(job.net, weights, architecture, perturb=perturb)


@dataclasses.dataclass(frozen=True)
class BetaDecay:
    weight: float = 50.0
    """Of the regulariser at the end of the search; it rises linearly from 0."""


def _beta_darts(job, weights, architecture):
    from jaxnas import training
    from jaxnas import weight_sharing as ws

    without_decay = training.adam(job.config.arch_learning_rate, 0.0)
    return ws.beta_darts(job.net, weights, without_decay, decay=over(job, 0.0, job.settings.weight))


@dataclasses.dataclass(frozen=True)
class Projection:
    share: float = 0.5
    """Of the steps that train the supernet before its operations are decided, one a step."""
    weight_steps: int = 5
    """Training steps behind each decision."""


def _darts_pt(job: Job):
    """First-order DARTS, then the operations by what their removal costs, then the edges where two a node are kept."""
    from jaxnas import base, training
    from jaxnas import weight_sharing as ws

    spec, s = job.space.spec, job.settings
    if not 0 < s.share <= 1:
        raise ValueError(f"--strategy.share is a part of the steps, above 0 and at most 1: not {s.share}")
    steps, kinds = max(1, round(s.share * job.config.steps)), max(len(spec.kinds), 1)
    weights = training.sgd(job.cosine(steps, LOWEST_RATE))
    tuned = training.sgd(job.config.learning_rate / 10)
    feed = job.batches(s.weight_steps, 1)
    handed = lambda state: ws.Given(state.variables, None, state.theta)
    phases = [
        base.Phase(ws.darts(job.net, weights, training.adam(job.config.arch_learning_rate), order="first"), steps, job.batches()),
        base.Phase(ws.project_operations(job.net, tuned), kinds * len(spec.edges), feed, handed, name="operations"),
    ]
    if spec.inputs == 2:
        spare = kinds * (len(spec.edges) - 2 * spec.nodes)
        kept = lambda state: ws.Given(state.search.variables, state.search.opt_state, state.search.theta)
        if spare:
            phases.append(base.Phase(ws.project_edges(job.net, tuned), spare, feed, kept, name="edges"))
    return base.then(*phases)


# --- samples ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Snas:
    start: float = 1.0
    """Temperature at first."""
    end: float = 0.03
    """Temperature at the end."""
    paths: int = 1
    """Samples a step."""


def _snas(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    s = job.settings
    return ws.snas(job.net, weights, architecture, temperature=over(job, s.start, s.end), paths=s.paths)


@dataclasses.dataclass(frozen=True)
class Gdas:
    start: float = 10.0
    """Temperature at first."""
    end: float = 0.1
    """Temperature at the end."""


def _gdas(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    return ws.gdas(job.net, weights, architecture, temperature=over(job, job.settings.start, job.settings.end))


@dataclasses.dataclass(frozen=True)
class Drnas:
    kl: float = 0.0
    """Weight of the divergence from the uniform Dirichlet (published for some spaces: 0.001)."""


def _drnas(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    return ws.drnas(job.net, weights, architecture, kl=job.settings.kl)


@dataclasses.dataclass(frozen=True)
class Gaea:
    rate: float = 0.1
    """Of the exponentiated gradient."""
    single_level: bool = False
    """The architecture follows the training loss."""


def _gaea(job, weights, architecture):
    from jaxnas import policies
    from jaxnas import weight_sharing as ws

    del architecture  # a rate of its own
    return ws.gaea(job.net, weights, policies.exponentiated(job.settings.rate), single_level=job.settings.single_level)


# --- costs ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Proxyless:
    target: float | None = None
    """Multiply-adds to aim at (default: none, accuracy alone)."""
    weight: float = 0.1
    """Of the relative excess over the target, in the loss."""
    reinforce: bool = False
    """REINFORCE instead of two paths; the reward is accuracy times (target / cost)^weight."""
    networks: int = 10
    """Drawn for an update of REINFORCE."""


def _proxylessnas(job, weights, architecture):
    import optax

    from jaxnas import hardware
    from jaxnas import weight_sharing as ws

    del architecture  # Adam with b1 = 0
    s, adam = job.settings, optax.adam(job.config.arch_learning_rate, b1=0.0)
    if s.reinforce:
        priced = None if s.target is None else hardware.priced(job.cost(), hardware.power_reward(s.target, s.weight))
        return ws.proxylessnas_reinforce(job.net, weights, adam, cost=priced, networks=s.networks)
    priced = None if s.target is None else hardware.priced(job.cost(), hardware.relative_excess(s.target, s.weight))
    return ws.proxylessnas(job.net, weights, adam, cost=priced)


@dataclasses.dataclass(frozen=True)
class Fbnet:
    start: float = 5.0
    """Temperature at first."""
    end: float = 0.1
    """Temperature at the end."""
    priced: bool = False
    """Multiply-adds are in the loss, as alpha log(cost)^beta times it."""
    alpha: float = 0.2
    """Of the cost."""
    beta: float = 0.6
    """Of the cost."""


def _fbnet(job, weights, architecture):
    from jaxnas import hardware
    from jaxnas import weight_sharing as ws

    s = job.settings
    priced = hardware.priced(job.cost(), hardware.fbnet_product(s.alpha, s.beta)) if s.priced else None
    return ws.fbnet(job.net, weights, architecture, temperature=over(job, s.start, s.end), cost=priced)


@dataclasses.dataclass(frozen=True)
class Enas:
    networks: int | None = None
    """Drawn for an update of the controller (default: the space's published number)."""
    hidden: int = 64
    """Units of the controller."""


def _enas(job, weights, architecture):
    from jaxnas import weight_sharing as ws

    del architecture  # the controller's own
    return ws.enas(job.net, weights, networks=job.settings.networks, hidden=job.settings.hidden)


@dataclasses.dataclass(frozen=True)
class TuNas:
    target: float | None = None
    """Multiply-adds to stay at (default: the mean of random architectures)."""
    beta: float = -0.1
    """Reward of the relative distance to the target."""
    networks: int = 1
    """Drawn a step for the policy."""
    warm_up: float = 0.25
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
    moving = base.Phase(ws.tunas(net, weights, adam, cost=priced, networks=s.networks), steps - first, job.batches())
    if not first:
        return base.then(moving)
    full = spaces.widest(job.space) if type(job.space.spec).__name__ == "TunasSpec" else None
    warm = ws.op_warm_up(net, weights, share=optax.linear_schedule(1.0, 0.0, first), full=full)
    handed = lambda state: ws.Given(state.variables, state.opt_state)
    return base.then(base.Phase(warm, first, job.batches(1, 0), name="warm-up"), moving._replace(give=handed))


@dataclasses.dataclass(frozen=True)
class TeNas:
    draws: int = 3
    """Of the weights, to a mean."""
    points: int = 1000
    """Whose linear regions are counted."""


def _te_nas(job: Job):
    """One step less than there are operations, whatever --steps says."""
    from jaxnas import base, nets
    from jaxnas import weight_sharing as ws

    thin = nets.cell_net(job.space, image=(3, 3, 1), classes=job.data.classes, channels=1, cells=1, bare=True)
    pruning = ws.te_nas(job.net, thin, draws=job.settings.draws, points=job.settings.points)
    return base.then(base.Phase(pruning, len(job.space.spec.ops) - 1, job.batches(1, 0)))


ROWS: dict[str, Method] = {
    "darts": Method("softmax mixture, exact second order (Liu et al. 2019)", search(_darts), Darts, (MIXES,)),
    "robust-darts": Method(
        "first order, stopped before the Hessian's eigenvalue rises (Zela et al. 2020)", _robust_darts, EarlyStopping, (MIXES,)
    ),
    "snas": Method("concrete samples on the training loss (Xie et al. 2019)", search(_snas), Snas, (MIXES,)),
    "gdas": Method("straight-through Gumbel, one operation an edge (Dong and Yang 2019)", search(_gdas), Gdas, (MIXES,)),
    "pc-darts": Method(
        "one channel in four, normalised edges (Xu et al. 2020)", search(_pc_darts), PcDarts, (MIXES, CELLS), _partial
    ),
    "drnas": Method("Dirichlet gates (Chen et al. 2021)", search(_drnas), Drnas, (MIXES,)),
    "gaea": Method("exponentiated gradients on the simplex (Li et al. 2021)", search(_gaea), Gaea, (MIXES,)),
    "sdarts": Method(
        "DARTS under random or adversarial perturbations (Chen and Hsieh 2020)", search(_smooth_darts), Perturbed, (MIXES,)
    ),
    "darts-minus": Method(
        "DARTS with an auxiliary skip that fades (Chu et al. 2021)",
        search(_darts),
        FirstOrder,
        (MIXES, CELLS, IMAGES),
        _auxiliary_skip,
    ),
    "beta-darts": Method("DARTS with beta decay (Ye et al. 2022)", search(_beta_darts), BetaDecay, (MIXES,)),
    "darts-pt": Method(
        "DARTS, then operations by what their removal costs (Wang et al. 2021)", _darts_pt, Projection, (MIXES, CELLS)
    ),
    "proxylessnas": Method(
        "binary gates, two paths, a cost in the loss (Cai et al. 2019)", search(_proxylessnas), Proxyless, (MIXES, MOBILE)
    ),
    "fbnet": Method("Gumbel softmax with the sample's cost (Wu et al. 2019)", search(_fbnet), Fbnet, (MIXES,)),
    "enas": Method("REINFORCE of an LSTM on shared weights (Pham et al. 2018)", search(_enas), Enas, (FREE,)),
    "tunas": Method("REINFORCE at a given cost, after a warm-up (Bender et al. 2020)", _tunas, TuNas, (MIXES, COUNTED)),
    "te-nas": Method("pruning at initialisation, without labels (Chen et al. 2021)", _te_nas, TeNas, (ONE_INPUT,)),
}
