"""PC-DARTS: one in K channels meets the operations, and a second softmax weighs the edges of a node.

Reference: Xu et al., PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search, ICLR 2020,
arXiv:1907.05737, eq. 1-2.

The partial channels are the net's (`cell_net(..., partial=4)`, see `jaxnas.nets.super_cell`), the edges the policy's
(`jaxnas.policies.edges`).  As published alpha and beta stand still at first: a phase of weight steps alone, then this one,
with `give=lambda state: Given(state.variables, state.opt_state)`.
"""

import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies.edges import edge_normalised
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import adam, sgd
from jaxnas.weight_sharing._darts import order_of
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import pathwise


@checked
def pc_darts(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    order: str = "first",
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The PC-DARTS search.

    Args:
        net: a supernet of partial channels; K = 4 for CIFAR-10.
        weights: default `sgd(0.1)`, annealed to 0 as published.
        architecture: of theta (alpha and beta); default `adam(6e-4)`.
        order: "first" (published), "exact" or "finite_difference".
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], of weights and theta, and the score; default: of classes.

    Raises:
        ValueError: for a space without cells, or an unknown order.
    """
    policy = edge_normalised(net.space)
    gradient = pathwise(policy, architecture or adam(6e-4), order_of(order))
    return weight_sharing(net, policy, gradient, Weights(weights or sgd(0.1), clip, criterion))
