"""A benchmark as arrays: the score of an architecture is a row that somebody else has paid for.

    evaluator = table(space)
    fixed = rows(space, ops, {"accuracy": validation_accuracy})
    strategy.step(key, state, Batch(fixed=fixed))

Give the table what a search may see; look test results up afterwards, from the best architecture.

Axes: N rows of the user's table, D decisions, B candidates.
"""

import math
from collections.abc import Mapping

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.ask_tell.trial import require_archs_alone
from jaxnas.base import Evaluator, stateless
from jaxnas.checks import checked, described
from jaxnas.spaces._space import Space


@checked
def table(space: Space) -> Evaluator:
    """The evaluator that looks candidates up in `batch.fixed`: {name: [raw size of the space]}, as `rows` makes it.

    Every column is a metric; one that is NaN for a candidate marks it as not scored (see `jaxnas.base.black_box`).

    Raises:
        ValueError: for a space without an index (2**31 settings or more).
    """
    _raw_size(space)

    def evaluate(key, archs, batch):
        require_archs_alone(archs)
        del key  # deterministic
        if not isinstance(batch.fixed, dict) or not batch.fixed:
            raise ValueError("a table is read from `batch.fixed`: give Batch(fixed=rows(space, archs, {'accuracy': ...}))")
        index = jax.vmap(space.index)(archs)  # [B]
        return {name: column[index] for name, column in batch.fixed.items()}

    return stateless(evaluate)


@checked
def rows(space: Space, archs: ArrayLike, values: Mapping[str, ArrayLike]) -> dict[str, jax.Array]:
    """Reorders a table, whatever the order of its rows, into the order of `space.index` (host side).

    Args:
        space: the space that the rows belong to.
        archs: int[N, D], the flat decisions of each row, as `space.flat` gives them.
        values: {name: [N]}.

    Returns:
        {name: float32[raw size]}, NaN where the table has no row.

    Raises:
        ValueError: for decisions outside the space, an architecture given twice, or a column of another length.
    """
    size, arity = _raw_size(space), space.arity
    archs = np.asarray(archs)
    if archs.ndim != 2 or archs.shape[1] != len(arity) or not np.issubdtype(archs.dtype, np.integer):
        raise ValueError(
            f"`archs` must be integers [N, {len(arity)}], one flat architecture a row; got {archs.dtype}{[*archs.shape]}"
        )
    archs = archs.astype(np.int64)
    outside = np.flatnonzero(((archs < 0) | (archs >= arity)).any(1))
    if len(outside):
        raise ValueError(f"row {outside[0]} is not in the space: {archs[outside[0]].tolist()} for arities {arity.tolist()}")
    archs = np.where(jax.vmap(lambda v: space.active(space.unflat(v)))(archs.astype(np.int32)), archs, 0)
    index = np.ravel_multi_index(tuple(archs.T), tuple(arity))  # [N]
    order = np.argsort(index, kind="stable")
    twice = np.flatnonzero(np.diff(index[order]) == 0)
    if len(twice):
        i, j = order[twice[0]], order[twice[0] + 1]
        raise ValueError(f"rows {i} and {j} are the same architecture, {archs[i].tolist()}: keep one, or their mean")
    columns = {}
    for name, column in values.items():
        if np.asarray(column).dtype.kind not in "biuf":
            raise ValueError(f"column {name!r} must be numbers; got {described(column)}")
        column = np.asarray(column, np.float32)
        if column.shape != index.shape:
            raise ValueError(f"column {name!r} has shape {[*column.shape]}; the table has {len(index)} rows")
        columns[name] = np.full(size, np.nan, np.float32)
        columns[name][index] = column
    return jax.tree.map(jax.numpy.asarray, columns)


def _raw_size(space):
    size = math.prod(int(n) for n in space.arity)
    if size >= 2**31:
        raise ValueError(f"this space has {size} settings: a table needs fewer than 2**31")
    return size
