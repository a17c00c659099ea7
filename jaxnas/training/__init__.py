"""Training: optimizers, losses, one network from scratch, and bilevel problems."""

from jaxnas.training.losses import cross_entropy, soft_cross_entropy
from jaxnas.training.optimizers import adam, sgd
from jaxnas.training.scratch import TrainInfo, TrainState, accuracy, train

__all__ = ["TrainInfo", "TrainState", "accuracy", "adam", "cross_entropy", "sgd", "soft_cross_entropy", "train"]
