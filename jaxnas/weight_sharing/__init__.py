"""Searches that train one set of shared weights."""

from jaxnas.weight_sharing._adaptive_regularisation import adaptive_regularisation
from jaxnas.weight_sharing._beta_darts import beta_darts
from jaxnas.weight_sharing._darts import darts
from jaxnas.weight_sharing._drnas import drnas
from jaxnas.weight_sharing._early_stopping import early_stopping, measurements, with_measurements
from jaxnas.weight_sharing._enas import enas, final_choice, skip_rate, warm_restarts
from jaxnas.weight_sharing._fairnas import fairnas
from jaxnas.weight_sharing._fbnet import fbnet
from jaxnas.weight_sharing._few_shot import few_shot, pick_child, split_space
from jaxnas.weight_sharing._gaea import gaea
from jaxnas.weight_sharing._gdas import gdas
from jaxnas.weight_sharing._metanas import adapt, metanas, prune_gates, soft_pruning
from jaxnas.weight_sharing._one_shot import one_shot
from jaxnas.weight_sharing._pc_darts import pc_darts
from jaxnas.weight_sharing._proxylessnas import proxylessnas, proxylessnas_reinforce
from jaxnas.weight_sharing._rsws import rsws, two_stage
from jaxnas.weight_sharing._smooth_darts import adversarial, random_noise, smooth_darts
from jaxnas.weight_sharing._snas import snas
from jaxnas.weight_sharing._spos import spos
from jaxnas.weight_sharing._te_nas import te_nas
from jaxnas.weight_sharing._tunas import op_warm_up, tunas
from jaxnas.weight_sharing.base import Given, Gradient, Path, Problem, Weights, WeightSharingState
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.darts_pt import project_edges, project_operations
from jaxnas.weight_sharing.gradients import frozen, pathwise, reinforce_gradient, single_level, two_paths
from jaxnas.weight_sharing.ofa import distillation, in_place_distillation, progressive_shrinking
from jaxnas.weight_sharing.stages import at_most_skips, copy_channels, strongest_operations, widen_variables, widened

__all__ = [
    "Given",
    "Gradient",
    "Path",
    "Problem",
    "WeightSharingState",
    "Weights",
    "adapt",
    "adaptive_regularisation",
    "adversarial",
    "at_most_skips",
    "beta_darts",
    "copy_channels",
    "darts",
    "distillation",
    "drnas",
    "early_stopping",
    "enas",
    "fairnas",
    "fbnet",
    "few_shot",
    "final_choice",
    "frozen",
    "gaea",
    "gdas",
    "in_place_distillation",
    "measurements",
    "metanas",
    "one_shot",
    "op_warm_up",
    "pathwise",
    "pc_darts",
    "pick_child",
    "progressive_shrinking",
    "project_edges",
    "project_operations",
    "proxylessnas",
    "proxylessnas_reinforce",
    "prune_gates",
    "random_noise",
    "reinforce_gradient",
    "rsws",
    "single_level",
    "skip_rate",
    "smooth_darts",
    "snas",
    "soft_pruning",
    "split_space",
    "spos",
    "strongest_operations",
    "te_nas",
    "tunas",
    "two_paths",
    "two_stage",
    "warm_restarts",
    "weight_sharing",
    "widen_variables",
    "widened",
    "with_measurements",
]
