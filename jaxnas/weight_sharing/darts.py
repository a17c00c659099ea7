"""DARTS: softmax mixture x hypergradient of the validation loss.

Reference: Liu, Simonyan and Yang, DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055.

    alpha <- alpha - Adam( d/dalpha L_valid(w', alpha) ),    w' = w - eta (m buf + grad_w L_train(w, alpha) + lambda w)
    w     <- w - SGD( clip(grad_w L_train(w, alpha)) )

The published second order approximates the product of second derivatives by a central difference; here it is exact.
"""

import optax

from jaxnas.base import Strategy
from jaxnas.bilevel import Method, finite_difference, first_order, unrolled
from jaxnas.nets.net import Net
from jaxnas.policies.softmax import softmax
from jaxnas.weight_sharing.gradients import pathwise
from jaxnas.weight_sharing.weight_sharing import weight_sharing

ORDERS = {"exact": unrolled, "finite_difference": finite_difference, "first": first_order}


def sgd(learning_rate, momentum: float = 0.9, weight_decay: float = 3e-4, nesterov: bool = False) -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay (added to the gradient), as in the paper; `learning_rate` may be a schedule."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov))


def adam(learning_rate=3e-4, weight_decay: float = 1e-3) -> optax.GradientTransformation:
    """The paper's optimizer of the architecture parameters: betas (0.5, 0.999), coupled weight decay."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate, b1=0.5, b2=0.999))


def order_of(name: str) -> Method:
    """The hypergradient of an order of DARTS, "exact", "finite_difference" or "first".

    Raises:
        ValueError: for an unknown order.
    """
    if name not in ORDERS:
        raise ValueError(f"unknown order {name!r}: choose one of {', '.join(ORDERS)}")
    return ORDERS[name]()


def darts(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    order: str = "exact",
    *,
    clip: float | None = 5.0,
) -> Strategy:
    """The DARTS search.

    Args:
        net: a supernet.
        weights: its optimizer, default `sgd(0.025)`; the paper anneals 0.025 -> 0.001 by a cosine over the epochs.
        architecture: default `adam()`.
        order: "exact" (second order, default), "finite_difference" (the published approximation) or "first".
        clip: global norm of the weights' gradient.

    Raises:
        ValueError: for an unknown order.
    """
    policy = softmax(net.space)
    gradient = pathwise(policy, architecture or adam(), order_of(order))
    return weight_sharing(net, policy, gradient, weights or sgd(0.025), clip=clip)
