"""Gumbel noise on the logits: the concrete relaxation (SNAS, FBNet), and its straight-through form (GDAS).

References: Maddison, Mnih and Teh, The Concrete Distribution, ICLR 2017, arXiv:1611.00712; Jang, Gu and Poole, Categorical
Reparameterization with Gumbel-Softmax, ICLR 2017, arXiv:1611.01144; Xie et al., SNAS, ICLR 2019, arXiv:1812.09926, eq. 7; Dong
and Yang, Searching for a Robust Neural Architecture in Four GPU Hours, CVPR 2019, arXiv:1910.04465, eq. 4-6 (GDAS).

    z = softmax((log softmax(alpha) + G) / lambda),    G = -log(-log U)         concrete
    h = onehot(argmax z) + (z - stop_gradient(z))                               straight-through

argmax z is a draw from softmax(alpha) at any temperature lambda; as lambda falls, so does the bias of the relaxation, and
the variance of its gradient grows.  Every row draws noise of its own, and all cells of a kind share the row's.

Axes: M paths, O operations.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from jaxnas.checks import Temperature, checked
from jaxnas.kinds import NonNegativeNumber, Positive
from jaxnas.policies.policy import Policy, annealed, close, draw, normal_logits, softmax_rows
from jaxnas.spaces._space import Space


@checked
def concrete(space: Space, temperature: Temperature = 1.0, scale: NonNegativeNumber = 1e-3, paths: Positive = 1) -> Policy:
    """Soft gates from the concrete distribution.

    Args:
        space: its gates give theta its structure.
        temperature: lambda, a number or a schedule of the step; SNAS anneals 1 -> 0.03 linearly, FBNet 5 by exp(-0.045) an epoch.
        scale: of the initial logits.
        paths: M, draws to one weight update.

    The architecture is derived from softmax(alpha).

    Raises:
        ValueError: for a temperature at or below 0, fewer than 1 path, or an edge of a single operation.
    """
    return _gumbel(space, temperature, scale, paths, lambda z: z, False)


@checked
def straight_through(space: Space, temperature: Temperature = 1.0, scale: NonNegativeNumber = 1e-3, paths: Positive = 1) -> Policy:
    """One-hot gates, of which one path is run, with the gradient of the concrete relaxation; arguments as `concrete`."""

    def harden(z):
        h = jax.nn.one_hot(jnp.argmax(z, -1), z.shape[-1], dtype=z.dtype)
        return h + (z - jax.lax.stop_gradient(z))  # in this order the value is h to the last bit

    return _gumbel(space, temperature, scale, paths, harden, True)


def _gumbel(space, temperature, scale, paths, finish, hard):
    at = annealed("temperature", temperature)

    def sample(key, theta, t):
        def noisy(k, a, shape):
            return (jax.nn.log_softmax(a, -1)[None] + jax.random.gumbel(k, shape, a.dtype)) / at(t)

        return jax.tree.map(lambda a: finish(jax.nn.softmax(a, -1)), draw(theta, paths, key, noisy))

    derive = lambda theta: space.derive(softmax_rows(theta))
    return Policy(normal_logits(space, scale), sample, lambda action: action, None, derive, hard, close)


def concrete_log_density(z: jax.Array, alpha: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """log p(z [..., O]) of the concrete distribution with class odds softmax(alpha [O]) (Maddison et al., eq. 10)."""
    n, log_z = z.shape[-1], jnp.log(z)
    log_pi = jnp.broadcast_to(jax.nn.log_softmax(alpha), z.shape)
    constant = gammaln(n * np.ones(())) + (n - 1) * jnp.log(temperature)
    each = jnp.sum(log_pi - (temperature + 1) * log_z, -1)
    return constant + each - n * jax.nn.logsumexp(log_pi - temperature * log_z, -1)
