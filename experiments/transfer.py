"""Does an architecture that was found on one task serve another?  TransNAS-Bench-101, four tasks, 4,096 cells.

    python experiments/transfer.py TABLE.npz

Duan et al., TransNAS-Bench-101, CVPR 2021, arXiv:2105.11871; the search is aging evolution (Real et al., AAAI 2019), population
20, tournaments of 5, 100 seeds as one program.  TABLE holds `ops` [4096, 6], `val` [4096, T] and `tasks` [T].

A search of n evaluations on one task is compared with one from scratch on another at equal cost: either all n on the target, or
n / 2 on the source and then those n / 2 cells tried on the target.  The figure is how many of a hundred cells of the
target's table are better than what is found, the mean over seeds.

Two CPU cores, half a minute.

Results: docs/results.md#transfer-between-tasks
"""

import sys

import _common
import jax
import jax.numpy as jnp
import numpy as np

import jaxnas as nas
from jaxnas import evaluate, spaces

SEEDS, QUERIES = 100, 60


def main(path):
    with np.load(path) as file:
        ops, val, tasks = file["ops"].astype(int), file["val"], [str(t) for t in file["tasks"]]
    space = spaces.space((np.full(6, 4),))
    scores = {t: evaluate.rows(space, ops, {"accuracy": val[:, i]})["accuracy"] for i, t in enumerate(tasks)}
    worse = {t: np.argsort(np.argsort(-np.asarray(s))) * 100 / len(s) for t, s in scores.items()}  # % that are better
    search = nas.black_box(nas.aging_evolution(space, population=20, tournament=5), evaluate.table(space))

    def queried(task, n):  # int[seeds, n] of the cells that a search asks for
        found = nas.run(jax.random.key(0), search, steps=n, data=nas.data.fixed({"accuracy": scores[task]}), seeds=SEEDS)
        archs = jax.tree.map(lambda a: jnp.asarray(a)[:, :, 0], found.infos[0].archs)
        return np.asarray(jax.vmap(jax.vmap(space.index))(archs))

    def best(task, cells):  # the target's best of some cells, by seed
        values = np.asarray(scores[task])[cells]
        return np.take_along_axis(cells, values.argmax(1)[:, None], 1)[:, 0]

    full, half = ({t: queried(t, n) for t in tasks} for n in (QUERIES, QUERIES // 2))

    cell = lambda target, found: _common.plus_minus(worse[target][found])
    print(f"| searched on | {' | '.join(tasks)} |\n|---|{'---|' * len(tasks)}")
    for source in tasks:
        _common.row(f"{source}, all {QUERIES}", *(cell(t, best(source, full[source])) for t in tasks))
    for source in tasks:
        _common.row(f"{source}, {QUERIES // 2}, and its cells tried", *(cell(t, best(t, half[source])) for t in tasks))
    rho = np.corrcoef([worse[t] for t in tasks])
    print("rank correlation of the tasks:", np.round(rho, 2).tolist())


if __name__ == "__main__":
    main(*sys.argv[1:])
