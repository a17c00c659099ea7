"""GAEA: architecture parameters on the simplex, moved by exponentiated gradients.

Reference: Li, Khodak, Balcan and Talwalkar, Geometry-Aware Gradient Algorithms for Neural Architecture Search, ICLR 2021,
arXiv:2004.07802.

    theta <- theta exp(-eta grad) / sum,  row by row, in place of a softmax and Adam

Published both with a validation batch (bilevel) and on the training loss alone (ERM, single level); on PC-DARTS's net the weights
of the edges are moved alike, those that meet in a node together.
"""

import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._simplex import exponentiated, simplex
from jaxnas.policies.edges import edge_simplex, exponentiated_edges
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing import gradients
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing


@checked
def gaea(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    single_level: bool = False,
    edges: bool = False,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The GAEA DARTS search, first order.

    Args:
        net: a supernet.
        weights: default `sgd(0.025)`.
        architecture: keeps theta on its simplices; default `policies.exponentiated(0.1)`, with edges
            `policies.exponentiated_edges(net.space, 0.1)`.
        single_level: theta follows the training loss of the weights' step (ERM); the batches then need no validation part.
        edges: weights of edges as well (GAEA PC-DARTS, with `cell_net(..., partial=4)`).
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], of weights and theta, and the score; default: of classes.

    Raises:
        ValueError: for edges of a space that has none.
    """
    space = net.space
    policy = edge_simplex(space) if edges else simplex(space)
    if architecture is None:
        architecture = exponentiated_edges(space) if edges else exponentiated()
    gradient = gradients.single_level(architecture) if single_level else gradients.pathwise(policy, architecture)
    return weight_sharing(net, policy, gradient, Weights(weights or sgd(0.025), clip, criterion))
