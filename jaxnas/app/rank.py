"""Which estimate of an architecture's worth to trust: scores of many against a reference, as a table and pictures.

`judge` is for scores that you have, whatever they come from; `scored` makes those of zero-cost proxies, `rank_proxies` on a
benchmark's space.

Axes: N architectures, S batches, B batch.
"""

import csv
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.analysis.ranking import Ranking, ranking
from jaxnas.base import Arch, Batch, Key
from jaxnas.data.dataset import Dataset
from jaxnas.data.feed import batches
from jaxnas.driver.loop import compiler_options
from jaxnas.evaluate.benchmark import Benchmark
from jaxnas.evaluate.proxies import zero_cost
from jaxnas.nets.base import Net
from jaxnas.proxies import LOWEST, TOGETHER


def judge(key: Key, scores: Mapping[str, np.ndarray], truth: ArrayLike, k: int = 10) -> dict[str, Ranking]:
    """The rank quality of each score [N] against the truth [N], all over the same resamples.

    Raises:
        ValueError: for no score, or as `ranking`.
    """
    if not scores:
        raise ValueError("give at least one score: {name: [N]}")
    return {name: ranking(jax.random.clone(key), values, truth, k) for name, values in scores.items()}  # the same for all


def markdown(judged: Mapping[str, Ranking], k: int = 10) -> str:
    """A table: value (95 % of the bootstrap over architectures)."""
    head = ("score", "Spearman", "Kendall", f"recall of the top {k}", f"regret of the top {k}", "architectures")
    show = lambda e: f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})"
    count = lambda r: f"{r.count}" + f" ({r.failed} failed)" * (r.failed > 0)
    rows = [(name, *map(show, (r.spearman, r.tau, r.recall, r.regret)), count(r)) for name, r in judged.items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))


def write(
    out: str | pathlib.Path,
    archs: Iterable[str],
    scores: Mapping[str, np.ndarray],
    truth: Sequence[float] | np.ndarray,
    judged: Mapping[str, Ranking],
    k: int = 10,
) -> None:
    """results.md, scores.csv (a line an architecture) and a scatter plot of each score into the directory `out`."""
    from jaxnas import plot

    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.md").write_text(markdown(judged, k) + "\n")
    with open(out / "scores.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("architecture", "truth", *scores))
        writer.writerows(zip(archs, truth, *scores.values(), strict=True))
    for name, values in scores.items():
        values = np.asarray(values, float)
        drawn = np.where(values > LOWEST, values, np.nan)  # the lowest score is no place on an axis
        if np.isfinite(drawn).sum() > 1:
            plot.save(plot.scatter(drawn, truth, title=name, xlabel=name), out / f"{name}.png")


def scored(
    key: jax.Array,
    net: Net,
    archs: Arch,
    data: tuple,
    proxies: Sequence[str],
    *,
    draw: str | None = None,
    own: bool = False,
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
        draw, own: as in `zero_cost`.
        chunk: architectures of a call, and between two lines to a person.
        say: takes a line.

    Raises:
        ValueError: for no proxy, an unknown one, or batches that one can not use.
    """
    if not proxies:
        raise ValueError("give at least one proxy: see jaxnas list")
    together = lambda name: next((names for names in TOGETHER if name in names), (name,))
    groups = [[name for name in proxies if together(name) == names] for names in dict.fromkeys(map(together, proxies))]
    evaluators = [zero_cost(net, *names, draw=draw, own=own) for names in groups]  # refuses before anything is computed
    N, scores = len(jax.tree.leaves(archs)[0]), {}
    keys = jax.random.split(jax.random.clone(key), N)  # of each candidate, whatever the chunk
    for names, evaluator in zip(groups, evaluators, strict=True):
        variables, began, found = jax.jit(evaluator.init)(jax.random.clone(key)), time.perf_counter(), []

        def score(keys, variables, archs, data, evaluator=evaluator):
            one = lambda k, arch: evaluator.step(k, variables, jax.tree.map(lambda a: a[None], arch), Batch(train=data))[1]
            return jax.lax.map(lambda candidate: jax.tree.map(lambda a: a[0], one(*candidate)), (keys, archs))

        compiled = jax.jit(score, compiler_options=compiler_options())
        for start in range(0, N, chunk):
            at = np.minimum(start + np.arange(min(chunk, N)), N - 1)  # the last chunk is filled up: one compiled program
            some = jax.tree.map(lambda a: a[at], archs)
            found.append(jax.tree.map(np.asarray, compiled(keys[at], variables, some, data)))
            say(f"{', '.join(names)}: {min(start + chunk, N)} of {N} in {time.perf_counter() - began:.1f} s")
        scores |= {name: np.concatenate([part[name] for part in found])[:N] for name in names}
    return {name: scores[name] for name in proxies}


def rank_proxies(
    key: jax.Array,
    net: Net,
    dataset: Dataset,
    benchmark: Benchmark,
    proxies: Sequence[str],
    *,
    architectures: int = 100,
    batch: int = 64,
    own: bool = False,
    k: int = 10,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[str], dict[str, np.ndarray], np.ndarray]:
    """-> (texts [N], {proxy: [N]}, what the benchmark reports [N]) of architectures drawn from its rows.

    Args:
        key: of the draw of architectures, weights and batches.
        net: the supernet of the benchmark's space.
        dataset: the batches are of its train half.
        benchmark: the reference.
        proxies: names of `jaxnas.proxies.PROXIES`.
        architectures: N; fewer if there are fewer.
        batch: examples of each of the two batches.
        own: as in `zero_cost`.
        k: of the ranking to come, which needs as many architectures.
        say: takes a line.

    Raises:
        ValueError: for sizes below 2, a k that is not in 1 to N, or as `scored` and `batches`.
    """
    there = np.flatnonzero(np.isfinite(benchmark.test))
    N = min(architectures, len(there))
    if N < 2 or batch < 2:
        raise ValueError(f"a ranking needs at least two architectures and two examples a batch; got {N} and {batch}")
    if not 1 <= k <= N:
        raise ValueError(f"the top {k} of {N} architectures: give a k (--top) in 1 to {N}")
    k_rows, k_batch, k_draw = jax.random.split(key, 3)
    rows = np.sort(np.random.default_rng(np.asarray(jax.random.bits(k_rows, (4,)))).permutation(there)[:N])
    space, feed = net.space, batches(dataset, batch, weight_steps=2, arch_steps=0)
    archs = jax.vmap(space.from_index)(jnp.asarray(rows))
    data = jax.jit(feed.draw)(k_batch, feed.arrays, jnp.zeros((), jnp.int32)).train
    scores = scored(k_draw, net, archs, data, proxies, own=own, say=say)
    texts = [space.to_text(jax.tree.map(lambda a: np.asarray(a[i]), archs)) for i in range(N)]
    return texts, scores, benchmark.test[rows]
