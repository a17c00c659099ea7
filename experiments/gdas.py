"""GDAS: Dong and Yang, CVPR 2019, arXiv:1910.04465.  A straight-through Gumbel draw, one operation an edge.

    python experiments/gdas.py smoke                 digits, NAS-Bench-201 cells
    python experiments/gdas.py cifar10               the paper's setting (needs tfds:cifar10 prepared, and an accelerator)

smoke: 300 + 600 steps; 2 busy CPU cores, a minute.  cifar10: 250 epochs, batch 64, on an accelerator; not run.

Results: docs/results.md#gaea-gdas-pc-darts-and-snas-on-digits

What eight seeds find on NAS-Bench-201, by `experiments/nasbench201_methods.py`:
docs/results.md#nine-differentiable-methods-on-nas-bench-201
"""

import dataclasses
import sys

import _common

from jaxnas.app.config import Config

SETTINGS = {
    "smoke": Config(strategy="gdas"),
    "cifar10": dataclasses.replace(_common.DARTS_CIFAR10, strategy="gdas", steps=250 * _common.DARTS_EPOCH),
}

if __name__ == "__main__":
    _common.search_and_train(SETTINGS, *sys.argv[1:])
