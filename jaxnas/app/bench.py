"""Comparing algorithms on tables: regret curves over queries and over simulated time, and rank tests.

    regret(q) = best test score of the table - test score of the architecture with the best accuracy among the first q queries

A search sees only the accuracy; the test score of its answer is looked up afterwards.  All seeds of one algorithm on one
table are one compiled program.

Axes: S seeds, Q queries.
"""

import contextlib
import csv
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.app.config import check_seed, empty
from jaxnas.app.methods import METHODS
from jaxnas.base import AskTell, Batch, asks_for, black_box
from jaxnas.driver.loop import compiler_options
from jaxnas.evaluate._table import table
from jaxnas.evaluate.benchmark import Benchmark
from jaxnas.spaces._space import Space

Make = Callable[[Space, int], AskTell]  # (space, budget) -> algorithm


def algorithm(name: str) -> Make:
    """A strategy that asks for architectures, with its default settings.

    Raises:
        ValueError: for a name that is no such strategy; when made, for a space that it cannot make sense of.
    """
    method = METHODS.find(name)
    if method.algorithm is None or method.asks != "architectures":
        raise ValueError(f"{name} asks no table for architectures: compare others, such as random, aging or bananas")

    def make(space, budget):
        return method.algorithm(space, budget, method.settings(), _no_cost)

    return make


def algorithms(space: Space, budget: int) -> list[str]:
    """The strategies that can be compared on a table of this space: they ask for architectures and want nothing it lacks."""
    names = []
    for name in METHODS:
        with contextlib.suppress(ValueError):
            algorithm(name)(space, budget)
            names.append(name)
    return names


def _no_cost(gates):
    raise ValueError("a table has no multiply-adds: compare algorithms that want none")


class History(NamedTuple):
    index: np.ndarray  # int32[S, Q]: what was asked, by `space.index`
    compiling: float  # s
    seconds: float  # s, all seeds, compiling apart


def search(key: jax.Array, make: Make, benchmark: Benchmark, *, queries: int, seeds: int, at_once: int | None = None) -> History:
    """Runs `seeds` searches of `queries` queries each.

    Args:
        key: consumed; a search's key does not depend on the number of seeds at once.
        make: `algorithm(name)`, or your own.
        benchmark: the table.
        queries, seeds: how many.
        at_once: seeds side by side; default: all (a fitted model needs memory for each).

    Raises:
        ValueError: for fewer than one query or seed, fewer queries than the algorithm asks for at once, or a table that has
            less than a third of the space: what is not in it can be asked for.
    """
    there = int(np.sum(np.isfinite(benchmark.fixed["accuracy"])))
    if 3 * there < len(benchmark.test):
        raise ValueError(
            f"{benchmark.name} has {there} of the {len(benchmark.test)} architectures that a search may ask for: "
            "give a table of the whole space (jaxnas tabulate --architectures 0)"
        )
    if queries < 1 or seeds < 1:
        raise ValueError(f"a comparison needs at least one query and one seed; got {queries} and {seeds}")
    asking = make(benchmark.space, queries)
    strategy = black_box(asking, table(benchmark.space))
    asked = asks_for(asking)
    if asked > queries:
        raise ValueError(f"this algorithm asks for {asked} candidates at once: give at least {asked} queries, not {queries}")

    def one(key, fixed):
        k_init, k_steps = jax.random.split(key)

        def step(state, t):
            state, info = strategy.step(jax.random.fold_in(k_steps, t), state, Batch(fixed=fixed))
            return state, jax.vmap(benchmark.space.index)(info.archs)

        return jax.lax.scan(step, strategy.init(k_init), jnp.arange(-(-queries // asked)))[1].reshape(-1)[:queries]

    keys = jax.random.split(key, seeds)
    run = lambda keys, fixed: jax.lax.map(lambda k: one(k, fixed), keys, batch_size=at_once or seeds)
    started = time.perf_counter()
    compiled = jax.jit(run, compiler_options=compiler_options()).lower(keys, benchmark.fixed).compile()
    ready = time.perf_counter()
    index = np.asarray(compiled(keys, benchmark.fixed))
    return History(index, ready - started, time.perf_counter() - ready)


def regret_curve(benchmark: Benchmark, index: np.ndarray) -> np.ndarray:
    """float64[S, Q]: the regret of the answer after each query; NaN before the first that has a result."""
    seen = np.asarray(benchmark.fixed["accuracy"], np.float64)[index]  # [S, Q]
    seen = np.where(np.isfinite(seen), seen, -np.inf)
    record = np.maximum.accumulate(seen, 1)
    new = seen > np.concatenate([np.full((len(seen), 1), -np.inf), record[:, :-1]], 1)
    at = np.maximum.accumulate(np.where(new, np.arange(seen.shape[1]), 0), 1)  # the query that gave the answer
    test = benchmark.test[np.take_along_axis(index, at, 1)]
    return np.where(np.isfinite(record), np.nanmax(benchmark.test) - test, np.nan)


def over_time(benchmark: Benchmark, index: np.ndarray, regrets: np.ndarray, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """(seconds [points], regret [S, points]): what the answer is worth once so much simulated time is spent.

    Raises:
        ValueError: for a table without costs.
    """
    if benchmark.cost is None:
        raise ValueError(f"{benchmark.name} has no costs: compare over queries")
    spent = np.cumsum(np.nan_to_num(benchmark.cost[index]), 1)  # [S, Q]
    grid = np.linspace(spent[:, 0].max(), spent[:, -1].min(), points)  # from where all have an answer to where one is done
    done = np.stack([np.searchsorted(row, grid, side="right") for row in spent]) - 1  # [S, points]
    return grid, np.take_along_axis(regrets, done, 1)


class Line(NamedTuple):
    """One algorithm on one table, after the last query."""

    table: str
    algorithm: str
    seeds: int
    test: float  # mean of the answers' test score
    spread: float  # standard deviation over seeds
    regret: float  # mean
    low: float  # its 95 % interval
    high: float
    better: float  # share of pairs of seeds in which it beats random search, ties counted half; NaN without one
    p: float  # two-sided Mann-Whitney against random search, Holm-corrected over the table's algorithms; NaN without one


def summarise(name: str, benchmark: Benchmark, regrets: dict[str, np.ndarray]) -> list[Line]:
    """The results table of one benchmark, best mean first.  `regrets`: {algorithm: [S, Q]}."""
    from scipy import stats

    from jaxnas.analysis.ranking import interval

    final = {algorithm: r[:, -1][np.isfinite(r[:, -1])] for algorithm, r in regrets.items()}
    against = {}
    if "random" in final:
        for algorithm, values in final.items():
            if algorithm != "random":
                u, p = stats.mannwhitneyu(final["random"], values, alternative="two-sided")
                against[algorithm] = (u / (len(values) * len(final["random"])), p)
    holm, worst = {}, 0.0
    for rank, algorithm in enumerate(sorted(against, key=lambda a: against[a][1])):
        worst = max(worst, min(1.0, (len(against) - rank) * against[algorithm][1]))
        holm[algorithm] = worst
    lines = []
    for algorithm, values in final.items():
        (mean,), (half,) = interval(values[:, None])
        test, share = np.nanmax(benchmark.test) - values, against.get(algorithm, (np.nan,))[0]
        spread = float(test.std(ddof=1)) if len(test) > 1 else np.nan
        numbers = (test.mean(), spread, mean, mean - half, mean + half, share, holm.get(algorithm, np.nan))
        lines.append(Line(name, algorithm, len(values), *map(float, numbers)))
    return sorted(lines, key=lambda line: line.regret)


def results_table(lines: list[Line]) -> str:
    """The results table as text."""
    out = ["| table | algorithm | seeds | test | regret (95 %) | beats random | p |", "|---|---|---|---|---|---|---|"]
    for line in lines:
        beats, p = ("", "") if np.isnan(line.p) else (f"{100 * line.better:.0f} %", f"{line.p:.1g}")
        band = f"{line.regret:.3f} ({line.low:.3f} to {line.high:.3f})"
        out.append(
            f"| {line.table} | {line.algorithm} | {line.seeds} | {line.test:.3f} ± {line.spread:.2f} | {band} | {beats} | {p} |"
        )
    return "\n".join(out)


def compare_algorithms(
    out: str | pathlib.Path,
    benchmarks: list[Benchmark],
    names: list[str],
    *,
    queries: int = 150,
    seeds: int = 100,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Line]:
    """Runs every algorithm on every table; writes curves.csv, results.csv, results.md and a picture of each table to `out`.

    Raises:
        ValueError: for a name that is no such algorithm, a seed out of range, or what `search` refuses.
        FileExistsError, PermissionError: as `jaxnas.app.config.empty`.
    """
    from jaxnas import plot
    from jaxnas.analysis.ranking import interval

    makes = {name: algorithm(name) for name in names}
    check_seed(seed)
    with empty(out) as out:
        lines, curves = [], []
        for b in benchmarks:
            compared = makes or {name: algorithm(name) for name in algorithms(b.space, queries)}
            by_query, by_time = {}, {}
            for name, make in compared.items():
                history = search(jax.random.key(seed), make, b, queries=queries, seeds=seeds, at_once=METHODS[name].at_once)
                regrets = regret_curve(b, history.index)
                by_query[name] = (np.arange(1, queries + 1), regrets)
                if b.cost is not None:
                    by_time[name] = over_time(b, history.index, regrets)
                mean, half = interval(regrets)
                curves += [(b.name, name, q + 1, m, m - h, m + h) for q, (m, h) in enumerate(zip(mean, half, strict=True))]
                say(f"{b.name}: {name}, {seeds} seeds in {history.seconds:.1f} s, compiled in {history.compiling:.1f} s")
            found = summarise(b.name, b, {name: r for name, (_, r) in by_query.items()})
            lines += found
            for kind, data in (("queries", by_query), ("time", by_time)):
                if data:
                    label = "queries" if kind == "queries" else "simulated time (s)"
                    figure = plot.regret(data, title=b.name, xlabel=label)
                    for suffix in ("png", "svg"):
                        plot.save(figure, out / f"{b.name.replace(':', '-').replace('/', '-')}-{kind}.{suffix}")
        _csv(out / "curves.csv", ("table", "algorithm", "query", "regret", "low", "high"), curves)
        _csv(out / "results.csv", Line._fields, lines)
        (out / "results.md").write_text(results_table(lines) + "\n")
        return lines


def _csv(path, header, lines):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(lines)
