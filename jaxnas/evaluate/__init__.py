"""Evaluators: what a candidate is worth."""

from jaxnas.evaluate.population import train_from_scratch
from jaxnas.evaluate.proxies import zero_cost
from jaxnas.evaluate.shared import shared_weights
from jaxnas.evaluate.table import rows, table

__all__ = ["rows", "shared_weights", "table", "train_from_scratch", "zero_cost"]
