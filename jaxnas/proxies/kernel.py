"""Proxies from how a network at initialisation tells examples apart.

References: Mellor, Turner, Storkey and Crowley, Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647 (nwot;
jacob_cov is its first version); Chen, Gong and Wang, TE-NAS, ICLR 2021, arXiv:2102.11535.

    jacob_cov   - sum_i [log(v_i + k) + 1 / (v_i + k)],  v the eigenvalues of the correlations of the rows d(sum of logits)/dx_b
    nwot        log |det K|,  K = sum over relus of z z^T + (1 - z) (1 - z)^T,  z [B, units] = 1 where the relu's input is positive
    ntk         - v_max / v_min of J J^T,  J [B, weights] = d(sum of b's logits)/dW;  with `scales` the weights are also the norms'
                scales, as in the authors' code; never the biases
    regions     how many of the B examples the signs of the relus tell apart

K[a, b] counts the units on whose sign a and b agree; its diagonal is the number of units.

Axes: B batch.
"""

import jax
import jax.numpy as jnp

from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, Variables
from jaxnas.proxies.proxy import LOWEST, Batches, by_layer, differ, first_batch, logits_of, settled

SMALL = 1e-5  # k


def jacob_cov(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    x, _ = first_batch(batch)
    logits = lambda x: jnp.sum(logits_of(net, variables, gates, x)(variables["params"]))
    J = jax.grad(logits)(x).reshape(len(x), -1)
    J = J - jnp.mean(J, 1, keepdims=True)
    length = jnp.linalg.norm(J, axis=1, keepdims=True)
    J = J / jnp.where(length > 0, length, 1)
    v = jnp.linalg.eigvalsh(J @ J.T)
    return settled(jnp.any(length > 0), -jnp.sum(jnp.log(jnp.maximum(v, 0) + SMALL) + 1 / (jnp.maximum(v, 0) + SMALL)))


@jax.custom_vjp
def _signs(tap, x, y):
    """y = f(x); the tap's cotangent is K of x."""
    del tap, x
    return y


def _agree(x, tap):
    z = (x > 0).reshape(-1, x.shape[-1]).astype(tap.dtype)  # [units, B]
    on = jnp.sum(z, 0)
    return 2 * z.T @ z + len(z) - on[:, None] - on[None]


def _signs_back(kept, dy):
    tap, x = kept
    return _agree(x, tap), jnp.zeros_like(x), dy  # as without the probe: another one may read it


_signs.defvjp(lambda tap, x, y: (y, (tap, x)), _signs_back)


def sign_kernel(net: Net, variables: Variables, gates: Gates, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """-> (K [B, B], logits [B, K])."""
    seen = []

    def out(tap):
        with probe.probing(probe.Probe(tap, relu=lambda tap, x, f: (seen.append(1), _signs(tap, x, f(x)))[1])):
            logits = logits_of(net, variables, gates, x)(variables["params"])
        if not seen:
            raise ValueError("this net has no relu (`jaxnas.nets.probe.relu`) whose signs could be compared")
        return jnp.sum(logits), logits

    return jax.grad(out, has_aux=True)(jnp.zeros((len(x), len(x)), x.dtype))


def nwot(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    x, _ = first_batch(batch)
    K, logits = sign_kernel(net, variables, gates, x)
    return settled(differ(logits), jnp.linalg.slogdet(K)[1])


def regions(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    x, _ = first_batch(batch)
    K, logits = sign_kernel(net, variables, gates, x)
    alike = jnp.sum(jnp.equal(K, jnp.diagonal(K)[:, None]), 1)
    return settled(differ(logits), jnp.sum(1 / alike))


def tangent_kernel(net: Net, variables: Variables, gates: Gates, x: jax.Array, scales: bool = False) -> jax.Array:
    """J J^T [B, B]; with `scales`, of the norms' scales too."""
    forward = logits_of(net, variables, gates, x)
    _, pull = jax.vjp(lambda params: jnp.sum(forward(params), -1), variables["params"])

    def row(seed):  # [B] -> [weights]
        return jnp.concatenate([v.reshape(-1) for v, _ in by_layer(net, variables, gates, pull(seed)[0], scales)])

    J = jax.lax.map(row, jnp.eye(len(x), dtype=x.dtype))
    return J @ J.T


def ntk(net: Net, variables: Variables, gates: Gates, batch: Batches, scales: bool = False) -> jax.Array:
    x, _ = first_batch(batch)
    v = jnp.linalg.eigvalsh(tangent_kernel(net, variables, gates, x, scales))
    condition = v[-1] / jnp.where(v[0] > 0, v[0], 1)
    return settled(v[-1] > 0, jnp.where(v[0] > 0, -condition, LOWEST))
