"""A recurrent cell of any architecture of the space of trees; see `jaxnas.spaces.recurrent` for its equations.

Reference: Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv:1611.01578.

Axes: N leaves, I inputs, H units.
"""

from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.nets.precision import parameter
from jaxnas.spaces._recurrent import Node, Tree, TreeSpec

COMBINE = {"add": jnp.add, "elem_mult": jnp.multiply}
ACTIVATIONS = {"identity": lambda p: p, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu}


def weigh(gate: jax.Array, values: Iterable[jax.Array]) -> jax.Array:
    total: Any = sum(g * v for g, v in zip(gate, values, strict=True))
    return total


class TreeCell(nn.Module):
    """((c, h), x, gates) -> (c, h) of the next step; the output is h.

    One-hot gates pick a cell; all cells have variables of one shape, so that architectures can be vmapped.  There are no biases.
    It computes in the dtype of x, which the state must have, too.
    """

    spec: TreeSpec
    hidden: int

    @nn.compact
    def __call__(self, state: tuple[jax.Array, jax.Array], x: jax.Array, gates: Tree) -> tuple[jax.Array, jax.Array]:
        """state: two of [..., H]; x [..., I]."""
        (c, h), N = state, self.spec.base
        gates = jax.tree.map(lambda g: jnp.asarray(g, x.dtype), gates)
        glorot = nn.initializers.glorot_uniform(batch_axis=0)
        of_input = parameter(self, "kernel", glorot, (N, x.shape[-1], self.hidden), x.dtype)
        of_state = parameter(self, "recurrent_kernel", glorot, (N, self.hidden, self.hidden), x.dtype)
        leaves = zip(jnp.einsum("...i,nih->n...h", x, of_input), jnp.einsum("...i,nih->n...h", h, of_state), strict=True)
        sides, values, before = list(leaves), [], []
        for k, node in enumerate(gates.nodes):
            left, right = sides[k] if k < N else values[2 * (k - N) : 2 * (k - N) + 2]
            p, a = self.one(node, left, right)
            _, injected = self.one(gates.inject, a, c)
            values.append((1 - gates.read[k]) * a + gates.read[k] * injected)
            before.append(p)
        return weigh(gates.write, before), values[-1]

    def one(self, node: Node, left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What a node makes of its two sides, before and after its activation."""
        p = weigh(node.combine, [COMBINE[name](left, right) for name in self.spec.combine])
        return p, weigh(node.activation, [ACTIVATIONS[name](p) for name in self.spec.activations])
