"""PC-DARTS: Xu et al., ICLR 2020, arXiv:1907.05737.  One channel in four, normalised edges.

    python experiments/pc_darts.py smoke                 digits, NAS-Bench-201 cells
    python experiments/pc_darts.py cifar10               the paper's setting (needs tfds:cifar10 prepared, and an accelerator)

smoke: 300 + 600 steps; 2 busy CPU cores, a minute.  cifar10: 50 epochs, batch 256, on an accelerator; not run.

Results: docs/results.md#gaea-gdas-pc-darts-and-snas-on-digits

What eight seeds find on NAS-Bench-201, by `experiments/nasbench201_methods.py`:
docs/results.md#nine-differentiable-methods-on-nas-bench-201

As published alpha and beta stand still for the first 15 epochs: a phase of weight steps alone before this one, which the
settings here leave out.
"""

import dataclasses
import sys

import _common

from jaxnas.app.config import Config

SETTINGS = {
    "smoke": Config(strategy="pc-darts"),
    "cifar10": dataclasses.replace(
        _common.DARTS_CIFAR10,
        strategy="pc-darts",
        steps=50 * _common.DARTS_EPOCH // 4,
        batch=256,
        learning_rate=0.1,
        arch_learning_rate=6e-4,
    ),
}

if __name__ == "__main__":
    _common.search_and_train(SETTINGS, *sys.argv[1:])
