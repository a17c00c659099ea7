"""GDAS: a straight-through Gumbel draw; one operation an edge is run, in the weights' step and in the architecture's.

Reference: Dong and Yang, Searching for a Robust Neural Architecture in Four GPU Hours, CVPR 2019, arXiv:1910.04465, eq. 3-7.

    gate = onehot(argmax z) + z - stop_gradient(z),    z ~ concrete(alpha, tau)
    w follows L_train of one draw, alpha L_valid of another

The gradient of alpha flows through the chosen operation's gate alone.  The authors' code also lets it through the bare zeros of
the others, which the paper does not have: an edge's output is gate_k o_k(x) + sum of the others' gates, and the gradient of each of
these is the sum of the output's.  A net that is made with `cell_net(..., bare_zeros=True)` does so.
"""

import optax

from jaxnas.base import Strategy
from jaxnas.checks import Temperature, checked
from jaxnas.kinds import PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._concrete import straight_through
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import adam, sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import pathwise


@checked
def gdas(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    temperature: Temperature,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The GDAS search.

    Args:
        net: a supernet; with `bare_zeros` as in the authors' code.
        weights: default `sgd(0.025)`; published: with Nesterov's momentum and weight decay 5e-4.
        architecture: default `adam()`, as DARTS's.
        temperature: tau, a schedule of the step or a number; published: linear from 10 to 0.1.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], of weights and theta, and the score; default: of classes.

    Raises:
        ValueError: for a temperature at or below 0.
    """
    policy = straight_through(net.space, temperature)
    return weight_sharing(net, policy, pathwise(policy, architecture or adam()), Weights(weights or sgd(0.025), clip, criterion))
