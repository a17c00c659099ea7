"""SNAS: Xie, Zheng, Liu and Lin, ICLR 2019, arXiv:1812.09926.  Concrete samples, one level.

    python experiments/snas.py smoke                 digits, NAS-Bench-201 cells
    python experiments/snas.py cifar10               the paper's setting (needs tfds:cifar10 prepared, and an accelerator)

smoke: 300 + 600 steps; 2 busy CPU cores, a minute.  cifar10: 150 epochs, batch 64, on an accelerator; not run.

Results: docs/results.md#gaea-gdas-pc-darts-and-snas-on-digits

What eight seeds find on NAS-Bench-201, by `experiments/nasbench201_methods.py`:
docs/results.md#nine-differentiable-methods-on-nas-bench-201

The paper trains on all 50,000 images, weights and alpha on the same batch, with its resource constraint
(`weight_sharing.snas(cost=...)`); here the setting uses the training half and no constraint.
"""

import dataclasses
import sys

import _common

from jaxnas.app.config import Config

SETTINGS = {
    "smoke": Config(strategy="snas"),
    "cifar10": dataclasses.replace(_common.DARTS_CIFAR10, strategy="snas", steps=150 * _common.DARTS_EPOCH),
}

if __name__ == "__main__":
    _common.search_and_train(SETTINGS, *sys.argv[1:])
