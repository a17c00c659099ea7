"""Are cells that DARTS finds on CIFAR-10 better than random cells?  A small, paired study.

    python experiments/cifar10_cells.py FILE.npz OUT            (goes on from OUT where it was cut)
    python experiments/cifar10_cells.py FILE.npz OUT random     (only trains the random cells, beside the first)

FILE holds uint8 images `x`, labels `y`, `x_test`, `y_test`; or JPEG bytes (`train_jpeg`, `train_offset`, `train_label`,
likewise `test_`), for which Pillow is needed.

Five searches (first order, C=8, 5 cells), each with its own key; ten random cells.  Every cell is trained from scratch in
the same way, at the size of the search, and tested once.  Search i and random cells 2i and 2i + 1 are trained with the same
key (weights, order of the batches, augmentation): the difference of a pair is the found cell's test accuracy less the mean
of its two random cells, and the interval is Student's over the five differences.

The setting was fixed before the first test: 5,000 images (half of them weigh the architecture in the search), 3 epochs of
search in batches of 32, 8 epochs of training in batches of 64, crop and flip, 4,000 test images.

2 busy CPU cores, 200 minutes in all, of two processes.

Results: docs/results.md#found-against-random-cells-on-cifar-10
"""

import json
import sys

import _common
import jax
import numpy as np
import optax
from _common import cifar10

from jaxnas import data, nets, spaces, training, weight_sharing
from jaxnas.analysis import ranking
from jaxnas.driver import run

SEARCHES = 5
SIZE = dict(channels=8, cells=5)
SEARCH = dict(batch=32, epochs=3)
TRAIN = dict(batch=64, epochs=8)


def main(source, out, part="all"):
    out = _common.made(out)
    jax.config.update("jax_compilation_cache_dir", str(out / "compiled"))  # the five searches are one program
    key = jax.random.key(0)
    k_data, k_search, k_random, k_train = jax.random.split(key, 4)
    (x, y), test = cifar10.arrays(source)
    dataset = data.split(k_data, x, y, test=test, name="cifar10")
    augment = data.chain(data.crop(), data.flip())
    space = spaces.darts()
    net = nets.cell_net(space, image=dataset.image, classes=dataset.classes, **SIZE)
    rate = lambda steps, floor: optax.cosine_decay_schedule(0.025, steps, alpha=floor / 0.025)

    records = out / "records.jsonl"
    done = lambda: {r["name"]: r for r in map(json.loads, records.read_text().splitlines())} if records.exists() else {}

    def once(name, work):
        if name not in done():
            seconds = _common.stopwatch()
            record = {"name": name, **work(), "minutes": seconds() / 60}
            with records.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(record, flush=True)
        return done()[name]

    def search(i):
        steps = SEARCH["epochs"] * len(dataset.train.y) // SEARCH["batch"]
        weights, theta = training.sgd(rate(steps, 0.001)), training.adam(3e-3)
        strategy = weight_sharing.darts(net, weights, theta, order="first")
        feed = data.batches(dataset, SEARCH["batch"], augment=augment)
        found = run(jax.random.fold_in(k_search, i), strategy, steps=steps, data=feed)
        return {"genotype": space.to_text(jax.tree.map(np.asarray, found.best)), "steps": steps}

    def train(arch, i):
        module = nets.evaluation_net(space, arch, classes=dataset.classes, **SIZE)
        steps = TRAIN["epochs"] * cifar10.EXAMPLES // TRAIN["batch"]
        feed = data.training(dataset, TRAIN["batch"], augment=augment)
        variables = _common.train(jax.random.fold_in(k_train, i), module, training.sgd(rate(steps, 0.0)), dataset, feed, steps)
        return {
            "test": _common.accuracy(module, variables, dataset.test),
            "genotype": space.to_text(arch),
            "parameters": nets.count_parameters(variables),
        }

    def rival(j):
        arch = jax.tree.map(np.asarray, space.sample(jax.random.fold_in(k_random, j)))
        return once(f"random {j}", lambda: train(arch, j // 2))["test"]

    if part == "random":
        return [rival(j) for j in range(2 * SEARCHES)]
    differences, all_found, all_random = [], [], []
    for i in range(SEARCHES):
        arch = space.from_text(once(f"search {i}", lambda: search(i))["genotype"])
        found = once(f"found {i}", lambda: train(arch, i))["test"]
        rivals = [rival(2 * i), rival(2 * i + 1)]
        differences.append(found - np.mean(rivals))
        all_found.append(found)
        all_random += rivals
    mean, half = ranking.interval(np.asarray(differences))
    minutes = sum(r["minutes"] for r in done().values())
    print(f"found {100 * np.mean(all_found):.2f} % (sd {100 * np.std(all_found, ddof=1):.2f})")
    print(f"random {100 * np.mean(all_random):.2f} % (sd {100 * np.std(all_random, ddof=1):.2f})")
    print(f"found - random: {100 * mean:+.2f} +- {100 * half:.2f} points over {SEARCHES} pairs, {minutes:.0f} minutes")


if __name__ == "__main__":
    main(*sys.argv[1:])
