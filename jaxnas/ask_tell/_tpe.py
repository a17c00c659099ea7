"""Tree-structured Parzen estimator: ask for what is likelier among the good than among the rest.

Reference: Bergstra, Bardenet, Bengio and Kegl, Algorithms for Hyper-Parameter Optimization, NeurIPS 2011.

    the first `initial` architectures are random;  then repeat
        good <- the best `gamma(n)` of n told;  l <- density(good),  g <- density(the rest)
        ask for argmax log l(x) - log g(x) over candidates x ~ l, leaving out what was told

Densities, with a weight w_i for each observation (1 for the newest 25 of its kind, falling to 1/n at the oldest) and a prior
of weight 1, as in hyperopt and Optuna:

    independent   p(x) = prod_d p_d(x_d);  p_d(a) ~ sum_i w_i [x_id = a] + 1, over observations in which decision d is on;
                  a real: a mixture of normals on [0, 1], at each x_i as wide as its farther neighbour is away, and N(1/2, 1)
    joint         p(x) ~ sum_i w_i prod_d K_d(x_d | x_id) + prod_d 1/c_d, which sees interactions;
                  K_d: Aitchison and Aitken, 1 - lambda_d if equal, else lambda_d / (c_d - 1); a real: a normal on [0, 1]

    bandwidths of `joint`   lambda_d = (c_d - 1) / (n + 1 + c_d),  sigma = 0.2 n^-1/(D + R + 4)                      Optuna's
             or normal_reference: 1.06 s_d n^-1/(D + R + 4), at least a minimum (BOHB, Falkner et al., ICML 2018)

Default gamma is Optuna's, ceil(n / 10) and at most 25 (`hyperopt_gamma`: ceil(sqrt(n) / 4)); 24 candidates and 20 random ones are
hyperopt's.  Candidates are whole architectures, not chosen decision by decision, so that those told can be left out: without
that the search repeats itself.

Axes: N capacity, n of them observed, C candidates, D decisions, A the largest arity (c_d: that of d), R reals.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, ndtr, ndtri

from jaxnas.ask_tell.history import check_capacity, code, distinct, no_archs, random_first, seen
from jaxnas.base import Arch, AskTell, Key
from jaxnas.checks import checked
from jaxnas.kinds import Positive, Share
from jaxnas.spaces._space import Space
from jaxnas.trees import take


class TPEState(NamedTuple):
    archs: Arch  # [N, ...]: a ring, `told % N` is the oldest once it is full
    scores: jax.Array  # float32[N]
    told: jax.Array  # int32[]: candidates scored so far


class Points(NamedTuple):
    """Architectures as numbers."""

    v: jax.Array  # int32[..., D]
    u: jax.Array  # float32[..., R], in the unit cube
    on: jax.Array  # bool[..., D]: the decisions that matter


def points_of(space: Space, archs: Arch) -> Points:
    """Those of architectures [N, ...]."""
    return jax.vmap(lambda a: Points(space.flat(a), space.unit(a), space.active(a)))(archs)


# (space, points [N, ...], weight [N]) -> (lambda [D], sigma [R])
Bandwidth = Callable[[Space, Points, jax.Array], tuple[jax.Array, jax.Array]]


class Density(NamedTuple):
    sample: Callable[[Key, int], tuple[jax.Array, jax.Array]]  # n draws (v [n, D], u [n, R]); ignore decisions that are off
    log_prob: Callable[[Points], jax.Array]  # of one architecture, []; decisions that are off do not count


def optuna_gamma(n: int) -> int:
    """How many of n are good: a tenth, at most 25."""
    return min(math.ceil(n / 10), 25)


def hyperopt_gamma(n: int) -> int:
    """How many of n are good: a quarter of the square root, at most 25."""
    return min(math.ceil(math.sqrt(n) / 4), 25)


def independent(space: Space, points: Points, weight: jax.Array) -> Density:
    """Every decision and every real for itself, from points [N, ...] of weight [N] (0: not there)."""
    D, A = len(space.arity), int(space.arity.max(initial=1))
    counts = jnp.sum(jax.nn.one_hot(points.v, A) * (points.on * weight[:, None])[..., None], 0) + 1.0  # [D, A]
    counts = counts * (np.arange(A)[None] < space.arity[:, None])
    p = counts / jnp.sum(counts, -1, keepdims=True)
    w, centers = jnp.append(weight, 1.0), jnp.concatenate([points.u, jnp.full((1, points.u.shape[1]), 0.5)])  # and the prior
    width = jnp.where((np.arange(len(w)) < len(weight))[:, None], _neighbor_width(centers, w > 0), 1.0)
    R = centers.shape[1]

    def sample(key, n):
        k_v, k_i, k_u = jax.random.split(key, 3)
        v = _pick(jax.random.uniform(k_v, (n, D)), p[None])
        i = _pick(jax.random.uniform(k_i, (n, R)), w[None, None])
        r = np.arange(R)[None]
        return jnp.minimum(v, space.arity[None] - 1), _truncated(jax.random.uniform(k_u, (n, R)), centers[i, r], width[i, r])

    def log_prob(x):
        decisions = jnp.sum(jnp.log(p)[np.arange(D), x.v], where=x.on)
        return decisions + jnp.sum(logsumexp(_normal(x.u[None], centers, width), 0, b=(w / jnp.sum(w))[:, None]))

    return Density(sample, log_prob)


def joint(space: Space, points: Points, weight: jax.Array, bandwidth: Bandwidth | None = None, prior: float = 1.0) -> Density:
    """One kernel around each of the points [N, ...] of weight [N] (0: not there), and a uniform prior.

    Args:
        bandwidth: (space, points, weight) -> (lambda [D], sigma [R]), default `optuna_bandwidth`.
        prior: its weight.
    """
    c, D, R = space.arity, len(space.arity), points.u.shape[1]
    lam, sigma = (optuna_bandwidth if bandwidth is None else bandwidth)(space, points, weight)
    w = jnp.append(weight, prior)

    def sample(key, n):
        k_i, k_v, k_u = jax.random.split(key, 3)
        i = _pick(jax.random.uniform(k_i, (n,)), w[None])
        around, i = (i < len(weight))[:, None], jnp.minimum(i, len(weight) - 1)
        move, where, free = jax.random.uniform(k_v, (3, n, D))
        center = jnp.where(points.on[i] & around, points.v[i], jnp.floor(free * c[None]).astype(jnp.int32))
        other = (center + 1 + jnp.floor(where * (c[None] - 1)).astype(jnp.int32)) % c[None]
        v = jnp.where(points.on[i] & around & (move < lam[None]), other, center)
        draw, flat = jax.random.uniform(k_u, (2, n, R))
        return v, jnp.where(around, _truncated(draw, points.u[i], sigma[None]), flat)

    def log_prob(x):
        near = jnp.where(points.v == x.v[None], jnp.log1p(-lam)[None], jnp.log(lam / np.maximum(c - 1, 1))[None])
        each = jnp.where(points.on, near, -np.log(c)[None])  # a decision that is off in an observation tells nothing
        around = jnp.sum(each, -1, where=x.on[None]) + jnp.sum(_normal(x.u[None], points.u, sigma[None]), -1)
        return logsumexp(jnp.append(around, -jnp.sum(jnp.log(c), where=x.on)), b=w / jnp.sum(w))

    return Density(sample, log_prob)


def optuna_bandwidth(space: Space, points: Points, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Shrinks with the observations, whatever they are."""
    n = jnp.sum(weight > 0)
    sigma = 0.2 * jnp.maximum(n, 1) ** (-1 / (sum(_dims(points)) + 4))
    return jnp.asarray(space.arity - 1) / (n + 1 + space.arity), jnp.full(points.u.shape[1], sigma)


def normal_reference(minimum: float = 1e-3) -> Bandwidth:
    """Scott's rule, s the deviation of the observations; that of a decision counts all its values equally far apart.

    BOHB's minimum is 1e-3; NATS-Bench runs it with 0.3.
    """

    def bandwidth(space, points, weight):
        there, A = weight > 0, int(space.arity.max(initial=1))
        n = jnp.maximum(jnp.sum(there), 1)
        hot = jax.nn.one_hot(points.v, A) * (points.on & there[:, None])[..., None]
        p = jnp.sum(hot, 0) / jnp.maximum(jnp.sum(hot, (0, 2)), 1)[:, None]  # [D, A]
        s = jnp.sqrt((1 - jnp.sum(p**2, -1)) / 2)
        mean = jnp.sum(points.u, 0, where=there[:, None]) / n
        s_u = jnp.sqrt(jnp.sum((points.u - mean[None]) ** 2, 0, where=there[:, None]) / n)
        scott = 1.06 * n ** (-1 / (sum(_dims(points)) + 4))
        return jnp.clip(scott * s, minimum, 1 - 1 / space.arity), jnp.maximum(scott * s_u, minimum)

    return bandwidth


@checked
def tpe(
    space: Space,
    *,
    capacity: Positive,
    initial: Positive = 20,
    candidates: Positive = 24,
    gamma: Share | Callable[[int], int] = optuna_gamma,
    density: Callable[[Space, Points, jax.Array], Density] = independent,
    unique: bool = True,
    batch: Positive = 1,
) -> AskTell:
    """The tree-structured Parzen estimator, on decisions, conditional ones, reals, or both.

    Args:
        space: where to search.
        capacity: N, the scores kept: what a search is going to tell; beyond it the oldest is forgotten.
        initial: random architectures before the first choice, default 20.
        candidates: C, drawn from l, default 24.
        gamma: n -> how many of n are good, default `optuna_gamma`; or their share, 0.15 in the paper.
        density: default `independent`, as published; or `joint`.
        unique: leave out what was told, and ask for a random architecture when that is every candidate.
        batch: B, default 1; the B best candidates of one fit, no two alike.

    Raises:
        ValueError: for a capacity below 1, an `initial` or a batch outside [1, capacity], fewer candidates than the batch, or a
            gamma that calls fewer than 1 or more than n of n good.
    """
    N, C, B = capacity, candidates, batch
    check_capacity(N, initial, B)
    if C < B:
        raise ValueError(f"draw at least as many candidates as the batch ({B}); got candidates={C}")
    count = gamma if callable(gamma) else lambda n: math.ceil(gamma * n)
    goods = np.asarray([count(n) for n in range(1, N + 1)], np.int32)
    if ((goods < 1) | (goods > np.arange(1, N + 1))).any():
        raise ValueError(f"gamma must call at least 1 and at most n of n observations good; got {goods.tolist()[:10]}...")

    def init(key):
        del key  # nothing to draw
        return TPEState(no_archs(space, N), jnp.zeros(N, jnp.float32), jnp.zeros((), jnp.int32))

    def ask(key, state):
        k_random, k_draw, k_spare = jax.random.split(key, 3)
        order = (state.told + jnp.arange(N)) % N  # the oldest first
        archs, mask = take(state.archs, order), (jnp.arange(N) < state.told)[order]
        n = jnp.sum(mask)
        score = jnp.where(mask, state.scores[order], -jnp.inf)
        before = (score[None] > score[:, None]) | ((score[None] == score[:, None]) & np.tri(N, k=-1, dtype=bool))
        good = mask & (jnp.sum(before, -1) < jnp.asarray(goods)[n - 1])
        known = points_of(space, archs)
        best, rest = (density(space, known, _weights(members)) for members in (good, mask & ~good))  # l, g
        v, u = best.sample(k_draw, C)
        on = jax.vmap(lambda v, u: space.active(space.unflat(v, u)))(v, u)
        options = jax.vmap(space.unflat)(jnp.where(on, v, 0), u)
        value = jax.vmap(lambda x: best.log_prob(x) - rest.log_prob(x))(points_of(space, options))
        codes = jax.vmap(lambda arch: code(space, arch))
        if unique:
            spare = jax.vmap(space.sample)(jax.random.split(k_spare, C))
            options = jax.tree.map(lambda *a: jnp.concatenate(a), options, spare)
            value = jnp.append(value, jnp.full(C, jnp.finfo(jnp.float32).min))
            value = jnp.where(seen(codes(options), codes(archs), mask), -jnp.inf, value)
        chosen = take(options, distinct(value, codes(options), B))
        return state, random_first(k_random, space, initial - state.told, chosen)

    def tell(key, state, archs, scores):
        del key  # nothing to draw
        slots = (state.told + jnp.arange(B)) % N
        return TPEState(
            archs=jax.tree.map(lambda old, new: old.at[slots].set(new), state.archs, archs),
            scores=state.scores.at[slots].set(scores),
            told=state.told + B,
        )

    return AskTell(init, ask, tell)


def _weights(members, flat=25):
    """float32[N]: linear forgetting over the members of a set, oldest first: the newest 25 weigh 1, the oldest 1/n."""
    n = jnp.maximum(jnp.sum(members), 1)
    age = jnp.cumsum(members) - 1  # 0: the oldest
    ramp = 1 / n + (1 - 1 / n) * age / jnp.maximum(n - flat - 1, 1)
    return jnp.where(members, jnp.where(age >= n - flat, 1.0, ramp), 0.0)


def _dims(points):
    return points.v.shape[1], points.u.shape[1]


def _pick(u, p):
    """Draws by inverse transform: u [...] in [0, 1), p [..., K] of any sum -> int32[...], never one of weight 0 before the last."""
    odds = jnp.cumsum(p, -1)
    return jnp.minimum(jnp.sum(u[..., None] * odds[..., -1:] >= odds, -1), p.shape[-1] - 1)


def _mass(center, width):
    return ndtr(-center / width), ndtr((1 - center) / width)


def _normal(x, center, width):
    """The log density at x of a normal truncated to [0, 1]."""
    low, high = _mass(center, width)
    return -0.5 * ((x - center) / width) ** 2 - jnp.log(width * math.sqrt(2 * math.pi) * (high - low))


def _truncated(u, center, width):
    low, high = _mass(center, width)
    return jnp.clip(center + width * ndtri(low + u * (high - low)), 0, 1)


def _neighbor_width(x, there):
    """Of each x [K, R], the distance to its farther neighbour among those there, within [1 / min(100, K' + 1), 1]."""
    gap = x[:, None] - x[None]  # [K, K, R]
    left = jnp.min(gap, 1, where=(gap > 0) & there[None, :, None], initial=jnp.inf)
    right = jnp.min(-gap, 1, where=(gap < 0) & there[None, :, None], initial=jnp.inf)
    widest = jnp.maximum(jnp.where(jnp.isinf(left), 0, left), jnp.where(jnp.isinf(right), 0, right))
    return jnp.clip(widest, 1 / jnp.minimum(100, jnp.sum(there) + 1), 1)
