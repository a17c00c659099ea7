"""What a score, a search or a space is worth: rankings and intervals, importance, motifs, curves, diagnostics, fronts."""

from jaxnas.analysis import diagnostics, importance, learning_curves, motifs, pareto, ranking

__all__ = ["diagnostics", "importance", "learning_curves", "motifs", "pareto", "ranking"]
