"""Every architecture of a space that is small enough, however large the product of its arities is."""

from typing import Any

import jax
import numpy as np

from jaxnas.checks import checked
from jaxnas.spaces._space import Space

CHUNKS = (64, 4096)  # rows that are looked at together: of few, and of many


@checked
def every(space: Space) -> np.ndarray:
    """int32[size, D]: the flat decisions of all architectures, inactive ones 0, in the order of `space.index` (host).

    A decision is spread over its values only in the rows where it is active, so that the work and the memory go with
    `space.size` and not with the product of the arities.

    Raises:
        ValueError: for a space with real dimensions, or one whose architectures are not all the settings of its active decisions.
    """
    if space.reals is not None:
        raise ValueError("this space has real dimensions: only decisions can be enumerated")
    rows = np.zeros((1, len(space.arity)), np.int32)
    for d, n in enumerate(space.arity):  # a parent comes before its children: what is settled says whether d is active
        rows, active = _settled(space, rows)
        if len(rows) > space.size:
            break
        each = np.where(active[:, d], n, 1)
        rows = np.repeat(rows, each, axis=0)
        rows[:, d] = np.arange(len(rows)) - np.repeat(np.cumsum(each) - each, each)
    rows, _ = _settled(space, rows)
    if len(rows) != space.size:
        why = "which are not the settings of its active decisions: they can only be drawn"
        raise ValueError(f"this space has {space.size:,.0f} architectures, {why}")
    return rows


def _settled(space: Space, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the different ones of rows [N, D], where tokens are repaired, in order, and which of their decisions are active)."""

    def one(v: Any) -> tuple[jax.Array, jax.Array]:
        arch = space.unflat(v)
        return space.flat(arch), space.active(arch)

    size, each = CHUNKS[len(rows) > CHUNKS[0]], jax.vmap(one)
    padded = np.concatenate([rows, np.zeros((-len(rows) % size, rows.shape[1]), np.int32)])
    parts = [each(padded[i : i + size]) for i in range(0, len(padded), size)]
    flat, active = (np.concatenate([np.asarray(part[k]) for part in parts])[: len(rows)] for k in range(2))
    found, at = np.unique(flat, axis=0, return_index=True)
    return found, active[at]
