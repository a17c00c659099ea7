"""Pytrees with a common leading axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import trees

TREE = {"a": np.arange(6).reshape(3, 2), "b": (jnp.arange(3.0), None)}


def test_take():
    one, some, mask = (trees.take(TREE, i) for i in (1, slice(1, None), np.asarray([True, False, True])))
    np.testing.assert_array_equal(one["a"], [2, 3])
    assert float(one["b"][0]) == 1 and one["b"][1] is None
    np.testing.assert_array_equal(some["a"], [[2, 3], [4, 5]])
    np.testing.assert_array_equal(mask["b"][0], [0, 2])
    assert trees.take(TREE, None)["a"].shape == (1, 3, 2)
    traced = jax.jit(trees.take)(TREE, jnp.asarray([2, 0]))
    np.testing.assert_array_equal(traced["a"], [[4, 5], [0, 1]])


def test_count():
    assert trees.count(TREE) == 3
    with pytest.raises(IndexError):
        trees.count(())


@pytest.mark.parametrize("n", [1, 3])
def test_loop(n):
    body = lambda carry, x: (carry + x, carry * x)
    for reverse in (False, True):
        found, wanted = (f(body, jnp.float32(2), jnp.arange(1.0, n + 1), reverse=reverse) for f in (trees.loop, jax.lax.scan))
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_array_equal(found[1], wanted[1])
