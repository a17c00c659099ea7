"""Comparing algorithms on tables: regret curves over queries and over simulated time, and rank tests.

    regret(q)    = best score of the table - score of the architecture with the best accuracy among the first q queries
    equal cost   = the regret once as much simulated time is spent as the cheapest of all searches compared has spent in all
    missing      = the share of the queries that hit no row of the table

A search sees only the accuracy; the score that is reported of its answer is looked up afterwards.  All seeds of one algorithm
on one table are one compiled program.  What each search has asked for is kept as soon as it is known, so that a comparison that is
cut goes on where it was.

Axes: S seeds, Q queries.
"""

import contextlib
import csv
import functools
import io
import json
import os
import pathlib
import time
import zlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.app.config import check_seed, empty
from jaxnas.app.methods import METHODS
from jaxnas.app.settings import read_settings
from jaxnas.base import AskTell, Batch, asks_for, black_box
from jaxnas.driver.loop import compiler_options
from jaxnas.evaluate._table import table
from jaxnas.evaluate.benchmark import Benchmark
from jaxnas.spaces._space import Space

Make = Callable[[Space, int], AskTell]  # (space, budget) -> algorithm


def algorithm(name: str) -> Make:
    """A strategy that asks for architectures, by its name, with its default settings or others: q-learning:alpha=0.01,replay=64.

    Raises:
        ValueError: for a name that is no such strategy, or settings that it has not; when made, for a space that it cannot make
            sense of.
    """
    method, settings = _method(name)
    made: Any = method.algorithm

    def make(space, budget):
        return made(space, budget, settings, _no_cost)

    return make


def _method(name):
    """(the strategy of a name, its settings)."""
    plain, colon, given = name.partition(":")
    method = METHODS.find(plain)
    if method.algorithm is None or method.asks != "architectures":
        raise ValueError(f"{plain} asks no table for architectures: compare others, such as random, aging or bananas")
    values = {}
    for pair in given.split(",") if colon else ():
        setting, _, value = pair.partition("=")
        try:
            values[setting] = json.loads(value)
        except ValueError:
            values[setting] = value
    return method, read_settings(method.settings, values, name)


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


def search(
    key: jax.Array,
    make: Make,
    benchmark: Benchmark,
    *,
    queries: int,
    seeds: int,
    at_once: int | None = None,
    known: Mapping[int, np.ndarray] | None = None,
    keep: Callable[[dict[int, np.ndarray]], None] = lambda found: None,
) -> History:
    """Runs `seeds` searches of `queries` queries each.

    Args:
        key: consumed; a search's key does not depend on the number of seeds at once.
        make: `algorithm(name)`, or your own.
        benchmark: the table.
        queries, seeds: how many.
        at_once: seeds side by side; default: all (a fitted model needs memory for each).
        known: {seed: int32[Q]}, what an earlier run has asked: seeds side by side that are all in it are not run again.
        keep: takes {seed: int32[Q]} of those that have just been run.

    Raises:
        ValueError: for fewer than one query or seed, or fewer queries than the algorithm asks for at once.
    """
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

    keys, side = jax.random.split(key, seeds), min(at_once or seeds, seeds)
    found, compiling, seconds, compiled = dict(known or {}), 0.0, 0.0, None
    for start in range(0, seeds, side):
        of = range(start, min(start + side, seeds))
        if all(seed in found for seed in of):
            continue
        began = time.perf_counter()
        some = keys[np.minimum(start + np.arange(side), seeds - 1)]  # the last part is filled up: one compiled program
        if compiled is None:
            run = jax.jit(jax.vmap(one, (0, None)), compiler_options=compiler_options())
            compiled = run.lower(some, benchmark.fixed).compile()
            compiling = time.perf_counter() - began
            began = time.perf_counter()
        index = np.asarray(compiled(some, benchmark.fixed))
        seconds += time.perf_counter() - began
        new = dict(zip(of, index, strict=False))  # the rest fills up
        keep({seed: row for seed, row in new.items() if seed not in found})
        found |= new
    return History(np.stack([found[seed] for seed in range(seeds)]), compiling, seconds)


def regret_curve(benchmark: Benchmark, index: np.ndarray) -> np.ndarray:
    """float64[S, Q]: the regret of the answer after each query; NaN before the first that has a result."""
    seen = np.asarray(benchmark.fixed["accuracy"], np.float64)[index]  # [S, Q]
    seen = np.where(np.isfinite(seen), seen, -np.inf)
    record = np.maximum.accumulate(seen, 1)
    new = seen > np.concatenate([np.full((len(seen), 1), -np.inf), record[:, :-1]], 1)
    at = np.maximum.accumulate(np.where(new, np.arange(seen.shape[1]), 0), 1)  # the query that gave the answer
    test = benchmark.test[np.take_along_axis(index, at, 1)]
    return np.where(np.isfinite(record), np.nanmax(benchmark.test) - test, np.nan)


def missing(benchmark: Benchmark, index: np.ndarray) -> float:
    """The share of the queries index [S, Q] that hit no row."""
    return float(np.mean(~np.isfinite(np.asarray(benchmark.fixed["accuracy"])[index])))


def spent(benchmark: Benchmark, index: np.ndarray) -> np.ndarray:
    """float64[S, Q]: the simulated seconds after each query; one that hit no row costs what a row costs in the mean.

    Raises:
        ValueError: for a table without costs.
    """
    if benchmark.cost is None:
        raise ValueError(f"{benchmark.name} has no costs: compare over queries")
    return np.cumsum(np.where(np.isfinite(benchmark.cost), benchmark.cost, np.nanmean(benchmark.cost))[index], 1)


def regret_at(benchmark: Benchmark, index: np.ndarray, regrets: np.ndarray, seconds: float) -> np.ndarray:
    """[S]: the regret of the answer once so much simulated time is spent; NaN before the first query has ended."""
    done = np.sum(spent(benchmark, index) <= seconds, 1)  # queries
    return np.where(done > 0, np.take_along_axis(regrets, np.maximum(done - 1, 0)[:, None], 1)[:, 0], np.nan)


def over_time(benchmark: Benchmark, index: np.ndarray, regrets: np.ndarray, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """(seconds [points], regret [S, points]): what the answer is worth once so much simulated time is spent.

    Raises:
        ValueError: for a table without costs.
    """
    so_far = spent(benchmark, index)  # [S, Q]
    grid = np.linspace(so_far[:, 0].max(), so_far[:, -1].min(), points)  # from where all have an answer to where one is done
    done = np.stack([np.searchsorted(row, grid, side="right") for row in so_far]) - 1  # [S, points]
    return grid, np.take_along_axis(regrets, done, 1)


class Line(NamedTuple):
    """One algorithm on one table, after the last query."""

    table: str
    algorithm: str
    seeds: int
    reported: str  # what the score is, in words
    score: float  # mean over the answers
    spread: float  # standard deviation over seeds
    regret: float  # mean
    low: float  # its 95 % interval
    high: float
    better: float  # share of pairs of seeds in which it beats random search, ties counted half; NaN without one
    p: float  # two-sided Mann-Whitney against random search, Holm-corrected over the table's algorithms; NaN without one
    missing: float = 0.0  # share of the queries that hit no row
    equal_cost: float = np.nan  # mean regret after `seconds`; NaN for a table without costs
    seconds: float = np.nan  # of simulated time: what the cheapest of all searches of the table has spent


def summarise(
    name: str, benchmark: Benchmark, regrets: dict[str, np.ndarray], asked: Mapping[str, np.ndarray] | None = None
) -> list[Line]:
    """The results table of one benchmark, best mean first.

    Args:
        name: of the benchmark.
        benchmark: the table.
        regrets: {algorithm: [S, Q]}.
        asked: {algorithm: int32[S, Q]}, what `search` asked: for the share of missing rows and the regret at equal cost.
    """
    from scipy import stats

    from jaxnas.analysis.ranking import interval

    final = {algorithm: r[:, -1][np.isfinite(r[:, -1])] for algorithm, r in regrets.items()}
    against = {}
    if len(final.get("random", ())):
        for algorithm, values in final.items():
            if algorithm != "random" and len(values):
                u, p = stats.mannwhitneyu(final["random"], values, alternative="two-sided")
                against[algorithm] = (u / (len(values) * len(final["random"])), p)
    holm, worst = {}, 0.0
    for rank, algorithm in enumerate(sorted(against, key=lambda a: against[a][1])):
        worst = max(worst, min(1.0, (len(against) - rank) * against[algorithm][1]))
        holm[algorithm] = worst
    asked, seconds = asked or {}, np.nan
    if asked and benchmark.cost is not None:
        seconds = float(min(spent(benchmark, index)[:, -1].min() for index in asked.values()))
    lines = []
    for algorithm, values in final.items():
        (mean,), (half,) = interval(values[:, None])
        score, share = np.nanmax(benchmark.test) - values, against.get(algorithm, (np.nan,))[0]
        spread = float(score.std(ddof=1)) if len(score) > 1 else np.nan
        numbers = (interval(score[:, None])[0][0], spread, mean, mean - half, mean + half, share, holm.get(algorithm, np.nan))
        line = Line(name, algorithm, len(values), benchmark.reported, *map(float, numbers))
        if algorithm in asked:
            line = line._replace(missing=missing(benchmark, asked[algorithm]))
        if algorithm in asked and benchmark.cost is not None:
            then = regret_at(benchmark, asked[algorithm], regrets[algorithm], seconds)
            line = line._replace(equal_cost=float(interval(then[:, None])[0][0]), seconds=seconds)
        lines.append(line)
    return sorted(lines, key=lambda line: (np.isnan(line.regret), line.regret))


def results_table(lines: list[Line]) -> str:
    """The results table as text: what a score is heads its column where all tables report the same, and stands below otherwise."""
    words = {line.table: line.reported for line in lines}
    one = set(words.values())
    columns = ["table", "algorithm", "seeds", one.pop() if len(one) == 1 else "score", "regret (95 %)", "beats random", "p"]
    holes, costs = any(line.missing > 0 for line in lines), any(np.isfinite(line.seconds) for line in lines)
    columns += ["regret at equal cost"] * costs + ["queries without a row"] * holes
    rows = [columns, ["---"] * len(columns)]
    for line in lines:
        beats, p = ("", "") if np.isnan(line.p) else (f"{100 * line.better:.0f} %", f"{line.p:.1g}")
        band = f"{line.regret:.3f} ({line.low:.3f} to {line.high:.3f})"
        row = [line.table, line.algorithm, str(line.seeds), f"{line.score:.3f} ± {line.spread:.2f}", band, beats, p]
        row += [f"{line.equal_cost:.3f}" if np.isfinite(line.seconds) else ""] * costs
        rows.append(row + [f"{100 * line.missing:.0f} %"] * holes)
    out = ["| " + " | ".join(row) + " |" for row in rows]
    out[1] = "|" + "---|" * len(columns)
    notes = [f"{table}: the score is {reported}." for table, reported in words.items()] if len(set(words.values())) > 1 else []
    at = {line.table: line.seconds for line in lines if np.isfinite(line.seconds)}
    notes += [f"{table}: equal cost is {seconds:,.0f} s of simulated time." for table, seconds in at.items()]
    return "\n".join([*out, *([""] if notes else []), *notes])


class Kept:
    """What the searches of a comparison have asked: searches.jsonl, one line a search, and bench.json, which says of what.

    A line is written at once, when its search is known.  A last line that was cut short is dropped.
    """

    def __init__(self, directory: pathlib.Path, made: dict) -> None:
        """Raises FileExistsError for a directory that holds anything but the same comparison, not finished."""
        self.directory, self.made = directory, made
        self.file, self.lines = directory / "searches.jsonl", []
        names = {p.name for p in directory.iterdir()} if directory.is_dir() else set()
        if not names - {"bench.json.part"}:
            return
        if "bench.json" not in names or "results.csv" in names:
            raise FileExistsError(f"{directory} exists: give another --out")
        try:
            held = json.loads((directory / "bench.json").read_text())
            differ = [name for name, value in json.loads(json.dumps(made)).items() if held[name] != value]
        except (OSError, ValueError, RecursionError, TypeError, KeyError):
            raise FileExistsError(f"{directory} exists, and its bench.json is damaged: give another --out") from None
        if differ:
            raise FileExistsError(f"{directory} exists and compares other {', '.join(differ)}: give another --out")
        for line in self.file.read_bytes().splitlines() if self.file.is_file() else ():
            try:
                kept = json.loads(line)
                seed, asked = kept["seed"], np.asarray(kept["asked"], np.int32)
                self.lines.append((kept["table"], kept["algorithm"], int(seed), asked))
            except (ValueError, RecursionError, TypeError, KeyError):
                break
        _replace(self.file, "".join(map(_line, self.lines)))

    def of(self, table: str, algorithm: str, queries: int) -> dict[int, np.ndarray]:
        """{seed: int32[Q]} of what is there."""
        return {s: asked for t, a, s, asked in self.lines if (t, a) == (table, algorithm) and asked.shape == (queries,)}

    def add(self, table: str, algorithm: str, found: Mapping[int, np.ndarray]) -> None:
        if not (self.directory / "bench.json").exists():
            _replace(self.directory / "bench.json", json.dumps(self.made, indent=2) + "\n")
        with open(self.file, "a") as file:
            file.write("".join(_line((table, algorithm, seed, row)) for seed, row in found.items()))


def _line(search):
    table, algorithm, seed, asked = search
    return json.dumps({"table": table, "algorithm": algorithm, "seed": seed, "asked": np.asarray(asked).tolist()}) + "\n"


def _replace(path, text):
    """Writes a file whole, then puts it in the place of the last one: a cut leaves the one or the other."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def _checksum(benchmark):
    """Of all that a search may see and that is reported."""
    columns = [np.asarray(c) for _, c in sorted(benchmark.fixed.items())] + [benchmark.test, benchmark.cost, benchmark.space.arity]
    return zlib.crc32(b"".join(np.ascontiguousarray(c).tobytes() for c in columns if c is not None))


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

    A directory that holds a part of the same comparison is gone on with: the searches that are in its searches.jsonl are not run
    again, and the results are those of a run that was not cut.

    Raises:
        ValueError: for a name that is no such algorithm, two tables of one name, a seed out of range, or what `search` refuses.
        FileExistsError, PermissionError: as `jaxnas.app.config.empty`; for a directory of another or of a finished comparison.
    """
    from jaxnas import __version__, plot
    from jaxnas.analysis.ranking import interval

    makes = {name: algorithm(name) for name in names}
    check_seed(seed)
    twice = {b.name for b in benchmarks if sum(b.name == other.name for other in benchmarks) > 1}
    if twice:
        raise ValueError(f"two tables are called {sorted(twice)[0]}: give each once, under a name of its own")
    made = {"tables": {b.name: _checksum(b) for b in benchmarks}, "algorithms": list(makes), "queries": queries, "seeds": seeds}
    made |= {"seed": seed, "version": __version__}
    compared = {b.name: makes or {name: algorithm(name) for name in algorithms(b.space, queries)} for b in benchmarks}
    with part_of(out, made) as kept:
        lines, curves = [], []
        for b in benchmarks:
            if b.there < b.of:
                say(f"{b.name}: {b.there:,} of {b.of:,} architectures have a row, isomorphic ones counted once")
            by_query, by_time, asked = {}, {}, {}
            for name, make in compared[b.name].items():
                how = dict(queries=queries, seeds=seeds, at_once=_method(name)[0].at_once)
                known, keep = kept.of(b.name, name, queries), functools.partial(kept.add, b.name, name)
                history = search(jax.random.key(seed), make, b, **how, known=known, keep=keep)
                regrets, asked[name] = regret_curve(b, history.index), history.index
                by_query[name] = (np.arange(1, queries + 1), regrets)
                if b.cost is not None:
                    by_time[name] = over_time(b, history.index, regrets)
                mean, half = interval(regrets)
                curves += [(b.name, name, q + 1, m, m - h, m + h) for q, (m, h) in enumerate(zip(mean, half, strict=True))]
                lost = f", {100 * missing(b, history.index):.0f} % of the queries hit no row" if b.there < b.of else ""
                took = f"{history.seconds:.1f} s, compiled in {history.compiling:.1f} s" if history.compiling else "no time: kept"
                say(f"{b.name}: {name}, {seeds} seeds in {took}{lost}")
            lines += summarise(b.name, b, {name: r for name, (_, r) in by_query.items()}, asked)
            for kind, data in (("queries", by_query), ("time", by_time)):
                data = {name: (x, r) for name, (x, r) in data.items() if np.isfinite(r).any()}  # those that hit a row at all
                if data:
                    label = "queries" if kind == "queries" else "simulated time (s)"
                    figure = plot.regret(data, title=b.name, xlabel=label, ylabel=f"regret: {b.reported}")
                    for suffix in ("png", "svg"):
                        plot.save(figure, kept.directory / f"{b.name.replace(':', '-').replace('/', '-')}-{kind}.{suffix}")
        directory = kept.directory
        _csv(directory / "curves.csv", ("table", "algorithm", "query", "regret", "low", "high"), curves)
        (directory / "results.md").write_text(results_table(lines) + "\n")
        _csv(directory / "results.csv", Line._fields, lines)  # the last: it says that all is there
        return lines


@contextlib.contextmanager
def part_of(out: str | pathlib.Path, made: dict) -> Generator[Kept, None, None]:
    """A directory for a comparison, new or with a part of it; removed again where nothing was kept.

    Raises:
        FileExistsError, PermissionError: as `Kept`, and as `jaxnas.app.config.empty`.
    """
    kept = Kept(pathlib.Path(out), made)
    if kept.directory.is_dir() and any(kept.directory.iterdir()):
        yield kept
        return
    with empty(out):
        yield kept


def _csv(path, header, lines):
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(lines)
    _replace(path, text.getvalue())
