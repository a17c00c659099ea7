"""DARTS: softmax mixture x hypergradient of the validation loss.

Reference: Liu, Simonyan and Yang, DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055.

    alpha <- alpha - Adam( d/dalpha L_valid(w', alpha) ),    w' = w - eta (m buf + grad_w L_train(w, alpha) + lambda w)
    w     <- w - SGD( clip(grad_w L_train(w, alpha)) )

The published second order approximates the product of second derivatives by a central difference; here it is exact.
"""

import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._softmax import softmax
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.bilevel import Method, finite_difference, first_order, unrolled
from jaxnas.training.optimizers import adam, sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import pathwise

ORDERS = {"exact": unrolled, "finite_difference": finite_difference, "first": first_order}


def order_of(name: str) -> Method:
    """The hypergradient of an order of DARTS, "exact", "finite_difference" or "first".

    Raises:
        ValueError: for an unknown order.
    """
    if name not in ORDERS:
        raise ValueError(f"unknown order {name!r}: choose one of {', '.join(ORDERS)}")
    return ORDERS[name]()


@checked
def darts(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    order: str = "exact",
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The DARTS search.

    Args:
        net: a supernet.
        weights: its optimizer, default `sgd(0.025)`; the paper anneals 0.025 -> 0.001 by a cosine over the epochs.
        architecture: default `adam()`.
        order: "exact" (second order, default), "finite_difference" (the published approximation) or "first".
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], of weights and theta, and the score; default: of classes.

    Raises:
        ValueError: for an unknown order.
    """
    policy = softmax(net.space)
    gradient = pathwise(policy, architecture or adam(), order_of(order))
    return weight_sharing(net, policy, gradient, Weights(weights or sgd(0.025), clip, criterion))
