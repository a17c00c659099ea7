"""The baselines every proxy has to beat: the weights and the multiply-adds of a network, without its biases and norms.

    params    weights of convolutions and dense layers; `nets.count_parameters` adds the biases and norms
    flops     multiply-adds of one example; pools, norms and activations are free

Both are of all the operations an architecture has, those that do not reach its output included, as published tables count.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, Variables
from jaxnas.proxies.proxy import Batches, by_layer, logits_of


def params(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    del batch
    out: Any = sum(jnp.sum(on, dtype=float) * values.shape[1] for values, on in by_layer(net, variables, gates))
    return out


@jax.custom_vjp
def _counted(tap, y, n):
    """y, of one example; the tap's cotangent is its multiply-adds."""
    del tap, n
    return y


_counted.defvjp(lambda tap, y, n: (y, (n, jnp.zeros_like(y))), lambda kept, dy: (kept[0] * kept[1].size, dy, None))


def flops(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    def out(tap):
        with probe.probing(probe.Probe(tap, linear=lambda tap, y, n: _counted(tap, y, jnp.asarray(n, y.dtype)))):
            return jnp.sum(logits_of(net, variables, gates, batch[0][0, :1])(variables["params"]))

    return jax.grad(out)(jnp.zeros((), batch[0].dtype))
