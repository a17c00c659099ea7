"""Pictures of cells, of architecture weights and of training: functions that return a matplotlib Figure."""

from jaxnas.plot._importance import importance
from jaxnas.plot.cells import architecture, gates
from jaxnas.plot.figure import save
from jaxnas.plot.lines import compare, curves, regret, scatter

__all__ = ["architecture", "compare", "curves", "gates", "importance", "regret", "save", "scatter"]
