"""A second softmax over the edges that meet in a node: PC-DARTS's edge normalisation.

Reference: Xu et al., PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search, ICLR 2020,
arXiv:1907.05737, eq. 2.

    node i = sum over its edges e of  softmax(beta over the edges of i)_e  *  sum_o softmax(alpha_e)_o o(x_e)

so that the gate of operation o on edge e is the product of the two, and an edge is as strong as that product.

GAEA's (Li et al., ICLR 2021, arXiv:2004.07802) has no softmax in it: alpha's rows and the beta of each node's edges are points of
simplices, which exponentiated gradients move.

Axes: E edges, O operations.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, PositiveNumber
from jaxnas.policies._simplex import exponentiated, simplex
from jaxnas.policies.policy import Policy, close, normal_logits, softmax_rows
from jaxnas.spaces._space import Space
from jaxnas.spaces.cell import CellSpec
from jaxnas.trees import take


class EdgeTheta(NamedTuple):
    alpha: Any  # of the gates' structure, [E, O]
    beta: Any  # the same without the operations, [E]


@checked
def edge_normalised(space: Space, scale: NonNegativeNumber = 1e-3) -> Policy:
    """Gates softmax(alpha) * softmax(beta), and the architecture derived from them.

    Args:
        space: a cell space (`space.spec` says which edges meet).
        scale: of the initial logits.

    Raises:
        ValueError: for another space, or one with an edge of a single operation.
    """
    init, weight = normal_logits(space, scale), _softmax_by_node(space)
    free = normal_logits(space._replace(open=None), scale)

    def gates(theta):
        return _product(softmax_rows(theta.alpha), jax.tree.map(weight, theta.beta))

    def start(key):
        k_alpha, k_beta = jax.random.split(key)
        return EdgeTheta(init(k_alpha), take(free(k_beta), (slice(None), 0)))

    return _policy(space, start, gates, close)


@checked
def edge_simplex(space: Space) -> Policy:
    """Gates alpha * beta of points of simplices, uniform at first; move them with `exponentiated_edges`.

    Raises:
        ValueError: as `edge_normalised`.
    """
    rows, weight = simplex(space), _softmax_by_node(space)

    def start(key):
        alpha = rows.init(key)
        return EdgeTheta(alpha, jax.tree.map(lambda a: weight(jnp.zeros(len(a))), alpha))

    return _policy(space, start, lambda theta: _product(*theta), rows.close)


@checked
def exponentiated_edges(space: Space, rate: PositiveNumber = 0.1) -> optax.GradientTransformation:
    """The exponentiated gradient of `edge_simplex`'s theta: alpha row by row, beta node by node.

    Args:
        space: the policy's.
        rate: eta, of both; default 0.1, as published.

    Raises:
        ValueError: for a rate at or below 0, or as `edge_normalised`.
    """
    rows, weight = exponentiated(rate), _softmax_by_node(space)

    def moved(beta, grad):
        return weight(jnp.log(beta) - rate * grad) - beta

    def update(updates: Any, state: optax.OptState, params: Any = None) -> tuple[EdgeTheta, optax.OptState]:
        alpha, _ = rows.update(updates.alpha, state, params.alpha)
        return EdgeTheta(alpha, jax.tree.map(moved, params.beta, updates.beta)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _softmax_by_node(space):
    """beta [E] -> its softmax over the edges of each node."""
    if not isinstance(space.spec, CellSpec):
        raise ValueError("only a cell space has edges that meet in a node: this `space` has none")
    node = np.asarray([i for _, i in space.spec.edges])
    together = jnp.asarray(node[:, None] == node[None])  # [E, E]
    return lambda beta: jnp.exp(beta - jax.nn.logsumexp(jnp.where(together, beta[None], -jnp.inf), -1))


def _product(alpha, beta):
    return jax.tree.map(lambda a, b: a * b[:, None], alpha, beta)


def _policy(space, start, gates, close):
    def sample(key, theta, t):
        del key, t  # deterministic
        return take(gates(theta), None)

    def close_alpha(theta, still):
        return theta._replace(alpha=close(theta.alpha, still))

    derive = lambda theta: space.derive(gates(theta))
    return Policy(start, sample, lambda action: action, None, derive, False, close_alpha)
