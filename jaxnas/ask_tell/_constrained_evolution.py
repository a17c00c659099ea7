"""Evolution under a limit on the cost: what cannot be afforded is never evaluated, and nothing is evaluated twice.

References: Guo et al., Single Path One-Shot Neural Architecture Search, ECCV 2020, arXiv:1904.00420, algorithm 1; Cai et al.,
Once-for-All, ICLR 2020, arXiv:1908.09791, section 3.4 (what breaks the limit is drawn again).

    candidates <- B random architectures
    repeat:  parents <- the best P ever seen
             candidates <- M mutants of parents, C children of two parents, the rest random;
                           each is drawn again until it costs at most the limit and has not been seen

    mutation: every active decision is drawn anew with odds p_m;  crossover: uniform

Defaults: B = 50, P = 10, M = C = 25, p_m = 0.1 (SPOS; it runs 20 generations).

A mutant or a child has T draws, then it is random, with T more.  When all of them fail, it is an affordable one that has been seen
(the last of the draws, or the cheapest architecture), and counts in `repeated`.

Axes: B candidates, P parents, N the most candidates that are remembered, D decisions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.ask_tell._genetic import survivors
from jaxnas.base import Arch, AskTell
from jaxnas.checks import checked
from jaxnas.kinds import NonNegative, Positive, PositiveNumber, Probability
from jaxnas.spaces._every import every
from jaxnas.spaces._space import Space
from jaxnas.trees import take


class ConstrainedState(NamedTuple):
    parents: Arch  # [P, ...]: the fittest first
    fitness: jax.Array  # float32[P]; -inf for a place that is still free
    seen: jax.Array  # int32[N, D]; -1 for a free place, the oldest is overwritten
    told: jax.Array  # int32[]: candidates scored so far
    repeated: jax.Array  # int32[]: candidates that had been seen before


ENUMERABLE = 2**18  # architectures that are all priced, to know the cheapest
DRAWS = 1024  # architectures priced where they are more


class Cheapest(NamedTuple):
    arch: Arch
    cost: float
    exact: bool  # nothing in the space costs less; False: nothing that was looked at does


@checked
def cheapest(space: Space, cost: Callable[[Arch], jax.Array]) -> Cheapest:
    """The cheapest architecture, by pricing all of them where they are at most `ENUMERABLE` (host).

    In a larger space it is the end of a descent from neighbor to neighbor, begun at the cheapest of the first architecture and
    `DRAWS` random ones: the cheapest where costs add up over decisions, and no more than a low cost otherwise.  A cost that
    is NaN is never the cheapest.
    """
    price = lambda rows: np.asarray(jax.lax.map(lambda v: cost(space.unflat(v)), rows, batch_size=4096), np.float64)
    if space.size <= ENUMERABLE:
        rows = every(space)
        costs = price(rows)
        i = int(np.argmin(np.where(np.isnan(costs), np.inf, costs)))
        return Cheapest(space.unflat(jnp.asarray(rows[i])), float(costs[i]), True)
    first = space.canonical(space.unflat(jnp.zeros(len(space.arity), jnp.int32)))
    drawn = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), DRAWS))
    rows = jnp.concatenate([space.flat(first)[None], jax.vmap(space.flat)(drawn)])
    costs = price(rows)
    i = int(np.argmin(np.where(np.isnan(costs), np.inf, costs)))
    arch, least = space.unflat(rows[i]), float(costs[i])
    while True:
        around = space.neighbors(arch)
        costs = np.asarray(jax.vmap(cost)(around), np.float64)
        i = int(np.argmin(np.where(np.isnan(costs), np.inf, costs)))
        if not (costs[i] < least or np.isnan(least)):
            return Cheapest(arch, least, False)
        arch, least = take(around, i), float(costs[i])


@checked
def constrained_evolution(
    space: Space,
    cost: Callable[[Arch], jax.Array],
    limit: PositiveNumber,
    batch: Positive = 50,
    parents: Positive = 10,
    mutants: NonNegative = 25,
    children: NonNegative = 25,
    probability: Probability = 0.1,
    capacity: Positive = 1000,
    draws: Positive = 100,
) -> AskTell:
    """Evolution among the architectures that cost at most `limit`.

    Args:
        space: where to search; decisions only.
        cost: arch -> [], as `lambda arch: hardware.expected(table, space.gates(arch))`.
        limit: in the cost's unit.
        batch: B; parents: P; mutants: M; children: C; probability: p_m; capacity: N; draws: T.

    Raises:
        ValueError: for a limit below the cost of what `cheapest` finds, a space with real dimensions, sizes below 1, more mutants
            and children than candidates, a capacity below the batch, or odds outside (0, 1].
    """
    if space.reals is not None:
        raise ValueError("this space has real dimensions: search it under a limit with nsga2's constraints")
    if min(batch, parents, draws) < 1 or min(mutants, children) < 0 or mutants + children > batch or capacity < batch:
        sizes = f"batch={batch}, parents={parents}, mutants={mutants}, children={children}, capacity={capacity}, draws={draws}"
        raise ValueError(
            f"sizes must be positive, mutants + children at most the batch, the batch at most the capacity: got {sizes}"
        )
    if not 0 < probability <= 1:
        raise ValueError(f"mutation needs odds in (0, 1]; got probability={probability}")
    least, price, exact = cheapest(space, cost)
    if not price <= limit:
        if exact:
            raise ValueError(f"no architecture costs {limit:g} or less: the cheapest costs {price:g}, give at least that")
        raise ValueError(
            f"found no architecture that costs {limit:g} or less, in a space too large to price all of: the cheapest of {DRAWS:,} "
            f"random ones, and of what a descent from it led to, costs {price:g}; there may be cheaper ones, or give at least that"
        )
    arity, D = space.arity, len(space.arity)
    kind = np.repeat([0, 1, 2], [mutants, children, batch - mutants - children])  # mutant, child, random

    def init(key):
        del key  # the first step asks for random ones
        return ConstrainedState(
            parents=jax.tree.map(lambda a: jnp.broadcast_to(a, (parents, *jnp.shape(a))), least),
            fitness=jnp.full(parents, -jnp.inf, jnp.float32),
            seen=jnp.full((capacity, D), -1, jnp.int32),
            told=jnp.zeros((), jnp.int32),
            repeated=jnp.zeros((), jnp.int32),
        )

    def propose(key, state, kind):
        k_pick, k_change, k_cross, k_sample = jax.random.split(key, 4)
        alive = jnp.maximum(jnp.sum(state.fitness > -jnp.inf), 1)
        i = jnp.floor(jax.random.uniform(k_pick, (2,)) * alive).astype(jnp.int32)
        a, b = (take(state.parents, i[n]) for n in (0, 1))
        p = jax.random.uniform(k_change, (2, D))
        drawn = jnp.floor(p[1] * arity).astype(jnp.int32)
        mutant = space.canonical(space.unflat(jnp.where(p[0] < probability, drawn, space.flat(a))))
        child = space.crossover(k_cross, a, b)
        fresh = space.sample(k_sample)
        bred = optax.tree.where(kind == 0, mutant, child)
        return optax.tree.where((kind == 2) | (state.told == 0), fresh, bred)

    def ask(key, state):
        def one(carry, xs):
            seen, repeated = carry
            key, kind, place = xs

            def again(carry):
                t, _, _, done = carry
                return (t < 2 * draws) & ~done

            def once(carry):
                t, affordable, _, _ = carry
                arch = propose(jax.random.fold_in(key, t), state, jnp.where(t < draws, kind, 2))
                fits = cost(arch) <= limit
                known = jnp.any(jnp.all(seen == space.flat(arch)[None], -1))
                return t + 1, optax.tree.where(fits, arch, affordable), known, fits & ~known

            start = (jnp.zeros((), jnp.int32), least, jnp.zeros((), bool), jnp.zeros((), bool))
            _, arch, _, new = jax.lax.while_loop(again, once, start)
            return (seen.at[place].set(space.flat(arch)), repeated + ~new), arch

        places = (state.told + jnp.arange(batch)) % capacity
        xs = (jax.random.split(key, batch), jnp.asarray(kind), places)
        (seen, repeated), archs = jax.lax.scan(one, (state.seen, state.repeated), xs)
        return state._replace(seen=seen, repeated=repeated), archs

    def tell(key, state, archs, scores):
        del key  # nothing to draw
        best, fitness = survivors(space, (archs, scores), (state.parents, state.fitness))
        return state._replace(parents=best, fitness=fitness, told=state.told + batch)

    return AskTell(init, ask, tell)
