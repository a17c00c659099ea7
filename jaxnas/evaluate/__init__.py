"""Evaluators: what a candidate is worth."""

from jaxnas.evaluate.population import train_from_scratch
from jaxnas.evaluate.table import rows, table

__all__ = ["rows", "table", "train_from_scratch"]
