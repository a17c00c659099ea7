"""DARTS search in PyTorch: the speed peer of the JAX supernet.

One search step of DARTS (Liu et al., 2019), by `torch_darts_net`: an alpha step on a validation batch (first order, or second
order with the published central difference), then a weight step on a train batch.

    python experiments/peers/torch_darts.py --check
    python experiments/peers/torch_darts.py [--threads 1] [--compiled]

Every configuration runs in its own process, one at a time and in turn; the median of 7 repetitions of one step.

2 shared cores of an AMD EPYC (AVX-512), torch 2.13.0 CPU, C=8, 4 cells, batch 16, 32x32, under load; the row of 2 threads was
run with OMP_WAIT_POLICY=passive.

Results: docs/results.md#the-pytorch-baseline-by-itself

Pooling on edges that share a source is computed once per edge, as in the published module layout.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import resource
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch_darts_net import MOMENTUM, WEIGHT_DECAY, Network, Search, make_step


# ---------------------------------------------------------------------------------------------------------- checks
def exact_architecture_gradient(search: Search, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The gradient the central difference approximates, by differentiating through the look-ahead."""
    net, named = search.net, search.net.weights()
    for p in net.parameters():
        p.requires_grad_(True)
    with search.frozen_statistics():
        loss = F.cross_entropy(net(train[0]), train[1])
        gradient = torch.autograd.grad(loss, list(named.values()), create_graph=True)
        ahead = {}
        for (name, w), g in zip(named.items(), gradient, strict=True):
            buffer = search.opt_w.state[w].get("momentum_buffer", torch.zeros_like(w))
            ahead[name] = w.detach() - search.lr * (MOMENTUM * buffer + g + WEIGHT_DECAY * w.detach())
        loss = F.cross_entropy(functional_call(net, ahead, (valid[0],)), valid[1])
        found = torch.autograd.grad(loss, search.alphas, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for a, g in zip(search.alphas, found, strict=True)]


def check() -> None:
    torch.set_num_threads(1)
    count = sum(w.numel() for w in Network(16, 8).weights().values())
    print(f"weights of the supernet C=16, 8 cells: {count:,}")
    assert count == 1_930_618
    for cells in (1, 3):  # one cell is a reduction cell; of three, the first is a normal one
        torch.manual_seed(cells)
        net = Network(4, cells).double().train()
        search = Search(net, "second")
        train, valid = ((torch.randn(4, 3, 8, 8).double(), torch.randint(10, (4,))) for _ in range(2))
        for _ in range(2):
            search.step(train, valid)  # so that the momentum buffer is not zero
        before = [t.clone() for t in (*net.parameters(), *net.buffers())]
        central = torch.cat(search.architecture_gradient(train, valid)[1])
        assert all(torch.equal(a, b) for a, b in zip(before, (*net.parameters(), *net.buffers()), strict=True))
        # the published radius steps over kinks of ReLU and max pooling, so the formula is judged at a smaller one
        search.radius = 1e-6
        small = torch.cat(search.architecture_gradient(train, valid)[1])
        exact = torch.cat(exact_architecture_gradient(search, train, valid))
        search.order = "first"
        first = torch.cat(search.architecture_gradient(train, valid)[1])
        error, published, distance = ((g - exact).norm() / exact.norm() for g in (small, central, first))
        print(
            f"{cells} cell(s), float64, relative to the exact gradient: central difference of radius 1e-6 {error:.1e}, "
            f"of the published radius 0.01 {published:.1e}, first order {distance:.1e}"
        )
        assert error < 1e-6 and distance > 0.1


# ------------------------------------------------------------------------------------------------------- benchmark
def serve(pipe: Any, steps: int, kwargs: dict[str, Any]) -> None:
    """One configuration in its own process: time a repetition whenever asked to."""
    step, info = make_step(**kwargs)
    start = time.perf_counter()
    for _ in range(2):
        step(*info["data"])
    pipe.send(time.perf_counter() - start)
    while pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            step(*info["data"])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        pipe.send((wall / steps, cpu / steps, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one DARTS search step in PyTorch.")
    parser.add_argument("--check", action="store_true", help="check the network and the second-order gradient instead")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="steps in a repetition")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--orders", nargs="+", default=["first", "second"])
    parser.add_argument("--compiled", action="store_true", help="compile every edge with torch.compile")
    args = parser.parse_args()
    if args.check:
        check()
        return
    context = mp.get_context("spawn")
    workers = []
    for order in args.orders:
        for channels_last in (False, True):
            ours, theirs = context.Pipe()
            kwargs = {k: getattr(args, k) for k in ("channels", "cells", "batch", "compiled", "threads")}
            kwargs |= {"order": order, "channels_last": channels_last}
            process = context.Process(target=serve, args=(theirs, args.steps, kwargs), daemon=True)
            process.start()
            theirs.close()
            workers.append((f"{order:6} {'channels_last' if channels_last else 'NCHW':13}", ours, process, ours.recv(), []))
    for _ in range(args.repetitions):
        for _, pipe, _, _, results in workers:
            pipe.send(True)
            results.append(pipe.recv())
    print(f"torch {torch.__version__}, C={args.channels}, {args.cells} cells, batch {args.batch}, {args.threads} threads")
    for name, pipe, process, warm_up, results in workers:
        pipe.send(False)
        process.join()
        wall, cpu, rss = zip(*results, strict=True)
        print(
            f"{name} {statistics.median(wall):.3f} s/step (min {min(wall):.3f}, max {max(wall):.3f}; "
            f"cpu {statistics.median(cpu):.3f}), peak {max(rss):.0f} MiB, first two steps {warm_up:.1f} s"
        )


if __name__ == "__main__":
    main()
