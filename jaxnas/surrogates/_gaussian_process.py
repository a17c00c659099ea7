"""A Gaussian process of fixed size: N rows, of which a mask says which are there.

Reference: Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, chapters 2 and 5.

    y = m + f(x) + noise,   f ~ GP(0, s^2 k),   Var(noise) = s^2 v
    K = k(X, X) + v I where told, I elsewhere: the other rows drop out exactly;   L L^T = K
    m = 1^T K^-1 y / 1^T K^-1 1,   s^2 = |L^-1 (y - m)|^2 / n              their values of largest likelihood
    log p(y) = -n/2 (log 2 pi s^2 + 1) - sum log diag L                    kernel and v: the best row of a grid
    mean(x) = m + k(x, X) K^-1 (y - m),   var(x) = s^2 (1 - |L^-1 k(X, x)|^2)

Default noise v = 1e-2, the largest that Ru et al., ICLR 2021, allow.  A jitter of 10 N eps joins it, so that K of n equal
architectures has a Cholesky factor in float32 without any noise; with v = 1e-2 the condition number is at most 100 n + 1.

The factor and its solves are matrix products over blocks, and no library's process is used (tinygp 0.3 fits the shapes): its
`vmap` is a batch of LAPACK calls, and two of those at once, as on two CPU devices, hang for ever in jaxlib 0.10.

Axes: N capacity, n told, C candidates, G rows of the grid, b rows of a block.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.checks import checked
from jaxnas.surrogates.kernels import Kernel, gram
from jaxnas.surrogates.surrogate import Surrogate
from jaxnas.trees import count, take


class Cholesky(NamedTuple):
    lower: jax.Array  # [N, N], L
    inverse: jax.Array  # [N, b]: of the blocks on L's diagonal, one below the other


def cholesky(k: jax.Array) -> Cholesky:
    """The factor of a positive definite matrix, in blocks of 20 columns, or 16 blocks."""
    N = len(k)
    b = min(N, max(20, -(-N // 16)))
    M = -(-N // b) * b
    k = jnp.pad(k, (0, M - N)) + jnp.diag(jnp.asarray(np.arange(M) >= N, k.dtype))

    def step(lower, j):  # its columns before j are done, the others 0
        panel = jax.lax.dynamic_slice(k, (0, j), (M, b)) - lower @ jax.lax.dynamic_slice(lower, (j, 0), (b, M)).T
        inverse = _inverse(jax.lax.dynamic_slice(panel, (j, 0), (b, b)))
        column = jnp.where(np.arange(M)[:, None] >= j + np.arange(b)[None], panel @ inverse.T, 0)
        return jax.lax.dynamic_update_slice(lower, column, (0, j)), inverse

    lower, inverse = jax.lax.scan(step, jnp.zeros_like(k), jnp.arange(0, M, b))
    return Cholesky(lower[:N, :N], inverse.reshape(M, b)[:N])


def _inverse(k):
    """The inverse of the factor of one block: the elimination that takes [K, I] to [L^T, L^-1]."""
    b = len(k)

    def step(c, rows):
        pivot = rows[c] / jnp.sqrt(rows[c, c])
        below = jnp.where(np.arange(b) > c, pivot[:b], 0)
        return (rows - below[:, None] * pivot[None]).at[c].set(pivot)

    return jax.lax.fori_loop(0, b, step, jnp.concatenate([k, jnp.eye(b, dtype=k.dtype)], 1))[:, b:]


def solve(factor: Cholesky, right: jax.Array) -> jax.Array:
    """L^-1 right, [N, M], by forward substitution of blocks."""
    N, b = factor.inverse.shape
    out = jnp.zeros_like(right[:0])
    for j in range(0, N, b):
        rest = right[j : j + b] - factor.lower[j : j + b, :j] @ out
        out = jnp.concatenate([out, factor.inverse[j : j + b, : len(rest)] @ rest])
    return out


class GaussianProcessState(NamedTuple):
    features: Any  # [N, ...] of the architectures
    mask: jax.Array  # bool[N]: which of them were told
    row: jax.Array  # int32[]: of the grid, the kernel's and the noise's
    log_likelihood: jax.Array  # [], of that row
    factor: Cholesky
    mean: jax.Array  # [], m
    scale: jax.Array  # [], s
    residual: jax.Array  # [N], L^-1 (y - m)


@checked
def gaussian_process(kernel: Kernel, noise: ArrayLike = 1e-2) -> Surrogate:
    """The Gaussian process whose kernel, of a family, explains the scores best; it forgets the model it is given.

    Args:
        kernel: one of `jaxnas.surrogates.kernels`.
        noise: v, or several to choose from.

    Raises:
        ValueError: for a noise that is negative or not finite.
    """
    noise = np.atleast_1d(np.asarray(noise, np.float64))
    if noise.ndim != 1 or noise.size == 0 or not (np.isfinite(noise) & (noise >= 0)).all():
        raise ValueError(f"the noise is a variance, or several to choose from, none below 0; got {noise.tolist()}")
    G, V = count(kernel.grid), len(noise)

    def theta(row, dtype):
        return jax.tree.map(lambda g: jnp.asarray(g, dtype)[row // V], kernel.grid)

    def fit(key, model, archs, y, mask):
        del key, model  # the fit is exact
        N, dtype = len(y), y.dtype
        x = jax.vmap(kernel.features)(archs)
        both = mask[:, None] & mask[None]
        there = mask.astype(dtype)
        n = jnp.sum(there)

        def at(row):
            v = jnp.asarray(noise, dtype)[row % V] + 10 * N * jnp.finfo(dtype).eps
            k = jnp.where(both, gram(kernel, theta(row, dtype), x, x), 0)
            factor = cholesky(k + jnp.diag(jnp.where(mask, v, 1)))
            z, one = solve(factor, jnp.stack([y * there, there], -1)).T
            mean = (one @ z) / jnp.maximum(one @ one, jnp.finfo(dtype).tiny)
            residual = z - mean * one
            square = residual @ residual
            s2 = jnp.where(square > 0, square / jnp.maximum(n, 1), 1)  # 1 while nothing tells it
            likelihood = -0.5 * n * (jnp.log(2 * np.pi * s2) + 1) - jnp.sum(jnp.log(jnp.diagonal(factor.lower)))
            return GaussianProcessState(x, mask, row, likelihood, factor, mean, jnp.sqrt(s2), residual)

        rows = jnp.arange(G * V, dtype=jnp.int32)
        axes = GaussianProcessState._make((None, None, 0, 0, 0, 0, 0, 0))  # x and the mask are those of every row
        every = jax.vmap(at, out_axes=axes)(rows)
        best = jnp.argmax(every.log_likelihood)
        return GaussianProcessState(x, mask, *take(tuple(every)[2:], best))

    def init(key, archs):  # blank: a fit comes before every prediction
        N = count(archs)
        model = jax.eval_shape(fit, key, None, archs, jnp.zeros(N, jnp.float32), jnp.zeros(N, bool))
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), model)

    def project(model, x):  # L^-1 k(X, x) [N, C]
        k = gram(kernel, theta(model.row, model.residual.dtype), model.features, x)
        return solve(model.factor, jnp.where(model.mask[:, None], k, 0))

    def predict(model, archs):
        v = project(model, jax.vmap(kernel.features)(archs))
        variance = jnp.maximum(1 - jnp.einsum("nc,nc->c", v, v), jnp.finfo(v.dtype).eps)
        return model.mean + model.residual @ v, model.scale * jnp.sqrt(variance)

    def draw(key, model, archs):
        x = jax.vmap(kernel.features)(archs)
        v = project(model, x)
        C, dtype = v.shape[1], v.dtype
        k = gram(kernel, theta(model.row, dtype), x, x) - v.T @ v + 10 * C * jnp.finfo(dtype).eps * jnp.eye(C, dtype=dtype)
        sample = cholesky(k).lower @ jax.random.normal(key, (C,), dtype)
        return model.mean + model.residual @ v + model.scale * sample

    return Surrogate(init, fit, predict, draw)
