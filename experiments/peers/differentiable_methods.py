"""What a step of each weight-sharing method costs, against a step of first-order DARTS, in one run.

    python experiments/peers/differentiable_methods.py [METHOD ...]     (some; first-order DARTS always)

Cells: the NAS-Bench-201 supernet, C=16, one cell a stage, 32x32 images, batch 32.  Layers: a mobile supernet of four layers with
six candidates each, batch 32.  Every method is one process's compiled loop of three steps, as the driver runs them; the methods
take turns, and the figure is the median of the turns.  Memory is what the program needs at its peak beyond its arguments
(`memory_analysis`), which for a loop is that of a step.  A step is one architecture and one weight step (SNAS: both at once).

Two quiet cores of an AMD EPYC (AVX-512), jax 0.10.2.

Results: docs/results.md#what-a-step-of-each-method-costs
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp

from jaxnas import nets, policies, spaces, training
from jaxnas import weight_sharing as ws
from jaxnas.base import Batch
from jaxnas.driver import compiler_options
from jaxnas.spaces._mobile import PROXYLESSNAS

TURN, TURNS = 3, 7
flat = lambda value: lambda t: value
CELLS = {  # name -> (what the net has, the search)
    "DARTS, first order": ({}, lambda net: ws.darts(net, order="first")),
    "DARTS, finite difference": ({}, lambda net: ws.darts(net, order="finite_difference")),
    "DARTS, exact": ({}, ws.darts),
    "SNAS": ({}, lambda net: ws.snas(net, temperature=1.0)),
    "GDAS": ({}, lambda net: ws.gdas(net, temperature=1.0)),
    "PC-DARTS, K = 4": ({"partial": 4}, ws.pc_darts),
    "DrNAS": ({}, ws.drnas),
    "GAEA": ({}, ws.gaea),
    "SDARTS-RS": ({}, lambda net: ws.smooth_darts(net, perturb=ws.random_noise(flat(0.1)))),
    "SDARTS-ADV, 7 steps": ({}, lambda net: ws.smooth_darts(net, perturb=ws.adversarial(flat(0.1)))),
    "DARTS-": ({"auxiliary_skip": flat(0.5)}, lambda net: ws.darts(net, order="first")),
    "beta-DARTS": ({}, lambda net: ws.beta_darts(net, decay=flat(1.0))),
    "weights of the mixture alone": ({}, lambda net: weights_alone(net)),
    "SPOS": ({}, ws.spos),
}
LAYERS = {
    "DARTS, first order": lambda net: ws.darts(net, order="first"),
    "FBNet": lambda net: ws.fbnet(net, temperature=1.0),
    "ProxylessNAS, two paths": ws.proxylessnas,
    "ProxylessNAS, REINFORCE of 10": ws.proxylessnas_reinforce,
    "weights of the mixture alone": lambda net: weights_alone(net),
    "SPOS": ws.spos,
}


def weights_alone(net):
    return ws.weight_sharing(net, policies.softmax(net.space), ws.frozen, ws.Weights(training.sgd(0.025)))


def cell_net(**has):
    return nets.cell_net(spaces.nasbench201(), image=(32, 32, 3), classes=10, channels=16, cells=1, **has)


def mobile_net():
    ops = PROXYLESSNAS
    layers = [spaces.MobileLayer(i, o, s, ops) for i, o, s in ((16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 24, 1))]
    space = spaces.mobile(spaces.MobileSpec(tuple(layers), stem=16, head=64, stem_stride=1))
    return nets.mobile_net(space, image=(32, 32, 3), classes=10)


def prepare(search):
    """-> (a function that takes a turn, compile seconds, bytes)."""
    key = jax.random.key(0)
    state = jax.jit(search.init, compiler_options=compiler_options(once=True))(key)
    x = jax.random.normal(key, (1, 32, 32, 32, 3))
    y = jnp.arange(32)[None] % 10
    batch = Batch(train=(x, y), valid=(x[:, ::-1], y[:, ::-1]))

    def turn(key, state, batch):
        return jax.lax.fori_loop(0, TURN, lambda t, s: search.step(jax.random.fold_in(key, t), s, batch)[0], state)

    started = time.perf_counter()
    compiled = jax.jit(turn, donate_argnums=1).lower(key, state, batch).compile(compiler_options=compiler_options())
    seconds = time.perf_counter() - started
    held = [state]

    def run():
        held[0] = jax.block_until_ready(compiled(key, held[0], batch))

    return run, seconds, compiled.memory_analysis().temp_size_in_bytes


def main(*names):
    wanted = lambda name: not names or name in ("DARTS, first order", *names)
    rivals = {("cells", name): prepare(make(cell_net(**has))) for name, (has, make) in CELLS.items() if wanted(name)}
    rivals |= {("layers", name): prepare(make(mobile_net())) for name, make in LAYERS.items() if wanted(name)}
    times = {name: [] for name in rivals}
    for turn in range(TURNS + 1):
        for name, (run, _, _) in rivals.items():
            started = time.perf_counter()
            run()
            if turn:  # the first warms up
                times[name].append((time.perf_counter() - started) / TURN)
    median = {name: statistics.median(t) for name, t in times.items()}
    print("| net | method | time | memory | seconds a step | compile |\n|---|---|---|---|---|---|")
    for (net, name), (_, seconds, size) in rivals.items():
        base = (net, "DARTS, first order")
        t, m = median[net, name] / median[base], size / rivals[base][2]
        print(f"| {net} | {name} | {t:.2f} | {m:.2f} | {median[net, name]:.3f} | {seconds:.0f} s |")


if __name__ == "__main__":
    main(*sys.argv[1:])
