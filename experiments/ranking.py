"""How well do shared weights rank architectures?  SPOS, FairNAS, One-Shot and few-shot on NAS-Bench-201 cells.

    python experiments/ranking.py digits OUT
    python experiments/ranking.py cifar OUT IMAGES.npz TABLE.npz       (see experiments/_common/cifar10.py for IMAGES)

The reference: 60 random cells, each trained on its own, three times, with the same images and batches; the score of a cell is
its mean test accuracy, and `reliability` says how well that mean would agree with three more.  The supernets: five seeds each,
all on as many batches; FairNAS takes a fifth of the steps with five paths each, few-shot trains a parent on half of the batches
and each of the five children of one edge on a tenth.  A candidate's score is its accuracy on the validation half, with the
supernet's running statistics, recalibrated ones, or those of each batch.  TABLE is an .npz with `ops` [N, 6] and `test_acc_200`
[N, D] (CIFAR-10 first): the real benchmark, trained 200 epochs at full size.

Setting: C=4, one cell a stage, batch 32, SGD 0.025 -> 0 by a cosine.  digits: 8 x 8, 22 batches an epoch; cifar: 5,000 images of
CIFAR-10 as 16 x 16, half of them held out for validation, 78 batches an epoch.

Two CPU cores with much other work on them, 15 minutes (digits) and 85 (cifar).

Results: docs/results.md#how-well-shared-weights-rank
"""

import json
import sys

import _common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import cifar10

import jaxnas as nas
from jaxnas import data, evaluate, nets, spaces, weight_sharing
from jaxnas.analysis import ranking
from jaxnas.app.tabulate import Recipe, choose, tabulate

CELLS, REPEATS, SEEDS, BATCH = 60, 3, 5, 32
EPOCHS, ALONE = 40, 20  # of a supernet, and of a cell on its own
SPLIT = 3  # the edge that few-shot splits, from the cell's input to its output


def sgd(steps):
    return _common.cosine_sgd(0.025, steps)


def single(make, steps):
    return lambda net, batches: [(make(net, steps(batches)), steps(batches), None)]


def few_shot(net, batches):
    half, each = batches // 2, batches // 10
    give = lambda state: weight_sharing.Given(state.variables)
    children = weight_sharing.few_shot(net, sgd(each), decisions=[SPLIT])
    return [(weight_sharing.spos(net, sgd(half)), half, None), (children, each, give)]


def one_shot(rate):
    def make(net, steps):
        share = optax.linear_schedule(0.0, 1.0, steps) if rate else lambda t: 0.0
        weights = _common.cosine_sgd(0.025, steps, weight_decay=0.0)
        return weight_sharing.one_shot(net, weights, rate=rate or 0.5, warm_up=share, decay=3e-4)

    return make


METHODS = {  # name -> (net, batches) -> phases
    "SPOS": single(lambda net, n: weight_sharing.spos(net, sgd(n)), lambda n: n),
    "FairNAS": single(lambda net, n: weight_sharing.fairnas(net, sgd(n)), lambda n: n // 5),
    "One-Shot, path dropout": single(one_shot(0.1), lambda n: n),
    "One-Shot, no dropout": single(one_shot(0.0), lambda n: n),
    "few-shot, five supernets": few_shot,
}


STATISTICS = ("running", "recalibrated", "batch")


def scorer(net, batch, archs, pick):
    """variables -> {statistics: accuracy of each architecture on the validation half}; not a number where it diverged."""

    def one(statistics):
        step = evaluate.shared_weights(net, statistics, pick).step
        return jax.jit(lambda archs, batch: step(jax.random.key(0), (), archs, batch)[1]["accuracy"])

    made = {statistics: one(statistics) for statistics in STATISTICS}
    return lambda variables: {name: np.asarray(f(archs, batch._replace(fixed=variables))).tolist() for name, f in made.items()}


def prepare(name, images=None):
    if name == "digits":
        return data.load("digits", jax.random.key(0))
    return cifar10.halved(jax.random.key(0), images)


def main(name, out, images=None, table=None):
    out = _common.made(out)
    dataset, space = prepare(name, images), spaces.nasbench201()
    net = nets.cell_net(space, image=dataset.image, classes=dataset.classes, channels=4, cells=1)
    epoch = len(dataset.train.y) // BATCH
    flat = choose(jax.random.key(1), space, CELLS)
    archs = jax.vmap(space.unflat)(jnp.asarray(flat))
    truth = []
    for repeat in range(REPEATS):  # the stand-alone sample
        path = out / f"alone{repeat}.npz"
        key = jax.random.fold_in(jax.random.key(2), repeat)
        tabulate(path, net, dataset, Recipe(sgd(ALONE * epoch), ALONE * epoch, BATCH), key=key, archs=flat, chunk=10)
        with np.load(path) as file:
            found = {tuple(row): value for row, value in zip(file["archs"].tolist(), file["test"], strict=True)}
        truth.append([100 * found.get(tuple(row), np.nan) for row in flat.tolist()])
    truth = np.asarray(truth).T  # [N, R]
    print(f"stand-alone: {truth.mean():.2f} % in the mean, {truth.mean(1).min():.2f} to {truth.mean(1).max():.2f}")
    print(f"reliability of {REPEATS} trainings: {ranking.reliability(truth):.3f}")
    references = {"stand-alone": truth.mean(1)}
    if table is not None:
        with np.load(table) as file:
            ops, accuracy = np.asarray(file["ops"]), np.asarray(file["test_acc_200"])[:, 0]
        known = evaluate.rows(space, ops, {"accuracy": accuracy})["accuracy"]
        references["table"] = np.asarray(known)[np.asarray(jax.vmap(space.index)(archs))]
        print(f"stand-alone against the table: tau {ranking.kendall(truth.mean(1), references['table']):.3f}")
    feed, judge = data.batches(dataset, BATCH, arch_steps=0), _common.calibrated(dataset, BATCH, 8)
    for method, make in METHODS.items():
        path = out / f"{method}.json"
        held = json.loads(path.read_text()) if path.exists() else []
        score = scorer(net, judge, archs, weight_sharing.pick_child(space, [SPLIT]) if method.startswith("few-shot") else None)
        for seed in range(len(held), SEEDS):
            seconds = _common.stopwatch()
            phases = make(net, EPOCHS * epoch)
            state = nas.run(jax.random.fold_in(jax.random.key(3), seed), _common.in_turn(phases, feed)).state
            held.append({"seconds": seconds(), **score(state.variables)})
            path.write_text(json.dumps(held))
        for reference, worth in references.items():
            for statistics in STATISTICS:
                each = [ranking.ranking(jax.random.key(4), h[statistics], worth) for h in held]
                tau = _common.plus_minus([r.tau.value for r in each], 3)
                low, high = (np.mean([getattr(r.tau, end) for r in each]) for end in ("low", "high"))
                rho, lost = np.mean([r.spearman.value for r in each]), np.mean([r.regret.value for r in each])
                mean = 100 * np.nanmean([h[statistics] for h in held])
                print(
                    f"| {method} | {statistics} | {reference} | {tau} | {low:.2f} to {high:.2f} | {rho:.3f} | "
                    f"{lost:.2f} | {mean:.1f} | {np.mean([h['seconds'] for h in held]):.0f} s |",
                    flush=True,
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
