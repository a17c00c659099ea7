"""Kernels on architectures, each of them a correlation: positive semi-definite, k(x, x) = 1.

    overlap     exp(-d / l), d the decisions that differ; blind to isomorphism
    rbf         exp(-|x - x'|^2 / 2 l^2) on any encoding: `path_encoding`, `space.features`, `space.unit`
    matern52    (1 + s + s^2 / 3) exp(-s), s = sqrt(5) |x - x'| / l
    weisfeiler_lehman    Weisfeiler-Lehman subtree kernel on labelled graphs
    product     k1 k2 ..., for spaces of decisions and reals

Reference: Shervashidze et al., Weisfeiler-Lehman Graph Kernels, JMLR 12, 2011; on cells: Ru, Wan, Dong and Osborne,
Interpretable Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman Kernels, ICLR 2021,
arXiv:2006.07556.

    label_0(v) = operation;   label_t(v) = hash_t(label_t-1(v), multiset of label_t-1 over the nodes that v reads)
    k(G, G') = sum_t<=h <phi_t(G), phi_t(G')> / sqrt(the same of (G, G) and of (G', G')),   phi_t counts the labels of round t

Labels are 32-bit hashes with a salt for every round, and <phi, phi'> is the number of pairs of nodes with equal labels: exact
up to a collision of hashes, where a table of counts folded to a fixed width would merge labels for good.

Axes: D decisions, E edges and O operations of a cell, V nodes of a graph, H rounds of relabelling, G rows of a grid.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Arch
from jaxnas.checks import checked
from jaxnas.kinds import NonNegative, Positive, PositiveNumber
from jaxnas.spaces._space import Space
from jaxnas.spaces.cell import CellSpec
from jaxnas.trees import count


class Kernel(NamedTuple):
    """A family of kernels, one for each row of `grid`."""

    features: Callable[[Arch], Any]  # a pytree of arrays, computed once for each architecture
    value: Callable[[Any, Any, Any], jax.Array]  # (theta, features of a, features of b) -> k(a, b) []
    grid: Any  # pytree of theta's leaves with a leading axis G


def gram(kernel: Kernel, theta: Any, a: Any, b: Any) -> jax.Array:
    """k between all pairs of features a [N, ...] and b [M, ...] -> [N, M]."""
    return jax.vmap(lambda x: jax.vmap(lambda y: kernel.value(theta, x, y))(b))(a)


@checked
def lengths(low: PositiveNumber, high: PositiveNumber, n: Positive = 8) -> np.ndarray:
    """A grid of length scales, even on a logarithmic scale."""
    return np.geomspace(low, high, n)


def _positive(grid):
    grid = np.atleast_1d(np.asarray(grid, np.float64))
    if grid.ndim != 1 or grid.size == 0 or not (np.isfinite(grid) & (grid > 0)).all():
        raise ValueError(f"a grid of length scales holds at least one positive number; got {grid.tolist()}")
    return grid


@checked
def overlap(space: Space, grid: ArrayLike | None = None) -> Kernel:
    """exp(-d / l), d the decisions in which two architectures differ; one that is off differs from every value.

    Args:
        grid: length scales l, default 8 from 0.5 to 5 D.

    Raises:
        ValueError: for a space without decisions, or a length scale that is not positive.
    """
    D = len(space.arity)
    if D == 0:
        raise ValueError("the overlap kernel compares decisions and this space has none: use rbf or matern52 on space.unit")
    width = int(space.arity.sum())

    def features(arch):  # one-hot, and which decisions are off: then equal decisions are one dot product
        off = jnp.asarray(~space.active(arch), jnp.float32)
        return jnp.concatenate([space.features(arch)[:width], off])

    value = lambda length, a, b: jnp.exp((a @ b - D) / length)
    return Kernel(features, value, _positive(lengths(0.5, 5 * D) if grid is None else grid))


@checked
def rbf(encode: Callable[[Arch], jax.Array], grid: ArrayLike) -> Kernel:
    """The squared exponential kernel on encode(arch) -> float[F], for the length scales of the grid.

    Raises:
        ValueError: for a length scale that is not positive.
    """
    return Kernel(encode, lambda length, a, b: jnp.exp(-0.5 * jnp.sum((a - b) ** 2) / length**2), _positive(grid))


@checked
def matern52(encode: Callable[[Arch], jax.Array], grid: ArrayLike) -> Kernel:
    """The Matern kernel of smoothness 5/2 on encode(arch) -> float[F], for the length scales of the grid.

    Raises:
        ValueError: for a length scale that is not positive.
    """

    def value(length, a, b):
        s = jnp.sqrt(5 * jnp.sum((a - b) ** 2)) / length
        return (1 + s + s**2 / 3) * jnp.exp(-s)

    return Kernel(encode, value, _positive(grid))


@checked
def product(*kernels: Kernel) -> Kernel:
    """The product of kernels; its grid holds every combination of theirs.

    Raises:
        ValueError: for no kernel at all.
    """
    if not kernels:
        raise ValueError("a product needs at least one kernel")
    rows = np.indices([count(k.grid) for k in kernels]).reshape(len(kernels), -1)

    def value(theta, a, b) -> Any:
        return math.prod(k.value(*each) for k, *each in zip(kernels, theta, a, b, strict=True))

    return Kernel(
        features=lambda arch: tuple(k.features(arch) for k in kernels),
        value=value,
        grid=tuple(jax.tree.map(lambda g: np.asarray(g)[i], k.grid) for k, i in zip(kernels, rows, strict=True)),
    )


@checked
def path_encoding(space: Space) -> Callable[[Arch], jax.Array]:
    """arch -> float32[sum of O^length]: which sequences of operations lead from the input to the output of a cell.

    Reference: White, Neiswanger and Savani, BANANAS, AAAI 2021, arXiv:1910.11858.  A path through `none` does not exist, so
    O does not count it: 4 + 16 + 64 = 84 on NAS-Bench-201.  Node identity is dropped; shorter sequences come first.

    Raises:
        ValueError: for a space that is not one cell with one input.
    """
    spec = space.spec
    if not isinstance(spec, CellSpec) or spec.inputs != 1 or spec.kinds:
        raise ValueError("path encoding needs a space of one cell with one input, such as nasbench201()")
    real = np.asarray([name != "none" for name in spec.ops])
    code = np.cumsum(real) - 1  # of each operation
    base, n = int(real.sum()), spec.nodes
    starts = np.concatenate([[0], np.cumsum([base**length for length in range(1, n + 1)])])
    between = [c for r in range(n) for c in itertools.combinations(range(1, n), r)]  # the nodes that a path passes
    paths = [np.asarray([spec.first(i - 1) + j for j, i in itertools.pairwise((0, *c, n))]) for c in between]

    def encode(arch):
        rows = space.gates(arch)  # [E, O]
        op, on = jnp.argmax(rows, -1), jnp.sum(rows[:, real], -1) > 0
        found = jnp.zeros(int(starts[-1]), jnp.float32)
        for path in paths:
            digits = jnp.asarray(code)[op[path]] * base ** np.arange(len(path))[::-1]
            here = starts[len(path) - 1] + jnp.sum(digits)
            found = found.at[here].max(jnp.all(on[path]).astype(jnp.float32))
        return found

    return encode


class Graph(NamedTuple):
    label: jax.Array  # int32[V]
    reads: jax.Array  # int32[V, V]: how many edges lead to the row's node from the column's
    copies: jax.Array  # int32[V]: how often the node counts; 0: it does not


@checked
def cell_graph(space: Space) -> Callable[[Arch], Graph]:
    """arch -> Graph of its cells with an operation on every node, simplified as far as the network stays the same.

    Each operation of an edge becomes a node; `none` is dropped, and so are operations that get nothing or whose output is not
    used; skips are contracted, so that an edge may have a multiplicity.  A node counts once for every path from it to the
    output, as in the text of `jaxnas.spaces.nasbench201.expression`: a pool added to itself is two pools added.  The input is
    heard but does not count: the number of its paths would outweigh the operations.  A cell of one input returns its last node,
    one of several inputs all its computed nodes.  Several cells are one graph, with labels of their own.

    Raises:
        ValueError: for a space that has no cells.
    """
    spec = space.spec
    if not isinstance(spec, CellSpec):
        raise ValueError("this space has no cells with operations on their edges to make a graph of: give nasbench201() or darts()")
    n, inputs = spec.nodes, spec.inputs
    V = inputs + len(spec.edges) + 1  # the inputs, an operation on each edge, the output
    labels = inputs + len(spec.ops) + 1
    eye = np.eye(V, dtype=np.int32)
    skip = np.asarray([name == "skip_connect" for name in spec.ops])
    real = ~skip & np.asarray([name != "none" for name in spec.ops])

    def one(rows):  # gates [E, O]
        operates, skips = jnp.sum(rows[:, real], -1) > 0, jnp.sum(rows[:, skip], -1) > 0
        sums, reads = list(jnp.asarray(eye[:inputs])), [jnp.zeros((inputs, V), jnp.int32)]
        for i in range(n):  # sums: of each node of the cell, what it adds up
            edge = slice(spec.first(i), spec.first(i) + inputs + i)
            source = jnp.stack(sums)  # [inputs + i, V]
            alive = operates[edge] & jnp.any(source > 0, -1)
            sums.append(jnp.sum(jnp.where(skips[edge][:, None], source, eye[inputs:][edge] * alive[:, None]), 0))
            reads.append(source)
        output: Any = sums[-1] if inputs == 1 else sum(sums[inputs:])
        reads = jnp.concatenate([*reads, output[None]])  # [V, V]
        copies = jnp.asarray(eye[-1])
        for _ in range(n + 1):
            copies = eye[-1] + jnp.sum(reads * copies[:, None], 0)
        copies = copies * (np.arange(V) >= inputs)
        label = jnp.concatenate([jnp.arange(inputs), inputs + jnp.argmax(rows, -1), jnp.full(1, labels - 1)])
        return Graph(label.astype(jnp.int32), reads, copies)

    def graph(arch):
        if not spec.kinds:
            return one(space.gates(arch))
        cells = [one(getattr(space.gates(arch), kind)) for kind in spec.kinds]
        return Graph(
            label=jnp.concatenate([cell.label + i * labels for i, cell in enumerate(cells)]),
            reads=jax.scipy.linalg.block_diag(*[cell.reads for cell in cells]),
            copies=jnp.concatenate([cell.copies for cell in cells]),
        )

    return graph


def stir(x: jax.Array) -> jax.Array:
    """uint32 -> uint32, a bijection that stirs all bits (the finalizer of MurmurHash3)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def subtree_labels(graph: Graph, rounds: int) -> jax.Array:
    """uint32[H + 1, V]: the label of every node after each round."""
    labels = [stir(graph.label.astype(jnp.uint32))]
    for t in range(1, rounds + 1):
        salt = np.uint32(0x9E3779B9 * t % 2**32)
        heard = jnp.sum(graph.reads.astype(jnp.uint32) * stir(labels[-1] ^ salt)[None], -1, dtype=jnp.uint32)  # a multiset
        labels.append(stir(stir(labels[-1] + salt) + heard))
    return jnp.stack(labels)


@checked
def weisfeiler_lehman(graph: Callable[[Arch], Graph], rounds: NonNegative = 3) -> Kernel:
    """The Weisfeiler-Lehman subtree kernel, normalised; messages follow the edges (a node hears what it reads).

    Args:
        graph: arch -> Graph, such as `cell_graph(space)`.
        rounds: the most rounds of relabelling, default 3; the grid is h = 0 .. rounds.

    Raises:
        ValueError: for a negative number of rounds.
    """
    if rounds < 0:
        raise ValueError(f"a graph is relabelled 0 times or more; got rounds={rounds}")

    def common(a, b):  # -> float32[H + 1]: pairs of nodes with equal labels, after each round
        equal = a[0][:, :, None] == b[0][:, None, :]
        return jnp.sum(jnp.where(equal, (a[1][:, None] * b[1][None])[None], 0), (1, 2)).astype(jnp.float32)

    def features(arch):
        g = graph(arch)
        counted = subtree_labels(g, rounds), g.copies
        return *counted, common(counted, counted)

    def value(upto, a, b):  # upto: 1 for the rounds that count, else 0
        return (upto @ common(a, b)) / jnp.sqrt((upto @ a[2]) * (upto @ b[2]))

    return Kernel(features, value, np.tri(rounds + 1))
