"""Gates drawn from Dirichlet distributions: what DrNAS learns the concentrations of.

Reference: Chen, Wang, Cheng, Tang and Hsieh, DrNAS: Dirichlet Neural Architecture Search, ICLR 2021, arXiv:2006.10355, eq. 3-6.

    beta = elu(alpha) + 1,    gates ~ Dirichlet(beta)   row by row,    E[gates] = beta / sum(beta)

The gradient goes through the draw (implicit reparameterisation of the Gamma variables).  An operation that is out of the
search (`close`) has gate 0.

Axes: M paths, O operations.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln

from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, Positive
from jaxnas.policies.policy import Policy, Theta, close, draw, normal_logits, still_open
from jaxnas.spaces._space import Space


def concentration(alpha: jax.Array) -> jax.Array:
    """beta = elu(alpha) + 1, above 0."""
    return jax.nn.elu(alpha) + 1


@checked
def dirichlet(space: Space, scale: NonNegativeNumber = 1e-3, paths: Positive = 1) -> Policy:
    """Soft gates from Dirichlet distributions; the architecture is derived from their mean.

    Args:
        space: its gates give theta its structure.
        scale: of the initial alpha, so that beta begins about 1: uniform on the simplex.
        paths: M, draws to one weight update.

    Raises:
        ValueError: for fewer than 1 path, or an edge of a single operation.
    """

    def row(key, alpha, shape):
        on = still_open(alpha)
        beta = concentration(jnp.where(on, alpha, 0))
        log_gamma = jax.random.loggamma(key, jnp.broadcast_to(beta[None], shape), dtype=alpha.dtype)
        return jax.nn.softmax(jnp.where(on[None], log_gamma, -jnp.inf), -1)

    def mean(alpha):
        beta = jnp.where(still_open(alpha), concentration(alpha), 0)
        return beta / jnp.sum(beta, -1, keepdims=True)

    return Policy(
        init=normal_logits(space, scale),
        sample=lambda key, theta, t: draw(theta, paths, key, row),
        gates=lambda action: action,
        log_prob=None,
        derive=lambda theta: space.derive(jax.tree.map(mean, theta)),
        hard=False,
        close=close,
    )


def divergence(theta: Theta) -> jax.Array:
    """The sum over rows of KL(Dirichlet(beta) || Dirichlet(1)), over the operations that are in the search."""

    def rows(alpha):
        on = still_open(alpha)
        beta = concentration(jnp.where(on, alpha, 0))
        over = lambda values: jnp.sum(jnp.where(on, values, 0), -1)
        total = over(beta)
        spread = over((beta - 1) * (digamma(beta) - digamma(total)[..., None]))
        return jnp.sum(gammaln(total) - over(gammaln(beta)) - gammaln(over(jnp.ones_like(beta))) + spread)

    return jnp.asarray(sum(jax.tree.leaves(jax.tree.map(rows, theta))))
