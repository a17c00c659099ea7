"""BANANAS: White, Neiswanger and Savani, AAAI 2021, arXiv:1910.11858.  On the NAS-Bench-201 table, 16 seeds.

    python experiments/bananas.py                     (extra `benchmarks`)

100 queries in batches of 10, an ensemble of five perceptrons; each row changes one thing.  Two busy CPU cores, 8 to 75 s a row.

Results: docs/results.md#bananas
"""

import functools

import jax
import numpy as np

from jaxnas import ask_tell, surrogates
from jaxnas.app import bench
from jaxnas.evaluate.benchmark import find

SEEDS, QUERIES, MARKS = 16, 100, (30, 50, 100)


def bananas(space, budget, *, encode=surrogates.path_encoding, acquisition=None, options=None):
    return ask_tell.bayesian(
        space,
        surrogates.ensemble(surrogates.Perceptron(), encode(space)),
        surrogates.independent_thompson() if acquisition is None else acquisition,
        ask_tell.mutants_of_best(space, 100, 5) if options is None else options(space),
        capacity=budget,
        batch=10,
    )


ROWS = {
    "BANANAS": bananas,
    "one-hot operations": functools.partial(bananas, encode=lambda space: space.features),
    "random candidates": functools.partial(bananas, options=lambda space: ask_tell.random_draws(space, 100)),
    "expected improvement": functools.partial(bananas, acquisition=surrogates.expected_improvement()),
    "upper confidence bound": functools.partial(bananas, acquisition=surrogates.upper_confidence_bound(0.25)),
    "random search": bench.algorithm("random"),
}


def report(rows):
    """Prints the test accuracy of each row's answers at the marks, with its standard error."""
    table = find("nasbench201:cifar10")
    for name, make in rows.items():
        history = bench.search(jax.random.key(0), make, table, queries=QUERIES, seeds=SEEDS, at_once=8)
        test = np.nanmax(table.test) - bench.regret_curve(table, history.index)[:, np.asarray(MARKS) - 1]  # [S, marks]
        error = test.std(0, ddof=1) / np.sqrt(SEEDS)
        cells = " | ".join(f"{m:.3f} ± {e:.3f}" for m, e in zip(test.mean(0), error, strict=True))
        print(f"| {name} | {cells} |  {history.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    report(ROWS)
