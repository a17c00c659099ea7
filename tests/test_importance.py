"""What made it good: closed forms, brute force, planted answers, and the real table."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import nb201_file
import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

import jaxnas as nas
from jaxnas import plot
from jaxnas.analysis import importance, motifs
from jaxnas.ask_tell._random_search import random_search
from jaxnas.base import black_box, stateless
from jaxnas.evaluate._table import rows
from jaxnas.plot._importance import importance as picture
from jaxnas.spaces._darts import darts
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.spaces._space import space
from jaxnas.spaces.real import Real

TOY = space((np.asarray([3, 4, 2]),))  # 24 settings
EVERY = np.stack(np.unravel_index(np.arange(24), TOY.arity), -1).astype(np.int32)
BENCH = nasbench201()


def test_a_sum_has_no_pairs_and_each_term_its_variance():
    terms = [np.asarray(t, float) for t in ([0, 1, 5], [2, 0, 2, 7], [0, 3])]
    values = sum(t[EVERY[:, d]] for d, t in enumerate(terms))
    found = importance.exact(TOY, values, 3).shares
    for d, t in enumerate(terms):
        np.testing.assert_allclose(found[d,], t.var() / sum(u.var() for u in terms), atol=1e-12)
    assert max(abs(v) for s, v in found.items() if len(s) > 1) < 1e-12


def test_equality_is_all_pair():
    values = (EVERY[:, 0] % 2 == EVERY[:, 2]).astype(float)  # 0, 2 against 1 is not balanced: decision 0 alone says nothing
    found = importance.exact(TOY, values, 3).shares
    assert len(found) == 7 and abs(sum(found.values()) - 1) < 1e-12
    assert found[0, 2] > 0.85 and abs(found[1,]) < 1e-12


def test_shares_are_those_of_orthogonal_parts():
    """Hoeffding: the part of a set is what is left of its mean after the parts of its subsets; parts are orthogonal."""
    cube = np.random.default_rng(0).normal(size=TOY.arity)
    parts = {}
    for size in range(4):
        for subset in itertools.combinations(range(3), size):
            mean = cube.mean(tuple(d for d in range(3) if d not in subset), keepdims=True)
            parts[subset] = mean - sum(p for s, p in parts.items() if set(s) < set(subset))
    np.testing.assert_allclose(sum(parts.values()), cube)
    found = importance.exact(TOY, cube.ravel(), 3).shares
    for subset, share in found.items():
        np.testing.assert_allclose(share, np.mean(parts[subset] ** 2) / cube.var(), atol=1e-12)


def test_a_decision_that_is_off_is_not_read():
    conditional = space((2, 3), parent=[-1, 0], when=np.asarray([[True] * 3, [False, True, False]]))
    values = np.asarray([1.0, np.nan, np.nan, 2, 3, 4])  # [0, 1] and [0, 2] are [0, 0]
    found = importance.exact(conditional, values).shares
    cube = np.asarray([[1.0, 1, 1], [2, 3, 4]])
    np.testing.assert_allclose(found[0,], cube.mean(1).var() / cube.var())
    assert found[1,] > 0 and found[0, 1] > 0 and abs(sum(found.values()) - 1) < 1e-12


# The forest


@functools.cache
def planted():
    """A space of eight decisions, of which 1 and, together, 4 and 6 matter; 400 random architectures."""
    s = space((np.asarray([2, 4, 3, 2, 3, 4, 3, 2]),))
    rng = np.random.default_rng(0)
    archs = rng.integers(0, s.arity, (400, 8))
    scores = 2.0 * (archs[:, 1] == 2) + 3.0 * ((archs[:, 4] == 1) & (archs[:, 6] == 0)) + 0.1 * rng.normal(size=400)
    return s, archs, scores


def test_a_trees_leaves_part_the_space():
    arity = tuple(int(n) for n in TOY.arity)
    which = np.repeat(np.arange(3), arity)
    value = np.concatenate([np.arange(a) for a in arity])
    hot = (EVERY[:, which] == value[None]).astype(np.float32)
    scores = np.random.default_rng(1).normal(size=24)
    for tree in RandomForestRegressor(5, random_state=0).fit(hot, scores).estimators_:
        boxes, heights = importance._boxes(tree.tree_, which, value, arity)
        inside = np.stack([boxes[:, d, EVERY[:, d]] for d in range(3)]).all(0)  # [L, 24]
        assert (inside.sum(0) == 1).all()
        np.testing.assert_allclose(heights @ inside, tree.predict(hot))


def test_a_forest_of_the_whole_space_agrees_with_the_table():
    """Trees that saw every setting, four times over, are nearly the table."""
    values = 4.0 * (EVERY[:, 0] == 1) + 2.0 * EVERY[:, 1] * EVERY[:, 2]
    exact = importance.exact(TOY, values, 3).shares
    varied = np.random.default_rng(2).permutation(24)
    found = importance.from_history(jax.random.key(0), TOY, EVERY[varied], values[varied], order=3, trees=200)
    assert abs(sum(found.shares.values()) - 1) < 1e-9
    assert max(abs(found.shares[s] - exact[s]) for s in exact) < 0.1
    assert max(found.spread.values()) > 0


def test_the_forest_finds_what_was_planted():
    found = importance.from_history(jax.random.key(0), *planted())
    assert found.fit > 0.8
    assert set(sorted(found.shares, key=found.shares.get)[-4:]) == {(1,), (4,), (6,), (4, 6)}
    assert max(v for s, v in found.shares.items() if not set(s) & {1, 4, 6}) < 0.02


def test_repeats_count_once_and_what_diverged_not_at_all():
    archs, scores = importance.unique(TOY, EVERY[[3, 3, 5, 7]], [1.0, 3.0, np.nan, 4.0])
    assert archs.tolist() == EVERY[[3, 7]].tolist() and scores.tolist() == [2.0, 4.0]


# Motifs


def test_the_odds_of_a_motif_by_counting():
    """Of all ways to choose the best 6 of 24: those with as many that have the motif."""
    scores = -np.arange(24.0)
    found = motifs.motifs(TOY, EVERY, scores, top=0.25, size=1, most=50)
    assert [(m.decisions, m.values) for m in found[:1]] == [((0,), (0,))]  # the first eight settings have 0 there
    (first, *_) = found
    assert (first.best, first.known) == (6, 8) and first.lift == 3.0
    p = math.comb(8, 6) / math.comb(24, 6)  # all six among the eight
    np.testing.assert_allclose(first.p, 9 * p, rtol=1e-9)  # of 3 + 4 + 2 motifs


def test_motifs_find_what_was_planted_and_leave_out_what_follows():
    found = motifs.motifs(*planted())
    assert {(m.decisions, m.values) for m in found[:1]} == {((4, 6), (1, 0))}
    pairs = EVERY[EVERY[:, 2] == EVERY[:, 0] % 2]  # decision 2 follows from decision 0
    every = motifs.motifs(TOY, pairs, np.arange(len(pairs)) * 1.0, top=0.5, size=2, most=99)
    assert (0, 2) not in {m.decisions for m in every}


def test_chance_is_seldom_a_motif():
    """Without any rule, one history in twenty or fewer has a motif of p below 0.05."""
    s, archs, _ = planted()
    lowest = [motifs.motifs(s, archs, np.random.default_rng(i).normal(size=400), size=2)[0].p for i in range(20)]
    assert sum(p < 0.05 for p in lowest) <= 3


# Agreement


def test_agreement_by_hand_and_by_chance():
    found = motifs.agreement(jax.random.key(0), TOY, np.asarray([[0, 1, 0], [0, 2, 0], [1, 1, 0]]))
    np.testing.assert_allclose(found.decisions, [1 / 3, 1 / 3, 1])
    np.testing.assert_allclose(found.random, [1 / 3, 1 / 4, 1 / 2], atol=0.02)
    np.testing.assert_allclose([found.distance, found.by_chance], [4 / 3, 3 - 13 / 12], atol=0.04)
    assert found.same == 0


def test_two_texts_of_one_network_differ_in_decisions_and_are_the_same():
    texts = (
        "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
        "|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
    )
    archs = np.stack([np.asarray(BENCH.flat(BENCH.from_text(t))) for t in texts])
    found = motifs.agreement(jax.random.key(0), BENCH, archs)
    assert (found.distance, found.same) == (3, 1)


# Histories, names, tables and pictures


def test_a_history_is_what_a_search_saw():
    score = lambda key, archs, batch: {"accuracy": jnp.where(archs[0][:, 0] == 1, jnp.nan, archs[0] @ jnp.asarray([1.0, 2, 3]))}
    search = black_box(random_search(TOY, batch=4), stateless(score))
    result = nas.run(jax.random.key(0), search, steps=3, seeds=2)
    archs, scores = importance.history(TOY, result.infos)
    assert archs.shape == (24, 3) and scores.shape == (24,)
    np.testing.assert_array_equal(np.isnan(scores), archs[:, 0] == 1)
    kept = np.isfinite(scores)
    np.testing.assert_allclose(scores[kept], archs[kept] @ [1, 2, 3])
    np.testing.assert_array_equal(archs, importance.history(TOY, result.infos[0])[0])


def test_names():
    assert importance.names(BENCH)[1] == ("0->2", list(BENCH.spec.ops))
    named = dict(importance.names(darts()))
    assert named["normal.op[1][0]"][0] == "max_pool_3x3" and named["reduce.pair[1]"] == ["0", "1", "2"]
    assert importance.names(TOY)[2] == ("0[2]", ["0", "1"])


def test_a_table_and_a_picture(tmp_path):
    s, archs, scores = planted()
    found = importance.from_history(jax.random.key(0), s, archs, scores)
    listed = motifs.motifs(s, archs, scores, most=3)
    text = importance.report(s, found, listed, motifs.agreement(jax.random.key(1), s, archs[:5]))
    assert "| 0[4] 1, 0[6] 0 |" in text and "| 0[1] |" in text and "find the same network in 0 %" in text
    figure = picture(s, found, archs, scores, "planted")
    bars, cells, _ = figure.axes
    names = [t.get_text() for t in bars.get_yticklabels()]
    widths = [p.get_width() for p in bars.patches]
    assert widths == sorted(widths, reverse=True) and len(names) == len(widths) and "0[4], 0[6]" in names
    map_ = np.asarray(cells.images[0].get_array().filled(np.nan))
    assert map_.shape == (8, 4) and map_[4, 1] == map_[6, 0] == 100 and np.isnan(map_[0, 2])
    np.testing.assert_allclose(np.nansum(map_, 1), 100)
    plot.save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


REALS = space((3, 2), reals={"x": Real(0.0, 1.0)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: importance.exact(TOY, np.ones(24)), "all values are the same"),
        (lambda: importance.exact(TOY, np.ones(23)), "one value a setting"),
        (lambda: importance.exact(TOY, np.where(np.arange(24) < 3, np.nan, 1.0)), "3 settings have no value"),
        (lambda: importance.exact(TOY, np.arange(24.0), 0), "at least 1"),
        (lambda: importance.exact(REALS, np.ones(6)), "real dimensions"),
        (lambda: importance.from_history(jax.random.key(0), TOY, EVERY[:0], []), "empty history"),
        (lambda: importance.from_history(jax.random.key(0), TOY, EVERY, np.full(24, np.nan)), "empty history"),
        (lambda: importance.from_history(jax.random.key(0), TOY, EVERY, np.ones(24)), "all scores are the same"),
        (lambda: importance.from_history(jax.random.key(0), TOY, EVERY, np.arange(24), trees=5), "at least 32"),
        (lambda: importance.from_history(jax.random.key(0), TOY, EVERY + 9, np.arange(24)), "outside the space"),
        (lambda: importance.unique(TOY, EVERY, [1.0]), "one score an architecture"),
        (lambda: importance.unique(TOY, EVERY[:, :2], np.ones(24)), "integers"),
        (lambda: importance.history(TOY, ()), "empty history"),
        (lambda: importance.history(TOY, (None,)), "empty history"),
        (lambda: motifs.motifs(TOY, EVERY[:0], []), "empty history"),
        (lambda: motifs.motifs(TOY, EVERY, np.arange(24), top=1.0), "best part"),
        (lambda: motifs.agreement(jax.random.key(0), TOY, EVERY[:1]), "at least two runs"),
    ],
)
def test_bad_input_gets_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


# The real table


@functools.cache
def cells():
    return np.asarray(nb201_file.load()["ops"], np.int32), nb201_file.column("test_acc_200", 0)


@nb201_file.needs_file
def test_the_shares_of_the_real_table_sum_to_one():
    values = rows(BENCH, cells()[0], {"accuracy": cells()[1]})["accuracy"]
    found = importance.exact(BENCH, values, 6).shares
    assert len(found) == 63 and min(found.values()) > -1e-9
    assert abs(sum(found.values()) - 1) < 1e-9
    alone = [found[d,] for d in range(6)]
    assert np.argmax(alone) == 3 and 0.25 < sum(alone) < 0.33  # 0->3, from the input to the output


@nb201_file.needs_file
def test_convolutions_and_a_skip_make_the_best_cells():
    found = motifs.motifs(BENCH, *cells(), top=0.01, size=2)
    label = importance.names(BENCH)
    texts = [{f"{label[d][0]} {label[d][1][v]}" for d, v in zip(m.decisions, m.values, strict=True)} for m in found]
    assert texts[0] == {"0->1 nor_conv_3x3", "0->3 skip_connect"} and found[0].p < 1e-50 and found[0].lift > 10
    assert {text.split()[1] for several in texts[:5] for text in several} == {"nor_conv_3x3", "skip_connect"}


@nb201_file.needs_file
def test_a_forest_on_500_cells_sees_what_the_table_says():
    ops, accuracy = cells()
    some = np.random.default_rng(0).permutation(len(ops))[:500]
    found = importance.from_history(jax.random.key(0), BENCH, ops[some], accuracy[some], trees=32)
    exact = importance.exact(BENCH, rows(BENCH, ops, {"accuracy": accuracy})["accuracy"]).shares
    assert np.corrcoef([found.shares[s] for s in exact], list(exact.values()))[0, 1] > 0.85
