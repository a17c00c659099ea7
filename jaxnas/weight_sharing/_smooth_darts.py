"""SmoothDARTS: the weights learn under perturbed gates, so that the loss is smooth around alpha.

Reference: Chen and Hsieh, Stabilizing Differentiable Architecture Search via Perturbation-based Regularization, ICML 2020,
arXiv:2002.05283, eq. 4-6.

    random        gates + U(-eps, eps), each row clipped to [0, 1] and divided by its sum
    adversarial   argmax of L_train over the L-infinity ball of radius eps around the gates, on the simplex:
                  projected gradient ascent of 7 steps of size 2 eps / 7 from a random start

eps grows linearly, 0.03 -> 0.3 as published.  alpha's own step sees the plain gates.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.nets.base import Gates, Net
from jaxnas.policies._softmax import softmax
from jaxnas.policies.policy import draw
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import adam, sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import pathwise


def on_simplex(gates: Gates, plain: Gates) -> Gates:
    """Each row clipped to [0, 1], then divided by its sum; the plain one where nothing is left of it."""

    def row(g, plain):
        g = jnp.clip(g, 0, 1)
        total = jnp.sum(g, -1, keepdims=True)
        return jnp.where(total > 0, g / jnp.where(total > 0, total, 1), plain)

    return jax.tree.map(row, gates, plain)


def _noise(key, gates, eps):
    uniform = lambda key, g, shape: eps * jax.random.uniform(key, shape[1:], g.dtype, -1, 1)
    noise = draw(gates, 1, key, uniform)
    return jax.tree.map(lambda n, g: jnp.where(g > 0, n, 0), noise, gates)  # what has no weight is not in the search


@checked
def random_noise(eps: Callable) -> Callable:
    """SDARTS-RS; `eps` is a schedule of the step.  At eps = 0 the gates stay what they are, to the last bit."""

    def perturb(key, gates, loss_of, t):
        del loss_of
        moved = on_simplex(jax.tree.map(jnp.add, gates, _noise(key, gates, eps(t))), gates)
        return jax.tree.map(lambda m, g: jnp.where(eps(t) > 0, m, g), moved, gates)

    return perturb


@checked
def adversarial(eps: Callable, steps: Positive = 7) -> Callable:
    """SDARTS-ADV; keeps the plain gates where the attack has not raised the loss.

    Raises:
        ValueError: for less than one step.
    """

    def perturb(key, gates, loss_of, t):
        plain, size = jax.lax.stop_gradient(gates), 2 * eps(t) / steps

        def ascend(_, moved):
            grads = jax.grad(loss_of)(moved)
            inside = lambda m, d, g: jnp.where(g > 0, jnp.clip(m + size * jnp.sign(d), g - eps(t), g + eps(t)), 0)
            return on_simplex(jax.tree.map(inside, moved, grads, plain), plain)

        start = on_simplex(jax.tree.map(jnp.add, plain, _noise(key, plain, eps(t))), plain)
        moved = jax.lax.fori_loop(0, steps, ascend, start)
        worse = (loss_of(moved) > loss_of(plain)) & (eps(t) > 0)
        return jax.tree.map(lambda m, g: jnp.where(worse, jax.lax.stop_gradient(m), g), moved, gates)

    return perturb


@checked
def smooth_darts(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    perturb: Callable,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The SmoothDARTS search, first order.

    Args:
        net: a supernet.
        weights: default `sgd(0.025)`.
        architecture: default `adam()`.
        perturb: `random_noise(eps)` or `adversarial(eps)`; published eps: `optax.linear_schedule(0.03, 0.3, steps)`.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], of weights and theta, and the score; default: of classes.
    """
    policy = softmax(net.space)
    gradient = pathwise(policy, architecture or adam())
    return weight_sharing(net, policy, gradient, Weights(weights or sgd(0.025), clip, criterion, perturb=perturb))
