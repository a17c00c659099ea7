"""The tabular space and its networks: texts, conditions, costs against the modules themselves, and that they learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnas import nets, spaces
from jaxnas.spaces._tabular import FAMILIES, RECIPES, families
from jaxnas.spaces._training import with_recipe

F, K = 5, 3


@functools.cache
def small():
    space = spaces.tabular(F, width=(4, 8), depth=(1, 2))
    return space, jax.jit(space.sample), jax.jit(space.mutate), jax.jit(nets.tabular_cost(space.spec, K))


def same(a, b):
    return all((np.asarray(x) == np.asarray(y)).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=25, deadline=None)
def test_texts_are_read_back_and_costs_are_those_of_the_module(seed):
    space, sample, mutate, cost = small()
    arch = space.canonical(mutate(jax.random.key(seed + 1), sample(jax.random.key(seed))))
    assert same(space.from_text(space.to_text(arch)), arch)
    module = nets.TabularNet(space.choice(arch), K)
    assert int(cost(arch).params) == nets.count_parameters(module, (F,)), space.to_text(arch)


@pytest.mark.parametrize(
    "words, macs",
    [
        ("raw mlp 4x2 nonorm relu", F * 4 + 4 * 4 + 4 * K),
        ("periodic mlp 8x1 batch silu", F * (8 + 16 * 8) + F * 8 * 8 + 8 * K),
        ("raw resnet 4x1 layer relu", F * 4 + 2 * 4 * 8 + 4 * K),
        ("raw transformer 4x1 relu", F * 4 + 6 * 8 * 16 + 2 * 6 * 6 * 4 + 4 * K),
    ],
)
def test_multiply_adds_counted_by_hand(words, macs):
    space, *_, cost = small()
    assert int(cost(space.from_text(f"{words} {RECIPES[0]}")).macs) == macs


def test_a_transformer_decides_no_norm():
    space = small()[0]
    arch = space.from_text(f"raw transformer 4x1 relu {RECIPES[0]}")
    on = dict(zip(arch._fields, np.asarray(space.active(arch)), strict=True))
    assert not on["norm"] and sum(on.values()) == len(on) - 1
    assert same(space.canonical(arch._replace(norm=jnp.int32(2))), space.canonical(arch))


def test_every_family_is_in_the_space_and_grows():
    space = spaces.tabular(F)
    cost = jax.jit(nets.tabular_cost(space.spec, K))
    found = families(space)
    assert set(found) == set(FAMILIES)
    for ladder in found.values():
        macs = [int(cost(arch).macs) for arch in ladder]
        assert macs == sorted(macs) and len(set(macs)) == len(macs)
    other = with_recipe(space, found["mlp"][0], RECIPES[1])
    assert space.choice(other).training.rate == 0.003 and space.choice(other).network == space.choice(found["mlp"][0]).network
    assert set(families(spaces.tabular(F, block=("mlp",), embedding=("raw",)))) == {"mlp"}


@pytest.mark.parametrize(
    "text, why",
    [
        ("raw mlp 4x2 nonorm relu", "lacks rate, decay, dropout"),
        (f"raw mlp 5x2 nonorm relu {RECIPES[0]}", "'5' is no width"),
        (f"raw mlp 4x2 group relu {RECIPES[0]}", "'group' is not in this space"),
        (f"raw mlp 4x2 nonorm relu augment=crop {RECIPES[0]}", "'augment=crop' is not in this space"),
    ],
)
def test_other_texts_are_refused(text, why):
    with pytest.raises(ValueError, match=why):
        small()[0].from_text(text)


@pytest.mark.parametrize(
    "inputs, lists, why",
    [
        (0, {}, "`inputs` of tabular must be a positive integer; got 0"),
        (3, dict(width=()), "a value for every"),
        (3, dict(block=("tree",)), "unknown block"),
    ],
)
def test_lists_that_make_no_space_are_refused(inputs, lists, why):
    with pytest.raises(ValueError, match=why):
        spaces.tabular(inputs, **lists)


def test_other_rows_are_refused():
    with pytest.raises(ValueError, match=r"a space of `tabular\(4\)`"):
        nets.tabular_nets(spaces.tabular(5), image=(4,), classes=2)


@pytest.mark.parametrize("words", ["raw mlp 64x2 batch relu", "periodic resnet 16x1 layer relu", "raw transformer 32x2 relu"])
def test_it_learns_what_no_line_parts(words):
    """Whether two numbers have the same sign."""
    from jaxnas.training.members import Course, member, recipe_of

    space = spaces.tabular(2)
    arch = space.from_text(f"{words} rate=0.003 decay=0.0 dropout=0.0")
    x = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int32)
    choice = space.choice(arch)
    functions = member(nets.TabularNet(choice, 2), (2,), 32, optimizer="adam")
    whole = lambda n: jnp.asarray(n, jnp.int32)
    course = Course(recipe_of(choice.training, (2,)), jnp.float32(200), whole(200), whole(300))
    begun = functions.init(jax.random.key(0))
    state, _ = jax.jit(functions.advance)(jax.random.key(1), begun, course, jnp.asarray(x), jnp.asarray(y))
    right = (np.asarray(functions.predict(functions.variables(state), x[300:])).argmax(-1) == y[300:]).mean()
    assert right > 0.85


def test_a_space_without_cells_is_refused_by_what_needs_cells():
    from jaxnas import surrogates

    for other in (spaces.tabular(3), spaces.fbnet(), spaces.macro((8, 8, 1))):
        with pytest.raises(ValueError, match="this space has no cell description"):
            nets.cell_net(other, image=(8, 8, 1), classes=2)
        with pytest.raises(ValueError, match="needs a space of one cell"):
            surrogates.path_encoding(other)
        with pytest.raises(ValueError, match="this space has no cells"):
            surrogates.cell_graph(other)
    with pytest.raises(ValueError, match="give a module the image"):
        nets.count_parameters(nets.TabularNet(spaces.tabular(3).choice(families(spaces.tabular(3))["mlp"][0]), 2))
