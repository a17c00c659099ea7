"""DARTS (Liu et al., 2019) in PyTorch: its CNN supernet, whose every edge holds all operations, and one step of the search.

Not an experiment: `torch_darts.py` and `darts_step.py` time it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NODES = 4
EDGES = sum(2 + i for i in range(NODES))


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm as used inside the cells while searching: no scale or shift for the mixture to be absorbed in."""
    return nn.BatchNorm2d(channels, affine=False)


def separable(channels: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise, pointwise, batch norm."""
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        norm(channels),
    ]


class FactorizedReduce(nn.Module):
    """Halve the resolution with two 1x1 convolutions, the second one reading the pixels the first one skips."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.norm = norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        height, width = x.shape[2:]
        shifted = F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
        return self.norm(torch.cat([self.even(x), self.odd(shifted[:, :, 1:, 1:])], 1))


def make_op(name: str, channels: int, stride: int) -> nn.Module:
    match name:
        case "max_pool_3x3":
            return nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(channels))
        case "avg_pool_3x3":
            return nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm(channels))
        case "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
        case "sep_conv_3x3" | "sep_conv_5x5":
            kernel = int(name[-1])
            return nn.Sequential(*separable(channels, kernel, stride), *separable(channels, kernel, 1))
        case "dil_conv_3x3" | "dil_conv_5x5":
            return nn.Sequential(*separable(channels, int(name[-1]), stride, dilation=2))
    raise ValueError(name)


class MixedOp(nn.Module):
    """One edge: the gated sum of its operations.

    `none` is index 0: it takes its share of the softmax and adds nothing, so it is not computed.
    """

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.ops = nn.ModuleList(make_op(name, channels, stride) for name in OPS[1:])

    def forward(self, x: Tensor, gates: tuple[Tensor, ...]) -> Tensor:
        return sum(gate * op(x) for gate, op in zip(gates[1:], self.ops, strict=True))


class Cell(nn.Module):
    def __init__(self, c_prev_prev: int, c_prev: int, channels: int, reduction: bool, reduction_prev: bool):
        super().__init__()
        self.kind = "reduce" if reduction else "normal"
        project = lambda c_in: nn.Sequential(nn.ReLU(), nn.Conv2d(c_in, channels, 1, bias=False), norm(channels))
        self.pre0 = FactorizedReduce(c_prev_prev, channels) if reduction_prev else project(c_prev_prev)
        self.pre1 = project(c_prev)
        self.edges = nn.ModuleList(
            MixedOp(channels, 2 if reduction and source < 2 else 1) for node in range(NODES) for source in range(2 + node)
        )

    def forward(self, s0: Tensor, s1: Tensor, gates: list[tuple[Tensor, ...]]) -> Tensor:
        states = [self.pre0(s0), self.pre1(s1)]
        first = 0
        for _ in range(NODES):
            n = len(states)
            edges, rows = self.edges[first : first + n], gates[first : first + n]
            states.append(sum(edge(x, row) for edge, x, row in zip(edges, states, rows, strict=True)))
            first += n
        return torch.cat(states[2:], 1)


class Network(nn.Module):
    """The DARTS supernet. `alphas` are shared by all cells of a kind; `weights()` is everything else."""

    def __init__(self, C: int, cells: int, classes: int = 10):
        super().__init__()
        self.alphas = nn.ParameterDict({k: nn.Parameter(1e-3 * torch.randn(EDGES, len(OPS))) for k in ("normal", "reduce")})
        c_stem = 3 * C
        self.stem = nn.Sequential(nn.Conv2d(3, c_stem, 3, padding=1, bias=False), nn.BatchNorm2d(c_stem))
        self.cells = nn.ModuleList()
        c_prev_prev, c_prev, reduction_prev = c_stem, c_stem, False
        for index in range(cells):
            reduction = index in (cells // 3, 2 * cells // 3)
            C = 2 * C if reduction else C
            self.cells.append(Cell(c_prev_prev, c_prev, C, reduction, reduction_prev))
            c_prev_prev, c_prev, reduction_prev = c_prev, NODES * C, reduction
        self.head = nn.Linear(c_prev, classes)

    def weights(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if not name.startswith("alphas.")}

    def forward(self, x: Tensor) -> Tensor:
        # unbound once per forward: the backward is then one stack, not a padded add per edge and cell
        gates = {kind: [row.unbind() for row in F.softmax(a, -1).unbind()] for kind, a in self.alphas.items()}
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, gates[cell.kind])
        return self.head(s1.mean((2, 3)))


LR, MOMENTUM, WEIGHT_DECAY, CLIP = 0.025, 0.9, 3e-4, 5.0
ALPHA_LR, ALPHA_BETAS, ALPHA_WEIGHT_DECAY = 3e-4, (0.5, 0.999), 1e-3


class Search:
    """A supernet, its two optimisers, and the step that uses them."""

    def __init__(self, net: Network, order: str, lr: float = LR, compiled: bool = False, radius: float = 0.01):
        if order not in ("first", "second"):
            raise ValueError(order)
        self.net, self.order, self.lr, self.radius = net, order, lr, radius
        if compiled:
            # edge by edge: edges of one shape share their code, where the unrolled net is compiled for many minutes
            torch._dynamo.config.recompile_limit = 64
            for m in net.modules():
                if isinstance(m, MixedOp):
                    m.compile(dynamic=False)
        self.alphas = list(net.alphas.values())
        self.weights = list(net.weights().values())
        self.norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        self.opt_w = torch.optim.SGD(self.weights, lr, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True)
        self.opt_a = torch.optim.Adam(self.alphas, ALPHA_LR, ALPHA_BETAS, weight_decay=ALPHA_WEIGHT_DECAY, fused=True)
        # the look-ahead and the perturbed weights are written over the weights, which come back from this copy
        self.saved = [torch.empty_like(w) for w in self.weights] if order == "second" else []

    @contextlib.contextmanager
    def frozen_statistics(self) -> Iterator[None]:
        """Normalise by the batch as in training, and leave the running statistics alone."""
        for m in self.norms:
            m.track_running_stats = False
        try:
            yield
        finally:
            for m in self.norms:
                m.track_running_stats = True

    def grads(self, batch: tuple[Tensor, Tensor], alpha: bool = False, weight: bool = False) -> tuple[Tensor, list, list]:
        """The loss and its gradients with respect to what is asked for, and work for nothing else."""
        for p in self.alphas:
            p.requires_grad_(alpha)
        for p in self.weights:
            p.requires_grad_(weight)
        wanted = self.alphas * alpha + self.weights * weight
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        # a gradient is None where a net of very few cells has only one kind of them
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
        found = [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, found, strict=True)]
        n = len(self.alphas) * alpha
        return loss.detach(), found[:n], found[n:]

    @torch.no_grad()
    def look_ahead(self, gradient: list[Tensor]) -> None:
        """w <- w - lr (momentum * buffer + gradient + decay * w): the optimiser's next step, without the clip."""
        buffers = [self.opt_w.state[w].get("momentum_buffer") for w in self.weights]
        move = torch._foreach_add(gradient, self.weights, alpha=WEIGHT_DECAY)
        if buffers[0] is not None:
            torch._foreach_add_(move, buffers, alpha=MOMENTUM)
        torch._foreach_add_(self.weights, move, alpha=-self.lr)

    def architecture_gradient(self, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The validation loss and its gradient with respect to the alphas."""
        with self.frozen_statistics():
            if self.order == "first":
                loss, gradient, _ = self.grads(valid, alpha=True)
                return loss, gradient
            weights, saved = self.weights, self.saved
            with torch.no_grad():
                torch._foreach_copy_(saved, weights)
            try:
                self.look_ahead(self.grads(train, weight=True)[2])
                loss, gradient, v = self.grads(valid, alpha=True, weight=True)
                # the Hessian-vector product: alpha-gradients of the train loss at w + eps v and w - eps v
                eps = self.radius / float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(v))))
                with torch.no_grad():
                    torch._foreach_copy_(weights, saved)
                    torch._foreach_add_(weights, v, alpha=eps)
                _, plus, _ = self.grads(train, alpha=True)
                with torch.no_grad():
                    torch._foreach_add_(weights, v, alpha=-2 * eps)
                _, minus, _ = self.grads(train, alpha=True)
            finally:
                with torch.no_grad():
                    torch._foreach_copy_(weights, saved)
            scale = self.lr / (2 * eps)
            return loss, [g - scale * (p - m) for g, p, m in zip(gradient, plus, minus, strict=True)]

    def step(self, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Move the alphas, then the weights; the validation and the train loss."""
        valid_loss, gradient = self.architecture_gradient(train, valid)
        for p, g in zip(self.alphas, gradient, strict=True):
            p.grad = g
        self.opt_a.step()
        train_loss, _, gradient = self.grads(train, weight=True)
        for p, g in zip(self.weights, gradient, strict=True):
            p.grad = g
        nn.utils.clip_grad_norm_(self.weights, CLIP, foreach=True)
        self.opt_w.step()
        return valid_loss, train_loss


def make_step(
    order: str, channels: int, cells: int, batch: int, channels_last: bool, compiled: bool = False, threads: int = 2
) -> tuple[Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], dict[str, Any]]:
    """`step(x_train, y_train, x_valid, y_valid) -> (valid loss, train loss)`, and what a benchmark wants to know.

    `info["data"]` is a tuple of random arguments for `step`; images in another memory format are converted.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = Network(channels, cells).to(memory_format=layout).train()
    search = Search(net, order, compiled=compiled)

    def step(x_train: Tensor, y_train: Tensor, x_valid: Tensor, y_valid: Tensor) -> tuple[Tensor, Tensor]:
        images = [x.contiguous(memory_format=layout) for x in (x_train, x_valid)]
        return search.step((images[0], y_train), (images[1], y_valid))

    draw = lambda: (
        torch.randn(batch, 3, 32, 32).contiguous(memory_format=layout),
        torch.randint(net.head.out_features, (batch,)),
    )
    info = {
        "net": net,
        "search": search,
        "data": (*draw(), *draw()),
        "parameters": sum(w.numel() for w in search.weights),
    }
    return step, info
