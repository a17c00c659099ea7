"""Chains of layers as a space, and the one program that computes any of them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import jit, worst

from jaxnas.ask_tell._aging_evolution import aging_evolution
from jaxnas.ask_tell._local_search import local_search
from jaxnas.ask_tell._nsga2 import nsga2
from jaxnas.ask_tell._q_learning import mdp_of, q_learning
from jaxnas.ask_tell._tpe import tpe
from jaxnas.base import Batch, black_box, stateless
from jaxnas.evaluate.population import train_from_scratch
from jaxnas.nets._chain_net import chain_net
from jaxnas.spaces._chain import chain
from jaxnas.spaces._metaqnn import Layers, metaqnn
from jaxnas.spaces._nasbench201 import nasbench201

DRAWS = 1000
SMALL = dict(layers=6, filters=(2, 3), kernels=(1, 3), pools=((2, 2), (3, 2)), dense=(5, 4))
IMAGE, CLASSES = (9, 9, 2), 3


@functools.cache
def small():
    return chain(metaqnn(9, **SMALL))


@functools.cache
def tiny():
    return chain(metaqnn(4, 3, (2, 3), (1, 3), ((2, 2),), (4,)))


@functools.cache
def published():
    return chain(metaqnn())


SPACES = pytest.mark.parametrize("make", [small, tiny, published])


def draws(s, seed=0, n=DRAWS):
    return jit(jax.vmap(s.sample))(jax.random.split(jax.random.key(seed), n))


def states(mdp, actions):
    """The states of a walk, one in front of every action; an assertion fails where an action is not legal."""
    s, out = 0, []
    for a in actions:
        out.append(s)
        if mdp.terminal[s]:
            assert a == 0
        else:
            assert mdp.legal[s, a]
            s = int(mdp.next[s, a])
    assert mdp.terminal[s]
    return out


def repaired(mdp, tokens):
    """By the docstring: an action that is not legal becomes the last legal one listed before it."""
    s, out = 0, []
    for a in tokens:
        a = 0 if mdp.terminal[s] else max(b for b in range(a + 1) if mdp.legal[s, b])
        out.append(a)
        s = s if mdp.terminal[s] else int(mdp.next[s, a])
    return out


def every_walk(mdp, T):
    """All walks, in lexicographic order."""
    if mdp.terminal[0]:
        return []
    done, going = [], [((), 0)]
    while going:
        actions, s = going.pop()
        if mdp.terminal[s]:
            done.append([*actions, *[0] * (T - len(actions))])
        else:
            going += [((*actions, int(a)), int(mdp.next[s, a])) for a in np.flatnonzero(mdp.legal[s])]
    return sorted(done)


# The space


def test_size_and_index_are_those_of_all_walks():
    s = tiny()
    walks = np.asarray(every_walk(s.spec, len(s.arity)))
    assert s.size == len(walks) == 198
    every = jit(jax.vmap(s.from_index))(jnp.arange(s.size))
    np.testing.assert_array_equal(every.action, walks)
    np.testing.assert_array_equal(jit(jax.vmap(s.index))(every), np.arange(s.size))


def test_the_published_space_is_too_large_for_an_index():
    s = published()
    assert s.size == 282_710_031_500_590_500_770
    for use in (lambda: s.from_index(0), lambda: s.index(s.sample(jax.random.key(0)))):
        with pytest.raises(ValueError, match="fewer than 2\\*\\*31"):
            use()


@SPACES
def test_samples_are_legal_and_walk_uniformly(make):
    s = make()
    actions, active = (np.asarray(a) for a in jit(jax.vmap(lambda a: (a.action, s.active(a))))(draws(s)))
    for row, on in zip(actions, active, strict=True):
        choice = [not s.spec.terminal[t] and s.spec.legal[t].sum() > 1 for t in states(s.spec, row)]
        np.testing.assert_array_equal(on, choice)
    first = np.flatnonzero(s.spec.legal[0])
    share = np.bincount(actions[:, 0], minlength=s.spec.legal.shape[1]) / DRAWS
    assert (share[~s.spec.legal[0]] == 0).all()
    p = 1 / len(first)
    assert (abs(share[first] - p) < 5 * np.sqrt(p * (1 - p) / DRAWS)).all()


@SPACES
def test_mutation_changes_one_step_and_repairs_those_behind_it(make):
    s = make()
    archs = draws(s)
    mutants = jit(jax.vmap(s.mutate))(jax.random.split(jax.random.key(1), DRAWS), archs)
    changed = set()
    for old, new in zip(np.asarray(archs.action), np.asarray(mutants.action), strict=True):
        before, _ = states(s.spec, old), states(s.spec, new)
        t = int(np.flatnonzero(old != new)[0])  # a mutant is never its parent
        assert s.spec.legal[before[t]].sum() > 1
        assert new.tolist() == repaired(s.spec, [*old[:t], *new[t : t + 1], *old[t + 1 :]])
        changed.add(t)
    assert changed == set(range(len(s.arity) - 1))


@SPACES
def test_crossover_joins_the_beginning_of_one_to_the_end_of_the_other(make):
    s = make()
    a, b = draws(s, 1), draws(s, 2)
    cross = jit(jax.vmap(s.crossover))
    children = cross(jax.random.split(jax.random.key(3), DRAWS), a, b)
    for x, y, child in zip(*(np.asarray(arch.action) for arch in (a, b, children)), strict=True):
        states(s.spec, child)
        cuts = range(1, max(1, min((x > 0).sum(), (y > 0).sum())) + 1)
        assert child.tolist() in [repaired(s.spec, [*x[:c], *y[c:]]) for c in cuts]
    np.testing.assert_array_equal(cross(jax.random.split(jax.random.key(4), DRAWS), a, a).action, a.action)


@SPACES
def test_no_tokens_spell_an_illegal_chain(make):
    s = make()
    tokens = np.random.default_rng(0).integers(0, s.arity, (DRAWS, len(s.arity))).astype(np.int32)
    actions = np.asarray(jit(jax.vmap(s.unflat))(tokens).action)
    for row, token in zip(actions, tokens, strict=True):
        states(s.spec, row)
        assert row.tolist() == repaired(s.spec, token)
    settled = jit(jax.vmap(lambda v: s.unflat(jnp.where(s.active(s.unflat(v)), v, 0))))(tokens)  # as algorithms do
    np.testing.assert_array_equal(settled.action, actions)
    np.testing.assert_array_equal(jit(jax.vmap(s.canonical))(settled).action, actions)


def test_neighbors_are_the_legal_single_edits():
    s = small()
    archs = draws(s, n=8)
    near = np.asarray(jit(jax.vmap(s.neighbors))(archs).action)
    assert near.shape[1] == sum(s.arity - 1)
    for old, rows in zip(np.asarray(archs.action).tolist(), near.tolist(), strict=True):
        before, wanted = states(s.spec, old), []
        for t, n in enumerate(s.arity.tolist()):
            for a in [(old[t] + k) % n for k in range(1, n)]:
                legal = not s.spec.terminal[before[t]] and s.spec.legal[before[t], a]
                wanted.append(repaired(s.spec, [*old[:t], a, *old[t + 1 :]]) if legal else old)
        assert rows == wanted


@SPACES
def test_gates_features_and_text_both_ways(make):
    s = make()
    archs = draws(s, n=100)
    gates, again, features = jit(jax.vmap(lambda a: (s.gates(a), s.derive(s.gates(a)), s.features(a))))(archs)
    assert jax.tree.map(lambda g: g.shape[1:], gates) == s.gate_shapes
    np.testing.assert_array_equal(again.action, archs.action)
    assert features.shape == (100, s.arity.sum())
    np.testing.assert_array_equal(features.sum(1), jit(jax.vmap(s.active))(archs).sum(1))
    noise = Layers(jax.random.normal(jax.random.key(1), (50, *s.gate_shapes.action)))
    for actions in np.asarray(jit(jax.vmap(s.derive))(noise).action):
        states(s.spec, actions)
    for actions in np.asarray(archs.action):
        text = s.to_text(Layers(actions))
        np.testing.assert_array_equal(s.from_text(text).action, actions)
        assert s.to_text(s.from_text(text)) == text


def test_text_says_what_is_built():
    s = small()
    arch = s.from_text("conv 3 3 |  pool 2 2|dense 5")
    assert [s.spec.meaning[a] for a in arch.action.tolist() if a] == [("conv", 3, 3), ("pool", 2, 2), ("dense", 5)]
    assert s.to_text(arch) == "conv 3 3 | pool 2 2 | dense 5"
    assert not s.from_text("stop").action.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small().from_text("conv 4 3"), "write one of conv 2 1, conv 2 3"),
        (lambda: small().from_text(""), "is not a layer"),
        (lambda: small().from_text("pool 2 2"), "not allowed after 'the image'"),
        (lambda: small().from_text("conv 2 1 | pool 2 2 | pool 2 2"), "not allowed after 'conv 2 1 . pool 2 2'"),
        (lambda: chain(mdp_of(nasbench201())), "give the MDP of `metaqnn`"),
        (lambda: chain(metaqnn(8, 2)._replace(legal=metaqnn(8, 2).legal & (np.arange(20) > 0))), "without a legal action"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The program


@functools.cache
def net():
    return chain_net(small(), image=IMAGE, classes=CLASSES)


@functools.cache
def program(path):
    def run(variables, x, gates):
        def loss(params, x):
            logits, _ = net().apply({"params": params}, x, gates, train=True, path=path)
            return jnp.sum(jnp.sin(logits)), logits

        return jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x), net().apply(variables, x, gates, train=False)[0]

    return jit(run)


TEXTS = (
    "stop",
    "average",
    "conv 3 3 | conv 2 1 | conv 3 3 | conv 2 3 | conv 3 1 | conv 3 3",
    "conv 2 3 | pool 2 2 | conv 3 3 | pool 2 2 | dense 5 | dense 4",
    "conv 3 3 | pool 2 2 | dense 4",
    "conv 2 3 | pool 3 2 | conv 3 1 | average",
)


@pytest.mark.parametrize(("text", "bits"), itertools.product(TEXTS, (32, 64)))
def test_three_ways_agree(text, bits):
    """All gates, only the layers that are there, and that chain alone: outputs, gradients, and what `used` marks."""
    with jax.enable_x64(bits == 64):
        rng = np.random.default_rng(0)
        draw = lambda shape: rng.normal(size=shape).astype(f"float{bits}")
        variables = jax.tree.map(lambda a: draw(a.shape), jax.eval_shape(net().init, jax.random.key(0)))
        x, arch = draw((4, *IMAGE)), small().from_text(text)
        module, extract = net().specialize(arch)
        one = extract(variables)
        assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, jax.eval_shape(module.init, jax.random.key(0), x))

        def alone(params, x):
            logits = module.apply({"params": params}, x)
            return jnp.sum(jnp.sin(logits)), logits

        (wanted, image_grads), logits = jit(jax.grad(alone, (0, 1), has_aux=True))(one["params"], x)
        used = net().used(variables, small().gates(arch))["params"]
        for path in (False, True):
            ((grads, dx), train_logits), evaluated = program(path)(variables, x, small().gates(arch))
            mine = train_logits, evaluated, dx, extract({"params": grads})["params"]
            assert worst(mine, (logits, logits, image_grads, wanted)) < (1e-9 if bits == 64 else 1e-5)
            unused = jax.tree.map(lambda g, m: np.where(m > 0, 0, g), grads, used)
            assert not any(g.any() for g in jax.tree.leaves(unused))
        shares = jax.tree.map(lambda m, v: int(np.sum(np.broadcast_to(m, v.shape))), used, variables["params"])
        assert sum(jax.tree.leaves(shares)) == sum(np.size(a) for a in jax.tree.leaves(one))


@pytest.mark.parametrize("text", [TEXTS[3], TEXTS[5], "conv 3 3 | conv 3 1 | conv 2 3"])
def test_weights_start_as_those_of_the_chain_alone(text):
    """Glorot's uniform: the second moment is 2 / (inputs + outputs)."""
    module, extract = net().specialize(small().from_text(text))
    keys = jax.random.split(jax.random.key(0), 200)
    gates = small().gates(small().from_text(text))
    mine = jit(jax.vmap(lambda key: extract(net().init(key, gates))["params"]))(keys)
    theirs = jit(jax.vmap(lambda key: module.init(key, jnp.zeros((1, *IMAGE)))["params"]))(keys)
    for name, layer in mine.items():
        assert not layer["bias"].any()
        a, b = np.asarray(layer["kernel"]), np.asarray(theirs[name]["kernel"])
        assert abs(np.mean(a**2) / np.mean(b**2) - 1) < 5 * np.sqrt(2 * 0.8 / a.size)  # E x^4 = 1.8 (E x^2)^2
        assert abs(np.max(abs(a)) / np.max(abs(b)) - 1) < 0.02


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("conv 64 1 | conv 64 1", [0.5]),
        ("conv 64 1 | conv 64 1 | conv 64 1 | conv 64 1", [0.75, 0.5]),
        ("conv 64 1 | average | stop", None),
        ("conv 64 1 | average", [0.5]),
        ("conv 64 1 | conv 64 1 | conv 64 1", [0.5]),
        ("conv 64 1 | dense 64 | dense 64", [0.5]),
        ("conv 64 1 | conv 64 1 | dense 64 | dense 64", [0.75, 0.5]),
    ],
)
def test_dropout_is_that_of_the_chain(text, kept):
    """With weights of which each layer passes on a mean of its inputs, logits are the mean of what survived, scaled."""
    s = chain(metaqnn(4, 4, (64,), (1,), (), (64,)))
    if kept is None:
        with pytest.raises(ValueError, match="'stop' is not a layer"):
            s.from_text(text)
        return
    wide = chain_net(s, image=(4, 4, 64), classes=64)
    arch = s.from_text(text)
    module, extract = wide.specialize(arch)
    variables = jax.tree.map(lambda a: jnp.zeros(a.shape), jax.eval_shape(wide.init, jax.random.key(0)))
    eye = lambda path, a: jnp.eye(64).reshape(64, 64, 1, 1) if a.shape == (64, 64, 1, 1) else a
    variables = jax.tree_util.tree_map_with_path(eye, variables)
    p = variables["params"]
    p["convs"]["kernel"] = jnp.broadcast_to(p["conv0"]["kernel"], p["convs"]["kernel"].shape)
    p["dense0"]["kernel"] = p["dense0"]["kernel"].at[:, 0, 0].set(jnp.eye(64))  # of the first pixel
    p["dense1"]["kernel"] = jnp.eye(64)
    p["classifier"] = {
        "map": p["classifier"]["map"].at[:, 0, 0].set(jnp.eye(64)),
        "vector": jnp.eye(64),
        "bias": jnp.zeros(64),
    }
    x = jnp.ones((50, 4, 4, 64))
    for path in (False, True):
        run = lambda key: wide.apply(variables, x, s.gates(arch), train=True, path=path, key=key)[0]
        y = np.asarray(jit(run)(jax.random.key(1)))  # every channel passes alone
        q = np.prod(kept)
        assert abs(np.mean(y > 0) - q) < 5 * np.sqrt(q * (1 - q) / y.size)
        np.testing.assert_allclose(y[y > 0], 1 / q, rtol=1e-5)
    plain = jit(lambda key: module.apply(extract(variables), x, train=True, rngs={"dropout": key}))(jax.random.key(2))
    np.testing.assert_allclose(np.unique(plain), [0, 1 / q], rtol=1e-5)
    assert (wide.apply(variables, x, s.gates(arch), train=True)[0] == 1).all()  # without a key none is dropped


# Searches


def deep():
    return stateless(lambda key, archs, batch: {"accuracy": jnp.mean((archs.action > 0).astype(jnp.float32), -1)})


@pytest.mark.parametrize(
    "algorithm",
    [lambda s: nsga2(s, population=8), lambda s: tpe(s, capacity=20, initial=5), lambda s: local_search(s, capacity=40)],
)
def test_algorithms_that_write_tokens_ask_for_legal_chains(algorithm):
    s = small()
    strategy = black_box(algorithm(s), deep())

    def run(key):
        k_init, k_steps = jax.random.split(key)
        step = lambda state, key: strategy.step(key, state, Batch())
        return jax.lax.scan(step, strategy.init(k_init), jax.random.split(k_steps, 15))[1].archs

    archs = jit(run)(jax.random.key(0))
    for actions in np.asarray(archs.action).reshape(-1, len(s.arity)):
        states(s.spec, actions)


@pytest.mark.parametrize("name", ["aging evolution", "q-learning"])
def test_a_search_trains_from_scratch(name):
    s = chain(metaqnn(4, 3, (2, 4), (1, 3), ((2, 2),), (4,)))
    assert mdp_of(s) is s.spec
    algorithm = {
        "aging evolution": lambda: aging_evolution(s, population=3, tournament=2, batch=3),
        "q-learning": lambda: q_learning(mdp_of(s), ((1.0, 4), (0.5, 4)), replay=4, batch=3),
    }[name]()
    evaluator = train_from_scratch(chain_net(s, image=(4, 4, 1), classes=2), optax.adam(0.05), "vmap")
    strategy = black_box(algorithm, evaluator)
    y = jax.random.bernoulli(jax.random.key(1), 0.5, (40, 16)).astype(jnp.int32)
    x = y[..., None, None, None] + 0.3 * jax.random.normal(jax.random.key(2), (40, 16, 4, 4, 1))
    batch = Batch(train=(x, y), valid=(x[:4], y[:4]))
    step = jit(strategy.step)
    state = jit(strategy.init)(jax.random.key(3))
    for key in jax.random.split(jax.random.key(4), 2):
        state, info = step(key, state, batch)
        for actions in np.asarray(info.archs.action):
            states(s.spec, actions)
    assert state.best_score > 0.9
