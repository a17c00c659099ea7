"""Ridge regression as a surrogate, in closed form: Bayesian linear regression on any encoding.

Reference: Bishop, Pattern Recognition and Machine Learning, Springer 2006, sections 3.3 to 3.5.

    y = m + x^T w + noise,   w ~ N(0, s^2 I),   Var(noise) = s^2 v;    x and y centred over what was told
    A = X^T X + v I = L L^T,   w = A^-1 X^T y
    s^2 = (|y - X w|^2 / v + |w|^2) / n                                   its value of largest likelihood
    log p(y) = -n/2 (log 2 pi s^2 + 1) - (log det A + (n - F) log v) / 2   penalty v: the best of a grid
    mean(x) = m + x^T w,   var(x) = s^2 v (|L^-1 x|^2 + 1/n)

The cost is that of F features, F^3 a penalty, however much was told: the Gaussian process with a linear kernel, seen from its
other side.

Axes: N capacity, n told, F features, C candidates, G penalties.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Arch
from jaxnas.checks import checked
from jaxnas.surrogates._gaussian_process import Cholesky, cholesky, solve
from jaxnas.surrogates.surrogate import Surrogate
from jaxnas.trees import count, take


class RidgeState(NamedTuple):
    center: jax.Array  # [F], the mean of x
    mean: jax.Array  # [], m
    weights: jax.Array  # [F], w
    factor: Cholesky  # of A
    noise: jax.Array  # [], deviation of the noise, s sqrt(v)
    told: jax.Array  # [], n, at least 1
    penalty: jax.Array  # [], v
    log_likelihood: jax.Array  # []


@checked
def ridge(encode: Callable[[Arch], jax.Array], penalty: ArrayLike = (0.01, 0.1, 1.0, 10.0, 100.0)) -> Surrogate:
    """Linear regression with the penalty that explains the scores best; it forgets the model it is given.

    Args:
        encode: arch -> float32[F], such as `space.features` or `path_encoding(space)`.
        penalty: v, or several to choose from.

    Raises:
        ValueError: for a penalty that is not positive.
    """
    penalty = np.atleast_1d(np.asarray(penalty, np.float64))
    if penalty.ndim != 1 or penalty.size == 0 or not (np.isfinite(penalty) & (penalty > 0)).all():
        raise ValueError(f"a penalty is a positive number, or several to choose from; got {penalty.tolist()}")

    def fit(key, model, archs, y, mask):
        del key, model  # the fit is exact
        there = mask.astype(y.dtype)
        n = jnp.maximum(jnp.sum(there), 1)
        x = jax.vmap(encode)(archs).astype(y.dtype)  # [N, F]
        center, mean = there @ x / n, there @ y / n
        x, y = (x - center[None]) * there[:, None], (y - mean) * there
        F = x.shape[1]

        def at(v):
            factor = cholesky(x.T @ x + v * jnp.eye(F, dtype=y.dtype))
            w = _solve(factor, x.T @ y)
            square = jnp.sum((y - x @ w) ** 2) / v + w @ w
            s2 = jnp.where(square > 0, square / n, 1)  # 1 while nothing tells it
            determinant = 2 * jnp.sum(jnp.log(jnp.diagonal(factor.lower))) + (n - F) * jnp.log(v)
            likelihood = -0.5 * n * (jnp.log(2 * np.pi * s2) + 1) - 0.5 * determinant
            return RidgeState(center, mean, w, factor, jnp.sqrt(s2 * v), n, v, likelihood)

        every = jax.vmap(at)(jnp.asarray(penalty, y.dtype))
        best = jnp.argmax(every.log_likelihood)
        return take(every, best)

    def init(key, archs):  # blank: a fit comes before every prediction
        N = count(archs)
        model = jax.eval_shape(fit, key, None, archs, jnp.zeros(N, jnp.float32), jnp.zeros(N, bool))
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), model)

    def project(model, archs):  # x [C, F], centred, and L^-1 x [F, C]
        x = jax.vmap(encode)(archs).astype(model.weights.dtype) - model.center[None]
        return x, solve(model.factor, x.T)

    def predict(model, archs):
        x, v = project(model, archs)
        return model.mean + x @ model.weights, model.noise * jnp.sqrt(jnp.sum(v**2, 0) + 1 / model.told)

    def draw(key, model, archs):
        x, v = project(model, archs)
        z = jax.random.normal(key, (len(v) + 1,), v.dtype)  # of the weights, then of the mean
        return model.mean + x @ model.weights + model.noise * (z[:-1] @ v + z[-1] / jnp.sqrt(model.told))

    return Surrogate(init, fit, predict, draw)


def _solve(factor, right):
    """A^-1 right [F]: L^-1 by `solve`, then its transpose applied to that."""
    inverse = solve(factor, jnp.eye(len(right), dtype=right.dtype))  # L^-1
    return inverse.T @ (inverse @ right)
