"""Searches that train one set of shared weights."""

from jaxnas.weight_sharing.beta_darts import beta_darts
from jaxnas.weight_sharing.darts import adam, darts, sgd
from jaxnas.weight_sharing.darts_pt import project_edges, project_operations
from jaxnas.weight_sharing.drnas import drnas
from jaxnas.weight_sharing.enas import enas, final_choice, skip_rate, warm_restarts
from jaxnas.weight_sharing.fairnas import fairnas
from jaxnas.weight_sharing.fbnet import fbnet
from jaxnas.weight_sharing.few_shot import child, few_shot, parts
from jaxnas.weight_sharing.gaea import gaea
from jaxnas.weight_sharing.gdas import gdas
from jaxnas.weight_sharing.gradients import joint, none, pathwise, score, two_paths
from jaxnas.weight_sharing.metanas import adapt, metanas, pruned, soft_pruning
from jaxnas.weight_sharing.ofa import distillation, in_place_distillation, progressive_shrinking
from jaxnas.weight_sharing.one_shot import one_shot
from jaxnas.weight_sharing.pc_darts import pc_darts
from jaxnas.weight_sharing.proxylessnas import proxylessnas, proxylessnas_reinforce
from jaxnas.weight_sharing.robust_darts import early_stopping, epochs, measurements, watch
from jaxnas.weight_sharing.rsws import rsws, two_stage
from jaxnas.weight_sharing.smooth_darts import adversarial, random_noise, smooth_darts
from jaxnas.weight_sharing.snas import snas
from jaxnas.weight_sharing.spos import spos
from jaxnas.weight_sharing.stages import at_most_skips, narrowed, widened
from jaxnas.weight_sharing.te_nas import te_nas
from jaxnas.weight_sharing.tunas import op_warm_up, tunas
from jaxnas.weight_sharing.weight_sharing import Given, Gradient, Path, Problem, WeightSharingState, weight_sharing

__all__ = [
    "Given",
    "Gradient",
    "Path",
    "Problem",
    "WeightSharingState",
    "adam",
    "adapt",
    "adversarial",
    "at_most_skips",
    "beta_darts",
    "child",
    "darts",
    "distillation",
    "drnas",
    "early_stopping",
    "enas",
    "epochs",
    "fairnas",
    "fbnet",
    "few_shot",
    "final_choice",
    "gaea",
    "gdas",
    "in_place_distillation",
    "joint",
    "measurements",
    "metanas",
    "narrowed",
    "none",
    "one_shot",
    "op_warm_up",
    "parts",
    "pathwise",
    "pc_darts",
    "progressive_shrinking",
    "project_edges",
    "project_operations",
    "proxylessnas",
    "proxylessnas_reinforce",
    "pruned",
    "random_noise",
    "rsws",
    "score",
    "sgd",
    "skip_rate",
    "smooth_darts",
    "snas",
    "soft_pruning",
    "spos",
    "te_nas",
    "tunas",
    "two_paths",
    "two_stage",
    "warm_restarts",
    "watch",
    "weight_sharing",
    "widened",
]
