"""Zen-score: how much the last maps move with the input, as if there were no norms.

Reference: Lin et al., Zen-NAS, ICCV 2021, arXiv:2102.01063; the details are those of the authors' code.

    zen = log mean_b |f(x) - f(x + 0.01 e)|_1 + sum over norms of log sqrt(mean over channels of the running variance)

x and e are N(0, 1), f the maps before they are averaged, weights N(0, 1) (`drawn(net, key, "normal")`); the running variances
have moved twice, by a tenth, from 1.  Skips are not taken out, as the code for their own space does.
"""

import jax
import jax.numpy as jnp

from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, Variables
from jaxnas.proxies.proxy import Batches, first_batch, settled

STEP = 0.01


def zen(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    """Looks at the shape of the batch alone; the same noise for all architectures.

    Raises:
        ValueError: for a net without maps before its classifier.
    """
    x, _ = first_batch(batch)
    k_x, k_e = jax.random.split(jax.random.key(0))
    x, e = (jax.random.normal(k, x.shape, x.dtype) for k in (k_x, k_e))

    def maps(variables, x):
        seen = []
        with probe.probing(probe.Probe(last=seen.append)):
            _, variables = net.apply(variables, x, gates, train=True, path=True)
        if len(seen) != 1:
            raise ValueError("the Zen-score needs a net that averages its last maps for the classifier, such as a cell net")
        return seen[0], variables

    a, variables = maps(variables, x)
    b, variables = maps(variables, x + STEP * e)
    moved = jnp.mean(jnp.sum(jnp.abs(a - b), (0, 1, 2)))
    used = net.used(variables, gates)

    def scale(path, v, on):
        if path[-1].key != "var":
            return jnp.zeros((), v.dtype)
        on = jnp.broadcast_to(on, v.shape)[..., 0]
        return jnp.sum(jnp.where(on != 0, jnp.log(jnp.mean(v, -1)) / 2, 0))

    norms = jax.tree_util.tree_map_with_path(scale, variables["batch_stats"], used["batch_stats"])
    return settled(moved > 0, jnp.log(jnp.where(moved > 0, moved, 1)) + sum(jax.tree.leaves(norms)))
