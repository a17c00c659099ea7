"""Networks of ENAS's macro space: a supernet that mixes, one that computes one architecture, and a plain module of one.

Reference: Pham, Guan, Zoph, Le and Dean, Efficient Neural Architecture Search via Parameter Sharing, ICML 2018, arXiv:1802.03268,
section 2.3; operations, norms and reductions are those of the authors' search code.

    x_0 = f_op(norm(conv 3 x 3 of the image))
    x_i = norm(f_op(x_{i-1}) + sum over the chosen j < i of x_j)
    f   = relu(norm(conv(z))), relu(norm(conv 1 x 1(depthwise(z)))) or pool(z),   z = relu(norm(conv 1 x 1))

Behind layers L / 3 and 2 L / 3 all outputs so far are halved, each by convolutions of its own, whoever reads them later.  In the
authors' code bit j adds what layer j reads, and not its output, though the controller chooses by layer j; here it is the output,
as in the paper.  They retrain another net: skips concatenated behind a 1 x 1 convolution, twice the channels behind a reduction.

Axes: L layers, O operations, C channels, H rows, W columns, B batch, K classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.checks import Image, checked
from jaxnas.kinds import Positive, ProbabilityBelowOne
from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, check_image, linen, mask, number
from jaxnas.nets.convolution import avg_pool, max_pool
from jaxnas.nets.fences import fence
from jaxnas.nets.layers import BatchNorm, Conv, Depthwise, Logits, Rate, apply_norm, check_maps, drop, mix, switched, to_net
from jaxnas.nets.precision import at_least_float32, scaled
from jaxnas.spaces._space import Space
from jaxnas.spaces.enas import MacroChoice, MacroSpec

Build = Callable[[int], nn.Module]  # channels -> op(x [C, H, W, B], train) of the same shape


class Branch(nn.Module):
    """An operation behind its 1 x 1 convolution."""

    features: int
    kind: str  # "conv", "sep_conv", "avg_pool" or "max_pool"
    kernel: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = probe.relu(BatchNorm(name="before_norm")(Conv(self.features, name="before")(x), train))
        if self.kind.endswith("pool"):
            return {"avg_pool": avg_pool, "max_pool": max_pool}[self.kind](x, self.kernel)
        if self.kind == "sep_conv":
            x = Conv(self.features, name="conv")(Depthwise(self.kernel, name="depthwise")(x))
        else:
            x = Conv(self.features, self.kernel, name="conv")(x)
        return probe.relu(BatchNorm(name="norm")(x, train))


OPS: Mapping[str, Build] = {
    "conv_3x3": lambda features: Branch(features, "conv", 3),
    "conv_5x5": lambda features: Branch(features, "conv", 5),
    "sep_conv_3x3": lambda features: Branch(features, "sep_conv", 3),
    "sep_conv_5x5": lambda features: Branch(features, "sep_conv", 5),
    "avg_pool_3x3": lambda features: Branch(features, "avg_pool"),
    "max_pool_3x3": lambda features: Branch(features, "max_pool"),
}


class Halve(nn.Module):
    """Factorised reduction: two strided 1 x 1 convolutions, the second one pixel further on, concatenated and normalised."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shifted = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
        half = self.features // 2
        halves = [Conv(half, stride=2, name="even")(x), Conv(self.features - half, stride=2, name="odd")(shifted)]
        return BatchNorm(name="norm")(jnp.concatenate(halves, 0), train)


class AnyOp(nn.Module):
    """All candidates of a layer, mixed, or the one of the largest gate; each one's variables are under its name."""

    ops: Mapping[str, Build]
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, gate: jax.Array, train: bool, path: bool) -> jax.Array:
        """x [C, H, W, B], gate [O]."""
        made = {name: build(self.features).clone(parent=None, name=None) for name, build in self.ops.items()}
        if self.is_initializing():
            for name, op in made.items():
                for collection, tree in op.init(self.make_rng("params"), x, True).items():
                    self.put_variable(collection, name, tree)

        def run(name, params, stats, x):
            """One candidate's output, and the statistics of all, of which its own have moved."""
            variables = {c: held[name] for c, held in (("params", params), ("batch_stats", stats)) if name in held}
            y, new = made[name].apply(variables, x, train, mutable=["batch_stats"])
            check_maps(name, y, (self.features, *x.shape[1:]))
            return apply_norm(y), {**stats, name: new["batch_stats"]} if name in stats else stats

        held = [{n: self.get_variable(c, n) for n in made if self.has_variable(c, n)} for c in ("params", "batch_stats")]
        if path:
            k = jnp.argmax(gate)
            y, stats = switched(k, [lambda *args, name=name: run(name, *args) for name in made], *held, x)
            y = scaled(y, gate[k])
        else:
            (params, stats), ys, x = held, [], fence(x)
            for name in made:
                y, stats = run(name, params, stats, x)
                ys.append(y)
            y = mix(list(gate), ys)
        if train and not self.is_initializing():
            for name, moved in stats.items():
                self.put_variable("batch_stats", name, moved)
        return y


class MacroNet(nn.Module):
    """Stem, layers, head.  x is [B, H, W, C], as users hold images; the result is logits [B, K].

    Training drops `dropout` of what the classifier reads, where there is a "dropout" rng.
    """

    spec: MacroSpec
    ops: Mapping[str, Build]
    channels: int
    classes: int
    dropout: float = 0.0
    choice: tuple[MacroChoice, ...] | None = None  # of one architecture; None: of any

    @nn.compact
    def __call__(
        self, x: jax.Array, gates: Gates = None, *, train: bool = False, path: bool = False, rate: Rate = None
    ) -> jax.Array:
        del rate  # no path to drop
        C, L = self.channels, self.spec.layers
        x = BatchNorm(name="stem_norm")(Conv(C, 3, name="stem")(to_net(x)), train)
        outputs = []
        for i in range(L):
            if self.choice is None:
                y = AnyOp(self.ops, C, name=f"layer{i}")(x, jnp.asarray(gates[i].op, at_least_float32(x.dtype)), train, path)
                bits = jnp.asarray(gates[i].skip, at_least_float32(x.dtype))[:, 1] if i else ()
                y = sum([scaled(output, bit) for bit, output in zip(bits, outputs, strict=True)], y)
            else:
                op, skips = self.choice[i]
                y = self.ops[op](C).clone(parent=self, name=f"layer{i}")(x, train)
                check_maps(op, y, (C, *x.shape[1:]))
                y = apply_norm(y)
                y = sum([outputs[j] for j in skips], y)
            x = BatchNorm(name=f"norm{i}")(y, train) if i else y
            outputs.append(x)
            if i + 1 in (L // 3, 2 * (L // 3)):
                outputs = [Halve(C, name=f"halve{i}_{j}")(output, train) for j, output in enumerate(outputs)]
                x = outputs[-1]
        x = jnp.mean(probe.last(x), (1, 2)).T
        if train and self.dropout and self.has_rng("dropout"):
            x = drop(x, self.make_rng("dropout"), self.dropout, x.shape)
        return Logits(self.classes, name="classifier")(x)


@checked
def macro_net(
    space: Space,
    *,
    image: Image,
    classes: Positive,
    channels: Positive = 36,
    ops: Mapping[str, Build] | None = None,
    dropout: ProbabilityBelowOne = 0.0,
) -> Net:
    """The supernet of a macro space.

    Args:
        space: `enas_macro(...)`.
        image: (H, W, C) of the examples.
        classes: number of classes.
        channels: C, of every layer, even; default 36, as the published search has it.
        ops: further operations by name, channels -> module, or other builds for known names.
        dropout: before the classifier, in training, an architecture step's too; published 0.1, default 0.

    Raises:
        ValueError: for another space, an unknown operation, sizes below 1, odd channels, or a dropout outside [0, 1).
    """
    spec = space.spec
    if not isinstance(spec, MacroSpec):
        raise ValueError("this space has no macro layers (`space.spec`): give `enas_macro(...)`")
    check_image(image, classes)
    if channels < 1 or channels % 2 or not 0 <= dropout < 1:
        raise ValueError(f"`channels` is positive and even, and `dropout` in [0, 1): got {channels} and {dropout}")
    table = {**OPS, **(ops or {})}
    if missing := [name for name in spec.ops if name not in table]:
        raise ValueError(f"no operation named {', '.join(missing)}: pass ops={{{missing[0]!r}: build}} or use {', '.join(OPS)}")
    held = flax.core.FrozenDict({name: table[name] for name in spec.ops})
    module = MacroNet(spec, held, channels, classes, dropout)

    def used(variables, gates):
        def on(names, v):
            i = number(names[1], "layer")
            return jnp.ones(()) if i is None else gates[i].op[spec.ops.index(names[2])] != 0

        return mask(on, variables)

    def specialize(arch):
        choice = space.choice(arch)
        own = lambda i, held: held if i is None else held.get(choice[i].op, {})

        def kept(tree: dict[str, Any]):
            picked = {name: own(number(name, "layer"), held) for name, held in tree.items()}
            return {name: held for name, held in picked.items() if held}

        return module.clone(choice=choice), lambda variables: {c: kept(tree) for c, tree in variables.items()}

    return linen(module, space, image, classes, used=used, specialize=specialize)
