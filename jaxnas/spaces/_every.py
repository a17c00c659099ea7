"""Every architecture of a space that is small enough, however large the product of its arities is."""

import jax
import numpy as np

from jaxnas.spaces._space import Space

CHUNKS = (64, 4096)  # rows that are looked at together: of few, and of many


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
        each = np.where(_active(space, rows)[:, d], n, 1)
        rows = np.repeat(rows, each, axis=0)
        rows[:, d] = np.arange(len(rows)) - np.repeat(np.cumsum(each) - each, each)
        if len(rows) > space.size:
            break
    if len(rows) != space.size:
        raise ValueError(f"this space has {space.size:,.0f} architectures, which are not the settings of its active decisions")
    return rows


def _active(space, rows):
    """bool[N, D], in chunks of one shape."""
    active = jax.vmap(lambda v: space.active(space.unflat(v)))
    size = CHUNKS[len(rows) > CHUNKS[0]]
    padded = np.concatenate([rows, np.zeros((-len(rows) % size, rows.shape[1]), np.int32)])
    return np.concatenate([np.asarray(active(padded[i : i + size])) for i in range(0, len(padded), size)])[: len(rows)]
