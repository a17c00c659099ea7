"""Learning curves: predicting how a training ends from how it began.

References: Baker, Gupta, Raskar and Naik, Accelerating Neural Architecture Search using Performance Prediction, ICLR 2018
workshop, arXiv:1705.10823; Ru et al., Speedy Performance Estimation for Neural Architecture Search, NeurIPS 2021,
arXiv:2006.04492.

    x = (y_1 .. y_t,  y_i - y_i-1,  second differences,  extra)        standardised; y_i the value after epoch i, t the cut
    y_final = nu-SVR(x), RBF kernel;  (C, gamma, nu): the best of 1,000 drawn, by 3-fold cross-validation
    sigma^2 = mean squared residual of those folds
    stop where  P(y_final <= y_best - offset) = Phi((y_best - offset - y_final) / sigma)  >=  delta

    SoTL = sum_t 1/B sum_i l_ti,    SoTL-E: the last E epochs only,    TSE-EMA = sum_t gamma^(T - t) 1/B sum_i l_ti

`extra` is what else is known of each network: numbers of weights and layers, hyper-parameters.  C and gamma are drawn
log-uniformly from [1e-5, 10], nu uniformly; the targets are standardised, so that C means the same for every unit.  `fit`,
`predict` and `stop` run on the host and take what is larger the better (give a loss its minus); the sums are JAX and smaller is
better: l_ti is the loss of batch i before its step, in training mode, which training has already paid for.

Axes: N curves, T epochs, t the cut, B batches an epoch, S = T B steps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Key


class CurveModel(NamedTuple):
    """What `fit` has learnt from finished trainings."""

    cut: int
    regression: Any  # scikit-learn's NuSVR, of standardised features and targets
    center: np.ndarray  # of the features, then the target
    scale: np.ndarray
    sigma: float  # deviation of the cross-validated residuals, in the target's units
    chosen: dict[str, float]  # C, gamma, nu


def features(curves: ArrayLike, cut: int, extra: ArrayLike | None = None) -> np.ndarray:
    """float64[N, 3 t - 3 + extra]: the values up to the cut, their first and second differences, and what else is known.

    Raises:
        ValueError: for curves shorter than the cut, a cut below 1, or another number of rows in `extra`.
    """
    curves = np.asarray(curves, np.float64)
    if curves.ndim != 2 or not 1 <= cut <= curves.shape[1]:
        raise ValueError(f"the cut must lie in 1 to the length of the curves [N, T]; got cut={cut} and shape {curves.shape}")
    y = curves[:, :cut]
    extra = np.zeros((len(y), 0)) if extra is None else np.asarray(extra, np.float64)
    if extra.ndim != 2 or len(extra) != len(y):
        raise ValueError(f"`extra` is one row a curve, [{len(y)}, anything]; got shape {extra.shape}")
    return np.concatenate([y, y[:, 1:] - y[:, :-1], y[:, 2:] - 2 * y[:, 1:-1] + y[:, :-2], extra], 1)


def fit(
    key: Key,
    curves: ArrayLike,
    final: ArrayLike,
    cut: int,
    extra: ArrayLike | None = None,
    *,
    configurations: int = 1000,
    folds: int = 3,
) -> CurveModel:
    """The nu-SVR of finished trainings, for curves seen up to `cut`.

    Args:
        key: of the random search and of the folds.
        curves: [N, T], larger is better; what comes after the cut is not looked at.
        final: [N], their final values.
        cut: t, in epochs.
        extra: [N, anything].
        configurations: settings drawn, 1,000 as published: a second or two per hundred curves and thousand settings.
        folds: of the cross-validation, default 3.

    Raises:
        ValueError: for curves shorter than the cut, values that are not finite, or fewer than two curves a fold.
    """
    x, final = features(curves, cut, extra), np.asarray(final, np.float64)
    if final.shape != (len(x),):
        raise ValueError(f"give one final value a curve, [{len(x)}]; got shape {final.shape}")
    bad = np.flatnonzero(~(np.isfinite(x).all(1) & np.isfinite(final)))
    if len(bad):
        raise ValueError(f"curve {bad[0]} is not finite up to its cut, or at its end: leave out the trainings that diverged")
    if configurations < 1 or folds < 2 or len(x) < 2 * folds:
        raise ValueError(
            f"give at least 1 setting, 2 folds and two curves a fold; got {configurations}, {folds} and {len(x)} curves"
        )
    from sklearn.svm import NuSVR  # takes a while: only fits pay it

    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    both = np.concatenate([x, final[:, None]], 1)
    fold = rng.permutation(len(x)) % folds
    parts = [(fold != k, fold == k, *_standards(both[fold != k])) for k in range(folds)]
    parts = [
        ((both[train] - center) / scale, (both[held] - center) / scale, held, scale[-1]) for train, held, center, scale in parts
    ]

    def residuals(setting):
        out = np.empty(len(x))
        for train, held, rows, unit in parts:
            out[rows] = unit * (held[:, -1] - NuSVR(**setting).fit(train[:, :-1], train[:, -1]).predict(held[:, :-1]))
        return np.sqrt(np.mean(out**2))

    drawn = rng.uniform(size=(configurations, 3))
    settings = [{"C": 10 ** (6 * c - 5), "gamma": 10 ** (6 * g - 5), "nu": max(nu, 1e-3)} for c, g, nu in drawn.tolist()]
    errors = [residuals(setting) for setting in settings]
    chosen, (center, scale) = settings[int(np.argmin(errors))], _standards(both)
    z = (both - center) / scale
    return CurveModel(cut, NuSVR(**chosen).fit(z[:, :-1], z[:, -1]), center, scale, float(min(errors)), chosen)


def predict(model: CurveModel, curves: ArrayLike, extra: ArrayLike | None = None) -> np.ndarray:
    """float64[N]: the final values predicted for the curves; -inf for one that is not finite up to the cut: it has diverged.

    Raises:
        ValueError: for curves shorter than the model's cut, or other features than it was fitted to.
    """
    x = features(curves, model.cut, extra)
    if x.shape[1] + 1 != len(model.center):
        raise ValueError(f"the model knows {len(model.center) - 1} features of a curve, not {x.shape[1]}: give the same `extra`")
    seen, out = np.isfinite(x).all(1), np.full(len(x), -np.inf)
    if seen.any():
        z = (x[seen] - model.center[:-1]) / model.scale[:-1]
        out[seen] = model.center[-1] + model.scale[-1] * model.regression.predict(z)
    return out


def stop(predicted: ArrayLike, sigma: float, best: float, *, delta: float = 0.95, offset: float = 0.0) -> np.ndarray:
    """bool[N]: which trainings to stop because they are unlikely to beat the best.

    Args:
        predicted: [N], of `predict`.
        sigma: of the model.
        best: y_best, the best that finished; with Hyperband, the last that its bracket would keep.
        delta: how sure to be, published 0.95 to 0.99.
        offset: what may be lost against the best: the larger, the fewer are stopped.

    Raises:
        ValueError: for a delta outside (0, 1), or a negative offset.
    """
    if not 0 < delta < 1 or offset < 0:
        raise ValueError(f"delta is a probability between 0 and 1 and the offset not negative; got {delta=}, {offset=}")
    from scipy.stats import norm

    return norm.cdf(best - offset - np.asarray(predicted, np.float64), scale=max(sigma, np.finfo(float).tiny)) >= delta


def _standards(both):
    deviation = both.std(0)
    return both.mean(0), np.where(deviation > 1e-12 * np.abs(both).max(0), deviation, 1.0)


# Sums of training losses


def by_epoch(losses: jax.Array, batches: int) -> jax.Array:
    """[..., S] losses of steps, such as a population's [P, S] -> [..., T, B].

    Raises:
        ValueError: for steps that are no whole number of epochs.
    """
    S = jnp.shape(losses)[-1]
    if batches < 1 or S < 1 or S % batches:
        raise ValueError(f"{S} steps are no whole number of epochs of {batches} batches")
    return jnp.reshape(losses, (*jnp.shape(losses)[:-1], S // batches, batches))


def sotl(losses: jax.Array) -> jax.Array:
    """[..., T, B] -> [...]: the sum of training losses of all epochs; smaller is better."""
    return jnp.sum(jnp.mean(losses, -1), -1)


def sotl_e(losses: jax.Array, last: int = 1) -> jax.Array:
    """[..., T, B] -> [...]: that of the last E epochs, published as the best with E = 1.

    Raises:
        ValueError: for more epochs than there are, or none.
    """
    T = jnp.shape(losses)[-2]
    if not 1 <= last <= T:
        raise ValueError(f"the last {last} of {T} epochs: give 1 to {T}")
    return sotl(losses[..., T - last :, :])


def tse_ema(losses: jax.Array, gamma: float = 0.99) -> jax.Array:
    """[..., T, B] -> [...]: all epochs, each worth gamma times the next.

    Raises:
        ValueError: for a gamma outside (0, 1].
    """
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma weighs the past against the present: give a number in (0, 1], not {gamma}")
    T = jnp.shape(losses)[-2]
    weight = np.asarray(gamma ** np.arange(T)[::-1], np.float32)  # [T]
    return jnp.matmul(jnp.mean(losses, -1), weight)
