"""A second softmax over the edges that meet in a node: PC-DARTS's edge normalisation.

Reference: Xu et al., PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search, ICLR 2020,
arXiv:1907.05737, eq. 2.

    node i = sum over its edges e of  softmax(beta over the edges of i)_e  *  sum_o softmax(alpha_e)_o o(x_e)

so that the gate of operation o on edge e is the product of the two, and an edge is as strong as that product.

Axes: E edges, O operations.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.policies.policy import Policy, close, logits, softmax_rows
from jaxnas.spaces.cell import CellSpec
from jaxnas.spaces.space import Space


class EdgeTheta(NamedTuple):
    alpha: Any  # of the gates' structure, [E, O]
    beta: Any  # the same without the operations, [E]


def edge_normalised(space: Space, scale: float = 1e-3) -> Policy:
    """Gates softmax(alpha) * softmax(beta), and the architecture derived from them.

    Args:
        space: a cell space (`space.spec` says which edges meet).
        scale: of the initial logits.

    Raises:
        ValueError: for another space, or one with an edge of a single operation.
    """
    spec = space.spec
    if not isinstance(spec, CellSpec):
        raise ValueError("only a cell space has edges that meet in a node: this `space` has none")
    init, node = logits(space, scale), np.asarray([i for _, i in spec.edges])
    together = jnp.asarray(node[:, None] == node[None])  # [E, E]

    def weight(beta):  # softmax over each node's edges
        return jnp.exp(beta - jax.nn.logsumexp(jnp.where(together, beta[None], -jnp.inf), -1))

    def gates(theta):
        return jax.tree.map(lambda a, b: a * weight(b)[:, None], softmax_rows(theta.alpha), theta.beta)

    def start(key):
        k_alpha, k_beta = jax.random.split(key)
        return EdgeTheta(init(k_alpha), jax.tree.map(lambda a: a[:, 0], init(k_beta)))

    def sample(key, theta, t):
        del key, t  # deterministic
        return jax.tree.map(lambda a: a[None], gates(theta))

    def close_alpha(theta, still):
        return theta._replace(alpha=close(theta.alpha, still))

    derive = lambda theta: space.derive(gates(theta))
    return Policy(start, sample, lambda action: action, None, derive, False, close_alpha)
