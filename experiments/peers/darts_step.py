"""DARTS search step: jaxnas against PyTorch, the same supernet, interleaved in one run.

    python experiments/peers/darts_step.py            (needs the extra `peers`: torch)

C=8, 4 cells, batch 16, 32x32 images, 10 classes.  Each contestant is a process of its own that compiles first and then
takes turns of five steps with the others, one compiled loop as in the driver; the figures are seconds a step, medians of
the turns, compile time (tracing included) apart, peak memory of the whole process.

Two cores of an AMD EPYC (AVX-512), jax 0.10.2, torch 2.13.0.

Results: docs/results.md#a-darts-step-against-pytorch
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from contest import contest

SIZE = {"channels": 8, "cells": 4, "batch": 16}
TURN = 5  # steps


def jax_step(order, channels, cells, batch):
    """-> (a function of nothing that takes a turn and waits for it, compile seconds)."""
    import jax
    import jax.numpy as jnp

    from jaxnas import nets, spaces, weight_sharing
    from jaxnas.base import Batch
    from jaxnas.driver import compiler_options

    net = nets.cell_net(spaces.darts(), image=(32, 32, 3), classes=10, channels=channels, cells=cells)
    search = weight_sharing.darts(net, order={"first": "first", "second": "exact"}[order])
    key = jax.random.key(0)
    state = jax.jit(search.init)(key)
    x = jax.random.normal(key, (1, batch, 32, 32, 3))
    y = jnp.arange(batch)[None] % 10
    data = Batch(train=(x, y), valid=(x[:, ::-1], y[:, ::-1]))
    started = time.perf_counter()
    options = compiler_options()

    def turn(key, state, data):  # as the driver runs them
        return jax.lax.fori_loop(0, TURN, lambda t, s: search.step(jax.random.fold_in(key, t), s, data)[0], state)

    compiled = jax.jit(turn, donate_argnums=1).lower(key, state, data).compile(compiler_options=options)
    seconds = time.perf_counter() - started

    def run():
        nonlocal state
        state = jax.block_until_ready(compiled(key, state, data))

    return run, seconds


def torch_step(order, channels_last, channels, cells, batch):
    from torch_darts_net import make_step

    step, info = make_step(order, channels, cells, batch, channels_last)
    return lambda: [step(*info["data"]) for _ in range(TURN)], 0.0


CONTESTANTS = {
    "jaxnas, first order": (jax_step, ("first",)),
    "jaxnas, exact second order": (jax_step, ("second",)),
    "PyTorch NCHW, first order": (torch_step, ("first", False)),
    "PyTorch channels_last, first order": (torch_step, ("first", True)),
    "PyTorch NCHW, finite-difference second order": (torch_step, ("second", False)),
    "PyTorch channels_last, finite-difference second order": (torch_step, ("second", True)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--only", default="", help="contestants whose name contains this")
    for name, value in SIZE.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    size = tuple(getattr(arguments, name) for name in SIZE)
    chosen = {name: (make, (*options, *size)) for name, (make, options) in CONTESTANTS.items() if arguments.only in name}
    results = contest(chosen, arguments.repetitions)
    times = {name: [seconds / TURN for seconds in result.seconds] for name, result in results.items()}
    median = {name: statistics.median(t) for name, t in times.items()}
    print(f"{'':<55}{'median':>9}{'min':>9}{'compile':>9}{'memory':>10}")
    for name, result in results.items():
        print(f"{name:<55}{median[name]:8.3f}s{min(times[name]):8.3f}s{result.compiling:8.1f}s{result.memory:6.2f} GiB")
    for order, ours in (("first order", "jaxnas, first order"), ("second order", "jaxnas, exact second order")):
        for name in median:
            if name.startswith("PyTorch") and order in name and ours in median:
                print(f"{ours} / {name}: {median[ours] / median[name]:.2f}")


if __name__ == "__main__":
    main()
