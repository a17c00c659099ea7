"""Aging evolution on the NAS-Bench-201 table, 100 seeds as one program, against a plain Python loop of the same algorithm.

    python experiments/peers/aging_evolution.py

P = 10, S = 3, 1,000 evaluations a seed.  The loop is plain Python at its best: tuples in a deque, a dictionary for the
table, the `random` module (a NumPy generator is slower for draws this small).  Repetitions are interleaved; medians.

2 cores of an AMD EPYC (family 26), otherwise idle, jax 0.10.2.

Results: docs/results.md#aging-evolution-against-plain-python
"""

import random
import statistics
import time
from collections import deque
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.ask_tell import aging_evolution
from jaxnas.base import Batch, black_box
from jaxnas.evaluate import rows, table
from jaxnas.spaces import nasbench201

FILE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "nb201.npz"
POPULATION, TOURNAMENT, STEPS, SEEDS, REPETITIONS = 10, 3, 1_000, 100, 9
NODES = ((0,), (1, 2), (3, 4, 5))  # the edges into each node


def plain(accuracy, seed):
    """The best accuracy of one search."""
    draw, queue, best = random.Random(seed), deque(), -1.0
    for t in range(STEPS):
        if t < POPULATION:
            arch = tuple(draw.randrange(5) for _ in range(6))
        else:
            arch = max(queue[draw.randrange(POPULATION)] for _ in range(TOURNAMENT))[1]
            edge = draw.choice(draw.choice(NODES))
            op = draw.randrange(4)
            arch = (*arch[:edge], op + (op >= arch[edge]), *arch[edge + 1 :])
            queue.popleft()
        fitness = accuracy[arch]
        queue.append((fitness, arch))
        best = max(best, fitness)
    return best


def program(strategy):
    """(keys [seeds], fixed) -> the best accuracy of each seed."""

    def search(key, fixed):
        k_init, k_steps = jax.random.split(key)
        step = lambda t, state: strategy.step(jax.random.fold_in(k_steps, t), state, Batch(fixed=fixed))[0]
        return jax.lax.fori_loop(0, STEPS, step, strategy.init(k_init)).best_score

    return jax.jit(jax.vmap(search, (0, None)))


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main():
    with np.load(FILE) as file:
        ops, accuracy = file["ops"], file["val_acc_12"][:, 0]
    space = nasbench201()
    fixed = rows(space, ops, {"accuracy": accuracy})
    search = program(black_box(aging_evolution(space, POPULATION, TOURNAMENT), table(space)))
    runs, best, compiled_in = {}, {}, {"plain Python": 0.0}

    look_up = {tuple(map(int, arch)): float(value) for arch, value in zip(ops, accuracy, strict=True)}
    runs["plain Python"] = lambda: [plain(look_up, seed) for seed in range(SEEDS)]
    for name in ("threefry2x32", "philox4x32"):
        keys = jax.random.split(jax.random.key(0, impl=name), SEEDS)
        start = time.perf_counter()
        compiled = search.lower(keys, fixed).compile()
        compiled_in[f"jaxnas, {name}"] = time.perf_counter() - start
        runs[f"jaxnas, {name}"] = lambda compiled=compiled, keys=keys: jax.block_until_ready(compiled(keys, fixed))

    times = {name: [] for name in runs}
    for name, run in runs.items():  # once unmeasured
        best[name] = float(jnp.mean(jnp.asarray(run())))
    for _ in range(REPETITIONS):
        for name, run in runs.items():
            times[name].append(seconds(run))
    rate = {name: SEEDS * STEPS / statistics.median(t) for name, t in times.items()}
    print(f"{'':22s}{'evaluations/s':>14s}{'ratio':>8s}{'compile s':>11s}{'mean best':>11s}")
    for name in runs:
        ratio = rate[name] / rate["plain Python"]
        print(f"{name:22s}{rate[name]:14,.0f}{ratio:8.1f}{compiled_in[name]:11.1f}{best[name]:11.3f}")


if __name__ == "__main__":
    main()
