"""The networks of the tabular space: each is a plain Flax module, and a program of its own.

Gorishniy et al. 2021 and 2022 (see `jaxnas.spaces.tabular`):

    mlp          h <- dropout(act(norm(linear(h))))
    resnet       h <- h + dropout(linear(dropout(act(linear(norm(h))))));  the inner width is twice the outer
    transformer  a token for each input and one of its own, which is read at the end;  h <- h + attention(norm(h)),
                 h <- h + linear(dropout(act(linear(norm(h)))))
    periodic     act(linear([sin 2 pi c x, cos 2 pi c x])), the frequencies c learnt for each input, the linear layer shared

Axes: B batch, F inputs, E numbers of an embedding, T = F + 1 tokens, W width, K outputs.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.nets import layers
from jaxnas.nets.blueprints import Blueprints, Cost
from jaxnas.nets.layers import Dense, Logits, PlainDense
from jaxnas.nets.precision import parameter
from jaxnas.spaces._space import Space
from jaxnas.spaces._tabular import RECIPES, TabularChoice, TabularSpec, families

FREQUENCIES, EMBEDDED = 8, 8  # of an input: sines and as many cosines; E, but in a Transformer, where it is W
SPREAD = 0.5  # standard deviation of frequencies at the beginning
HEAD = 16  # width of a head of attention
EPOCHS = 100  # of a training, where there is time

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": nn.relu, "silu": nn.silu}


class Periodic(nn.Module):
    """x [B, F] -> [B, F, width]."""

    width: int
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.param("frequencies", nn.initializers.normal(SPREAD), (x.shape[1], FREQUENCIES))
        angles = 2 * jnp.pi * c[None] * x[..., None]  # [B, F, FREQUENCIES]
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1).astype(x.dtype)
        return ACTIVATIONS[self.activation](PlainDense(self.width, name="mix")(waves))


class TabularNet(nn.Module):
    """x [B, F] -> outputs [B, K]."""

    choice: TabularChoice
    outputs: int

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, rate: jax.Array | None = None, dropout: jax.Array | float | None = None
    ) -> jax.Array:
        """`dropout` replaces that of the choice, and may be traced; `rate` would drop paths, of which there are none."""
        del rate
        c = self.choice
        odds = c.training.dropout if dropout is None else dropout
        act, norm = ACTIVATIONS[c.activation], lambda name, h: self.norm(c.norm, name, h, train)
        lose = lambda h: layers.dropout(self, h, train, odds)
        periodic = c.embedding == "periodic"
        if c.block == "transformer":
            h = self.tokens(x)  # [B, T, W]
            for i in range(c.depth):
                heads, seen = max(1, c.width // HEAD), norm(f"attention_norm{i}", h)
                found: Any = nn.MultiHeadDotProductAttention(heads, dtype=h.dtype, name=f"attention{i}")(seen)
                h = h + found
                inner = act(PlainDense(2 * c.width, name=f"inner{i}")(norm(f"norm{i}", h)))
                h = h + PlainDense(c.width, name=f"outer{i}")(lose(inner))
            return Logits(self.outputs, name="outputs")(act(norm("last_norm", h[:, -1])))
        h = Periodic(EMBEDDED, c.activation, name="embedding")(x).reshape(x.shape[0], -1) if periodic else x
        if c.block == "mlp":
            for i in range(c.depth):
                h = lose(act(norm(f"norm{i}", Dense(c.width, name=f"layer{i}")(h))))
            return Logits(self.outputs, name="outputs")(h)
        h = Dense(c.width, name="first")(h)
        for i in range(c.depth):
            inner = act(Dense(2 * c.width, name=f"inner{i}")(norm(f"norm{i}", h)))
            h = h + lose(Dense(c.width, name=f"outer{i}")(lose(inner)))
        return Logits(self.outputs, name="outputs")(act(norm("last_norm", h)))

    def tokens(self, x: jax.Array) -> jax.Array:
        """[B, F] -> [B, T, W], the last of them not of an input."""
        c, (B, F) = self.choice, x.shape
        bias = parameter(self, "bias", nn.initializers.normal(0.1), (F + 1, c.width), x.dtype)
        if c.embedding == "periodic":
            own = Periodic(c.width, c.activation, name="embedding")(x)
        else:
            own = x[..., None] * parameter(self, "scale", nn.initializers.normal(1.0), (F, c.width), x.dtype)[None]
        return jnp.concatenate([own, jnp.zeros((B, 1, c.width), x.dtype)], 1) + bias[None]

    def norm(self, kind: str, name: str, h: jax.Array, train: bool) -> jax.Array:
        if kind == "nonorm":
            return h
        if kind == "layer":
            return nn.LayerNorm(dtype=h.dtype, name=name)(h)
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=h.dtype, name=name)(h)


@checked
def tabular_nets(space: Space, *, image: tuple[int, ...], classes: Positive) -> Blueprints:
    """The networks of a tabular space.

    Args:
        space: made by `jaxnas.spaces.tabular`.
        image: (F,), the shape of an example.
        classes: K.

    Raises:
        ValueError: for another space, or rows that it was not made for.
    """
    if not isinstance(space.spec, TabularSpec) or (space.spec.inputs,) != tuple(image):
        raise ValueError(f"these networks need a space of `tabular({image[0]})`, made for the rows at hand")
    build = lambda choice: TabularNet(choice, classes)
    cost = tabular_cost(space.spec, classes)
    return Blueprints(space, tuple(image), classes, build, cost, families(space), RECIPES, optimizer="adam", epochs=EPOCHS)


@checked
def tabular_cost(spec: TabularSpec, outputs: Positive) -> Callable[[Arch], Cost]:
    """arch -> its cost, in closed form; traceable, so that a search can draw within a limit."""
    F, K, T = float(spec.inputs), float(outputs), spec.inputs + 1.0
    waves, E = 2.0 * FREQUENCIES, float(EMBEDDED)
    width, depth = np.asarray(spec.width, np.float32), np.asarray(spec.depth, np.float32)
    periodic = np.asarray([name == "periodic" for name in spec.embedding], np.float32)
    normed = np.asarray([name != "nonorm" for name in spec.norm], np.float32)

    def cost(arch: Arch) -> Cost:
        pick = lambda table, i: jnp.asarray(table)[i]
        W, D, p, n = pick(width, arch.width), pick(depth, arch.depth), pick(periodic, arch.embedding), pick(normed, arch.norm)
        embed = lambda E: (p * (F * FREQUENCIES + waves * E + E), p * F * (FREQUENCIES + waves * E))
        (embed_params, embed_macs), inputs = embed(E), F * jnp.where(p > 0, E, 1.0)
        dense = inputs * W + (D - 1) * W * W + W * K
        mlp = embed_params + dense + D * W + K + n * 2 * W * D, embed_macs + dense
        dense = inputs * W + D * 4 * W * W + W * K
        resnet = embed_params + dense + W + 3 * D * W + K + n * 2 * W * (D + 1), embed_macs + dense
        (token_params, token_macs), biases, norms = embed(W), W * 4 + 3 * W, 2 * W * (2 * D + 1)
        transformer = (
            token_params + (1 - p) * F * W + T * W + D * (8 * W * W + biases) + norms + W * K + K,
            token_macs + (1 - p) * F * W + D * (8 * W * W * T + 2 * T * T * W) + W * K,
        )
        kinds: dict[str, Any] = {"mlp": mlp, "resnet": resnet, "transformer": transformer}
        listed = jnp.stack([jnp.stack(kinds[name]) for name in spec.block])
        return Cost(*listed[arch.block])

    return cost
