"""How well do cheaper trainings rank architectures?  Fewer epochs, fewer channels, less data, on NAS-Bench-201 cells and digits.

python experiments/proxy_tasks.py OUT [SEEDS]          (goes on from OUT)
"""

import json
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import data, ranking, report, spaces, weight_sharing
from jaxnas.ask_tell.trial import Trial
from jaxnas.base import Batch
from jaxnas.driver import compiler_options
from jaxnas.evaluate.fidelity import Fidelity, relative_cost, setting
from jaxnas.evaluate.trials import Held, train_trials
from jaxnas.tabulate import choose

CELLS, BATCH = 24, 64
FULL = Fidelity(10, 1.0, channels=4, cells=1, resolution=8)
PROXIES = {  # name -> (fidelity, schedule, the epochs at which its members are scored)
    "full": (FULL, "whole", (1, 3, 10)),
    "short": (FULL, "own", (1, 3)),
    "half the channels": (FULL._replace(channels=2), "whole", (3, 10)),
    "a third of the data": (FULL._replace(data_fraction=1 / 3), "whole", (3, 10)),
}


def moves(progress):
    return weight_sharing.sgd(lambda t: 0.05 * (1 + jnp.cos(jnp.pi * progress(t))))


def trainer(space, dataset, fidelity, anneal, epochs):
    """key -> {epochs: accuracy of each cell}: of one training that is scored on its way, or of one for each."""
    net, small, steps = setting(fidelity, space, dataset, BATCH)
    feed = data.batches(small, BATCH, arch_steps=0)
    evaluator = train_trials(net, moves, feed.draw, slots=CELLS, budget=FULL.epochs, unit=steps // FULL.epochs, anneal=anneal)
    step = jax.jit(evaluator.step, compiler_options=compiler_options())
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
    out, seeds = pathlib.Path(out), int(seeds)
    out.mkdir(parents=True, exist_ok=True)
    space, dataset = spaces.nasbench201(), data.load("digits", jax.random.key(0))
    scores = {}  # (name, epochs) -> [seeds, cells]
    for number, (name, (fidelity, anneal, epochs)) in enumerate(PROXIES.items()):
        path = out / f"{name}.json"
        held, run, started = json.loads(path.read_text()) if path.exists() else [], None, time.perf_counter()
        for seed in range(len(held), seeds):
            run = trainer(space, dataset, fidelity, anneal, epochs) if run is None else run
            held.append(run(jax.random.fold_in(jax.random.key(2 + number), seed)))
            path.write_text(json.dumps(held))
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        for e in epochs:
            scores[name, e] = np.asarray([h[str(e)] if str(e) in h else h[e] for h in held[:seeds]])
    truth = scores["full", 10]  # [seeds, cells]
    print(f"{100 * truth.mean():.2f} % in the mean, {100 * truth.mean(0).min():.2f} to {100 * truth.mean(0).max():.2f}")
    print(f"reliability of {seeds} trainings: {ranking.reliability(truth.T):.3f}")
    for (name, e), each in scores.items():
        # against the mean of the other seeds' full trainings
        taus = [ranking.kendall(each[i], np.delete(truth, i, 0).mean(0)) for i in range(seeds)]
        boot = [ranking.ranking(jax.random.key(4), each[i], np.delete(truth, i, 0).mean(0)).tau for i in range(seeds)]
        mean, half = report.interval(taus)
        low, high = (np.mean([getattr(b, end) for b in boot]) for end in ("low", "high"))
        fidelity = PROXIES[name][0]._replace(epochs=e)
        print(
            f"| {name} | {e} | {relative_cost(fidelity, FULL):.3f} | {100 * each.mean():.1f} | {mean:.3f} +- {half:.3f} | "
            f"{low:.2f} to {high:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
