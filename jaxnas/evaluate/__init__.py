"""Evaluators: what a candidate is worth."""

from jaxnas.evaluate._surrogate import surrogate
from jaxnas.evaluate._table import rows, table
from jaxnas.evaluate.fidelity import Fidelity
from jaxnas.evaluate.population import train_from_scratch
from jaxnas.evaluate.proxies import zero_cost
from jaxnas.evaluate.shared import shared_weights
from jaxnas.evaluate.trials import Held, by_budget, train_trials

__all__ = [
    "Fidelity",
    "Held",
    "by_budget",
    "rows",
    "shared_weights",
    "surrogate",
    "table",
    "train_from_scratch",
    "train_trials",
    "zero_cost",
]
