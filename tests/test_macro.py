"""The macro space and its networks: texts, conditions, costs against the modules themselves, and limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnas import nets, spaces
from jaxnas.spaces._macro import FAMILIES, RECIPES, families
from jaxnas.spaces._training import with_recipe

IMAGES = ((8, 8, 1), (33, 40, 3), (30, 1, 2))


@functools.cache
def space_of(image):
    return spaces.macro(image)


@functools.cache
def programs(image):
    """(sample, mutate, cost), compiled."""
    space = space_of(image)
    return jax.jit(space.sample), jax.jit(space.mutate), jax.jit(nets.backbone_cost(space.spec, 5))


def same(a, b):
    return all((np.asarray(x) == np.asarray(y)).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@given(st.sampled_from(IMAGES), st.integers(0, 2**31 - 1))
@settings(max_examples=12, deadline=None)
def test_texts_are_read_back_and_costs_are_those_of_the_module(image, seed):
    space, (sample, mutate, cost) = space_of(image), programs(image)
    arch = mutate(jax.random.key(seed + 1), sample(jax.random.key(seed)))
    text = space.to_text(arch)
    assert same(space.from_text(text), arch) and same(space.canonical(arch), arch)
    module = nets.Backbone(space.choice(arch), 5)
    assert int(cost(arch).params) == nets.count_parameters(module, image)


def test_multiply_adds_of_a_network_counted_by_hand():
    space = space_of((8, 8, 1))
    arch = space.from_text(f"stem1 8:residual3x1 16:inverted5e2x1 attention batch relu average {RECIPES[0]}")
    stem, first, attention = 9 * 8 * 64, 2 * 9 * 8 * 8 * 64, 2 * 8 * 4
    inverted = 8 * 16 * 64 + 25 * 16 * 16 + 2 * 16 * 4 + 16 * 16 * 16
    assert int(nets.backbone_cost(space.spec, 5)(arch).macs) == stem + first + attention + inverted + 16 * 5


@pytest.mark.parametrize("block", ["plain3", "residual3", "separable5", "inverted3e2"])
def test_outputs_have_the_shape_of_the_targets(block):
    for image in ((8, 8, 1), (30, 1, 2)):
        space = space_of(image)
        arch = space.from_text(f"stem1 8:{block}x2 8:{block}x1 group silu flatten {RECIPES[2]}")
        module, x = nets.Backbone(space.choice(arch), 3), jnp.ones((2, *image))
        shapes = jax.eval_shape(lambda x, m=module: m.init_with_output(jax.random.key(0), x, train=True), x)
        assert shapes[0].shape == (2, 3)


def test_stages_that_are_not_there_decide_nothing():
    space = space_of((8, 8, 1))
    one = space.from_text(f"stem1 8:plain3x1 batch relu average {RECIPES[0]}")
    names = [name for name, leaf in zip(one._fields, one, strict=True) for _ in np.ravel(leaf)]
    off = {n for n, on in zip(names, np.asarray(space.active(one)), strict=True) if not on}
    assert off == {"growth", "depth", "block", "kernel", "expansion"}


def test_every_family_is_in_the_space_and_grows():
    space, cost = space_of((33, 40, 3)), programs((33, 40, 3))[2]
    found = families(space)
    assert set(found) == set(FAMILIES)
    for ladder in found.values():
        macs = [int(cost(arch).macs) for arch in ladder]
        assert macs == sorted(macs) and len(set(macs)) == len(macs)
    other = with_recipe(space, found["resnet"][0], RECIPES[1])
    assert space.choice(other).training.rate == 0.2 and space.choice(other).network == space.choice(found["resnet"][0]).network


def test_a_space_of_fewer_values_leaves_families_out():
    space = spaces.macro((8, 8, 1), block=("plain",), depth=(1,))
    assert set(families(space)) == {"plain"}


@pytest.mark.parametrize(
    "text, why",
    [
        ("stem1 batch relu average", "0 stages"),
        ("stem1 8:plain3x1 batch relu average", "lacks rate"),
        (f"stem1 9:plain3x1 batch relu average {RECIPES[0]}", "no width"),
        (f"stem1 8:plain3x1 64:plain3x1 batch relu average {RECIPES[0]}", "a width of 64 behind 8"),
        (f"stem1 8:plain batch relu average {RECIPES[0]}", "is no stage"),
        (f"stem1 8:plain3x1 layer relu average {RECIPES[0]}", "'layer' is not in this space"),
    ],
)
def test_other_texts_are_refused(text, why):
    with pytest.raises(ValueError, match=why):
        space_of((8, 8, 1)).from_text(text)


@pytest.mark.parametrize("lists, why", [(dict(width=()), "at least one value"), (dict(block=("dense",)), "unknown block")])
def test_lists_that_make_no_space_are_refused(lists, why):
    with pytest.raises(ValueError, match=why):
        spaces.macro((8, 8, 1), **lists)


def test_what_a_limited_space_draws_is_within_the_limit():
    space, cost = space_of((8, 8, 1)), nets.backbone_cost(space_of((8, 8, 1)).spec, 5)
    limited = spaces.limited(space, lambda arch: cost(arch).macs, 3e5)
    keys = jax.random.split(jax.random.key(0), 50)
    archs = jax.jit(jax.vmap(limited.sample))(keys)
    assert (jax.vmap(cost)(archs).macs <= 3e5).all()
    mutants = jax.jit(jax.vmap(limited.mutate))(jax.random.split(jax.random.key(1), 50), archs)
    assert (jax.vmap(cost)(mutants).macs <= 3e5).all()
    moved = jnp.any(jax.vmap(space.flat)(mutants) != jax.vmap(space.flat)(archs), -1)
    assert moved.mean() > 0.9
    none = spaces.limited(space, lambda arch: cost(arch).macs, 1.0)
    assert same(none.mutate(jax.random.key(2), jax.tree.map(lambda a: a[0], archs)), jax.tree.map(lambda a: a[0], archs))
    with pytest.raises(ValueError, match="positive limit"):
        spaces.limited(space, cost, 0.0)
