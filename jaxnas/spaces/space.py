"""Spaces: everything that follows from `decisions`, a pytree of arities.

An architecture has the structure of `decisions`, with int32 values in [0, arity).  Use NamedTuples: their field order is
the token order (JAX sorts dictionary keys).  All functions handle ONE architecture; the caller vmaps.

Axes: D decisions, A the largest arity.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Space(NamedTuple):
    """What may be built.  `space(...)` derives all of it; a paper's space replaces (`_replace`) what it does differently."""

    decisions: Any  # pytree of int arrays: the arity of each decision
    arity: np.ndarray  # int32[D], the same, flat: the token sequence a controller emits
    size: int  # distinct settings of the active decisions
    flat: Callable  # arch -> int32[D]
    unflat: Callable  # int32[D] -> arch
    active: Callable  # arch -> bool[D]: the decisions that matter, given their parents
    sample: Callable  # key -> arch, uniform over the settings of all decisions
    mutate: Callable  # (key, arch) -> arch: exactly one active decision takes another value
    crossover: Callable  # (key, a, b) -> arch: each decision from a or b with equal odds
    neighbors: Callable  # arch -> archs[sum(arity - 1)], decision-major, then value + 1, + 2, ... modulo the arity
    features: Callable  # arch -> float32[sum(arity)], one-hot; zeros where inactive
    index: Callable  # arch -> int32, mixed radix with the first decision most significant; needs raw size < 2**31
    from_index: Callable  # int32 -> arch
    canonical: Callable  # arch -> arch, equal for equal networks
    gates: Callable  # arch -> the supernet's gates: one-hot rows
    derive: Callable  # soft gates -> arch, the discretisation; derive(gates(a)) == a
    gate_shapes: Any  # pytree of shapes: the architecture parameters
    to_text: Callable  # arch -> str (host)
    from_text: Callable  # str -> arch (host); ValueError for a text that is not in the space
    spec: Any = None  # the static description a net is built from (a CellSpec for the cell spaces)


def is_shape(node) -> bool:
    """Whether a node of `gate_shapes` is a shape, and so a leaf, and not a NamedTuple of shapes."""
    return isinstance(node, tuple) and all(isinstance(n, int) for n in node)


def space(decisions, *, parent=None, when=None, mutate_weight=None, gates=None, derive=None, gate_shapes=None) -> Space:
    """Derives a `Space` from the arities of its decisions.

    Args:
        decisions: pytree of ints or int arrays, each at least 1.
        parent: int[D], the decision that switches d on; -1 (the default everywhere): d is always on.
        when: bool[D, A], the parent's values for which d is on.
        mutate_weight: float[D], relative odds that `mutate` picks an active decision; default: equal.
        gates, derive, gate_shapes: see `Space`; default: one row per decision, argmax.

    Raises:
        ValueError: for an empty space, an arity below 1, a parent that comes after its child, or half a gates/derive pair.
    """
    leaves, tree = jax.tree.flatten(decisions)
    leaves = [np.asarray(a, np.int32) for a in leaves]
    if not leaves or sum(a.size for a in leaves) == 0:
        raise ValueError("a space needs at least one decision")
    arity = np.concatenate([a.ravel() for a in leaves])  # [D]
    if arity.min() < 1:
        raise ValueError(f"every decision needs at least one value; got arities {arity.tolist()}")
    D, A = len(arity), int(arity.max())
    parent = np.full(D, -1) if parent is None else np.asarray(parent)
    when = np.ones((D, A), bool) if when is None else np.asarray(when, bool)
    if parent.shape != (D,) or (parent >= np.arange(D)).any():
        raise ValueError(f"`parent` must name, for each of the {D} decisions, one that comes before it (or -1)")
    if (gates is None) != (derive is None):
        raise ValueError("give `gates` and `derive` together: derive(gates(a)) == a")
    weight = np.ones(D) if mutate_weight is None else np.asarray(mutate_weight, float)
    weight = np.asarray(weight * (arity > 1), np.float32)

    cut = np.cumsum([a.size for a in leaves])[:-1]
    start = np.concatenate([[0], np.cumsum(arity)]).astype(np.int32)
    radix = [math.prod(int(n) for n in arity[d + 1 :]) for d in range(D)]
    raw_size = math.prod(int(n) for n in arity)

    def flat(arch):
        return jnp.concatenate([jnp.ravel(a).astype(jnp.int32) for a in jax.tree.leaves(arch)])

    def unflat(v):
        return tree.unflatten([p.reshape(a.shape) for p, a in zip(jnp.split(v, cut), leaves, strict=True)])

    root, up = parent < 0, np.maximum(parent, 0)
    depth = [0] * D  # of each decision below its root
    for d in np.flatnonzero(~root):
        depth[d] = depth[parent[d]] + 1

    def on(v):  # int32[D] -> bool[D]
        wanted = root | jnp.asarray(when)[np.arange(D), v[up]]  # [D]: the parent holds a value that switches d on
        out = wanted
        for _ in range(max(depth) - 1):
            out = wanted & (root | out[up])
        return out

    def settle(v):  # inactive decisions are 0
        return unflat(jnp.where(on(v), v, 0))

    def sample(key):
        return settle(jax.random.randint(key, (D,), 0, arity))

    def mutate(key, arch):
        u = jax.random.uniform(key, (2,))
        v = flat(arch)
        odds = jnp.sum(jnp.where(np.tri(D, dtype=bool), (weight * on(v))[None], 0.0), -1)  # [D], cumulative, summed in one order
        d = jnp.sum(odds <= u[0] * odds[-1])  # the first to exceed it: one that has weight
        shift = 1 + jnp.floor(u[1] * (arity - 1)).astype(jnp.int32)  # [D], in [1, arity)
        return settle(jnp.where(np.arange(D) == d, (v + shift) % arity, v))

    def crossover(key, a, b):
        return settle(jnp.where(jax.random.bernoulli(key, 0.5, (D,)), flat(a), flat(b)))

    moved = np.repeat(np.arange(D), arity - 1)  # which decision each neighbor changes
    shift = np.concatenate([np.arange(1, n) for n in arity]).astype(np.int32)

    def neighbors(arch):
        v = flat(arch)
        rows = jnp.where(moved[:, None] == np.arange(D)[None], (v[None] + shift[:, None]) % arity[None], v[None])
        return jax.vmap(settle)(rows)

    def features(arch):
        v = flat(arch)
        return jnp.zeros(int(start[-1]), jnp.float32).at[start[:-1] + v].set(on(v).astype(jnp.float32))

    def check_indexable():
        if raw_size >= 2**31:
            raise ValueError(f"this space has {raw_size} settings: `index` needs fewer than 2**31")

    def index(arch):
        check_indexable()
        return jnp.sum(flat(arch) * np.asarray(radix, np.int32))

    def from_index(i):
        check_indexable()
        digits = (jnp.asarray(i)[None] // np.asarray(radix, np.int32)) % arity
        return unflat(digits.astype(jnp.int32))

    def count(d):  # distinct settings of decision d and all it switches
        children = np.flatnonzero(parent == d)
        return sum(math.prod(count(c) for c in children if when[c, a]) for a in range(arity[d]))

    if gates is None:
        gates = lambda arch: jax.tree.map(lambda a, n: jax.nn.one_hot(a, int(np.max(n)), dtype=jnp.float32), arch, decisions)
        derive = lambda soft: jax.tree.map(lambda row: jnp.argmax(row, -1).astype(jnp.int32), soft)
        gate_shapes = jax.tree.map(lambda n: (*np.shape(n), int(np.max(n))), decisions)

    def to_text(arch):
        return "-".join(str(int(i)) for i in np.asarray(flat(arch)))

    def from_text(text):
        values = np.asarray([int(t) if t.lstrip().isdecimal() else -1 for t in text.split("-")])
        if values.shape != (D,) or (values < 0).any() or (values >= arity).any():
            limits = "-".join(str(n - 1) for n in arity)
            raise ValueError(f"{text!r} is not in this space: give {D} numbers joined by '-', at most {limits}")
        return settle(jnp.asarray(values, jnp.int32))

    return Space(
        decisions=decisions,
        arity=arity,
        size=math.prod(count(d) for d in np.flatnonzero(parent < 0)),
        flat=flat,
        unflat=unflat,
        active=lambda arch: on(flat(arch)),
        sample=sample,
        mutate=mutate,
        crossover=crossover,
        neighbors=neighbors,
        features=features,
        index=index,
        from_index=from_index,
        canonical=lambda arch: settle(flat(arch)),
        gates=gates,
        derive=derive,
        gate_shapes=gate_shapes,
        to_text=to_text,
        from_text=from_text,
    )
