"""Pytrees with a common leading axis: one entry of it, its length, and a loop along it."""

import jax


def loop(body, carry, xs, reverse=False):
    """`lax.scan`, but a single step is called instead of looped, which compiles faster."""
    if jax.tree.leaves(xs)[0].shape[0] != 1:
        return jax.lax.scan(body, carry, xs, reverse=reverse)
    carry, y = body(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda y: y[None], y)
