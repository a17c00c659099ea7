"""PC-DARTS: Xu et al., ICLR 2020, arXiv:1907.05737.  One channel in four, normalised edges.

    python experiments/pc_darts.py smoke                 digits, NAS-Bench-201 cells
    python experiments/pc_darts.py cifar10               the paper's setting (needs tfds:cifar10 prepared, and an accelerator)

| setting | hardware | expected | obtained |
|---|---|---|---|
| cifar10: 50 epochs, batch 256 | an accelerator | 2.57 +- 0.07 % error (paper) | not run |
| smoke: 300 + 600 steps | 2 busy CPU cores, a minute | runs to the end | found 98.33 %, a random cell 98.05 % |

One pair, of 359 test images: no evidence.

As published alpha and beta stand still for the first 15 epochs: a phase of weight steps alone before this one, which the
settings here leave out.  What eight seeds find on NAS-Bench-201, scored on the table, is in
`experiments/nasbench201_methods.py`.
"""

import dataclasses
import sys

from darts import CIFAR10, EPOCH, main

from jaxnas.app.config import Config

SETTINGS = {
    "smoke": Config(strategy="pc-darts"),
    "cifar10": dataclasses.replace(
        CIFAR10, strategy="pc-darts", steps=50 * EPOCH // 4, batch=256, learning_rate=0.1, arch_learning_rate=6e-4
    ),
}

if __name__ == "__main__":
    main(*(sys.argv[1:] or ["smoke"]), settings=SETTINGS)
