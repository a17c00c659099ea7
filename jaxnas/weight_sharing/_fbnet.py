"""FBNet: Gumbel-softmax over a layer-wise space, with the latency of the very sample in the loss.

Reference: Wu et al., FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture Search, CVPR 2019,
arXiv:1812.03443, eq. 2-6.

    m = softmax((theta + G) / tau)  layer by layer,    y = sum_i m_i b_i(x),    LAT = sum_l sum_i m_li LAT(b_li)
    theta's loss = CE alpha log(LAT)^beta,    alpha = 0.2, beta = 0.6, LAT in microseconds, with the same m

Given m the cost is a factor on the weights' loss; they follow the cross-entropy alone.  The network is found by drawing from
softmax(theta), several times, and training each; `best` is the likeliest.
"""

import optax

from jaxnas.base import Strategy
from jaxnas.checks import Temperature, checked
from jaxnas.hardware import Priced, check_priced
from jaxnas.kinds import PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._concrete import concrete
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import pathwise


@checked
def fbnet(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    temperature: Temperature,
    cost: Priced | None = None,
    clip: PositiveNumber | None = None,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The FBNet search.

    Args:
        net: a supernet; published: of `spaces.fbnet()`.
        weights: default `sgd(0.1, weight_decay=1e-4)`, annealed by a cosine.
        architecture: default Adam at 0.01 with coupled decay 5e-4.
        temperature: tau, a schedule of the step or a number; published: 5, times exp(-0.045) an epoch.
        cost: `hardware.priced(table, hardware.fbnet_product())`, in microseconds as published; default: none.
        clip: global norm of the weights' gradient; default: not.
        loss: (logits, y, path) -> [], of weights and theta.

    Raises:
        ValueError: for a temperature at or below 0, or a cost that is not priced.
    """
    check_priced(cost)
    policy = concrete(net.space, temperature)
    total = None if cost is None else lambda loss, gates, theta, t: cost.form(loss, cost.of(gates))
    architecture = architecture or optax.chain(optax.add_decayed_weights(5e-4), optax.adam(0.01))
    gradient = pathwise(policy, architecture, total=total)
    return weight_sharing(net, policy, gradient, Weights(weights or sgd(0.1, weight_decay=1e-4), clip, criterion))
