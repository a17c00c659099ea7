"""Cell networks: one Flax module for the supernet, the specialised network and the evaluation network.

The skeleton (stem, cells, head) is the same in all of them; only the cell differs:

    supernet      every edge holds all candidate operations; gates weigh them (mixture) or pick one (path)
    specialised   every kept edge holds the one chosen operation: a plain network, no gates

Skeletons: "darts", cells of two inputs with reductions at 1/3 and 2/3 of the depth (arXiv:1806.09055); "nasnet", the same
with N cells before, between and after the two reductions (arXiv:1707.07012); "nasbench201", three stages of cells with
residual reductions between (arXiv:2001.00326).

Axes: E edges, O operations, C channels, H rows, W columns, B batch, N nodes with the inputs.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.nets.block_cell import AnyBlockCell, BlockCell
from jaxnas.nets.convolution import avg_pool, fence
from jaxnas.nets.layers import BatchNorm, Conv, drop_path, mix, settle, to_net
from jaxnas.nets.ops import FactorizedReduce, Identity, ReLUConvBN
from jaxnas.spaces.blocks import BlockSpec
from jaxnas.spaces.cell import CellSpec

Choice = tuple[tuple[int, int], ...]  # (edge, operation) of each kept edge of one cell


class SuperCell(nn.Module):
    """A cell of the supernet: every edge holds all candidate operations.

    The edges that leave one node are its fan.  In a mixture a fan is one batch of operations on one input, so that what
    its edges share (the pools, the relu) is computed once.  Each operation's variables in "from<node>" are stacked: they
    have a leading axis over the fan.
    """

    spec: CellSpec
    ops: Mapping[str, Any]  # name -> build(features, stride, affine), in gate-column order
    features: int
    stride: int

    def setup(self):
        spec = self.spec
        self.fans = [spec.leaving(j) for j in range(spec.inputs + spec.nodes)]
        self.columns = {name: k for k, name in enumerate(self.ops) if name != "none"}  # none adds nothing
        build = lambda name, stride: self.ops[name](self.features, stride, False).clone(parent=None)
        self.built = {stride: {name: build(name, stride) for name in self.columns} for stride in (1, self.stride)}

    def stride_from(self, source: int) -> int:
        return self.stride if source < self.spec.inputs else 1

    def held(self, collection: str, source: int) -> dict:
        """The stacked variables of a fan, by operation."""
        name = f"from{source}"
        return self.get_variable(collection, name) if self.has_variable(collection, name) else {}

    def __call__(self, inputs, gates, train, path, rate):
        """inputs [C, H, W, B] each, gates [E, O] -> the nodes, [C, H / stride, W / stride, B] each."""
        del rate  # drop path belongs to evaluation
        gates = jnp.asarray(gates)
        C, H, W, B = inputs[0].shape
        blank = jnp.zeros((C, -(-H // self.stride), -(-W // self.stride), B), inputs[0].dtype)
        if self.is_initializing():
            self.make_variables(inputs[0], blank)
        nodes, moved = (self.single_path if path else self.mixture)(inputs, blank, gates, train)
        if train and not self.is_initializing():
            for source, stats in moved.items():
                if stats:
                    self.put_variable("batch_stats", f"from{source}", stats)
        return nodes

    def make_variables(self, outer, inner):
        """All edges of one stride at a time: few draws, which are what the compilation of `init` costs."""
        made = {}
        for stride, x in {1: inner, self.stride: outer}.items():
            fans = [(j, fan) for j, fan in enumerate(self.fans) if fan and self.stride_from(j) == stride]
            ends = np.cumsum([len(fan) for _, fan in fans])
            for name, op in self.built[stride].items() if fans else ():
                keys = jax.random.split(self.make_rng("params"), ends[-1])
                for collection, stacked in jax.vmap(lambda key: op.init(key, x, True))(keys).items():
                    for (j, fan), end in zip(fans, ends, strict=True):
                        rows = jax.tree.map(lambda a: a[end - len(fan) : end], stacked)
                        made.setdefault((collection, f"from{j}"), {})[name] = rows
        for (collection, group), held in made.items():
            self.put_variable(collection, group, held)

    def one(self, name, stride, params, stats, x, train):
        """One operation of one edge -> (its output, the edge's statistics)."""
        variables = {c: held[name] for c, held in (("params", params), ("batch_stats", stats)) if name in held}
        y, new = self.built[stride][name].apply(variables, x, train, mutable=["batch_stats"])
        return y, {**stats, name: new["batch_stats"]} if name in stats else stats

    def mixture(self, inputs, blank, gates, train):
        nodes, moved = [*inputs, *[blank] * self.spec.nodes], {}
        for source, fan in enumerate(self.fans):
            if not fan:
                continue

            def edge(params, stats, gate):
                ys = []
                for name in self.columns:
                    y, stats = self.one(name, self.stride_from(source), params, stats, nodes[source], train)
                    ys.append(y)
                return mix([gate[k] for k in self.columns.values()], ys), stats

            nodes[source] = fence(nodes[source])
            held = self.held("params", source), self.held("batch_stats", source)
            y, moved[source] = jax.vmap(edge)(*held, gates[np.asarray(fan)])  # [fan, C, H, W, B]
            for e, [part] in zip(fan, jnp.split(y, len(fan)), strict=True):
                target = self.spec.inputs + self.spec.edges[e][1]
                nodes[target] = nodes[target] + part
        return nodes[self.spec.inputs :], moved

    def single_path(self, inputs, blank, gates, train):
        """A scan over the edges, so that every operation is compiled once (twice in a cell that reduces)."""
        n, moved = self.spec.inputs, {}
        nodes = jnp.stack([*(inputs if self.stride == 1 else [blank] * n), *[blank] * self.spec.nodes])
        outer = jnp.stack(inputs)

        def edge(stride, params, stats, gate, x):
            def branch(name, k):
                def compute(params, stats, gate, x):
                    y, stats = self.one(name, stride, params, stats, x, train)
                    return gate[k] * settle(y), stats

                return compute

            none = lambda params, stats, gate, x: (jnp.zeros_like(blank), stats)
            branches = [branch(name, self.columns[name]) if name in self.columns else none for name in self.ops]
            return lax.switch(jnp.argmax(gate), branches, params, stats, gate, x)

        sources = [source for source, fan in enumerate(self.fans) if fan]
        groups = [sources] if self.stride == 1 else [[j for j in sources if j < n], [j for j in sources if j >= n]]
        for group in filter(None, groups):
            rows = [e for j in group for e in self.fans[j]]
            stride = self.stride_from(group[0])

            def body(nodes, x):
                params, stats, gate, source, target = x
                x = lax.dynamic_index_in_dim(nodes if stride == 1 else outer, source, keepdims=False)
                y, stats = edge(stride, params, stats, gate, x)
                there = lax.dynamic_index_in_dim(nodes, target, keepdims=False)
                return lax.dynamic_update_index_in_dim(nodes, there + y, target, 0), stats

            stacked = lambda c: jax.tree.map(lambda *fans: jnp.concatenate(fans), *[self.held(c, j) for j in group])
            source, target = jnp.asarray([self.spec.edges[e] for e in rows]).T
            xs = (stacked("params"), stacked("batch_stats"), gates[np.asarray(rows)], source, n + target)
            nodes, stats = lax.scan(body, nodes, xs)
            ends = np.cumsum([len(self.fans[j]) for j in group])
            for j, end in zip(group, ends, strict=True):
                moved[j] = jax.tree.map(lambda a: a[end - len(self.fans[j]) : end], stats)
        return list(nodes[n:]), moved


def extract_edges(spec: CellSpec, choice: Choice, stacked: dict) -> dict:
    """The variables of a `Cell` out of those of a `SuperCell`, of one collection."""
    kept = {}
    for edge, k in choice:
        source, _ = spec.edges[edge]
        weights = stacked.get(f"from{source}", {}).get(spec.ops[k])
        if weights is not None:
            row = spec.leaving(source).index(edge)
            kept[f"edge{edge}"] = jax.tree.map(lambda a: a[row], weights)
    return kept


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
            y = settle(op.clone(parent=self, name=f"edge{edge}")(nodes[source], train))
            if train and rate is not None and not isinstance(op, Identity):
                y = drop_path(y, self.make_rng("drop_path"), rate)
            nodes[n + target] = nodes[n + target] + y
        return nodes[n:]


class ResidualReduction(nn.Module):
    """The basic residual block of stride 2 between the stages of NAS-Bench-201."""

    features: int

    @nn.compact
    def __call__(self, x, train):
        y = settle(ReLUConvBN(self.features, 3, 2)(x, train))
        y = settle(ReLUConvBN(self.features, 3, 1)(y, train))
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
    "drop_path"); None, the default, drops nothing.  Cells of blocks drop more the deeper they are, as ScheduledDropPath does:
    cell c of C at (c + 1) / C of the rate; DARTS's cells drop alike, and spare their identities.
    """

    spec: CellSpec | BlockSpec
    ops: Mapping[str, Any]
    skeleton: str  # "darts" | "darts_imagenet" | "nasnet" | "nasbench201"
    channels: int
    cells: int  # in all ("darts"), or in each of the three stages ("nasnet", "nasbench201")
    classes: int
    choice: Mapping[str, Any] | None = None  # kind -> the edges, or the blocks, of one architecture; None: of any
    affine: bool = False
    auxiliary: bool = False

    @property
    def layout(self) -> tuple[tuple[str, int, int], ...]:
        """(kind, features, stride) of each block; kind "residual" is the skeleton's own reduction."""
        only = self.spec.kinds[0] if self.spec.kinds else "cell"
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
        common = dict(spec=self.spec, ops=self.ops, features=features, stride=stride, name=f"cell{i}")
        if isinstance(self.spec, BlockSpec):
            return AnyBlockCell(**common) if self.choice is None else BlockCell(**common, choice=self.choice[kind])
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
            deeper = rate is not None and isinstance(self.spec, BlockSpec)
            for i, (kind, features, stride) in enumerate(self.layout):
                dropped = rate * (i + 1) / len(self.layout) if deeper else rate
                same_size = lambda name: ReLUConvBN(features, 1, 1, self.affine, name=name)
                halved = lambda name: FactorizedReduce(features, self.affine, name=name)
                adapt = (halved if reduced else same_size)(f"pre0_{i}")
                inputs = [settle(adapt(s0, train)), settle(same_size(f"pre1_{i}")(s1, train))]
                nodes = self.cell(i)(inputs, of_kind(kind), train, path, dropped)
                s0, s1, reduced = s1, jnp.concatenate(nodes, 0), stride == 2
                if self.auxiliary and i == 2 * len(self.layout) // 3 and (train or self.is_initializing()):
                    aux = Auxiliary(self.classes, self.skeleton == "darts_imagenet", name="auxiliary")(s1, train)
            x = s1
        logits = nn.Dense(self.classes, name="classifier")(jnp.mean(x, (1, 2)).T)
        return (logits, aux) if self.auxiliary and train else logits

    def two_inputs(self, x, train):
        """The stem of the DARTS skeletons: the first cell's inputs, and whether the first is twice as large."""
        C = self.channels
        norm = lambda name, y: BatchNorm(name=name)(y, train)
        if self.skeleton != "darts_imagenet":
            s = norm("stem_norm", Conv(3 * C, 3, name="stem")(x))
            return s, s, False
        x = nn.relu(norm("stem_norm0", Conv(C // 2, 3, 2, name="stem0")(x)))
        s0 = norm("stem_norm1", Conv(C, 3, 2, name="stem1")(x))
        s1 = norm("stem_norm2", Conv(C, 3, 2, name="stem2")(nn.relu(s0)))
        return s0, s1, True
