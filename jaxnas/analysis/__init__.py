"""What a score, a search or a space is worth: rankings, intervals, calibration, importance, motifs, curves, diagnostics, fronts."""

from jaxnas.analysis import calibration, diagnostics, importance, learning_curves, motifs, pareto, ranking

__all__ = ["calibration", "diagnostics", "importance", "learning_curves", "motifs", "pareto", "ranking"]
