"""Several objectives at once: who dominates whom, fronts, crowding, hypervolume.  Larger is better in every column.

References: Deb, Pratap, Agarwal and Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE TEC 6(2),
2002; Zitzler and Thiele, Multiobjective Optimization Using Evolutionary Algorithms, PPSN 1998 (hypervolume).

    a dominates b    a violates less, or as much and is nowhere worse and somewhere better
    rank 0           no point dominates it;  rank k: none does once the ranks below k are removed
    crowding         sum over objectives of (next better - next worse) / width of the front; infinite at both ends
    hypervolume      what lies between the reference and at least one point

A point that is masked out or has a NaN takes no part: it is in no front, has rank N and no volume.

Axes: N points, M objectives.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def _live(scores, mask):
    real = ~jnp.isnan(scores).any(-1)
    return real if mask is None else real & mask


def domination(scores: jax.Array, violation: jax.Array | None = None) -> jax.Array:
    """bool[N, N]: whether the row's point dominates the column's.

    Args:
        scores: [N, M].
        violation: [N], how far each point is from being feasible, 0 if it is; default: all are.
    """
    columns = scores.T  # [M, N]
    better = (columns[:, :, None] >= columns[:, None]).all(0) & (columns[:, :, None] > columns[:, None]).any(0)
    if violation is None:
        return better
    return (violation[:, None] < violation[None]) | (violation[:, None] == violation[None]) & better


def front(scores: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """bool[N]: the points that no other dominates."""
    live = _live(scores, mask)
    return live & ~(domination(scores) & live[:, None]).any(0)


def ranks(
    scores: jax.Array,
    violation: jax.Array | None = None,
    mask: jax.Array | None = None,
    enough: jax.Array | int | None = None,
) -> jax.Array:
    """int32[N]: the number of each point's front, by peeling.

    Args:
        scores: [N, M].
        violation: see `domination`.
        mask: bool[N], default all.
        enough: stop once so many points have a rank, and leave the others N; default: rank all.
    """
    N = len(scores)
    above, live = domination(scores, violation), _live(scores, mask)
    wanted = jnp.sum(live) if enough is None else jnp.minimum(jnp.sum(live), enough)

    def peel(carry):
        rank, k = carry
        left = live & (rank == N)
        free = left & ~(above & left[:, None]).any(0)
        return jnp.where(free, k, rank), k + 1

    start = jnp.full(N, N, jnp.int32), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(lambda carry: jnp.sum(carry[0] < N) < wanted, peel, start)[0]


def crowding(scores: jax.Array, ranks: jax.Array) -> jax.Array:
    """[N]: the crowding distance of each point inside its own front; ties in an objective stand in the order of the rows."""
    N = len(scores)
    places = jnp.arange(N)

    def one(column):
        rank, f, at = jax.lax.sort((ranks, column, places), num_keys=2)
        first = jnp.concatenate([jnp.ones(1, bool), rank[1:] != rank[:-1]])
        last = jnp.concatenate([first[1:], jnp.ones(1, bool)])
        low = f[jax.lax.cummax(jnp.where(first, places, 0))]  # the front's worst and best
        high = f[jax.lax.cummin(jnp.where(last, places, N - 1), reverse=True)]
        width = high - low
        gap = (jnp.roll(f, -1) - jnp.roll(f, 1)) / jnp.where(width > 0, width, 1)
        gap = jnp.where(first | last, jnp.inf, gap)
        return jnp.zeros_like(gap).at[at].set(gap)

    return jnp.where(ranks < N, jnp.sum(jax.vmap(one)(scores.T), 0), 0)


def hypervolume(scores: ArrayLike, reference: ArrayLike, mask: jax.Array | None = None) -> jax.Array:
    """[]: the exact volume between the reference and the front, of 2 or 3 objectives.

    Sweeps from the best of the first objective downwards: a slab between neighbours is as high as the best of the second
    so far.  With 3 objectives the slabs are those of the third, each with the area of the points above it: O(N^2).

    Args:
        scores: [N, M]; points that do not beat the reference everywhere count for nothing.
        reference: [M], worse than every point of interest.
        mask: bool[N], default all.

    Raises:
        ValueError: for other than 2 or 3 objectives, or (outside jit) a reference that no point beats.
    """
    scores, reference = jnp.asarray(scores), jnp.asarray(reference)
    M = scores.shape[1]
    if M not in (2, 3):
        raise ValueError(f"the exact hypervolume is for 2 or 3 objectives; got {M}")
    beats = _live(scores, mask) & (scores > reference[None]).all(-1)
    if not isinstance(beats, jax.core.Tracer) and not beats.any():
        raise ValueError(f"no point beats the reference {reference.tolist()} everywhere: choose one that is worse than the front")
    room = jnp.where(beats[:, None], scores - reference[None], 0)  # [N, M]

    room = room[jnp.argsort(-room[:, 0])]
    width = room[:, 0] - jnp.append(room[1:, 0], 0)
    area = lambda height: jnp.sum(width * jax.lax.cummax(height))  # height: [N], 0 for points that are not there
    if M == 2:
        return area(room[:, 1])
    level = -jnp.sort(-room[:, 2])
    areas = jax.vmap(lambda z: area(jnp.where(room[:, 2] >= z, room[:, 1], 0)))(level)
    return jnp.sum(areas * (level - jnp.append(level[1:], 0)))
