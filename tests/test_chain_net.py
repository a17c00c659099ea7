"""The one program that computes any chain of layers, against the plain module of one, and searches that train it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import jit, worst

from jaxnas.ask_tell._aging_evolution import aging_evolution
from jaxnas.ask_tell._q_learning import mdp_of, q_learning
from jaxnas.base import Batch, black_box
from jaxnas.evaluate.population import train_from_scratch
from jaxnas.nets._chain_net import chain_net
from jaxnas.spaces._chain import chain
from jaxnas.spaces._metaqnn import Layers, metaqnn

IMAGE = (9, 9, 2)
SPACE = chain(metaqnn(9, 6, filters=(2, 3), kernels=(1, 3), pools=((2, 2), (3, 2)), dense=(5, 4)))
KEY = jax.random.key(0)  # of shapes only
NET = chain_net(SPACE, image=IMAGE, classes=3)


@functools.cache
def program(path):
    def run(variables, x, gates):
        def loss(params, x):
            logits, _ = NET.apply({"params": params}, x, gates, train=True, path=path)
            return jnp.sum(jnp.sin(logits)), logits

        return jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x), NET.apply(variables, x, gates, train=False)[0]

    return jit(run)


TEXTS = (
    "stop",
    "average",
    "conv 3 3 | conv 2 1 | conv 3 3 | conv 2 3 | conv 3 1 | conv 3 3",
    "conv 2 3 | pool 2 2 | conv 3 3 | pool 2 2 | dense 5 | dense 4",
    "conv 3 3 | pool 2 2 | dense 4",
    "conv 2 3 | pool 3 2 | conv 3 1 | average",
)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("text", TEXTS)
def test_three_ways_agree(text, bits):
    """All gates, only the layers that are there, and that chain alone: outputs, gradients, and what `used` marks."""
    with jax.enable_x64(bits == 64):
        rng = np.random.default_rng(0)
        draw = lambda shape: rng.normal(scale=0.5, size=shape).astype(f"float{bits}")
        variables = jax.tree.map(lambda a: draw(a.shape), jax.eval_shape(NET.init, KEY))
        x, arch = draw((4, *IMAGE)), SPACE.from_text(text)
        module, extract = NET.specialize(arch)
        one = extract(variables)
        assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, jax.eval_shape(module.init, KEY, x))

        def alone(params, x):
            logits = module.apply({"params": params}, x)
            return jnp.sum(jnp.sin(logits)), logits

        (wanted, image_grads), logits = jit(jax.grad(alone, (0, 1), has_aux=True))(one["params"], x)
        used = NET.used(variables, SPACE.gates(arch))["params"]
        for path in (False, True):
            ((grads, dx), train_logits), evaluated = program(path)(variables, x, SPACE.gates(arch))
            mine = train_logits, evaluated, dx, extract({"params": grads})["params"]
            assert worst(mine, (logits, logits, image_grads, wanted)) < (1e-9 if bits == 64 else 1e-5)
            unused = jax.tree.map(lambda g, m: np.where(m > 0, 0, g), grads, used)
            assert not any(g.any() for g in jax.tree.leaves(unused))
        shares = jax.tree.map(lambda m, v: int(np.sum(np.broadcast_to(m, v.shape))), used, variables["params"])
        assert sum(jax.tree.leaves(shares)) == sum(np.size(a) for a in jax.tree.leaves(one))


@pytest.mark.parametrize("text", [TEXTS[3], TEXTS[5], "conv 3 3 | conv 3 1 | conv 2 3"])
def test_weights_start_as_those_of_the_chain_alone(text):
    """Glorot's uniform: the second moment is 2 / (inputs + outputs)."""
    module, extract = NET.specialize(SPACE.from_text(text))
    keys = jax.random.split(jax.random.key(0), 200)
    gates = SPACE.gates(SPACE.from_text(text))
    mine = jit(jax.vmap(lambda key: extract(NET.init(key, gates))["params"]))(keys)
    theirs = jit(jax.vmap(lambda key: module.init(key, jnp.zeros((1, *IMAGE)))["params"]))(keys)
    for name, layer in mine.items():
        assert not layer["bias"].any()
        a, b = np.asarray(layer["kernel"]), np.asarray(theirs[name]["kernel"])
        assert abs(np.mean(a**2) / np.mean(b**2) - 1) < 5 * np.sqrt(2 * 0.8 / a.size)  # E x^4 = 1.8 (E x^2)^2
        assert abs(np.max(abs(a)) / np.max(abs(b)) - 1) < 0.02


WIDE = chain(metaqnn(4, 4, filters=(32,), kernels=(1,), pools=(), dense=(32,)))


@functools.cache
def passing():
    """A net, weights with which every channel of the first pixel passes alone, and (gates, key, path) -> logits of ones."""
    net = chain_net(WIDE, image=(4, 4, 32), classes=32)
    eye, zeros = np.eye(32, dtype=np.float32), jax.tree.map(lambda a: np.zeros(a.shape, np.float32), jax.eval_shape(net.init, KEY))
    p = zeros["params"]
    p["conv0"]["kernel"][..., 0, 0] = p["convs"]["kernel"][..., 0, 0] = p["dense0"]["kernel"][:, 0, 0] = eye
    p["dense1"]["kernel"][:] = p["classifier"]["map"][:, 0, 0] = p["classifier"]["vector"][:] = eye
    run = lambda gates, key, path: net.apply(zeros, jnp.ones((100, 4, 4, 32)), gates, train=True, path=path, key=key)[0]
    return net, zeros, jit(run, static_argnums=2)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("conv 32 1 | conv 32 1", 0.5),
        ("conv 32 1 | conv 32 1 | conv 32 1 | conv 32 1", 0.75 * 0.5),
        ("conv 32 1 | average", 0.5),
        ("conv 32 1 | conv 32 1 | conv 32 1", 0.5),
        ("conv 32 1 | dense 32 | dense 32", 0.5),
        ("conv 32 1 | conv 32 1 | dense 32 | dense 32", 0.75 * 0.5),
    ],
)
def test_dropout_is_that_of_the_chain(text, kept):
    """What is left of a channel, and by what it is scaled; without a key none is dropped."""
    net, variables, program = passing()
    arch = WIDE.from_text(text)
    for path in (False, True):
        y = np.asarray(program(WIDE.gates(arch), jax.random.key(1), path))
        assert abs(np.mean(y > 0) - kept) < 4 * np.sqrt(kept * (1 - kept) / y.size)
        np.testing.assert_allclose(y[y > 0], 1 / kept, rtol=1e-5)
        assert (program(WIDE.gates(arch), None, path) == 1).all()
    module, extract = net.specialize(arch)
    plain = module.apply(extract(variables), jnp.ones((100, 4, 4, 32)), train=True, rngs={"dropout": jax.random.key(2)})
    np.testing.assert_allclose(np.unique(plain), [0, 1 / kept], rtol=1e-5)


@pytest.mark.parametrize("name", ["aging evolution", "q-learning"])
def test_a_search_trains_from_scratch(name):
    s = chain(metaqnn(4, 3, (2, 4), (1, 3), ((2, 2),), (4,)))
    net = chain_net(s, image=(4, 4, 1), classes=2)
    assert mdp_of(s) is s.spec
    algorithm = {
        "aging evolution": lambda: aging_evolution(s, population=3, tournament=2, batch=3),
        "q-learning": lambda: q_learning(mdp_of(s), ((1.0, 4), (0.5, 4)), replay=4, batch=3),
    }[name]()
    evaluator = train_from_scratch(net, optax.adam(0.05), "vmap")
    strategy = black_box(algorithm, evaluator)
    y = jax.random.bernoulli(jax.random.key(1), 0.5, (40, 16)).astype(jnp.int32)
    x = y[..., None, None, None] + 0.3 * jax.random.normal(jax.random.key(2), (40, 16, 4, 4, 1))
    batch = Batch(train=(x, y), valid=(x[:4], y[:4]))
    step = jit(strategy.step)
    state = jit(strategy.init)(jax.random.key(3))
    for key in jax.random.split(jax.random.key(4), 2):
        state, info = step(key, state, batch)
        for actions in np.asarray(info.archs.action):
            net.specialize(Layers(actions))  # refuses what is not legal
    assert state.best_score > 0.9
