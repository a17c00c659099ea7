"""beta-DARTS: a regulariser that keeps the softmax of alpha from being driven apart.

Reference: Ye et al., beta-DARTS: Beta-Decay Regularization for Differentiable Architecture Search, CVPR 2022,
arXiv:2203.01665, eq. 11-14.

    alpha's loss = L_valid + lambda(t) mean over edges of logsumexp(alpha_e),    lambda grows linearly from 0

Its gradient in alpha_e is softmax(alpha_e) / E, so that large entries decay most.
"""

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._softmax import softmax
from jaxnas.policies.policy import Theta
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import adam, sgd
from jaxnas.weight_sharing._darts import order_of
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import pathwise


def beta_decay(theta: Theta) -> jax.Array:
    """The mean of logsumexp over all rows, []."""
    rows = [jax.nn.logsumexp(a, -1).ravel() for a in jax.tree.leaves(theta)]
    return jnp.mean(jnp.concatenate(rows))


@checked
def beta_darts(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    decay: optax.Schedule,
    order: str = "first",
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The beta-DARTS search.

    Args:
        net: a supernet.
        weights: default `sgd(0.025)`.
        architecture: default `adam(weight_decay=0)`: the regulariser takes the place of the decay.
        decay: lambda, a schedule of the step; published for NAS-Bench-201: `optax.linear_schedule(0, 50, steps)`.
        order: "first" (published), "exact" or "finite_difference".
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], of weights and theta, and the score; default: of classes.

    Raises:
        ValueError: for an unknown order.
    """
    policy = softmax(net.space)
    total = lambda loss, gates, theta, t: loss + decay(t) * beta_decay(theta)
    gradient = pathwise(policy, architecture or adam(weight_decay=0.0), order_of(order), total)
    return weight_sharing(net, policy, gradient, Weights(weights or sgd(0.025), clip, criterion))
