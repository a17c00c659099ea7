"""ENAS: Pham et al., ICML 2018, arXiv:1802.03268.  Whole networks, and cells: searches, the best of ten, training from scratch.

    python experiments/enas.py macro                  digits, whole networks of 6 layers
    python experiments/enas.py micro                  digits, cells of 3 blocks
    python experiments/enas.py macro-cifar10          the paper's settings (need tfds:cifar10 prepared, and an accelerator)
    python experiments/enas.py micro-cifar10

macro: 6 layers, 620 + 310 steps, 3 searches; 2 busy CPU cores, 8 minutes; then 40 random networks, trained 3 times each, to
rank (11 minutes at a load of 8).  micro: 3 + 2 cells, otherwise alike, 20 random networks; 9 minutes.  Theta's rate is 1e-2 and
not 1e-3, for 310 steps and not 15,500; it was set once.  macro-cifar10: 12 layers, 310 epochs, then 310; micro-cifar10: 6 + 2
cells, 150 epochs, then 15 + 2, 620 (half a GPU day each in the paper); not run.

Results: docs/results.md#enas-whole-networks, docs/results.md#enas-cells

Not as published: the whole network that is trained from scratch is the search's, of more channels (theirs: 24 layers, skips
concatenated, channels doubled); the steps of theta are spread among those of the weights, one in 7 (one in 2 on digits).  Cells
have no drop path and no auxiliary head from scratch.  See also `jaxnas.weight_sharing.enas`.
"""

import pathlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import _common
import jax
import numpy as np

import jaxnas as nas
from jaxnas import data, evaluate, training
from jaxnas.analysis import ranking
from jaxnas.nets._macro_net import macro_net
from jaxnas.nets.base import Net
from jaxnas.nets.cells import cell_net
from jaxnas.spaces.enas import enas_macro, enas_micro
from jaxnas.weight_sharing._enas import controller_adam, enas, final_choice, published, sampler, warm_restarts

DRAWN = 10  # networks from which the answer is chosen
REPEATS = 3  # trainings of each ranked network


@dataclass(frozen=True, kw_only=True)
class Setting(_common.Setting):
    space: nas.spaces.Space
    make: Callable[..., Net]  # (space, image=, classes=, **size)
    search: dict[str, Any]  # the size of the search net
    final: dict[str, Any]  # the size from scratch
    first: int  # weight steps of the first cosine of the search
    cycles: int
    weight_steps: int  # to a step of theta
    rate: float | None  # Adam's, of theta; None: the published one
    networks: int | None  # to a step of theta
    train_first: int  # of the training from scratch, five cosines
    seeds: int  # searches, and random networks
    ranked: int  # random networks that are also trained alone, to see how shared weights rank them


EPOCH = 45_000 // 128
MACRO_CIFAR10 = Setting(
    data="tfds:cifar10",
    valid=0.1,
    space=enas_macro(),
    make=macro_net,
    search=dict(channels=36, dropout=0.1),
    final=dict(channels=96, dropout=0.5),
    augment=data.chain(data.crop(), data.flip()),
    batch=128,
    first=10 * EPOCH,
    cycles=5,
    weight_steps=7,
    rate=None,
    networks=None,
    train_first=10 * (50_000 // 128),
    seeds=1,
    ranked=0,
)
MACRO = Setting(
    data="digits",
    valid=0.5,
    space=enas_macro(6),
    make=macro_net,
    search=dict(channels=8),
    final=dict(channels=8),
    augment=data.identity,
    batch=64,
    first=20,
    cycles=5,
    weight_steps=2,
    rate=1e-2,
    networks=10,
    train_first=10,
    seeds=3,
    ranked=40,
)
MICRO = replace(
    MACRO, space=enas_micro(3), make=cell_net, search=dict(channels=4, cells=1), final=dict(channels=4, cells=1), ranked=20
)
MICRO_CIFAR10 = replace(
    MACRO_CIFAR10,
    space=enas_micro(),
    make=cell_net,
    search=dict(channels=20, cells=2),
    final=dict(channels=36, cells=5),
    augment=data.chain(data.crop(), data.flip(), data.cutout(16)),
    batch=160,
    first=10 * (45_000 // 160),
    cycles=4,
    weight_steps=9,
    train_first=20 * (50_000 // 144),
)
SETTINGS = {"macro": MACRO, "micro": MICRO, "macro-cifar10": MACRO_CIFAR10, "micro-cifar10": MICRO_CIFAR10}


def optimizer(s: Setting, first: int, cycles: int):
    return training.sgd(warm_restarts(first, cycles), weight_decay=published(s.space).decay, nesterov=True)


def scratch(key, s: Setting, dataset: data.Dataset, arch) -> float:
    """Trains one network, specialised, and tests it: accuracy in percent."""
    module, _ = s.make(s.space, image=dataset.image, classes=dataset.classes, **s.final).specialize(arch)
    feed = data.training(dataset, s.batch, augment=s.augment)
    variables = _common.train(key, module, optimizer(s, s.train_first, 5), dataset, feed, 31 * s.train_first)
    return 100 * _common.accuracy(module, variables, dataset.test)


def alone(key, s: Setting, dataset: data.Dataset, net: Net, archs) -> np.ndarray:
    """Trains networks on the images that the search's weights see: test accuracies in percent, [N, R]."""
    flat, moves = np.asarray(jax.vmap(s.space.flat)(archs)), optimizer(s, s.train_first, 5)
    with tempfile.TemporaryDirectory() as out:
        files = [pathlib.Path(out) / f"{repeat}.npz" for repeat in range(REPEATS)]
        keys = [jax.random.fold_in(key, repeat) for repeat in range(REPEATS)]
        options = dict(steps=31 * s.train_first, batch=s.batch)
        truth = [
            _common.train_alone(path, net, dataset, moves, flat, key=k, **options) for path, k in zip(files, keys, strict=True)
        ]
    return np.stack(truth, -1)


def main(name: str = "macro") -> None:
    s = _common.named(SETTINGS, name)
    k_data, k_random, k_search, k_choose, k_train, k_rank = jax.random.split(jax.random.key(0), 6)
    dataset, space = data.load(s.data, k_data, valid=s.valid), s.space
    net = s.make(space, image=dataset.image, classes=dataset.classes, **s.search)
    search = enas(net, optimizer(s, s.first, s.cycles), controller_adam(s.rate), networks=s.networks)
    feed = data.batches(dataset, s.batch, weight_steps=s.weight_steps, augment=s.augment)
    steps = s.first * (2**s.cycles - 1) // s.weight_steps
    shared = evaluate.shared_weights(net, "batch")
    ranked = jax.vmap(space.sample)(jax.random.split(jax.random.fold_in(k_rank, 1), s.ranked)) if s.ranked else None
    judge = jax.jit(lambda variables, valid: shared.step(None, (), ranked, nas.Batch(fixed=variables, valid=valid))[1]["accuracy"])

    def answer(key, state):
        """The best of ten on one validation batch; the mean accuracy of what the controller draws, and of random networks."""
        k_batch, k_choice, k_drawn, k_space = jax.random.split(key, 4)
        batch = nas.Batch(fixed=state.variables, valid=feed.draw(k_batch, feed.arrays, 0).valid)
        score = lambda key, archs: shared.step(key, (), archs, batch)[1]["accuracy"]
        arch, _ = final_choice(space, score, DRAWN)(k_choice, state.theta)
        drawn = sampler(space, 50).sample(k_drawn, state.theta, 0)
        random = jax.vmap(space.sample)(jax.random.split(k_space, 50))
        return arch, score(None, drawn).mean(), score(None, random).mean()

    seconds, found, rewards, means, scores = _common.stopwatch(), [], [], [], []
    for i in range(s.seeds):
        result = nas.run(jax.random.fold_in(k_search, i), search, steps=steps, data=feed, progress=sys.stderr.isatty())
        arch, *mean = jax.jit(answer)(jax.random.fold_in(k_choose, i), result.state)
        found.append(arch)
        means.append([100 * float(m) for m in mean])
        if s.ranked:
            scores.append(judge(result.state.variables, _common.calibrated(dataset, s.batch, 1).valid))
        rewards.append([100 * q.mean() for q in np.array_split(np.asarray(result.infos[0].gradient["reward"], float), 4)])
    print(f"{s.seeds} searches of {steps} steps: {seconds() / 60:.1f} minutes", flush=True)
    for arch in found:
        print("   ", space.to_text(jax.tree.map(np.asarray, arch)))
    _common.show(
        "reward by quarter of the search", **{f"quarter {q + 1}": values for q, values in enumerate(np.transpose(rewards))}
    )
    _common.show("with shared weights, at the end", **dict(zip(("drawn", "random"), np.transpose(means), strict=True)))
    random = [space.sample(jax.random.fold_in(k_random, i)) for i in range(s.seeds)]
    for kind, archs in (("found", found), ("random", random)):
        _common.show(kind, test=[scratch(jax.random.fold_in(k_train, i), s, dataset, arch) for i, arch in enumerate(archs)])
    if s.ranked:
        truth = alone(k_rank, s, dataset, net, ranked)
        spread = f"{truth.mean():.2f} %, sd {truth.mean(1).std():.2f}; reliability {ranking.reliability(truth):.2f}"
        print(f"{s.ranked} networks alone: {spread}", flush=True)
        for i, each in enumerate(scores):
            rank = ranking.ranking(jax.random.key(0), each, np.mean(truth, 1), 5)
            print(f"search {i}, shared weights {100 * np.mean(each):.1f} %: {_common.told(rank)}", flush=True)
    print(f"{seconds() / 60:.1f} minutes in all", flush=True)


if __name__ == "__main__":
    with _common.compiled_once():
        main(*sys.argv[1:])
