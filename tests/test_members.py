"""Trainings whose hyper-parameters are arguments: cut anywhere, one program, and what each number does."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.spaces._training import TrainingChoice
from jaxnas.training.members import Course, Recipe, augmented, member, recipe_of

IMAGE = (8, 8, 1)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False, dropout=None):
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
        return nn.Dense(3, name="out")(norm(x.reshape(len(x), -1)))


@functools.cache
def parts():
    functions = member(Net(), IMAGE, 8)
    return functions, jax.jit(functions.init)(jax.random.key(0)), jax.jit(functions.advance)


@functools.cache
def examples():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90).astype(np.int32)
    x = rng.normal(size=(90, *IMAGE)).astype(np.float32)
    x[:, 0, 0, 0] = 3.0 * (y - 1)
    return jnp.asarray(x), jnp.asarray(y)


def course(stop, total=60, rate=0.1, examples=90, **more):
    recipe = Recipe(rate, 0.0, 0.0, 0.0, 0.0, 0.0)._replace(**more)
    whole = lambda n: jnp.asarray(n, jnp.int32)
    return Course(jax.tree.map(jnp.float32, recipe), jnp.float32(total), whole(stop), whole(examples))


def test_any_cutting_of_a_training_gives_the_same_bits():
    _, state, advance = parts()
    key = jax.random.key(1)
    whole, _ = advance(jax.random.clone(key), state, course(60), *examples())
    cut = state
    for stop in (1, 20, 21, 60):
        cut, _ = advance(jax.random.clone(key), cut, course(stop), *examples())
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(whole.step) == 60


def test_other_numbers_are_no_other_program():
    _, state, advance = parts()
    advance(jax.random.key(1), state, course(2), *examples())
    before = advance._cache_size()
    advance(jax.random.key(1), state, course(3, total=9, rate=0.4, examples=50, decay=0.1, pad=1.0, flip=0.5, cut=2.0), *examples())
    assert advance._cache_size() == before


def test_only_the_first_examples_are_trained_on():
    _, state, advance = parts()
    x, y = examples()
    after, loss = advance(jax.random.key(1), state, course(20, examples=50), x.at[50:].set(jnp.nan), y)
    assert np.isfinite(loss) and all(np.isfinite(a).all() for a in jax.tree.leaves(after.packed))
    _, loss = advance(jax.random.key(1), state, course(20), x.at[50:].set(jnp.nan), y)
    assert not np.isfinite(loss)


def test_it_learns_and_its_average_predicts():
    functions, state, advance = parts()
    after, _ = advance(jax.random.key(1), state, course(60), *examples())
    x, y = examples()
    right = lambda variables: float((functions.predict(variables, x).argmax(-1) == y).mean())
    assert right(functions.variables(state)) < 0.6 < 0.9 < right(functions.variables(after))


def test_decay_shrinks_kernels_alone():
    _, state, advance = parts()
    size = lambda s: float(jnp.linalg.norm(s.packed.kernels))
    free, held = (advance(jax.random.key(1), state, course(30, decay=d), *examples())[0] for d in (0.0, 0.5))
    assert size(held) < 0.8 * size(free)


def test_augmentations_do_what_the_recipe_says():
    image = jnp.arange(64.0).reshape(IMAGE) + 1
    none = Recipe(*[jnp.float32(0)] * 6)
    keys = jax.random.split(jax.random.key(0), 200)
    each = lambda recipe: jax.jit(jax.vmap(augmented, (0, None, None)))(jax.random.clone(keys), image, recipe)
    np.testing.assert_array_equal(each(none), jnp.broadcast_to(image, (200, *IMAGE)))
    np.testing.assert_array_equal(each(none._replace(flip=jnp.float32(1)))[0], image[:, ::-1])
    shifted = each(none._replace(pad=jnp.float32(1)))
    corners = {int(a[3, 3, 0]) for a in shifted}
    assert corners == {int(image[3 + i, 3 + j, 0]) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    holes = (each(none._replace(cut=jnp.float32(4))) == 0).sum((1, 2, 3))
    assert holes.max() == 16 and holes.min() >= 4


def test_a_recipe_is_sized_for_the_image():
    choice = TrainingChoice(0.1, 1e-4, "crop+flip+cutout", 0.2)
    assert [float(v) for v in recipe_of(choice, (32, 32, 3))] == pytest.approx([0.1, 1e-4, 0.2, 4, 0.5, 16])
    assert float(recipe_of(choice, (40, 1, 3)).pad) == 5
    assert [float(v) for v in recipe_of(choice._replace(augment="none"), (32, 32, 3))[3:]] == [0, 0, 0]


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="at least one example"):
        member(Net(), IMAGE, 0)
