"""BANANAS: White, Neiswanger and Savani, AAAI 2021, arXiv:1910.11858.  On the NAS-Bench-201 table, 16 seeds.

    python experiments/bananas.py                     (extra `benchmarks`)

100 queries in batches of 10, an ensemble of five perceptrons; each row changes one thing.  Two busy CPU cores, 8 to 75 s a row.

Results: docs/results.md#bananas
"""

import functools

import _common

from jaxnas import ask_tell, surrogates
from jaxnas.app import bench


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


if __name__ == "__main__":
    _common.show_queries(ROWS, seeds=16, marks=(30, 50, 100))
