"""Are labels necessary?  How well pretext tasks rank NAS-Bench-201 cells, and a search by one of them.

    python experiments/unnas.py IMAGES.npz TABLE.npz OUT       (see experiments/robust_darts.py for both files)

Liu et al., Are Labels Necessary for Neural Architecture Search?, ECCV 2020, arXiv:2003.12056.

Setting: 30 random cells, C=4, one a stage; 5,000 images of CIFAR-10 as 16 x 16, half of them held out; each cell is trained once a
task, 300 steps: labels in batches of 128, SGD 0.1; the others from 32 images, which rotation and jigsaw make 128 inputs of, SGD
0.025; a cosine to 0, Nesterov, decay 5e-4.  What the paper has more: 500 cells, 100 epochs (here 15 for labels, 4 for the
others), colourisation in batches of 128 at 0.1.  Accuracy is on 2,500 draws of held-out images; rho is Spearman's, p one-sided.

The search is first-order DARTS on rotation, four seeds in one program, 390 steps of 32 images, SGD 0.05, alpha's Adam at 3e-3.

Two CPU cores with much other work on them, 40 minutes (16 of processor time).

Results: docs/results.md#unnas
"""

import sys

import _common
import jax
import jax.numpy as jnp
import numpy as np
from _common import cifar10
from scipy import stats

from jaxnas import data, evaluate, nets, training, weight_sharing
from jaxnas.analysis import ranking
from jaxnas.app.tabulate import choose
from jaxnas.base import Batch
from jaxnas.data import pretext
from jaxnas.driver import run
from jaxnas.nets._pretext_net import pretext_net

CELLS, STEPS, HELD = 30, 300, (10, 250)  # HELD: validation batches
SEEDS, SEARCH = 4, 390  # of protocol B


def main(images, table, out):
    out = _common.made(out)
    dataset, space, truth, k_search = cifar10.halved_and_table(images, table)
    k_cells, k_train, k_boot = jax.random.split(jax.random.key(1), 3)
    archs = jax.vmap(space.unflat)(jnp.asarray(choose(k_cells, space, CELLS)))
    build = lambda **of: nets.cell_net(space, channels=4, cells=1, **of)
    rotation = pretext.rotation(dataset.image)
    tasks = {  # task, images a batch, learning rate
        "labels": (None, 128, 0.1),
        "labels again": (None, 128, 0.1),
        "rotation": (rotation, 32, 0.025),
        "jigsaw": (pretext.jigsaw(dataset.image), 32, 0.025),
        "colourisation": (pretext.colourisation(dataset.image, dataset.inputs.mean, dataset.inputs.std), 32, 0.025),
    }

    def score(number, task, size, rate):
        """Accuracies [CELLS] on the validation half, and that of the commonest class; all train anew, on the same batches."""
        feed = data.batches(dataset, size, weight_steps=STEPS, arch_steps=HELD[0], valid_size=HELD[1])
        feed = feed if task is None else pretext.pretext_feed(feed, task)
        net = build(image=dataset.image, classes=dataset.classes) if task is None else pretext_net(task, build)
        weights = _common.cosine_sgd(rate, STEPS, weight_decay=5e-4, nesterov=True)
        evaluator = evaluate.train_from_scratch(net, weights)

        def whole(key, arrays, archs):
            k_data, k_weights = jax.random.split(key)
            batch = feed.draw(k_data, arrays, 0)
            labels = batch.valid[1]
            constant = jnp.max(jnp.bincount(labels.reshape(-1), length=net.classes)) / labels.size
            return evaluator.step(k_weights, (), archs, Batch(batch.train, batch.valid))[1]["accuracy"], constant

        seconds = _common.stopwatch()
        found, constant = _common.jit(whole)(jax.random.fold_in(k_train, number), feed.arrays, archs)
        return {"accuracy": np.asarray(found).tolist(), "constant": float(constant), "seconds": seconds()}

    scores = {}
    for number, (name, (task, size, rate)) in enumerate(tasks.items()):
        held = _common.kept(out / f"{name}.json", lambda of=(number, task, size, rate): score(*of))
        scores[name] = 100 * np.asarray(held["accuracy"])
        line = f"{name}: {np.nanmean(scores[name]):.2f} % ({np.nanmin(scores[name]):.2f} to {np.nanmax(scores[name]):.2f}),"
        line += f" of one class {100 * held['constant']:.2f} %, {held['seconds']:.0f} s"
        if name != "labels":
            rho = ranking.ranking(k_boot, scores[name], scores["labels"]).spearman
            p = stats.spearmanr(scores[name], scores["labels"], alternative="greater", nan_policy="omit").pvalue
            line += f"; rho with labels {rho.value:.3f} ({rho.low:.2f} to {rho.high:.2f}), p {p:.1e}"
            if name != "labels again":
                line += f", with labels again {ranking.spearman(scores[name], scores['labels again']):.3f}"
        real = truth[np.asarray(jax.vmap(space.index)(archs))]
        rho = ranking.ranking(k_boot, scores[name], real).spearman
        print(f"{line}; with the table {rho.value:.3f} ({rho.low:.2f} to {rho.high:.2f})", flush=True)

    seconds = _common.stopwatch()
    weights = _common.cosine_sgd(0.05, SEARCH)
    search = weight_sharing.darts(pretext_net(rotation, build), weights, training.adam(3e-3), order="first")
    result = run(k_search, search, steps=SEARCH, data=pretext.pretext_feed(data.batches(dataset, 32), rotation), seeds=SEEDS)
    cells = np.asarray(jax.vmap(lambda state: space.index(search.best(state)))(result.states[0]))
    accuracy = [np.round(np.asarray(result.infos[0].score)[:, at], 2).tolist() for at in (0, -1)]
    print(f"search by rotation, accuracy of the first and the last batch {accuracy}, {seconds():.0f} s")
    for cell in cells:
        print(f"    {space.to_text(jax.tree.map(np.asarray, space.from_index(int(cell))))}: {truth[cell]:.2f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
