"""Ensembles of networks as surrogates: their mean, and as uncertainty how much they disagree.

References: White, Neiswanger and Savani, BANANAS, AAAI 2021, arXiv:1910.11858; Liu et al., Progressive Neural Architecture
Search, ECCV 2018, arXiv:1712.00559.

    member m:  minimise  sum_i |f_m(x_i) - y_i|  by Adam, in shuffled batches of what was told (or of its share)
    mean(x) = mean_m f_m(x),   std(x) = std_m f_m(x)

BANANAS: 5 perceptrons of 10 layers of 20 units on the path encoding, 150 epochs at 0.01, drawn anew at every fit.
PNAS: 5 predictors of a cell's tokens that keep training, at 0.01 and then 0.002, each on 4/5 of the data.

Axes: M members, N capacity, B blocks, E embedding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Arch
from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.spaces._space import Space
from jaxnas.spaces.blocks import BlockSpec
from jaxnas.surrogates.surrogate import Surrogate
from jaxnas.trees import take


class EnsembleState(NamedTuple):
    params: Any  # [M, ...]
    moments: Any  # [M, ...] of Adam
    fits: jax.Array  # int32[]


@checked
def ensemble(
    module: nn.Module,
    encode: Callable[[Arch], Any],
    *,
    members: Positive = 5,
    epochs: Positive = 150,
    batch: Positive = 32,
    rate: PositiveNumber = 0.01,
    later_rate: PositiveNumber | None = None,
    folds: bool = False,
) -> Surrogate:
    """An ensemble of networks that differ in their draw and in the order of their data.

    Args:
        module: a Flax module, what `encode` gives -> [].
        encode: arch -> the module's input, such as `path_encoding(space)` or `space.features`.
        members: M, default 5.
        epochs: passes over the data at each fit, default 150.
        batch: default 32.
        rate: Adam's step size, default 0.01.
        later_rate: the members keep training from fit to fit, at this rate from the second on; default: drawn anew.
        folds: member m leaves out every M-th row, beginning with the m-th; default: all see everything.

    Raises:
        ValueError: for sizes below 1 or rates that are not positive, folds of fewer than 2 members included.
    """
    if min(members, epochs, batch) < 1 or not rate > 0 or (later_rate is not None and not later_rate > 0):
        raise ValueError(f"an ensemble needs positive sizes and rates; got {members=}, {epochs=}, {batch=}, {rate=}, {later_rate=}")
    if folds and members < 2:
        raise ValueError("each member of an ensemble with folds leaves one out: give it at least 2 members")
    adam = optax.scale_by_adam()

    def draw(key, x):
        params = jax.vmap(lambda k: module.init(k, x)["params"])(jax.random.split(key, members))
        return params, jax.vmap(adam.init)(params)

    def init(key, archs):
        x = encode(take(archs, 0))
        params, moments = draw(key, x)
        return EnsembleState(params, moments, jnp.zeros((), jnp.int32))

    def fit(key, model, archs, y, mask):
        k_draw, k_order = jax.random.split(key)
        x = jax.tree.map(jnp.asarray, jax.vmap(encode)(archs))
        fresh = draw(k_draw, take(x, 0)) if later_rate is None else (model.params, model.moments)
        step = rate if later_rate is None else jnp.where(model.fits == 0, rate, later_rate)
        N = len(y)

        def member(key, params, moments, rows):  # rows: bool[N]
            n = jnp.sum(rows)

            def loss(params, at, there):
                error = jax.vmap(lambda x: module.apply({"params": params}, x))(take(x, at)) - y[at]
                return jnp.sum(jnp.abs(error), where=there) / jnp.maximum(jnp.sum(there), 1)

            def epoch(e, carry):
                order = jnp.argsort(jnp.where(rows, jax.random.uniform(jax.random.fold_in(key, e), (N,)), jnp.inf))

                def minibatch(b, carry):
                    params, moments = carry
                    place = b * batch + jnp.arange(batch)
                    grads = jax.grad(loss)(params, order[jnp.minimum(place, N - 1)], place < n)
                    updates, moments = adam.update(grads, moments)
                    return jax.tree.map(lambda p, u: p - step * u, params, updates), moments

                return jax.lax.fori_loop(0, (n + batch - 1) // batch, minibatch, carry)

            return jax.lax.fori_loop(0, epochs, epoch, (params, moments))

        left_out = jnp.arange(N)[None] % members == jnp.arange(members)[:, None]  # [M, N]
        rows = mask[None] & ~left_out if folds else jnp.broadcast_to(mask[None], left_out.shape)
        params, moments = jax.vmap(member)(jax.random.split(k_order, members), *fresh, rows)
        return EnsembleState(params, moments, model.fits + 1)

    def predict(model, archs):
        apply = lambda params, x: module.apply({"params": params}, x)
        each: Any = jax.vmap(jax.vmap(apply, (None, 0)), (0, None))(model.params, jax.vmap(encode)(archs))  # [M, C]
        return jnp.mean(each, 0), jnp.std(each, 0)

    return Surrogate(init, fit, predict)


class Perceptron(nn.Module):
    """Dense layers with relu, [F] -> []."""

    width: int = 20
    depth: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.glorot_uniform()
        for _ in range(self.depth):
            x = nn.relu(nn.Dense(self.width, kernel_init=init)(x))
        return nn.Dense(1, kernel_init=init)(x)[0]


class BlockTokens(NamedTuple):
    """A cell of blocks as a sequence."""

    input: jax.Array  # int32[B, 2]
    op: jax.Array  # int32[B, 2]
    blocks: jax.Array  # int32[], how many there are


@checked
def block_tokens(space: Space) -> Callable[[Arch], BlockTokens]:
    """arch -> Tokens of `pnas(...)`.

    Raises:
        ValueError: for another space.
    """
    if not isinstance(space.spec, BlockSpec) or space.spec.kinds:
        raise ValueError("tokens are those of one cell of blocks: give a space of pnas()")
    return lambda arch: BlockTokens(arch.blocks.input, arch.blocks.op, arch.size + 1)


class _Predictor(nn.Module):
    """What PNAS's predictors share: embeddings of the inputs and of the operations, and a sigmoid of 1.8 + ... at the end."""

    inputs: int
    ops: int
    width: int = 100

    def setup(self) -> None:
        init = lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -0.1, 0.1)
        self.of_input = nn.Embed(self.inputs, self.width, embedding_init=init)
        self.of_op = nn.Embed(self.ops, self.width, embedding_init=init)
        self.last = nn.Dense(1, kernel_init=init, bias_init=nn.initializers.constant(1.8))
        self.body = self.make_body(init)

    def embed(self, tokens: BlockTokens) -> jax.Array:
        return jnp.concatenate([self.of_input(tokens.input), self.of_op(tokens.op)], -2)  # [B, 4, E]

    def score(self, h: jax.Array) -> jax.Array:
        return nn.sigmoid(self.last(h)[0])


class BlockPerceptron(_Predictor):
    """The mean over blocks of their four embeddings, then a perceptron: Tokens -> (0, 1)."""

    def make_body(self, init: nn.initializers.Initializer) -> nn.Module:
        return nn.Dense(self.width, kernel_init=init)

    def __call__(self, tokens: BlockTokens) -> jax.Array:
        e = self.embed(tokens)
        e = e.reshape(len(e), -1)  # [B, 4 E]
        there = jnp.arange(len(e)) < tokens.blocks
        return self.score(nn.relu(self.body(jnp.sum(jnp.where(there[:, None], e, 0), 0) / tokens.blocks)))


class BlockLSTM(_Predictor):
    """An LSTM over the tokens of the blocks that are there, its last state: Tokens -> (0, 1)."""

    def make_body(self, init: nn.initializers.Initializer) -> nn.Module:
        return nn.RNN(nn.OptimizedLSTMCell(self.width, kernel_init=init, recurrent_kernel_init=init), return_carry=True)

    def __call__(self, tokens: BlockTokens) -> jax.Array:
        e = self.embed(tokens)
        (_, h), _ = self.body(e.reshape(-1, self.width), seq_lengths=4 * tokens.blocks)
        return self.score(h)
