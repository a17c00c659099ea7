"""NAS by reinforcement learning: Zoph and Le, ICLR 2017, arXiv:1611.01578.  An LSTM controller against random search.

    python experiments/nas2017.py smoke               digits, chains of 3 layers, 4 searches side by side
    python experiments/nas2017.py paper               the paper's sizes (needs tfds:cifar10 prepared, and accelerators)

smoke: 3 layers, 240 children of 30 steps, 4 searches; 2 busy CPU cores, 5.4 minutes.  Adam's rate is 1e-2 there (the paper's
6e-4 would hardly move in 60 updates): set once, not tuned.  paper: 15 layers, 12,800 children of 50 epochs (800 GPUs, 28 days
there); not run.

Results: docs/results.md#nas-with-reinforcement-learning

The controller emits filter height, filter width, number of filters and the skip bits of each layer; every child is trained from
scratch, alike in both searches, and never sees the test images.  Not as published: the reward is the cube of the accuracy at
the end of training on all validation images (the paper: of the best of the last five epochs); updates are of one controller,
one after another (the paper: 100 replicas, asynchronous); the depth does not grow (the paper: 6 layers, two more every 1,600
children; here the 15 of its best net without strides); the batch of 128 is a guess.  The batches of a child are drawn at once,
too much for most devices in the paper's setting.
"""

import sys
from dataclasses import dataclass

import _common
import jax
import numpy as np
import optax

import jaxnas as nas
from jaxnas import data, evaluate, nets, policies, spaces
from jaxnas.driver import journal
from jaxnas.spaces._layerwise import anchors, kind


@dataclass(frozen=True, kw_only=True)
class Setting(_common.Setting):
    layers: int
    sizes: tuple[int, ...]  # heights and widths of the filters
    filters: tuple[int, ...]
    train_steps: int  # of a child
    children: int
    update: int  # children an update
    rate: float  # Adam's, of the controller
    seeds: int = 1


EPOCH = 45_000 // 128
CIFAR10 = dict(data="tfds:cifar10", valid=0.1, augment=data.chain(data.crop(), data.flip()), batch=128, train_steps=50 * EPOCH)
PAPER = Setting(**CIFAR10, layers=15, sizes=(1, 3, 5, 7), filters=(24, 36, 48, 64), children=12_800, update=8, rate=6e-4)
DIGITS = dict(data="digits", valid=0.5, augment=data.identity, batch=32, train_steps=30)
SMOKE = Setting(**DIGITS, layers=3, sizes=(1, 3, 5), filters=(4, 8), children=240, update=4, rate=1e-2, seeds=4)

SETTINGS = {"smoke": SMOKE, "paper": PAPER}


def accuracies(strategy: nas.Strategy, setting: Setting, dataset: data.Dataset) -> np.ndarray:
    """[seeds, children], in the order in which they were trained."""
    feed = data.batches(
        dataset,
        setting.batch,
        weight_steps=setting.train_steps,
        arch_steps=len(dataset.valid.y) // setting.batch,
        augment=setting.augment,
    )
    found = nas.run(jax.random.key(0), strategy, steps=setting.children // setting.update, data=feed, seeds=setting.seeds)
    return np.asarray(found.infos[0].metrics["accuracy"]).reshape(setting.seeds, -1)


def main(name: str = "smoke") -> None:
    setting = _common.named(SETTINGS, name)
    dataset = data.load(setting.data, jax.random.key(0), valid=setting.valid)
    space = spaces.layerwise(setting.layers, setting.sizes, setting.sizes, setting.filters)
    net = nets.layer_net(space, image=dataset.image, classes=dataset.classes)
    weights = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9, nesterov=True))
    policy = policies.controller(space, kind=kind(space), anchors=anchors(space))
    update = policies.reinforce(policy, optax.adam(setting.rate))
    searches = {
        "controller": nas.policy_gradient(space, policy, update, batch=setting.update),
        "random": nas.random_search(space, batch=setting.update),
    }
    reward = lambda metrics: metrics["accuracy"] ** 3
    cell = lambda a: "{:6.2f} +- {:5.2f}".format(*(100 * np.stack(journal.interval(a))))
    print(f"{setting.children} children, accuracy in %, mean and 95 % interval over {setting.seeds} searches")
    print("            first quarter     last quarter      last - first      best")
    for name, algorithm in searches.items():
        strategy = nas.black_box(algorithm, evaluate.train_from_scratch(net, weights), reward)
        a = accuracies(strategy, setting, dataset)
        quarter = a.shape[1] // 4
        first, last = np.nanmean(a[:, :quarter], 1), np.nanmean(a[:, -quarter:], 1)
        print(f"{name:10}", *map(cell, (first, last, last - first, np.nanmax(a, 1))), sep="  ", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
