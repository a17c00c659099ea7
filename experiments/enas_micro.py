"""ENAS on cells: Pham et al., ICML 2018, arXiv:1802.03268.  Searches, the best of ten, training from scratch.

    python experiments/enas_micro.py smoke            digits, cells of 3 blocks
    python experiments/enas_micro.py cifar10          the paper's setting (needs tfds:cifar10 prepared, and an accelerator)

smoke: 3 + 2 cells, 620 + 310 steps, 3 searches; 2 busy CPU cores, 9 minutes; theta's rate is 1e-2, as in `enas_macro`.
cifar10: 6 + 2 cells, 150 epochs, then 15 + 2, 620 (half a GPU day in the paper); not run.

Results: docs/results.md#enas-cells

Not as published: no drop path and no auxiliary head from scratch; what `jaxnas.weight_sharing.enas` says of cells.
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
