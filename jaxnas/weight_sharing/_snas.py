"""SNAS: concrete samples, one level, and an expected cost.

Reference: Xie, Zheng, Liu and Lin, SNAS: Stochastic Neural Architecture Search, ICLR 2019, arXiv:1812.09926, eq. 7-9.

    min over w and alpha of  E_{Z ~ concrete(alpha, lambda)} L_train(w, Z) + eta E_{Z ~ softmax(alpha)} C(Z)

w and alpha move on one training batch and one backward pass.  C is linear in Z, so its expectation needs no sample.
"""

from collections.abc import Callable

import optax

from jaxnas.base import Strategy
from jaxnas.nets.base import Net
from jaxnas.policies._concrete import concrete
from jaxnas.policies.policy import softmax_rows
from jaxnas.training.optimizers import adam, sgd
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import single_level


def snas(
    net: Net,
    temperature,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    cost: Callable | None = None,
    paths: int = 1,
    clip: float | None = 5.0,
) -> Strategy:
    """The SNAS search; its batches need no validation part.

    Args:
        net: a supernet.
        temperature: lambda, a schedule of the step or a number; published: linear from 1 to 0.03.
        weights: default `sgd(0.025)`.
        architecture: default `adam()`, as DARTS's.
        cost: gates -> [], eta C, linear in the gates (`lambda g: eta * hardware.expected(c, g)`); default: none.
        paths: samples of Z to one step; default 1, as published.
        clip: global norm of the weights' gradient.

    Raises:
        ValueError: for a temperature at or below 0.
    """
    policy = concrete(net.space, temperature, paths=paths)
    penalty = None if cost is None else lambda theta, t: cost(softmax_rows(theta))
    return weight_sharing(net, policy, single_level(architecture or adam(), penalty), weights or sgd(0.025), clip=clip)
