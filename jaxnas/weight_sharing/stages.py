"""Between the phases of a progressive search: fewer operations, fewer skips, more channels.

References: Chen, Xie, Wu and Tian, Progressive Differentiable Architecture Search (P-DARTS), ICCV 2019, arXiv:1904.12760,
sec. 3; Chen et al., DrNAS, ICLR 2021, arXiv:2006.10355, sec. 4; Chen, Goodfellow and Shlens, Net2Net, ICLR 2016, arXiv:1511.05641.

    P-DARTS    5, 11, 17 cells with 8, 5, 3 operations an edge; weights and alpha begin anew, what was dropped stays out;
               dropout behind the skips, and at most M = 2 skips in the final normal cell
    DrNAS      two stages: half the operations are dropped, and the partial channels widen_variables, their weights carried over

A stage is a phase of `then`; these functions make what one phase gives to the next.  See `experiments/p_darts.py`.

Axes: E edges, O operations.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, Key
from jaxnas.checks import NonNegative, Positive, checked
from jaxnas.nets.base import Gates, Variables
from jaxnas.policies.policy import Theta, still_open
from jaxnas.spaces._space import Space
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


def widen_variables(key: Key, variables: Variables, shapes: Any) -> Variables:
    """Variables of a wider net: the old channels, then copies of random ones.

    Args:
        key: draws them.
        variables: of the narrower net.
        shapes: of the wider one, `jax.eval_shape(net.init, key)`.

    One draw serves all axes of the same growth, so that a convolution's new channels are copied together with what reads them,
    which is divided by how often each is there, as in Net2Net.  The function is not preserved: more channels of the input take
    part, and the norm behind the two halves of a strided skip is copied by its own rule.  So train on before the architecture
    moves, as DrNAS does.

    Raises:
        ValueError: for other variables, or an axis that shrinks.
    """
    if jax.tree.structure(variables) != jax.tree.structure(shapes):
        raise ValueError("these `variables` are not of a narrower net of the same kind")
    grown = {}

    def rows(n, m):  # which of n channels each of m is
        if m < n:
            raise ValueError(f"an axis shrinks from {n} to {m}: `shapes` must be those of a wider net")
        if (n, m) not in grown:
            copied = jax.random.randint(jax.random.fold_in(key, len(grown)), (m - n,), 0, n)
            grown[n, m] = jnp.concatenate([jnp.arange(n), copied])
        return grown[n, m]

    def leaf(path, v, wide):
        for axis, (n, m) in enumerate(zip(v.shape, wide.shape, strict=True)):
            if n == m:
                continue
            index = rows(n, m)
            v = jnp.take(v, index, axis)
            if path[-2].key.startswith("Conv") and axis == v.ndim - 3:  # the inputs of a dense convolution [..., out, in, k, k]
                share = 1 / jnp.bincount(index, length=n)[index]
                v = v * share.reshape(tuple(m if i == axis else 1 for i in range(v.ndim))).astype(v.dtype)
        return v

    return jax.tree_util.tree_map_with_path(leaf, variables, shapes)
