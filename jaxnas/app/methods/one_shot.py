"""Rows: one supernet trained on samples, and a search on its weights."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from jaxnas.app.methods.base import BANKS, ELASTIC, IMAGES, MIXES, Job, Method, Plan
from jaxnas.app.methods.evaluators import with_costs
from jaxnas.kinds import NonNegative, NonNegativeNumber, Positive, PositiveNumber, Probability, ProbabilityBelowOne

if TYPE_CHECKING:
    import optax

    from jaxnas.base import Phase, Strategy


@dataclasses.dataclass(frozen=True)
class Evolution:
    generations: Positive = 10
    """Of the evolution on the trained weights."""
    candidates: Positive = 20
    """A generation."""


def on_shared_weights(
    job: Job,
    statistics: str = "recalibrated",
    pick: Callable[[Any, Any], Any] | None = None,
    handed: Callable[[Any], Any] = lambda state: state.variables,
) -> "Phase":
    """The phase of evolution on the weights that the phase before has trained."""
    from jaxnas import ask_tell, base, evaluate, objectives

    s = job.settings
    if s.candidates < 2 or s.generations < 1:
        raise ValueError(f"evolution takes 2 candidates or more, and a generation: got {s.candidates} and {s.generations}")
    half = s.candidates // 2
    nothing: Any = lambda arch: 0.0  # without a limit
    free = ask_tell.constrained_evolution(job.space, nothing, 1.0, s.candidates, half, s.candidates - half, half)
    judged = evaluate.shared_weights(job.net, statistics, pick, job.criterion)
    scored = base.black_box(free, judged, objectives.metric(job.criterion.name))
    return base.Phase(scored, s.generations, job.judge(), fix=handed)


@dataclasses.dataclass(frozen=True)
class Front:
    generations: Positive = 10
    """Of NSGA-II on the trained weights (published: 200)."""
    population: Positive = 20
    """Architectures of a generation (published: 64)."""
    limit: PositiveNumber | None = None
    """The most multiply-adds that the answer may have (default: none); the front holds to it, too."""


def front_on_shared_weights(job: Job) -> "Phase":
    """The phase of NSGA-II on the weights that the phase before has trained: a good score, few multiply-adds, few parameters.

    The whole front is in its state.  The answer is the best score in it.
    """
    from jaxnas import ask_tell, base, evaluate, nets, objectives

    s = job.settings
    if s.population < 2:
        raise ValueError(f"a front needs a population of 2 or more: got {s.population}")
    population = int(min(s.population, job.space.size))
    limits = [] if s.limit is None else [objectives.below("multiply_adds", s.limit)]
    algorithm = ask_tell.nsga2(job.space, 3, population=population, constraints=len(limits))
    costs = dict(multiply_adds=job.cost(), parameters=functools.partial(nets.count_used, job.net))
    judged = with_costs(evaluate.shared_weights(job.net, criterion=job.criterion), job.space, **costs)
    few = map(objectives.negative, costs)
    wanted = objectives.columns(objectives.metric(job.criterion.name), *few, *limits)
    return base.Phase(base.black_box(algorithm, judged, wanted), s.generations, job.judge(), fix=lambda state: state.variables)


def supernet(make: Callable[[Job], "Strategy"], statistics: str = "recalibrated") -> Plan:
    """The plan of two phases: make(job) -> the strategy that trains the weights; then evolution on them."""

    def plan(job: Job):
        from jaxnas import base

        train = base.Phase(make(job), job.config.steps, job.batches(arch_steps=0), name="supernet")
        return base.then(train, on_shared_weights(job, statistics))

    return plan


def weights_of(job: Job, **more: Any) -> "optax.GradientTransformation":
    from jaxnas import training

    return training.sgd(job.cosine(job.config.steps), **more)


def _spos(job):
    from jaxnas import weight_sharing as ws

    return ws.spos(job.net, weights_of(job), criterion=job.criterion)


def _fairnas(job: Job):
    from jaxnas import base
    from jaxnas import weight_sharing as ws

    fair = ws.fairnas(job.net, weights_of(job), criterion=job.criterion)
    train = base.Phase(fair, job.config.steps, job.batches(arch_steps=0), name="supernet")
    return base.then(train, front_on_shared_weights(job))


@dataclasses.dataclass(frozen=True)
class OneShot(Evolution):
    rate: Probability = 0.1
    """The odds that a node loses all its paths, once the warm-up is over."""
    ghosts: Positive = 1
    """Ghost batches in a batch."""
    decay: NonNegativeNumber = 3e-4
    """L2 of the weights of paths that are there."""


def _one_shot(job):
    import optax

    from jaxnas import weight_sharing as ws

    s, rising = job.settings, optax.linear_schedule(0.0, 1.0, job.config.steps)
    own = dict(rate=s.rate, ghosts=s.ghosts, decay=s.decay)
    return ws.one_shot(job.net, weights_of(job, weight_decay=0.0), warm_up=rising, criterion=job.criterion, **own)


@dataclasses.dataclass(frozen=True)
class FewShot(Evolution):
    decisions: tuple[NonNegative, ...] = (0,)
    """The decisions that are split, by number: a supernet for each of their values."""
    share: Probability = 0.5
    """Of the steps that train the one supernet before it is split."""


def _few_shot(job: Job):
    from jaxnas import base
    from jaxnas import weight_sharing as ws

    s, steps = job.settings, job.config.steps
    if not 0 < s.share < 1 or steps < 2:
        raise ValueError(f"--strategy.share is a part of the steps, above 0 and below 1, of 2 steps or more: got {s.share}")
    first = min(max(1, round(s.share * steps)), steps - 1)
    parent = base.Phase(_spos(job), first, job.batches(arch_steps=0), name="supernet")
    children = ws.few_shot(job.net, weights_of(job), decisions=s.decisions, criterion=job.criterion)
    handed = lambda state: ws.Given(state.variables)
    split = base.Phase(children, steps - first, job.batches(arch_steps=0), handed, name="children")
    return base.then(parent, split, on_shared_weights(job, pick=ws.pick_child(job.space, s.decisions)))


@dataclasses.dataclass(frozen=True)
class RandomChoice:
    candidates: Positive = 200
    """Random architectures that are scored on the trained weights (published: 1,000)."""


def _rsws(job: Job):
    from jaxnas import ask_tell, base, evaluate, objectives
    from jaxnas import weight_sharing as ws

    n = job.settings.candidates
    judged = evaluate.shared_weights(job.net, criterion=job.criterion)
    scored = base.black_box(ask_tell.random_search(job.space), judged, objectives.metric(job.criterion.name))
    return base.then(
        base.Phase(
            ws.rsws(job.net, weights_of(job), criterion=job.criterion), job.config.steps, job.batches(arch_steps=0), name="supernet"
        ),
        base.Phase(scored, n, job.judge(), fix=lambda state: state.variables),
    )


def _ofa(job: Job):
    """Progressive shrinking: the steps are split evenly over its stages."""
    from jaxnas import base
    from jaxnas import weight_sharing as ws
    from jaxnas.weight_sharing.ofa import distillation, stages

    names = [stage.name for stage in stages(job.space)]
    if job.config.steps < len(names):
        raise ValueError(f"progressive shrinking of this space has {len(names)} stages: give at least as many --steps")
    n = job.config.steps // len(names)
    steps = {name: n for name in names} | {names[0]: job.config.steps - n * (len(names) - 1)}
    taught = distillation(criterion=job.criterion)
    shrinking = ws.progressive_shrinking(job.net, steps=steps, data=job.batches(arch_steps=0), criterion=taught)
    handed = lambda state: getattr(state, "search", state).variables
    return base.then(*shrinking, on_shared_weights(job, handed=handed))


@dataclasses.dataclass(frozen=True)
class Sandwich(Evolution):
    paths: Positive = 4
    """Networks a step: the largest, the smallest, and random ones."""
    smoothing: ProbabilityBelowOne | None = None
    """Of the labels that the largest one learns (default: 0.1 for classes, else none)."""


def _sandwich(job):
    from jaxnas import weight_sharing as ws

    own = dict(paths=job.settings.paths, smoothing=job.settings.smoothing)
    return ws.in_place_distillation(job.net, weights_of(job), criterion=job.criterion, **own)


@dataclasses.dataclass(frozen=True)
class Smash(Evolution):
    width: Positive = 16
    """Channels that each layer of the HyperNet adds."""
    depth: Positive = 4
    """Layers of the HyperNet."""


def _hyper(job: Job) -> dict:
    return {"hyper": (job.settings.width, job.settings.depth)}


@dataclasses.dataclass(frozen=True)
class MetaNas:
    order: Literal["first", "second"] = "first"
    """Reptile, or MAML: the gradient of a further batch's loss through all steps of a task."""
    tasks: Positive = 4
    """Tasks of a meta-step; each is a draw of batches of the one data set."""
    task_steps: Positive = 5
    """Steps of the search within a task."""
    rate: PositiveNumber = 0.01
    """Of the meta-optimizer, Adam."""
    start: PositiveNumber = 1.0
    """Temperature at a task's beginning."""
    end: PositiveNumber = 0.1
    """Temperature at its end."""
    pairs: bool = False
    """Choose a pair of inputs for each node, too, where cells have two inputs (published: yes)."""


def _metanas(job: Job):
    import optax

    from jaxnas import base, data, policies, training
    from jaxnas import weight_sharing as ws

    s = job.settings
    soft = policies.input_pairs if s.pairs else ws.soft_pruning
    policy = soft(job.space, optax.linear_schedule(s.start, s.end, max(1, s.task_steps - 1)))
    second = s.order == "second"
    architecture = training.adam(job.config.arch_learning_rate, eps_root=1e-8 if second else 0.0)
    weights = ws.Weights(training.sgd(job.config.learning_rate), criterion=job.criterion)
    search = ws.weight_sharing(job.net, policy, ws.pathwise(policy, architecture), weights)
    feed = data.epochs(data.epochs(job.batches(), s.task_steps + second), s.tasks)
    return base.then(base.Phase(ws.metanas(search, optax.adam(s.rate), s.order), job.config.steps, feed))


ROWS: dict[str, Method] = {
    "spos": Method(
        "one supernet trained on uniform single paths, then evolution on its weights (Guo et al. 2020)",
        supernet(_spos),
        Evolution,
        (IMAGES,),
    ),
    "fairnas": Method(
        "every operation trained equally often, then NSGA-II on score, multiply-adds, parameters (Chu et al. 2021)",
        _fairnas,
        Front,
        (IMAGES,),
    ),
    "one-shot": Method(
        "one supernet of all paths with path dropout, then evolution (Bender et al. 2018)",
        supernet(_one_shot, "batch"),
        OneShot,
        (MIXES, IMAGES),
    ),
    "few-shot": Method("a few supernets, each of a part of the space (Zhao et al. 2021)", _few_shot, FewShot, (IMAGES,)),
    "rsws": Method("uniform paths, then the best of random ones (Li and Talwalkar 2019)", _rsws, RandomChoice, (IMAGES,)),
    "ofa": Method(
        "progressive shrinking, then evolution (Cai et al. 2020)",
        _ofa,
        Evolution,
        (ELASTIC,),
        space="elastic",
    ),
    "sandwich": Method(
        "all sizes at once, the largest the teacher (Yu et al. 2020)",
        supernet(_sandwich),
        Sandwich,
        (ELASTIC,),
        space="elastic",
    ),
    "smash": Method(
        "weights from a HyperNet that sees the architecture (Brock et al. 2018)",
        supernet(_spos),
        Smash,
        (BANKS,),
        _hyper,
        space="memory-bank",
    ),
    "metanas": Method("Reptile or MAML over tasks of a search (Elsken et al. 2020)", _metanas, MetaNas, (MIXES, IMAGES)),
}
