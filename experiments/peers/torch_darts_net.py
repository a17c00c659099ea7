"""The CNN supernet of DARTS (Liu et al., 2019) in PyTorch, in its search form: every edge holds all operations."""

from __future__ import annotations

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
