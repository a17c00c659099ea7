"""Spaces: everything that follows from `decisions`, a pytree of arities, and `reals`, a pytree of bounds.

An architecture has the structure of `decisions`, with int32 values in [0, arity).  Use NamedTuples: their field order is
the token order (JAX sorts dictionary keys).  In a space with reals it is `Mixed(decisions, reals)`, so that a network and
its hyper-parameters are searched together.  All functions handle ONE architecture; the caller vmaps.

Axes: D decisions, A the largest arity, R real dimensions.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Arch, Key
from jaxnas.checks import Arities, checked, described, require
from jaxnas.spaces.real import polynomial_mutation, scale


class Mixed(NamedTuple):
    """A point of a space with reals."""

    decisions: Any  # int32 values
    reals: Any  # float32 values, in the user's units


class UnflatFn(Protocol):
    def __call__(self, v: jax.Array, u: jax.Array | None = None, /) -> Arch:
        """The architecture of flat values.

        Args:
            v: int32[D], the decisions.
            u: float32[R], the reals in the unit cube; needed where there are reals.
        """


class Space(NamedTuple):
    """What may be built.  `space(...)` derives all of it; a paper's space replaces (`_replace`) what it does differently."""

    decisions: Any  # pytree of int arrays: the arity of each decision
    arity: np.ndarray  # int32[D], the same, flat: the token sequence a controller emits
    size: float  # distinct settings of the active decisions; infinite with reals
    flat: Callable[[Arch], jax.Array]  # int32[D]
    unflat: UnflatFn
    unit: Callable[[Arch], jax.Array]  # float32[R], its reals in the unit cube
    active: Callable[[Arch], jax.Array]  # bool[D]: the decisions that matter, given their parents
    sample: Callable[[Key], Arch]  # uniform over the settings of all decisions and over the unit cube
    mutate: Callable[[Key, Arch], Arch]  # exactly one active decision, or one real, takes another value
    crossover: Callable[[Key, Arch, Arch], Arch]  # each decision and real from the one or the other with equal odds
    neighbors: Callable[[Arch], Arch]  # [sum(arity - 1)], decision-major, then value + 1, + 2, ... modulo the arity; no reals
    features: Callable[[Arch], jax.Array]  # float32[sum(arity) + R], one-hot, zeros where inactive; then the unit reals
    index: Callable[[Arch], jax.Array]  # int32[], mixed radix, the first decision most significant; needs raw size < 2**31
    from_index: Callable[[jax.Array], Arch]  # its inverse
    canonical: Callable[[Arch], Arch]  # equal for equal networks
    gates: Callable[[Arch], Any]  # the supernet's gates: one-hot rows
    derive: Callable[[Any], Arch]  # the discretisation of soft gates; derive(gates(a)) == a
    gate_shapes: Any  # pytree of shapes: the architecture parameters
    to_text: Callable[[Arch], str]  # on the host
    from_text: Callable[[str], Arch]  # on the host; ValueError for a text that is not in the space
    reals: Any = None  # pytree of `Real`; None: decisions only
    spec: Any = None  # the static description a net is built from (a CellSpec for the cell spaces)
    open: Any = None  # bool, of the gates' structure: the operations that are in the space, where some are not; None: all
    choice: Any = None  # arch -> the static description its own network is built from (host); None: its gates say it


def is_shape(node: Any) -> bool:
    """Whether a node of `gate_shapes` is a shape, and so a leaf, and not a NamedTuple of shapes."""
    return isinstance(node, tuple) and all(isinstance(n, int) for n in node)


def _switches(arity: np.ndarray, parent: ArrayLike | None, when: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """`parent` int[D] and `when` bool[D, A] of a space, checked."""
    D, A = len(arity), int(arity.max(initial=1))
    if parent is not None:
        parent = np.asarray(parent)
        if parent.shape != (D,) or parent.dtype.kind not in "iu" or (parent >= np.arange(D)).any() or (parent < -1).any():
            raise ValueError(
                f"`parent` must name, for each of {D} decisions, one that comes before it (or -1); got {parent.tolist()}"
            )
    if (parent is None) != (when is None):
        raise ValueError("give `parent` and `when` together: the decision that switches one on, and for which of its values")
    if parent is None or when is None:
        return np.full(D, -1), np.ones((D, A), bool)
    when = np.asarray(when)
    if when.shape != (D, A) or not np.isin(when, (0, 1)).all():
        raise ValueError(f"`when` must be bool[{D}, {A}], a row a decision, a column a value; got {when.dtype}{[*when.shape]}")
    when = when.astype(bool)
    return parent, when


@checked
def space(
    decisions: Any = (),
    *,
    reals: Any = None,
    parent: ArrayLike | None = None,
    when: ArrayLike | None = None,
    mutate_weight: ArrayLike | None = None,
    gates: Callable[[Arch], Any] | None = None,
    derive: Callable[[Any], Arch] | None = None,
    gate_shapes: Any = None,
) -> Space:
    """Derives a `Space` from the arities of its decisions.

    Args:
        decisions: pytree of ints or int arrays, each at least 1; default none.
        reals: pytree of `Real` bounds, searched along with the decisions; default None.
        parent: int[D], the decision that switches d on; -1 (the default everywhere): d is always on.
        when: bool[D, A], the parent's values for which d is on.
        mutate_weight: float[D], relative odds that `mutate` picks an active decision; default: equal.
        gates, derive, gate_shapes: see `Space`; default: one row per decision, argmax.

    Raises:
        ValueError: for an empty space, an arity outside [1, 2^31), a parent that comes after its child, half a gates/derive pair,
            `parent` without `when`, a decision that is never on, odds of mutation below 0, or bounds that
            `jaxnas.spaces.real.scale` refuses.
    """
    made = derived(
        decisions,
        reals=reals,
        parent=parent,
        when=when,
        mutate_weight=mutate_weight,
        gates=gates,
        derive=derive,
        gate_shapes=gate_shapes,
    )
    for d, up in enumerate([] if parent is None else np.asarray(parent)):
        n = made.arity[up]
        if up >= 0 and not np.asarray(when)[d, :n].any():
            raise ValueError(f"`when` never switches decision {d} on: allow at least one of the {n} values of decision {up}")
    return made


def derived(
    decisions: Any = (),
    *,
    reals: Any = None,
    parent: ArrayLike | None = None,
    when: ArrayLike | None = None,
    mutate_weight: ArrayLike | None = None,
    gates: Callable[[Arch], Any] | None = None,
    derive: Callable[[Any], Arch] | None = None,
    gate_shapes: Any = None,
) -> Space:
    """As `space`, for a factory whose lists may leave a decision without an effect: one that is never on stays 0."""
    leaves, tree = jax.tree.flatten(decisions)
    for leaf in leaves:
        require(Arities, decisions=leaf)
    leaves = [np.asarray(a, np.int32) for a in leaves]
    cube = scale(reals)
    if sum(a.size for a in leaves) + cube.size == 0:
        raise ValueError("a space needs at least one decision or real")
    arity = np.concatenate([np.zeros(0, np.int32), *[a.ravel() for a in leaves]])  # [D]
    D, R = len(arity), cube.size
    parent, when = _switches(arity, parent, when)
    if (gates is None) != (derive is None):
        raise ValueError("give `gates` and `derive` together: derive(gates(a)) == a")
    if gate_shapes is not None and not all(map(is_shape, jax.tree.leaves(gate_shapes, is_leaf=is_shape))):
        raise ValueError(f"`gate_shapes` must be a pytree of shapes, such as (6, 5); got {described(gate_shapes)}")
    weight = np.ones(D) if mutate_weight is None else np.asarray(mutate_weight, float)
    if weight.shape != (D,) or not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError(f"`mutate_weight` gives each of the {D} decisions odds of at least 0; got {weight.tolist()}")
    weight = np.asarray(weight * (arity > 1), np.float32)
    if D and (arity > 1).any() and not weight.any():
        raise ValueError(f"`mutate_weight` leaves no decision of several values to mutate: got {mutate_weight}")

    cut = np.cumsum([a.size for a in leaves])[:-1]
    start = np.concatenate([[0], np.cumsum(arity)]).astype(np.int32)
    radix = [math.prod(int(n) for n in arity[d + 1 :]) for d in range(D)]
    raw_size = math.prod(int(n) for n in arity)

    def flat(arch):
        parts = [jnp.ravel(a).astype(jnp.int32) for a in jax.tree.leaves(arch if reals is None else arch.decisions)]
        return jnp.concatenate([*parts, jnp.zeros(0, jnp.int32)])

    def unit(arch):
        return jnp.zeros(0) if reals is None else cube.to_unit(arch.reals)

    def build(v, values):
        parts = jnp.split(v, cut) if leaves else []
        chosen = tree.unflatten([p.reshape(a.shape) for p, a in zip(parts, leaves, strict=True)])
        return chosen if reals is None else Mixed(chosen, values)

    def unflat(v, u=None):
        if reals is None:
            return build(v, None)
        if u is None:
            raise ValueError("this space has real dimensions: give `unflat` their values in the unit cube, too")
        return build(v, cube.from_unit(u))

    def values(arch):
        return None if reals is None else arch.reals

    root, up = parent < 0, np.maximum(parent, 0).astype(np.int32)
    each_decision = np.arange(D, dtype=np.int32)
    depth = [0] * D  # of each decision below its root
    for d in np.flatnonzero(~root):
        depth[d] = depth[parent[d]] + 1

    def on(v):  # int32[D] -> bool[D]
        wanted = jnp.asarray(root) | jnp.asarray(when)[each_decision, v[up]]  # [D]: the parent holds a value that switches d on
        out = wanted
        for _ in range(max(depth, default=0) - 1):
            out = wanted & (jnp.asarray(root) | out[up])
        return out

    def zero_inactive(v, values=None):  # inactive decisions are 0
        return build(jnp.where(on(v), v, 0), values)

    def sample(key):
        if reals is None:
            return zero_inactive(jax.random.randint(key, (D,), 0, arity))
        k_decisions, k_reals = jax.random.split(key)
        u = jax.random.uniform(k_reals, (R,))
        return zero_inactive(jax.random.randint(k_decisions, (D,), 0, arity), cube.from_unit(u))

    def mutate(key, arch):
        k_pick, k_real = (key, key) if reals is None else jax.random.split(key)  # without reals the second is not used
        p = jax.random.uniform(k_pick, (2,))
        v, u = flat(arch), unit(arch)
        each = jnp.concatenate([weight * on(v), jnp.ones(R)])  # [D + R]
        odds = jnp.sum(jnp.where(np.tri(D + R, dtype=bool), each[None], 0.0), -1)  # cumulative, summed in one order
        d = jnp.sum(odds <= p[0] * odds[-1])  # the first to exceed it: one that has weight
        shift = 1 + jnp.floor(p[1] * (arity - 1)).astype(jnp.int32)  # [D], in [1, arity)
        v = jnp.where(np.arange(D) == d, (v + shift) % np.maximum(arity, 1), v)
        if reals is None:
            return zero_inactive(v)
        return zero_inactive(v, cube.select(np.arange(D, D + R) == d, cube.from_unit(polynomial_mutation(k_real, u)), arch.reals))

    def crossover(key, a, b):
        first = jax.random.bernoulli(key, 0.5, (D + R,))
        return zero_inactive(jnp.where(first[:D], flat(a), flat(b)), cube.select(first[D:], values(a), values(b)))

    moved = np.repeat(np.arange(D), arity - 1)  # which decision each neighbor changes
    shift = np.concatenate([np.zeros(0, np.int32), *[np.arange(1, n) for n in arity]]).astype(np.int32)

    def neighbors(arch):
        discrete("neighbors")
        v = flat(arch)
        rows = jnp.where(moved[:, None] == np.arange(D)[None], (v[None] + shift[:, None]) % arity[None], v[None])
        return jax.vmap(zero_inactive)(rows)

    def features(arch):
        v = flat(arch)
        hot = jnp.zeros(int(start[-1]), jnp.float32).at[start[:-1] + v].set(on(v).astype(jnp.float32))
        return jnp.concatenate([hot, unit(arch)])

    def discrete(what):
        if reals is not None:
            raise ValueError(f"this space has real dimensions: `{what}` needs decisions only")

    def check_indexable():
        discrete("index")
        if raw_size >= 2**31:
            raise ValueError(f"this space has {raw_size} settings: `index` needs fewer than 2**31")

    def index(arch):
        check_indexable()
        return jnp.sum(flat(arch) * np.asarray(radix, np.int32))

    def from_index(i):
        check_indexable()
        if not isinstance(i, jax.core.Tracer) and not (np.asarray(i).dtype.kind in "iu" and 0 <= int(i) < raw_size):
            raise ValueError(f"an index into this space is an integer from 0 to {raw_size - 1}; got {described(i)}")
        digits = (jnp.asarray(i)[None] // np.asarray(radix, np.int32)) % arity
        return unflat(digits.astype(jnp.int32))

    def count(d):  # distinct settings of decision d and all it switches
        children = np.flatnonzero(parent == d)
        return sum(math.prod(count(c) for c in children if when[c, a]) for a in range(arity[d]))

    if gates is None or derive is None:
        chosen = (lambda arch: arch) if reals is None else (lambda arch: arch.decisions)
        one_hot = lambda a, n: jax.nn.one_hot(a, int(np.max(n)), dtype=jnp.float32)
        gates = lambda arch: jax.tree.map(one_hot, chosen(arch), decisions)
        derive = lambda soft: jax.tree.map(lambda row: jnp.argmax(row, -1).astype(jnp.int32), soft)
        gate_shapes = jax.tree.map(lambda n: (*np.shape(n), int(np.max(n))), decisions)

    def to_text(arch):
        text = "-".join(str(int(i)) for i in np.asarray(flat(arch)))
        if reals is None:
            return text
        values = [f"{v:.9g}" for leaf in jax.tree.leaves(arch.reals) for v in np.ravel(leaf)]
        return ";".join([text, ",".join(values)])

    def from_text(text):
        whole, _, real = text.partition(";")
        values = np.asarray([int(t) if t.strip().isdecimal() else -1 for t in whole.split("-") if t.strip() or D])
        wrong = values.shape != (D,) or (values < 0).any() or (values >= arity).any()
        try:
            numbers = np.asarray([float(t) for t in real.split(",") if t.strip()], np.float32)
        except ValueError:
            numbers = np.zeros(0)
        if wrong or numbers.shape != (R,) or not ((cube.low <= numbers) & (numbers <= cube.high)).all():
            limits = "-".join(str(n - 1) for n in arity)
            more = f", then ';' and {R} real values within their bounds, joined by ','" if R else ""
            raise ValueError(f"{text!r} is not in this space: give {D} numbers joined by '-', at most {limits}{more}")
        return zero_inactive(jnp.asarray(values, jnp.int32), cube.split(numbers))

    return Space(
        decisions=decisions,
        arity=arity,
        size=math.prod(count(d) for d in np.flatnonzero(parent < 0)) if reals is None else math.inf,
        flat=flat,
        unflat=unflat,
        unit=unit,
        active=lambda arch: on(flat(arch)),
        sample=sample,
        mutate=mutate,
        crossover=crossover,
        neighbors=neighbors,
        features=features,
        index=index,
        from_index=from_index,
        canonical=lambda arch: zero_inactive(flat(arch), values(arch)),
        gates=gates,
        derive=derive,
        gate_shapes=gate_shapes,
        to_text=to_text,
        from_text=from_text,
        reals=reals,
    )
