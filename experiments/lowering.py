"""What the steps that users run become on an accelerator, lowered here, without one: convolutions, size, seconds.

    python experiments/lowering.py                    every step, for tpu and cuda
    python experiments/lowering.py "darts, first"     those whose names begin so

A step is traced once with abstract arguments and lowered for each platform.  The table says how many convolutions and slices the
lowered program has, how many lines, and the seconds that tracing and lowering took.  One that calls back to Python is an error.

Two busy CPU cores, 17 minutes.

Results: docs/results.md#lowering
"""

import functools
import re
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from _common import steps

import jaxnas as nas
from jaxnas import nets, proxies, spaces, weight_sharing
from jaxnas.app import bench
from jaxnas.base import Batch, stateless
from jaxnas.data.text import Tokens

PLATFORMS = ("tpu", "cuda")
QUERIES = 300  # of an algorithm on a table


def on_a_table(name: str) -> steps.Step:
    space = spaces.nasbench201()
    table = jax.ShapeDtypeStruct((space.size,), jnp.float32)
    scores = stateless(lambda key, archs, batch: {"accuracy": batch.fixed[jax.vmap(space.index)(archs)]})
    return steps.of(nas.black_box(bench.algorithm(name)(space, QUERIES), scores, nas.metric("accuracy")), Batch(fixed=table))


def proxy() -> steps.Step:
    space = spaces.nasbench201()
    net = nas.cell_net(space, image=steps.CIFAR, classes=10, channels=16, cells=5)
    evaluator = nas.zero_cost(net, *(name for name in proxies.PROXIES if name not in proxies.DEFAULT_DRAW))
    archs = jax.eval_shape(jax.vmap(space.sample), jax.ShapeDtypeStruct((8,), steps.KEY.dtype))
    step = lambda key, state, data: evaluator.step(key, state, *data)
    return steps.Step(evaluator.init, step, (archs, steps.images(steps.CIFAR, 32, 2)), 10)


def language() -> steps.Step:
    net = nets.language_model(spaces.darts_rnn(), vocabulary=10_000, batch=64, hidden=300)
    window = lambda: (Tokens(jax.ShapeDtypeStruct((1, 64, 35), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.bool_)),)
    text = lambda: (*window(), jax.ShapeDtypeStruct((1, 64, 35), jnp.int32))
    return steps.of(weight_sharing.darts(net, order="first"), Batch(train=text(), valid=text()))


STEPS: dict[str, Callable[[], steps.Step]] = {
    **steps.REAL,
    "zero-cost proxies": proxy,
    "language model, darts": language,
    **{f"{name} on a table": functools.partial(on_a_table, name) for name in bench.algorithms(spaces.nasbench201(), QUERIES)},
}


def rows(begins: str = "") -> Iterator[tuple[str, str, int, int, int, float, float]]:
    """(step, platform, convolutions, slices, lines, seconds of tracing, seconds of lowering)"""
    for name, make in STEPS.items():
        if not name.startswith(begins):
            continue
        made = make()
        started = time.perf_counter()
        traced = jax.jit(made.step).trace(*made.arguments())
        tracing = time.perf_counter() - started
        for platform in PLATFORMS:
            started = time.perf_counter()
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            count = lambda word, text=text: len(re.findall(rf"stablehlo\.{word}\b", text))
            if re.search("callback", text):
                raise SystemExit(f"{name} calls back to Python on {platform}")
            yield name, platform, count("convolution"), count("slice"), text.count("\n"), tracing, time.perf_counter() - started


def main(begins: str = "") -> None:
    print("| step | platform | convolutions | slices | lines | trace s | lower s |\n|---|---|---|---|---|---|---|")
    for name, platform, convolutions, slices, lines, tracing, lowering in rows(begins):
        print(f"| {name} | {platform} | {convolutions:,} | {slices:,} | {lines:,} | {tracing:.1f} | {lowering:.1f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
