"""SNAS: concrete samples, one level, and an expected cost.

Reference: Xie, Zheng, Liu and Lin, SNAS: Stochastic Neural Architecture Search, ICLR 2019, arXiv:1812.09926, eq. 7-9.

    min over w and alpha of  E_{Z ~ concrete(alpha, lambda)} L_train(w, Z) + eta E_{Z ~ softmax(alpha)} C(Z)

w and alpha move on one training batch and one backward pass.  C is linear in Z, so its expectation needs no sample.
"""

import jax.numpy as jnp
import optax

from jaxnas.base import Strategy
from jaxnas.checks import Temperature, checked
from jaxnas.hardware import Priced, check_priced, is_additive
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._concrete import concrete
from jaxnas.policies.policy import softmax_rows
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import adam, sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import single_level


@checked
def snas(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    temperature: Temperature,
    paths: Positive = 1,
    cost: Priced | None = None,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The SNAS search; its batches need no validation part.

    Args:
        net: a supernet.
        weights: default `sgd(0.025)`.
        architecture: default `adam()`, as DARTS's.
        temperature: lambda, a schedule of the step or a number; published: linear from 1 to 0.03.
        paths: samples of Z to one step; default 1, as published.
        cost: C, linear in the gates, in a form that adds it: `hardware.priced(table, hardware.additive(eta))`; default: none.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], of weights and theta, and the score; default: of classes.

    Raises:
        ValueError: for a temperature at or below 0, or a cost that is not priced, or is not added.
    """
    check_priced(cost)
    if cost is not None and not is_additive(cost.form):
        raise ValueError("SNAS adds the expected cost to the loss: give `cost` a form that does, as `hardware.additive(eta)`")
    policy = concrete(net.space, temperature, paths=paths)
    penalty = None if cost is None else lambda theta, t: cost.form(jnp.zeros(()), cost.of(softmax_rows(theta)))
    gradient = single_level(architecture or adam(), penalty)
    return weight_sharing(net, policy, gradient, Weights(weights or sgd(0.025), clip, criterion))
