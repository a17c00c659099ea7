"""Black-box algorithms: where to look next, given the scores of what was asked for (`jaxnas.base.AskTell`)."""

from jaxnas.ask_tell._aging_evolution import AgingEvolutionState, aging_evolution, tournament_evolution
from jaxnas.ask_tell._asha import asha
from jaxnas.ask_tell._bayesian import BayesianState, bayesian, log_error, mutants_of_best, neighbors_of_best, pool, random_draws
from jaxnas.ask_tell._bohb import KernelModel, bohb
from jaxnas.ask_tell._constrained_evolution import cheapest, constrained_evolution
from jaxnas.ask_tell._genetic import GeneticState, genetic
from jaxnas.ask_tell._hyperband import hyperband, hyperband_plan
from jaxnas.ask_tell._local_search import LocalSearchState, local_search
from jaxnas.ask_tell._nsga2 import NSGA2State, nsga2
from jaxnas.ask_tell._policy_gradient import PolicyGradientState, policy_gradient
from jaxnas.ask_tell._portfolio import portfolio
from jaxnas.ask_tell._progressive import Growth, ProgressiveState, growing_blocks, growing_edges, progressive
from jaxnas.ask_tell._q_learning import QLearningState, mdp_of, q_learning
from jaxnas.ask_tell._random_search import random_search
from jaxnas.ask_tell._tpe import TPEState, tpe
from jaxnas.ask_tell._warm_start import warm_start
from jaxnas.ask_tell.halving import brackets, successive_halving
from jaxnas.ask_tell.trial import Trial

__all__ = [
    "AgingEvolutionState",
    "BayesianState",
    "GeneticState",
    "Growth",
    "KernelModel",
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
    "mutants_of_best",
    "neighbors_of_best",
    "nsga2",
    "policy_gradient",
    "pool",
    "portfolio",
    "progressive",
    "q_learning",
    "random_draws",
    "random_search",
    "successive_halving",
    "tournament_evolution",
    "tpe",
    "warm_start",
]
