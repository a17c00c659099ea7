"""Black-box algorithms: where to look next, given the scores of what was asked for (`jaxnas.base.AskTell`)."""

from jaxnas.ask_tell.aging_evolution import AgingEvolutionState, aging_evolution
from jaxnas.ask_tell.random_search import random_search

__all__ = ["AgingEvolutionState", "aging_evolution", "random_search"]
