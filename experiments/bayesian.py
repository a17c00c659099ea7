"""Gaussian processes and TPE: NAS-BOWL (Ru et al., ICLR 2021, arXiv:2006.07556) and its parts on the NAS-Bench-201 table.

    python experiments/bayesian.py                    (extra `benchmarks`)

100 queries, 16 seeds.  NAS-BOWL draws 30 random cells and goes on in batches of 5 from a pool of 200, half mutants of the
best and half random, with the Weisfeiler-Lehman kernel of 0 to 3 rounds.

Two busy CPU cores, up to 27 s a row.

Results: docs/results.md#gaussian-processes-and-tpe
"""

import functools

import _common

from jaxnas import ask_tell, surrogates
from jaxnas.app import bench
from jaxnas.ask_tell import tpe
from jaxnas.ask_tell._tpe import joint


def nas_bowl(space, budget):
    kernel = surrogates.weisfeiler_lehman(surrogates.cell_graph(space))
    options = ask_tell.pool(ask_tell.mutants_of_best(space, 100, 5), ask_tell.random_draws(space, 100))
    model, value = surrogates.gaussian_process(kernel), surrogates.expected_improvement()
    return ask_tell.bayesian(space, model, value, options, capacity=budget, initial=30, batch=5, transform=ask_tell.log_error())


def overlap(space, budget, *, acquisition):
    options = ask_tell.pool(ask_tell.random_draws(space, 300), ask_tell.neighbors_of_best(space, 5))
    model = surrogates.gaussian_process(surrogates.overlap(space))
    return ask_tell.bayesian(space, model, acquisition, options, capacity=budget, transform=ask_tell.log_error())


ROWS = {
    "NAS-BOWL": nas_bowl,
    "overlap, expected improvement": functools.partial(overlap, acquisition=surrogates.expected_improvement()),
    "overlap, upper confidence bound": functools.partial(overlap, acquisition=surrogates.upper_confidence_bound()),
    "overlap, Thompson": functools.partial(overlap, acquisition=surrogates.thompson()),
    "TPE": lambda space, budget: tpe(space, capacity=budget, initial=20),
    "TPE, joint": lambda space, budget: tpe(space, capacity=budget, initial=20, density=joint),
    "random search": bench.algorithm("random"),
}


if __name__ == "__main__":
    _common.show_queries(ROWS, seeds=16, marks=(30, 50, 100))
