"""FairNAS: every candidate of every layer is trained exactly as often as every other.

Reference: Chu, Zhang and Xu, FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search, ICCV 2021,
arXiv:1907.01845, algorithm 1.

    draw a permutation of the m candidates for each layer;  g <- sum_k grad L_train(w, path k), all on one batch;  w <- sgd(w; g)

One step costs m forward and backward passes: compare it with m steps of another method.

Published (ImageNet): 150 epochs, batch 256, SGD with momentum 0.9 at 0.045 by a cosine, decay 4e-5; then NSGA-II.
"""

import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._uniform import strictly_fair
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import frozen


@checked
def fairnas(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    *,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """Trains a supernet with strict fairness; `best` means nothing before a search on its weights.

    Args:
        net: the supernet, of a space whose decisions are all active and of one arity.
        weights: the weight optimizer, default SGD with momentum at 0.025; it is given the sum of the paths' gradients.
        clip: global norm of the mean gradient over the paths.
        criterion: the loss (logits, y, path) -> [], with a `Path`, and the score; default: of classes.

    Raises:
        ValueError: as `policies.strictly_fair` and `weight_sharing`.
    """
    paths = int(net.space.arity.max())
    summed = optax.chain(optax.scale(paths), weights or sgd(0.025))  # a step hands over the mean
    return weight_sharing(net, strictly_fair(net.space), frozen, Weights(summed, clip, criterion))
