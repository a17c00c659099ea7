"""A genetic algorithm: parents by tournament, children by crossover and mutation, survivors the best of both.

Reference: Holland, Adaptation in Natural and Artificial Systems, 1975; tournaments as in Goldberg and Deb, A Comparative
Analysis of Selection Schemes Used in Genetic Algorithms, FOGA 1991; (mu + lambda) survival as in Baeck and Schwefel, An
Overview of Evolutionary Algorithms for Parameter Optimization, Evolutionary Computation 1(1), 1993.

    population <- P random architectures
    repeat:  B times:  a, b <- the fitter of S members, twice;  child <- crossover(a, b) with odds p_c, else a
                       child <- mutate(child) with odds p_m
             population <- the best P of population + children, one of each architecture

Defaults: B = P (generations), S = 2 and p_c = 0.9 as is usual (Deb et al., NSGA-II, 2002), p_m = 1 since `space.mutate`
changes exactly one thing, as the usual odds of 1/n for each of n decisions do on average.  B = 1 is the steady state.

Of equal architectures the last told survives, with its own score: under noise, one that was lucky is corrected when it is
bred again.

Axes: P population, S tournament, B children, N = B + P, D decisions, R reals.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.ask_tell.history import code
from jaxnas.base import Arch, AskTell, Key
from jaxnas.checks import checked
from jaxnas.kinds import Positive, Probability
from jaxnas.spaces._space import Space
from jaxnas.trees import take


class GeneticState(NamedTuple):
    archs: Arch  # [P, ...]: the fittest first
    fitness: jax.Array  # float32[P]; -inf for a place that is still free
    told: jax.Array  # int32[]: candidates scored so far


def survivors(space: Space, told: tuple, members: tuple) -> tuple:
    """(archs, scores) of the P fittest, the fittest first, of those told and the P members; of equals, the one told."""
    archs, scores = jax.tree.map(lambda new, old: jnp.concatenate([new, old]), told, members)
    point = jax.vmap(lambda a: code(space, a))(archs)  # [N, D + R]
    same = jnp.all(point[:, None] == point[None], -1)  # [N, N]
    twin = jnp.any(same & np.tri(len(scores), k=-1, dtype=bool), -1)  # of one before it
    fitness, best = jax.lax.top_k(jnp.where(twin, -jnp.inf, scores), len(members[1]))
    return take(archs, best), fitness


@checked
def genetic(
    space: Space,
    population: Positive = 50,
    tournament: Positive = 2,
    crossover: Probability = 0.9,
    mutation: Probability = 1.0,
    batch: Positive | None = None,
    mutate: Callable[[Key, Arch], Arch] | None = None,
) -> AskTell:
    """A (P + B) genetic algorithm; the first P candidates, rounded up to whole batches, are random.

    Args:
        space: where to search; decisions, reals or both.
        population: P, default 50.
        tournament: S, default 2: greedier as it grows.
        crossover: p_c, the odds that a child has two parents, default 0.9.
        mutation: p_m, the odds that a child is mutated, default 1.
        batch: B, children to a generation, default P.
        mutate: (key, arch) -> arch, default `space.mutate`.

    Raises:
        ValueError: for a population below 1 or larger than the space, a tournament or batch below 1, odds outside [0, 1], or
            odds that are both 0.
    """
    P, S, B = population, tournament, population if batch is None else batch
    mutate = space.mutate if mutate is None else mutate
    if not 1 <= P <= space.size:
        raise ValueError(f"a population holds at least 1 and at most all {space.size} architectures; got population={P}")
    if not (0 <= crossover <= 1 and 0 <= mutation <= 1 and crossover + mutation > 0):
        raise ValueError(f"odds lie in [0, 1], and one of them above 0; got crossover={crossover}, mutation={mutation}")

    def init(key):
        return GeneticState(
            archs=jax.vmap(space.sample)(jax.random.split(key, P)),  # placeholders: the first step asks for others
            fitness=jnp.full(P, -jnp.inf, jnp.float32),
            told=jnp.zeros((), jnp.int32),
        )

    def ask(key, state):
        alive = jnp.maximum(jnp.sum(state.fitness > -jnp.inf), 1)

        def breed(key):
            k_draw, k_cross, k_mutate, k_sample = jax.random.split(key, 4)
            p = jax.random.uniform(k_draw, (2, S + 1))
            winner = jnp.min(jnp.floor(p[:, :S] * alive), -1).astype(jnp.int32)  # [2]: the fittest come first
            a, b = (take(state.archs, winner[i]) for i in (0, 1))
            cross, change = p[0, S] < crossover, p[1, S] < mutation
            child = optax.tree.where(cross, space.crossover(k_cross, a, b), a)
            child = optax.tree.where(change, mutate(k_mutate, child), child)
            return optax.tree.where(state.told < P, space.sample(k_sample), child)

        return state, jax.vmap(breed)(jax.random.split(key, B))

    def tell(key, state, archs, scores):
        del key  # nothing to draw
        return GeneticState(*survivors(space, (archs, scores), (state.archs, state.fitness)), told=state.told + B)

    return AskTell(init, ask, tell)
