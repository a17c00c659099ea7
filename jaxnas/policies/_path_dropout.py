"""Path dropout: all paths are present, and each is dropped now and then, so that the network still works without some of them.

Reference: Bender et al., Understanding and Simplifying One-Shot Architecture Search, ICML 2018, section 3.2.

    P(a path into a node of k incoming paths is dropped) = r^(1/k) t / T

At the end of training, t = T, all k are dropped together with the odds r, whatever k is.  What is left is added, not averaged.
A path is one operation of one edge into a node, or one candidate of a layer; a cell's none and a layer's zero or skip are no paths.

Axes: E rows of a kind, O operations, M ghost batches.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import Positive, Probability
from jaxnas.policies.policy import Policy, draw
from jaxnas.spaces._mobile import MobileSpec, block
from jaxnas.spaces._space import Space, is_shape
from jaxnas.spaces.cell import CellSpec


def incoming(space: Space) -> Any:
    """k of each row of gates, of the gates' structure without the last axis: the paths into the node that the row leads to.

    Raises:
        ValueError: for a space of other than edges or mobile layers.
    """
    spec = space.spec
    if isinstance(spec, MobileSpec):
        return type(space.decisions)(tuple(np.asarray(sum(block(op) is not None for op in layer.ops)) for layer in spec.layers))
    if not isinstance(spec, CellSpec):
        raise ValueError("path dropout needs a space of edges or of mobile layers, whose operations may all be there at once")
    target = np.asarray([target for _, target in spec.edges])
    real = np.asarray([name != "none" for name in spec.ops])

    def counts(on):  # bool[E, O] -> [E]
        return np.bincount(target, (on & real).sum(-1))[target].astype(int)

    return jax.tree.map(counts, _open(space))


def _open(space: Space) -> Any:
    """bool, of the gates' structure: what is in the space."""
    return jax.tree.map(lambda s: np.ones(s, bool), space.gate_shapes, is_leaf=is_shape) if space.open is None else space.open


@checked
def path_dropout(
    space: Space, rate: Probability, warm_up: Callable[[jax.Array], jax.Array | float] | None = None, paths: Positive = 1
) -> Policy:
    """Gates of 0 and 1, drawn independently for each path; an architecture is a draw with one operation an edge.

    Args:
        space: of cells whose edges mix, or of mobile layers.
        rate: r, the odds that a node loses all its paths.
        warm_up: t -> t / T in [0, 1]; default: 1, all of the dropout from the first step on.
        paths: M, ghost batches: see `weight_sharing.Weights.ghost`.

    There is nothing to learn, so `derive` is the space's architecture of equal gates.

    Raises:
        ValueError: for a rate outside (0, 1), fewer than 1 path, or another space.
    """
    if not 0 < rate < 1:
        raise ValueError(f"`rate` is the odds that a node loses all its paths: give it in (0, 1), not {rate}")
    odds = jax.tree.map(lambda k: jnp.float32(rate) ** (1 / k), incoming(space))
    share = (lambda t: 1.0) if warm_up is None else warm_up
    there = _open(space)
    blank = jax.tree.map(lambda shape: jnp.zeros(shape, jnp.float32), space.gate_shapes, is_leaf=is_shape)

    def sample(key, theta, t):
        del theta
        uniform = draw(blank, paths, key, lambda key, row, shape: jax.random.uniform(key, shape))
        drop = jax.tree.map(lambda p: p * share(t), odds)
        return jax.tree.map(lambda u, p, on: (on[None] & (u >= p[None, ..., None])).astype(jnp.float32), uniform, drop, there)

    return Policy(lambda key: (), sample, lambda gates: gates, None, lambda theta: space.derive(blank), False, sparse=True)
