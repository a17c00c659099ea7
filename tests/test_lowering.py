"""What a traced program becomes on each platform: shifted slices on CPU, convolutions on an accelerator, from any machine."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import ROWS, cell_space, images, tiny_net
from quick import jit

from jaxnas import evaluate, training
from jaxnas.nets import convolution

QUICK = ("darts", "spos", "aging")
ROW_NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]


def counted(traced, platform: str) -> dict[str, int]:
    """How often a program, lowered for a platform, slices, convolves and calls back to Python."""
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    words = {"convolutions": r"stablehlo\.convolution\b", "slices": r"stablehlo\.slice\b", "cases": r"stablehlo\.case\b"}
    words["callbacks"] = "callback"
    return {name: len(re.findall(word, text)) for name, word in words.items()}


@pytest.mark.parametrize("name", ROW_NAMES)
def test_a_step_is_lowered_for_any_accelerator(name):
    row = ROWS[name]()
    state = jax.eval_shape(row.strategy.init, jax.random.key(0))
    traced = jax.jit(row.strategy.step).trace(jax.random.key(1), state, row.batch(jax.random.key(2)))
    cpu, tpu, cuda = (counted(traced, platform) for platform in ("cpu", "tpu", "cuda"))
    assert cpu["convolutions"] == 0 and tpu["callbacks"] == cuda["callbacks"] == 0
    if name in ("darts", "spos", "proxylessnas", "in_place_distillation"):
        for found in (tpu, cuda):
            assert found["convolutions"] > 20 and found["slices"] < cpu["slices"] / 3


def test_an_export_holds_the_form_of_each_platform():
    x, w, d = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 6, 6, 3), (4, 2, 3, 3), (2, 3, 3)]))
    f = lambda x: convolution.conv(convolution.depthwise(x, d), w)
    exported = jax.export.export(jax.jit(f), platforms=("cpu", "cuda", "tpu"))(x)
    text = exported.mlir_module()
    assert len(re.findall(r"stablehlo\.convolution\b", text)) >= 2 and len(re.findall(r"stablehlo\.slice\b", text)) >= 18
    np.testing.assert_allclose(exported.call(x), jit(f)(x), rtol=1e-5, atol=1e-5)


def test_a_convolution_outside_jit_is_the_same():
    x, w = jax.random.normal(jax.random.key(0), (2, 6, 6, 3)), jax.random.normal(jax.random.key(1), (4, 2, 3, 3))
    np.testing.assert_allclose(convolution.conv(x, w), jit(convolution.conv)(x, w), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(convolution.depthwise(x, w[:2, 0]), jit(convolution.depthwise)(x, w[:2, 0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batched", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("form", ["shifts", "dense"])
def test_batches_of_convolutions_are_their_convolutions(form, batched):
    """With respect to the image, the kernel and both; also of the two adjoints, and twice."""
    with jax.enable_x64(True):
        x, w = jax.random.normal(jax.random.key(0), (3, 2, 5, 4, 2)), jax.random.normal(jax.random.key(1), (3, 4, 2, 3, 3))
        args = [a if axis == 0 else a[0] for a, axis in zip((x, w), batched, strict=True)]
        y = lambda x, w: convolution.conv(x, w, 2, form=form)
        loss = lambda x, w: jnp.sum(jnp.sin(y(x, w)))
        both = lambda x, w: (y(x, w), *jax.grad(loss, (0, 1))(x, w))
        one = lambda i: both(*(a[i] if axis == 0 else a for a, axis in zip(args, batched, strict=True)))
        twice = jit(jax.vmap(jax.vmap(both, batched), batched))(
            *(a[None] if axis == 0 else a for a, axis in zip(args, batched, strict=True))
        )
        for got, *wanted in zip(twice, *map(one, range(3)), strict=True):
            np.testing.assert_allclose(got[0], jnp.stack(wanted), rtol=1e-12, atol=1e-12)


def test_a_population_is_trained_as_suits_the_platform():
    """One by one on CPU, where each runs its own operations alone; side by side elsewhere, as convolutions of many groups."""
    space = cell_space()
    train = evaluate.train_from_scratch(tiny_net(space), training.sgd(0.1))
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 2))
    step = lambda key, archs, batch: train.step(key, train.init(key), archs, batch)
    traced = jax.jit(step).trace(jax.random.key(1), archs, images(jax.random.key(2)))
    cpu, tpu = (counted(traced, platform) for platform in ("cpu", "tpu"))
    assert cpu["cases"] > tpu["cases"] == 2  # the choice itself, of constants
    assert cpu["convolutions"] == 0 < tpu["convolutions"]
