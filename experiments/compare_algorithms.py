"""Every algorithm of `jaxnas bench` against random search: 200 seeds of 150 queries on NAS-Bench-201.

    python experiments/compare_algorithms.py [directory]          (extra `benchmarks`)

The same as `jaxnas bench --tables nasbench201:cifar10 nasbench201:cifar100 --queries 150 --seeds 200`.  A search sees the first
seed's validation accuracy after 200 epochs; the mean validation accuracy of the other trainings is reported, standard deviation
over seeds.  p is a two-sided Mann-Whitney test against random search, Holm-corrected.  Two busy CPU cores.

Results: docs/results.md#every-algorithm-against-random-search
"""

import sys

from jaxnas.app import bench, regret
from jaxnas.evaluate.benchmark import find

TABLES = ("nasbench201:cifar10", "nasbench201:cifar100")


def main(out: str = "bench") -> None:
    lines = bench.compare_algorithms(out, [find(name) for name in TABLES], [], queries=150, seeds=200, say=print)
    print(regret.results_table(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
