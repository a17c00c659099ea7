"""NSGA-II: several objectives at once, elitist by fronts and, within a front, by room.

References: Deb, Pratap, Agarwal and Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE TEC 6(2),
2002; duplicates are eliminated as in Blank and Deb, pymoo, IEEE Access 8, 2020, arXiv:2002.04504.

    P <- N random architectures
    repeat:  parents <- winners of binary tournaments in P by (rank, then larger crowding)
             Q <- N children of pairs of them by crossover and mutation
             P <- the N best of P + Q by (rank, then larger crowding)

Crossover, with odds 0.9 a pair: decisions are exchanged with odds 1/2 (uniform), reals by bounded SBX.  Mutation, with odds
1/n a dimension: another value for a decision, bounded polynomial mutation for a real.  Constraints are columns that hold
where they are >= 0; a candidate violates by the sum of their negative parts, and the smaller violation dominates.

A pair has two children, and half as many pairs again mate as are needed: the first N children that are new, as networks, to
P and to each other are asked for.  Where there are too few, random architectures follow, and repeats after them.

Defaults of the paper: N = 100, crossover 0.9, mutation 1/n, eta 20 for both.  `state.rank == 0` is the front found.

Axes: P population, M objectives, K constraints, D decisions, R reals.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.analysis import pareto
from jaxnas.base import Arch, AskTell
from jaxnas.checks import checked
from jaxnas.kinds import NonNegative, NonNegativeNumber, Positive, Probability
from jaxnas.spaces._space import Space
from jaxnas.spaces.real import polynomial_mutation, sbx
from jaxnas.trees import take


class NSGA2State(NamedTuple):
    archs: Arch  # [P, ...]
    scores: jax.Array  # float32[P, M + K]; -inf before the member is scored
    rank: jax.Array  # int32[P]; 0 is the front
    crowding: jax.Array  # float32[P], inside its front
    told: jax.Array  # int32[]: candidates scored so far


def fingerprints(rows: jax.Array) -> jax.Array:
    """uint32[N] of int32[N, n]: equal for equal rows, and almost never equal for others."""
    bits = rows.astype(jnp.uint32)
    bits = (bits ^ (bits >> 16)) * np.uint32(0x85EBCA6B)
    bits = bits ^ (bits >> 13)
    return jnp.sum(bits * np.cumprod(np.full(rows.shape[1], 0x9E3779B1, np.uint32))[None], -1, dtype=jnp.uint32)


@checked
def nsga2(
    space: Space,
    objectives: Positive,
    *,
    population: Positive = 100,
    constraints: NonNegative = 0,
    crossover_odds: Probability = 0.9,
    mutate_odds: Probability | None = None,
    eta_crossover: NonNegativeNumber = 20.0,
    eta_mutation: NonNegativeNumber = 20.0,
    unique: bool = True,
) -> AskTell:
    """NSGA-II; the first P candidates asked for are the random ones that `init` drew.

    Scores are [P, M + K]: objectives, larger is better, then constraints.  `best` is, of the members that violate least, the
    best in the first objective.

    Args:
        space: where to search: decisions, reals or both.
        objectives: M.
        population: P, default 100; also the candidates of a step.
        constraints: K, default 0.
        crossover_odds: of a pair to be crossed, default 0.9; else its children are mutants only.
        mutate_odds: of a dimension to be mutated, default 1/n, n the reals and the decisions with more than one value.
        eta_crossover, eta_mutation: distribution indices of the reals' operators: the larger, the nearer the children stay.
        unique: no child equals a member or another child, as far as spare children and random architectures allow.

    Raises:
        ValueError: for fewer than 2 members or more than the space has, less than one objective or 0 constraints, odds
            outside [0, 1] or negative distribution indices.
    """
    P, M, K = population, objectives, constraints
    arity, D = space.arity, len(space.arity)
    R = jax.eval_shape(lambda: space.unit(space.sample(jax.random.key(0)))).size
    mutate_odds = 1 / max(int((arity > 1).sum()) + R, 1) if mutate_odds is None else mutate_odds
    if P < 2:
        raise ValueError(f"NSGA-II needs a population of at least 2: a pair has children; got population={P}")
    if unique and space.size < P:
        raise ValueError(f"this space has {space.size} architectures: ask for a population of at most that; got population={P}")
    if M < 1 or K < 0:
        raise ValueError(f"scores are at least 1 objective, then 0 or more constraints; got {M} and {K}")
    matings = (3 * P + 3) // 4 if unique else (P + 1) // 2

    def violation(scores):  # [N, M + K] -> [N]
        return jnp.sum(jnp.maximum(-scores[:, M:], 0), -1)

    def coordinates(archs):  # -> int32[N, D], float32[N, R] in the unit cube
        return jax.vmap(space.flat)(archs), jax.vmap(space.unit)(archs)

    def tournaments(key, state, n):  # -> int32[n]: in a round of P / 2 of them, every member takes part once
        drawn = jnp.argsort(jax.random.uniform(key, (-(-2 * n // P), P)), -1)
        a, b = drawn.ravel()[: 2 * n].reshape(n, 2).T
        tie = state.rank[a] == state.rank[b]
        return jnp.where((state.rank[b] < state.rank[a]) | tie & (state.crowding[b] > state.crowding[a]), b, a)

    def mutate(key, v, u):
        k_v, k_u = jax.random.split(key)
        p = jax.random.uniform(k_v, (2, D))
        shift = 1 + jnp.floor(p[0] * (arity - 1)).astype(jnp.int32)  # [D], in [1, arity)
        v = jnp.where((p[1] < mutate_odds) & (arity > 1), (v + shift) % arity, v)
        u = polynomial_mutation(k_u, u, eta_mutation, mutate_odds)
        return jnp.where(space.active(space.unflat(v, u)), v, 0), u

    def mate(key, a, b):  # two parents, each (v [D], u [R]) -> two children
        k_cross, k_swap, k_real, k_first, k_second = jax.random.split(key, 5)
        cross = jax.random.bernoulli(k_cross, crossover_odds)
        swap = cross & jax.random.bernoulli(k_swap, 0.5, (D,))
        (v, u), (w, x) = a, b
        y, z = sbx(k_real, u, x, eta_crossover)
        first = mutate(k_first, jnp.where(swap, w, v), jnp.where(cross, y, u))
        second = mutate(k_second, jnp.where(swap, v, w), jnp.where(cross, z, x))
        return jax.tree.map(lambda c, d: jnp.stack([c, d]), first, second)

    def init(key):
        return NSGA2State(
            archs=jax.vmap(space.sample)(jax.random.split(key, P)),
            scores=jnp.full((P, M + K), -jnp.inf, jnp.float32),
            rank=jnp.zeros(P, jnp.int32),
            crowding=jnp.zeros(P, jnp.float32),
            told=jnp.zeros((), jnp.int32),
        )

    def ask(key, state):
        k_tournaments, k_mate, k_random = jax.random.split(key, 3)
        members = coordinates(state.archs)
        winners = tournaments(k_tournaments, state, 2 * matings).reshape(matings, 2)
        a, b = (take(members, winners[:, i]) for i in (0, 1))
        bred = jax.vmap(mate)(jax.random.split(k_mate, matings), a, b)  # [matings, 2, ...]
        bred = jax.tree.map(lambda x: x.reshape(2 * matings, x.shape[2]), bred)
        if unique:
            drawn = jax.random.split(k_random, 0 if R else P)  # with reals a child is new unless it is a copy: spares suffice
            random = coordinates(jax.vmap(space.sample)(drawn))
            v, u = jax.tree.map(lambda *parts: jnp.concatenate(parts), members, bred, random)
            networks = jax.vmap(space.flat)(jax.vmap(space.canonical)(jax.vmap(space.unflat)(v, u)))
            marks = fingerprints(jnp.concatenate([networks, jax.lax.bitcast_convert_type(u, jnp.int32)], -1))
            earlier = np.tri(len(v) - P, len(v), P - 1, bool)
            repeat = jnp.any((marks[P:, None] == marks[None]) & earlier, -1)
            first = P + jnp.argsort(repeat, stable=True)
            bred = v[first], u[first]
        children = jax.vmap(space.unflat)(*take(bred, slice(P)))
        return state, jax.tree.map(lambda a, c: jnp.where(state.told == 0, a, c), state.archs, children)

    def tell(key, state, archs, scores):
        del key  # nothing to draw
        archs, scores = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), (state.archs, state.scores), (archs, scores))
        rank = pareto.ranks(scores[:, :M], violation(scores), enough=P)
        crowding = pareto.crowding(scores[:, :M], rank)
        kept = jnp.lexsort((-crowding, rank))[:P]
        return NSGA2State(
            archs=take(archs, kept),
            scores=scores[kept],
            rank=rank[kept],
            crowding=crowding[kept],
            told=state.told + P,
        )

    def best(state):
        excess = violation(state.scores)
        i = jnp.argmax(jnp.where(excess == excess.min(), state.scores[:, 0], -jnp.inf))
        return take(state.archs, i)

    return AskTell(init, ask, tell, best, M + K)
