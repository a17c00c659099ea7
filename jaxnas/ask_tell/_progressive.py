"""Progressive search: from small architectures to large ones, guided by a model of what has been trained so far.

Reference: Liu et al., Progressive Neural Architecture Search, ECCV 2018, arXiv:1712.00559, algorithm 1.

    score all architectures of level 1;  fit the surrogate
    for each next level:  expand the K kept (level 2: all of level 1) in every legal way, predict, keep the best K,
                          score those, keep fitting the surrogate to everything scored so far

The answer is the best of the last level reached.  Defaults K = 256; a cell of `pnas()` grows block by block.

    search = progressive(growing_blocks(space), ensemble(BlockPerceptron(...), block_tokens(space), later_rate=0.002), beam=256)

Axes: K beam, F architectures of level 1, L levels, E expansions of one architecture, N = F + (L - 1) K, B asked for at once.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.ask_tell.history import no_archs, seen
from jaxnas.base import Arch, AskTell
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space
from jaxnas.spaces.blocks import Blocks, BlockSpec, Sized
from jaxnas.surrogates.kernels import stir
from jaxnas.surrogates.surrogate import Surrogate
from jaxnas.trees import count, take


class Growth(NamedTuple):
    """How the architectures of a space grow."""

    space: Space
    first: Arch  # [F, ...], all of level 1
    expand: Callable[[Arch], tuple[Arch, jax.Array]]  # arch -> (archs [E, ...] of the next level, bool[E]: which are legal)
    identity: Callable[[Arch], jax.Array]  # arch -> [I], equal for equal networks: of those one is kept
    levels: int


class ProgressiveState(NamedTuple):
    archs: Arch  # [N, ...]: level after level; beyond the present one blank
    scores: jax.Array  # float32[N]
    told: jax.Array  # int32[]
    model: Any


@checked
def progressive(growth: Growth, surrogate: Surrogate, *, beam: Positive = 256, batch: Positive = 1) -> AskTell:
    """PNAS, after F + (L - 1) K candidates at its end: from then on it asks for the last level again.

    One search fits its surrogate L - 1 times.  Side by side under `vmap` the steps between compute a fit too, and drop it:
    a larger batch then saves time, and is the same search.

    Args:
        growth: such as `growing_blocks(space)`.
        surrogate: of the scores as they are told, ranked by its mean.
        beam: K, default 256.
        batch: B, default 1; must divide F and K.

    Raises:
        ValueError: for a beam below 1 or larger than what level 1 can grow into, or a batch that does not divide both.
    """
    space, first, expand, identity, L = growth
    F, K, B = count(first), beam, batch
    N = F + (L - 1) * K
    most = int(jnp.sum(jax.vmap(expand)(first)[1])) if L > 1 else K
    if not 1 <= K <= most:
        raise ValueError(f"the beam must be at least 1 and at most the {most} architectures of level 2; got beam={K}")
    if B < 1 or F % B or (K % B and L > 1):
        raise ValueError(f"the batch must divide the {F} architectures of level 1 and the beam of {K}; got batch={B}")
    starts = np.asarray([0] + [F + i * K for i in range(L - 1)])  # of the levels

    def init(key):
        archs = jax.tree.map(lambda a, f: a.at[:F].set(f), no_archs(space, N), first)
        return ProgressiveState(archs, jnp.zeros(N, jnp.float32), jnp.zeros((), jnp.int32), surrogate.init(key, archs))

    def slots(told):  # int32[B]; past the end the last level again
        place = told + jnp.arange(B)
        return jnp.where(place < N, place, starts[-1] + (place - N) % (N - starts[-1]))

    def ask(key, state):
        del key  # the level is chosen
        return state, take(state.archs, slots(state.told))

    def grown(model, archs, parents) -> Arch:
        """The best K children of archs [P, ...] of which the first `parents` are there."""

        def merge(kept, x):
            values, best = kept
            arch, there = x
            children, legal = expand(arch)
            value = surrogate.predict(model, children)[0]
            again = seen(jax.vmap(identity)(children), jax.vmap(identity)(best), values > -jnp.inf)
            value = jnp.where(legal & there & ~again, value, -jnp.inf)
            both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), best, children)
            values, top = jax.lax.top_k(jnp.concatenate([values, value]), K)
            return (values, take(both, top)), None

        empty = jnp.full(K, -jnp.inf, jnp.float32), no_archs(space, K)
        return jax.lax.scan(merge, empty, (archs, jnp.arange(count(archs)) < parents))[0][1]

    def tell(key, state, archs, scores):
        del archs  # they are those of the level
        told = state.told + B
        bits, kind = jax.random.key_data(key), jax.random.key_impl(key)  # `vmap` hands a branch its operands twice: no key
        state = state._replace(scores=state.scores.at[slots(state.told)].set(scores), told=told)

        def widen(state):
            model = surrogate.fit(
                jax.random.wrap_key_data(bits, impl=kind), state.model, state.archs, state.scores, jnp.arange(N) < told
            )
            width = max(F, K)
            start = jnp.where(told == F, 0, told - K)
            padded = jax.tree.map(lambda a: jnp.concatenate([a, jnp.zeros((width, *a.shape[1:]), a.dtype)]), state.archs)
            level = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, width), padded)
            children = grown(model, level, told - start)
            place = lambda a, new: jax.lax.dynamic_update_slice_in_dim(a, new, told, 0)
            return state._replace(archs=jax.tree.map(place, state.archs, children), model=model)

        if L == 1:
            return state
        return jax.lax.cond(jnp.any(told == starts[1:]), widen, lambda state: state, state)

    def best(state):
        reached = jnp.max(jnp.where(starts < state.told, starts, 0))
        at = jnp.arange(N)
        there = (at >= reached) & (at < state.told)
        return take(state.archs, jnp.argmax(jnp.where(there, state.scores, -jnp.inf)))

    return AskTell(init, ask, tell, best, replaceable=False)


@checked
def growing_blocks(space: Space) -> Growth:
    """Cells of `pnas()` that grow by a block whose sides are in order.

    Equal networks, whatever the order of their blocks, have equal identities: sums of hashes of what their blocks compute
    (64 bits).

    Raises:
        ValueError: for another space.
    """
    spec = space.spec
    if not isinstance(spec, BlockSpec) or spec.kinds:
        raise ValueError("blocks are added to the one cell of a space of pnas()")
    B, width = spec.blocks, len(spec.ops)
    sides = itertools.product(range(B + 1), range(width))
    pairs = np.asarray(list(itertools.combinations_with_replacement(sides, 2)), np.int32)  # [E, 2, 2]: (input, op) of both

    def grow(arch, b):
        put = lambda a, new: jnp.where((jnp.arange(B) == b)[None, :, None], new[:, None], a[None])
        blocks = Blocks(put(arch.blocks.input, pairs[:, :, 0]), put(arch.blocks.op, pairs[:, :, 1]))
        return Sized(jnp.full(len(pairs), b, jnp.int32), blocks), pairs[:, :, 0].max(1) < 2 + b

    def identity(arch):
        cell = arch.blocks
        salt = stir(jnp.arange(2, dtype=jnp.uint32) + 1)  # [2]: two hashes of 32 bits
        states = [salt + 1, salt + 2]
        for b in range(B):
            known = jnp.stack(states)[jnp.minimum(cell.input[b], len(states) - 1)]  # [2 sides, 2]
            states.append(stir(jnp.sum(stir(known + stir(cell.op[b].astype(jnp.uint32) + 3)[:, None]), 0, dtype=jnp.uint32)))
        there = (jnp.arange(B) <= arch.size)[:, None]
        return jnp.sum(jnp.where(there, jnp.stack(states[2:]), 0), 0, dtype=jnp.uint32)

    nothing = take(no_archs(space, 1), 0)
    archs, legal = grow(nothing, 0)
    first = take(archs, np.flatnonzero(legal))
    return Growth(space, first, lambda arch: grow(arch, arch.size + 1), identity, B)


@checked
def growing_edges(space: Space) -> Growth:
    """Cells of operations on edges (NAS-Bench-201) that grow by an edge: from one that is not `none` to all of them.

    Raises:
        ValueError: for a space whose architectures are not one operation an edge, with `none` among them.
    """
    spec = space.spec
    if getattr(spec, "inputs", 0) != 1 or "none" not in spec.ops or len(space.arity) != len(spec.edges):
        raise ValueError("edges are added to cells of one operation an edge, `none` among them, such as nasbench201()")
    none = spec.ops.index("none")
    real = [k for k in range(len(spec.ops)) if k != none]
    D = len(space.arity)
    edge, op = np.repeat(np.arange(D), len(real)), np.tile(real, D)  # [E]

    def expand(arch):
        v = space.flat(arch)
        rows = jnp.where(jnp.arange(D)[None] == edge[:, None], op[:, None], v[None])
        return jax.vmap(space.unflat)(rows.astype(jnp.int32)), v[edge] == none

    return Growth(space, expand(space.unflat(jnp.full(D, none, jnp.int32)))[0], expand, space.flat, D)
