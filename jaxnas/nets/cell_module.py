"""Cell networks: one Flax module for the supernet, the specialised network and the evaluation network.

The skeleton (stem, cells, head) is the same in all of them; only the cell differs:

    supernet      every edge holds all candidate operations; gates weigh them (mixture) or pick one (path)
    specialised   every kept edge holds the one chosen operation: a plain network, no gates

Skeletons: "darts", cells of two inputs with reductions at 1/3 and 2/3 of the depth (arXiv:1806.09055); "nasnet", the same
with N cells before, between and after the two reductions (arXiv:1707.07012); "nasbench201", three stages of cells with
residual reductions between (arXiv:2001.00326); "bare", cells alone on the image's own channels, the thin network of TE-NAS
(arXiv:2102.11535).

Axes: E edges, O operations, C channels, H rows, W columns, B batch, N nodes with the inputs.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.nets import probe
from jaxnas.nets.base import Gates
from jaxnas.nets.block_cell import AnyBlockCell, BlockCell
from jaxnas.nets.convolution import avg_pool
from jaxnas.nets.layers import BatchNorm, Conv, Logits, Rate, apply_norm, check_maps, drop_path, shuffle, to_net
from jaxnas.nets.ops import FactorizedReduce, Identity, ReLUConvBN
from jaxnas.nets.super_cell import FINAL, Anneal, Choice, SuperCell, around
from jaxnas.spaces.blocks import BlockSpec
from jaxnas.spaces.cell import CellSpec


class Cell(nn.Module):
    """A cell that holds only the chosen operations."""

    spec: CellSpec
    ops: Mapping[str, Any]
    features: int
    stride: int
    choice: Choice
    affine: bool
    partial: int = 1  # K; the channels that go around the operations do so on a `none` too

    @nn.compact
    def __call__(self, inputs: Sequence[jax.Array], gates: Gates, train: bool, path: bool, rate: Rate) -> list[jax.Array]:
        del gates, path
        n, names, K = self.spec.inputs, list(self.ops), self.partial
        edges = {edge: None for edge in range(len(self.spec.edges)) if K > 1 and "none" in names} | dict(self.choice)
        C, H, W, B = inputs[0].shape
        blank = jnp.zeros((C, -(-H // self.stride), -(-W // self.stride), B), inputs[0].dtype)
        nodes = [*inputs, *[blank] * self.spec.nodes]
        for edge, k in sorted(edges.items()):
            source, target = self.spec.edges[edge]
            stride, x = self.stride if source < n else 1, nodes[source]
            y = blank[: C // K]
            if k is not None:
                op = self.ops[names[k]](self.features // K, stride, self.affine)
                y = op.clone(parent=self, name=f"edge{edge}")(x[: C // K], train)
                check_maps(names[k], y, (self.features // K, *blank.shape[1:]))
                y = apply_norm(y)
                if train and rate is not None and not isinstance(op, Identity):
                    y = drop_path(y, self.make_rng("drop_path"), rate)
            if K > 1:
                y = shuffle(jnp.concatenate([y, around(x, K, stride)], 0), K)
            nodes[n + target] = nodes[n + target] + y
        return nodes[n:]


class ResidualReduction(nn.Module):
    """The basic residual block of stride 2 between the stages of NAS-Bench-201."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = apply_norm(ReLUConvBN(self.features, 3, 2)(x, train))
        y = apply_norm(ReLUConvBN(self.features, 3, 1)(y, train))
        H, W = x.shape[1:3]
        even = jnp.pad(x, ((0, 0), (0, H % 2), (0, W % 2), (0, 0)), mode="edge")
        return y + Conv(self.features)(avg_pool(even, 2, 2, padding=0))


class Auxiliary(nn.Module):
    """DARTS's auxiliary head, behind the cell at 2/3 of the depth, on maps of 8 x 8 (CIFAR) or 7 x 7 (ImageNet)."""

    classes: int
    imagenet: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = avg_pool(probe.relu(x), 5, 2 if self.imagenet else 3, padding=0)
        x = probe.relu(BatchNorm()(Conv(128)(x), train))
        x = Conv(768, 2, padding=0)(x)
        x = probe.relu(x if self.imagenet else BatchNorm()(x, train))  # the authors' ImageNet head omits this norm
        return Logits(self.classes, name="Dense_0")(jnp.mean(x, (1, 2)).T)


class CellNet(nn.Module):
    """Stem, cells, head.  x is [B, H, W, C], as users hold images; the result is logits [B, classes].

    With `auxiliary` and `train`, the result is (logits, auxiliary logits).  `rate` is the drop-path probability (rng
    "drop_path"); None, the default, drops nothing.  Cells of blocks drop more the deeper they are, as ScheduledDropPath does:
    cell c of C at (c + 1) / C of the rate; DARTS's cells drop alike, and spare their identities.
    """

    spec: CellSpec | BlockSpec
    ops: Mapping[str, Any]
    skeleton: str  # "darts" | "darts_imagenet" | "nasnet" | "nasbench201" | "bare"
    channels: int
    cells: int  # in all ("darts", "bare"), or in each of the three stages ("nasnet", "nasbench201")
    classes: int
    choice: Mapping[str, Any] | None = None  # kind -> the edges, or the blocks, of one architecture; None: of any
    affine: bool = False
    auxiliary: bool = False
    partial: int = 1  # K: one in K channels goes through the operations (search nets of DARTS and NAS-Bench-201 cells)
    auxiliary_skip: bool = False  # of the supernet
    bare_zeros: bool = False  # of the supernet's single paths

    @property
    def layout(self) -> tuple[tuple[str, int, int], ...]:
        """(kind, features, stride) of each block; kind "residual" is the skeleton's own reduction."""
        only = self.spec.kinds[0] if self.spec.kinds else "cell"
        if self.skeleton == "bare":
            return ((only, self.channels, 1),) * self.cells
        if self.skeleton in ("nasbench201", "nasnet"):
            one_cell = self.skeleton == "nasnet" and not self.spec.kinds  # PNAS: it halves by itself, as the first of a stage
            halving = "residual" if self.skeleton == "nasbench201" else only if one_cell else self.spec.kinds[1]
            stage = lambda s: ((only, self.channels * 2**s, 1),) * (self.cells - (one_cell and s > 0))
            between = lambda s: ((halving, self.channels * 2**s, 2),)
            return stage(0) + between(1) + stage(1) + between(2) + stage(2)
        at = {self.cells // 3, 2 * self.cells // 3}
        blocks, features = [], self.channels
        for i in range(self.cells):
            features *= 2 if i in at else 1
            blocks.append(("reduce", features, 2) if i in at else ("normal", features, 1))
        return tuple(blocks)

    def cell(self, i: int) -> nn.Module:
        kind, features, stride = self.layout[i]
        common = dict(ops=self.ops, features=features, stride=stride, name=f"cell{i}")
        if isinstance(self.spec, BlockSpec):
            if self.choice is None:
                return AnyBlockCell(self.spec, **common)
            return BlockCell(self.spec, **common, choice=self.choice[kind])
        if self.choice is None:
            variants = dict(partial=self.partial, auxiliary_skip=self.auxiliary_skip, bare_zeros=self.bare_zeros)
            return SuperCell(self.spec, **common, **variants, affine=self.affine)
        return Cell(self.spec, **common, choice=self.choice[kind], affine=self.affine, partial=self.partial)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        gates: Gates = None,
        *,
        train: bool = False,
        path: bool = False,
        rate: Rate = None,
        anneal: Anneal = FINAL,
    ) -> jax.Array | tuple[jax.Array, jax.Array | None]:
        x, aux = to_net(x), None
        more = {"anneal": anneal} if self.choice is None and isinstance(self.spec, CellSpec) else {}
        of_kind = lambda kind: gates if gates is None or not self.spec.kinds else getattr(gates, kind)
        if self.skeleton in ("nasbench201", "bare"):
            if self.skeleton == "nasbench201":
                x = BatchNorm(name="stem_norm")(Conv(self.channels, 3, name="stem")(x), train)
            alike = path and self.choice is None and not self.is_initializing()
            for (kind, features, _), run in itertools.groupby(range(len(self.layout)), self.layout.__getitem__):
                run = list(run)
                if alike and len(run) > 1:
                    x = self.in_turn(run, x, of_kind(kind), train)
                    continue
                for i in run:
                    (x,) = probe.whole(x)
                    if kind == "residual":
                        x = ResidualReduction(features, name=f"cell{i}")(x, train)
                    else:
                        x = self.cell(i)([x], of_kind(kind), train, path, rate, **more)[-1]
            x = probe.relu(BatchNorm(name="head_norm")(x, train))
        else:
            s0, s1, reduced = self.two_inputs(x, train)
            deeper = isinstance(self.spec, BlockSpec)
            for i, (kind, features, stride) in enumerate(self.layout):
                dropped = rate if rate is None or not deeper else rate * (i + 1) / len(self.layout)
                same_size = lambda name: ReLUConvBN(features, 1, 1, self.affine, name=name)
                halved = lambda name: FactorizedReduce(features, self.affine, name=name)
                adapt = (halved if reduced else same_size)(f"pre0_{i}")
                inputs = [apply_norm(adapt(s0, train)), apply_norm(same_size(f"pre1_{i}")(s1, train))]
                nodes = self.cell(i)(inputs, of_kind(kind), train, path, dropped, **more)
                s0, s1 = probe.whole(s1, jnp.concatenate(nodes, 0))
                reduced = stride == 2
                if self.auxiliary and i == 2 * len(self.layout) // 3 and (train or self.is_initializing()):
                    aux = Auxiliary(self.classes, self.skeleton == "darts_imagenet", name="auxiliary")(s1, train)
            x = s1
        logits = Logits(self.classes, name="classifier")(jnp.mean(probe.last(x), (1, 2)).T)
        return (logits, aux) if self.auxiliary and train else logits

    def in_turn(self, run: Sequence[int], x: jax.Array, gates: Gates, train: bool) -> jax.Array:
        """Single paths of equal cells of one input, as a scan over their variables: compiled once, however many there are."""
        cell, held = self.cell(run[0]).clone(parent=None), self.variables
        of = lambda collection: jax.tree.map(lambda *v: jnp.stack(v), *[held[collection][f"cell{i}"] for i in run])

        def body(x, variables):
            nodes, moved = cell.apply(variables, probe.whole(x), gates, train, True, None, mutable=["batch_stats"])
            return nodes[-1], moved

        x, moved = lax.scan(body, x, {collection: of(collection) for collection in held})
        for n, i in enumerate(run if train else ()):
            for collection, stats in moved.items():
                self.put_variable(collection, f"cell{i}", jax.tree.map(lambda a: a[n], stats))
        return x

    def two_inputs(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, bool]:
        """The stem of the DARTS skeletons: the first cell's inputs, and whether the first is twice as large."""
        C = self.channels
        norm = lambda name, y: BatchNorm(name=name)(y, train)
        if self.skeleton != "darts_imagenet":
            s = norm("stem_norm", Conv(3 * C, 3, name="stem")(x))
            return s, s, False
        x = probe.relu(norm("stem_norm0", Conv(C // 2, 3, 2, name="stem0")(x)))
        s0 = norm("stem_norm1", Conv(C, 3, 2, name="stem1")(x))
        s1 = norm("stem_norm2", Conv(C, 3, 2, name="stem2")(probe.relu(s0)))
        return s0, s1, True
