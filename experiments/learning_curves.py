"""Learning curves: how early can one tell how a training will end?  Real curves of recurrent cells, and curves of our own.

    python experiments/learning_curves.py nlp CURVES.npz
    python experiments/learning_curves.py alike|rates CURVES.npz        (made where it is not there)

Columns: R2 and Spearman's rho with the end, on networks that were not learnt from; mean of five splits and Student's 95 %
interval.  `last value`: the validation loss or accuracy at the cut.  SoTL, SoTL-E (E = 1): sums of training losses (TSE-EMA at
0.99 ranks as SoTL does, within 0.005).  `ended`: by the rule at 95 %, against the best tenth of what was learnt from; `of the
winners`: of those above it, in all splits.

nlp: NAS-Bench-NLP on WikiText-2, 341 recurrent cells with whole curves, 50 epochs, the end is the test loss; 100 cells learnt
from.

rates: 16 NAS-Bench-201 cells (C=4, one cell a stage) on digits, each at five learning rates from 0.001 to 0.25: 80 curves of 20
epochs, the end is the test accuracy, 36 to 98 %; ten cells learnt from.

alike: 60 cells at one rate, 0.025, trained twice: 120 curves; 40 cells learnt from.

Two CPU cores with much other work on them: nlp 3 to 5 minutes, rates 4, alike 5.

Results: docs/results.md#learning-curves
"""

import pathlib
import sys

import _common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.stats import spearmanr
from sklearn.metrics import r2_score

from jaxnas import data, nets, spaces
from jaxnas.analysis import learning_curves, ranking
from jaxnas.app.tabulate import choose
from jaxnas.evaluate.population import population
from jaxnas.training import sgd
from jaxnas.training.scratch import accuracy

SEEDS, KNOWN = 5, 100
EPOCHS, BATCH = 20, 32


def by_cut(curves, losses, final, extra, network, known, cuts):
    """Prints, for each cut, how well what is seen by then predicts and ranks `final` on networks that were not learnt from.

    Args:
        curves: [N, T], larger is better.
        losses: [N, T, B], of training.
        final: [N], larger is better.
        extra: [N, F], what else is known of a network.
        network: int[N], whose curve it is.
        known: how many networks are learnt from.
        cuts: in epochs.
    """
    print("| epochs | R2, last value | nu-SVR | rho, last value | nu-SVR | SoTL | SoTL-E | TSE-EMA | ended, % | of the winners |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for cut in cuts:
        rows, winners, lost = [], 0, 0
        seen = losses[:, :cut]
        sums = [-np.asarray(f(seen)) for f in (learning_curves.sotl, learning_curves.sotl_e, learning_curves.tse_ema)]
        for seed in range(SEEDS):
            old = np.isin(network, np.random.default_rng(seed).permutation(network.max() + 1)[:known])
            new = ~old
            model = learning_curves.fit(jax.random.key(seed), curves[old], final[old], cut, extra[old])
            predicted, last = learning_curves.predict(model, curves[new], extra[new]), curves[new, cut - 1]
            rho = [spearmanr(score, final[new]).statistic for score in (last, predicted, *[s[new] for s in sums])]
            best = np.quantile(final[old], 0.9)
            ended = learning_curves.stop(predicted, model.sigma, best)
            winners, lost = winners + np.sum(final[new] > best), lost + np.sum(ended & (final[new] > best))
            rows.append([r2_score(final[new], last), r2_score(final[new], predicted), *rho, 100 * ended.mean()])
        rows = np.asarray(rows)
        plus_minus = _common.plus_minus
        cells = [*[plus_minus(c, 2) for c in rows[:, :2].T], *[plus_minus(c, 3) for c in rows[:, 2:7].T], plus_minus(rows[:, 7], 0)]
        _common.row(cut, *cells, f"{lost} of {winners}")


def nlp(path):
    with np.load(path) as file:
        train, valid, test = (np.asarray(file[f"{name}_loss"], np.float64) for name in ("train", "val", "test"))
        params = np.asarray(file["num_params"], np.float64)
    whole = np.isfinite(train + valid + test).all(1)
    print(f"{whole.sum()} of {len(whole)} cells have whole curves")
    extra = np.log(params[whole])[:, None]
    by_cut(
        -valid[whole], train[whole][..., None], -test[whole, -1], extra, np.arange(whole.sum()), KNOWN, (2, 5, 10, 12, 20, 30, 40)
    )


def trainer(net, dataset):
    """(key, archs, rate) -> {"losses": [P, S], "valid", "test": accuracy after each epoch [P, T]}, compiled once for all rates."""
    steps = len(dataset.train.y) // BATCH
    feed = data.batches(dataset, BATCH, weight_steps=EPOCHS * steps, arch_steps=0)
    score = lambda logits_of, held: {name: accuracy(logits_of, split) for name, split in held.items()}

    def program(key, archs, rate, arrays, held):
        k_batches, k_weights = jax.random.split(key)
        falls = optax.cosine_decay_schedule(1.0, EPOCHS * steps)
        train = population(net, sgd(lambda t: rate * falls(t)), score, every=steps)
        keys = jax.random.split(k_weights, len(archs.op))
        found = train(keys, archs, feed.draw(k_batches, arrays, 0).train, held)
        return {"losses": found["losses"], **found["curves"]}

    compiled = _common.jit(program)
    held = {"valid": dataset.valid, "test": dataset.test}
    return lambda *inputs: jax.tree.map(np.asarray, compiled(*inputs, feed.arrays, held))


def population_curves(path, rates, repeats, count):
    """(curves, decisions, rates) of `count` networks, `repeats` times at every rate, trained where the file is not there yet."""
    dataset, space = data.load("digits", jax.random.key(0)), spaces.nasbench201()
    net = nets.cell_net(space, image=dataset.image, classes=dataset.classes, channels=4, cells=1)
    flat = np.tile(choose(jax.random.key(1), space, count), (repeats, 1))
    if not path.exists():
        seconds, train, parts = _common.stopwatch(), trainer(net, dataset), []
        for i, rate in enumerate(rates):
            archs = jax.vmap(space.unflat)(jnp.asarray(flat))
            parts.append(train(jax.random.fold_in(jax.random.key(2), i), archs, jnp.float32(rate)))
        np.savez(path, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        print(f"{len(rates)} x {len(flat)} networks, {seconds():.0f} s with compiling")
    with np.load(path) as file:
        return {name: file[name] for name in file.files}, np.tile(flat, (len(rates), 1)), np.repeat(rates, len(flat))


def digits(path, rates, repeats, count):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    held, ops, rate = population_curves(path, rates, repeats, count)
    end = held["test"][:, -1]
    print(f"test accuracy {100 * end.mean():.2f} % in the mean, {100 * end.min():.2f} to {100 * end.max():.2f}")
    if repeats > 1:
        print(f"reliability of the mean of {repeats} trainings: {ranking.reliability(end.reshape(repeats, -1).T):.3f}")
    extra = np.stack([(ops == 2).sum(1), (ops == 3).sum(1), np.log(rate)], 1)  # of each convolution how many: the number of weights
    losses = learning_curves.by_epoch(held["losses"], held["losses"].shape[1] // EPOCHS)
    network = np.tile(np.arange(count), repeats * len(rates))
    by_cut(held["valid"], losses, end, extra, network, 2 * count // 3, (1, 2, 5, 10, 15))


if __name__ == "__main__":
    what, path = sys.argv[1:]
    if what == "nlp":
        nlp(path)
    else:
        digits(path, *{"alike": ((0.025,), 2, 60), "rates": ((0.001, 0.004, 0.016, 0.064, 0.25), 1, 16)}[what])
