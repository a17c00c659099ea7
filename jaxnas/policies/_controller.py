"""The LSTM controller: an autoregressive policy over a space's tokens, with attention for skip connections.

Reference: Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv:1611.01578; the tanh
constant, the temperature and what is read after a layer's skips are ENAS's (Pham et al., ICML 2018, arXiv:1802.03268).

    h_0 = LSTM(start),   a_d ~ softmax(c tanh(W_d h_d / T)),   h_d+1 = LSTM(E_d[a_d], h_d)

A token of `anchors` is a skip bit instead.  The anchor of a layer is the state that has read the layer's last token k;
at the anchor h_i of its own layer, without moving the LSTM, the bit of an earlier layer j is

    P(j feeds i) = sigmoid(v^T tanh(W_prev h_j + W_curr h_i)),   next input = sum of the chosen h_j / (1 + their number)

A decision that is not active can only be 0, so that it adds nothing to log p and to the entropy.

Defaults: 2 layers of 35 units, weights U[-0.08, 0.08], no biases, no tanh, T = 1 (Zoph and Le).  NASNet: 1 layer of 100
units, U[-0.1, 0.1].

Axes: D tokens, A the largest arity, H units, L layers, M paths.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpy.typing import ArrayLike

from jaxnas.checks import checked, described
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.policies._categorical import options, score
from jaxnas.policies.policy import Policy
from jaxnas.spaces._space import Space


@checked
def controller(
    space: Space,
    hidden: Positive = 35,
    layers: Positive = 2,
    *,
    scale: PositiveNumber = 0.08,
    kind: ArrayLike | None = None,
    anchors: ArrayLike | None = None,
    temperature: PositiveNumber = 1.0,
    tanh: ArrayLike | None = None,
    paths: Positive = 1,
) -> Policy:
    """An LSTM that emits the space's decisions in field order; an action is an architecture.

    Args:
        space: its decisions, conditional or not.
        hidden: H, also the size of the embeddings.
        layers: L.
        scale: the weights start uniform in [-scale, scale].
        kind: int[D]; tokens of equal number share a head and an embedding table; default: each its own.
        anchors: int[D]; k makes the token the skip bit from the layer that ends with token k, -1 leaves it ordinary; the
            bits of a layer follow its last token.  Default: no skip bits.
        temperature: T, divides the logits.
        tanh: c, one number or float[D], bounds the logits; default: unbounded.
        paths: M, architectures a draw.

    The architecture is derived by greedy decoding.

    Raises:
        ValueError: for a space with real dimensions, sizes below 1, `kind` of another length than D, or `anchors` that
            name a token which is no earlier layer's, or a bit that has not two values.
    """
    legal = options(space)
    (D, A), H = legal.shape, hidden
    if kind is not None and (np.shape(kind) != (D,) or np.asarray(kind).dtype.kind not in "iu" or np.min(kind) < 0):
        raise ValueError(f"`kind` must number each of the {D} tokens by integers of at least 0; got {described(kind)}")
    kind = np.arange(D) if kind is None else np.unique(kind, return_inverse=True)[1]
    if tanh is not None and (np.shape(tanh) not in ((), (D,)) or not (np.isfinite(tanh) & (np.asarray(tanh) > 0)).all()):
        raise ValueError(f"`tanh` must be a positive number, or one for each of the {D} tokens; got {described(tanh)}")
    source, bit = _skips(space, anchors)
    inner = bit & np.concatenate([[False], bit[:-1]])  # the LSTM does not move between the bits of one layer
    bound = None if tanh is None else np.broadcast_to(np.asarray(tanh, np.float32), D)
    shapes = {"start": (H,), "embed": (kind.max() + 1, A, H), "lstm": (layers, 2 * H, 4 * H), "head": (kind.max() + 1, H, A)}
    if bit.any():
        shapes |= {"previous": (H, H), "current": (H, H), "v": (H,)}
    start, unravel = ravel_pytree({name: jnp.zeros(shape) for name, shape in shapes.items()})

    def init(key):  # in one draw
        return unravel(jax.random.uniform(key, start.shape, minval=-scale, maxval=scale))

    def unroll(theta, choose, given):
        """(tokens [D], logits [D, A]); token d is choose(logits_d, given_d)."""

        def one(carry, xs):
            (x, state, tokens, (states, total, count)), (d, given, embed, head) = carry, xs
            is_bit = jnp.asarray(bit)[d]
            moved = lstm(theta["lstm"], x, state)
            state = jax.tree.map(lambda old, new: jnp.where(jnp.asarray(inner)[d], old, new), state, moved)
            h = state[0][-1]
            logits = h @ head
            anchor = None
            if bit.any():
                states = states.at[d].set(h)
                anchor = states[jnp.asarray(source)[d] + 1]
                q = theta["v"] @ jnp.tanh(theta["previous"] @ anchor + theta["current"] @ h)
                logits = jnp.where(is_bit, q * (np.arange(A) - 0.5), logits)
            logits = logits / temperature
            if tanh is not None:
                logits = jnp.asarray(bound)[d] * jnp.tanh(logits)
            on = space.active(space.unflat(tokens))[d]  # parents come before their children
            logits = jnp.where(jnp.where(on, jnp.asarray(legal)[d], np.arange(A) == 0), logits, -jnp.inf)
            token = choose(logits, given)
            x = embed[token]
            if anchor is not None:
                add = jnp.where(is_bit, token, 0)
                total = jnp.where(is_bit, total, 0) + add * anchor
                count = jnp.where(is_bit, count, 0) + add
                x = jnp.where(is_bit, total / (1 + count), x)
            return (x, state, tokens.at[d].set(token), (states, total, count)), logits

        state = (jnp.zeros((layers, H)), jnp.zeros((layers, H)))
        memory = (jnp.zeros((D, H)), jnp.zeros(H), jnp.zeros((), jnp.int32)) if bit.any() else (None, None, None)
        tables = (theta["embed"][kind], theta["head"][kind])
        first = (theta["start"], state, jnp.zeros(D, jnp.int32), memory)
        (_, _, tokens, _), logits = jax.lax.scan(one, first, (jnp.arange(D), given, *tables))
        return tokens, logits

    return emitting(space, init, unroll, (paths, D, A))


def emitting(space: Space, init: Callable, unroll: Callable, shape: tuple[int, int, int]) -> Policy:
    """The policy of a network that emits tokens one by one, each from logits that depend on those before.

    Args:
        space: what the tokens mean.
        init: key -> theta.
        unroll: (theta, choose, given [D, ...]) -> (tokens [D], logits [D, A]); token d is choose(logits_d, given_d).
        shape: M, D and A; M architectures a draw.
    """

    def best(logits, noise):
        return jnp.argmax(logits + noise).astype(jnp.int32)

    def sample(key, theta, t):
        del t  # nothing anneals
        noise = jax.random.gumbel(key, shape)
        return jax.vmap(lambda noise: space.unflat(unroll(theta, best, noise)[0]))(noise)

    def log_prob(theta, arch):
        tokens = space.flat(arch)
        return score(unroll(theta, lambda logits, token: token, tokens)[1], tokens)

    def derive(theta):
        return space.unflat(unroll(theta, best, jnp.zeros(shape[1:]))[0])

    return Policy(init, sample, space.gates, log_prob, derive, True)


def lstm(w: jax.Array, x: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """One step, without biases: weights [L, 2H, 4H], input [H], state (h, c) of [L, H] each -> the next state."""
    new = []
    for weights, h, c in zip(w, *state, strict=True):
        i, f, o, g = jnp.split(jnp.concatenate([x, h]) @ weights, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        x = jax.nn.sigmoid(o) * jnp.tanh(c)
        new.append((x, c))
    h, c = (jnp.stack(part) for part in zip(*new, strict=True))
    return h, c


def _skips(space, anchors):
    """(source int[D], bit bool[D]) of the skip bits."""
    D = len(space.arity)
    source = np.full(D, -1) if anchors is None else np.asarray(anchors)
    bit = source >= 0
    if source.shape != (D,):
        raise ValueError(f"`anchors` says of each of the {D} tokens which layer it reads, or -1; got shape {source.shape}")
    for d in np.flatnonzero(bit):
        last = np.flatnonzero(~bit[:d]).max(initial=-1)  # the last token of the bit's own layer
        if space.arity[d] != 2 or source[d] >= last or bit[source[d]]:
            raise ValueError(
                f"token {d} cannot be a skip bit of token {source[d]}: it needs 2 values, and an earlier layer's last token"
            )
    return source, bit
