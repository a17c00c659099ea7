"""What tests of tiny nets share: `jit` without optimisation, since compiling is what they cost, and a distance of trees."""

import functools

import jax
import numpy as np

from jaxnas.driver import compiler_options

jit = functools.partial(jax.jit, compiler_options=compiler_options(once=True))


def worst(a, b):
    """The largest difference between two trees, relative to the largest entry."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert all(np.shape(x) == np.shape(y) for x, y in pairs)
    largest = max(float(np.max(np.abs(np.asarray(x)), initial=0)) for x, _ in pairs)
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0)) for x, y in pairs) / max(1.0, largest)
