"""DrNAS: the gates are drawn from Dirichlet distributions, whose concentrations are learnt through the draw.

Reference: Chen, Wang, Cheng, Tang and Hsieh, DrNAS: Dirichlet Neural Architecture Search, ICLR 2021, arXiv:2006.10355.

    min over beta of  E_{gates ~ Dirichlet(beta)} L_valid(w, gates) + lambda d(beta, 1)

Its progressive schedule is a plan of two phases: `strongest_operations` leaves those of each edge, `cell_net` is built anew with
more channels (a smaller `partial`), and `copy_channels` carries the weights over; see `experiments/drnas.py`.
"""

import jax
import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._dirichlet import dirichlet, divergence
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import adam, sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import pathwise


@checked
def drnas(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    kl: NonNegativeNumber = 0.0,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The DrNAS search.

    Args:
        net: a supernet, of partial channels as published.
        weights: default `sgd(0.025)`.
        architecture: default `adam()`, whose weight decay 1e-3 is the published regulariser "l2".
        kl: lambda of KL(Dirichlet(beta) || Dirichlet(1)), the published regulariser "kl", to go with `adam(weight_decay=0)`.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], of weights and theta, and the score; default: of classes.

    Raises:
        ValueError: for a negative `kl`.
    """
    traced = isinstance(kl, jax.core.Tracer)  # in a sweep
    if not traced and not kl >= 0:
        raise ValueError(f"`kl` weighs a distance: give it 0 or more, not {kl}")
    policy = dirichlet(net.space)
    total = (lambda loss, gates, theta, t: loss + kl * divergence(theta)) if traced or kl else None
    gradient = pathwise(policy, architecture or adam(), total=total)
    return weight_sharing(net, policy, gradient, Weights(weights or sgd(0.025), clip, criterion))
