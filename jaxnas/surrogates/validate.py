"""How far to trust a surrogate: fitted to a part of what is known, asked for the rest.

    fold k: every architecture whose place in a drawn order is k modulo K;    its prediction: fitted to the other folds

A fit takes a mask, so that all folds are one compiled program.

Axes: N architectures, K folds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.analysis.ranking import Ranking, ranking
from jaxnas.base import Arch
from jaxnas.checks import RandomKey, checked, require_rows
from jaxnas.kinds import Positive
from jaxnas.surrogates.surrogate import Model, Surrogate


class Fitted(NamedTuple):
    """A fitted surrogate and the scale of its scores: a pytree, such as `evaluate.surrogate` reads from `batch.fixed`."""

    model: Model
    mean: jax.Array  # [], of the scores
    scale: jax.Array  # [], their deviation


@checked
def fitted(key: RandomKey, surrogate: Surrogate, archs: Arch, scores: ArrayLike, mask: jax.Array | None = None) -> Fitted:
    """A surrogate fitted to architectures [N, ...] and their scores [N], where the mask says so; may be jitted."""
    scores = jnp.asarray(scores, jnp.float32)
    if scores.ndim != 1:
        raise ValueError(f"`scores` must be one number an architecture, [N]; got shape {[*scores.shape]}")
    require_rows(len(scores), archs=archs)
    k_init, k_fit = jax.random.split(key)
    mask = jnp.ones(scores.shape, bool) if mask is None else mask
    mean = jnp.mean(scores, where=mask)
    off = jnp.where(mask, scores - mean, 0)
    deviation = jnp.sqrt(jnp.sum(off**2) / jnp.sum(mask))
    scale = jnp.where(deviation > 0, deviation, 1)
    return Fitted(surrogate.fit(k_fit, surrogate.init(k_init, archs), archs, off / scale, mask), mean, scale)


def predicted(surrogate: Surrogate, known: Fitted, archs: Arch) -> tuple[jax.Array, jax.Array]:
    """(mean [C], std [C]) in the unit of the scores."""
    mean, std = surrogate.predict(known.model, archs)
    return known.mean + known.scale * mean, known.scale * std


class Validation(NamedTuple):
    mean: np.ndarray  # [N], of each architecture by the fit that has not seen it
    std: np.ndarray  # [N]
    ranking: Ranking  # of `mean` against the scores


@checked
def cross_validated(
    key: RandomKey, surrogate: Surrogate, archs: Arch, scores: ArrayLike, folds: Positive = 5, k: Positive = 10
) -> Validation:
    """Out-of-fold predictions and how well they rank (host side).

    Args:
        key: of the folds, the fits and the bootstrap.
        surrogate: any.
        archs: [N, ...].
        scores: [N], larger is better; architectures without a finite one are left out by the caller.
        folds: K, default 5.
        k: of the ranking's regret and recall.

    Raises:
        ValueError: for fewer than 2 folds, fewer architectures than folds, or a score that is not finite.
    """
    scores = np.asarray(scores, np.float32)
    N = scores.size
    require_rows(N, archs=archs)
    if scores.shape != (N,) or not 2 <= folds <= N:
        raise ValueError(f"give one score an architecture, and 2 to {N} folds; got shape {scores.shape} and {folds} folds")
    if not np.isfinite(scores).all():
        raise ValueError(f"score {np.flatnonzero(~np.isfinite(scores))[0]} is not finite: leave its architecture out")
    k_order, k_rank, *k_fits = jax.random.split(key, 2 + folds)
    fold = np.asarray(jax.random.permutation(k_order, N)) % folds
    out_of = jax.jit(lambda key, archs, y, mask: predicted(surrogate, fitted(key, surrogate, archs, y, mask), archs))
    mean, std = np.empty(N), np.empty(N)
    for i, k_fit in enumerate(k_fits):
        held = fold == i
        mean[held], std[held] = (np.asarray(a)[held] for a in out_of(k_fit, archs, scores, ~held))
    return Validation(mean, std, ranking(k_rank, mean, scores, min(k, N)))
