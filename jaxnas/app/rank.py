"""Which estimate of an architecture's worth to trust: scores of many against a reference, as a table and pictures.

`rank_quality` is for scores that you have, whatever they come from; `scored` makes those of zero-cost proxies, of a `reference` for
instance: rows of a benchmark.

Axes: N architectures, S batches, B batch.
"""

import csv
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.analysis.ranking import Ranking, ranking
from jaxnas.base import Arch, Batch, Evaluator, Key
from jaxnas.data.dataset import Dataset
from jaxnas.data.feed import batches
from jaxnas.driver.program import compiler_options
from jaxnas.evaluate.benchmark import Benchmark
from jaxnas.evaluate.proxies import zero_cost
from jaxnas.nets.base import Net
from jaxnas.proxies import LOWEST, TOGETHER
from jaxnas.spaces._space import Space


def rank_quality(key: Key, scores: Mapping[str, np.ndarray], truth: ArrayLike, k: int = 10) -> dict[str, Ranking]:
    """The rank quality of each score [N] against the truth [N], all over the same resamples.

    Raises:
        ValueError: for no score, or as `ranking`.
    """
    if not scores:
        raise ValueError("give at least one score: {name: [N]}")
    return {name: ranking(jax.random.clone(key), values, truth, k) for name, values in scores.items()}  # the same for all


def quality_table(judged: Mapping[str, Ranking], k: int = 10) -> str:
    """A table: value (95 % of the bootstrap over architectures)."""
    head = ("score", "Spearman", "Kendall", f"recall of the top {k}", f"regret of the top {k}", "architectures")
    show = lambda e: f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})"
    count = lambda r: f"{r.count}" + f" ({r.failed} failed)" * (r.failed > 0)
    rows = [(name, *map(show, (r.spearman, r.tau, r.recall, r.regret)), count(r)) for name, r in judged.items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))


PART = ".part"  # of a directory of results: those that are not all there yet


def write(
    out: str | pathlib.Path,
    archs: Iterable[str],
    scores: Mapping[str, np.ndarray],
    truth: Sequence[float] | np.ndarray,
    judged: Mapping[str, Ranking],
    k: int = 10,
) -> None:
    """results.md, scores.csv (a line an architecture) and a scatter plot of each score into the directory `out`.

    They are made in its folder `.part` and moved when all are there: a kill before that leaves nothing else (`discard_part`).
    """
    from jaxnas import plot

    out, part = pathlib.Path(out), pathlib.Path(out) / PART
    part.mkdir(parents=True, exist_ok=True)
    (part / "results.md").write_text(quality_table(judged, k) + "\n")
    with open(part / "scores.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("architecture", "truth", *scores))
        writer.writerows(zip(archs, truth, *scores.values(), strict=True))
    for name, values in scores.items():
        values = np.asarray(values, float)
        drawn = np.where(values > LOWEST, values, np.nan)  # the lowest score is no place on an axis
        if np.isfinite(drawn).sum() > 1:
            plot.save(plot.scatter(drawn, truth, title=name, xlabel=name), part / f"{name}.png")
    for file in part.iterdir():
        file.replace(out / file.name)
    part.rmdir()


def discard_part(out: str | pathlib.Path) -> None:
    """Empties a directory that holds only what a killed `write` had begun."""
    directory = pathlib.Path(out)
    if directory.is_dir() and [p.name for p in directory.iterdir()] == [PART]:
        shutil.rmtree(directory / PART, ignore_errors=True)


def scored(
    key: jax.Array,
    net: Net,
    archs: Arch,
    data: tuple,
    proxies: Sequence[str],
    *,
    evaluator: Callable[..., Evaluator] = zero_cost,
    chunk: int = 10,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, np.ndarray]:
    """{proxy: [N]} of architectures, a chunk at a time; proxies that share a pass are scored in one.

    Args:
        key: of the draw of the weights.
        net: the supernet.
        archs: [N, ...].
        data: (x [S, B, ...], y [S, B]).
        proxies: names of `jaxnas.proxies.PROXIES`.
        evaluator: (net, *proxies) -> an evaluator of all of them; `partial(zero_cost, draw=, own=)` for another draw of weights.
        chunk: architectures of a call, and between two lines to a person.
        say: takes a line.

    Raises:
        ValueError: for no proxy, an unknown one, or batches that one can not use.
    """
    if not proxies:
        raise ValueError("give at least one proxy: see jaxnas list")
    together = lambda name: next((names for names in TOGETHER if name in names), (name,))
    groups = [[name for name in proxies if together(name) == names] for names in dict.fromkeys(map(together, proxies))]
    evaluators = [evaluator(net, *names) for names in groups]  # refuses before anything is computed
    N, scores = len(jax.tree.leaves(archs)[0]), {}
    keys = jax.random.split(jax.random.clone(key), N)  # of each candidate, whatever the chunk
    for names, of in zip(groups, evaluators, strict=True):
        variables, began, found = jax.jit(of.init)(jax.random.clone(key)), time.perf_counter(), []

        def score(keys, variables, archs, data, of=of):
            one = lambda k, arch: of.step(k, variables, jax.tree.map(lambda a: a[None], arch), Batch(train=data))[1]
            return jax.lax.map(lambda candidate: jax.tree.map(lambda a: a[0], one(*candidate)), (keys, archs))

        compiled = jax.jit(score, compiler_options=compiler_options())
        for start in range(0, N, chunk):
            at = np.minimum(start + np.arange(min(chunk, N)), N - 1)  # the last chunk is filled up: one compiled program
            some = jax.tree.map(lambda a: a[at], archs)
            found.append(jax.tree.map(np.asarray, compiled(keys[at], variables, some, data)))
            say(f"{', '.join(names)}: {min(start + chunk, N)} of {N} in {time.perf_counter() - began:.1f} s")
        scores |= {name: np.concatenate([part[name] for part in found])[:N] for name in names}
    return {name: scores[name] for name in proxies}


class Reference(NamedTuple):
    """Architectures of a benchmark, and what it reports of them."""

    archs: Arch  # [N, ...]
    texts: list[str]
    truth: np.ndarray  # [N]


def reference(key: jax.Array, space: Space, benchmark: Benchmark, n: int = 100, k: int = 10) -> Reference:
    """N rows of a benchmark, drawn: n, or all there are.

    Args:
        key: of the draw.
        space: of the rows.
        benchmark: where they are from.
        n: how many at most.
        k: of the ranking to come, which needs as many.

    Raises:
        ValueError: for fewer than two, or a k that is not in 1 to N.
    """
    there = np.flatnonzero(np.isfinite(benchmark.test))
    N = min(n, len(there))
    if N < 2:
        raise ValueError(f"a ranking needs at least two architectures; got {N}")
    if not 1 <= k <= N:
        raise ValueError(f"the top {k} of {N} architectures: give a k (--top) in 1 to {N}")
    rows = np.sort(np.random.default_rng(np.asarray(jax.random.bits(key, (4,)))).permutation(there)[:N])
    archs = jax.vmap(space.from_index)(jnp.asarray(rows))
    texts = [space.to_text(jax.tree.map(lambda a: np.asarray(a[i]), archs)) for i in range(N)]
    return Reference(archs, texts, benchmark.test[rows])


def two_batches(key: jax.Array, dataset: Dataset, size: int = 64) -> tuple:
    """(x [2, B, ...], y [2, B]) of the train half, for `scored`; ValueError for fewer than two examples, or as `batches`."""
    if size < 2:
        raise ValueError(f"a ranking needs at least two examples a batch; got {size}")
    feed = batches(dataset, size, weight_steps=2, arch_steps=0)
    return jax.jit(feed.draw)(key, feed.arrays, jnp.zeros((), jnp.int32)).train
