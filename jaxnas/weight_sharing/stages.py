"""Between the phases of a progressive search: fewer operations, fewer skips, more channels.

References: Chen, Xie, Wu and Tian, Progressive Differentiable Architecture Search (P-DARTS), ICCV 2019, arXiv:1904.12760,
sec. 3; Chen et al., DrNAS, ICLR 2021, arXiv:2006.10355, sec. 4; Chen, Goodfellow and Shlens, Net2Net, ICLR 2016, arXiv:1511.05641.

    P-DARTS    5, 11, 17 cells with 8, 5, 3 operations an edge; weights and alpha begin anew, what was dropped stays out;
               dropout behind the skips, and at most M = 2 skips in the final normal cell
    DrNAS      two stages: half the operations are dropped, and more channels take part, their weights copied from the first stage's
    Net2Net    a net grows in all its channels, and its function stays what it is

A stage is a phase of `then`; these functions make what one phase gives to the next.  See `experiments/p_darts.py`.

Axes: E edges, O operations.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, Key, Strategy
from jaxnas.checks import checked
from jaxnas.kinds import NonNegative, Positive
from jaxnas.nets.base import Gates, Net, Variables
from jaxnas.policies.policy import Theta, still_open
from jaxnas.spaces._space import Space, is_shape
from jaxnas.spaces.cell import CellSpec


@checked
def strongest_operations(theta: Theta, keep: Positive, without: Sequence[NonNegative] = ()) -> Any:
    """bool, of theta's structure: the `keep` strongest of each row's operations that are in the search.

    Args:
        theta: logits, of the gates' structure (PC-DARTS: `theta.alpha`).
        keep: operations left in a row.
        without: columns that are dropped whatever their strength (the `none` of P-DARTS's last stage).

    Raises:
        ValueError: for fewer than 1, or more than a row has.
    """
    least = min(a.shape[-1] for a in jax.tree.leaves(theta)) - len(without)
    if not 1 <= keep <= least:
        raise ValueError(f"`keep` must be from 1 to {least}, the operations of a row; got {keep}")

    def rows(a):
        dropped = np.isin(np.arange(a.shape[-1]), without)
        strength = jnp.where(still_open(a) & ~jnp.broadcast_to(dropped, a.shape), a, -jnp.inf)
        rank = jnp.argsort(jnp.argsort(-strength, -1, stable=True), -1)
        return (rank < keep) & jnp.isfinite(strength)

    return jax.tree.map(rows, theta)


@checked
def at_most_skips(space: Space, gates: Gates, most: NonNegative = 2, kind: str = "normal") -> Arch:
    """The architecture of soft gates with at most `most` skip connections in its normal cell (P-DARTS).

    While there are more, the weakest chosen skip is taken out and the cell derived anew.

    Raises:
        ValueError: for a space without skip connections or without cells of that kind, or a negative `most`.
    """
    spec = space.spec
    if not isinstance(spec, CellSpec) or "skip_connect" not in spec.ops or (spec.kinds and kind not in spec.kinds) or most < 0:
        raise ValueError(f"this `space` has no {kind} cell with a skip_connect, or most={most} is negative")
    column = spec.ops.index("skip_connect")
    cell_of = lambda tree: getattr(tree, kind) if spec.kinds else tree

    def one(_, gates):
        cell = cell_of(gates)
        chosen = cell_of(space.gates(space.derive(gates)))[:, column] > 0  # [E]
        weakest = jnp.argmin(jnp.where(chosen, cell[:, column], jnp.inf))
        taken = cell.at[weakest, column].set(0.0)
        cell = jnp.where(jnp.sum(chosen) > most, taken, cell)
        return gates._replace(**{kind: cell}) if spec.kinds else cell

    return space.derive(jax.lax.fori_loop(0, len(spec.edges), one, gates))


def widen_variables(key: Key, variables: Variables, narrow: Net, wide: Net) -> Variables:
    """Variables of a net with more channels that computes the same function (Net2Net): copies of channels, shared among readers.

    Every axis of n channels is blocks of the same u channels, u the greatest common divisor of all n; in each block the u channels
    are followed by copies of the same random ones.  So channels that are concatenated or split stay together with what reads them.

    Args:
        key: draws the channels that are copied.
        variables: of the narrow net.
        narrow: the net that they are of.
        wide: the same net with more channels.

    Raises:
        ValueError: for variables of another net, an axis that shrinks, or a net whose function cannot be kept: its channels do not
            all grow by one factor, as where more of them take part (`partial`), or copies are mixed with others, as where partial
            channels are shuffled.  `copy_channels` makes a start for such a net.
    """
    k_copies, k_check = jax.random.split(key)
    shapes = jax.eval_shape(wide.init, jax.eval_shape(lambda: jax.random.key(0)))
    _check_alike(variables, shapes)
    pairs = [(v.shape, w.shape) for v, w in zip(jax.tree.leaves(variables), jax.tree.leaves(shapes), strict=True)]
    grown = sorted({(n, m) for old, new in pairs for n, m in zip(old, new, strict=True) if n != m})
    if not grown:
        return variables
    u = math.gcd(*[n for n, _ in grown])
    unit = u * grown[0][1] // grown[0][0]  # what a block of u becomes
    if any(n * unit != m * u for n, m in grown):
        raise ValueError(f"axes grow by different factors, {grown}: the function cannot be kept, see `copy_channels`")
    copied = jax.random.randint(k_copies, (unit - u,), 0, u)
    block = jnp.concatenate([jnp.arange(u), copied])
    rows = lambda n, m: (jnp.arange(0, n, u)[:, None] + block[None]).ravel()
    out = _grow(variables, shapes, rows, dense=True)
    if not _same_function(k_check, (narrow, variables), (wide, out)):
        raise ValueError("this net mixes channels with copies of others, as partial channels do: see `copy_channels`")
    return out


def copy_channels(key: Key, variables: Variables, shapes: Any) -> Variables:
    """A start for a net in which more channels take part (DrNAS's second stage): the old channels, then copies of random ones.

    One draw serves all axes of the same growth, so that a convolution's new channels are copied together with what reads them,
    which is divided by how often each is there.  **The function changes**: channels that went around the operations now go through
    them, which no weights can undo.  So train on before the architecture moves, as DrNAS does.  Where a net grows in all its
    channels alike, `widen_variables` keeps the function.

    Args:
        key: draws them.
        variables: of the narrower net.
        shapes: of the wider one, `jax.eval_shape(net.init, key)`.

    Raises:
        ValueError: for other variables, or an axis that shrinks.
    """
    _check_alike(variables, shapes)
    grown = {}

    def rows(n, m):  # which of n channels each of m is
        if (n, m) not in grown:
            copied = jax.random.randint(jax.random.fold_in(key, len(grown)), (m - n,), 0, n)
            grown[n, m] = jnp.concatenate([jnp.arange(n), copied])
        return grown[n, m]

    return _grow(variables, shapes, rows, dense=False)


@checked
def widened(search: Strategy, net: Net) -> Strategy:
    """The search, begun from a `Given` with the variables of a narrower net: their channels are copied (`copy_channels`).

    Args:
        search: on `net`.
        net: the wider one.

    Raises:
        ValueError: in `init`, for none, or for variables that no narrower net of the kind has.
    """
    shapes = jax.eval_shape(net.init, jax.random.key(0))

    def init(key: Key, given: Any = None) -> Any:
        if given is None or given.variables is None:
            raise ValueError("a widened search begins from a narrower net's weights: give `init` a Given(variables)")
        k_copies, k_search = jax.random.split(key)
        return search.init(k_search, given._replace(variables=copy_channels(k_copies, given.variables, shapes)))

    return search._replace(init=init)


def _check_alike(variables, shapes):
    if jax.tree.structure(variables) != jax.tree.structure(shapes):
        raise ValueError("these `variables` are not of a narrower net of the same kind")
    for v, wide in zip(jax.tree.leaves(variables), jax.tree.leaves(shapes), strict=True):
        for n, m in zip(v.shape, wide.shape, strict=True):
            if m < n:
                raise ValueError(f"an axis shrinks from {n} to {m}: the wider net has at least as many channels")


def _grow(variables, shapes, rows, dense: bool):
    """Every axis by rows(n, m) -> int[m], and what reads copies divided by how often they are there."""

    def leaf(path, v, wide):
        module, kind = path[-2].key, path[-1].key
        for axis, (n, m) in enumerate(zip(v.shape, wide.shape, strict=True)):
            if n == m:
                continue
            index = rows(n, m)
            v = jnp.take(v, index, axis)
            kernel = dense and kind == "kernel" and not module.startswith("Depthwise")
            read = (module.startswith("Conv") or (kernel and v.ndim >= 4)) and axis == v.ndim - 3
            read = read or (kernel and v.ndim == 2 and axis == 0)
            if read:  # the inputs of a convolution [..., out, in, k, k], or of a dense layer [in, out]
                share = 1 / jnp.bincount(index, length=n)[index]
                v = v * share.reshape(tuple(m if i == axis else 1 for i in range(v.ndim))).astype(v.dtype)
        return v

    return jax.tree_util.tree_map_with_path(leaf, variables, shapes)


def _same_function(key, narrow, wide, tolerance: float = 1e-3) -> bool:
    """Whether two nets make the same of random images at random gates, by their running statistics."""
    k_x, k_gates = jax.random.split(key)
    net, _ = narrow
    x = jax.random.normal(k_x, (2, *net.image))
    leaves, tree = jax.tree.flatten(net.space.gate_shapes, is_leaf=is_shape)
    keys = jax.random.split(k_gates, len(leaves))
    gates = tree.unflatten([jax.nn.softmax(jax.random.normal(k, shape)) for k, shape in zip(keys, leaves, strict=True)])
    one, two = (net.apply(variables, x, gates, train=False)[0] for net, variables in (narrow, wide))
    return bool(jnp.max(jnp.abs(one - two)) <= tolerance * jnp.max(jnp.abs(one)))
