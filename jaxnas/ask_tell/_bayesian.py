"""Bayesian optimisation: a surrogate of the score, an acquisition, and candidates to choose from.

Reference: Jones, Schonlau and Welch, Efficient Global Optimization of Expensive Black-Box Functions, JGO 13, 1998; on cells
with a graph kernel: Ru, Wan, Dong and Osborne, NAS-BOWL, ICLR 2021, arXiv:2006.07556.

    the first `initial` architectures are random;  then repeat
        y <- standardise(transform(scores));  fit the surrogate to (archs, y)
        pool <- candidates(archs, y);  ask for the pool's largest acquisition, leaving out what was told

    gp_ei = bayesian(space, gaussian_process(overlap(space)), expected_improvement(),
                     pool(random_draws(space, 2000), neighbors_of_best(space, 5)), capacity=100, transform=log_error())

Default initial = 10; NAS-BOWL draws 30 and then batches of 5 from a pool of some hundreds.  Candidates are generators
(key, archs [N, ...], y [N], mask [N]) -> archs [C, ...], joined by `pool`.

Axes: N capacity, C candidates, B asked for at once, D decisions, R reals.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxnas.ask_tell.history import check_capacity, code, distinct, leaders, no_archs, random_first, seen
from jaxnas.base import Arch, AskTell, Key
from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.spaces._space import Space
from jaxnas.surrogates.acquisition import Acquisition
from jaxnas.surrogates.surrogate import Surrogate, posterior
from jaxnas.trees import take


class Candidates(Protocol):
    def __call__(self, key: Key, archs: Arch, y: jax.Array, mask: jax.Array, /) -> Arch:
        """The pool that an acquisition chooses from.

        Args:
            key: consumed.
            archs: [N, ...], those told.
            y: float32[N], their standardised scores.
            mask: bool[N]: where something was told.

        Returns:
            archs [C, ...].
        """


class BayesianState(NamedTuple):
    archs: Arch  # [N, ...]: a ring, `told % N` is the oldest once it is full
    scores: jax.Array  # float32[N]
    told: jax.Array  # int32[]: candidates scored so far
    model: Any  # the surrogate as the last ask fitted it


@checked
def bayesian(
    space: Space,
    surrogate: Surrogate,
    acquisition: Acquisition,
    candidates: Candidates,
    *,
    capacity: Positive,
    initial: Positive = 10,
    batch: Positive = 1,
    transform: Callable[[jax.Array], jax.Array] | None = None,
) -> AskTell:
    """Bayesian optimisation.

    Args:
        space: where to search.
        surrogate: such as `gaussian_process(kernel)`.
        acquisition: such as `expected_improvement()`.
        candidates: what to choose from; a pool of which everything was told asks for something again.
        capacity: N, the scores kept: what a search is going to tell; beyond it the oldest is forgotten.
        initial: random architectures before the first choice, default 10.
        batch: B, default 1; the B best candidates of one fit, no two alike.
        transform: scores [N] -> scores [N], rising; such as `log_error()`; default: as they are.

    Raises:
        ValueError: for a capacity below 1, or an `initial` or a batch outside [1, capacity].
    """
    N, B = capacity, batch
    check_capacity(N, initial, B)
    transform = (lambda scores: scores) if transform is None else transform

    def init(key):
        archs = no_archs(space, N)
        return BayesianState(archs, jnp.zeros(N, jnp.float32), jnp.zeros((), jnp.int32), surrogate.init(key, archs))

    def ask(key, state):
        k_random, k_fit, k_pool, k_value = jax.random.split(key, 4)
        mask = jnp.arange(N) < state.told
        y = standardise(transform(state.scores), mask)
        model = surrogate.fit(k_fit, state.model, state.archs, y, mask)
        options = candidates(k_pool, state.archs, y, mask)
        value = acquisition(k_value, posterior(surrogate, model, options), jnp.max(y, where=mask, initial=-jnp.inf))
        codes = jax.vmap(lambda arch: code(space, arch))
        pool, told = codes(options), codes(state.archs)
        value = jnp.where(seen(pool, told, mask) | jnp.isnan(value), -jnp.inf, value)
        chosen = take(options, distinct(value, pool, B))
        return state._replace(model=model), random_first(k_random, space, initial - state.told, chosen)

    def tell(key, state, archs, scores):
        del key  # nothing to draw
        slots = (state.told + jnp.arange(B)) % N
        return state._replace(
            archs=jax.tree.map(lambda old, new: old.at[slots].set(new), state.archs, archs),
            scores=state.scores.at[slots].set(scores),
            told=state.told + B,
        )

    return AskTell(init, ask, tell)


# Candidates


@checked
def random_draws(space: Space, n: Positive) -> Candidates:
    """n uniform draws.

    Raises:
        ValueError: for n below 1.
    """
    _at_least_one(n=n)
    return lambda key, archs, y, mask: jax.vmap(space.sample)(jax.random.split(key, n))


@checked
def neighbors_of_best(space: Space, top: Positive = 5) -> Candidates:
    """All neighbours of the best `top` told.

    Raises:
        ValueError: for `top` below 1, or a space with real dimensions.
    """
    _at_least_one(top=top)
    if space.reals is not None:
        raise ValueError("a point with real dimensions has no list of neighbours: take mutants_of_best")

    def candidates(key, archs, y, mask):
        del key  # all of them
        best = leaders(jnp.where(mask, y, -jnp.inf), top)
        near = jax.vmap(space.neighbors)(take(archs, best))
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), near)

    return candidates


@checked
def mutants_of_best(space: Space, n: Positive, top: Positive = 5) -> Candidates:
    """n mutants, each of one of the best `top` told.

    Raises:
        ValueError: for n or `top` below 1.
    """
    _at_least_one(n=n, top=top)

    def candidates(key, archs, y, mask):
        k_parent, k_mutate = jax.random.split(key)
        best = leaders(jnp.where(mask, y, -jnp.inf), top)
        parents = best[jax.random.randint(k_parent, (n,), 0, jnp.clip(jnp.sum(mask), 1, top))]
        return jax.vmap(space.mutate)(jax.random.split(k_mutate, n), take(archs, parents))

    return candidates


@checked
def pool(*parts: Candidates) -> Candidates:
    """The candidates of all parts.

    Raises:
        ValueError: for no part at all.
    """
    _at_least_one(parts=len(parts))

    def candidates(key, archs, y, mask):
        each = [part(k, archs, y, mask) for part, k in zip(parts, jax.random.split(key, len(parts)), strict=True)]
        return jax.tree.map(lambda *a: jnp.concatenate(a), *each)

    return candidates


# Scores


@checked
def log_error(top: PositiveNumber = 100.0) -> Callable[[jax.Array], jax.Array]:
    """-log(top - score): spreads accuracies out where they crowd below `top` (100, or 1 for fractions)."""
    return lambda scores: -jnp.log(jnp.maximum(top - scores, 1e-6 * top))


def standardise(y: jax.Array, mask: jax.Array) -> jax.Array:
    """y [N] with mean 0 and deviation 1 over the mask; 0 elsewhere."""
    n = jnp.maximum(jnp.sum(mask), 1)
    off = jnp.where(mask, y - jnp.sum(y, where=mask) / n, 0)
    deviation = jnp.sqrt(jnp.sum(off**2) / n)
    return off / jnp.where(deviation > 0, deviation, 1)


def _at_least_one(**sizes):
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"a pool of candidates needs {name} of at least 1; got {name}={size}")
