"""Aging (regularised) evolution: tournament selection in which the oldest dies, not the worst.

Reference: Real, Aggarwal, Huang and Le, Regularized Evolution for Image Classifier Architecture Search, AAAI 2019,
arXiv:1802.01548.

    population <- P random architectures
    repeat:  parent <- the fittest of S members drawn uniformly with replacement;  child <- mutate(parent)
             population <- population + child - its oldest member

The control, tournament evolution (the paper's non-aging evolution), removes the worst of the same S instead, whatever the
child is worth: a member that was lucky once may stay for ever.

Defaults P = 100, S = 25 (the paper); NAS-Bench-201's authors use P = 10, S = 3.  The answer is the best candidate ever seen.

Axes: P population, S tournament, B candidates asked for at once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.base import Arch, AskTell, Key
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space
from jaxnas.trees import take


class AgingEvolutionState(NamedTuple):
    archs: Arch  # [P, ...]: where the oldest dies a ring, and member `told % P` is the oldest
    fitness: jax.Array  # float32[P]; -inf before the member is scored
    told: jax.Array  # int32[]: candidates scored so far
    worst: jax.Array | None = None  # int32[B]: where the worst dies, its slot in the tournament of each candidate asked for


@checked
def aging_evolution(
    space: Space,
    population: Positive = 100,
    tournament: Positive = 25,
    batch: Positive = 1,
    mutate: Callable[[Key, Arch], Arch] | None = None,
) -> AskTell:
    """Aging evolution; the first P candidates asked for are the random ones that `init` drew.

    Args:
        space: where to search.
        population: P, default 100; also the number of candidates for which a member lives.
        tournament: S, default 25: greedier as it grows; 1 is a random walk.
        batch: B, default 1 as published; B children replace the B oldest at once, all bred from the same population.
        mutate: (key, arch) -> arch, default `space.mutate`.

    Raises:
        ValueError: for a population or tournament below 1, or a batch outside [1, population].
    """
    return _evolution(space, population, tournament, batch, mutate, aging=True)


@checked
def tournament_evolution(
    space: Space,
    population: Positive = 100,
    tournament: Positive = 25,
    mutate: Callable[[Key, Arch], Arch] | None = None,
) -> AskTell:
    """Aging evolution without the aging: the worst of the tournament dies, not the oldest.  One candidate a step.

    Args:
        space, population, tournament, mutate: as in `aging_evolution`.

    Raises:
        ValueError: for a population or tournament below 1.
    """
    return _evolution(space, population, tournament, 1, mutate, aging=False)


def _evolution(space, population, tournament, batch, mutate, aging):
    P, S, B = population, tournament, batch
    mutate = space.mutate if mutate is None else mutate
    if not 1 <= B <= P:
        raise ValueError(f"ask for at least 1 candidate and at most the population ({P}) a step; got batch={B}")

    def init(key):
        return AgingEvolutionState(
            archs=jax.vmap(space.sample)(jax.random.split(key, P)),
            fitness=jnp.full(P, -jnp.inf, jnp.float32),
            told=jnp.zeros((), jnp.int32),
            worst=None if aging else jnp.zeros(B, jnp.int32),
        )

    def ask(key, state):
        slots = (state.told + jnp.arange(B)) % P  # [B]: the oldest members

        def one(key, b):
            k_tournament, k_mutate = jax.random.split(key)
            drawn = jax.random.randint(k_tournament, (S,), 0, P)
            winner = drawn[jnp.argmax(state.fitness[drawn])]
            child = mutate(k_mutate, take(state.archs, winner))
            first = state.told + b < P  # still an architecture of `init`, in the slot that is its own
            loser = jnp.where(first, slots[b], drawn[jnp.argmin(state.fitness[drawn])])
            return jax.tree.map(lambda a, c: jnp.where(first, a[slots[b]], c), state.archs, child), loser

        archs, losers = jax.vmap(one)(jax.random.split(key, B), jnp.arange(B))
        return state if aging else state._replace(worst=losers), archs

    def tell(key, state, archs, scores):
        del key  # nothing to draw
        slots = (state.told + jnp.arange(B)) % P if aging else state.worst
        return state._replace(
            archs=jax.tree.map(lambda old, new: old.at[slots].set(new), state.archs, archs),
            fitness=state.fitness.at[slots].set(scores),
            told=state.told + B,
        )

    return AskTell(init, ask, tell)
