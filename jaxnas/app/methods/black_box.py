"""Rows: algorithms that ask for candidates; what one is worth, an evaluator says (`jaxnas.app.methods.evaluators`)."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxnas.app.methods.base import FREE, HAND_MADE, Method, Need
from jaxnas.app.settings import NoSettings
from jaxnas.kinds import NonNegative, Positive, PositiveNumber, Share

# --- algorithms: (space, budget, settings, cost) -> AskTell -----------------------------------------------------------


def asked(about: str, make: Callable[..., Any], settings: type = NoSettings, **more: Any) -> Method:
    """The row of an algorithm that asks for candidates."""
    return Method(about, settings=settings, algorithm=make, **more)


def _random(space, budget, settings, cost):
    from jaxnas import ask_tell

    return ask_tell.random_search(space)


@dataclasses.dataclass(frozen=True)
class Local:
    steepest: bool = False
    """Ask for the whole neighbourhood before a move."""
    initial: Positive = 1
    """Random architectures from the best of which a climb starts."""


def _local(space, budget, settings, cost):
    from jaxnas import ask_tell

    return ask_tell.local_search(space, capacity=budget, **dataclasses.asdict(settings))


@dataclasses.dataclass(frozen=True)
class Tournament:
    population: Positive = 10
    """Architectures that live at once (published: 100; NATS-Bench: 10)."""
    tournament: Positive = 3
    """Of them that compete to be the parent (published: 25; NATS-Bench: 3)."""


def _aging(space, budget, settings, cost):
    from jaxnas import ask_tell

    return ask_tell.aging_evolution(space, population=min(settings.population, budget), tournament=settings.tournament)


def _tournament(space, budget, settings, cost):
    from jaxnas import ask_tell

    return ask_tell.tournament_evolution(space, population=min(settings.population, budget), tournament=settings.tournament)


@dataclasses.dataclass(frozen=True)
class Genetic:
    population: Positive = 20
    """Parents, and children a generation."""


def _genetic(space, budget, settings, cost):
    from jaxnas import ask_tell

    return ask_tell.genetic(space, population=min(settings.population, budget, space.size))


@dataclasses.dataclass(frozen=True)
class Constrained:
    limit: PositiveNumber | None = None
    """The most multiply-adds that a candidate may have."""
    candidates: Positive = 10
    """A generation; half of them mutants, half children."""
    parents: Positive = 5
    """The best so far, of which they come."""


def _constrained(space, budget, settings, cost):
    from jaxnas import ask_tell

    if settings.limit is None:
        raise ValueError("constrained evolution needs a limit: give --strategy.limit, in multiply-adds of one example")
    n, half = settings.candidates, settings.candidates // 2
    priced = lambda arch: cost(space.gates(arch))
    sizes = dict(batch=n, parents=settings.parents, mutants=n - half, children=half, capacity=max(budget, n))
    return ask_tell.constrained_evolution(space, priced, settings.limit, **sizes)


@dataclasses.dataclass(frozen=True)
class Reinforce:
    rate: PositiveNumber = 0.1
    """Of Adam."""
    batch: Positive = 1
    """Candidates an update."""


def _reinforce(space, budget, settings, cost):
    import optax

    from jaxnas import ask_tell, policies

    policy = policies.categorical(space)
    update = policies.reinforce(policy, optax.adam(settings.rate))
    return ask_tell.policy_gradient(space, policy, update, batch=settings.batch)


@dataclasses.dataclass(frozen=True)
class Ppo:
    rate: PositiveNumber = 1e-3
    """Of Adam."""
    batch: Positive = 5
    """Candidates an update."""
    hidden: Positive = 100
    """Units of the LSTM."""


def _ppo(space, budget, settings, cost):
    import optax

    from jaxnas import ask_tell, policies

    policy = policies.controller(space, hidden=settings.hidden, layers=1, scale=0.1)
    update = policies.ppo(policy, optax.adam(settings.rate))
    return ask_tell.policy_gradient(space, policy, update, batch=settings.batch)


@dataclasses.dataclass(frozen=True)
class QLearning:
    alpha: Share = 0.3
    """The learning rate, for a few hundred candidates (published, for 2,700: 0.01)."""
    replay: NonNegative = 128
    """Trajectories replayed a candidate."""


def _q_learning(space, budget, settings, cost):
    from jaxnas import ask_tell

    shape = ((1.0, 0.4), (0.5, 0.2), (0.2, 0.2), (0.1, 0.2))  # the published schedule's, on the budget
    schedule = tuple((epsilon, max(1, int(share * budget))) for epsilon, share in shape)
    return ask_tell.q_learning(ask_tell.mdp_of(space), schedule, **dataclasses.asdict(settings))


@dataclasses.dataclass(frozen=True)
class Tpe:
    initial: Positive = 20
    """Random candidates first."""


def _tpe(space, budget, settings, cost):
    from jaxnas import ask_tell

    return ask_tell.tpe(space, capacity=budget, initial=min(settings.initial, budget))


@dataclasses.dataclass(frozen=True)
class GaussianProcess:
    initial: Positive = 10
    """Random candidates first."""
    options: Positive = 500
    """Random architectures among which the next one is chosen, beside neighbours of the five best."""


def _gp(space, budget, settings, cost):
    from jaxnas import ask_tell, surrogates

    options = ask_tell.pool(ask_tell.random_draws(space, settings.options), ask_tell.neighbors_of_best(space, 5))
    model, wish = surrogates.gaussian_process(surrogates.overlap(space)), surrogates.expected_improvement()
    return ask_tell.bayesian(space, model, wish, options, capacity=budget, initial=min(settings.initial, budget))


@dataclasses.dataclass(frozen=True)
class Bananas:
    batch: Positive = 10
    """Candidates between two fits, and random ones first."""
    mutants: Positive = 100
    """Of the best, among which the next ones are chosen."""


def _bananas(space, budget, settings, cost):
    from jaxnas import ask_tell, surrogates
    from jaxnas.spaces.cell import CellSpec

    cell, batch = space.spec, min(settings.batch, budget)
    paths = isinstance(cell, CellSpec) and cell.inputs == 1 and not cell.kinds
    encode = surrogates.path_encoding(space) if paths else space.features
    model, wish = surrogates.ensemble(surrogates.Perceptron(), encode), surrogates.independent_thompson()
    options = ask_tell.mutants_of_best(space, settings.mutants, 5)
    return ask_tell.bayesian(space, model, wish, options, capacity=budget, initial=batch, batch=batch)


@dataclasses.dataclass(frozen=True)
class Pnas:
    beam: Positive = 16
    """Cells that go on to the next size (published: 256)."""


def _pnas(space, budget, settings, cost):
    from jaxnas import ask_tell, surrogates

    blocks = type(space.spec).__name__ == "BlockSpec"
    growth = ask_tell.growing_blocks(space) if blocks else ask_tell.growing_edges(space)
    model = surrogates.ensemble(surrogates.Perceptron(), space.features)
    return ask_tell.progressive(growth, model, beam=settings.beam)


GROWING = Need("cells that grow: pnas or nasbench201", lambda net: _grows(net.space))


def _grows(space) -> bool:
    spec, kind = space.spec, type(space.spec).__name__
    if kind == "BlockSpec":
        return not spec.kinds
    return kind == "CellSpec" and spec.inputs == 1 and len(space.arity) == len(spec.edges)


DECISIONS = Need("a fixed list of decisions", lambda net: net.space.decisions is not None)


@dataclasses.dataclass(frozen=True)
class Budgets:
    largest: Positive = 9
    """The largest budget, of --candidate-steps training steps; the smallest is 1."""
    eta: Positive = 3
    """One in eta goes on."""


@dataclasses.dataclass(frozen=True)
class Halving(Budgets):
    members: Positive = 9
    """New members of a run."""


def _halving(space, budget, settings, cost):
    from jaxnas import ask_tell

    return ask_tell.successive_halving(space, settings.members, 1, settings.largest, settings.eta)


def _hyperband(space, budget, settings, cost):
    from jaxnas import ask_tell

    return ask_tell.hyperband(space, settings.largest, settings.eta)


def _members(settings) -> int:
    return settings.members


def _widest(settings) -> int:
    from jaxnas import ask_tell

    return ask_tell.hyperband_plan(settings.largest, settings.eta)[0][0].members


@dataclasses.dataclass(frozen=True)
class Asha(Budgets):
    members: Positive = 32
    """Kept at once; beyond it the oldest is forgotten."""


def _asha(space, budget, settings, cost):
    from jaxnas import ask_tell

    return ask_tell.asha(space, settings.largest, 1, settings.eta, capacity=settings.members)


def _bohb(space, budget, settings, cost):
    from jaxnas import ask_tell

    enough = len(space.arity) + 3  # scores of one budget that its model needs
    return ask_tell.bohb(space, settings.largest, capacity=max(budget, enough), eta=settings.eta)


@dataclasses.dataclass(frozen=True)
class Nsga2:
    population: Positive = 10
    """Architectures of a generation; the objectives are accuracy and few multiply-adds."""


def _nsga2(space, budget, settings, cost):
    from jaxnas import ask_tell

    return ask_tell.nsga2(space, 2, population=settings.population)


LISTED = (DECISIONS,)


@dataclasses.dataclass(frozen=True)
class Portfolio:
    parents: Positive = 4
    """Of the best so far, one of which each new network is a mutant of."""


def _portfolio(space, budget, settings, cost):
    raise ValueError("portfolio begins with hand-made networks, which this space has none of: search --space macro")


ROWS: dict[str, Method] = {
    "portfolio": Method(
        "hand-made networks with several trainings, halved, then mutants of the best; against random ones",
        settings=Portfolio,
        needs=(HAND_MADE,),
        algorithm=_portfolio,
        asks="trials",
        space="macro",
    ),
    "random": asked("random search: uniform draws", _random),
    "local": asked("local search, first improvement with restarts (White et al. 2021)", _local, Local, needs=LISTED),
    "aging": asked("aging evolution (Real et al. 2019), sized as NATS-Bench's", _aging, Tournament),
    "tournament": asked("tournament evolution: the worst dies, not the oldest", _tournament, Tournament),
    "genetic": asked("genetic algorithm, as many children as parents", _genetic, Genetic),
    "constrained-evolution": asked("evolution among what a limit allows (Guo et al. 2020)", _constrained, Constrained),
    "reinforce": asked("REINFORCE on independent categoricals", _reinforce, Reinforce, needs=(DECISIONS, FREE)),
    "ppo": asked("PPO on an LSTM controller (Zoph et al. 2018)", _ppo, Ppo, needs=(DECISIONS, FREE), at_once=16),
    "q-learning": asked("MetaQNN's Q-learning (Baker et al. 2017)", _q_learning, QLearning, at_once=64),
    "tpe": asked("tree-structured Parzen estimator (Bergstra et al. 2011)", _tpe, Tpe, needs=LISTED, at_once=64),
    "gp": asked("Gaussian process on overlaps, expected improvement", _gp, GaussianProcess, needs=LISTED, at_once=8),
    "bananas": asked("ensemble on paths, Thompson, mutants (White et al. 2021)", _bananas, Bananas, needs=LISTED, at_once=8),
    "pnas": asked("progressive search with a surrogate (Liu et al. 2018)", _pnas, Pnas, needs=(GROWING,), at_once=8),
    "halving": asked("successive halving (Jamieson and Talwalkar 2016)", _halving, Halving, asks="trials", slots=_members),
    "hyperband": asked("Hyperband (Li et al. 2018)", _hyperband, Budgets, asks="trials", slots=_widest),
    "asha": asked("asynchronous successive halving (Li et al. 2020)", _asha, Asha, asks="trials", slots=_members),
    "bohb": asked(
        "Hyperband with a Parzen estimator (Falkner et al. 2018)", _bohb, Budgets, asks="trials", slots=_widest, needs=LISTED
    ),
    "nsga2": asked("NSGA-II: accuracy and multiply-adds (Deb et al. 2002; Lu et al. 2019)", _nsga2, Nsga2, asks="fronts"),
}
