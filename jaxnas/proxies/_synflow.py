"""SynFlow: how much flows through a network of positive weights, without data.

References: Tanaka, Kunin, Yamins and Ganguli, Pruning Neural Networks without any Data, NeurIPS 2020, arXiv:2006.05467; as a
score, Abdelfattah et al., ICLR 2021, arXiv:2101.08134.

    R = sum of the outputs for an input of ones, every weight by its absolute value, without norms
    synflow = log sum |W dR/dW|

R is homogeneous in what every path goes through (`probe.whole`): there maps are divided by their largest entry s, and log s
is added to the score.  So float32 is enough, however deep the net (R itself overflows at NAS-Bench-201's depth).  Each layer
that all paths cross has sum W dR/dW = R.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, Variables
from jaxnas.proxies.proxy import Batches, first_batch, logits_of, settled, total


@jax.custom_vjp
def _scaled(tap, xs):
    del tap
    return _divide(xs)[0]


def _divide(xs):
    s = jnp.max(jnp.stack([jnp.max(x) for x in xs]))
    s = jnp.where(s > 0, s, 1)
    return tuple(x / s for x in xs), s


def _forward(tap, xs):
    out, s = _divide(xs)
    return out, (s, tap)


_scaled.defvjp(_forward, lambda kept, dy: (jnp.log(kept[0]).astype(kept[1].dtype), tuple(d / kept[0] for d in dy)))


def synflow(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    log_r, flow = flows(net, variables, gates, batch)
    score = total(net, variables, gates, flow)
    return settled(score > 0, log_r + jnp.log(jnp.where(score > 0, score, 1)))


def flows(net: Net, variables: Variables, gates: Gates, batch: Batches) -> tuple[jax.Array, Any]:
    """-> (c, |W dR/dW| / e^c, a tree like the params)."""
    x, _ = first_batch(batch)
    positive = jax.tree.map(jnp.abs, variables["params"])

    def out(params, tap):
        with probe.probing(probe.Probe(tap, whole=_scaled, norms=False)):
            return jnp.sum(logits_of(net, variables, gates, jnp.ones_like(x[:1]))(params))

    g, log_r = jax.grad(out, (0, 1))(positive, jnp.zeros((), x.dtype))
    return log_r, jax.tree.map(jnp.multiply, positive, g)
