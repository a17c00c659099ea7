"""How well do cheaper trainings rank architectures?  Fewer epochs, fewer channels, less data, on NAS-Bench-201 cells and digits.

    python experiments/proxy_tasks.py OUT [SEEDS]          (goes on from OUT)

24 random cells at C=4, one cell a stage, 8 x 8 digits; the full setting is 10 epochs of 11 steps, batch 64, SGD 0.1 -> 0 by a
cosine.  "full" is scored on its way, at 1 and 3 epochs of the schedule that is 10 long; "short" anneals fully within 1 or 3.
tau: of one training's validation accuracies against the mean of the four other seeds' full ones, mean of five seeds and Student's
95 % interval; then the bootstrap interval over the 24 cells.  So the row of the full setting against itself is what noise allows.

Two CPU cores with much other work on them, 18 minutes.

Results: docs/results.md#cheaper-trainings
"""

import json
import sys

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import data, spaces, training
from jaxnas.analysis import ranking
from jaxnas.app.tabulate import choose
from jaxnas.ask_tell.trial import Trial
from jaxnas.base import Batch
from jaxnas.evaluate.fidelity import Fidelity, relative_cost, setting
from jaxnas.evaluate.trials import Held, train_trials

CELLS, BATCH = 24, 64
FULL = Fidelity(10, 1.0, channels=4, cells=1, resolution=8)
PROXIES = {  # name -> (fidelity, schedule, the epochs at which its members are scored)
    "full": (FULL, "whole", (1, 3, 10)),
    "short": (FULL, "own", (1, 3)),
    "half the channels": (FULL._replace(channels=2), "whole", (3, 10)),
    "a third of the data": (FULL._replace(data_fraction=1 / 3), "whole", (3, 10)),
}


def moves(progress):
    return training.sgd(lambda t: 0.05 * (1 + jnp.cos(jnp.pi * progress(t))))


def trainer(space, dataset, fidelity, anneal, epochs):
    """key -> {epochs: accuracy of each cell}: of one training that is scored on its way, or of one for each."""
    net, small, steps = setting(fidelity, space, dataset, BATCH)
    feed = data.batches(small, BATCH, arch_steps=0)
    evaluator = train_trials(net, moves, feed.draw, slots=CELLS, budget=FULL.epochs, unit=steps // FULL.epochs, anneal=anneal)
    step = _common.jit(evaluator.step)
    archs, held = (
        jax.vmap(space.unflat)(jnp.asarray(choose(jax.random.key(1), space, CELLS))),
        Batch(fixed=Held(feed.arrays, small.valid)),
    )
    full = lambda value: jnp.full(CELLS, value, jnp.int32)

    def run(key):
        k_init, key = jax.random.split(key)
        state, begin, found = evaluator.init(k_init), 0, {}
        for stop in epochs:
            trials = Trial(archs, jnp.arange(CELLS, dtype=jnp.int32), full(begin), full(stop))
            state, metrics = step(jax.random.fold_in(key, stop), state, trials, held)
            found[stop] = np.asarray(metrics["accuracy"], np.float64).tolist()
            begin = stop if anneal == "whole" else 0
        return found

    return run


def main(out, seeds=5):
    out, seeds = _common.made(out), int(seeds)
    space, dataset = spaces.nasbench201(), data.load("digits", jax.random.key(0))
    scores = {}  # (name, epochs) -> [seeds, cells]
    for number, (name, (fidelity, anneal, epochs)) in enumerate(PROXIES.items()):
        path = out / f"{name}.json"
        held, run, seconds = json.loads(path.read_text()) if path.exists() else [], None, _common.stopwatch()
        for seed in range(len(held), seeds):
            run = trainer(space, dataset, fidelity, anneal, epochs) if run is None else run
            held.append(run(jax.random.fold_in(jax.random.key(2 + number), seed)))
            path.write_text(json.dumps(held))
        print(f"{name}: {seconds():.0f} s", flush=True)
        for e in epochs:
            scores[name, e] = np.asarray([h[str(e)] if str(e) in h else h[e] for h in held[:seeds]])
    truth = scores["full", 10]  # [seeds, cells]
    print(f"{100 * truth.mean():.2f} % in the mean, {100 * truth.mean(0).min():.2f} to {100 * truth.mean(0).max():.2f}")
    print(f"reliability of {seeds} trainings: {ranking.reliability(truth.T):.3f}")

    def taus(a, b):
        """Of each seed's scores a against the mean of the other seeds' scores b, with its bootstrap interval over cells."""
        return [ranking.ranking(jax.random.key(4), a[i], np.delete(b, i, 0).mean(0)).tau for i in range(seeds)]

    for (name, e), each in scores.items():
        found = taus(each, truth)
        tau = _common.plus_minus([t.value for t in found], 3)
        low, high = (np.mean([getattr(t, end) for t in found]) for end in ("low", "high"))
        cost = relative_cost(PROXIES[name][0]._replace(epochs=e), FULL)
        _common.row(name, e, f"{cost:.3f}", f"{100 * each.mean():.1f}", tau, f"{low:.2f} to {high:.2f}")
    matrix = {1: scores["short", 1], 3: scores["short", 3], 10: truth}
    for e, a in matrix.items():
        _common.row(e, *(_common.plus_minus([t.value for t in taus(a, b)], 3) for b in matrix.values()))


if __name__ == "__main__":
    main(*sys.argv[1:])
