"""Acquisitions: what a candidate is worth asking for, given what a surrogate believes of it.

    expected improvement      sigma (z Phi(z) + phi(z)),  z = (mu - best) / sigma     Jones, Schonlau and Welch, JGO 13, 1998
    upper confidence bound    mu + sqrt(beta) sigma                                   Srinivas et al., ICML 2010, arXiv:0912.3995
    Thompson sampling         f ~ posterior, jointly over the candidates              Thompson, Biometrika 25, 1933
    independent Thompson      N(mu, sigma^2), each candidate for itself               White, Neiswanger and Savani, BANANAS,
                                                                                      AAAI 2021, arXiv:1910.11858

An acquisition is (key, Posterior, best) -> value [C], larger is better; best [] is the largest y told.

Axes: C candidates.
"""

from collections.abc import Callable

import jax
from jax.scipy.stats import norm

from jaxnas.base import Key
from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber
from jaxnas.surrogates.surrogate import Posterior

Acquisition = Callable[[Key, Posterior, jax.Array], jax.Array]


@checked
def expected_improvement() -> Acquisition:
    """E[max(f - best, 0)] under the posterior, in closed form."""

    def value(key, posterior, best):
        del key  # deterministic
        gain = posterior.mean - best
        z = gain / posterior.std
        return gain * norm.cdf(z) + posterior.std * norm.pdf(z)

    return value


@checked
def upper_confidence_bound(beta: NonNegativeNumber = 4.0) -> Acquisition:
    """The mean and sqrt(beta) standard deviations, default two.

    Raises:
        ValueError: for a negative beta.
    """
    return lambda key, posterior, best: posterior.mean + beta**0.5 * posterior.std


@checked
def thompson() -> Acquisition:
    """One joint sample of the posterior; of a Gaussian process it costs C^3, so keep the candidates to some hundreds."""

    def value(key, posterior, best):
        del best  # a draw needs no incumbent
        if posterior.draw is None:
            raise ValueError("Thompson sampling needs a surrogate with `draw`; for this one take independent_thompson()")
        return posterior.draw(key)

    return value


@checked
def independent_thompson() -> Acquisition:
    """Every candidate's value drawn for itself: all that an ensemble's mean and deviation can give (ITS)."""
    return lambda key, posterior, best: posterior.mean + posterior.std * jax.random.normal(key, posterior.mean.shape)
