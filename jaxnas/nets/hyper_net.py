"""A convolutional HyperNet: the weights of a network, computed from a picture of its architecture.

Reference: Brock, Lim, Ritchie and Weston, SMASH: One-Shot Model Architecture Search through HyperNetworks, ICLR 2018,
arXiv:1708.05344, section 3.2; Ha, Dai and Le, HyperNetworks, ICLR 2017, arXiv:1609.09106.

    c[:, g, l, m]     what there is to know of the weights from bank m to output channel g of operation l
    v = H(c)          H a densely connected fully convolutional network over (g, l)
    w[g] = (v[g] - mean v[g]) / |v[g] - mean v[g]|          over the banks that are read: mean 0, variance 1 / fan-in

A picture is made of labels alone: which banks the operation reads and writes, whether it reads bank m, its kernel, its dilation,
its gate, its groups and the size of its banks where these are searched, and the names of m, g and l.  The banks are H's batch: its
kernels do not run along them, since they have no order, and so a permutation of the banks' names is one of the weights.

Not as published: the picture has every bank of every operation, of which those that are not read do not count (published: it
is packed); dense layers of equal width without bias or norm (published: 26 layers).

Axes: D labels, G output channels (of the bottleneck), L operations, M banks, N channels of a bank.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.nets.layers import Conv
from jaxnas.spaces._memory_bank import MemoryBank


def embedding(gates: MemoryBank, G: int) -> jax.Array:
    """The picture [D, G, L, M] of one-hot gates; labels in the order M names of banks, M reads, M writes, and the others."""
    reads, writes = gates.reads[..., 1], gates.writes[..., 1]
    (L, M), dtype = reads.shape, reads.dtype
    size = None if gates.size is None else jnp.repeat(gates.size, L // len(gates.size), 0)  # [L, sizes]
    searched = [row for row in (gates.groups, size) if row is not None]
    of_op = jnp.concatenate([reads, writes, gates.kernel, gates.dilation, gates.gated, *searched, jnp.eye(L, dtype=dtype)], 1)
    spread = lambda a, *axes: jnp.broadcast_to(lax.expand_dims(a, axes), (len(a), G, L, M))
    names = spread(jnp.eye(M, dtype=dtype), 1, 2)
    return jnp.concatenate([names, spread(of_op.T, 1, 3), spread(reads[None], 1), spread(jnp.eye(G, dtype=dtype), 2, 3)])


class HyperNet(nn.Module):
    """c [D, G, L, M] -> v [features, G, L, M]; each of `depth` layers reads all before it and adds `width` channels."""

    width: int
    depth: int
    features: int

    @nn.compact
    def __call__(self, c: jax.Array) -> jax.Array:
        x = Conv(self.width, 3, name="first")(c)
        for i in range(self.depth):
            x = jnp.concatenate([x, Conv(self.width, 3, name=f"dense{i}")(nn.relu(x))])
        return Conv(self.features, name="last")(nn.relu(x))


def standardised(v: jax.Array, reads: jax.Array, channels: jax.Array | None = None) -> jax.Array:
    """v [..., M, N] with mean 0 and norm 1 over the banks that are read, and 0 elsewhere.

    Args:
        v: weights.
        reads: 0 or 1, [..., M]; it broadcasts.
        channels: 0 or 1, [..., 1, N], those that a bank has; default: all.
    """
    on = reads[..., None] if channels is None else reads[..., None] * channels
    count = jnp.maximum(jnp.sum(on, (-2, -1), keepdims=True) * (v.shape[-1] // on.shape[-1]), 1)
    centred = on * (v - jnp.sum(on * v, (-2, -1), keepdims=True) / count)
    return centred * lax.rsqrt(jnp.sum(jnp.square(centred), (-2, -1), keepdims=True) + 1e-12)
