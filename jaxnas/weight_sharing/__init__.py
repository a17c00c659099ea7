"""Searches that train one set of shared weights."""

from jaxnas.weight_sharing.darts import adam, darts, sgd
from jaxnas.weight_sharing.gradients import none, pathwise
from jaxnas.weight_sharing.weight_sharing import Given, Gradient, Problem, WeightSharingState, cross_entropy, weight_sharing

__all__ = [
    "Given",
    "Gradient",
    "Problem",
    "WeightSharingState",
    "adam",
    "cross_entropy",
    "darts",
    "none",
    "pathwise",
    "sgd",
    "weight_sharing",
]
