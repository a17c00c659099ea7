"""Pytrees of arrays with a common leading axis: entries of it, its length, and a loop along it."""

from collections.abc import Callable
from typing import Any

import jax

Tree = Any  # a pytree of arrays


def take(tree: Tree, index: Any) -> Tree:
    """Indexes every leaf alike: `leaf[index]`.

    Args:
        tree: leaves [N, ...], of JAX or NumPy.
        index: whatever the leaves can be indexed with: a number takes one entry [...], a slice or an integer or boolean array
            several [M, ...], None adds a leading axis [1, N, ...].
    """
    return jax.tree.map(lambda leaf: leaf[index], tree)


def count(tree: Tree) -> int:
    """N, the length of the leading axis, of leaves [N, ...]; read off the first leaf.

    Raises:
        IndexError: for a tree without leaves, or whose first leaf is a scalar.
    """
    return jax.tree.leaves(tree)[0].shape[0]


def loop(body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Tree, reverse: bool = False) -> tuple[Any, Any]:
    """`lax.scan`, but a single step is called instead of looped, which compiles faster.

    Args:
        body: (carry, x) -> (carry, y).
        carry: what the first step is given.
        xs: leaves [N, ...]; step i is given their entry i.
        reverse: begin with the last entry.

    Returns:
        (the last carry, ys), where the leaves of ys are [N, ...].
    """
    if count(xs) != 1:
        return jax.lax.scan(body, carry, xs, reverse=reverse)
    carry, y = body(carry, take(xs, 0))
    return carry, take(y, None)
