"""Every differentiable method on NAS-Bench-201, eight seeds each, scored on the real table.

    python experiments/nasbench201_methods.py IMAGES.npz TABLE.npz OUT [METHOD ...]     (goes on from OUT)

The setting of `experiments/robust_darts.py`: 5,000 small images of CIFAR-10, C=4, one cell a stage, 40 epochs, batch 32; each
method with its published schedules over the whole search and alpha's rate at 3e-3.  The figure is the CIFAR-10 test accuracy
after 200 epochs of the cell that each seed ends with, as the table has it, with Student's 95 % interval; and the share of the
15,625 cells that are worse.  Published figures are of full searches (C=16, five cells a stage, 25,000 images, 50 epochs or more).

Two CPU cores, busy for most of it, 3 to 9 minutes a method.  Exact DARTS, single-level GAEA and SDARTS-ADV were not run.

Results: docs/results.md#nine-differentiable-methods-on-nas-bench-201
"""

import sys

import _common
import jax
import numpy as np
import optax
from _common import cifar10

from jaxnas import data, nets, training
from jaxnas import weight_sharing as ws
from jaxnas.driver import run

SEEDS, STEPS = 8, 40 * 39  # epochs of 39 steps
falling = lambda start, end: optax.linear_schedule(start, end, STEPS)
METHODS = {  # name -> (what the net has, the search)
    "DARTS, first order": ({}, lambda net, w, a: ws.darts(net, w, a, order="first")),
    "DARTS, exact": ({}, lambda net, w, a: ws.darts(net, w, a)),
    "SNAS": ({}, lambda net, w, a: ws.snas(net, w, a, temperature=falling(1.0, 0.03))),
    "GDAS": ({}, lambda net, w, a: ws.gdas(net, w, a, temperature=falling(10.0, 0.1))),
    "PC-DARTS": ({"partial": 4}, ws.pc_darts),
    "DrNAS": ({}, ws.drnas),
    "GAEA": ({}, lambda net, w, a: ws.gaea(net, w)),
    "GAEA, single level": ({}, lambda net, w, a: ws.gaea(net, w, single_level=True)),
    "SDARTS-RS": ({}, lambda net, w, a: ws.smooth_darts(net, w, a, perturb=ws.random_noise(falling(0.03, 0.3)))),
    "SDARTS-ADV": ({}, lambda net, w, a: ws.smooth_darts(net, w, a, perturb=ws.adversarial(falling(0.03, 0.3)))),
    "DARTS-": ({"auxiliary_skip": falling(1.0, 0.0)}, lambda net, w, a: ws.darts(net, w, a, order="first")),
    "beta-DARTS": ({}, lambda net, w, a: ws.beta_darts(net, w, training.adam(3e-3, 0.0), decay=falling(0.0, 20.0))),
}


def search(name, dataset, space, feed, key):
    """-> {the index of each seed's cell, the mean number of skips, minutes}."""
    seconds = _common.stopwatch()
    has, make = METHODS[name]
    weights = training.sgd(optax.cosine_decay_schedule(0.025, STEPS, alpha=0.04))
    net = nets.cell_net(space, image=dataset.image, classes=dataset.classes, channels=4, cells=1, **has)
    found = run(key, make(net, weights, training.adam(3e-3)), steps=STEPS, data=feed, seeds=SEEDS).best
    index = np.asarray(jax.vmap(space.index)(found)).tolist()
    ops = np.asarray(found.op)  # [S, 6]
    skips = float((ops == space.spec.ops.index("skip_connect")).sum(1).mean())
    return {"index": index, "skips": skips, "minutes": seconds() / 60}


def main(images, table, out, *names):
    out = _common.made(out)
    dataset, space, truth, k_search = cifar10.halved_and_table(images, table)
    feed = data.batches(dataset, 32)
    print(f"a random cell: {truth.mean():.2f} %, the median {np.median(truth):.2f} %, the best {truth.max():.2f} %")
    for name in names or METHODS:
        held = _common.kept(out / f"{name}.json", lambda name=name: search(name, dataset, space, feed, k_search))
        accuracy = truth[np.asarray(held["index"])]
        worse = np.mean([np.mean(truth < a) for a in accuracy])
        print(
            f"{name}: {_common.plus_minus(accuracy)} %, better than {100 * worse:.0f} % of cells, {held['skips']:.1f} skips, "
            f"{held['minutes']:.1f} minutes, by seed {np.round(accuracy, 1).tolist()}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
