"""GDAS: Dong and Yang, CVPR 2019, arXiv:1910.04465.  A straight-through Gumbel draw, one operation an edge.

    python experiments/gdas.py smoke                 digits, NAS-Bench-201 cells
    python experiments/gdas.py cifar10               the paper's setting (needs tfds:cifar10 prepared, and an accelerator)

| setting | hardware | expected | obtained |
|---|---|---|---|
| cifar10: 250 epochs, batch 64 | an accelerator | 2.93 % error, 3.4 M weights (paper) | not run |
| smoke: 300 + 600 steps | 2 busy CPU cores, a minute | runs to the end | found 97.49 %, a random cell 98.05 % |

One pair, of 359 test images: no evidence.

What eight seeds find on NAS-Bench-201, scored on the table, is in `experiments/nasbench201_methods.py`.
"""

import dataclasses
import sys

from darts import CIFAR10, EPOCH, main

from jaxnas.app.config import Config

SETTINGS = {
    "smoke": Config(strategy="gdas"),
    "cifar10": dataclasses.replace(CIFAR10, strategy="gdas", steps=250 * EPOCH),
}

if __name__ == "__main__":
    main(*(sys.argv[1:] or ["smoke"]), settings=SETTINGS)
