"""Architecture parameters that are points of the simplex, and the exponentiated gradient that moves them (GAEA).

Reference: Li, Khodak, Balcan and Talwalkar, Geometry-Aware Gradient Algorithms for Neural Architecture Search, ICLR 2021,
arXiv:2004.07802, eq. 5.

    gates = theta,    theta <- theta exp(-eta g) / sum(theta exp(-eta g))     row by row

There is no softmax between: the mirror step is what a softmax and a plain step would do in one direction of the geometry.
"""

import jax
import jax.numpy as jnp
import optax

from jaxnas.checks import checked
from jaxnas.kinds import PositiveNumber
from jaxnas.policies.policy import Policy, Theta, normal_logits, softmax_rows
from jaxnas.spaces._space import Space
from jaxnas.trees import take


@checked
def simplex(space: Space) -> Policy:
    """theta are the gates themselves, each row uniform at first; move them with `exponentiated`.

    Raises:
        ValueError: for a space with an edge of a single operation.
    """
    init = normal_logits(space, 0.0)

    def sample(key, theta, t):
        del key, t  # deterministic
        return take(theta, None)

    def close(theta, still):
        rows = jax.tree.map(lambda a, on: jnp.where(on, a, 0), theta, still)
        return jax.tree.map(lambda a: a / jnp.sum(a, -1, keepdims=True), rows)

    return Policy(lambda key: softmax_rows(init(key)), sample, lambda action: action, None, space.derive, False, close)


@checked
def exponentiated(rate: PositiveNumber = 0.1) -> optax.GradientTransformation:
    """The exponentiated gradient of rows on the simplex, as an optax transformation of theta.

    Args:
        rate: eta; 0.1 as published for DARTS-like searches, 0.01 for GDAS's.

    Raises:
        ValueError: for a rate at or below 0.
    """
    if not isinstance(rate, jax.core.Tracer) and not rate > 0:
        raise ValueError(f"`rate` must be above 0, not {rate}")

    def moved(theta, grad):
        new = jax.nn.softmax(jnp.log(theta) - rate * grad, -1)
        return new - theta

    def update(updates: Theta, state: optax.OptState, params: Theta | None = None) -> tuple[Theta, optax.OptState]:
        return jax.tree.map(moved, params, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
