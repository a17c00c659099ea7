"""Independent categorical distributions, one a decision: what REINFORCE moves on NAS-Bench-201, and TuNAS on its spaces.

Reference: Dong, Liu, Musial and Gabrys, NATS-Bench, TPAMI 2021, arXiv:2009.00437 (their REINFORCE); Bender et al., Can
Weight Sharing Outperform Random Architecture Search? An Investigation With TuNAS, CVPR 2020, arXiv:2008.06120.

    p(a) = product over the active decisions d of softmax(theta_d)[a_d]

The entropies of the active decisions sum to the entropy of p in the mean over a (the chain rule).

Axes: D decisions, A the largest arity, M paths.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, Positive
from jaxnas.policies.policy import Policy
from jaxnas.spaces._space import Space


def options(space: Space) -> np.ndarray:
    """bool[D, A]: the values of each decision.

    Raises:
        ValueError: for a space with real dimensions.
    """
    if space.reals is not None:
        raise ValueError("this space has real dimensions: a policy of this kind draws decisions only")
    return np.arange(space.arity.max()) < space.arity[:, None]


def score(logits: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(log p [...], entropy [...]) of tokens [...] under logits [..., A], which are -inf where illegal."""
    logp = jax.nn.log_softmax(logits)
    chosen = jax.nn.one_hot(tokens, logits.shape[-1], dtype=bool)
    entropy = -jnp.sum(jnp.exp(logp) * jnp.where(jnp.isfinite(logp), logp, 0), -1)
    return jnp.sum(jnp.where(chosen, logp, 0), -1), entropy


@checked
def categorical(space: Space, scale: NonNegativeNumber = 1e-3, paths: Positive = 1) -> Policy:
    """One row of logits a decision, theta float32[D, A], drawn from scale * N(0, 1); an action is an architecture.

    Args:
        space: its decisions, conditional or not.
        scale: of the initial logits.
        paths: M, architectures a draw.

    The architecture is derived by taking each decision's likeliest value.

    Raises:
        ValueError: for a space with real dimensions, or fewer than 1 path.
    """
    legal = options(space)

    def logits(theta):
        return jnp.where(legal, theta, -jnp.inf)

    def zero_inactive(tokens):  # inactive decisions are 0
        return space.unflat(jnp.where(space.active(space.unflat(tokens)), tokens, 0))

    def sample(key, theta, t):
        del t  # nothing anneals
        tokens = jax.random.categorical(key, logits(theta), shape=(paths, len(legal)))
        return jax.vmap(zero_inactive)(tokens.astype(jnp.int32))

    def log_prob(theta, arch):
        on = space.active(arch)
        return jax.tree.map(lambda each: jnp.where(on, each, 0), score(logits(theta), space.flat(arch)))

    return Policy(
        init=lambda key: scale * jax.random.normal(key, legal.shape),
        sample=sample,
        gates=space.gates,
        log_prob=log_prob,
        derive=lambda theta: zero_inactive(jnp.argmax(logits(theta), -1).astype(jnp.int32)),
        hard=True,
    )
