"""NSGA-II: Deb, Pratap, Agarwal and Meyarivan, IEEE TEC 6, 2002.  Accuracy against multiply-adds on the NAS-Bench-201 table.

    python experiments/nsga2.py                       (extra `benchmarks`)

500 evaluations a search, 32 seeds.  Hypervolume of the last population (random search: of all it asked for), as a share of
the whole table's, with the standard error, and how many of the table's efficient cells were found.

Results: docs/results.md#nsga-ii
"""

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import ask_tell, objectives
from jaxnas.analysis import pareto
from jaxnas.base import Batch, black_box
from jaxnas.evaluate import rows, table
from jaxnas.evaluate.benchmark import find
from jaxnas.spaces import nasbench201

SEEDS, EVALUATIONS = 32, 500
REFERENCE = (0.0, -250.0)  # accuracy, million multiply-adds


def flops(ops):
    """Million multiply-adds of a cell's network, from the published ones of single operations."""
    return 7.78304 + 3.93216 * (ops == 2).sum(-1) + 35.38944 * (ops == 3).sum(-1)


def fronts(algorithm, objective, fixed, space):
    """float[seeds, asked, 2]: what every search asked for."""
    strategy = black_box(algorithm, table(space), objective)

    def one(key, fixed):
        k_init, k_steps = jax.random.split(key)

        def step(state, t):
            state, info = strategy.step(jax.random.fold_in(k_steps, t), state, Batch(fixed=fixed))
            return state, jnp.stack([info.metrics["accuracy"], info.metrics["flops"]], -1)

        asked = jax.lax.scan(step, strategy.init(k_init), jnp.arange(EVALUATIONS // 20))[1]
        return asked.reshape(-1, 2)

    program = _common.jit(jax.vmap(one, (0, None)))
    return np.asarray(program(jax.random.split(jax.random.key(0), SEEDS), fixed))


def efficient(points):
    """The distinct points that no other dominates."""
    points = np.unique(points, axis=0)
    return points[np.asarray(pareto.ranks(jnp.asarray(points), jnp.zeros(len(points)))) == 0]


def main():
    space, data = nasbench201(), find("nasbench201:cifar10")
    ops = np.stack(np.unravel_index(np.arange(5**6), (5,) * 6), -1)
    fixed = rows(space, ops, {"accuracy": data.test, "flops": -flops(ops)})
    both = objectives.columns(objectives.metric("accuracy"), objectives.metric("flops"))
    whole = np.stack([data.test, -flops(ops)], -1)
    order = np.lexsort((-whole[:, 0], -whole[:, 1]))  # by multiply-adds: a cell is efficient if none before is as accurate
    record = np.maximum.accumulate(np.append(-np.inf, whole[order, 0]))[:-1]
    best = whole[order][whole[order, 0] > record].astype(np.float32)
    volume = lambda points: float(pareto.hypervolume(jnp.asarray(points), jnp.asarray(REFERENCE)))
    print(f"the table's front: {len(best)} cells, hypervolume {volume(best):.1f}")
    algorithms = {
        "NSGA-II, P = 20": (ask_tell.nsga2(space, 2, population=20), both),
        "random search": (ask_tell.random_search(space, batch=20), objectives.metric("accuracy")),
    }
    for name, (algorithm, objective) in algorithms.items():
        found = [efficient(points) for points in fronts(algorithm, objective, fixed, space)]
        share = np.asarray([volume(points) for points in found]) / volume(best)
        hits = np.asarray([sum((best == p).all(-1).any() for p in points) for points in found])
        _common.row(name, *(f"{v.mean():.4f} ± {v.std(ddof=1) / SEEDS**0.5:.4f}" for v in (share, hits)))


if __name__ == "__main__":
    main()
