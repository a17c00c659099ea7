"""Does DARTS collapse into skip connections on NAS-Bench-201, and do the diagnostics see it coming?

    python experiments/robust_darts.py IMAGES.npz TABLE.npz OUT        (see experiments/_common/cifar10.py for IMAGES)

Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656; Ye et al.,
beta-DARTS, CVPR 2022, arXiv:2203.01665; NAS-Bench-201: Dong and Yang, ICLR 2020.

Eight seeds are one vmapped program.  TABLE is an .npz with `ops` [N, 6] and `test_acc_200` [N, D] (CIFAR-10 first): what the
genotype of every epoch would have reached, which no search sees.  Early stopping is DARTS-ES (window 5, lag 4, factor 1.3, from
epoch 10) read off the same run.  Setting: 5,000 images of CIFAR-10, 16 x 16 (2 x 2 means), half of them for alpha; C=4, one cell
a stage; batch 32; first order; SGD 0.025 -> 0.001, alpha's Adam at 3e-3 (the paper's 3e-4 has ten times the steps).

Two busy CPU cores, 9 minutes in all.

Results: docs/results.md#darts-collapses-and-what-helps
"""

import json
import sys

import _common
import jax.numpy as jnp
import numpy as np
import optax
from _common import cifar10

from jaxnas import data, nets, policies, training, weight_sharing
from jaxnas.analysis import diagnostics
from jaxnas.driver import run

SEEDS, EPOCHS, BATCH, EVERY = 8, 40, 32, 39  # EVERY steps to an epoch


def main(images, table, out):
    out = _common.made(out)
    dataset, space, truth, k_search = cifar10.halved_and_table(images, table)
    net = nets.cell_net(space, image=dataset.image, classes=dataset.classes, channels=4, cells=1)
    feed = data.epochs(data.batches(dataset, BATCH), EVERY)
    steps = EPOCHS * EVERY
    rate = training.sgd(optax.cosine_decay_schedule(0.025, steps, alpha=0.04))
    searches = {
        "DARTS": weight_sharing.darts(net, rate, training.adam(3e-3), order="first"),
        "beta-DARTS": weight_sharing.beta_darts(
            net, rate, training.adam(3e-3, 0.0), decay=optax.linear_schedule(0.0, 50.0 * EPOCHS / 100, steps)
        ),
    }
    measure = weight_sharing.measurements(net, policies.softmax(space), iterations=10)
    for name, search in searches.items():
        seconds = _common.stopwatch()

        def whole(key, state, batch, search=search):  # measured after every epoch, with the genotype it would give
            found = measure(key, state, batch)
            return {**found, "cell": space.index(search.best(state)).astype(jnp.float32)}

        result = run(k_search, weight_sharing.with_measurements(search, whole), steps=EPOCHS, data=feed, seeds=SEEDS, chunk=4)
        seen = {k: np.asarray(v) for k, v in result.infos[0].watched.items()}  # [S, T]
        seen["accuracy"] = truth[seen["cell"].astype(int)]
        minutes = seconds() / 60
        (out / f"{name}.json").write_text(json.dumps({k: v.tolist() for k, v in seen.items()}))
        rows = np.arange(SEEDS)
        stopped = np.asarray([stop(v) for v in seen["eigenvalue"]])
        for label, at in {name: np.full(SEEDS, EPOCHS - 1), f"{name}, early stopping": stopped}.items():
            found = _common.plus_minus(seen["accuracy"][rows, at])
            skips = seen["skips"][rows, at].mean()
            print(f"{label}: {found} %, {skips:.1f} skips of 6, epoch {at.mean() + 1:.0f}, {minutes:.0f} minutes")
        print(f"    accuracy by seed {np.round(seen['accuracy'][:, -1], 2).tolist()}")
        for what in ("eigenvalue", "entropy", "skips", "gap", "accuracy"):
            print(f"    {what} at epochs 1, 10, 20, ...: {np.round(seen[what].mean(0)[[0, *range(9, EPOCHS, 10)]], 3).tolist()}")
        ends = [space.from_index(int(c)) for c in seen["cell"][:, -1]]
        print(f"    collapsed: {[diagnostics.collapsed(space, a) for a in ends]}", flush=True)


def stop(values, factor=1.3, window=5, lag=4, first=10):
    """The epoch, from 0, whose genotype DARTS-ES answers with: the rule of `weight_sharing.early_stopping`."""
    for e in range(first, len(values) + 1):
        if np.mean(values[e - window : e]) > factor * np.mean(values[e - window - lag : e - lag]):
            return e - lag - 1
    return len(values) - 1


if __name__ == "__main__":
    main(*sys.argv[1:])
