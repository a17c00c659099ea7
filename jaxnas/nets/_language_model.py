"""Language models of a recurrent cell of DARTS or ENAS: the supernet, and the network of one cell.

References: Liu, Simonyan and Yang, DARTS, ICLR 2019, arXiv:1806.09055, section 3.1.2; its variational dropout is Gal and
Ghahramani's (2016, arXiv:1512.05287), its temporal activation regulariser Merity, Keskar and Socher's (2018, arXiv:1708.02182);
Pham et al., ENAS, ICML 2018, arXiv:1802.03268, section 2.1.

    [c, a] = [x_t, h_{t-1}] W_0       s_0 = h_{t-1} + sigmoid(c) (tanh(a) - h_{t-1})
    [c, a] = s_j W_i                  s_i = sum over j < i and operations f of  gate(j, i, f) (s_j + sigmoid(c) (f(a) - s_j))
    h_t    = mean_i s_i               logits_t = h_t D + b,  D the transposed embedding if tied

for nodes i = 1 .. N; W_i belongs to the node and is shared by all the edges into it, so that every cell has weights of one
shape.  With `norms` s_0 and every s_i are normalised over the batch, at each time step, without scale and shift: the search
net.  The published code has one running mean and variance for all of them, moved at each; here each state has its own, moved
once a window by the mean over its time steps.

ENAS differs in two lines, and in both there is one cell, no mixture: with `private` the supernet has a matrix W_ijf for each edge
and operation, of which a cell takes N; with `loose_ends` h_t is the mean of those s_i alone that no other node of the cell reads.

The hidden state is kept in variables["carry"]["hidden"], as statistics are: a window goes on from the one before unless its
`first` is set, and gradients stop there.  It moves in evaluation, too; an architecture step drops it.  With `train` the
regulariser beta mean((h_t - h_{t-1})^2) is in variables["losses"]["tar"], to be added to the loss.

Defaults are the published search's: rates of dropout, beta and U(-0.04, 0.04) for all weights, biases 0.

Axes: B parallel streams, T tokens, V vocabulary, X embedding, H units, N nodes, E edges, O operations, F of them real.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxnas.checks import checked
from jaxnas.data.text import Tokens
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber, Precision, ProbabilityBelowOne
from jaxnas.nets.base import Gates, Net, blank_gates, linen, mask
from jaxnas.nets.precision import check_precision
from jaxnas.nets.recurrent_cell import ACTIVATIONS
from jaxnas.spaces._space import Space
from jaxnas.spaces.cell import CellSpec

MOMENTUM, EPSILON = 0.9, 1e-5  # of the norms


class Dropouts(NamedTuple):
    """Rates, each with one mask for all the time steps of a window.  The defaults are those of the published search."""

    words: ProbabilityBelowOne = 0.0  # whole words, wherever they occur (0.1 to train the found cell)
    embedded: ProbabilityBelowOne = 0.2  # the embedded words
    x: ProbabilityBelowOne = 0.75  # the cell's input
    h: ProbabilityBelowOne = 0.25  # what the matrices of the cell read of h_{t-1} and of every state
    output: ProbabilityBelowOne = 0.75  # what the decoder reads


class DropoutMasks(NamedTuple):
    """0, or 1 / (1 - rate), of each of the `Dropouts`."""

    words: jax.Array  # [V, 1]; all of them [1, ...] where nothing is dropped
    embedded: jax.Array  # [B, 1, X]
    x: jax.Array  # [B, 1, X]
    h: jax.Array  # [B, H]
    output: jax.Array  # [B, 1, H]


Moments = Any  # (mean [H], variance [H]) of one state; () without norms
Normalise = Callable[[int, jax.Array], tuple[jax.Array, Moments]]  # (i, s [B, H]) -> (state i normalised, its moments)

SEARCH_DROPOUT, NO_DROPOUT = Dropouts(), Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)


class LanguageModel(nn.Module):
    """(Tokens(tokens [B, T], first []), gates [E, O]) -> logits [B, T, V]; with a `choice` the network of one cell."""

    spec: CellSpec
    vocabulary: int
    batch: int
    hidden: int
    embedding: int
    dropouts: Dropouts
    beta: float
    tied: bool
    norms: bool
    uniform: float
    private: bool
    loose_ends: bool
    precision: Precision = "float32"  # of embedded words and states; float32: that of the weights, which may be wider
    choice: tuple[tuple[str, int], ...] | None = None  # (operation, what is read) of each node

    @property
    def real(self) -> tuple[int, ...]:
        """The columns of the gates that a cell can choose."""
        return tuple(k for k, name in enumerate(self.spec.ops) if name != "none")

    def entering(self, i: int) -> slice:
        """The edges into node i."""
        return slice(self.spec.first(i), self.spec.first(i) + i + 1)

    @nn.compact
    def __call__(self, x: Tokens, gates: Gates = None, *, train: bool = False, path: bool = False) -> jax.Array:
        N, H, X, V = self.spec.nodes, self.hidden, self.embedding, self.vocabulary
        draw = lambda key, shape: jax.random.uniform(key, shape, minval=-self.uniform, maxval=self.uniform)
        table = self.param("embedding", draw, (V, X))
        wide = table.dtype
        dtype = wide if self.precision == "float32" else jnp.dtype(self.precision)
        into = self.param("start", draw, (X + H, 2 * H)).astype(dtype)  # W_0
        private = self.private and self.choice is None
        each = (len(self.spec.edges), len(self.real)) if private else (N,)
        between = self.param("nodes", draw, (*each, H, 2 * H)).astype(dtype)  # W_1 .. W_N
        decoder = table if self.tied else self.param("decoder", draw, (V, H))
        bias = self.param("bias", nn.initializers.zeros, (V,))
        carry = self.variable("carry", "hidden", jnp.zeros, (self.batch, H), wide)
        B = x.tokens.shape[0]
        if carry.value.shape[0] != B:
            raise ValueError(f"the hidden state is that of {carry.value.shape[0]} streams, and the tokens of {B}: make them alike")

        masks = self.masks(train, dtype, ((V, 1), (B, 1, X), (B, 1, X), (B, H), (B, 1, H)))
        embedded = (table.astype(dtype) * masks.words)[x.tokens] * masks.embedded * masks.x  # [B, T, X]
        normalise, keep = self.norm(train, B, wide)
        rows: Any = None if gates is None else gates[:, np.asarray(self.real)].astype(dtype)  # [E, F]
        w, heard = list(between), self.heard(rows)
        if private:  # of the edge and the operation that are chosen
            w = [between[e].reshape(-1, H, 2 * H)[jnp.argmax(rows[e] != 0)] for e in map(self.entering, range(N))]

        def step(h, from_x):
            """One time step: from_x [B, 2 H], x_t's part of [x_t, h] W_0."""
            c, a = jnp.split(from_x + (h * masks.h) @ into[X:], 2, -1)
            s, moment = normalise(0, h + nn.sigmoid(c) * (jnp.tanh(a) - h))
            states, moments = [s], [moment]
            for i in range(N):
                s, moment = normalise(i + 1, self.node(i, states, w[i], masks.h, rows, path))
                states.append(s)
                moments.append(moment)
            read: Any = sum(on * s for on, s in zip(heard, states[1:], strict=True))
            h = read / sum(heard)
            return h, (h, moments)

        start = jnp.where(x.first, 0, lax.stop_gradient(carry.value)).astype(dtype)
        last, (h, moments) = lax.scan(step, start, (embedded @ into[:X]).swapaxes(0, 1))  # h [T, B, H]
        if not self.is_initializing():
            carry.value = last.astype(wide)
            if train:
                keep(moments)
                change = jnp.sum(jnp.square(h[1:] - h[:-1]), dtype=wide) / max(h[1:].size, 1)
                self.put_variable("losses", "tar", self.beta * change)
        seen = h.swapaxes(0, 1) * masks.output
        return jnp.matmul(seen, decoder.astype(dtype).T, preferred_element_type=wide) + bias[None, None]

    def node(self, i: int, states: list[jax.Array], w: jax.Array, mask: jax.Array, gates: Gates, path: bool) -> jax.Array:
        """What node i makes of states 0 .. i, each [B, H]."""
        if self.choice is not None:
            name, j = self.choice[i]
            c, a = jnp.split((states[j] * mask) @ w, 2, -1)
            return states[j] + nn.sigmoid(c) * (ACTIVATIONS[name](a) - states[j])
        rows, s = gates[self.entering(i)], jnp.stack(states)  # [i + 1, F], [i + 1, B, H]
        if path:  # the one state that is read
            j = jnp.argmax(jnp.sum(rows != 0, -1))
            rows, s = rows[j][None], s[j][None]
        c, a = jnp.split((s * mask[None]) @ w, 2, -1)
        weight = lambda row: row[:, None, None]
        chosen = sum(weight(rows[:, n]) * ACTIVATIONS[self.spec.ops[k]](a) for n, k in enumerate(self.real))
        c = nn.sigmoid(c)
        return jnp.sum(weight(jnp.sum(rows, -1)) * (1 - c) * s + c * chosen, 0)

    def heard(self, gates: Gates) -> Sequence[jax.Array | float]:
        """What each node's state weighs in the output, before it is divided by the sum: [N] numbers of 0 or 1."""
        nodes = range(1, self.spec.nodes + 1)
        if not self.loose_ends:
            return [1.0] * len(nodes)
        if self.choice is not None:
            return [float(j not in [read for _, read in self.choice]) for j in nodes]
        return [1 - jnp.any(gates[np.asarray(self.spec.leaving(j), int)] != 0).astype(gates.dtype) for j in nodes]

    def masks(self, train: bool, dtype: DTypeLike, shapes: Sequence[tuple[int, ...]]) -> DropoutMasks:
        """0, or 1 / (1 - rate), for each kind of dropout."""
        keys = [None] * len(shapes)
        if train and self.has_rng("dropout"):
            keys = jax.random.split(self.make_rng("dropout"), len(shapes))

        def mask(key, rate, shape):
            if key is None or not rate:
                return jnp.ones((1,) * len(shape), dtype)
            return jax.random.bernoulli(key, 1 - rate, shape).astype(dtype) / (1 - rate)

        return DropoutMasks(*map(mask, keys, self.dropouts, shapes))

    def norm(self, train: bool, B: int, dtype: DTypeLike) -> tuple[Normalise, Callable[[list[Moments]], None]]:
        """(the norm of state i, (i, s [B, H]) -> (s, its moments), what moves the running ones by those of all time steps)."""
        if not self.norms:
            return lambda i, s: (s, ()), lambda moments: None
        shape = (self.spec.nodes + 1, self.hidden)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, dtype)
        var = self.variable("batch_stats", "var", jnp.ones, shape, dtype)
        running = mean.value, var.value

        def normalise(i, s):
            out, s = s.dtype, s.astype(dtype)
            m, v = (jnp.mean(s, 0), jnp.var(s, 0)) if train else (running[0][i], running[1][i])
            return ((s - m[None]) * lax.rsqrt(v + EPSILON)[None]).astype(out), (m, v)

        def keep(moments):
            m, v = (lax.stop_gradient(jnp.stack([jnp.mean(moment[n], 0) for moment in moments])) for n in (0, 1))
            mean.value = MOMENTUM * mean.value + (1 - MOMENTUM) * m
            var.value = MOMENTUM * var.value + (1 - MOMENTUM) * v * (B / max(B - 1, 1))

        return normalise, keep


@checked
def language_model(
    space: Space,
    *,
    vocabulary: Positive,
    batch: Positive,
    hidden: Positive = 300,
    embedding: Positive | None = None,
    dropouts: Dropouts | None = SEARCH_DROPOUT,
    beta: NonNegativeNumber = 1e-3,
    tied: bool = True,
    norms: bool = True,
    uniform: PositiveNumber = 0.04,
    private: bool = False,
    loose_ends: bool = False,
    precision: Precision = "float32",
) -> Net:
    """The supernet of a recurrent space; without norms, and at the gates of one cell, the network that is trained at the end.

    x is `Tokens`, y its targets [B, T].  `specialize(arch)` gives the plain network of one cell, whose variables are the
    supernet's, private ones those of its edges: module.apply(variables, x, train=, rngs={"dropout": key}, mutable=["batch_stats",
    "carry", "losses"]).  DARTS trains its found cell with hidden = 850, norms = False and Dropouts(words=0.1).

    Args:
        space: `darts_rnn(...)` or `enas_rnn(...)`.
        vocabulary: V.
        batch: B, of the hidden state that `init` makes; give variables another state of zeros to run other sizes.
        hidden: H.
        embedding: X, default H.
        dropouts: rates, in force where `train` is set and there is a key; None: no dropout.
        beta: weight of the temporal activation regulariser.
        tied: the decoder is the embedding.
        norms: as the search has them.
        uniform: bound of the weights' initial values.
        private: a matrix for each edge and operation, as ENAS searches; default: one a node, as DARTS does and cells are trained.
        loose_ends: the output is the mean of the nodes that no other one reads, as ENAS has it; default: of all nodes.
        precision: "bfloat16" has embedded words, states and the products with weights in bfloat16; weights, norms, the hidden
            state that is kept and logits stay float32 (`jaxnas.nets.with_precision`).

    Raises:
        ValueError: for a space of other cells, sizes below 1, a rate outside [0, 1), a negative beta or bound, a tied
            decoder where X is not H, or an unknown precision.
    """
    check_precision(precision)
    embedding = hidden if embedding is None else embedding
    dropouts = NO_DROPOUT if dropouts is None else Dropouts(*dropouts)
    spec = space.spec
    if not isinstance(spec, CellSpec) or spec.inputs != 1 or not set(spec.ops) - {"none"} <= set(ACTIVATIONS):
        raise ValueError(f"a language model needs a space of `darts_rnn(...)`, of operations {', '.join(ACTIVATIONS)} and none")
    if not all(0 <= rate < 1 for rate in dropouts):
        raise ValueError(f"a rate of dropout is in [0, 1): got {dropouts}")
    if beta < 0 or uniform <= 0:
        raise ValueError(f"beta must not be negative, and uniform positive: got {beta} and {uniform}")
    if tied and embedding != hidden:
        raise ValueError(f"a tied decoder needs as many units as the embedding has: got {hidden} and {embedding}, or tied=False")
    sizes = spec, vocabulary, batch, hidden, embedding
    module = LanguageModel(*sizes, dropouts, beta, tied, norms, uniform, private, loose_ends, precision)
    real = np.asarray(module.real)

    def init(key, gates=None) -> Any:
        del gates  # every cell has all the weights
        x = Tokens(jnp.zeros((batch, 1), jnp.int32), jnp.asarray(True))
        return module.init(key, x, blank_gates(space))

    def compute(variables, x, gates, t, *, mutable, **how):
        del t  # nothing anneals
        more = ["carry", "losses"] if how["train"] else ["carry"]
        return module.apply(variables, x, gates, mutable=[*mutable, *more], **how)

    def used(variables, gates):
        each = gates[:, real] != 0  # [E, F]
        on = jnp.stack([jnp.any(each[module.entering(i)]) for i in range(spec.nodes)])
        states = jnp.concatenate([jnp.ones(1, bool), on])
        rows = {"nodes": each if private else on, "mean": states, "var": states}

        return mask(lambda names, v: rows.get(names[-1], jnp.ones(1)), variables)  # of everything else, all

    def specialize(arch):
        op, previous = np.asarray(arch.op), np.asarray(arch.previous)
        edges = np.asarray([spec.first(i) for i in range(spec.nodes)]) + previous

        def extract(variables):
            params = variables["params"]
            return {**variables, "params": {**params, "nodes": params["nodes"][edges, op]}}

        return module.clone(choice=space.choice(arch)), extract if private else lambda variables: variables

    mixes = not (private or loose_ends)
    net = linen(module, space, (), vocabulary, used=used, specialize=specialize, compute=compute, mixes=mixes)  # no image
    return net._replace(init=init)
