"""The network of one MetaQNN chain, as a plain module.

Reference: Baker, Gupta, Naik and Raskar, Designing Neural Network Architectures using Reinforcement Learning, ICLR 2017,
arXiv:1611.02167.

    ("conv", filters, k)   relu(conv + b), stride 1, the size is kept       ("dense", n)   relu(W x + b)
    ("pool", k, s)         maximum over k x k windows that lie inside       ("average",)   mean over the map

and a linear classifier.  In training there is dropout behind every second layer, the i-th of n with probability i / (2 n).
Weights start as Glorot's, biases at 0.

Axes: B batch, C channels, H rows, W columns.
"""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch
from jaxnas.nets.base import Gates
from jaxnas.nets.convolution import conv, max_pool, per_channel
from jaxnas.nets.layers import PlainDense, Rate, to_net
from jaxnas.nets.precision import at_least_float32, parameter
from jaxnas.spaces._metaqnn import MDP


class ConvBias(nn.Module):
    features: int
    kernel: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        glorot = nn.initializers.glorot_uniform(in_axis=1, out_axis=0)
        w = parameter(self, "kernel", glorot, (self.features, x.shape[0], self.kernel, self.kernel), x.dtype)
        return conv(x, w) + per_channel(parameter(self, "bias", nn.initializers.zeros, (self.features,), x.dtype))


class InnerMax(nn.Module):
    """Maximum over the k x k windows that lie inside."""

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return max_pool(x, self.kernel, self.stride, padding=0)


class ChainNet(nn.Module):
    """x is [B, H, W, C], as users hold images; the result is logits [B, classes].  In training it needs the rng "dropout"."""

    layers: tuple[tuple, ...]  # as `MDP.meaning` has them, without the stop
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, gates: Gates = None, *, train: bool = False, rate: Rate = None) -> jax.Array:
        del gates, rate  # there is nothing to choose, and no path to drop
        x, drops = to_net(x), len(self.layers) // 2
        dense = functools.partial(PlainDense, kernel_init=nn.initializers.glorot_uniform())
        for i, (kind, *numbers) in enumerate(self.layers):
            if kind == "conv":
                x = nn.relu(ConvBias(*numbers, name=f"layer{i}")(x))
            elif kind == "pool":
                x = InnerMax(*numbers, name=f"layer{i}")(x)
            elif kind == "average":
                x = jnp.mean(x, (1, 2)).T
            else:
                x = nn.relu(dense(*numbers, name=f"layer{i}")(flatten_maps(x)))
            if i % 2:
                x = nn.Dropout((i + 1) / (4 * drops), deterministic=not train)(x)
        return dense(self.classes, name="classifier")(flatten_maps(x).astype(at_least_float32(x.dtype)))


def flatten_maps(x: jax.Array) -> jax.Array:
    """[C, H, W, B] as [B, C H W]; what is no map any more stays as it is."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1]).T


def layers_of(mdp: MDP, arch: Arch) -> tuple[tuple, ...]:
    """The layers of a chain (host), as `MDP.meaning` has them.

    Raises:
        ValueError: for a walk that the MDP does not allow.
    """
    stop, state = mdp.meaning.index(("stop",)), 0
    actions = list(itertools.takewhile(lambda a: a != stop, np.asarray(mdp.actions(arch)).tolist()))
    for action in actions:
        if not mdp.legal[state, action]:
            raise ValueError(f"{mdp.meaning[action]} is not allowed where this walk puts it: {[mdp.meaning[a] for a in actions]}")
        state = mdp.next[state, action]
    return tuple(mdp.meaning[action] for action in actions)
