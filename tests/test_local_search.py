"""Local search: the published landscape of the real table, the reference figures, and every ask against a referee."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import pytest
import searching
from scipy import stats

from jaxnas.ask_tell._local_search import local_search, words
from jaxnas.base import Batch, black_box, stateless
from jaxnas.evaluate._table import rows, table
from jaxnas.spaces._darts import darts
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.spaces._space import space
from jaxnas.spaces.real import Real

SEEDS = 500
CIFAR10, CIFAR100 = 0, 1
DATASETS = pytest.mark.parametrize("dataset", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])


class MLP(NamedTuple):
    depth: jax.Array
    width: jax.Array


DEPTH_ON = np.array([[0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]], bool)
SPACES = {
    "flat": space((np.asarray([3, 4, 2, 5]),)),  # 120 settings
    "conditional": space(MLP(depth=3, width=np.full(3, 4)), parent=[-1, 0, 0, 0], when=DEPTH_ON),  # 84 of 192
    "wide": space((np.full(40, 3),)),  # 3^40: no index, a code of three words
}
FLAT = SPACES["flat"]


def climb(strategy, state, info):
    """What was asked, its score, where it climbs from, the climb's score (-inf: just over), the best ever."""
    arch = jax.tree.map(lambda a: a[0], info.archs)
    return arch, info.scores[0], state.algorithm.centre, state.algorithm.best_score, state.best


program = functools.partial(searching.program, watch=climb)


# The landscape of the real table


@functools.cache
def neighbor_table():
    """int32[15625, 24], by `space.index`: edge-major, then operation + 1, + 2, ..."""
    s = nasbench201()
    around = jax.jit(jax.vmap(lambda i: jax.vmap(s.index)(s.neighbors(s.from_index(i)))))
    return np.asarray(around(jnp.arange(15_625)))


@functools.cache
def by_index(name, dataset):
    return rows(nasbench201(), nb201_file.load()["ops"], {"accuracy": nb201_file.load()[name][:, dataset]})


@functools.cache
def steepest_ascent(name, dataset):
    """(f [N], int[T, N] where each start is after t moves), moving to the first of the best neighbours while it is better."""
    f, around = np.asarray(by_index(name, dataset)["accuracy"]), neighbor_table()
    best = around[np.arange(len(f)), f[around].argmax(1)]
    up = np.where(f[best] > f, best, np.arange(len(f)))
    path = [np.arange(len(f))]
    while (up[path[-1]] != path[-1]).any():
        path.append(up[path[-1]])
    return f, np.stack(path)


LANDSCAPE = {  # local maxima, share of the starts that reach the global one, mean moves, mean final value: the reference sheet
    ("test_acc_200", CIFAR10): (18, 73.52, 4.63, 94.218),
    ("test_acc_200", CIFAR100): (25, 74.93, 4.72, 73.014),
    ("val_acc_12", CIFAR10): (21, 49.07, 4.48, 84.372),
    ("val_acc_12", CIFAR100): (35, 38.64, 4.16, 60.223),
}


@nb201_file.needs_file
@pytest.mark.parametrize(("case", "facts"), LANDSCAPE.items(), ids=str)
def test_landscape_facts(case, facts):
    f, path = steepest_ascent(*case)
    maxima, share, moves, final = facts
    assert (f[:, None] >= f[neighbor_table()]).all(1).sum() == maxima
    assert 100 * (f[path[-1]] == f.max()).mean() == pytest.approx(share, abs=0.005)
    assert (path[1:] != path[:-1]).sum(0).mean() == pytest.approx(moves, abs=0.005)
    assert f[path[-1]].astype(np.float64).mean() == pytest.approx(final, abs=5e-4)


# Reproduction

SEARCHES = {
    "first": black_box(local_search(nasbench201(), capacity=500), table(nasbench201())),
    "steepest": black_box(local_search(nasbench201(), capacity=500, steepest=True), table(nasbench201())),
}


@functools.cache
def searched(name, dataset):
    """Of every seed after each training: int[SEEDS, 500] asked, climbing from, best; and whether a climb just ended."""
    keys = jax.random.split(jax.random.key(0), SEEDS)
    asked, _, centre, score, best = program(SEARCHES[name], 500)(keys, Batch(fixed=by_index("val_acc_12", dataset)))[1]
    index = jax.jit(jax.vmap(jax.vmap(nasbench201().index)))
    return *(np.asarray(index(x)) for x in (asked, centre, best)), np.isneginf(score)


def test_accuracy(name, dataset, trainings):
    best = searched(name, dataset)[2][:, trainings - 1]
    return np.asarray(by_index("test_acc_200", dataset)["accuracy"], np.float64)[best]


test_accuracy.__test__ = False

REFERENCE = {  # mean and sd of 500 seeds of another implementation
    (CIFAR10, 100): (94.16, 0.30),
    (CIFAR10, 150): (94.25, 0.23),
    (CIFAR10, 500): (94.37, 0.03),
    (CIFAR100, 100): (72.33, 0.92),
    (CIFAR100, 150): (72.58, 0.74),
    (CIFAR100, 500): (72.83, 0.38),
}


@nb201_file.needs_file
@pytest.mark.parametrize(("dataset", "trainings"), REFERENCE, ids=str)
def test_first_improvement_reproduces_the_reference(dataset, trainings):
    mean, sd = REFERENCE[dataset, trainings]
    found = test_accuracy("first", dataset, trainings)
    assert abs(found.mean() - mean) <= 3 * sd * np.sqrt(1 / 500 + 1 / SEEDS)


@nb201_file.needs_file
def test_first_improvement_is_ahead_of_steepest_early():
    first, steepest = (test_accuracy(name, CIFAR10, 100) for name in ("first", "steepest"))
    assert stats.mannwhitneyu(first, steepest, alternative="greater").pvalue < 1e-3


@nb201_file.needs_file
@pytest.mark.parametrize("name", SEARCHES)
def test_no_cell_is_asked_for_twice(name):
    asked = np.sort(searched(name, CIFAR10)[0], 1)
    assert (np.diff(asked, axis=1) > 0).all()


@nb201_file.needs_file
def test_the_first_climb_of_steepest_is_a_steepest_ascent():
    """Every move is to a best neighbour, up to a local maximum; it pays for the start and the neighbourhoods on the way."""
    asked, centre, _, ended = searched("steepest", CIFAR10)
    f, near = np.asarray(by_index("val_acc_12", CIFAR10)["accuracy"]), neighbor_table()
    assert ended.any(1).all()
    for seed in range(SEEDS):
        T = ended[seed].argmax() + 1
        path = np.asarray(list(dict.fromkeys(centre[seed, :T].tolist())))
        assert path[0] == asked[seed, 0]
        assert (f[path[1:]] == f[near[path[:-1]]].max(1)).all()
        assert (np.diff(f[path]) > 0).all()
        assert f[path[-1]] >= f[near[path[-1]]].max()
        assert set(asked[seed, :T].tolist()) == {int(path[0]), *near[path].ravel().tolist()}


# Line by line


def bumps(name, levels):
    """What the searches below maximise, as a batch: a weight of every value and of every pair of neighbouring ones, [D, A] and
    [A, A], out of 1, ..., levels (few: there are plateaus)."""
    D, A = len(SPACES[name].arity), int(max(SPACES[name].arity))
    rng = np.random.default_rng(1)
    return Batch(fixed=(rng.integers(levels, size=(D, A)) + 1.0, rng.integers(levels, size=(A, A)) + 1.0))


@functools.cache
def search(name, **settings):
    s = SPACES[name]

    def evaluate(key, archs, batch):
        single, pair = (jnp.asarray(x, jnp.float32) for x in batch.fixed)
        v = jax.vmap(s.flat)(archs)  # [1, D]
        return {"accuracy": jnp.sum(single[np.arange(v.shape[1])[None], v], -1) + jnp.sum(pair[v[:, 1:], v[:, :-1]], -1)}

    return black_box(local_search(s, **settings), stateless(evaluate))


def asked_and_scored(name, batch, seeds=8, steps=130, **settings):
    """([tuple[steps], ...], [float[steps], ...]) of every seed."""
    arch, scores, *_ = program(search(name, **settings), steps)(jax.random.split(jax.random.key(0), seeds), batch)[1]
    flat = np.asarray(jax.vmap(jax.vmap(SPACES[name].flat))(arch)).tolist()
    return [[tuple(v) for v in seed] for seed in flat], np.asarray(scores).tolist()


@functools.cache
def around_of(name):
    s = SPACES[name]
    return jax.jit(lambda v: jax.vmap(s.flat)(s.neighbors(s.unflat(v))))


@functools.cache
def around(name, v):
    """The set of neighbours of a flat architecture."""
    return {tuple(w) for w in np.asarray(around_of(name)(np.asarray(v, np.int32))).tolist()} - {v}


def referee(name, asked, scores, steepest=False, initial=1):
    """Follows one search with sets and fails at the first query that the algorithm would not have made; counts the climbs."""
    seen, left, climbs, drawn = set(), set(), 0, initial
    for v, y in zip(asked, scores, strict=True):
        if left:
            assert v in left, "not a neighbour, or asked for before"
        else:
            assert v not in seen, "a random architecture that was asked for before"
            if drawn == initial:  # a climb is over
                climbs, drawn, best, centre = climbs + 1, 0, None, None
            drawn += 1
        seen.add(v)
        if best is None or y > best[0]:
            best = y, v
        if not steepest or not left - {v}:
            centre = best[1]
        left = around(name, centre) - seen if drawn == initial else set()
    return climbs


CASES = [  # space, steepest, initial
    ("flat", False, 1),
    ("flat", True, 5),
    ("conditional", True, 1),
    ("conditional", False, 5),
    ("wide", False, 1),
    ("wide", True, 5),
]


@pytest.mark.parametrize("levels", [1000, 3], ids=["distinct", "plateaus"])
@pytest.mark.parametrize(("name", "steepest", "initial"), CASES)
def test_every_query_is_the_algorithms(name, steepest, initial, levels):
    n = min(130, SPACES[name].size)
    found, scored = asked_and_scored(name, bumps(name, levels), capacity=1_000, steepest=steepest, initial=initial)
    for asked, scores in zip(found, scored, strict=True):
        climbs = referee(name, asked[:n], scores[:n], steepest, initial)
        assert climbs > (1 if name != "wide" else 0)
        assert len(set(asked)) == n  # the small spaces: all of them, each once, and then the search goes on
    assert len(set(map(tuple, found))) == len(found)


def test_a_plateau_ends_a_climb():
    flat = jax.tree.map(np.zeros_like, bumps("flat", 3))
    for asked, scores in zip(*asked_and_scored("flat", flat, capacity=1_000, steepest=False, initial=1), strict=True):
        assert set(asked[1:11]) == around("flat", asked[0])  # all 2 + 3 + 1 + 4 of them, without a move
        assert referee("flat", asked[:120], scores[:120]) > 5


def test_beyond_its_capacity_the_oldest_are_forgotten():
    found, _ = asked_and_scored("flat", bumps("flat", 1000), steps=300, capacity=20)
    for asked in found:
        assert all(asked[t] not in asked[max(0, t - 20) : t] for t in range(300))
        assert len(set(asked)) > 60


@functools.cache
def small():
    algorithm = local_search(FLAT, capacity=100)
    one = lambda key, state: FLAT.index(jax.tree.map(lambda a: a[0], algorithm.ask(key, state)[1]))
    return algorithm, jax.jit(algorithm.tell), jax.jit(jax.vmap(one, (0, None)))


def state_after(told):
    """The state once the architectures of these indices were asked for, with these scores, in this order."""
    algorithm, tell, _ = small()
    state = algorithm.init(jax.random.key(0))
    for t, (i, y) in enumerate(told):
        arch = jax.tree.map(lambda a: a[None], FLAT.from_index(jnp.asarray(i)))
        state = tell(jax.random.key(t), state, arch, jnp.asarray([y], jnp.float32))
    return state


def times_asked(state, n=20_000):
    """int[120]: how often, out of n asks with other keys."""
    return np.bincount(np.asarray(small()[2](jax.random.split(jax.random.key(1), n), state)), minlength=120)


def test_the_next_neighbour_is_uniform_among_those_left():
    times = times_asked(state_after([(0, 1.0), (3, 0.0), (80, 0.5)]))
    left = [1, 2, 4, 5, 10, 20, 30, 40]  # the others that are one edit from 0
    assert times[left].sum() == times.sum()
    assert stats.chisquare(times[left]).pvalue > 0.001


def test_a_restart_is_uniform_among_those_never_asked_for():
    others = [i for i in range(60) if i not in (0, 1, 2, 3, 4, 5, 10, 20, 30, 40)]
    # all of 0's neighbours last: the climb from 0, which is the best, is over
    state = state_after([(0, 1.0), *((i, 0.0) for i in (*others, 1, 2, 3, 4, 5, 10, 20, 30, 40, 80))])
    times = times_asked(state)
    told = [*range(60), 80]
    assert times[told].sum() == 0
    assert stats.chisquare(np.delete(times, told)).pvalue > 0.001


@pytest.mark.parametrize("s", [*SPACES.values(), nasbench201(), darts()], ids=[*SPACES, "nasbench201", "darts"])
def test_a_code_names_one_architecture(s):
    w = words(s.arity).astype(object)
    assert ((w != 0).sum(1) == 1).all()
    for column, used in zip(w.T, (w != 0).T, strict=True):
        n = s.arity[used].astype(object)
        assert sum(column[used] * (n - 1)) == np.prod(n) - 1 < 2**31  # a mixed radix: 0 ... prod(n) - 1, each once
    archs = jax.vmap(s.sample)(jax.random.split(jax.random.key(0), 300))
    flat = np.asarray(jax.vmap(s.flat)(archs))
    codes = np.asarray(flat[:, :, None] * words(s.arity)).sum(1)
    assert len(np.unique(codes, axis=0)) == len(np.unique(flat, axis=0))


def test_seeds_as_one_program_equal_a_loop():
    strategy, batch = search("conditional", capacity=1_000, steepest=True, initial=1), bumps("conditional", 3)
    keys = lambda: jax.random.split(jax.random.key(0), 8)
    many = program(strategy, 130)(keys(), batch)[1]
    alone = jax.jit(lambda key, batch: searching.run(strategy, key, 130, batch, climb)[1])
    for i, key in enumerate(keys()):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda a: a[i], many), alone(key, batch))


@pytest.mark.parametrize(("name", "steepest", "initial"), CASES[:2])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_candidate_never_wins_and_never_stops_the_search(name, steepest, initial, bad):
    single, pair = bumps(name, 1000).fixed
    single[3, 2:] = bad  # three fifths of the space
    strategy = search(name, capacity=1_000, steepest=steepest, initial=initial)
    arch, scores, *_, best = program(strategy, 130)(jax.random.split(jax.random.key(0), 8), Batch(fixed=(single, pair)))[1]
    scores = np.asarray(scores)
    finite = np.where(np.isfinite(scores), scores, -np.inf)
    assert len(set(finite.max(1))) == 1  # all 120 were asked for
    index = jax.vmap(jax.vmap(FLAT.index))
    assert (index(best)[:, -1] == index(arch)[np.arange(8), finite.argmax(1)]).all()


def test_step_is_a_scan_body():
    for s in (*SPACES.values(), darts()):
        algorithm = local_search(s, capacity=7)
        state = algorithm.init(jax.random.key(0))
        asked, archs = jax.eval_shape(algorithm.ask, jax.random.key(1), state)
        told = jax.eval_shape(algorithm.tell, jax.random.key(2), asked, archs, jax.ShapeDtypeStruct((1,), jnp.float32))
        kinds = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype, a.weak_type), jax.eval_shape(lambda x: x, tree))
        assert kinds(state) == kinds(told)
        assert not any(a.weak_type for a in jax.tree.leaves(told))


@pytest.mark.parametrize(
    ("s", "arguments", "message"),
    [
        (space(reals=(Real(0.0, 1.0),)), dict(capacity=1), "a space of decisions only"),
        (space((1, 1)), dict(capacity=1), "at least two architectures"),
        (FLAT, dict(capacity=0), "`capacity` of local_search must be a positive integer; got 0"),
        (FLAT, dict(capacity=9, initial=0), "`initial` of local_search must be a positive integer; got 0"),
    ],
)
def test_local_search_refuses(s, arguments, message):
    with pytest.raises(ValueError, match=message):
        local_search(s, **arguments)
