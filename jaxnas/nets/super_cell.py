"""The cell of a supernet: every edge holds all candidate operations.

Gates weigh the operations (mixture) or pick one (path).  Three variants live in the cell itself:

    partial channels    (PC-DARTS, Xu et al. 2020, arXiv:1907.05737)  the first C / K channels go through the operations, the others
                        around them, with the weight of the whole row; then the K groups of channels are interleaved
    auxiliary skip      (DARTS-, Chu et al. 2021, arXiv:2009.01027)  beta times a skip is added to every edge, and anneals to 0
    bare zeros          (GDAS's code, Dong and Yang 2019, arXiv:1910.04465)  the gates of the operations that a single path leaves
                        out are added to its output as they are: they are 0, but a gradient goes through

Axes: E edges, O operations, C channels, H rows, W columns, B batch.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.nets import probe
from jaxnas.nets.convolution import max_pool
from jaxnas.nets.fences import fence
from jaxnas.nets.layers import Output, Rate, apply_norm, check_maps, drop, mix, open_to_zeros, shuffle, switched, walk
from jaxnas.nets.ops import OPS, Identity
from jaxnas.nets.precision import scaled
from jaxnas.spaces.cell import CellSpec

Choice = tuple[tuple[int, int], ...]  # (edge, operation) of each kept edge of one cell


class Anneal(NamedTuple):
    """What changes in a supernet while it is searched; None: is not there."""

    auxiliary_skip: Any = None  # float[]: beta, the weight of the auxiliary skips
    skip_dropout: Any = None  # float[]: how much of a skip of stride 1 is dropped (rng "dropout")


FINAL = Anneal()


def around(x: jax.Array, partial: int, stride: int) -> jax.Array:
    """The channels of x that take no part in the operations, at the operations' size."""
    x = x[x.shape[0] // partial :]
    if stride == 1:
        return x
    return max_pool(jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), mode="edge"), 2, 2, padding=0)


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
    partial: int = 1  # K
    auxiliary_skip: bool = False
    bare_zeros: bool = False
    affine: bool = False

    def setup(self) -> None:
        spec = self.spec
        self.fans = [spec.leaving(j) for j in range(spec.inputs + spec.nodes)]
        self.columns = {name: k for k, name in enumerate(self.ops) if name != "none"}  # none adds nothing
        builds = {name: self.ops[name] for name in self.columns}
        if self.auxiliary_skip:
            builds["auxiliary_skip"] = OPS["skip_connect"]
        build = lambda name, stride: builds[name](self.features // self.partial, stride, self.affine).clone(parent=None)
        self.built = {stride: {name: build(name, stride) for name in builds} for stride in (1, self.stride)}

    def stride_from(self, source: int) -> int:
        return self.stride if source < self.spec.inputs else 1

    def held(self, collection: str, source: int) -> dict[str, Any]:
        """The stacked variables of a fan, by operation."""
        name = f"from{source}"
        return self.get_variable(collection, name) if self.has_variable(collection, name) else {}

    def __call__(
        self, inputs: Sequence[jax.Array], gates: jax.Array, train: bool, path: bool, rate: Rate, anneal: Anneal = FINAL
    ) -> list[jax.Array]:
        """inputs [C, H, W, B] each, gates [E, O] -> the nodes, [C, H / stride, W / stride, B] each."""
        del rate  # drop path belongs to evaluation
        gates = jnp.asarray(gates)
        C, H, W, B = inputs[0].shape
        blank = jnp.zeros((C, -(-H // self.stride), -(-W // self.stride), B), inputs[0].dtype)
        if self.is_initializing():
            self.make_variables(inputs[0][: C // self.partial], blank[: C // self.partial])
        if path:
            nodes, moved = self.single_path(inputs, blank, gates, train)
        else:
            nodes, moved = self.mixture(inputs, blank, gates, train, anneal)
        if train and not self.is_initializing():
            for source, stats in moved.items():
                if stats:
                    self.put_variable("batch_stats", f"from{source}", stats)
        return nodes

    def make_variables(self, outer: jax.Array, inner: jax.Array) -> None:
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

    def one(
        self, name: str, stride: int, params: dict[str, Any], stats: dict[str, Any], x: jax.Array, train: bool
    ) -> tuple[Output, dict[str, Any]]:
        """One operation of one edge -> (its output, the edge's statistics)."""
        variables = {c: held[name] for c, held in (("params", params), ("batch_stats", stats)) if name in held}
        y, new = self.built[stride][name].apply(variables, x, train, mutable=["batch_stats"])
        check_maps(name, y, (self.features // self.partial, -(-x.shape[1] // stride), -(-x.shape[2] // stride), x.shape[3]))
        return y, {**stats, name: new["batch_stats"]} if name in stats else stats

    def beside(self, y: jax.Array, gate: jax.Array, rest: jax.Array) -> jax.Array:
        """An edge's operations [C / K, ...] with the channels that went around them [C - C / K, ...]."""
        return y if self.partial == 1 else jnp.concatenate([y, scaled(rest, jnp.sum(gate))], 0)

    def mixture(
        self, inputs: Sequence[jax.Array], blank: jax.Array, gates: jax.Array, train: bool, anneal: Anneal
    ) -> tuple[list[jax.Array], dict[int, Any]]:
        nodes, moved = [*inputs, *[blank] * self.spec.nodes], {}
        weights = {"auxiliary_skip": anneal.auxiliary_skip} if self.auxiliary_skip and anneal.auxiliary_skip is not None else {}
        for source, fan in enumerate(self.fans):
            if source >= self.spec.inputs:
                nodes[source] = shuffle(nodes[source], self.partial)
            if not fan:
                continue
            nodes[source] = fence(nodes[source])
            x, stride = nodes[source], self.stride_from(source)
            rest = around(x, self.partial, stride)

            def edge(params, stats, gate, key):
                ys = []
                for name in (*self.columns, *weights):
                    with probe.where(name in weights or gate[self.columns[name]] != 0):
                        y, stats = self.one(name, stride, params, stats, x[: len(x) // self.partial], train)
                    skips = name == "skip_connect" and isinstance(self.built[stride][name], Identity)
                    if train and skips and anneal.skip_dropout is not None:
                        y = apply_norm(y)  # an identity's is there already
                        y = drop(y, key, anneal.skip_dropout, y.shape)
                    ys.append(y)
                y = mix([*(gate[k] for k in self.columns.values()), *weights.values()], ys)
                return self.beside(fence(y), gate, rest), stats  # else XLA computes the mixture again in what reads it

            held = self.held("params", source), self.held("batch_stats", source)
            keys = None if not train or anneal.skip_dropout is None else jax.random.split(self.make_rng("dropout"), len(fan))
            y, moved[source] = jax.vmap(edge)(*held, gates[np.asarray(fan)], keys)  # [fan, C, H, W, B]
            for e, [part] in zip(fan, jnp.split(y, len(fan)), strict=True):
                target = self.spec.inputs + self.spec.edges[e][1]
                nodes[target] = nodes[target] + part
        return nodes[self.spec.inputs :], moved

    def single_path(
        self, inputs: Sequence[jax.Array], blank: jax.Array, gates: jax.Array, train: bool
    ) -> tuple[list[jax.Array], dict[int, Any]]:
        """A scan over the edges, so that every operation is compiled once (twice in a cell that reduces)."""
        n, moved = self.spec.inputs, {}
        nodes = jnp.stack([*(inputs if self.stride == 1 else [blank] * n), *[blank] * self.spec.nodes])

        def edge(stride, x, held):
            params, stats, gate = held

            def branch(name, k):
                def compute(params, stats, gate, x):
                    y, stats = self.one(name, stride, params, stats, x, train)
                    return scaled(apply_norm(y), gate[k]), stats

                return compute

            own = len(blank) // self.partial
            none = lambda params, stats, gate, x: (jnp.zeros_like(blank[:own]), stats)
            branches = [branch(name, self.columns[name]) if name in self.columns else none for name in self.ops]
            y, stats = switched(jnp.argmax(gate), branches, params, stats, gate, x[:own])
            y = open_to_zeros(y, gate) if self.bare_zeros else y
            return shuffle(self.beside(y, gate, around(x, self.partial, stride)), self.partial), stats

        sources = [source for source, fan in enumerate(self.fans) if fan]
        groups = [sources] if self.stride == 1 else [[j for j in sources if j < n], [j for j in sources if j >= n]]
        for group in filter(None, groups):
            rows = [e for j in group for e in self.fans[j]]
            stride = self.stride_from(group[0])
            stacked = lambda c: jax.tree.map(lambda *fans: jnp.concatenate(fans), *[self.held(c, j) for j in group])
            source, target = jnp.asarray([self.spec.edges[e] for e in rows]).T
            xs = (stacked("params"), stacked("batch_stats"), gates[np.asarray(rows)])
            outer = None if stride == 1 else jnp.stack(inputs)
            nodes, stats = walk(functools.partial(edge, stride), nodes, source, n + target, xs, outer)
            ends = np.cumsum([len(self.fans[j]) for j in group])
            for j, end in zip(group, ends, strict=True):
                moved[j] = jax.tree.map(lambda a: a[end - len(self.fans[j]) : end], stats)
        return list(nodes[n:]), moved


def extract_edges(spec: CellSpec, choice: Choice, stacked: dict[str, Any]) -> dict[str, Any]:
    """The variables of a `Cell` out of those of a `SuperCell`, of one collection."""
    kept = {}
    for edge, k in choice:
        source, _ = spec.edges[edge]
        weights = stacked.get(f"from{source}", {}).get(spec.ops[k])
        if weights is not None:
            row = spec.leaving(source).index(edge)
            kept[f"edge{edge}"] = jax.tree.map(lambda a: a[row], weights)
    return kept
