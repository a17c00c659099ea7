"""ENAS's controller of cells of blocks: an LSTM that points at the states it has built, and leans towards separable convolutions.

Reference: Pham, Guan, Zoph, Le and Dean, ENAS, ICML 2018, arXiv:1802.03268; the biases, and what the LSTM reads and when, are
those of the authors' code.

    a cell    h_0 = LSTM(start), h_1 = LSTM(start): its two inputs
    a block   in, in, op, op, each after one step of the LSTM; one more step gives the state h_j of the block itself
        P(in = j)  ~  exp c tanh(u_j / T),       u_j = v^T tanh(W_prev h_j + W_curr h),   j < 2 + b
        P(op = o)  ~  exp(c' tanh((w_o^T h + b_o) / T) + f_o)
    next input: start before a block; h_j after an input that is a block, 0 after one that is an input of the cell; E[o] after an
    operation

b is learnt, and starts at 10 for the operations favoured and at 0 for the others; f is not learnt: 0.25 for the favoured and -0.25
for the others in the first cell, and 0 in the second, which goes on from the first one's state but sees nothing of its blocks.
How a block combines its sides, where that is a decision (not in ENAS), follows its operations, with logits like theirs of a
head of its own, without biases and with the constant c.

So at initialisation, as E and W are small, a favoured operation is e^(0.44 + 0.5) = 2.6 times as likely as another one in the
first cell, and e^0.44 = 1.6 times in the second.  tanh is flat at 10: what moves these odds is w_o, not b_o.

Axes: D decisions, A the largest arity, B blocks, K decisions of a block, O operations, H units, L layers, M paths.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber
from jaxnas.policies._categorical import options
from jaxnas.policies._controller import emitting, lstm
from jaxnas.policies.policy import Policy
from jaxnas.spaces._space import Space
from jaxnas.spaces.blocks import SEPARABLE, TwoCells


@checked
def block_controller(
    space: Space,
    hidden: Positive = 64,
    layers: Positive = 1,
    *,
    scale: PositiveNumber = 0.1,
    tanh: PositiveNumber = 1.1,
    op_tanh: PositiveNumber = 0.44,
    temperature: PositiveNumber = 1.0,
    favoured: tuple[str, ...] | None = None,
    learnt: NonNegativeNumber = 10.0,
    fixed: NonNegativeNumber = 0.25,
    paths: Positive = 1,
) -> Policy:
    """An LSTM that emits two cells block by block; an action is an architecture.  The defaults are those published.

    Args:
        space: of two cells of blocks, such as `enas_micro`.
        hidden: H, also the size of the embeddings.
        layers: L.
        scale: the weights start uniform in [-scale, scale].
        tanh: c, bounds the logits of inputs.
        op_tanh: c', bounds those of operations, before f is added.
        temperature: T, divides the logits.
        favoured: operations by name; default: the separable convolutions of the space.
        learnt: where b starts for the operations favoured.
        fixed: f in the first cell, for the favoured; its negative for the others.
        paths: M, architectures a draw.

    The architecture is derived by greedy decoding.

    Raises:
        ValueError: for a space of another kind, sizes below 1, or a favoured operation that the space does not have.
    """
    if not isinstance(space.decisions, TwoCells):
        raise ValueError("this controller builds two cells of blocks: give a space such as `enas_micro()`, or take `controller`")
    legal, ops, H = options(space), space.spec.ops, hidden
    D, A = legal.shape
    odd = sorted(set(favoured or ()) - set(ops))
    if odd:
        raise ValueError(f"the space has no operation {', '.join(odd)} to favour: choose among {', '.join(ops)}")
    likes = np.asarray([name in (SEPARABLE if favoured is None else favoured) for name in ops])
    place = _places(space.decisions)  # [2, B, K]
    back = np.argsort(place.reshape(-1))
    _, B, K = place.shape
    tilts = np.stack([np.where(likes, fixed, -fixed), np.zeros(len(ops))])  # f of the two cells
    shapes = {"start": (H,), "embed": (len(ops), H), "lstm": (layers, 2 * H, 4 * H), "head": (H, len(ops))}
    shapes |= {"previous": (H, H), "current": (H, H), "v": (H,)}
    if K > 4:
        ways = len(space.spec.combine)
        shapes |= {"combine_embed": (ways, H), "combine_head": (H, ways)}
    start, unravel = ravel_pytree({name: jnp.zeros(shape) for name, shape in shapes.items()})

    def init(key):  # in one draw
        weights = unravel(jax.random.uniform(key, start.shape, minval=-scale, maxval=scale))
        return {**weights, "bias": jnp.asarray(learnt * likes, start.dtype)}

    def bounded(logits, c):
        return c * jnp.tanh(logits / temperature)

    def block(theta, choose, tilt, carry, xs):
        """One block: (state, W_prev h_j, h_j), (b, legal [K, A], given [K, ...]) -> the same, (tokens [K], logits [K, A])."""
        state, queries, anchors = carry
        b, legal, given = xs
        x, tokens, rows = theta["start"], [], []
        for k in range(K):
            state = lstm(theta["lstm"], x, state)
            h = state[0][-1]
            if k < 2:
                logits = bounded(jnp.tanh(queries + (theta["current"] @ h)[None]) @ theta["v"], tanh)  # [B + 1]
            elif k < 4:
                logits = bounded(h @ theta["head"] + theta["bias"], op_tanh) + tilt
            else:
                logits = bounded(h @ theta["combine_head"], tanh)
            logits = jnp.where(legal[k], jnp.pad(logits, (0, A - len(logits))), -jnp.inf)
            token = choose(logits, given[k])
            x = anchors[token] if k < 2 else theta["embed" if k < 4 else "combine_embed"][token]
            tokens.append(token)
            rows.append(logits)
        state = lstm(theta["lstm"], x, state)
        h = state[0][-1]
        queries = queries.at[2 + b].set(theta["previous"] @ h, mode="drop")  # nothing reads the last block
        return (state, queries, anchors.at[2 + b].set(h, mode="drop")), (jnp.stack(tokens), jnp.stack(rows))

    def cell(theta, choose, state, xs):
        """One cell: the state, (f [O], legal [B, K, A], given [B, K, ...]) -> the state, (tokens [B, K], logits [B, K, A])."""
        tilt, legal, given = xs
        queries = jnp.zeros((B + 1, H))
        for j in range(2):
            state = lstm(theta["lstm"], theta["start"], state)
            queries = queries.at[j].set(theta["previous"] @ state[0][-1])
        one = functools.partial(block, theta, choose, tilt)
        carry, out = jax.lax.scan(one, (state, queries, jnp.zeros((B + 1, H))), (jnp.arange(B), legal, given))
        return carry[0], out

    def unroll(theta, choose, given):
        """(tokens [D], logits [D, A]); token d is choose(logits_d, given_d)."""
        state = (jnp.zeros((layers, H)), jnp.zeros((layers, H)))
        xs = (jnp.asarray(tilts, start.dtype), jnp.asarray(legal[place]), given[place])
        _, (tokens, logits) = jax.lax.scan(functools.partial(cell, theta, choose), state, xs)
        return tokens.reshape(D)[back], logits.reshape(D, A)[back]

    return emitting(space, init, unroll, (paths, D, A))


def _places(cells: TwoCells) -> np.ndarray:
    """int[2, B, K]: where in `space.flat` the decisions of a block are, in the order in which they are made."""
    leaves, tree = jax.tree.flatten(cells)
    ends = np.cumsum([np.size(leaf) for leaf in leaves])
    numbers = [np.arange(end - np.size(leaf), end).reshape(np.shape(leaf)) for leaf, end in zip(leaves, ends, strict=True)]
    of_block = lambda cell: [cell.input, cell.op] + ([] if cell.combine is None else [cell.combine[:, None]])
    return np.stack([np.concatenate(of_block(cell), 1) for cell in tree.unflatten(numbers)])
