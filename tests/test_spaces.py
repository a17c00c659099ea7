"""Laws that every space obeys, and what is published about each."""

import functools
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from quick import jit
from scipy import stats

from jaxnas.spaces._darts import DARTS, KINDS, OPS, DARTSCell, darts
from jaxnas.spaces._darts_rnn import darts_rnn
from jaxnas.spaces._darts_subspace import darts_subspace
from jaxnas.spaces._elastic import ofa_small
from jaxnas.spaces._layerwise import layerwise
from jaxnas.spaces._macro import macro
from jaxnas.spaces._memory_bank import memory_bank
from jaxnas.spaces._mobile import MobileLayer, MobileSpec, mobile
from jaxnas.spaces._nasbench201 import expression, nasbench201, representatives
from jaxnas.spaces._recurrent import recurrent
from jaxnas.spaces._shuffle import ShuffleBlock, ShuffleSpec, shuffle
from jaxnas.spaces._space import space
from jaxnas.spaces._tabular import tabular
from jaxnas.spaces.blocks import amoebanet, nasnet, pnas
from jaxnas.spaces.enas import enas_macro, enas_micro, enas_rnn
from jaxnas.spaces.real import Real, polynomial_mutation, sbx
from jaxnas.trees import take

DRAWS = 1000


class Flat(NamedTuple):
    depth: np.ndarray
    width: np.ndarray


class Elastic(NamedTuple):
    depth: np.ndarray  # [5]
    kernel: np.ndarray  # [20]
    expand: np.ndarray  # [20]


def elastic():
    """Once for all's space: five units of depth 2, 3 or 4, every layer with one of 3 kernels and 3 expansions."""
    layer = np.arange(20)
    parent = np.concatenate([np.full(5, -1), layer // 4, layer // 4])
    reached = [[slot < 2 + depth for depth in range(3)] for slot in layer % 4]
    return space(
        Elastic(np.full(5, 3), np.full(20, 3), np.full(20, 3)),
        parent=parent,
        when=np.concatenate([np.ones((5, 3)), reached, reached]),
    )


def chained():
    """A grandchild is on only if its parent is: d2 wants d1 == 1, d1 wants d0 in {1, 2}; 1 + 2 * (1 + 4) settings, times 3."""
    when = np.zeros((4, 4), bool)
    when[1, 1:3] = when[2, 1] = True
    when[[0, 3]] = True
    return space(Flat(np.asarray([3, 2, 4]), np.asarray(3)), parent=[-1, 0, 1, -1], when=when)


SPACES = {
    "nasbench201": nasbench201,
    "nasbench201, edge-uniform": lambda: nasbench201(node_uniform=False),
    "darts": darts,
    "darts, small": lambda: darts(nodes=2, ops=("none", "skip_connect", "sep_conv_3x3")),
    "darts, no none": lambda: darts(nodes=2, ops=("skip_connect", "sep_conv_3x3")),
    "darts, S1": lambda: darts_subspace("S1"),
    "darts, S3": lambda: darts_subspace("S3"),
    "darts, S4": lambda: darts_subspace("S4", 2),
    "nasnet": lambda: nasnet(2),
    "pnas": lambda: pnas(3),
    "pnas, small": lambda: pnas(2, ("skip_connect", "nor_conv_3x3")),
    "amoebanet": lambda: amoebanet(3),
    "layerwise": lambda: layerwise(4),
    "layerwise, strides": lambda: layerwise(3, strides=(1, 2, 3)),
    "recurrent": lambda: recurrent(2),
    "darts_rnn": lambda: darts_rnn(3, ("tanh", "none", "relu")),
    "elastic net": lambda: ofa_small((4, 6), resolutions=(8, 6)),
    "enas macro": lambda: enas_macro(4),
    "enas micro": lambda: enas_micro(2),
    "enas rnn": lambda: enas_rnn(4),
    "memory bank": lambda: memory_bank(2, 3),
    "memory bank, groups and sizes": lambda: memory_bank(1, 2, blocks=2, groups=(1, 2), sizes=(1, 2, 4)),
    "mobile": lambda: mobile(
        MobileSpec((MobileLayer(4, 4, 1, ("k3_e1", "k5_e2", "zero")), MobileLayer(4, 8, 2, ("k3_e1", "k3_e2"))), 4, 8)
    ),
    "shuffle": lambda: shuffle(ShuffleSpec((ShuffleBlock(4, 8, 2), ShuffleBlock(8, 8, 1)), 4, 8, (0.5, 1.0, 1.5))),
    "shuffle, one width": lambda: shuffle(ShuffleSpec((ShuffleBlock(4, 8, 2), ShuffleBlock(8, 8, 1)), 4, 8, (1.0,))),
    "flat": lambda: space(Flat(np.asarray([2, 5, 3]), np.asarray(7))),
    "conditional": elastic,
    "conditional, chained": chained,
    "arity one": lambda: space(Flat(np.asarray([1, 4, 1]), np.asarray(2))),
    "macro": lambda: macro((8, 8, 1)),
    "macro, one stage": lambda: macro((4, 1, 2), stages=1, block=("inverted", "plain")),
    "tabular": lambda: tabular(4),
    "mixed": lambda: space(
        (3, 2), reals={"rate": Real(1e-4, 1e-1, log=True), "point": Real(np.asarray([-1.0, 2.0]), np.full(2, 4.0))}
    ),
    "reals": lambda: space(reals=Real(np.zeros(4), np.ones(4))),
}
EVERY = pytest.mark.parametrize("name", SPACES)
DISCRETE = pytest.mark.parametrize("name", [name for name, make in SPACES.items() if make().reals is None])


@functools.cache
def made(name):
    """A space of the table, one for all its laws, which share what is compiled."""
    return SPACES[name]()


PROGRAMS = {}


def programs(space):
    """(keys -> architectures, architectures -> flat, unit and active) of a space, each compiled once for a count of them."""
    if id(space) not in PROGRAMS:
        told = jit(lambda archs: (jax.vmap(space.flat)(archs), jax.vmap(space.unit)(archs), jax.vmap(space.active)(archs)))
        PROGRAMS[id(space)] = jit(jax.vmap(space.sample)), told, space  # which lives as long as its number
    return PROGRAMS[id(space)][:2]


def told(space, archs):
    return [np.asarray(a) for a in programs(space)[1](archs)]


def flats(space, archs):
    return told(space, archs)[0]


def units(space, archs):
    return told(space, archs)[1]


def actives(space, archs):
    return told(space, archs)[2]


def assert_legal(space, archs):
    v, u, on = told(space, archs)
    assert v.dtype == np.int32
    assert ((v >= 0) & (v < space.arity)).all()
    assert ((u >= 0) & (u <= 1)).all()
    assert (v[~on] == 0).all()  # an inactive decision has one value: equal networks, equal trees


def draws(space, n=DRAWS, key=None):
    """The first n of at least 1,000."""
    key = jax.random.key(0) if key is None else key
    return take(programs(space)[0](jax.random.split(key, max(n, DRAWS))), slice(n))


@EVERY
def test_samples_are_legal_and_reach_every_value(name):
    s = made(name)
    archs = draws(s)
    assert_legal(s, archs)
    v, on = flats(s, archs), actives(s, archs)
    for d, n in enumerate(s.arity):
        assert set(v[on[:, d], d]) == set(range(n))


@EVERY
def test_mutation_changes_exactly_one_active_decision_or_real(name):
    s = made(name)
    k_sample, k_mutate = jax.random.split(jax.random.key(0))
    archs = draws(s, key=k_sample)
    mutants = jit(jax.vmap(s.mutate))(jax.random.split(k_mutate, DRAWS), archs)
    assert_legal(s, mutants)
    differ = flats(s, archs) != flats(s, mutants)
    both = actives(s, archs) & actives(s, mutants)
    moved = units(s, archs) != units(s, mutants)  # a real may land where it was, by rounding
    changed = (differ & both).sum(1) + moved.sum(1)
    assert (changed <= 1).all()
    assert (changed == 1).all() if s.reals is None else (changed == 1).mean() > 0.99
    assert moved.any(0).all()
    assert (differ & both).any(0).tolist() == (s.arity > 1).tolist()  # and each decision is changed at some time


@EVERY
def test_crossover_takes_each_decision_from_a_parent(name):
    s = made(name)
    k_a, k_b, k_cross = jax.random.split(jax.random.key(0), 3)
    a, b = draws(s, key=k_a), draws(s, key=k_b)
    cross = jit(jax.vmap(s.crossover))
    children = cross(jax.random.split(k_cross, DRAWS), a, b)
    assert_legal(s, children)
    v, on = flats(s, children), actives(s, children)
    assert ((v == flats(s, a)) | (v == flats(s, b)) | ~on).all()
    assert ((units(s, children) == units(s, a)) | (units(s, children) == units(s, b))).all()
    same = cross(jax.random.split(jax.random.key(1), DRAWS), a, a)
    np.testing.assert_array_equal(flats(s, same), flats(s, a))


@DISCRETE
def test_neighbors_are_all_the_single_edits(name):
    s = made(name)
    archs = draws(s, n=8)
    table = jit(jax.vmap(s.neighbors))(archs)
    assert_legal(s, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), table))
    v, near = flats(s, archs), np.asarray(jit(jax.vmap(jax.vmap(s.flat)))(table))
    assert near.shape[1] == sum(s.arity - 1)
    decision = np.repeat(np.arange(len(s.arity)), s.arity - 1)
    shift = np.concatenate([np.arange(1, n) for n in s.arity])
    for row, (d, k) in enumerate(zip(decision, shift, strict=True)):
        on = actives(s, archs)[:, d]
        assert (near[on, row, d] == (v[on, d] + k) % s.arity[d]).all()
        assert (near[~on, row] == v[~on]).all()  # an edit of what is off is no edit
    if (s.arity > 1).all() and actives(s, archs).all():
        assert all(len(np.unique(near[i], axis=0)) == near.shape[1] for i in range(8))
        assert ((near != v[:, None]).sum(-1) == 1).all()


@DISCRETE
def test_gates_round_trip(name):
    s = made(name)
    archs = draws(s)
    gates = jit(jax.vmap(s.gates))(archs)
    shapes = jax.tree.map(lambda g: g.shape[1:], gates)
    assert shapes == s.gate_shapes
    for g in jax.tree.leaves(gates):
        assert g.dtype == jnp.float32
        assert set(np.unique(g)) <= {0.0, 1.0}
        assert (np.sum(g, -1) <= 1).all()
    np.testing.assert_array_equal(flats(s, jit(jax.vmap(s.derive))(gates)), flats(s, archs))


@EVERY
def test_text_round_trip(name):
    s = made(name)
    archs = draws(s, n=50)
    v = flats(s, archs)
    archs = jax.tree.map(np.asarray, archs)
    for i in range(50):
        arch = jax.tree.map(lambda a, i=i: a[i], archs)
        text = s.to_text(arch)
        again = s.from_text(text)
        np.testing.assert_array_equal(s.flat(again), v[i])
        np.testing.assert_array_equal(s.unit(again), s.unit(arch))
        assert jax.tree.structure(again) == jax.tree.structure(arch)
        assert s.to_text(again) == text


@EVERY
def test_features_are_one_hot_where_active(name):
    s = made(name)
    archs = draws(s, n=100)
    features = np.asarray(jit(jax.vmap(s.features))(archs))
    on = actives(s, archs)
    parts = np.split(features, np.cumsum(s.arity), axis=1)
    np.testing.assert_array_equal(parts.pop(), units(s, archs))
    for d, part in enumerate(parts):
        assert (part.sum(1) == on[:, d]).all()
        assert (part.argmax(1)[on[:, d]] == flats(s, archs)[on[:, d], d]).all()


@EVERY
def test_unflat_undoes_flat(name):
    s = made(name)
    arch = s.sample(jax.random.key(0))
    again = s.unflat(s.flat(arch), s.unit(arch))
    assert jax.tree.structure(again) == jax.tree.structure(arch)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), again, arch)


@pytest.mark.parametrize("name", [n for n, s in SPACES.items() if s().size < 20_000])
def test_index_round_trip_over_the_whole_space(name):
    s = made(name)
    raw = math.prod(map(int, s.arity))
    every = jax.vmap(s.from_index)(jnp.arange(raw))
    np.testing.assert_array_equal(jax.vmap(s.index)(every), np.arange(raw))
    np.testing.assert_array_equal(flats(s, every), np.stack(np.unravel_index(np.arange(raw), s.arity), -1))
    settled = jax.vmap(s.unflat)(jnp.where(actives(s, every), flats(s, every), 0))
    assert len(np.unique(flats(s, settled), axis=0)) == s.size


def test_published_sizes():
    assert nasbench201().size == 15_625
    assert darts().size == 1_037_664_180**2  # of each of two kinds
    for name in ("S1", "S2", "S3", "S4"):  # two predecessors a node, and one of two operations for each
        assert darts_subspace(name).size == (1 * 3 * 6 * 10 * 2**8) ** 2
    assert elastic().size == 7371**5
    assert chained().size == 3 * (1 + 2 * (1 + 4))


def test_reals_are_in_the_users_units():
    s = made("mixed")
    archs = draws(s, 10_000)
    rate, point = np.asarray(archs.reals["rate"]), np.asarray(archs.reals["point"])
    assert (rate >= np.float32(1e-4)).all() and (rate <= np.float32(1e-1)).all()
    assert (point >= [-1, 2]).all() and (point <= 4).all()
    assert abs(np.mean(rate < 10**-2.5) - 0.5) < 0.02  # half of the draws below the middle of the logarithmic scale
    np.testing.assert_allclose(point.mean(0), [1.5, 3], atol=0.05)
    for use in (lambda: s.index(s.sample(jax.random.key(0))), lambda: s.neighbors(s.sample(jax.random.key(0)))):
        with pytest.raises(ValueError, match="has real dimensions"):
            use()


def test_simulated_binary_crossover_is_debs():
    """Children straddle the parents evenly, and their spread beta has the density of the paper, cut at the bounds."""
    a, b, eta, n = 0.3, 0.6, 20.0, 200_000
    first, second = sbx(jax.random.key(0), jnp.full(n, a), jnp.full(n, b), eta, odds=1.0)
    low, high = np.minimum(first, second), np.maximum(first, second)
    beta = np.concatenate([(0.45 - low) / 0.15, (high - 0.45) / 0.15])
    # the bound: low reaches 0 at beta = 3, high reaches 1 at beta = 11 / 3; both tails there are below 1e-9
    assert abs(np.mean(beta <= 1) - 0.5) < 0.005
    for x in (0.9, 0.97):
        assert abs(np.mean(beta <= x) - 0.5 * x ** (eta + 1)) < 0.003
    for x in (1.05, 1.2):
        assert abs(np.mean(beta <= x) - (1 - 0.5 * x ** -(eta + 1))) < 0.003
    edge, other = sbx(jax.random.key(1), jnp.full(n, 0.0), jnp.full(n, 0.5), eta, odds=1.0)
    assert (np.minimum(edge, other) >= 0).all()
    kept = sbx(jax.random.key(2), jnp.full(n, a), jnp.full(n, b), eta, odds=0.5)
    assert abs(np.mean(np.asarray(kept[0]) == np.float32(a)) - 0.5) < 0.005


def test_polynomial_mutation_is_debs():
    """P(delta <= d) inverts the formula: for d < 0 and x = 1/2 at eta = 20, u = ((1 + d)^21 - q) / (2 (1 - q)), q = 2^-21."""
    n, eta, q = 200_000, 20.0, 0.5**21
    delta = np.asarray(polynomial_mutation(jax.random.key(0), jnp.full(n, 0.5), eta)) - 0.5
    assert (np.abs(delta) <= 0.5).all()
    for d in (-0.2, -0.05, -0.01):
        assert abs(np.mean(delta <= d) - ((1 + d) ** (eta + 1) - q) / (2 * (1 - q))) < 0.003
        assert abs(np.mean(delta >= -d) - ((1 + d) ** (eta + 1) - q) / (2 * (1 - q))) < 0.003
    at_bound = np.asarray(polynomial_mutation(jax.random.key(1), jnp.zeros(n), eta))
    assert (at_bound >= 0).all() and abs(np.mean(at_bound > 0) - 0.5) < 0.005


def test_index_refuses_a_space_that_is_too_large():
    with pytest.raises(ValueError, match="fewer than 2\\*\\*31"):
        darts().index(darts().sample(jax.random.key(0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(decisions=()), "at least one decision or real"),
        (dict(reals=Real(1.0, 0.0)), "low < high"),
        (dict(reals=Real(0.0, 1.0, log=True)), "positive bounds"),
        (dict(reals=(0.0, 1.0)), "given as Real"),
        (dict(decisions=(2, 0)), r"`decisions` must be positive integers below 2\*\*31, how many values each has; got 0"),
        (dict(decisions=(2, 3), parent=[1, -1]), "comes before it"),
        (dict(decisions=(2, 3), parent=[-1]), "comes before it"),
        (dict(decisions=(2, 3), gates=lambda arch: arch), "together"),
    ],
)
def test_a_bad_space_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        space(**arguments)


# NAS-Bench-201


def test_nasbench201_has_24_distinct_neighbors():
    s = nasbench201()
    near = jax.jit(jax.vmap(s.neighbors))(draws(s, n=100))
    index = np.asarray(jax.vmap(jax.vmap(s.index))(near))
    assert index.shape == (100, 24)
    assert all(len(set(row)) == 24 for row in index.tolist())


def test_nasbench201_has_6466_classes():
    classes = representatives()
    assert len(np.unique(classes)) == 6466
    np.testing.assert_array_equal(classes[classes], classes)  # a representative stands for itself


@nb201_file.needs_file
def test_nasbench201_classes_are_the_published_partition():
    data = nb201_file.load()
    s = nasbench201()
    index = np.asarray(jax.vmap(lambda v: s.index(s.unflat(v)))(jnp.asarray(data["ops"], jnp.int32)))
    pairs = np.unique(np.stack([representatives()[index], data["iso_class"]], -1), axis=0)
    assert len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == 6466


def test_nasbench201_canonical_is_one_cell_of_the_class():
    s = nasbench201()
    archs = draws(s, n=200)
    canonical = jax.jit(jax.vmap(s.canonical))(archs)
    again = jax.vmap(s.canonical)(canonical)
    jax.tree.map(np.testing.assert_array_equal, again, canonical)
    assert [expression(v) for v in flats(s, archs)] == [expression(v) for v in flats(s, canonical)]


@pytest.mark.parametrize(("node_uniform", "odds"), [(True, [1 / 3, 1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9]), (False, [1 / 6] * 6)])
def test_nasbench201_mutation_odds(node_uniform, odds):
    s, n = nasbench201(node_uniform), 20_000
    arch = s.unflat(jnp.asarray([0, 1, 2, 3, 4, 0], jnp.int32))
    mutants = jax.jit(jax.vmap(s.mutate, (0, None)))(jax.random.split(jax.random.key(0), n), arch)
    differ = flats(s, mutants) != np.asarray(s.flat(arch))
    assert stats.chisquare(differ.sum(0), np.asarray(odds) * n).pvalue > 0.001
    for e in range(6):  # the four other operations of an edge are equally likely
        to = flats(s, mutants)[differ[:, e], e]
        counts = np.delete(np.bincount(to, minlength=5), np.asarray(arch.op)[e])
        assert stats.chisquare(counts).pvalue > 0.001


def test_samples_are_uniform():
    s, n = nasbench201(), 20_000
    v = flats(s, draws(s, n=n))
    assert min(stats.chisquare(np.bincount(v[:, e], minlength=5)).pvalue for e in range(6)) > 0.001


def test_nasbench201_text_is_the_published_form():
    s = nasbench201()
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    arch = s.from_text(text)
    np.testing.assert_array_equal(arch.op, [4, 2, 1, 2, 1, 1])
    assert s.to_text(arch) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|none~0|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~1|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|conv~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+|none~0|",
        "|none~0|none~0|none~1|none~0|none~1|none~2|",
        "|none~x|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none~0~7|+|none~0|none~1|+|none~0|none~1|none~2|",
    ],
)
def test_nasbench201_refuses_other_texts(text):
    with pytest.raises(ValueError, match=r"not a NAS-Bench-201 cell.*nor_conv_3x3"):
        nasbench201().from_text(text)


# DARTS

SHORT = {"sep3": "sep_conv_3x3", "dil3": "dil_conv_3x3", "skip": "skip_connect", "max": "max_pool_3x3", "avg": "avg_pool_3x3"}
V1 = {
    "normal": "sep3 1 sep3 0 skip 0 sep3 1 skip 0 sep3 1 sep3 0 skip 2",
    "reduce": "max 0 max 1 skip 2 max 0 max 0 skip 2 skip 2 avg 0",
}
V2 = {
    "normal": "sep3 0 sep3 1 sep3 0 sep3 1 sep3 1 skip 0 skip 0 dil3 2",
    "reduce": "max 0 max 1 skip 2 max 1 max 0 skip 2 skip 2 max 1",
}


@pytest.mark.parametrize(("name", "published"), [("DARTS_V1", V1), ("DARTS_V2", V2)])
def test_darts_published_genotypes(name, published):
    s = darts()
    arch = s.from_text(name)
    for kind, words in published.items():
        entries = [(SHORT[op], int(j)) for op, j in zip(words.split()[::2], words.split()[1::2], strict=True)]
        gates = np.asarray(getattr(s.gates(arch), kind))
        assert gates.shape == (14, 8)
        chosen = {(e, OPS[g.argmax()]) for e, g in enumerate(gates) if g[1:].any()}
        assert chosen == {(s.spec.first(n // 2) + j, op) for n, (op, j) in enumerate(entries)}
        assert (gates.sum(1) == 1).all()  # an absent edge is `none`
    np.testing.assert_array_equal(s.flat(s.from_text(s.to_text(arch))), s.flat(arch))


def soft(alpha):
    """The gates of a search with the same architecture parameters for both kinds."""
    return DARTS(*[jax.nn.softmax(jnp.asarray(alpha, jnp.float32))] * 2)


def test_darts_never_derives_none():
    s = darts()
    alpha = np.array(jax.random.normal(jax.random.key(0), (14, 8)))
    alpha[:, 0] = 10.0  # `none` is the largest everywhere
    arch = s.derive(soft(alpha))
    assert "none" not in s.to_text(arch)
    real = alpha[:, 1:]
    for i in range(4):
        edges = slice(s.spec.first(i), s.spec.first(i) + 2 + i)
        weight = np.asarray(jax.nn.softmax(alpha))[edges, 1:].max(1)
        two = np.sort(np.argsort(-weight)[:2])
        np.testing.assert_array_equal(arch.normal.op[i], real[edges][two].argmax(1))


def test_the_edges_of_s1_have_two_operations_each():
    cells = darts_subspace("S1")
    soft = DARTS(*jax.random.uniform(jax.random.key(0), (2, 200, 14, 6)))
    archs = jax.vmap(cells.derive)(soft)
    for kind in KINDS:
        on = getattr(cells.open, kind)
        assert on.shape == (14, 6) and (on.sum(-1) == 2).all()
        for gates in (jax.vmap(cells.gates)(archs), jax.vmap(lambda k: cells.gates(cells.sample(k)))(split(1, 500))):
            found = np.asarray(getattr(gates, kind)).any(0)
            assert (found == on).all()  # all of them, and no other
    arch = jax.tree.map(lambda a: a[0], archs)
    strong = np.where(cells.open.normal, np.asarray(soft.normal[0]), -1)
    kept = np.asarray(cells.gates(arch).normal)
    assert all(strong[e].argmax() == kept[e].argmax() for e in range(14) if kept[e].any())
    with pytest.raises(ValueError, match="'sep_conv_3x3' is not one of skip_connect, dil_conv_3x3"):
        cells.from_text(darts_subspace("S2").to_text(darts_subspace("S2").from_text(S2_TEXT)))
    with pytest.raises(ValueError, match="at most 4"):
        darts_subspace("S1", 5)


S2_TEXT = "Genotype(normal={0}, normal_concat=[2, 3, 4, 5], reduce={0}, reduce_concat=[2, 3, 4, 5])".format(
    [("sep_conv_3x3", j) for _ in range(4) for j in range(2)]
)


def split(seed, n):
    return jax.random.split(jax.random.key(seed), n)


def test_darts_keeps_the_two_strongest_edges_by_softmax():
    s = darts(nodes=2, ops=("none", "skip_connect", "sep_conv_3x3"))
    weights = np.asarray([[0.1, 0.5, 0.4], [0.1, 0.2, 0.7], [0.3, 0.1, 0.6], [0.5, 0.4, 0.1], [0.2, 0.3, 0.5]], np.float32)
    arch = s.derive(DARTS(jnp.asarray(weights), jnp.asarray(weights)))
    # node 0 has two edges; node 1 keeps edges from 0 (sep, 0.6) and 2 (sep, 0.5), not from 1 (skip, 0.4)
    np.testing.assert_array_equal(arch.normal.op, [[0, 1], [1, 1]])
    np.testing.assert_array_equal(arch.normal.pair, [0, 1])
    # the raw parameters of the strongest edge may be the smallest: only the softmax counts
    shifted = np.log(weights) + np.asarray([0.0, 0.0, -9.0, 5.0, -9.0], np.float32)[:, None]
    again = s.derive(soft(shifted))
    jax.tree.map(np.testing.assert_array_equal, again, arch)


def test_darts_ties_go_to_the_lowest_index():
    s = darts()
    arch = s.derive(DARTS(jnp.full((14, 8), 0.125), jnp.full((14, 8), 0.125)))
    jax.tree.map(lambda a: np.testing.assert_array_equal(a, np.zeros_like(a)), arch)
    assert "('max_pool_3x3', 0), ('max_pool_3x3', 1)" in s.to_text(arch)


def test_darts_reads_a_node_in_either_order():
    s = darts(nodes=1)
    one = s.from_text(
        "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0)], reduce=[('skip_connect', 0), ('sep_conv_3x3', 1)])"
    )
    jax.tree.map(np.testing.assert_array_equal, one.normal, one.reduce)
    np.testing.assert_array_equal(one.normal.op, [[2, 3]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a DARTS genotype"),
        ("DARTS_V3", "not a DARTS genotype.*DARTS_V2"),
        ("Genotype(normal=[('skip_connect', 0), ('skip_connect', 1)])", "not a DARTS genotype"),
        ("normal=[('skip_connect', 0), ('skip_connect', 1)], reduce=[('skip_connect', 0)]", "1 entries, not 2"),
        (
            "normal=[('skip_connect', 0), ('skip_connect', 0)], reduce=[('skip_connect', 0), ('skip_connect', 1)]",
            "two different",
        ),
        ("normal=[('skip_connect', 0), ('skip_connect', 2)], reduce=[('skip_connect', 0), ('skip_connect', 1)]", "below 2"),
        (
            "normal=[('skip_connect', 0), ('skip_connect', -1)], reduce=[('skip_connect', 0), ('skip_connect', 1)]",
            "below 2",
        ),
        (
            "normal=[('none', 0), ('skip_connect', 1)], reduce=[('skip_connect', 0), ('skip_connect', 1)]",
            "'none' is not one of",
        ),
        (
            "normal=[('conv', 0), ('skip_connect', 1)], reduce=[('skip_connect', 0), ('skip_connect', 1)]",
            "'conv' is not one of",
        ),
        ("normal=[('skip_connect', None), ('skip_connect', 1)], reduce=[]", "not a DARTS genotype"),
        ("normal=[1, 2], reduce=[]", "not a DARTS genotype"),
    ],
)
def test_darts_refuses_other_texts(text, message):
    with pytest.raises(ValueError, match=message):
        darts(nodes=1).from_text(text)


@pytest.mark.parametrize("arguments", [dict(nodes=0), dict(ops=("none",)), dict(ops=())])
def test_darts_refuses_an_empty_space(arguments):
    with pytest.raises(ValueError, match=r"must be a positive integer; got 0|at least one node and one operation"):
        darts(**arguments)


# Any text at all

READERS = {name: SPACES[name]() for name in ("nasbench201", "darts, small", "flat", "conditional", "mixed")}
WORDS = "none skip_connect ('skip_connect',0) ('none',1) Genotype( normal=[ reduce=[ 1e9 99999999999999999999 1-1;0.01,0 nan inf"
PIECES = st.sampled_from([*WORDS.split(), *"~|+-0129²٣()[]', =;\\\n\0"])


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join)))
@example(text="99999999999999999999-1-1-1")
@example(text="²-1-1-1")
@example(text="1-1;nan,0,3")
@example(text="1-1;0.01,0,3,")
@example(text=f"normal={'[' * 300}], reduce=[]")
@example(text=f"normal={'[' * 100_000}], reduce=[]")
@example(text="normal=[('skip_connect', 1e999)], reduce=[('skip_connect', 1)]")
def test_from_text_raises_nothing_but_value_errors(name, text):
    s = READERS[name]
    try:
        arch = s.from_text(text)
    except ValueError:
        return
    assert_legal(s, jax.tree.map(lambda a: a[None], arch))


def test_from_text_of_the_default_form():
    s = SPACES["flat"]()
    np.testing.assert_array_equal(s.flat(s.from_text("1-4-0-6")), [1, 4, 0, 6])
    for text in ("1-4-0", "1-4-0-7", "1-4-0-6-0", "-1-4-0-6", "a-b-c-d", ""):
        with pytest.raises(ValueError, match="4 numbers joined by '-', at most 1-4-2-6"):
            s.from_text(text)


def test_darts_cells_are_named():
    assert darts().spec.kinds == KINDS == DARTS._fields
    assert DARTSCell._fields == ("op", "pair")
