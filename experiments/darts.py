"""DARTS: Liu, Simonyan and Yang, ICLR 2019, arXiv:1806.09055.  The exact second order, then training from scratch.

    python experiments/darts.py smoke                 digits, DARTS cells
    python experiments/darts.py cifar10               the paper's setting (needs tfds:cifar10 prepared, and an accelerator)

smoke: C=4, 3 cells, 100 + 300 steps; 2 busy CPU cores, 17 minutes.  cifar10: C=16, 8 cells, 50 epochs, batch 64 (a GPU day in
the paper); not run.

Results: docs/results.md#darts

The published recipe trains the found cell with C=36, 20 cells, auxiliary head, cutout and drop path for 600 epochs
(`jaxnas.nets.evaluation_net`, `jaxnas.training.train`); `jaxnas search` trains at the size of the search instead.
"""

import sys

import _common

from jaxnas.app.config import Config

SMOKE = Config(space="darts", strategy="darts", data="digits", steps=100, channels=4, cells=3, train_steps=300)

SETTINGS = {"smoke": SMOKE, "cifar10": _common.DARTS_CIFAR10}


if __name__ == "__main__":
    _common.search_and_train(SETTINGS, *sys.argv[1:])
