"""Proxies from the gradient of the loss: how much the weights matter to it.

References: Abdelfattah, Mehrotra, Dudziak and Lane, Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134 (as
scores of architectures); Lee, Ajanthan and Torr, SNIP, ICLR 2019, arXiv:1810.02340; Wang, Zhang and Grosse, GraSP, ICLR 2020,
arXiv:2002.07376; Turner et al., BlockSwap, ICLR 2020, arXiv:1906.04113 (Fisher); Li et al., ZiCo, ICLR 2023, arXiv:2301.11300.

    g = dL/dW, L the cross entropy of one batch
    grad_norm   sum over layers of |g|_2
    snip        sum |g W|
    grasp       - sum (H g) W,  H the Hessian of L
    fisher      sum over layers and channels of  fan_in / 2  mean_b (sum_hw a dL/da)^2,  a the layer's output
    zico        sum over layers of log sum over W of  mean_s |g_s| / std_s |g_s|,  over S batches; entries of no spread left out

H g is half the gradient of |g|^2: reverse over reverse.

Axes: S batches, B batch, C channels.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, Variables
from jaxnas.proxies.proxy import Batches, by_layer, first_batch, logits_of, settled, total
from jaxnas.training.losses import cross_entropy


def gradient(net: Net, variables: Variables, gates: Gates, x: jax.Array, y: jax.Array) -> Any:
    """dL/dparams."""
    forward = logits_of(net, variables, gates, x)
    return jax.grad(lambda params: cross_entropy(forward(params), y))(variables["params"])


def saliencies(net: Net, variables: Variables, gates: Gates, batch: Batches) -> dict[str, jax.Array]:
    """grad_norm, snip and fisher, of one backward pass; what is not used of it is not computed."""
    x, y = first_batch(batch)

    def loss(params, tap):
        with probe.probing(probe.Probe(tap, linear=lambda tap, a, n: _activation(tap, a, jnp.asarray(n, a.dtype)))):
            return cross_entropy(logits_of(net, variables, gates, x)(params), y)

    g, fisher = jax.grad(loss, (0, 1))(variables["params"], jnp.zeros((), x.dtype))
    scores = {
        "grad_norm": total(net, variables, gates, g, jnp.linalg.norm),
        "snip": total(net, variables, gates, jax.tree.map(lambda g, w: jnp.abs(g * w), g, variables["params"])),
        "fisher": fisher,
    }
    return {name: settled(score > 0, score) for name, score in scores.items()}


def grad_norm(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    return saliencies(net, variables, gates, batch)["grad_norm"]


def snip(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    return saliencies(net, variables, gates, batch)["snip"]


def fisher(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    return saliencies(net, variables, gates, batch)["fisher"]


def grasp(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    x, y = first_batch(batch)

    def half(params):  # |g|^2 / 2 over the kernels
        g = gradient(net, {**variables, "params": params}, gates, x, y)
        return sum(jnp.sum(jnp.square(v)) for v, _ in by_layer(net, variables, gates, g)) / 2

    size, h = jax.value_and_grad(half)(variables["params"])
    return settled(size > 0, -total(net, variables, gates, jax.tree.map(jnp.multiply, h, variables["params"])))


@jax.custom_vjp
def _activation(tap, y, n):
    del tap, n
    return y


def _activation_back(kept, dy):
    y, n = kept
    each = jnp.sum((y * dy).reshape(y.shape[0], -1, y.shape[-1]), 1)  # [C, B]
    return n / 2 * jnp.sum(jnp.mean(jnp.square(each), -1)), dy, None


_activation.defvjp(lambda tap, y, n: (y, (y, n)), _activation_back)


def zico(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    first_batch(batch)
    x, y = batch
    if x.shape[0] < 2:
        raise ValueError("ZiCo compares the gradients of batches: give at least two, x [S, B, ...] with S >= 2")
    g = jax.lax.map(lambda b: gradient(net, variables, gates, *b), (x, y))  # [S, ...]
    size = jax.tree.map(jnp.abs, g)
    mean, std = (jax.tree.map(lambda s: f(s, 0), size) for f in (jnp.mean, jnp.std))
    ratio = jax.tree.map(lambda m, s: jnp.where(s > 0, m / jnp.where(s > 0, s, 1), 0), mean, std)
    of_layer = lambda v: jnp.where(jnp.sum(v) > 0, jnp.log(jnp.maximum(jnp.sum(v), 1e-30)), 0)
    alive = sum(jnp.sum(v) for v, _ in by_layer(net, variables, gates, ratio)) > 0
    return settled(alive, total(net, variables, gates, ratio, of_layer))
