"""Single Path One-Shot: a supernet trained on one uniform path a batch, searched by evolution afterwards.

Reference: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020, arXiv:1904.00420.

    1   w <- sgd(w; grad L_train(w, a)),  a uniform                    only a's weights, momenta and statistics move
    2   argmax_a accuracy_valid(w, a) under a cost limit               statistics of a's own: `evaluate.shared_weights`,
                                                                       `ask_tell.constrained_evolution`
    3   train the answer from scratch

Published (ImageNet): 150,000 steps, batch 1,024, rate 0.5 falling linearly to 0, decay 4e-5, label smoothing 0.1.
"""

import optax
from numpy.typing import ArrayLike

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._uniform import uniform
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import frozen


@checked
def spos(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    *,
    allowed: ArrayLike | None = None,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """Trains a supernet on uniform single paths; `best` means nothing before a search on its weights.

    Args:
        net: the supernet.
        weights: the weight optimizer, default SGD with momentum at 0.025.
        allowed: bool[D, A], the values that may be drawn; default: all.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], with a `Path`, and the score; default: of classes.

    Raises:
        ValueError: as `policies.uniform` and `weight_sharing`.
    """
    return weight_sharing(net, uniform(net.space, allowed=allowed), frozen, Weights(weights or sgd(0.025), clip, criterion))
