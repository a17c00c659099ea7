"""Zero-cost proxies: what a network at initialisation tells of the one it would become, from a batch or two.

    proxy(net, variables, gates, batch) -> []           larger is better

A pure function of one architecture: one compiled program scores any architecture of a space.  `variables` are those of the
supernet at initialisation (`net.init`, or `drawn` in another way), `batch` is (x [S, B, H, W, C], y [S, B]); most proxies
see the first of its S batches.  Norms use the statistics of the batch.  Sums go over the weights of convolutions and dense
layers that the architecture has, not over biases and norms; a net with weights of other kinds (elastic, recurrent) is refused.

LOWEST is the score of a network whose output does not depend on its input; no score is ever NaN.

Axes: S batches, B batch, K classes, L layers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import RandomKey, checked
from jaxnas.nets.base import Gates, Net, Variables

Batches = tuple[jax.Array, jax.Array]  # (x [S, B, H, W, C], y [S, B])
Proxy = Callable[[Net, Variables, Gates, Batches], jax.Array]
LOWEST = -1e9
DRAWS = ("net", "uniform", "normal")


@checked
def drawn(net: Net, key: RandomKey, draw: str = "net") -> Variables:
    """Variables at initialisation.

    Args:
        net: the supernet.
        key: of the draw.
        draw: "net": as the net does (the cell nets: He's normal); "uniform": within 1 / sqrt(fan in), PyTorch's default, which
            most published scores have; "normal": N(0, 1), as Zen-NAS has.

    Raises:
        ValueError: for another draw.
    """
    if draw not in DRAWS:
        raise ValueError(f"unknown draw {draw!r}: choose one of {', '.join(DRAWS)}")
    variables = net.init(key)
    if draw == "net":
        return variables

    def anew(path, leaf):
        if (rank := _rank(path, leaf)) is None:
            return leaf
        k = jax.random.fold_in(key, _place(path))
        if draw == "normal":
            return jax.random.normal(k, leaf.shape, leaf.dtype)
        fan_in = leaf.shape[0] if rank == 2 else np.prod(leaf.shape[1 - rank :])  # dense kernels are [in, out]
        return jax.random.uniform(k, leaf.shape, leaf.dtype, -1, 1) / np.sqrt(fan_in)

    return {**variables, "params": jax.tree_util.tree_map_with_path(anew, variables["params"])}


def _place(path) -> int:
    """A number of its own for each leaf."""
    return int.from_bytes("/".join(p.key for p in path).encode()[-64:], "big") % (2**31 - 1)


def _rank(path, leaf, scales: bool = False) -> int | None:
    """The axes of one layer's kernel: [out, in, k, k], depthwise [channels, k, k], dense [in, out]; None: a bias or a norm's.

    With `scales` the scale of a norm, [channels], is a layer's too.

    The axes before are those of edges, which are stacked.

    Raises:
        ValueError: for weights of other names, which a sum over layers would leave out.
    """
    if path[-1].key == "scale" and scales:
        return 1
    if path[-1].key in ("bias", "scale"):
        return None
    if path[-1].key != "kernel":
        odd = jax.tree_util.keystr(path)
        raise ValueError(f"proxies know convolutions and dense layers, and this net has {odd}: take another evaluator")
    if "depthwise" in path[-2].key.lower():
        return 3
    return 4 if leaf.ndim >= 4 else 2


def by_layer(
    net: Net, variables: Variables, gates: Gates, values: Any = None, scales: bool = False
) -> list[tuple[jax.Array, jax.Array]]:
    """(values [L, n], which of the L layers the architecture has, bool[L]) of each kernel, or stack of kernels.

    Args:
        net, variables, gates: the architecture.
        values: a tree like the params; default: the params.
        scales: those of the norms are layers too.
    """
    params = variables["params"]
    values = params if values is None else values
    used = net.used(variables, gates)["params"]
    out = []
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), value, on in zip(leaves, jax.tree.leaves(values), jax.tree.leaves(used), strict=True):
        if (rank := _rank(path, leaf, scales)) is not None:
            stack = leaf.shape[: leaf.ndim - rank]
            L = int(np.prod(stack))
            on = jnp.broadcast_to(on, leaf.shape).reshape(L, -1)
            out.append((value.reshape(L, -1) * on, on.any(1)))
    return out


def total(
    net: Net, variables: Variables, gates: Gates, values: Any, of_layer: Callable[[jax.Array], jax.Array] = jnp.sum
) -> jax.Array:
    """sum over the architecture's layers of of_layer(values [n])."""
    parts = by_layer(net, variables, gates, values)
    out: Any = sum(jnp.sum(jnp.where(on, jax.vmap(of_layer)(v), 0)) for v, on in parts)
    return out


def first_batch(batch: Batches) -> tuple[jax.Array, jax.Array]:
    """The first of the batches (x [B, ...], y [B]).

    Raises:
        ValueError: for a batch without a leading axis of batches, or of fewer than two examples.
    """
    x, y = batch
    if x.shape[:2] != y.shape[:2] or x.shape[0] < 1:
        raise ValueError(f"a proxy takes batches (x [S, B, ...], y [S, B]); got shapes {x.shape} and {y.shape}")
    if x.shape[1] < 2:
        raise ValueError("a proxy compares examples and uses batch statistics: give batches of at least two examples")
    return x[0], y[0]


def logits_of(net: Net, variables: Variables, gates: Gates, x: jax.Array) -> Callable[[Any], jax.Array]:
    """params -> logits [B, K], of the architecture's own operations with the batch's statistics."""
    rest = {k: v for k, v in variables.items() if k != "params"}
    return lambda params: net.apply({**rest, "params": params}, x, gates, train=True, path=True)[0]


def differ(values: jax.Array) -> jax.Array:
    """Whether rows [B, ...] are not all the same, and are numbers."""
    return jnp.any(values != values[:1]) & jnp.isfinite(values).all()


def settled(alive: jax.Array | bool, score: jax.Array) -> jax.Array:
    """The score, LOWEST where the network is not alive or the score is no number."""
    return jnp.where(alive & jnp.isfinite(score), score, LOWEST).astype(jnp.result_type(float))
