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
import optax

import jaxnas as nas
from jaxnas import hardware, nets, proxies, spaces, training, weight_sharing
from jaxnas.app import bench
from jaxnas.base import Batch, stateless
from jaxnas.data.text import Tokens
from jaxnas.evaluate.population import batch_score, population
from jaxnas.weight_sharing.ofa import progressive_shrinking, stages

PLATFORMS = ("tpu", "cuda")
CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)
QUERIES = 300  # of an algorithm on a table
KEY = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)


CONVOLUTIONS = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def images(shape: tuple[int, ...], size: int, weight_steps: int = 1, arch_steps: int = 1, classes: int = 10) -> Batch:
    part = lambda n: (jax.ShapeDtypeStruct((n, size, *shape), jnp.float32), jax.ShapeDtypeStruct((n, size), jnp.int32))
    return Batch(train=part(weight_steps) if weight_steps else None, valid=part(arch_steps) if arch_steps else None)


def of(strategy: nas.Strategy, batch: Batch) -> tuple[Callable, tuple]:
    return strategy.step, (KEY, jax.eval_shape(strategy.init, KEY), batch)


def cells(make: Callable, space: nas.spaces.Space, channels: int = 16, count: int = 8, size: int = 64, arch_steps: int = 1):
    net = nas.cell_net(space, image=CIFAR, classes=10, channels=channels, cells=count)
    return of(make(net), images(CIFAR, size, arch_steps=arch_steps))


def evaluation(space: nas.spaces.Space, genotype, channels: int, count: int):
    module = nets.evaluation_net(space, genotype, classes=10, channels=channels, cells=count)
    return of(nas.train(module, training.sgd(0.025), CIFAR, steps=100), images(CIFAR, 96, arch_steps=0))


def populations(mode: str | int | None):
    space = spaces.nasbench201()
    net = nas.cell_net(space, image=CIFAR, classes=10, channels=16, cells=3)
    trained = population(net, training.sgd(0.1), batch_score(training.CLASSES), mode)
    archs = jax.eval_shape(jax.vmap(space.sample), jax.ShapeDtypeStruct((8,), KEY.dtype))
    return trained, (jax.ShapeDtypeStruct((8,), KEY.dtype), archs, *images(CIFAR, 64, 4, 1)[:2])


def on_a_table(name: str):
    space = spaces.nasbench201()
    table = jax.ShapeDtypeStruct((space.size,), jnp.float32)
    scores = stateless(lambda key, archs, batch: {"accuracy": batch.fixed[jax.vmap(space.index)(archs)]})
    return of(nas.black_box(bench.algorithm(name)(space, QUERIES), scores, nas.metric("accuracy")), Batch(fixed=table))


def proxy():
    space = spaces.nasbench201()
    net = nas.cell_net(space, image=CIFAR, classes=10, channels=16, cells=5)
    evaluator = nas.zero_cost(net, *(name for name in proxies.PROXIES if name not in proxies.DEFAULT_DRAW))
    archs = jax.eval_shape(jax.vmap(space.sample), jax.ShapeDtypeStruct((8,), KEY.dtype))
    return evaluator.step, (KEY, jax.eval_shape(evaluator.init, KEY), archs, images(CIFAR, 32, 2))


def language():
    net = nets.language_model(spaces.darts_rnn(), vocabulary=10_000, batch=64, hidden=300)
    window = lambda: (Tokens(jax.ShapeDtypeStruct((1, 64, 35), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.bool_)),)
    text = lambda: (*window(), jax.ShapeDtypeStruct((1, 64, 35), jnp.int32))
    return of(weight_sharing.darts(net, order="first"), Batch(train=text(), valid=text()))


def mobile():
    net = nas.mobile_net(spaces.proxylessnas(), image=IMAGENET, classes=1000)
    cost = hardware.priced(net.macs, hardware.proxyless_product(300e6))
    return of(weight_sharing.proxylessnas(net, training.sgd(0.05), cost=cost), images(IMAGENET, 32))


def once_for_all(name: str):
    net = nets.elastic_net(spaces.ofa_mobilenet_v3(), image=IMAGENET, classes=1000)
    order = stages(net.space)
    feed = nas.Feed((), lambda key, arrays, t: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), images(IMAGENET, 32, 1, 0)))
    plan = progressive_shrinking(net, steps={stage.name: 10 for stage in order}, data=feed)
    phase, state = plan[0], jax.eval_shape(plan[0].strategy.init, KEY)
    fixed = None
    for following in plan[1:]:
        if phase.name == name:
            break
        state_of = functools.partial(lambda phase, key, s: phase.strategy.init(key, phase.give(s)), following)
        fixed = None if following.fix is None else jax.eval_shape(following.fix, state)
        phase, state = following, jax.eval_shape(state_of, KEY, state)
    return phase.strategy.step, (KEY, state, images(IMAGENET, 32, 1, 0)._replace(fixed=fixed))


DARTS = functools.partial(nas.darts, weights=training.sgd(0.025))
STEPS: dict[str, Callable] = {
    "darts, first order (C=16, 8 cells)": lambda: cells(functools.partial(DARTS, order="first"), spaces.darts()),
    "darts, exact second order (C=16, 8 cells)": lambda: cells(DARTS, spaces.darts()),
    "pc-darts (C=16, 8 cells)": lambda: cells(nas.pc_darts, spaces.darts()),
    "gdas (C=16, 8 cells)": lambda: cells(
        lambda net: nas.gdas(net, temperature=optax.linear_schedule(10.0, 0.1, 10)), spaces.darts()
    ),
    "spos (NAS-Bench-201, C=16)": lambda: cells(nas.spos, spaces.nasbench201(), count=5, arch_steps=0),
    "enas, macro": lambda: of(nas.enas(nets.macro_net(spaces.enas_macro(), image=CIFAR, classes=10)), images(CIFAR, 128)),
    "ofa, full": lambda: once_for_all("full"),
    "ofa, kernel": lambda: once_for_all("kernel"),
    "proxylessnas (224 x 224)": mobile,
    "training (DARTS cell, C=36, 20 cells)": lambda: evaluation(spaces.darts(), spaces.darts().from_text("DARTS_V2"), 36, 20),
    "training (NAS-Bench-201 cell)": lambda: evaluation(
        spaces.nasbench201(),
        spaces.nasbench201().from_text(
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
        ),
        16,
        5,
    ),
    **{f"population training, {mode or 'by platform'}": functools.partial(populations, mode) for mode in (None, "map", "vmap", 4)},
    "zero-cost proxies": proxy,
    "language model, darts": language,
    **{f"{name} on a table": functools.partial(on_a_table, name) for name in bench.algorithms(spaces.nasbench201(), QUERIES)},
}


def rows(begins: str = "") -> Iterator[tuple[str, str, int, int, int, float, float]]:
    """(step, platform, convolutions, slices, lines, seconds of tracing, seconds of lowering)"""
    for name, make in STEPS.items():
        if not name.startswith(begins):
            continue
        step, args = make()
        started = time.perf_counter()
        traced = jax.jit(step).trace(*args)
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
