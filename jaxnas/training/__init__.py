"""Training: optimizers, losses, one network from scratch, and bilevel problems."""

from jaxnas.training._criterion import CLASSES, LABELS, NUMBERS, Criterion, balanced, balanced_weights, criterion
from jaxnas.training._metrics import metrics
from jaxnas.training.losses import cross_entropy, soft_cross_entropy
from jaxnas.training.optimizers import adam, adjustable_decay, delayed, sgd
from jaxnas.training.scratch import TrainInfo, TrainState, accuracy, mean_score, outputs, train

__all__ = [
    "CLASSES",
    "LABELS",
    "NUMBERS",
    "Criterion",
    "TrainInfo",
    "TrainState",
    "accuracy",
    "adam",
    "adjustable_decay",
    "balanced",
    "balanced_weights",
    "criterion",
    "cross_entropy",
    "delayed",
    "mean_score",
    "metrics",
    "outputs",
    "sgd",
    "soft_cross_entropy",
    "train",
]
