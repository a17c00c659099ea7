"""New members from a portfolio, and then from its winners: hand-made networks first, mutants of the best after them.

    member i <= n:  the i-th of those given
    member i > n:   one of the best P so far, uniformly, mutated 1, 2 or 3 times;  of T such mutants the first that is new;
                    with odds `again` the mutants keep what `same` says, such as the network, whose program is there already

Of two members the better is that of the larger budget, and at the same budget that of the higher score: scores at two budgets are
never compared.  With successive halving, `asha(space, R, r, propose=portfolio(...))`, what is given is generation 0: the answer
cannot be worse than the best of it, but for the noise of the selection.

Axes: n given, N capacity, P parents, B asked for at once, T draws, D decisions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.ask_tell.halving import Proposer
from jaxnas.ask_tell.history import code, no_archs, seen
from jaxnas.ask_tell.trial import FAILED, Trial
from jaxnas.base import Arch, Key
from jaxnas.checks import checked, require_archs
from jaxnas.kinds import Positive, Probability
from jaxnas.spaces._space import Space
from jaxnas.trees import count, take


class PortfolioState(NamedTuple):
    given: Arch  # [n, ...]
    archs: Arch  # [N, ...], by slot
    scores: jax.Array  # float32[N], at the slot's largest budget
    budget: jax.Array  # int32[N]; 0: nothing yet
    started: jax.Array  # int32[]: new members told so far


@checked
def portfolio(
    space: Space,
    given: Arch,
    capacity: Positive,
    batch: Positive = 1,
    parents: Positive = 4,
    draws: Positive = 16,
    *,
    same: Callable[[Arch, Arch], Arch] | None = None,
    again: Probability = 0.5,
) -> Proposer:
    """The proposer for `asha` and `brackets`.

    Args:
        space: where to mutate.
        given: [n, ...], architectures of the space stacked.
        capacity: N, that of the algorithm.
        batch: B, that of the algorithm.
        parents: P, default 4.
        draws: T, default 16; where none is new, the last one is taken as it is.
        same: (parent, mutant) -> the mutant, with the parent's part of what is not to change; default: mutants change anywhere.
        again: the odds of it, default 0.5.

    Raises:
        ValueError: for nothing given, sizes below 1, or odds outside [0, 1].
    """
    require_archs(space, 1, given=given)
    n = count(given)
    if n < 1:
        raise ValueError("give at least one architecture to begin with")
    P = min(parents, capacity)

    def init(key: Key) -> PortfolioState:
        del key  # nothing to draw
        blank = jnp.zeros(capacity, jnp.float32), jnp.zeros(capacity, jnp.int32), jnp.zeros((), jnp.int32)
        return PortfolioState(jax.tree.map(jnp.asarray, given), no_archs(space, capacity), *blank)

    def mutant(key: Key, parent: Arch) -> Arch:
        k_times, *keys = jax.random.split(key, 4)
        times = jax.random.randint(k_times, (), 1, 4)
        bits = jax.random.key_data(jnp.stack(keys))  # a loop over one trace: a mutation of a large space is a long one
        again = lambda i, arch: space.mutate(jax.random.wrap_key_data(bits[i]), arch)
        return jax.lax.fori_loop(0, times, again, parent)

    def ask(key: Key, state: PortfolioState) -> Arch:
        able = (state.budget > 0) & (state.scores > FAILED)  # bool[N]: what diverged is no parent
        order = jnp.lexsort((-state.scores, -jnp.where(able, state.budget, 0)))[:P]
        known = jnp.clip(jnp.sum(able), 1, P)
        codes = jax.vmap(lambda arch: code(space, arch))(state.archs)

        def one(key, b):
            k_parent, k_mutant, k_again = jax.random.split(key, 3)
            parent = take(state.archs, order[jax.random.randint(k_parent, (), 0, known)])
            some = jax.vmap(mutant, (0, None))(jax.random.split(k_mutant, draws), parent)
            if same is not None:
                keeps = jax.random.bernoulli(k_again, again)
                kept = jax.vmap(same, (None, 0))(parent, some)
                some = jax.tree.map(lambda a, b: jnp.where(keeps, a, b), kept, some)
            new = ~seen(jax.vmap(lambda arch: code(space, arch))(some), codes, state.budget > 0)
            at = jnp.where(jnp.any(new), jnp.argmax(new), draws - 1)
            i = state.started + b
            return jax.tree.map(lambda g, m: jnp.where(i < n, g[jnp.minimum(i, n - 1)], m[at]), state.given, some)

        return jax.vmap(one)(jax.random.split(key, batch), jnp.arange(batch))

    def tell(state: PortfolioState, trials: Trial, scores: jax.Array) -> PortfolioState:
        busy, s = trials.start < trials.stop, trials.slot
        keep = lambda new, old: jnp.where(busy.reshape(-1, *[1] * (new.ndim - 1)), new, old[s])
        return state._replace(
            archs=jax.tree.map(lambda old, new: old.at[s].set(keep(new, old)), state.archs, trials.arch),
            scores=state.scores.at[s].set(keep(scores.astype(jnp.float32), state.scores)),
            budget=state.budget.at[s].set(keep(trials.stop.astype(jnp.int32), state.budget)),
            started=state.started + jnp.sum(busy & (trials.start == 0), dtype=jnp.int32),
        )

    return Proposer(init, ask, tell)
