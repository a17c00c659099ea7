"""Random search with weight sharing: train on uniform paths, then choose in two stages.

Reference: Li and Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019, arXiv:1902.07638.

    train   w <- sgd(w; grad L_train(w, a)),  a uniform, a batch each, gradients clipped at 5          `rsws`
    choose  1,000 random architectures on one validation batch, the best 10 of them on all of it, the best of those   `two_stage`

Published: DARTS's space at 16 channels and 8 cells, batch 64, 50 epochs and more.

Axes: N candidates, K finalists.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.spaces._space import Space
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.weight_sharing._spos import spos


@checked
def rsws(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    *,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """Trains a supernet on uniform single paths, as `spos`; what differs is how its weights are searched: `two_stage`."""
    return spos(net, weights, clip=clip, criterion=criterion)


@checked
def two_stage(space: Space, quick: Callable, full: Callable, candidates: Positive = 1000, finalists: Positive = 10) -> Callable:
    """-> key -> (architecture, its full score): the best of the finalists, which are the quickly best of random candidates.

    Args:
        space: where to draw.
        quick, full: (key, archs [B, ...]) -> scores [B], larger is better; not a number: never chosen.
        candidates: N, default 1,000.
        finalists: K, default 10.

    Raises:
        ValueError: for no finalist, or fewer candidates than finalists.
    """
    if not 1 <= finalists <= candidates:
        raise ValueError(f"two stages need 1 finalist or more and at least as many candidates; got {finalists} of {candidates}")

    def choose(key):
        k_draw, k_quick, k_full = jax.random.split(key, 3)
        worst_last = lambda scores: jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
        archs = jax.vmap(space.sample)(jax.random.split(k_draw, candidates))
        _, best = jax.lax.top_k(worst_last(quick(k_quick, archs)), finalists)
        kept = jax.tree.map(lambda a: a[best], archs)
        scores = worst_last(full(k_full, kept))
        i = jnp.argmax(scores)
        return jax.tree.map(lambda a: a[i], kept), scores[i]

    return choose
