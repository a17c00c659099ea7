"""Black-box algorithms: where to look next, given the scores of what was asked for (`jaxnas.base.AskTell`)."""

from jaxnas.ask_tell.aging_evolution import AgingEvolutionState, aging_evolution, tournament_evolution
from jaxnas.ask_tell.asha import asha
from jaxnas.ask_tell.bayesian import (
    BayesianState,
    bayesian,
    log_error,
    mutants_of_best,
    neighbors_of_best,
    pool,
    random_draws,
)
from jaxnas.ask_tell.bohb import bohb
from jaxnas.ask_tell.constrained_evolution import cheapest, constrained_evolution
from jaxnas.ask_tell.genetic import GeneticState, genetic
from jaxnas.ask_tell.halving import brackets, successive_halving
from jaxnas.ask_tell.hyperband import hyperband, hyperband_plan
from jaxnas.ask_tell.local_search import LocalSearchState, local_search
from jaxnas.ask_tell.nsga2 import NSGA2State, nsga2
from jaxnas.ask_tell.policy_gradient import PolicyGradientState, policy_gradient
from jaxnas.ask_tell.progressive import Growth, ProgressiveState, growing_blocks, growing_edges, progressive
from jaxnas.ask_tell.q_learning import MDP, QLearningState, mdp_of, metaqnn, q_learning
from jaxnas.ask_tell.random_search import random_search
from jaxnas.ask_tell.tpe import TPEState, tpe
from jaxnas.ask_tell.trial import Trial
from jaxnas.ask_tell.warm_start import warm_start

__all__ = [
    "MDP",
    "AgingEvolutionState",
    "BayesianState",
    "GeneticState",
    "Growth",
    "LocalSearchState",
    "NSGA2State",
    "PolicyGradientState",
    "ProgressiveState",
    "QLearningState",
    "TPEState",
    "Trial",
    "aging_evolution",
    "asha",
    "bayesian",
    "bohb",
    "brackets",
    "cheapest",
    "constrained_evolution",
    "genetic",
    "growing_blocks",
    "growing_edges",
    "hyperband",
    "hyperband_plan",
    "local_search",
    "log_error",
    "mdp_of",
    "metaqnn",
    "mutants_of_best",
    "neighbors_of_best",
    "nsga2",
    "policy_gradient",
    "pool",
    "progressive",
    "q_learning",
    "random_draws",
    "random_search",
    "successive_halving",
    "tournament_evolution",
    "tpe",
    "warm_start",
]
