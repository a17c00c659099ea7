"""Chains of layers as a space, and searches of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from jaxnas.ask_tell._genetic import genetic
from jaxnas.ask_tell._local_search import local_search
from jaxnas.ask_tell._policy_gradient import policy_gradient
from jaxnas.ask_tell._q_learning import mdp_of
from jaxnas.ask_tell._tpe import tpe
from jaxnas.base import Batch, black_box, stateless
from jaxnas.policies._categorical import categorical
from jaxnas.spaces._chain import chain
from jaxnas.spaces._every import every
from jaxnas.spaces._metaqnn import Layers, metaqnn
from jaxnas.spaces._nasbench201 import nasbench201

DRAWS = 1000


@functools.cache
def small():
    return chain(metaqnn(9, 6, filters=(2, 3), kernels=(1, 3), pools=((2, 2), (3, 2)), dense=(5, 4)))


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
    assert s.size == len(walks) == 160
    every = jit(jax.vmap(s.from_index))(jnp.arange(s.size))
    np.testing.assert_array_equal(every.action, walks)
    np.testing.assert_array_equal(jit(jax.vmap(s.index))(every), np.arange(s.size))


def test_all_chains_are_listed_in_the_order_of_their_index():
    s = tiny()
    rows = every(s)
    index = jit(jax.vmap(lambda v: s.index(s.unflat(v))))(jnp.asarray(rows))
    assert sorted(index.tolist()) == list(range(s.size)) and len(rows) == s.size
    np.testing.assert_array_equal(index, np.arange(s.size))


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
        (lambda: small().from_text("average | stop"), "'stop' is not a layer"),
        (lambda: small().from_text("pool 2 2"), "not allowed after 'the image'"),
        (lambda: small().from_text("conv 2 1 | pool 2 2 | pool 2 2"), "not allowed after 'conv 2 1 . pool 2 2'"),
        (lambda: chain(mdp_of(nasbench201())), "give the MDP of `metaqnn`"),
        (lambda: chain(metaqnn(8, 2)._replace(legal=metaqnn(8, 2).legal & (np.arange(20) > 0))), "without a legal action"),
        (
            lambda: policy_gradient(small(), categorical(small()), None),
            r"`update` of policy_gradient must be an update such as nas\.policies\.reinforce\(policy, optimizer\); got None",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Searches


def deep():
    return stateless(lambda key, archs, batch: {"accuracy": jnp.mean((archs.action > 0).astype(jnp.float32), -1)})


@pytest.mark.parametrize(
    "algorithm",
    [lambda s: genetic(s, population=8, batch=4), lambda s: tpe(s, capacity=20, initial=5), lambda s: local_search(s, capacity=40)],
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
