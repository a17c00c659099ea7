"""Several proxies as one score: by ranks, since their scales have nothing in common.

    rank_average    mean over proxies of rank / P
    vote            how many of the others the majority of the proxies puts an architecture above     (Abdelfattah et al. 2021)
    log_rank        sum over proxies of log(rank / P): one bad rank weighs more than one good         (AZ-NAS, Lee and Ham 2024)

Ranks go from 1, the worst; ties share the mean of theirs.  References: arXiv:2101.08134, arXiv:2403.19232.

Axes: P architectures, M proxies.
"""

import jax
import jax.numpy as jnp


def rank_scores(scores: jax.Array) -> jax.Array:
    """[P, M] -> [P, M], larger is better."""
    lower = jnp.sum(scores[None] < scores[:, None], 1)
    no_higher = jnp.sum(scores[None] <= scores[:, None], 1)
    return (lower + no_higher + 1) / 2


def rank_average(scores: jax.Array) -> jax.Array:
    """[P, M] -> [P]"""
    return jnp.mean(rank_scores(scores), -1) / len(scores)


def log_rank(scores: jax.Array) -> jax.Array:
    """[P, M] -> [P]"""
    return jnp.sum(jnp.log(rank_scores(scores) / len(scores)), -1)


def vote(scores: jax.Array) -> jax.Array:
    """[P, M] -> [P]; half a win where as many proxies are for as against."""
    ahead = jnp.sum(jnp.sign(scores[:, None] - scores[None]), -1)  # [P, P]
    return jnp.sum((jnp.sign(ahead) + 1) / 2, 1) - 0.5
