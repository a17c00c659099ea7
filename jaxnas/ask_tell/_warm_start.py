"""A search that begins with architectures you have: the best of a proxy, of another search, or a baseline network.

Reference for the best of a proxy: Abdelfattah, Mehrotra, Dudziak and Lane, Zero-Cost Proxies for Lightweight NAS, ICLR 2021,
arXiv:2101.08134, section 5.2 (there the first population is the best of a thousand random cells).

    repeat:  candidates <- what the algorithm asks for, the first n places of all taken by the n given
             the algorithm is told of them as if they were its own

Axes: n given, B candidates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, AskTell, State, asked_shapes
from jaxnas.checks import checked, described
from jaxnas.trees import count, take


class WarmStartState(NamedTuple):
    algorithm: State
    given: Arch  # [n, ...]
    asked: jax.Array  # int32[]: candidates so far


@checked
def warm_start(algorithm: AskTell, archs: Arch) -> AskTell:
    """The algorithm, whose first n candidates are those given.

    Args:
        algorithm: one that learns from whatever it is told; one whose population is n or more keeps all of them at first.
        archs: [n, ...], architectures of its space stacked, as `jax.vmap(space.sample)` gives them; not checked further.

    Raises:
        ValueError: for an algorithm that plans its candidates (progressive; those that ask for trials), architectures of other
            shapes than it asks for, or none.
    """
    if not algorithm.replaceable:
        raise ValueError("this algorithm plans its candidates, and cannot begin with others: take one that learns from any")
    own = asked_shapes(algorithm)
    if not all(isinstance(a, jax.Array | np.ndarray) for a in jax.tree.leaves(archs)):
        raise ValueError(f"`archs` must be architectures stacked, a pytree of arrays [n, ...]; got {described(archs)}")
    like = lambda tree: [(jnp.ndim(a), jnp.shape(a)[1:], jnp.result_type(a)) for a in jax.tree.leaves(tree)]
    lengths = {len(a) for a in jax.tree.leaves(archs) if jnp.ndim(a)}
    if jax.tree.structure(own) != jax.tree.structure(archs) or like(own) != like(archs) or len(lengths) != 1:
        raise ValueError("give architectures of the algorithm's own space, stacked: [n, ...] in each leaf")
    (n,), B = lengths, count(own)
    if n < 1:
        raise ValueError("give at least one architecture to begin with")

    def init(key):
        return WarmStartState(algorithm.init(key), jax.tree.map(jnp.asarray, archs), jnp.zeros((), jnp.int32))

    def ask(key, state):
        inner, asked = algorithm.ask(key, state.algorithm)
        place = state.asked + jnp.arange(B)
        given = take(state.given, jnp.minimum(place, n - 1))
        pick = lambda ours, theirs: jnp.where((place < n).reshape(-1, *[1] * (ours.ndim - 1)), ours, theirs)
        return state._replace(algorithm=inner, asked=state.asked + B), jax.tree.map(pick, given, asked)

    def tell(key, state, archs, scores):
        return state._replace(algorithm=algorithm.tell(key, state.algorithm, archs, scores))

    best = algorithm.best
    of_inner = None if best is None else lambda state: best(state.algorithm)
    return algorithm._replace(init=init, ask=ask, tell=tell, best=of_inner)
