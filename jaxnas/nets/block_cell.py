"""Cells of blocks (NASNet, PNAS, AmoebaNet) as Flax modules: for any architecture, or for one.

A side of a block holds its candidate operations once, whatever state it reads.  So the variables of any architecture have
one shape, and one program trains them all; of every side only the chosen operation is computed.

Axes: B blocks, O operations, C channels, H rows, W columns, N batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.base import Key
from jaxnas.nets import probe
from jaxnas.nets.base import Gates
from jaxnas.nets.layers import BatchNorm, Conv, Rate, apply_norm, check_maps, drop_path
from jaxnas.nets.ops import FactorizedReduce
from jaxnas.nets.precision import scaled
from jaxnas.spaces.blocks import Blocks, BlockSpec

Choice = tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]  # (in1, in2, op1, op2, combine) a block; what is kept


def kept_states(gates: Blocks) -> jax.Array:
    """bool[B + 2]: the states that are there and that no block reads: those that a cell concatenates."""
    there = jnp.concatenate([jnp.ones(2, bool), jnp.any(gates.op > 0, (1, 2))])
    return there & ~jnp.any(gates.input > 0, (0, 1))


def choice_of(gates: Blocks, extra: tuple[int, ...] = ()) -> Choice:
    """An architecture's gates, of one cell, as a static choice; `extra` states are kept although they are read."""
    gates = jax.tree.map(np.asarray, gates)
    combine = np.zeros(len(gates.op), int) if gates.combine is None else gates.combine.argmax(-1)
    rows = [(*gates.input[b].argmax(-1), *gates.op[b].argmax(-1), combine[b]) for b in range(len(combine)) if gates.op[b].any()]
    kept = np.flatnonzero(np.asarray(kept_states(gates)))
    return tuple(tuple(map(int, row)) for row in rows), tuple(sorted({*map(int, kept), *extra}))


def halved(name: str) -> str:
    """Where a cell that halves keeps an operation that then has other variables than with stride 1 (a skip has none there)."""
    return f"{name}_halved"


class Together(nn.Module):
    """How a block joins its two sides by concatenation: a relu and a 1x1 convolution bring it back to C channels."""

    features: int

    @nn.compact
    def __call__(self, first: jax.Array, second: jax.Array, train: bool) -> jax.Array:
        y = Conv(self.features)(probe.relu(jnp.concatenate([first, second], 0)))
        return apply_norm(BatchNorm()(y, train, defer=True))


class AnyBlockCell(nn.Module):
    """A cell of any architecture of the space.

    Its output has a slot for each state, zero where the state is not concatenated.  Variables: "sides" of each operation
    [2 B, ...], "together" [B, ...].
    """

    spec: BlockSpec
    ops: Mapping[str, Any]
    features: int
    stride: int

    def setup(self) -> None:
        self.built = {
            stride: [op(self.features, stride, True).clone(parent=None) for op in self.ops.values()] for stride in (1, self.stride)
        }
        self.together = Together(self.features).clone(parent=None)
        if self.stride > 1:
            self.halved = [FactorizedReduce(self.features, name=f"keep{j}") for j in range(2)]

    def make(self, name: str, init: Callable[[Key], Mapping[str, Any]], count: int) -> None:
        """Declares the variables of `count` copies of a module, stacked."""
        if self.is_initializing():
            for collection, stacked in jax.vmap(init)(jax.random.split(self.make_rng("params"), count)).items():
                self.put_variable(collection, name, stacked)

    def held(self, name: str) -> dict[str, Any]:
        found = {c: self.get_variable(c, name) for c in ("params", "batch_stats") if self.has_variable(c, name)}
        return {"params": {}, "batch_stats": {}, **found}

    def __call__(self, inputs: Sequence[jax.Array], gates: Blocks, train: bool, path: bool, rate: Rate) -> list[jax.Array]:
        """inputs [C, H, W, N] each, one-hot gates -> B + 2 states of [C, H / stride, W / stride, N]."""
        del path  # there is no other way to run
        B, (C, H, W, N) = self.spec.blocks, inputs[0].shape
        gates = jax.tree.map(jnp.asarray, gates)
        outer = jnp.stack(inputs)
        blank = jnp.zeros((C, -(-H // self.stride), -(-W // self.stride), N), outer.dtype)
        if self.is_initializing():
            shapes = lambda init: jax.tree.map(jnp.shape, jax.eval_shape(init, jax.random.key(0)))
            for k, name in enumerate(self.ops):
                whole = lambda key, k=k: self.built[1][k].init(key, blank, True)
                half = lambda key, k=k: self.built[self.stride][k].init(key, outer[0], True)
                self.make(name, whole, 2 * B)
                if self.stride > 1 and shapes(whole) != shapes(half):
                    self.make(halved(name), half, 2 * B)
        if "concat" in self.spec.combine:
            self.make("together", lambda key: self.together.init(key, blank, blank, True), B)
        if self.is_initializing() and self.stride > 1:
            for halve in self.halved:
                halve(inputs[0], train)

        own = lambda name, stride: stride > 1 and self.has_variable("params", halved(name))
        owner = lambda name, stride: halved(name) if own(name, stride) else name
        groups = {group: self.held(group) for group in dict.fromkeys(owner(n, s) for s in (1, self.stride) for n in self.ops)}
        by_side = jax.tree.map(lambda a: a.reshape(B, 2, *a.shape[1:]), groups)
        key = None if rate is None or not train else self.make_rng("drop_path")

        def run(op, name, x, variables):
            stats = variables[name]["batch_stats"]
            y, new = op.apply(variables[name], x, train, mutable=["batch_stats"])
            check_maps(name, y, (self.features, *blank.shape[1:]))
            moved = {**variables, name: {**variables[name], "batch_stats": new.get("batch_stats", stats)}}
            return apply_norm(y), {n: v["batch_stats"] for n, v in moved.items()}

        def branch(k, name, stride):
            group = owner(name, stride)
            return lambda outside, inside, v: run(self.built[stride][k], group, inside if stride == 1 else outside, v)

        strides = (1,) if self.stride == 1 else (1, self.stride)
        branches = [branch(k, name, stride) for stride in strides for k, name in enumerate(self.ops)]

        def block(states, x):
            b, variables, gate, together, keys = x

            def side(x):
                variables, source, op, key = x
                j, k = jnp.argmax(source), jnp.argmax(op)
                outside = lax.dynamic_index_in_dim(outer, jnp.minimum(j, 1), keepdims=False)
                inside = lax.dynamic_index_in_dim(states, j, keepdims=False)
                halve = (self.stride > 1) & (j < 2)
                y, stats = lax.switch(k + jnp.where(halve, len(self.ops), 0), branches, outside, inside, variables)
                return (y if key is None or rate is None else drop_path(y, key, rate)), stats

            (first, second), stats = lax.map(side, (variables, gate.input, gate.op, keys))
            y, moved = first + second, together["batch_stats"]
            if "concat" in self.spec.combine:
                joined, new = self.together.apply(together, first, second, train, mutable=["batch_stats"])
                picked = 1.0 if gate.combine is None else gate.combine[self.spec.combine.index("concat")]
                y, moved = jnp.where(picked > 0, joined, y), new.get("batch_stats", moved)
            y = scaled(y, jnp.max(gate.op))  # 0 for a block that is not there
            return lax.dynamic_update_index_in_dim(states, y, b + 2, 0), (stats, moved)

        entry = outer if self.stride == 1 else jnp.zeros((2, *blank.shape), blank.dtype)  # halved, they are read as `outside`
        states = jnp.concatenate([entry, jnp.zeros((B, *blank.shape), blank.dtype)])
        keys = None if key is None else jax.random.split(key, (B, 2))
        xs = (jnp.arange(B), by_side, gates, self.held("together"), keys)
        states, (stats, moved) = lax.scan(block, states, xs)
        if train and not self.is_initializing():
            for name, s in (*stats.items(), ("together", moved)):
                if s:
                    shaped = s if name == "together" else jax.tree.map(lambda a: a.reshape(2 * B, *a.shape[2:]), s)
                    self.put_variable("batch_stats", name, shaped)
        ends = list(inputs) if self.stride == 1 else [apply_norm(h(x, train)) for h, x in zip(self.halved, inputs, strict=True)]
        kept = kept_states(gates).astype(blank.dtype)
        return [state * kept[j] for j, state in enumerate([*ends, *states[2:]])]


class BlockCell(nn.Module):
    """A cell of one architecture, with only what it needs."""

    spec: BlockSpec
    ops: Mapping[str, Any]
    features: int
    stride: int
    choice: Choice

    @nn.compact
    def __call__(self, inputs: Sequence[jax.Array], gates: Gates, train: bool, path: bool, rate: Rate) -> list[jax.Array]:
        del gates, path
        blocks, kept = self.choice
        names, states = list(self.ops), list(inputs)
        for b, (*sources, first, second, combine) in enumerate(blocks):
            sides = []
            for s, (j, k) in enumerate(zip(sources, (first, second), strict=True)):
                op = self.ops[names[k]](self.features, self.stride if j < 2 else 1, True)
                y = op.clone(parent=self, name=f"block{b}_{s}")(states[j], train)
                _, H, W, N = states[j].shape
                stride = self.stride if j < 2 else 1
                check_maps(names[k], y, (self.features, -(-H // stride), -(-W // stride), N))
                y = apply_norm(y)
                sides.append(drop_path(y, self.make_rng("drop_path"), rate) if train and rate is not None else y)
            if self.spec.combine[combine] == "concat":
                states.append(Together(self.features, name=f"together{b}")(sides[0], sides[1], train))
            else:
                states.append(sides[0] + sides[1])
        halve = lambda j: apply_norm(FactorizedReduce(self.features, name=f"keep{j}")(states[j], train))
        return [halve(j) if j < 2 and self.stride > 1 else states[j] for j in kept]


def used_rows(spec: BlockSpec, cell: dict[str, Any], gates: Blocks) -> dict[str, jax.Array]:
    """Which copies of a cell's groups of variables take part: bool[2 B] of an operation, [B] of "together", [] of the rest."""
    kept, sides = kept_states(gates), gates.op.reshape(-1, len(spec.ops)) > 0  # [2 B, O]
    outer = jnp.any(gates.input.reshape(len(sides), -1)[:, :2] > 0, -1)  # [2 B]
    rows = {f"keep{j}": kept[j] for j in range(2)}
    for k, name in enumerate(spec.ops):
        rows[halved(name)] = sides[:, k] & outer
        rows[name] = sides[:, k] & ~outer if halved(name) in cell else sides[:, k]
    if "concat" in spec.combine:
        joins = True if gates.combine is None else gates.combine[:, spec.combine.index("concat")] > 0
        rows["together"] = jnp.any(gates.op > 0, (1, 2)) & joins
    return rows


def extract_blocks(spec: BlockSpec, choice: Choice, stride: int, stacked: dict[str, Any], cell: dict[str, Any]) -> dict[str, Any]:
    """The variables of a `BlockCell` out of those of an `AnyBlockCell`, of one collection; `cell` holds its parameters."""
    blocks, kept = choice
    owner = lambda name, stride: halved(name) if stride > 1 and halved(name) in cell else name
    row = lambda group, i: jax.tree.map(lambda a: a[i], stacked.get(group, {}))
    out = {}
    for b, (*sources, first, second, combine) in enumerate(blocks):
        for s, (j, k) in enumerate(zip(sources, (first, second), strict=True)):
            out[f"block{b}_{s}"] = row(owner(spec.ops[k], stride if j < 2 else 1), 2 * b + s)
        if spec.combine[combine] == "concat":
            out[f"together{b}"] = row("together", b)
    out |= {f"keep{j}": stacked.get(f"keep{j}", {}) for j in kept if j < 2 and stride > 1}
    return {name: held for name, held in out.items() if held}


def readers(cells: int, i: int) -> dict[str, int]:
    """The layers that read the output of cell i, and the axis of their kernels' input channels."""
    return {f"pre{n}_{j}": 1 for n, j in ((1, i + 1), (0, i + 2)) if j < cells} if i < cells - 1 else {"classifier": 0}


def without_slots(reader: dict[str, Any], kept: tuple[int, ...], features: int, axis: int) -> dict[str, Any]:
    """A reader's weights for the states that are kept alone."""
    rows = np.concatenate([np.arange(features) + j * features for j in kept])
    return jax.tree_util.tree_map_with_path(lambda path, a: jnp.take(a, rows, axis) if path[-1].key == "kernel" else a, reader)
