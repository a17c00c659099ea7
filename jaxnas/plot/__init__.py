"""Pictures of cells, of architecture weights and of training: functions that return a matplotlib Figure."""

from jaxnas.plot.cells import alphas, architecture
from jaxnas.plot.figure import save
from jaxnas.plot.importance import importance
from jaxnas.plot.lines import compare, curves, regret, scatter

__all__ = ["alphas", "architecture", "compare", "curves", "importance", "regret", "save", "scatter"]
