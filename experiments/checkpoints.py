"""What it brings that a checkpoint is written while the run goes on: `python experiments/checkpoints.py [PAIRS]`.

A state of 201 MB (twelve matrices of 2,048 x 2,048) and a checkpoint every 2 s instead of every 30 s, so that a short run has
several.  Two kinds of step: gradient descent that fills all cores, and one that leaves them alone, as an accelerator does.  Runs
with and without take turns; without, `save` waits until the checkpoint is whole.  2 CPU cores, some ten minutes for 5 pairs.

Results: docs/results.md#checkpoints-written-while-the-run-goes-on
"""

import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Feed, Strategy
from jaxnas.driver import Checkpoints, journal, run

LAYERS, WIDTH, BATCH, STEPS = 12, 2048, 64, {"busy": 12, "idle": 40}
journal.SAVE_EVERY = 2.0
begin, saves = Checkpoints.save, []


def save(waits, store, step, key, state):
    began = time.perf_counter()
    begin(store, step, key, state)
    if waits:
        store.wait()
    saves.append(time.perf_counter() - began)


def strategy(kind):
    def init(key, given=None):
        return jax.random.normal(key, (LAYERS, WIDTH, WIDTH)) / WIDTH**0.5

    def loss(w, x):
        return jnp.mean(jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0] ** 2)

    def busy(key, w, x):
        value, gradient = jax.value_and_grad(loss)(w, x)
        return w - 0.1 * gradient, {"loss": value}

    def rest(w):
        time.sleep(0.2)
        return np.float32(1)

    def idle(key, w, x):
        one = jax.pure_callback(rest, jax.ShapeDtypeStruct((), jnp.float32), w[0, 0, 0])
        return w.at[0, 0, 0].multiply(one), {"loss": one}

    return Strategy(init, {"busy": busy, "idle": idle}[kind], lambda w: w[0, 0, 0])


def main(pairs=5):
    x = jax.random.normal(jax.random.key(1), (BATCH, WIDTH))
    data = Feed(x, lambda key, x, t: x)
    for kind, steps in STEPS.items():
        made, seconds, blocked, count = strategy(kind), {True: [], False: []}, {True: [], False: []}, []
        run(jax.random.key(0), made, steps=2, data=data)  # compiled
        for _ in range(pairs):
            for waits in (True, False):
                saves.clear()
                Checkpoints.save = lambda store, *arguments, waits=waits: save(waits, store, *arguments)
                with tempfile.TemporaryDirectory() as folder:
                    began = time.perf_counter()
                    run(jax.random.key(0), made, steps=steps, data=data, directory=folder)
                    seconds[waits].append(time.perf_counter() - began)
                blocked[waits].append(np.mean(saves))
                count.append(len(saves))
        for waits, name in ((True, "without"), (False, "with")):
            low, middle, high = np.quantile(seconds[waits], (0, 0.5, 1))
            print(f"{kind} {name}: {middle:.1f} s ({low:.1f} to {high:.1f}), {np.median(blocked[waits]):.3f} s in `save`", end="; ")
            print(f"{count[int(not waits) :: 2]} saves")
        ratio = np.asarray(seconds[True]) / np.asarray(seconds[False])
        print(f"{kind}: pairs {np.round(ratio, 3).tolist()}", flush=True)


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
