"""Cell networks: one Flax module for the supernet, the specialised network and the evaluation network.

The skeleton (stem, cells, head) is the same in all of them; only the cell differs:

    supernet      every edge holds all candidate operations; gates weigh them (mixture) or pick one (path)
    specialised   every kept edge holds the one chosen operation: a plain network, no gates

Skeletons: "darts", cells of two inputs with reductions at 1/3 and 2/3 of the depth (arXiv:1806.09055); "nasbench201",
three stages of cells with residual reductions between (arXiv:2001.00326).

Axes: E edges, O operations, C channels, H rows, W columns, B batch, N nodes with the inputs.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.nets.layers import BatchNorm, Conv, avg_pool, to_net
from jaxnas.nets.ops import FactorizedReduce, Identity, ReLUConvBN
from jaxnas.spaces.cell import CellSpec

Choice = tuple[tuple[int, int], ...]  # (edge, operation) of each kept edge of one cell


def drop_path(module: nn.Module, y, rate):
    """Drops the path y [C, H, W, B] of each example with probability `rate` and scales survivors by 1 / (1 - rate)."""
    keep = 1 - jnp.asarray(rate, y.dtype)
    mask = jax.random.bernoulli(module.make_rng("drop_path"), keep, (1, 1, 1, y.shape[-1]))
    return jnp.where(mask, y / jnp.maximum(keep, 1e-6), 0)


class MixedEdges(nn.Module):
    """All candidate operations on E edges of one stride: a scan over the edges, so that one body is compiled.

    Variables are stacked: params and batch_stats of each operation have a leading axis E.
    """

    ops: Mapping[str, Any]  # name -> build(features, stride, affine), in gate-column order
    sources: tuple[int, ...]  # [E] rows of `inputs`, or of the nodes where `inputs` is None
    targets: tuple[int, ...]  # [E] rows of the nodes
    features: int
    stride: int

    @nn.compact
    def __call__(self, nodes, inputs, gates, train, path):
        """nodes [N, C, H, W, B] with each edge's gated output added to its target; gates [E, O]."""
        example = (nodes if inputs is None else inputs)[0]
        E, built = len(self.sources), {}
        for name, build in self.ops.items():
            if name == "none":  # weighs in the softmax, adds nothing
                continue
            op = built[name] = build(self.features, self.stride, False).clone(parent=None)
            if self.is_initializing():
                keys = jax.random.split(self.make_rng("params"), E)
                for collection, stacked in jax.vmap(lambda k: op.init(k, example, True))(keys).items():
                    self.put_variable(collection, name, stacked)
        held = lambda c: {name: self.get_variable(c, name) for name in built if self.has_variable(c, name)}
        params, values = held("params"), held("batch_stats")
        columns = {name: k for k, name in enumerate(self.ops)}

        def run(name, v, s, x):  # one operation of one edge -> y, all statistics
            variables = {c: t[name] for c, t in (("params", v), ("batch_stats", s)) if name in t}
            y, new = built[name].apply(variables, x, train, mutable=["batch_stats"])
            return y, {**s, name: new["batch_stats"]} if name in s else s

        def mixture(v, s, gate, x):
            total = 0.0
            for name in built:
                y, s = run(name, v, s, x)
                total = total + gate[columns[name]] * y
            return total, s

        def chosen(v, s, gate, x):
            def branch(name):
                if name == "none":
                    like = jax.eval_shape(lambda x: run(next(iter(built)), v, s, x)[0], x)
                    return lambda v, s, gate, x: (jnp.zeros(like.shape, like.dtype), s)

                def compute(v, s, gate, x):
                    y, s = run(name, v, s, x)
                    return gate[columns[name]] * y, s

                return compute

            return lax.switch(jnp.argmax(gate), [branch(name) for name in self.ops], v, s, gate, x)

        def body(nodes, edge):
            v, s, gate, source, target = edge
            x = lax.dynamic_index_in_dim(nodes if inputs is None else inputs, source, keepdims=False)
            y, s = (chosen if path else mixture)(v, s, gate, x)
            there = lax.dynamic_index_in_dim(nodes, target, keepdims=False)
            return lax.dynamic_update_index_in_dim(nodes, there + y, target, 0), s

        edges = (params, values, gates, jnp.asarray(self.sources), jnp.asarray(self.targets))
        nodes, values = lax.scan(body, nodes, edges)
        if train and not self.is_initializing():
            for name, moved in values.items():
                self.put_variable("batch_stats", name, moved)
        return nodes


class SuperCell(nn.Module):
    """A cell of the supernet."""

    spec: CellSpec
    ops: Mapping[str, Any]
    features: int
    stride: int

    @nn.compact
    def __call__(self, inputs, gates, train, path, rate):
        del rate  # drop path belongs to evaluation
        n, edges = self.spec.inputs, self.spec.edges
        inputs = jnp.stack(inputs)
        C, H, W, B = inputs.shape[1:]
        Ho, Wo = -(-H // self.stride), -(-W // self.stride)
        blank = jnp.zeros((self.spec.nodes, C, Ho, Wo, B), inputs.dtype)
        if self.stride == 1:
            nodes, groups = jnp.concatenate([inputs, blank]), [("edges", lambda j: True, None, 1)]
        else:
            nodes = jnp.concatenate([jnp.zeros((n, *blank.shape[1:]), inputs.dtype), blank])
            groups = [
                ("edges_in", lambda j: j < n, inputs, self.stride),
                ("edges", lambda j: j >= n, None, 1),
            ]
        for name, member, source, stride in groups:
            rows = [e for e, (j, _) in enumerate(edges) if member(j)]
            if rows:
                group = MixedEdges(
                    ops=self.ops,
                    sources=tuple(edges[e][0] for e in rows),
                    targets=tuple(n + edges[e][1] for e in rows),
                    features=self.features,
                    stride=stride,
                    name=name,
                )
                nodes = group(nodes, source, jnp.asarray(gates)[np.asarray(rows)], train, path)
        return list(nodes[n:])


def stacked_row(spec: CellSpec, stride: int, edge: int) -> tuple[str, int]:
    """Where the supernet keeps an edge: the name of its group in the cell, and its row there."""
    outer = lambda e: stride > 1 and spec.edges[e][0] < spec.inputs
    return "edges_in" if outer(edge) else "edges", sum(outer(e) == outer(edge) for e in range(edge))


class Cell(nn.Module):
    """A cell that holds only the chosen operations."""

    spec: CellSpec
    ops: Mapping[str, Any]
    features: int
    stride: int
    choice: Choice
    affine: bool

    @nn.compact
    def __call__(self, inputs, gates, train, path, rate):
        del gates, path
        n, names = self.spec.inputs, list(self.ops)
        C, H, W, B = inputs[0].shape
        blank = jnp.zeros((C, -(-H // self.stride), -(-W // self.stride), B), inputs[0].dtype)
        nodes = [*inputs, *[blank] * self.spec.nodes]
        for edge, k in self.choice:
            source, target = self.spec.edges[edge]
            stride = self.stride if source < n else 1
            op = self.ops[names[k]](self.features, stride, self.affine)
            y = op.clone(parent=self, name=f"edge{edge}")(nodes[source], train)
            if train and rate is not None and not isinstance(op, Identity):
                y = drop_path(self, y, rate)
            nodes[n + target] = nodes[n + target] + y
        return nodes[n:]


class ResidualReduction(nn.Module):
    """The basic residual block of stride 2 between the stages of NAS-Bench-201."""

    features: int

    @nn.compact
    def __call__(self, x, train):
        y = ReLUConvBN(self.features, 3, 2)(x, train)
        y = ReLUConvBN(self.features, 3, 1)(y, train)
        H, W = x.shape[1:3]
        even = jnp.pad(x, ((0, 0), (0, H % 2), (0, W % 2), (0, 0)), mode="edge")
        return y + Conv(self.features)(avg_pool(even, 2, 2, padding=0))


class Auxiliary(nn.Module):
    """DARTS's auxiliary head, behind the cell at 2/3 of the depth, on maps of 8 x 8 (CIFAR) or 7 x 7 (ImageNet)."""

    classes: int
    imagenet: bool = False

    @nn.compact
    def __call__(self, x, train):
        x = avg_pool(nn.relu(x), 5, 2 if self.imagenet else 3, padding=0)
        x = nn.relu(BatchNorm()(Conv(128)(x), train))
        x = Conv(768, 2, padding=0)(x)
        x = nn.relu(x if self.imagenet else BatchNorm()(x, train))  # the authors' ImageNet head omits this norm
        return nn.Dense(self.classes)(jnp.mean(x, (1, 2)).T)


class CellNet(nn.Module):
    """Stem, cells, head.  x is [B, H, W, C], as users hold images; the result is logits [B, classes].

    With `auxiliary` and `train`, the result is (logits, auxiliary logits).  `rate` is the drop-path probability (rng
    "drop_path"); None, the default, drops nothing.
    """

    spec: CellSpec
    ops: Mapping[str, Any]
    skeleton: str  # "darts" | "darts_imagenet" | "nasbench201"
    channels: int
    cells: int  # in all ("darts"), or in each of the three stages ("nasbench201")
    classes: int
    choice: Mapping[str, Choice] | None = None  # kind -> kept edges; None: the supernet
    affine: bool = False
    auxiliary: bool = False

    @property
    def layout(self) -> tuple[tuple[str, int, int], ...]:
        """(kind, features, stride) of each block; kind "residual" is the skeleton's own reduction."""
        only = self.spec.kinds[0] if self.spec.kinds else "cell"
        if self.skeleton == "nasbench201":
            stage = lambda s: ((only, self.channels * 2**s, 1),) * self.cells
            between = lambda s: (("residual", self.channels * 2**s, 2),)
            return stage(0) + between(1) + stage(1) + between(2) + stage(2)
        at = {self.cells // 3, 2 * self.cells // 3}
        blocks, features = [], self.channels
        for i in range(self.cells):
            features *= 2 if i in at else 1
            blocks.append(("reduce", features, 2) if i in at else ("normal", features, 1))
        return tuple(blocks)

    def cell(self, i: int) -> nn.Module:
        kind, features, stride = self.layout[i]
        common = dict(spec=self.spec, ops=self.ops, features=features, stride=stride, name=f"cell{i}")
        if self.choice is None:
            return SuperCell(**common)
        return Cell(**common, choice=self.choice[kind], affine=self.affine)

    @nn.compact
    def __call__(self, x, gates=None, *, train=False, path=False, rate=None):
        x, aux = to_net(x), None
        of_kind = lambda kind: gates if gates is None or not self.spec.kinds else getattr(gates, kind)
        if self.skeleton == "nasbench201":
            x = BatchNorm(name="stem_norm")(Conv(self.channels, 3, name="stem")(x), train)
            for i, (kind, features, _) in enumerate(self.layout):
                if kind == "residual":
                    x = ResidualReduction(features, name=f"cell{i}")(x, train)
                else:
                    x = self.cell(i)([x], of_kind(kind), train, path, rate)[-1]
            x = nn.relu(BatchNorm(name="head_norm")(x, train))
        else:
            s0, s1, reduced = self.two_inputs(x, train)
            for i, (kind, features, stride) in enumerate(self.layout):
                same_size = lambda name: ReLUConvBN(features, 1, 1, self.affine, name=name)
                halved = lambda name: FactorizedReduce(features, self.affine, name=name)
                adapt = (halved if reduced else same_size)(f"pre0_{i}")
                inputs = [adapt(s0, train), same_size(f"pre1_{i}")(s1, train)]
                nodes = self.cell(i)(inputs, of_kind(kind), train, path, rate)
                s0, s1, reduced = s1, jnp.concatenate(nodes, 0), stride == 2
                if self.auxiliary and i == 2 * self.cells // 3 and (train or self.is_initializing()):
                    aux = Auxiliary(self.classes, self.skeleton == "darts_imagenet", name="auxiliary")(s1, train)
            x = s1
        logits = nn.Dense(self.classes, name="classifier")(jnp.mean(x, (1, 2)).T)
        return (logits, aux) if self.auxiliary and train else logits

    def two_inputs(self, x, train):
        """The stem of the DARTS skeletons: the first cell's inputs, and whether the first is twice as large."""
        C = self.channels
        norm = lambda name, y: BatchNorm(name=name)(y, train)
        if self.skeleton == "darts":
            s = norm("stem_norm", Conv(3 * C, 3, name="stem")(x))
            return s, s, False
        x = nn.relu(norm("stem_norm0", Conv(C // 2, 3, 2, name="stem0")(x)))
        s0 = norm("stem_norm1", Conv(C, 3, 2, name="stem1")(x))
        s1 = norm("stem_norm2", Conv(C, 3, 2, name="stem2")(nn.relu(s0)))
        return s0, s1, True
