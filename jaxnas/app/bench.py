"""Comparing algorithms on tables: their searches, and the curves, tables and pictures of them; see `jaxnas.app.regret`.

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
import pathlib
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.app.asked import part_of
from jaxnas.app.methods import METHODS
from jaxnas.app.regret import Line, missing, over_time, regret_curve, results_table, summarise
from jaxnas.app.settings import read_settings
from jaxnas.base import AskTell, Batch, asks_for, black_box
from jaxnas.checks import require
from jaxnas.driver.files import write_whole
from jaxnas.driver.program import compiler_options
from jaxnas.evaluate._table import table
from jaxnas.evaluate.benchmark import Benchmark
from jaxnas.kinds import Seed
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
    plain = name.partition(":")[0]
    method = METHODS.find(plain)
    if method.algorithm is None or method.asks != "architectures":
        raise ValueError(f"{plain} asks no table for architectures: compare others, such as random, aging or bananas")
    return method, settings_of(name)


def settings_of(name: str) -> Any:
    """The settings of a strategy that is named with them, as q-learning:alpha=0.01,replay=64.

    Raises:
        ValueError: for a name that is no strategy, or settings that it has not.
    """
    plain, colon, given = name.partition(":")
    values = {}
    for pair in given.split(",") if colon else ():
        setting, _, value = pair.partition("=")
        try:
            values[setting] = json.loads(value)
        except ValueError:
            values[setting] = value
    return read_settings(METHODS.find(plain).settings, values, name)


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
    require(Seed, seed=seed)
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


def _csv(path, header, lines):
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(lines)
    write_whole(path, text.getvalue())
