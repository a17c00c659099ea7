"""What searches of a table were worth: regret over queries and over simulated time, and rank tests.

    regret(q)    = best score of the table - score of the architecture with the best accuracy among the first q queries
    equal cost   = the regret once as much simulated time is spent as the cheapest of all searches compared has spent in all
    missing      = the share of the queries that hit no row of the table

Host-side functions of plain arrays.

Axes: S seeds, Q queries.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxnas.evaluate.benchmark import Benchmark


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
