"""Batch statistics of a sub-network: a supernet's running averages are a mixture of all its paths, and fit none of them.

Reference: Guo et al., Single Path One-Shot Neural Architecture Search, ECCV 2020, arXiv:1904.00420, section 3.4; as a cause
of poor rankings, Yu et al., Evaluating the Search Phase of Neural Architecture Search, ICLR 2020, arXiv:1902.08142.

    statistics <- (1 / C) sum_c statistics of calibration batch c          no momentum; a variance is the unbiased one of its batch

A norm with momentum mu moves its running statistics s to f(s) = mu s + (1 - mu) b on a batch of statistics b.  So
b = f(0) / (1 - mu) and mu = (f(S) - f(0)) / S, whatever the net is made of; an S far above b keeps the difference's digits.
What says which noise an edge has is no average, and stays as it is.

Axes: C calibration batches, B batch.
"""

import jax
import jax.numpy as jnp

from jaxnas.nets.base import Gates, Net, Variables, map_named

FAR = 2.0**20  # S


def recalibrate(net: Net, variables: Variables, gates: Gates, x: jax.Array, *, path: bool = True) -> Variables:
    """The variables with the statistics of `gates`' own paths on the calibration batches.

    Args:
        net: the supernet.
        variables: trained.
        gates: of one architecture.
        x: images [C, B, ...], of the training part.
        path: compute only the chosen operations.

    Statistics that the paths do not touch stay as they were.

    Raises:
        ValueError: for no calibration batch.
    """
    if (C := jax.tree.leaves(x)[0].shape[0]) < 1:
        raise ValueError("recalibration needs at least one calibration batch: give `x` [C, B, ...] with C >= 1")
    split = lambda tree: {k: v for k, v in tree.items() if k != "params"}
    stats = split(variables)
    is_average = map_named(lambda names, s: names[-1] != "noise", stats)

    def after(start, x):
        filled = jax.tree.map(lambda s, average: jnp.full_like(s, start) if average else s, stats, is_average)
        return split(net.apply({**filled, "params": variables["params"]}, x, gates, train=True, path=path)[1])

    first = jax.tree.map(lambda a: a[0], x)
    zero = after(0.0, first)
    fresh = jax.tree.map(lambda far, zero: 1 - (far - zero) / FAR, after(FAR, first), zero)  # 1 - mu; 0 where nothing moved
    add = lambda total, x: (jax.tree.map(jnp.add, total, after(0.0, x)), None)
    total, _ = jax.lax.scan(add, zero, jax.tree.map(lambda a: a[1:], x))
    still = jax.tree.map(lambda fresh: jnp.abs(fresh) < 1e-5, fresh)

    def exact(s, still, total, fresh, average):
        return jnp.where(still, s, total / C / jnp.where(still, 1, fresh)) if average else s

    return {**jax.tree.map(exact, stats, still, total, fresh, is_average), "params": variables["params"]}
