"""Estimating many networks: jaxnas against PyTorch, interleaved in one run.

    python experiments/peers/estimation.py population            64 networks, trained           (needs the extra `peers`: torch)
    python experiments/peers/estimation.py proxies [PROXY ...]   zero-cost scores of 50 cells

population: 64 MLPs 64-128-128-10, and 64 CNNs (conv 16, pool, conv 32, 8 x 8 images), SGD with momentum, 100 steps of batch 64 on
the same batches: a population in each of its three modes, a PyTorch loop, `torch.func.vmap`.

proxies: NAS-Bench-201, C=16, five cells a stage, batch 64 of 32 x 32 noise, 50 cells drawn at random; PyTorch builds each network,
as published code does, in its default memory format, and computes the same formulas: synflow in float64 on one input of ones.

Each contestant is a process of its own that compiles first and takes turns with the others; medians of 5 turns (population) and 3.

Two cores of an AMD EPYC, nothing else running, jax 0.10.2, torch 2.13.0.

Results: docs/results.md#training-and-scoring-many-networks-against-pytorch
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from contest import contest

N, STEPS, BATCH = 64, 100, 64
CELLS = 50


def batches():
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.normal(size=(STEPS, BATCH, 8, 8, 1)).astype("float32"), rng.integers(0, 10, (STEPS, BATCH)).astype("int32")


def jax_population(kind, mode):
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jaxnas import nets, spaces
    from jaxnas.driver import compiler_options
    from jaxnas.evaluate.population import population
    from jaxnas.nets.convolution import max_pool
    from jaxnas.nets.layers import Conv, to_net

    class MLP(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x.reshape(len(x), -1)
            for width in (128, 128):
                x = nn.relu(nn.Dense(width)(x))
            return nn.Dense(10)(x)

    class CNN(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = max_pool(nn.relu(Conv(16, 3)(to_net(x))), 2, 2, 0)
            return nn.Dense(10)(jnp.mean(nn.relu(Conv(32, 3)(x)), (1, 2)).T)

    module = {"mlp": MLP, "cnn": CNN}[kind]()
    net = nets.Net(
        init=lambda key, gates=None: module.init(key, jnp.zeros((1, 8, 8, 1))),
        apply=lambda variables, x, gates, *, train, path=False, key=None, t=None: (module.apply(variables, x), variables),
        used=None,
        specialize=None,
        space=spaces.space((np.ones(1, int),)),  # one architecture: what differs is the seed
        image=(8, 8, 1),
        classes=10,
    )
    train = population(net, optax.sgd(0.05, momentum=0.9), lambda logits_of, held: {}, mode)
    keys, archs = jax.random.split(jax.random.key(0), N), (jnp.zeros((N, 1), jnp.int32),)
    data = jax.tree.map(jnp.asarray, batches())
    started = time.perf_counter()
    compiled = jax.jit(train).lower(keys, archs, data, None).compile(compiler_options=compiler_options())
    seconds = time.perf_counter() - started
    return lambda: jax.block_until_ready(compiled(keys, archs, data, None)), seconds


def torch_model(kind):
    import torch
    from torch import nn

    torch.set_num_threads(2)
    if kind == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    body = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1, bias=False)
    return nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def torch_data():
    import torch

    x, y = batches()
    return torch.from_numpy(x.transpose(0, 1, 4, 2, 3).copy()), torch.from_numpy(y).long()


def torch_loop(kind):
    import torch

    x, y = torch_data()

    def turn():
        for _ in range(N):
            model = torch_model(kind)
            optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
            for t in range(STEPS):
                optimizer.zero_grad(set_to_none=True)
                torch.nn.functional.cross_entropy(model(x[t]), y[t]).backward()
                optimizer.step()

    return turn, 0.0


def torch_vmap(kind):
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap

    x, y = torch_data()
    skeleton = torch_model(kind)
    loss = lambda params, x, y: torch.nn.functional.cross_entropy(functional_call(skeleton, params, (x,)), y)
    gradient = vmap(grad(loss), in_dims=(0, None, None))

    def turn():
        params, _ = stack_module_state([torch_model(kind) for _ in range(N)])
        params = {name: p.detach() for name, p in params.items()}
        momentum = {name: torch.zeros_like(p) for name, p in params.items()}
        for t in range(STEPS):
            g = gradient(params, x[t], y[t])
            momentum = {name: 0.9 * m + g[name] for name, m in momentum.items()}
            params = {name: p - 0.05 * momentum[name] for name, p in params.items()}

    return turn, 0.0


def cells():
    import numpy as np

    return np.random.default_rng(0).integers(0, 5, (CELLS, 6)).astype("int32")


def jax_proxies(names):
    import jax
    import jax.numpy as jnp

    from jaxnas import evaluate, nets, spaces
    from jaxnas.base import Batch
    from jaxnas.driver import compiler_options

    space = spaces.nasbench201()
    net = nets.cell_net(space, image=(32, 32, 3), classes=10)
    evaluator = evaluate.zero_cost(net, *names)
    variables = jax.jit(evaluator.init)(jax.random.key(0))
    archs = jax.vmap(space.unflat)(jnp.asarray(cells()))
    x = jax.random.normal(jax.random.key(1), (1, BATCH, 32, 32, 3))
    batch = Batch(train=(x, jnp.arange(BATCH)[None] % 10))
    started = time.perf_counter()
    step = lambda variables, archs, batch: evaluator.step(None, variables, archs, batch)[1]
    compiled = jax.jit(step).lower(variables, archs, batch).compile(compiler_options=compiler_options())
    seconds = time.perf_counter() - started
    return lambda: jax.block_until_ready(compiled(variables, archs, batch)), seconds


def torch_net(ops):
    """NAS-Bench-201's network of a cell."""
    import torch
    from torch import nn

    class ConvBN(nn.Sequential):
        def __init__(self, c, d, k, stride=1):
            super().__init__(nn.ReLU(), nn.Conv2d(c, d, k, stride, k // 2, bias=False), nn.BatchNorm2d(d, affine=False))

    class Cell(nn.Module):
        def __init__(self, c):
            super().__init__()
            pool = lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False)
            build = (lambda: None, nn.Identity, lambda: ConvBN(c, c, 1), lambda: ConvBN(c, c, 3), pool)
            self.edges = nn.ModuleList(build[op]() for op in ops)

        def forward(self, x):
            nodes, edges = [x], iter(self.edges)
            for n in (1, 2, 3):
                sums = [e(nodes[j]) for j in range(n) if (e := next(edges)) is not None]
                nodes.append(sum(sums) if sums else torch.zeros_like(x))
            return nodes[-1]

    class Halve(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.main = nn.Sequential(ConvBN(c, 2 * c, 3, 2), ConvBN(2 * c, 2 * c, 3))
            self.way = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(c, 2 * c, 1, bias=False))

        def forward(self, x):
            return self.main(x) + self.way(x)

    stages = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
    for s in range(3):
        stages += [Halve(8 * 2**s)] * (s > 0) + [Cell(16 * 2**s) for _ in range(5)]
    return nn.Sequential(*stages, nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def torch_proxies(names):
    import torch
    from torch import nn

    torch.set_num_threads(2)
    archs = cells().tolist()
    x, y = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10

    def weights(model):
        return [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    def synflow(model):
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.forward = lambda x: x
        model = model.double()
        with torch.no_grad():
            for p in model.parameters():
                p.abs_()
        model(torch.ones(1, 3, 32, 32, dtype=torch.double)).sum().backward()
        return sum((w * w.grad).abs().sum() for w in weights(model) if w.grad is not None).log()

    def saliencies(model):
        nn.functional.cross_entropy(model(x), y).backward()
        return [(w.grad.norm(), (w * w.grad).abs().sum()) for w in weights(model) if w.grad is not None]

    def jacob_cov(model):
        images = x.clone().requires_grad_(True)
        (J,) = torch.autograd.grad(model(images).sum(), images, allow_unused=True)
        v = torch.linalg.eigvalsh(torch.corrcoef(torch.zeros_like(x).flatten(1) if J is None else J.flatten(1)).nan_to_num(1.0))
        return -(torch.log(v.clamp(0) + 1e-5) + 1 / (v.clamp(0) + 1e-5)).sum()

    f = {"synflow": synflow, "jacob_cov": jacob_cov}.get(names[0], saliencies)
    return lambda: [f(torch_net(arch)) for arch in archs], 0.0


def report(results, count, unit):
    print(f"{'':<34}{unit + ' / s':>16}{'compile':>10}{'memory':>11}")
    median = {name: statistics.median(r.seconds) for name, r in results.items()}
    for name, r in results.items():
        print(f"{name:<34}{count / median[name]:16.2f}{r.compiling:9.1f}s{r.memory:7.2f} GiB", flush=True)
    ours, theirs = ([name for name in results if name.startswith("PyTorch") == them] for them in (False, True))
    fastest = min(ours, key=median.get)
    for name in theirs:
        gain = (median[name] - median[fastest]) / count
        pays = f", pays from {results[fastest].compiling / gain:.0f} {unit}" if gain > 0 else ""
        print(f"  {fastest} is {median[name] / median[fastest]:.2f} times as fast as {name}{pays}")


def main(what, *names):
    if what == "population":
        for kind in ("mlp", "cnn"):
            ours = {f"jaxnas {kind}, {mode}": (jax_population, (kind, mode)) for mode in ("vmap", "map", 8)}
            peers = {f"PyTorch {kind}, loop": (torch_loop, (kind,)), f"PyTorch {kind}, vmap": (torch_vmap, (kind,))}
            report(contest({**ours, **peers}, 5), N, "networks")
        return
    for group in [(name,) for name in names] or [("synflow",), ("snip",), ("grad_norm",), ("jacob_cov",)]:
        contestants = {f"jaxnas {group[0]}": (jax_proxies, (group,)), f"PyTorch {group[0]}": (torch_proxies, (group,))}
        report(contest(contestants, 3), CELLS, "networks")


if __name__ == "__main__":
    main(*sys.argv[1:])
