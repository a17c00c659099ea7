"""ENAS on cells: Pham et al., ICML 2018, arXiv:1802.03268.  Searches, the best of ten, training from scratch.

    python experiments/enas_micro.py smoke            digits, cells of 3 blocks
    python experiments/enas_micro.py cifar10          the paper's setting (needs tfds:cifar10 prepared, and an accelerator)

| setting | hardware | expected | obtained |
|---|---|---|---|
| cifar10: 6 + 2 cells, 150 epochs, then 15 + 2, 620 | half a GPU day | 3.54 % error (paper; 2.89 with cutout) | not run |
| smoke: 3 + 2 cells, 620 + 310 steps, 3 searches | 2 busy CPU cores, 9 minutes | the controller learns | below |

| digits, % (95 % over 3) | drawn by the controller | random |
|---|---|---|
| validation, shared weights, 50 networks a search | 78.75 +- 11.23 (74.75, 83.66, 77.84) | 32.02 +- 7.47 (29.56, 35.37, 31.13) |
| test, from scratch (found: the best of ten) | 96.38 +- 2.77 (95.26, 96.38, 97.49) | 97.40 +- 1.74 (96.66, 97.49, 98.05) |

The mean reward rises from 13.68 +- 1.11 in the first quarter of the search to 75.72 +- 10.00 in the last.  From scratch the found
cells are a point behind random ones, less than the spread: what scores best with shared weights after 620 steps are pools (27 of
the 36 operations found, 14.4 by chance) of the output of the cell before last (31 of the 36 states that are read, 13 by chance).

How the shared weights rank 20 random networks, by the validation half, against their test accuracy alone (95.21 % in the mean,
deviation 0.76, three trainings with a reliability of 0.37): tau 0.06, -0.02 and -0.04 in the three searches, Spearman 0.06, 0.00
and -0.03, every 95 % interval about 0 (-0.5 to 0.5): not at all, among networks that differ by less than their own noise.

The smoke's rate of theta is 1e-2, as in `enas_macro`.  Not as published: no drop path and no auxiliary head from scratch; what
`jaxnas.weight_sharing.enas` says of cells.
"""

import sys
import tempfile

import jax
from enas_macro import CIFAR10, SMOKE, main

from jaxnas import data
from jaxnas.nets.cells import cell_net
from jaxnas.spaces.enas import enas_micro

EPOCH = 45_000 // 160
SETTINGS = {
    "smoke": SMOKE._replace(
        space=enas_micro(3), make=cell_net, search=dict(channels=4, cells=1), final=dict(channels=4, cells=1), ranked=20
    ),
    "cifar10": CIFAR10._replace(
        space=enas_micro(),
        make=cell_net,
        search=dict(channels=20, cells=2),
        final=dict(channels=36, cells=5),
        augment=data.chain(data.crop(), data.flip(), data.cutout(16)),
        batch=160,
        first=10 * EPOCH,
        cycles=4,
        weight_steps=9,
        train_first=20 * (50_000 // 144),
    ),
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as compiled:
        jax.config.update("jax_compilation_cache_dir", compiled)
        main(*(sys.argv[1:] or ["smoke"]), settings=SETTINGS)
