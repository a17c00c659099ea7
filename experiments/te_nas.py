"""TE-NAS on NAS-Bench-201: Chen, Gong and Wang, ICLR 2021, arXiv:2102.11535.  Pruning at initialisation, no labels, no training.

    python experiments/te_nas.py IMAGES.npz TABLE.npz [SEEDS]

IMAGES as `experiments/_common/cifar10.py` reads them, TABLE has `ops` [N, 6] and `test_acc_200` [N, D] (CIFAR-10 first).

Two CPU cores, 106 s a search.  Not as published: images halved to 16 x 16, batch 16 (published: 32 x 32, 72), one cell a stage.

Results: docs/results.md#te-nas
"""

import sys

import _common
import jax
import jax.numpy as jnp
import numpy as np
from _common import cifar10

import jaxnas as nas
from jaxnas import weight_sharing
from jaxnas.analysis import ranking

SPACE = nas.spaces.nasbench201()
BATCH, POINTS, DRAWS, SIZE = 16, 1000, 3, 16


def main(images, table, seeds="3"):
    table = np.load(table)
    place = np.asarray(jax.vmap(lambda ops: SPACE.index(SPACE.unflat(ops)))(jnp.asarray(table["ops"], jnp.int32)))
    accuracy = np.empty((15625, 2))
    accuracy[place] = table["test_acc_200"][:, :2]
    k_data, k_search = jax.random.split(jax.random.key(0))
    (x, y), _ = cifar10.arrays(images)
    x = x[:2000].astype(np.float32).reshape(-1, SIZE, 32 // SIZE, SIZE, 32 // SIZE, 3).mean((2, 4)).astype(np.uint8)
    dataset = nas.data.split(k_data, x, y[:2000], name="cifar10")
    feed = nas.data.batches(dataset, BATCH, arch_steps=0)
    net = nas.cell_net(SPACE, image=dataset.image, classes=10, channels=16, cells=1, affine=True)
    thin = nas.cell_net(SPACE, image=(3, 3, 1), classes=10, channels=1, cells=1, bare=True)
    search = weight_sharing.te_nas(net, thin, draws=DRAWS, points=POINTS)
    found = []
    for seed in range(int(seeds)):
        seconds = _common.stopwatch()
        result = nas.run(jax.random.fold_in(k_search, seed), search, steps=4, data=feed)
        found.append(int(SPACE.index(result.best)))
        info = result.infos[0]
        print(SPACE.to_text(jax.tree.map(np.asarray, result.best)), f"{seconds():.0f} s", flush=True)
        print("   condition", np.round(info.kappa, 1), "regions", np.round(info.regions), accuracy[found[-1]], flush=True)
    for d, name in enumerate(("CIFAR-10", "CIFAR-100")):
        (mean,), (half,) = ranking.interval(accuracy[found][:, d : d + 1])
        print(f"{name}: {mean:.2f} +- {half:.2f}; better than {100 * np.mean(accuracy[:, d] < mean):.0f} % of cells")


if __name__ == "__main__":
    main(*sys.argv[1:])
