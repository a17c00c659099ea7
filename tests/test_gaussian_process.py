"""Bayesian optimisation: the Gaussian process, its kernels, the acquisitions, and whole searches on the real table."""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import pytest
import quick
from scipy import integrate, linalg, stats
from searching import MIXED, TOY, asked, mixed_score, program, run_seeds
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sklearn_kernels

from jaxnas.ask_tell._bayesian import bayesian, log_error, mutants_of_best, neighbors_of_best, pool, random_draws, standardise
from jaxnas.ask_tell._random_search import random_search
from jaxnas.ask_tell.history import leaders
from jaxnas.base import Batch, black_box, stateless
from jaxnas.evaluate._table import rows, table
from jaxnas.spaces._darts import DARTS, DARTSCell, darts
from jaxnas.spaces._nasbench201 import OPS, nasbench201, representatives
from jaxnas.spaces._space import Mixed, space
from jaxnas.spaces.real import Real
from jaxnas.surrogates._gaussian_process import cholesky, gaussian_process, solve
from jaxnas.surrogates.acquisition import expected_improvement, independent_thompson, thompson, upper_confidence_bound
from jaxnas.surrogates.kernels import (
    cell_graph,
    gram,
    lengths,
    matern52,
    overlap,
    path_encoding,
    product,
    rbf,
    subtree_labels,
    weisfeiler_lehman,
)
from jaxnas.surrogates.surrogate import Posterior, Surrogate

NB201 = nasbench201()
TREE = space(
    (3, 2, 4), parent=[-1, 0, 1], when=[[1, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0]]
)  # decision 1 is on for 1 and 2 of decision 0, decision 2 for 1 of decision 1


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def samples(s, n, seed=0):
    rng = np.random.default_rng(seed)
    v, u = jnp.asarray(rng.integers(0, s.arity, (n, len(s.arity))), jnp.int32), jnp.asarray(rng.uniform(size=(n, 2)), jnp.float32)
    return jax.vmap(lambda v, u: s.crossover(jax.random.key(0), s.unflat(v, u), s.unflat(v, u)))(v, u)  # which settles them


def same_bits(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


# The factor and its solves


@pytest.mark.parametrize("n", [1, 20, 57, 330])
def test_cholesky_and_solve_by_blocks(x64, n):
    rng = np.random.default_rng(n)
    half = rng.normal(size=(n, n))
    k, right = half @ half.T / n + 0.1 * np.eye(n), rng.normal(size=(n, 3))
    factor = quick.jit(cholesky)(k)
    lower = np.linalg.cholesky(k)
    np.testing.assert_allclose(factor.lower, lower, atol=1e-10)
    np.testing.assert_allclose(solve(factor, right), linalg.solve_triangular(lower, right, lower=True), atol=1e-9)


# The process


def line(length=(0.2, 0.5, 1.0)):
    """A kernel whose architectures are points: float [F]."""
    return rbf(lambda a: a, length)


def problem(n=10, capacity=16, seed=0):
    """Points, values and a mask that scatters n of them over the capacity; what is not told holds rubbish."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(capacity, bool)
    mask[rng.permutation(capacity)[:n]] = True
    x, y = rng.uniform(size=(capacity, 2)), rng.normal(size=capacity)
    return jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask)


def dense(k, y, v):
    """Mean, scale and log likelihood by the textbook's formulas, inverse and determinant and all."""
    n, inverse, one = len(y), np.linalg.inv(k + v * np.eye(len(y))), np.ones(len(y))
    mean = one @ inverse @ y / (one @ inverse @ one)
    s2 = (y - mean) @ inverse @ (y - mean) / n
    covariance = s2 * (k + v * np.eye(n))
    return mean, np.sqrt(s2), stats.multivariate_normal(np.full(n, mean), covariance).logpdf(y)


def squared_exponential(a, b, length):
    return np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1) / length**2)


def fitted(surrogate, x, y, mask):
    return quick.jit(lambda x, y, mask: surrogate.fit(jax.random.key(0), None, x, y, mask))(x, y, mask)


def test_the_posterior_is_that_of_a_dense_reference(x64):
    x, y, mask = problem()
    grid, noises = [0.2, 0.5, 1.0], [1e-3, 1e-1]
    surrogate = gaussian_process(line(grid), noises)
    model = fitted(surrogate, x, y, mask)
    xs, ys = np.asarray(x)[mask], np.asarray(y)[mask]
    every = [dense(squared_exponential(xs, xs, g), ys, v) for g in grid for v in noises]
    best = int(np.argmax([likelihood for _, _, likelihood in every]))
    assert int(model.row) == best
    mean, scale, likelihood = every[best]
    np.testing.assert_allclose([model.mean, model.scale, model.log_likelihood], [mean, scale, likelihood], atol=1e-8)
    length, v = grid[best // 2], noises[best % 2]
    new = np.random.default_rng(1).uniform(size=(50, 2))
    inverse = np.linalg.inv(squared_exponential(xs, xs, length) + v * np.eye(10))
    k = squared_exponential(new, xs, length)
    found_mean, found_std = quick.jit(surrogate.predict)(model, jnp.asarray(new))
    np.testing.assert_allclose(found_mean, mean + k @ inverse @ (ys - mean), atol=1e-8)
    np.testing.assert_allclose(found_std, scale * np.sqrt(1 - np.einsum("ij,jk,ik->i", k, inverse, k)), atol=1e-8)


def test_the_posterior_is_that_of_scikit_learn(x64):
    x, y, mask = problem(n=12)
    surrogate = gaussian_process(line(0.4), 1e-2)
    model = fitted(surrogate, x, y, mask)
    xs, ys, new = np.asarray(x)[mask], np.asarray(y)[mask], np.random.default_rng(1).uniform(size=(20, 2))
    other = GaussianProcessRegressor(sklearn_kernels.RBF(0.4, "fixed"), alpha=1e-2, optimizer=None).fit(xs, ys - float(model.mean))
    mean, std = other.predict(new, return_std=True)
    found = surrogate.predict(model, jnp.asarray(new))
    np.testing.assert_allclose(found[0], model.mean + mean, atol=1e-8)
    np.testing.assert_allclose(found[1], model.scale * std, atol=1e-8)


def test_what_was_not_told_changes_nothing(x64):
    x, y, mask = problem()
    surrogate = gaussian_process(line())
    new = jnp.asarray(np.random.default_rng(1).uniform(size=(20, 2)))
    belief = quick.jit(lambda x, y, mask: surrogate.predict(surrogate.fit(jax.random.key(0), None, x, y, mask), new))
    first = belief(x, y, mask)
    other = belief(jnp.where(mask[:, None], x, 7.0), jnp.where(mask, y, -99.0), mask)
    longer = [jnp.concatenate([a, jnp.ones((30, *a.shape[1:]), a.dtype)]) for a in (x, y)]
    longer = belief(*longer, jnp.concatenate([mask, jnp.zeros(30, bool)]))
    same_bits(first, other)
    np.testing.assert_allclose(first, longer, atol=1e-10)


def test_without_noise_the_posterior_interpolates(x64):
    x, y, mask = problem()
    off, std = {}, {}
    for noise in (1e-2, 1e-5, 0.0):
        surrogate = gaussian_process(line(0.3), noise)
        mean, deviation = surrogate.predict(fitted(surrogate, x, y, mask), x)
        off[noise], std[noise] = np.abs(mean - y)[mask].max(), np.asarray(deviation)[mask].max()
    assert off[1e-2] > 10 * off[1e-5] > 100 * off[0.0]
    assert off[0.0] < 1e-8
    assert std[0.0] < 1e-5
    assert (np.asarray(deviation)[~np.asarray(mask)] > 1e-3).all()


def test_float32_survives_equal_architectures_without_noise():
    """K of equal rows is singular: the jitter alone must carry it, whatever the length scale."""
    archs = jax.tree.map(lambda a: jnp.repeat(a, 8, 0), samples(NB201, 5))
    y, told = jnp.repeat(jnp.linspace(-1, 1, 5), 8), jnp.ones(40, bool)
    kernel = overlap(NB201)

    @quick.jit
    @jax.vmap
    def found(length):
        surrogate = gaussian_process(kernel._replace(grid=length[None]), 0.0)
        return surrogate.predict(surrogate.fit(jax.random.key(0), None, archs, y, told), archs)

    mean, std = found(jnp.asarray([1e-2, 1.0, 1e2, 1e4]))
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    np.testing.assert_allclose(mean[:2], np.stack([y, y]), atol=0.02)


def test_a_process_that_was_told_little():
    """Nothing, one score, or equal scores: the prior's scale stands, and nothing is NaN."""
    surrogate, archs, new = gaussian_process(overlap(TOY)), samples(TOY, 8), samples(TOY, 24, 1)
    belief = lambda told: surrogate.predict(surrogate.fit(jax.random.key(0), None, archs, jnp.zeros(8), jnp.arange(8) < told), new)
    mean, std = quick.jit(jax.vmap(belief))(jnp.asarray([0, 1, 2, 5]))
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    assert (np.isfinite(std) & (np.asarray(std) <= 1)).all()
    np.testing.assert_array_equal(std[0], 1)


def test_the_grid_is_chosen_by_the_marginal_likelihood():
    """Scores that are a sum over decisions want a long length, scores like noise a short one."""
    archs, told = samples(NB201, 40), jnp.ones(40, bool)
    surrogate = gaussian_process(overlap(NB201, [0.1, 8.0]))
    y = jnp.asarray([np.asarray(archs.op == 3).sum(1), np.random.default_rng(0).normal(size=40)], jnp.float32)
    fit = lambda y: surrogate.fit(jax.random.key(0), None, archs, standardise(y, told), told).row
    assert quick.jit(jax.vmap(fit))(y).tolist() == [1, 0]


def test_joint_draws_have_the_posterior_mean_and_covariance():
    """Independent draws miss the correlations, the mean misses the deviations."""
    rng = np.random.default_rng(0)
    x, y, n = rng.uniform(size=(6, 2)), rng.normal(size=6), 20_000
    new = np.concatenate([rng.uniform(size=(4, 2)), [[0.5, 0.5], [0.5, 0.5]]])  # the last two are one
    surrogate = gaussian_process(line(0.4))
    model = fitted(surrogate, *(jnp.asarray(a, jnp.float32) for a in (x, y)), jnp.ones(6, bool))
    draw = quick.jit(jax.vmap(lambda key: surrogate.draw(key, model, jnp.asarray(new, jnp.float32))))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), n)), np.float64)
    inverse = np.linalg.inv(squared_exponential(x, x, 0.4) + 1e-2 * np.eye(6))
    k = squared_exponential(new, x, 0.4)
    mean = float(model.mean) + k @ inverse @ (y - float(model.mean))
    covariance = float(model.scale) ** 2 * (squared_exponential(new, new, 0.4) - k @ inverse @ k.T)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((drawn.mean(0) - mean) / sd, 0, atol=4 / np.sqrt(n))
    np.testing.assert_allclose(np.cov(drawn.T) / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=0.05)
    assert np.corrcoef(drawn[:, 4], drawn[:, 5])[0, 1] > 0.99


@pytest.mark.parametrize("noise", [-1e-3, np.nan, [1e-2, np.inf], []])
def test_a_process_refuses(noise):
    with pytest.raises(ValueError, match="the noise is a variance"):
        gaussian_process(line(), noise)


# Kernels


def between(kernel, archs):
    """float64[G, N, N]: k of all pairs, for every row of the grid."""

    @quick.jit
    def grams(archs):
        features = jax.vmap(kernel.features)(archs)
        return jax.vmap(lambda theta: gram(kernel, theta, features, features))(jax.tree.map(jnp.asarray, kernel.grid))

    return np.asarray(grams(archs), np.float64)


def kernels(name):
    return {
        "overlap": (TREE, overlap(TREE)),
        "paths": (NB201, rbf(path_encoding(NB201), lengths(1, 4, 3))),
        "one-hot": (TREE, matern52(TREE.features, [1.0, 3.0])),
        "mixed": (MIXED, product(overlap(MIXED, [0.5, 2.0]), matern52(MIXED.unit, [0.2, 0.5, 1.0]))),
        "subtrees": (NB201, weisfeiler_lehman(cell_graph(NB201))),
        "subtrees of two cells": (darts(), weisfeiler_lehman(cell_graph(darts()))),
    }[name]


@pytest.mark.parametrize("name", ["overlap", "paths", "one-hot", "mixed", "subtrees", "subtrees of two cells"])
def test_a_kernel_is_a_positive_correlation(x64, name):
    s, kernel = kernels(name)
    for k in between(kernel, samples(s, 60)):
        np.testing.assert_allclose(np.diag(k), 1, atol=1e-12)
        np.testing.assert_allclose(k, k.T, atol=1e-12)
        assert np.linalg.eigvalsh(k).min() > -1e-8
        assert (k >= 0).all()
        assert (k <= 1 + 1e-12).all()
        assert k.std() > 0


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [
        ((0, 0, 0), (0, 0, 0), 0),
        ((0, 0, 0), (1, 0, 0), 2),  # decision 1 is off in the first: it differs from every value
        ((1, 0, 0), (2, 0, 0), 1),
        ((1, 0, 0), (1, 1, 0), 2),  # decision 2 comes on
        ((1, 1, 3), (2, 1, 0), 2),
        ((0, 0, 0), (1, 1, 3), 3),
    ],
)
def test_overlap_counts_active_decisions_that_differ(a, b, apart):
    k = between(overlap(TREE, [2.0]), jax.vmap(TREE.unflat)(jnp.asarray([a, b], jnp.int32)))
    assert k[0, 0, 1] == pytest.approx(np.exp(-apart / 2), rel=1e-6)


def test_matern_and_rbf_by_scikit_learn():
    x = np.random.default_rng(0).uniform(size=(8, 3)).astype(np.float32)
    for make, other in ((rbf, sklearn_kernels.RBF(0.7)), (matern52, sklearn_kernels.Matern(0.7, nu=2.5))):
        kernel = make(lambda a: a, 0.7)
        np.testing.assert_allclose(gram(kernel, kernel.grid[0], x, x), other(x), atol=1e-6)


def test_the_grid_of_a_product_holds_every_combination():
    kernel = product(overlap(MIXED, [0.5, 2.0]), matern52(MIXED.unit, [0.2, 0.5, 1.0]))
    assert sorted(zip(*(g.tolist() for g in kernel.grid), strict=True)) == list(itertools.product([0.5, 2.0], [0.2, 0.5, 1.0]))
    archs = samples(MIXED, 4)
    decisions, reals = between(overlap(MIXED, [0.5, 2.0]), archs), between(matern52(MIXED.unit, [0.2, 0.5, 1.0]), archs)
    np.testing.assert_allclose(between(kernel, archs), np.concatenate([d * reals for d in decisions]), rtol=1e-5)


@functools.cache
def every_cell():
    return jax.vmap(NB201.from_index)(jnp.arange(5**6))


def test_path_encoding_of_every_cell():
    """8,045 distinct codes, as published with the reference; single cells by walking their paths."""
    codes = np.asarray(quick.jit(jax.vmap(path_encoding(NB201)))(every_cell()))
    assert codes.shape == (15_625, 84)
    assert set(np.unique(codes)) == {0, 1}
    assert len(np.unique(codes, axis=0)) == 8_045
    real = [name for name in OPS if name != "none"]
    order = [p for n in (1, 2, 3) for p in itertools.product(real, repeat=n)]
    routes = [(3,), (0, 4), (1, 5), (0, 2, 5)]  # edges 0->1, 0->2, 1->2, 0->3, 1->3, 2->3
    for i in np.random.default_rng(0).integers(0, 5**6, 200):
        names = [OPS[k] for k in np.unravel_index(i, (5,) * 6)]
        walked = {tuple(names[e] for e in route) for route in routes}
        assert {order[j] for j in np.flatnonzero(codes[i])} == {p for p in walked if "none" not in p}


@functools.cache
def hashed():
    """(uint32[15625, 4, V] labels, int32[15625, V] copies) of every cell."""
    graph = cell_graph(NB201)
    labels, copies = quick.jit(jax.vmap(lambda a: (subtree_labels(graph(a), 3), graph(a).copies)))(every_cell())
    return np.asarray(labels), np.asarray(copies)


@functools.cache
def classes(rounds):
    """int[15625]: which cells have the same features up to so many rounds."""
    labels, copies = hashed()
    names, out = {}, []
    for i in range(len(labels)):
        counted = np.repeat(labels[i, : rounds + 1], copies[i], axis=1)
        out.append(names.setdefault(np.sort(counted, 1).tobytes(), len(names)))
    return np.asarray(out)


@nb201_file.needs_file
@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_subtree_features_are_constant_inside_every_isomorphism_class(rounds):
    data = nb201_file.load()
    ours = classes(rounds)[np.ravel_multi_index(tuple(data["ops"].T.astype(int)), (5,) * 6)]
    _, first, of = np.unique(data["iso_class"], return_index=True, return_inverse=True)
    assert len(first) == 6_466
    np.testing.assert_array_equal(ours, ours[first][of])


def test_the_number_of_distinct_subtree_features():
    """From two rounds on as many as there are networks: 4,930, as the texts without their `none` terms."""
    assert [classes(rounds).max() + 1 for rounds in range(4)] == [120, 4_561, 4_930, 4_930]


def subtrees(ops, rounds):
    """The features by the book: nested tuples in place of hashes, of the cell written out as a tree."""

    def terms(node):  # what a node adds up: (operation, the node it reads)
        out = []
        for source in range(node):
            name = OPS[ops[{(0, 1): 0, (0, 2): 1, (1, 2): 2, (0, 3): 3, (1, 3): 4, (2, 3): 5}[source, node]]]
            below = [("input", None)] if source == 0 else terms(source)
            out += below if name == "skip_connect" else [(name, source)] if name != "none" and below else []
        return out

    def label(op, read, t):
        if op == "input":
            return "input"
        heard = [("input", None)] if read == 0 else terms(read)
        return (op,) if t == 0 else (label(op, read, t - 1), tuple(sorted(map(repr, (label(*h, t - 1) for h in heard)))))

    def unfold(op, read):
        if op == "input":
            return
        yield op, read
        for below in terms(read) if read else []:
            yield from unfold(*below)

    nodes = [node for term in [("output", 3)] for node in unfold(*term)]
    return [collections.Counter(label(*node, t) for node in nodes) for t in range(rounds + 1)]


def test_hashed_features_are_those_of_exact_relabelling():
    labels, copies = hashed()
    exact = {}
    for i in np.unique(representatives())[::8]:
        for t, counts in enumerate(subtrees([int(k) for k in np.unravel_index(i, (5,) * 6)], 3)):
            ours = collections.Counter(np.repeat(labels[i, t], copies[i]).tolist())
            assert sorted(ours.values()) == sorted(counts.values())
            exact.setdefault((t, frozenset(counts.items())), set()).add(frozenset(ours.items()))
    assert all(len(found) == 1 for found in exact.values())
    for t in range(4):  # and no two of them are one
        found = [next(iter(v)) for (round_, _), v in exact.items() if round_ == t]
        assert len(set(found)) == len(found)


def test_the_subtree_kernel_is_the_normalised_count_of_equal_subtrees():
    kernel = weisfeiler_lehman(cell_graph(NB201))
    cells = [[3, 2, 1, 0, 4, 3], [3, 3, 1, 2, 2, 0], [1, 3, 0, 3, 2, 4]]
    found = between(kernel, jax.vmap(NB201.unflat)(jnp.asarray(cells, jnp.int32)))
    features = [subtrees(ops, 3) for ops in cells]
    dot = lambda a, b, h: sum(sum(n * b[t][name] for name, n in a[t].items()) for t in range(h + 1))
    want = [[[dot(a, b, h) / np.sqrt(dot(a, a, h) * dot(b, b, h)) for b in features] for a in features] for h in range(4)]
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_the_graph_of_two_cells():
    """Computed nodes 0 and 1 of a DARTS cell may change places; the normal and the reduction cell may not."""
    s = darts()
    cell = lambda op, pair: DARTSCell(jnp.asarray(op, jnp.int32), jnp.asarray(pair, jnp.int32))
    plain = cell([[2, 3], [4, 3], [2, 2], [3, 5]], [0, 0, 1, 0])  # node 2 reads input 0 and node 0
    other = cell([[4, 3], [2, 3], [2, 2], [3, 5]], [0, 0, 2, 0])  # node 2 reads input 0 and node 1: the same
    wrong = cell([[4, 3], [2, 3], [2, 2], [3, 5]], [0, 0, 1, 0])
    third = cell([[5, 6], [4, 3], [2, 2], [3, 0]], [0, 1, 1, 3])
    cells = [(plain, third), (other, third), (wrong, third), (third, plain), (third, other)]
    archs = jax.tree.map(lambda *a: jnp.stack(a), *[DARTS(*pair) for pair in cells])
    k = between(weisfeiler_lehman(cell_graph(s)), archs)[-1]
    assert k[0, 1] == pytest.approx(1, abs=1e-6)
    assert k[3, 4] == pytest.approx(1, abs=1e-6)
    assert k[0, 2] < 0.99
    assert k[0, 3] < 0.5


def test_kernels_refuse():
    for make in (
        lambda grid: rbf(NB201.features, grid),
        lambda grid: matern52(NB201.features, grid),
        lambda grid: overlap(NB201, grid),
    ):
        for grid in ([], [1.0, 0.0], [np.nan], -1.0):
            with pytest.raises(ValueError, match="at least one positive number"):
                make(grid)
    with pytest.raises(ValueError, match="this space has none: use rbf or matern52"):
        overlap(space(reals=Real(0.0, 1.0)))
    for s in (TOY, darts()):
        with pytest.raises(ValueError, match="one cell with one input"):
            path_encoding(s)
    with pytest.raises(ValueError, match="no cells"):
        cell_graph(TOY)
    with pytest.raises(ValueError, match="`rounds` of weisfeiler_lehman must be an integer of at least 0; got -1"):
        weisfeiler_lehman(cell_graph(NB201), -1)
    with pytest.raises(ValueError, match="at least one kernel"):
        product()


# Acquisitions


BELIEF = Posterior(jnp.asarray([0.0, 0.5, 0.5, -3.0]), jnp.asarray([1.0, 0.1, 0.4, 0.5]))


def test_expected_improvement_is_the_integral():
    value = expected_improvement()(jax.random.key(0), BELIEF, jnp.asarray(0.6))
    for mean, std, found in zip(BELIEF.mean.tolist(), BELIEF.std.tolist(), value.tolist(), strict=True):
        gain = lambda f, mean=mean, std=std: (f - 0.6) * stats.norm.pdf(f, mean, std)
        assert found == pytest.approx(integrate.quad(gain, 0.6, 0.6 + 20 * std)[0], rel=1e-3, abs=1e-12)
    assert int(jnp.argmax(value)) == 0  # not the largest mean


def test_an_upper_confidence_bound_adds_deviations():
    key = jax.random.key(0)
    np.testing.assert_allclose(upper_confidence_bound(9.0)(key, BELIEF, 0.0), [3.0, 0.8, 1.7, -1.5], rtol=1e-6)
    np.testing.assert_array_equal(upper_confidence_bound(0.0)(key, BELIEF, 0.0), BELIEF.mean)
    assert int(jnp.argmax(upper_confidence_bound()(key, BELIEF, 0.0))) == 0
    with pytest.raises(ValueError, match="`beta` of upper_confidence_bound must be a number of at least 0; got -1"):
        upper_confidence_bound(-1)


def test_independent_thompson_wins_as_often_as_normals_do():
    n = 20_000
    drawn = jax.vmap(lambda key: independent_thompson()(key, BELIEF, 0.0))(jax.random.split(jax.random.key(0), n))
    drawn = np.asarray(drawn)
    for i, j in itertools.combinations(range(4), 2):
        mean, sd = BELIEF.mean[i] - BELIEF.mean[j], np.hypot(BELIEF.std[i], BELIEF.std[j])
        odds = stats.norm.cdf(mean / sd)
        assert abs((drawn[:, i] > drawn[:, j]).mean() - odds) < 4 * np.sqrt(odds * (1 - odds) / n) + 1e-4
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(4), atol=0.03)
    certain = BELIEF._replace(std=jnp.zeros(4))
    np.testing.assert_array_equal(independent_thompson()(jax.random.key(0), certain, 0.0), BELIEF.mean)


def test_thompson_sampling_is_the_joint_draw():
    joint = BELIEF._replace(draw=lambda key: jax.random.normal(key) * jnp.ones(4))
    value = thompson()(jax.random.key(3), joint, 0.0)
    assert float(value[0]) == float(jax.random.normal(jax.random.key(3)))
    assert (value == value[0]).all()
    with pytest.raises(ValueError, match="take independent_thompson"):
        thompson()(jax.random.key(0), BELIEF, 0.0)


# The search, line by line


def oracle(values, std=0.1):
    """A surrogate that knows the toy's scores, and counts its fits."""
    truth = jnp.asarray(values, jnp.float32)
    return Surrogate(
        init=lambda key, archs: jnp.zeros((), jnp.int32),
        fit=lambda key, model, archs, y, mask: model + 1,
        predict=lambda model, archs: (truth[jax.vmap(TOY.index)(archs)], jnp.full(len(jax.tree.leaves(archs)[0]), std)),
    )


TOY_VALUES = np.random.default_rng(0).permutation(24).astype(np.float32)
ALL = lambda key, archs, y, mask: jax.vmap(TOY.from_index)(jnp.arange(24))
MEAN = upper_confidence_bound(0.0)


@pytest.mark.parametrize("batch", [1, 4])
def test_after_the_random_ones_come_the_best_that_were_not_told(batch):
    algorithm = bayesian(TOY, oracle(TOY_VALUES), MEAN, ALL, capacity=24, initial=6, batch=batch)
    history = asked(algorithm, TOY_VALUES, 24 // batch)
    order = np.concatenate([index for _, index in history])
    left = [i for i in np.argsort(-TOY_VALUES) if i not in order[:6]]
    np.testing.assert_array_equal(order[6:18], left[:12])
    assert [int(state.model) for state, _ in history] == list(range(1, 24 // batch + 1))  # the model is carried


def test_a_batch_holds_no_candidate_twice_though_the_pool_does():
    twice = pool(ALL, ALL)
    algorithm = bayesian(TOY, oracle(np.zeros(24)), MEAN, twice, capacity=24, initial=1, batch=8)
    for _, index in asked(algorithm, TOY_VALUES, 3)[1:]:
        assert len(set(index.tolist())) == 8


def test_a_surrogate_that_fails_leaves_a_random_search():
    algorithm = bayesian(TOY, oracle(np.full(24, np.nan)), MEAN, random_draws(TOY, 5), capacity=40, initial=2)
    order = np.concatenate([index for _, index in asked(algorithm, TOY_VALUES, 40)])
    assert len(set(order.tolist())) > 12


def test_beyond_the_capacity_the_oldest_is_forgotten():
    algorithm = bayesian(TOY, oracle(TOY_VALUES), MEAN, ALL, capacity=5, initial=2)
    history = asked(algorithm, TOY_VALUES, 9)
    state = history[-1][0]
    recent = [int(index[0]) for _, index in history[-5:]]
    assert sorted(np.asarray(jax.vmap(TOY.index)(state.archs)).tolist()) == sorted(recent)
    assert sorted(state.scores.tolist()) == sorted(TOY_VALUES[recent].tolist())
    assert int(state.told) == 9


def test_the_surrogate_sees_standardised_log_errors():
    seen = []

    def fit(key, model, archs, y, mask):
        jax.debug.callback(lambda y, mask: seen.append((np.asarray(y), np.asarray(mask))), y, mask)
        return model

    surrogate = oracle(TOY_VALUES)._replace(fit=fit)
    scores = np.linspace(10, 94, 24).astype(np.float32)
    algorithm = bayesian(TOY, surrogate, MEAN, ALL, capacity=8, initial=8, transform=log_error())
    history = asked(algorithm, scores, 7)
    jax.effects_barrier()
    told = np.concatenate([index for _, index in history])[:6]
    error = -np.log(100 - scores[told])
    y, mask = max(seen, key=lambda pair: pair[1].sum())
    assert mask.tolist() == [True] * 6 + [False] * 2
    np.testing.assert_allclose(y[:6], (error - error.mean()) / error.std(), atol=1e-5)
    np.testing.assert_array_equal(y[6:], 0)


def test_log_error_rises_and_is_finite():
    scores = jnp.asarray([0.0, 50.0, 90.0, 99.0, 100.0])
    value = np.asarray(log_error()(scores))
    assert (np.diff(value) > 0).all()
    assert np.isfinite(value).all()
    np.testing.assert_allclose(value[:4], -np.log([100, 50, 10, 1]), rtol=1e-6)
    np.testing.assert_allclose(log_error(1.0)(scores[:2] / 100), -np.log([1, 0.5]), atol=1e-6)


def test_candidates_come_from_the_best():
    archs = jax.vmap(TOY.from_index)(jnp.arange(10))
    y, mask = jnp.asarray([5.0, 1, 4, 9, 0, 2, 3, 8, 99, 99]), jnp.arange(10) < 8
    np.testing.assert_array_equal(leaders(jnp.where(mask, y, -jnp.inf), 3), [3, 7, 0])

    @quick.jit
    def flat(key):
        parts = [pool(random_draws(TOY, 7), neighbors_of_best(TOY, 2)), mutants_of_best(TOY, 200, 2)]
        first, second = (jax.vmap(TOY.flat)(part(k, archs, y, mask)) for part, k in zip(parts, jax.random.split(key), strict=True))
        only = mutants_of_best(TOY, 50, 3)(jax.random.fold_in(key, 2), archs, y, jnp.arange(10) < 1)
        near = [jax.vmap(TOY.flat)(TOY.neighbors(TOY.from_index(i))) for i in (3, 7)]
        return first, second, jax.vmap(TOY.flat)(only), near, jax.vmap(TOY.flat)(archs)

    first, mutants, only, near, told = jax.tree.map(np.asarray, flat(jax.random.key(0, impl="unsafe_rbg")))
    np.testing.assert_array_equal(first[7:], np.concatenate(near))
    from_first, from_second = ((mutants != told[i]).sum(1) == 1 for i in (3, 7))
    assert (from_first | from_second).all()
    assert from_first.any()
    assert from_second.any()
    assert ((only != told[0]).sum(1) == 1).all()  # one was told: it is the only parent


CASES = {
    "overlap, EI": (TOY, lambda s: gaussian_process(overlap(s)), expected_improvement()),
    "conditional, Thompson": (TREE, lambda s: gaussian_process(overlap(s)), thompson()),
    "subtrees, ITS": (NB201, lambda s: gaussian_process(weisfeiler_lehman(cell_graph(s))), independent_thompson()),
    "mixed, UCB": (
        MIXED,
        lambda s: gaussian_process(product(overlap(s), matern52(s.unit, lengths(0.1, 1))), (1e-3, 1e-1)),
        upper_confidence_bound(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_step_is_a_scan_body(case, batch=3):
    s, surrogate, acquisition = CASES[case]
    candidates = pool(random_draws(s, 10), mutants_of_best(s, 5))
    algorithm = bayesian(s, surrogate(s), acquisition, candidates, capacity=6, initial=3, batch=batch)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    asked, archs = jax.eval_shape(algorithm.ask, jax.random.key(1), state)
    told = jax.eval_shape(algorithm.tell, jax.random.key(2), asked, archs, jax.ShapeDtypeStruct((batch,), jnp.float32))
    kinds = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype, a.weak_type), jax.eval_shape(lambda x: x, tree))
    assert kinds(state) == kinds(asked) == kinds(told)
    assert not any(a.weak_type for a in jax.tree.leaves(told))
    assert kinds(archs) == kinds(jax.eval_shape(jax.vmap(s.sample), jax.random.split(jax.random.key(0), batch)))


def test_an_ensemble_of_networks_fits_the_slot():
    """Three linear models, each trained on from the last ask's by gradient descent on its own half of the data."""
    M, F = 3, int(TOY.arity.sum())

    def fit(key, model, archs, y, mask):
        x = jax.vmap(TOY.features)(archs)
        weight = mask[None] * jax.random.bernoulli(key, 0.5, (M, len(y)))
        loss = lambda w, weight: jnp.sum(weight * (x @ w - y) ** 2) / jnp.maximum(jnp.sum(weight), 1)
        step = lambda w, _: (w - 0.3 * jax.vmap(jax.grad(loss))(w, weight), None)
        return jax.lax.scan(step, model, None, length=20)[0]

    def predict(model, archs):
        each = model @ jax.vmap(TOY.features)(archs).T  # [M, C]
        return jnp.mean(each, 0), jnp.std(each, 0)

    ensemble = Surrogate(lambda key, archs: 0.1 * jax.random.normal(key, (M, F)), fit, predict)
    values = np.asarray(jax.vmap(TOY.features)(jax.vmap(TOY.from_index)(jnp.arange(24)))) @ np.arange(F, dtype=np.float32)
    algorithm = bayesian(TOY, ensemble, independent_thompson(), ALL, capacity=16, initial=6, batch=2)
    order = np.concatenate([index for _, index in asked(algorithm, values, 8)])
    assert values[order[6:12]].mean() > values.mean() + 0.5 * values.std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(capacity=0), "`capacity` of bayesian must be a positive integer; got 0"),
        (dict(initial=0), "`initial` of bayesian must be a positive integer; got 0"),
        (dict(initial=21), "got initial=21"),
        (dict(batch=0), "`batch` of bayesian must be a positive integer; got 0"),
        (dict(batch=21), "got batch=21"),
    ],
)
def test_a_search_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        bayesian(TOY, oracle(TOY_VALUES), MEAN, ALL, **{"capacity": 20, **arguments})


def test_candidates_refuse():
    for make in (
        lambda: random_draws(TOY, 0),
        lambda: neighbors_of_best(TOY, 0),
        lambda: mutants_of_best(TOY, 0),
        lambda: mutants_of_best(TOY, 5, 0),
        lambda: pool(),
    ):
        with pytest.raises(ValueError, match=r"must be a positive integer; got 0|of at least 1|at least one"):
            make()
    with pytest.raises(ValueError, match="take mutants_of_best"):
        neighbors_of_best(MIXED)


# Whole searches


GP_EI = black_box(
    bayesian(
        NB201,
        gaussian_process(overlap(NB201)),
        expected_improvement(),
        pool(random_draws(NB201, 2000), neighbors_of_best(NB201, 5)),
        capacity=100,
        transform=log_error(),
    ),
    table(NB201),
)
GP_SUBTREES = black_box(
    bayesian(
        NB201,
        gaussian_process(weisfeiler_lehman(cell_graph(NB201))),
        expected_improvement(),
        pool(random_draws(NB201, 200), neighbors_of_best(NB201, 5)),
        capacity=100,
        transform=log_error(),
    ),
    table(NB201),
)
REFERENCE = {  # another implementation's mean and sd over 30 seeds
    (0, 30): (93.99, 0.37),
    (0, 50): (94.05, 0.29),
    (0, 100): (94.16, 0.28),
    (1, 30): (71.71, 1.46),
    (1, 50): (72.01, 1.44),
    (1, 100): (72.24, 0.88),
}
RANDOM_500 = (93.999, 72.091)  # random search's exact mean after 500


def final_accuracy(strategy, dataset, seeds, steps=100):
    """float[seeds, steps]: the final test accuracy of the best cell by validation."""
    data = nb201_file.load()
    fixed = rows(NB201, data["ops"], {"accuracy": data["val_acc_12"][:, dataset]})
    _, (best, _) = run_seeds(strategy, steps, Batch(fixed=fixed), seeds)
    test = rows(NB201, data["ops"], {"test": data["test_acc_200"][:, dataset]})["test"]
    return np.asarray(test, np.float64)[np.asarray(jax.vmap(jax.vmap(NB201.index))(best))]


def reproduces(dataset, seeds):
    found = final_accuracy(GP_EI, dataset, seeds)
    for n in (30, 50, 100):
        mean, sd = REFERENCE[dataset, n]
        ours = found[:, n - 1]
        assert abs(ours.mean() - mean) <= 3 * np.sqrt(ours.var(ddof=1) / seeds + sd**2 / 30), n
    assert found[:, 99].mean() > RANDOM_500[dataset]


@pytest.mark.slow
@nb201_file.needs_file
def test_gp_ei_reproduces_the_reference_and_beats_five_hundred_random_draws():
    reproduces(dataset=0, seeds=32)


@pytest.mark.slow
@nb201_file.needs_file
@pytest.mark.parametrize("dataset", [0, 1], ids=["cifar10", "cifar100"])
def test_gp_ei_reproduces_the_reference_over_many_seeds(dataset):
    reproduces(dataset, seeds=200)


@pytest.mark.slow
@nb201_file.needs_file
@pytest.mark.parametrize("dataset", [0, 1], ids=["cifar10", "cifar100"])
def test_the_subtree_kernel_beats_random_search_and_on_cifar100_the_overlap_kernel(dataset):
    subtrees, plain = (final_accuracy(strategy, dataset, 100)[:, 99] for strategy in (GP_SUBTREES, GP_EI))
    assert subtrees.mean() > RANDOM_500[dataset]
    p = stats.mannwhitneyu(subtrees, plain, alternative="greater").pvalue
    assert p < 0.01 if dataset else p > 0.01, p  # CIFAR-100 alone: on CIFAR-10 there is no difference to be seen (p = .38)


def test_a_mixed_space_is_searched_better_than_at_random():
    kernel = product(overlap(MIXED, [1.0, 4.0]), matern52(MIXED.unit, [0.2, 0.5, 1.5]))
    candidates = pool(random_draws(MIXED, 100), mutants_of_best(MIXED, 50))
    algorithm = bayesian(MIXED, gaussian_process(kernel, 1e-3), expected_improvement(), candidates, capacity=30)
    found = [
        program(black_box(a, stateless(mixed_score)), 30)(jax.random.split(jax.random.key(0, impl="unsafe_rbg"), 50), Batch())[1]
        for a in (algorithm, random_search(MIXED))
    ]
    (archs, ours), (_, random) = found
    ours, random = (np.asarray(score)[:, -1] for score in (ours, random))
    assert stats.mannwhitneyu(ours, random, alternative="greater").pvalue < 1e-6
    last = jax.tree.map(lambda a: np.asarray(a)[:, -1], archs)
    inside = (last.decisions[0] == 2) & (last.decisions[1] == 1) & (abs(last.reals["x"] - 0.3) < 0.2)
    assert inside.mean() > 0.9
    assert isinstance(last, Mixed)
