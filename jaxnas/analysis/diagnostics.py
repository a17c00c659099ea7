"""What goes wrong in a differentiable search, as numbers.

References: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656
(eigenvalues, skip connections); Chen and Hsieh, SmoothDARTS, ICML 2020, arXiv:2002.05283 (discretisation gap).

    dominant eigenvalue     of d2 L_valid / d theta2, by power iteration on Hessian-vector products
    entropy                 of the gates' rows, in nats: how undecided the search is
    skip connections        in the architecture that would be derived now
    discretisation gap      L_valid(one-hot gates of the derived architecture) - L_valid(soft gates)

Axes: E edges, O operations.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Arch, Key
from jaxnas.spaces._space import Space
from jaxnas.spaces.cell import CellSpec
from jaxnas.trees import Tree

SKIPS = ("skip_connect", "identity")
ABSENT = ("none", "noise")  # through which nothing of the input goes


def dominant_eigenvalue(loss: Callable[[Tree], jax.Array], theta: Tree, key: Key, iterations: int = 20) -> jax.Array:
    """The eigenvalue of largest size of the Hessian of `loss` at theta, with its sign.

        v <- H v / ||H v||,    lambda = v . H v

    Args:
        loss: theta -> [].
        theta: a pytree of floats.
        key: draws the first direction.
        iterations: Hessian-vector products; the error falls as (lambda_2 / lambda_1)^(2 iterations).

    Raises:
        ValueError: for fewer than 1 iteration.
    """
    if iterations < 1:
        raise ValueError(f"power iteration needs at least 1 product; got iterations={iterations}")
    leaves, tree = jax.tree.flatten(theta)
    keys = jax.random.split(key, len(leaves))
    start = tree.unflatten([jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)])
    hvp = jax.linearize(jax.grad(loss), theta)[1]

    def unit(v):
        size = optax.tree.norm(v)
        return jax.tree.map(lambda a: a / jnp.where(size > 0, size, 1), v)

    def step(_, carry):
        v, _ = carry
        u = hvp(v)
        return unit(u), optax.tree.vdot(v, u)

    return jax.lax.fori_loop(0, iterations, step, (unit(start), jnp.zeros((), leaves[0].dtype)))[1]


def entropy(gates: Tree) -> jax.Array:
    """The mean over rows of -sum_o g_o log g_o, rows being divided by their sum first, []."""

    def rows(g):
        p = g / jnp.maximum(jnp.sum(g, -1, keepdims=True), 1e-12)
        return jnp.ravel(-jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0), -1))

    return jnp.mean(jnp.concatenate([rows(g) for g in jax.tree.leaves(gates)]))


def count_operations(space: Space, arch: Arch, names: Sequence[str] = SKIPS) -> jax.Array:
    """int32[]: how many operations of an architecture carry one of these names; 0 in a space whose rows have no names.

    It counts the derived cells, of all kinds together.
    """
    ops = getattr(space.spec, "ops", ())
    on = np.asarray([name in names for name in ops], bool)
    if not on.any():
        return jnp.zeros((), jnp.int32)
    counts = [jnp.sum((g != 0) @ jnp.asarray(on, jnp.int32)) for g in _of_operations(space, arch)]
    return jnp.asarray(sum(counts), jnp.int32)


def _of_operations(space: Space, arch: Arch) -> list[jax.Array]:
    """The gates [..., O] of operations: those of a field `op` where there is one, as blocks and layers choose inputs too."""
    leaves = jax.tree_util.tree_leaves_with_path(space.gates(arch))
    named = [g for path, g in leaves if path and getattr(path[-1], "name", "") == "op"]
    return named or [g for _, g in leaves if jnp.shape(g)[-1:] == (len(space.spec.ops),)]


def collapsed(space: Space, arch: Arch) -> str | None:
    """What an architecture has nothing else but, where its operations have no weights to learn; None for a sound one (host).

    "skip connections", "pools", "skip connections and pools", or "none": nothing leads from a cell's input to its output.
    `none` beside others is no operation, and is not named: a cell of pools and `none` is one of pools.  Operations that nothing
    reaches, or that reach nothing, do not count.
    """
    ops = tuple(getattr(space.spec, "ops", ()))
    if not isinstance(ops, tuple) or not all(isinstance(name, str) for name in ops):
        return None
    gates = [np.asarray(g) for g in _of_operations(space, arch)] if ops else []
    if not gates:
        return None
    live = {ops[k] for g in gates for k in np.flatnonzero(_through(space.spec, ops, g.reshape(-1, len(ops))).any(0))}
    kinds = (("skip connections", [name in SKIPS for name in live]), ("pools", ["_pool_" in name for name in live]))
    if sum(sum(are) for _, are in kinds) < len(live):
        return None
    return " and ".join(what for what, are in kinds if any(are)) or "none"


def _through(spec, ops: Sequence[str], gates: np.ndarray) -> np.ndarray:
    """bool[E, O]: the operations of one cell that are on a way from its inputs to its output."""
    there = (gates != 0) & np.asarray([name not in ABSENT for name in ops])
    if not isinstance(spec, CellSpec) or len(there) != len(spec.edges):
        return there
    n, last = spec.inputs, spec.inputs + spec.nodes - 1
    on = [e for e in range(len(there)) if there[e].any()]
    ends = {e: (spec.edges[e][0], n + spec.edges[e][1]) for e in on}
    reached = set(range(n))
    for _ in range(spec.nodes):
        reached |= {target for source, target in ends.values() if source in reached}
    heard = {last} if n == 1 else set(range(n, last + 1))  # a cell of two inputs puts out all its nodes
    for _ in range(spec.nodes):
        heard |= {source for source, target in ends.values() if target in heard}
    keep = [e in ends and ends[e][0] in reached and ends[e][1] in heard for e in range(len(there))]
    return there & np.asarray(keep)[:, None]


def discretisation_gap(loss: Callable[[Tree], jax.Array], space: Space, gates: Tree, arch: Arch) -> jax.Array:
    """loss(the derived architecture's gates) - loss(the soft gates); loss: gates -> []."""
    return loss(space.gates(arch)) - loss(gates)
