"""GAEA: Li, Khodak, Balcan and Talwalkar, ICLR 2021, arXiv:2004.07802.  Exponentiated gradients.

    python experiments/gaea.py smoke                 digits, NAS-Bench-201 cells
    python experiments/gaea.py cifar10               the paper's setting (needs tfds:cifar10 prepared, and an accelerator)

| setting | hardware | expected | obtained |
|---|---|---|---|
| cifar10: 25 epochs, batch 64 | an accelerator | 2.50 % error (paper, with PC-DARTS) | not run |
| smoke: 300 + 600 steps | 2 busy CPU cores, a minute | runs to the end | found 98.89 %, a random cell 98.05 % |

One pair, of 359 test images: no evidence.

What eight seeds find on NAS-Bench-201, scored on the table, is in `experiments/nasbench201_methods.py`.
"""

import dataclasses
import sys

from darts import CIFAR10, EPOCH, main

from jaxnas.app.config import Config

SETTINGS = {
    "smoke": Config(strategy="gaea"),
    "cifar10": dataclasses.replace(CIFAR10, strategy="gaea", steps=25 * EPOCH),
}

if __name__ == "__main__":
    main(*(sys.argv[1:] or ["smoke"]), settings=SETTINGS)
