"""Does an architecture that was found on one task serve another?  TransNAS-Bench-101, four tasks, 4,096 cells.

    python experiments/transfer.py TABLE.npz

Duan et al., TransNAS-Bench-101, CVPR 2021, arXiv:2105.11871; the search is aging evolution (Real et al., AAAI 2019), population
20, tournaments of 5, 100 seeds as one program.  TABLE holds `ops` [4096, 6], `val` [4096, T] and `tasks` [T].

A search of n evaluations on one task is compared with one from scratch on another at equal cost: either all n on the target, or
n / 2 on the source and then those n / 2 cells tried on the target.  The figure is how many of a hundred cells of the
target's table are better than what is found, the mean over seeds.

Obtained, two CPU cores, half a minute (95 %; rows: where was searched, columns: where the cell is used):

| searched on | class_object | class_scene | jigsaw | segmentsemantic |
|---|---|---|---|---|
| class_object, all 60 | 0.92 +- 0.24 | 12.85 +- 2.70 | 18.91 +- 2.80 | 30.44 +- 3.02 |
| class_scene, all 60 | 19.15 +- 3.56 | 0.95 +- 0.22 | 21.82 +- 3.03 | 15.69 +- 2.36 |
| jigsaw, all 60 | 22.11 +- 3.53 | 25.08 +- 3.77 | 1.09 +- 0.22 | 32.04 +- 3.47 |
| segmentsemantic, all 60 | 44.37 +- 3.13 | 15.87 +- 2.24 | 36.97 +- 4.11 | 0.54 +- 0.16 |
| class_object, 30, and its cells tried | 2.58 +- 0.57 | 3.11 +- 0.68 | 2.62 +- 0.47 | 2.91 +- 0.55 |
| class_scene, 30, and its cells tried | 2.71 +- 0.55 | 2.81 +- 0.67 | 2.68 +- 0.50 | 2.78 +- 0.51 |
| jigsaw, 30, and its cells tried | 2.60 +- 0.54 | 2.97 +- 0.75 | 2.63 +- 0.48 | 2.82 +- 0.50 |
| segmentsemantic, 30, and its cells tried | 3.17 +- 0.62 | 2.80 +- 0.59 | 2.97 +- 0.55 | 2.27 +- 0.51 |

At equal cost a search from scratch (the diagonal above) wins everywhere, though the tasks' rankings correlate at 0.64 to 0.87:
taken over unseen, the best cell of one task is behind 13 to 44 % of another's.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxnas as nas
from jaxnas import evaluate, spaces
from jaxnas.driver import journal

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

    cell = lambda target, found: "{:.2f} +- {:.2f}".format(*journal.interval(worse[target][found]))
    print(f"| searched on | {' | '.join(tasks)} |\n|---|{'---|' * len(tasks)}")
    for source in tasks:
        print(f"| {source}, all {QUERIES} | {' | '.join(cell(t, best(source, full[source])) for t in tasks)} |")
    for source in tasks:
        print(f"| {source}, {QUERIES // 2}, and its cells tried | {' | '.join(cell(t, best(t, half[source])) for t in tasks)} |")
    rho = np.corrcoef([worse[t] for t in tasks])
    print("rank correlation of the tasks:", np.round(rho, 2).tolist())


if __name__ == "__main__":
    main(*sys.argv[1:])
