"""Local search: climb by single edits, and start again from elsewhere at a local optimum.

Reference: White, Nolen and Savani, Exploring the Loss Landscape in Neural Architecture Search, UAI 2021, arXiv:2005.02960.

    repeat:  centre <- the best of I random architectures that were never asked for
             repeat:  ask for the neighbours of centre that were never asked for, in random order;
                      first improvement (the default):  move to the first that is better than centre, at once
                      steepest:  ask for all of them, then move to the best of them if it is better than centre
             until none is better

Every architecture costs one query, however often the climbs meet it: what was asked for is remembered, by its decisions (so
isomorphic cells are two).  A move needs a strict improvement: a plateau ends a climb.  A uniform draw from the neighbours that
are left is the next one of a random order, so no order is stored.

Axes: K neighbours, C architectures remembered, W words of a code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Arch, AskTell
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space
from jaxnas.trees import take


class LocalSearchState(NamedTuple):
    asked: jax.Array  # int32[W, C]: codes of what was asked for, a ring; -1 before that
    told: jax.Array  # int32[]: candidates scored so far
    drawn: jax.Array  # int32[]: random architectures that this climb has asked for
    centre: Arch  # whose neighbours are asked for
    left: jax.Array  # bool[K]: those that were never asked for; none of them: ask for a random architecture
    best: Arch  # of this climb
    best_score: jax.Array  # float32[]; -inf before the climb has one


@checked
def local_search(space: Space, *, capacity: Positive, steepest: bool = False, initial: Positive = 1) -> AskTell:
    """Local search with restarts; asks for one architecture a step and never for the same again.

    Args:
        space: where to search; decisions only.
        capacity: C, how many architectures it remembers: the number of steps it will run.  Beyond it the oldest are
            forgotten, and beyond the size of the space architectures come again.
        steepest: ask for the whole neighbourhood before a move, default False.
        initial: I, random architectures from the best of which a climb starts, default 1.

    Raises:
        ValueError: for a space with reals or with a single architecture, a capacity below 1, or `initial` below 1.
    """
    if space.reals is not None:
        raise ValueError("local search asks for all neighbours: it needs a space of decisions only")
    K = int(np.sum(space.arity - 1))
    if K == 0:
        raise ValueError("local search needs a space of at least two architectures")
    C, radix = min(capacity, space.size), words(space.arity)  # [D, W]
    last = space.size if capacity >= space.size else 2**31 - 1  # by this step everything was asked for

    def code(arch):  # -> int32[W]
        return jnp.sum(space.flat(arch)[:, None] * radix, 0)

    def known(asked, codes):  # int32[W, C], int32[K, W] -> bool[K]
        return jnp.any(jnp.all(codes.T[:, :, None] == asked[:, None, :], 0), -1)

    def init(key):
        arch = space.sample(key)  # the first to be asked for
        return LocalSearchState(
            asked=jnp.full((radix.shape[1], C), -1, jnp.int32),
            told=jnp.zeros((), jnp.int32),
            drawn=jnp.zeros((), jnp.int32),
            centre=arch,
            left=jnp.zeros(K, bool),
            best=arch,
            best_score=jnp.asarray(-jnp.inf, jnp.float32),
        )

    def ask(key, state):
        k_start, k_near = jax.random.split(key)
        start = ~jnp.any(state.left)

        def draw(carry):
            k_again, k_sample = jax.random.split(carry[0])
            return k_again, space.sample(k_sample)

        def again(carry):
            return start & (state.told < last) & known(state.asked, code(carry[1])[None])[0]

        anywhere = jax.lax.while_loop(again, draw, (k_start, state.centre))[1]
        i = jnp.argmax(jnp.where(state.left, jax.random.uniform(k_near, (K,)), -1.0))
        near = take(space.neighbors(state.centre), i)
        return state, take(optax.tree.where(start, anywhere, near), None)

    def tell(key, state, archs, scores):
        del key  # nothing to draw
        arch = take(archs, 0)
        better = scores[0] > state.best_score
        best = optax.tree.where(better, arch, state.best)
        move = jnp.sum(state.left) <= 1 if steepest else True  # told: the last neighbour, or a random architecture
        centre = optax.tree.where(move, best, state.centre)
        asked = state.asked.at[:, state.told % C].set(code(arch))
        drawn = state.drawn + ~jnp.any(state.left)
        climbing = drawn >= initial
        left = climbing & ~known(asked, jax.vmap(code)(space.neighbors(centre)))
        over = climbing & ~jnp.any(left)  # a local optimum
        return LocalSearchState(
            asked=asked,
            told=state.told + 1,
            drawn=jnp.where(over, 0, drawn),
            centre=centre,
            left=left,
            best=best,
            best_score=jnp.where(over, -jnp.inf, jnp.maximum(state.best_score, scores[0])),
        )

    return AskTell(init, ask, tell)


def words(arity: np.ndarray) -> np.ndarray:
    """int32[D, W]: the place values of a code of W mixed-radix words, one to one: `sum(flat[:, None] * words(arity), 0)`.

    A word holds as many decisions as fit into 31 bits, so a space that has an index needs one.
    """
    place, w, product = np.zeros((len(arity), len(arity)), np.int32), 0, 1
    for d, n in enumerate(map(int, arity)):
        if product * n >= 2**31:
            w, product = w + 1, 1
        place[d, w] = product
        product *= n
    return place[:, : w + 1]
