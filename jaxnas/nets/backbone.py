"""The networks of the macro space: each is a plain Flax module, and a program of its own.

Blocks and their references are those of `jaxnas.spaces.macro`.  A block ends in squeeze-and-excitation where there is attention (an
inverted one has it inside, as MobileNetV3 does), and the shortcut of a residual one is a 1 x 1 convolution where its shape changes.

Axes: C channels, H rows, W columns, B batch, K outputs, S stages.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.nets import layers
from jaxnas.nets.blueprints import Blueprints, Cost
from jaxnas.nets.convolution import per_channel
from jaxnas.nets.layers import BatchNorm, Conv, Dense, Depthwise, Logits, to_net
from jaxnas.nets.precision import at_least_float32
from jaxnas.spaces._macro import RECIPES, StageChoice, StagedChoice, StagedSpec, as_image, families, rounded
from jaxnas.spaces._space import Space

HIDDEN = 64  # units of the flatten head
SQUEEZE = 8  # attention looks at so many channels at once

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": nn.relu, "silu": nn.silu, "gelu": nn.gelu, "tanh": jnp.tanh}


class GroupNorm(nn.Module):
    """Normalisation of four groups of channels, each example by itself (Wu and He 2018, arXiv:1803.08494)."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train  # no running statistics
        dtype = at_least_float32(x.dtype)
        y = x.astype(dtype).reshape(4, -1, *x.shape[1:])
        y = (y - y.mean((1, 2, 3), keepdims=True)) * jax.lax.rsqrt(y.var((1, 2, 3), keepdims=True) + 1e-5)
        scale = self.param("scale", nn.initializers.ones, (x.shape[0],), dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[0],), dtype)
        return (y.reshape(x.shape) * per_channel(scale) + per_channel(bias)).astype(x.dtype)


NORMS: dict[str, type[nn.Module]] = {"batch": BatchNorm, "group": GroupNorm}


def squeezed(channels: float) -> int:
    """Units between the two layers of attention."""
    return rounded(channels / SQUEEZE)


class Attention(nn.Module):
    """Squeeze and excitation: channels weighed by what their means say of each other."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        seen = nn.relu(Dense(squeezed(x.shape[0]), name="squeeze")(x.mean((1, 2)).T))  # [B, h]
        return x * nn.sigmoid(Dense(x.shape[0], name="excite")(seen).T)[:, None, None]


class Block(nn.Module):
    stage: StageChoice
    stride: int
    attention: bool
    norm: str
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [C, H, W, B] -> [width, ceil(H / stride), ceil(W / stride), B]."""
        s, act = self.stage, ACTIVATIONS[self.activation]
        kernel = (s.kernel, s.kernel if x.shape[2] > 1 else 1)
        norm = lambda name: NORMS[self.norm](name=f"{name}_norm")
        attend = lambda y: Attention(name="attention")(y) if self.attention else y
        if s.block == "plain":
            return attend(act(norm("conv")(Conv(s.width, kernel, self.stride, name="conv")(x), train)))
        if s.block == "separable":
            y = act(norm("depthwise")(Depthwise(s.kernel, self.stride, name="depthwise")(x), train))
            return attend(act(norm("pointwise")(Conv(s.width, name="pointwise")(y), train)))
        keeps = self.stride == 1 and x.shape[0] == s.width
        if s.block == "inverted":
            y = act(norm("expand")(Conv(s.expansion * x.shape[0], name="expand")(x), train))
            y = attend(act(norm("depthwise")(Depthwise(s.kernel, self.stride, name="depthwise")(y), train)))
            y = norm("project")(Conv(s.width, name="project")(y), train)
            return x + y if keeps else y
        y = act(norm("first")(Conv(s.width, kernel, self.stride, name="first")(x), train))
        y = attend(norm("second")(Conv(s.width, kernel, name="second")(y), train))
        shortcut = x if keeps else norm("shortcut")(Conv(s.width, 1, self.stride, name="shortcut")(x), train)
        return act(shortcut + y)


class Backbone(nn.Module):
    """x [B, H, W, C], or series [B, T, C] -> outputs [B, K]."""

    choice: StagedChoice
    outputs: int

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, rate: jax.Array | None = None, dropout: jax.Array | float | None = None
    ) -> jax.Array:
        """`dropout` replaces that of the choice, and may be traced; `rate` would drop paths, of which there are none."""
        del rate
        c = self.choice
        odds = c.training.dropout if dropout is None else dropout
        shared = dict(attention=c.attention, norm=c.norm, activation=c.activation)
        x = x.reshape(x.shape[0], *as_image(x.shape[1:]))
        kernel = (3, 3 if x.shape[2] > 1 else 1)
        y = Conv(c.stages[0].width, kernel, c.stem, name="stem")(to_net(x))
        y = ACTIVATIONS[c.activation](NORMS[c.norm](name="stem_norm")(y, train))
        for i, stage in enumerate(c.stages):
            for j in range(stage.depth):
                y = Block(stage, 2 if i and not j else 1, **shared, name=f"stage{i}_block{j}")(y, train)
        if c.head == "average":
            y = y.mean((1, 2)).T
        else:
            y = y.reshape(-1, y.shape[-1]).T
            y = ACTIVATIONS[c.activation](Dense(HIDDEN, name="hidden")(layers.dropout(self, y, train, odds)))
        return Logits(self.outputs, name="outputs")(layers.dropout(self, y, train, odds))


@checked
def backbones(space: Space, *, image: tuple[int, ...], classes: Positive) -> Blueprints:
    """The networks of a macro space.

    Args:
        space: made by `jaxnas.spaces.macro`.
        image: (H, W, C), or (T, C) of series, which are images of one column.
        classes: outputs.

    Raises:
        ValueError: for another space, or an image that it was not made for.
    """
    shape = as_image(image)
    if not isinstance(space.spec, StagedSpec) or space.spec.image != shape:
        raise ValueError(f"backbones need a space of `macro({shape})`, made for the images at hand")
    build = lambda choice: Backbone(choice, classes)
    return Blueprints(space, tuple(image), classes, build, backbone_cost(space.spec, classes), families(space), RECIPES)


@checked
def backbone_cost(spec: StagedSpec, outputs: Positive) -> Callable[[Arch], Cost]:
    """arch -> its cost, in closed form; traceable, so that a search can draw within a limit."""
    H, W, C = spec.image
    halved = lambda n, times: -(-n // 2**times)
    after = lambda stem, s: (halved(-(-H // stem), s), halved(-(-W // stem), s))
    places = np.asarray([[np.prod(after(stem, s)) for s in range(spec.stages)] for stem in spec.stem], np.float32)  # [stems, S]
    table = {name: np.asarray(getattr(spec, name), np.float32) for name in ("width", "growth", "depth", "kernel", "expansion")}
    flat = lambda k: k * k if W > 1 else k  # the area of a dense kernel
    near = lambda w: jnp.maximum(4.0, 4 * jnp.floor(w / 4 + 0.5))

    stages = np.arange(spec.stages)
    changes = np.minimum(stages, 1).astype(np.float32)  # a first block behind another stage joins maps of other sizes

    def cost(arch: Arch) -> Cost:
        attention, at = jnp.asarray(spec.attention, jnp.float32)[arch.attention], jnp.asarray(places)[arch.stem]  # [], [S]
        pick = lambda name, i: jnp.asarray(table[name])[i]

        def attend(c):  # (parameters, multiply-adds)
            h = near(c / SQUEEZE)
            return attention * (2 * c * h + h + c), attention * 2 * c * h

        def blocks(c, w, before, changes):
            """(parameters, multiply-adds) [S, 2] of a block of each stage, c channels to w, on maps of so many places."""
            k, e, now = pick("kernel", arch.kernel), pick("expansion", arch.expansion) * c, at
            area, (p, m), (pe, me) = flat(k), attend(w), attend(e)
            kinds = {
                "plain": (area * c * w + 2 * w + p, area * c * w * now + m),
                "separable": (k * k * c + 2 * c + c * w + 2 * w + p, (k * k * c + c * w) * now + m),
                "inverted": (
                    c * e + 2 * e + k * k * e + 2 * e + pe + e * w + 2 * w,
                    c * e * before + (k * k * e + e * w) * now + me,
                ),
                "residual": (
                    area * (c + w) * w + 4 * w + changes * (c * w + 2 * w) + p,
                    (area * (c + w) * w + changes * c * w) * now + m,
                ),
            }
            listed = jnp.stack([jnp.stack(kinds[name], -1) for name in spec.block])  # [kinds, S, 2]
            return listed[arch.block, stages]

        on, widths = (stages <= arch.stages).astype(jnp.float32), [near(pick("width", arch.width))]
        for s in stages[1:]:
            widths.append(near(widths[-1] * pick("growth", arch.growth[s - 1])))
        w, before = jnp.stack(widths), jnp.concatenate([at[:1], at[:-1]])  # [S]
        first, more = blocks(jnp.concatenate([w[:1], w[:-1]]), w, before, changes), blocks(w, w, at, 0.0)
        each = on[:, None] * (first + (pick("depth", arch.depth) - 1)[:, None] * more)
        stem = jnp.stack([flat(3) * C * w[0] + 2 * w[0], flat(3) * C * w[0] * at[0]])
        total, width, end = stem + jnp.sum(each, 0), w[arch.stages], at[arch.stages]
        heads = {
            "average": (width * outputs + outputs, width * outputs),
            "flatten": ((width * end + 1) * HIDDEN + (HIDDEN + 1) * outputs, width * end * HIDDEN + HIDDEN * outputs),
        }
        head = jnp.stack([jnp.stack(heads[name]) for name in spec.head])[arch.head]
        return Cost(*(total + head))

    return cost
