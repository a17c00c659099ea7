"""Networks of ShuffleNet units: any width of a unit is the first channels of the widest one's weights.

References: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020, arXiv:1904.00420; the
units are those of Ma et al., ShuffleNet V2, ECCV 2018, arXiv:1807.11164.

    x      = relu(norm(conv 3 x 3))
    a, b   = x[0::2], x[1::2]                        in a block that keeps its shape
             relu(norm(1 x 1(norm(depthwise(x))))), x     in another
    x      = concat(a, f(b))                         f the unit that is chosen
    k3..7  = relu(norm(1 x 1(norm(depthwise k x k(relu(norm(1 x 1)))))))
    logits = dense(mean over the map of relu(norm(conv 1 x 1)))          no bias

The program for any architecture has the widest units, with zeros for the weights that an architecture lacks: then its norms' scale
and shift are 0 too, and so is the channel.  One unit of each block is computed (`layers.switched`).

Not as published: the supernet's norms have a scale and a shift (there only the final network's do); no dropout.

Axes: L blocks, O units, F factors, C channels, H rows, W columns, B batch, K classes.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import Image, checked
from jaxnas.kinds import Positive
from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, check_image, keep_unused, linen, map_named, mask, number
from jaxnas.nets.layers import BatchNorm, Conv, Depthwise, Logits, Rate, switched, to_net
from jaxnas.spaces._shuffle import UNITS, Shuffle, ShuffleBlock, ShuffleSpec, UnitChoice
from jaxnas.spaces._space import Space

INSIDE = {  # whether the axes (outputs, inputs) of a module's weights are the unit's hidden channels; of others none is
    "expand": (True, False),
    "depthwise": (True,),
    "project": (False, True),
    "point0": (True, False),
    "depthwise1": (True,),
    "point1": (True, True),
    "depthwise2": (True,),
    "point2": (False, True),
}


class Unit(nn.Module):
    """A choice of a block, shortcut included: x [inputs, H, W, B] -> [outputs, ceil(H / stride), ceil(W / stride), B]."""

    block: ShuffleBlock
    op: str
    hidden: int
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        block, kernel, outputs = self.block, UNITS[self.op], self.block.branch[1]
        norm = lambda name, x: BatchNorm(epsilon=self.epsilon, name=f"{name}_norm")(x, train)
        point = lambda name, features, x: probe.relu(norm(name, Conv(features, name=name)(x)))
        depthwise = lambda name, stride, x: norm(name, Depthwise(kernel, stride, name=name)(x))
        if block.splits:
            beside, x = x[::2], x[1::2]
        else:
            beside = point("shortcut", block.inputs, depthwise("shortcut_depthwise", block.stride, x))
        if self.op == "xception":
            x = point("point0", self.hidden, depthwise("depthwise0", block.stride, x))
            x = point("point1", self.hidden, depthwise("depthwise1", 1, x))
            x = point("point2", outputs, depthwise("depthwise2", 1, x))
        else:
            x = depthwise("depthwise", block.stride, point("expand", self.hidden, x))
            x = point("project", outputs, x)
        return jnp.concatenate([beside, x])


class ChoiceBlock(nn.Module):
    """All units of a block, of which one is computed; each one's variables are under its name."""

    spec: ShuffleSpec
    block: ShuffleBlock

    @nn.compact
    def __call__(self, x: jax.Array, gate: jax.Array, train: bool) -> jax.Array:
        """x [C, H, W, B], gate [O], one-hot."""
        widest = self.block.hidden(max(self.spec.factors))
        made = {op: Unit(self.block, op, widest, self.spec.epsilon, parent=None) for op in UNITS}
        if self.is_initializing():
            for op, module in made.items():
                for collection, tree in module.init(self.make_rng("params"), x, True).items():
                    self.put_variable(collection, op, tree)

        def branch(op):
            def compute(params, stats, x):
                variables = {"params": params[op], "batch_stats": stats[op]}
                y, new = made[op].apply(variables, x, train, mutable=["batch_stats"])
                return y, {**stats, op: new["batch_stats"]}

            return compute

        params, stats = ({op: self.get_variable(collection, op) for op in made} for collection in ("params", "batch_stats"))
        y, moved = switched(jnp.argmax(gate), [branch(op) for op in made], params, stats, x)
        if train and not self.is_initializing():
            for op, new in moved.items():
                self.put_variable("batch_stats", op, new)
        return y


class ShuffleNet(nn.Module):
    """Stem, blocks, head.  x is [B, H, W, C], as users hold images; the result is logits [B, K]."""

    spec: ShuffleSpec
    classes: int
    choice: tuple[UnitChoice, ...] | None = None  # of one architecture; None: of any

    @nn.compact
    def __call__(
        self, x: jax.Array, gates: Gates = None, *, train: bool = False, path: bool = False, rate: Rate = None
    ) -> jax.Array:
        del path, rate  # there is one way to run, and no path to drop
        spec = self.spec
        norm = lambda name: BatchNorm(epsilon=spec.epsilon, name=name)
        x = probe.relu(norm("stem_norm")(Conv(spec.stem, 3, spec.stem_stride, name="stem")(to_net(x)), train))
        for i, block in enumerate(spec.blocks):
            if self.choice is None:
                x = ChoiceBlock(spec, block, name=f"block{i}")(x, gates.op[i], train)
            else:
                x = Unit(block, *self.choice[i], spec.epsilon, name=f"block{i}")(x, train)
        x = probe.relu(norm("head_norm")(Conv(spec.head, name="head")(x), train))
        return Logits(self.classes, use_bias=False, name="classifier")(jnp.mean(x, (1, 2)).T)


@checked
def shuffle_net(space: Space, *, image: Image, classes: Positive) -> Net:
    """The network of any architecture of a space of ShuffleNet units; gates are one-hot.

    The statistics of what an architecture lacks do not move.

    Args:
        space: `spos()` or your own `shuffle(spec)`.
        image: (H, W, C) of the examples.
        classes: number of classes.

    Raises:
        ValueError: for another space, an image smaller than the strides, or sizes below 1.
    """
    spec = space.spec
    if not isinstance(spec, ShuffleSpec):
        raise ValueError("this space has no ShuffleNet units (`space.spec`): give `spos` or `shuffle(spec)`")
    check_image(image, classes, spec.stride)
    module, ops = ShuffleNet(spec, classes), tuple(UNITS)

    def wide(gates, i):
        """[hidden], 1 for the channels of block i's width."""
        sizes = np.asarray([spec.blocks[i].hidden(factor) for factor in spec.factors])
        table = np.arange(sizes.max()) < sizes[:, None]  # [F, hidden]
        return jnp.ones(sizes.max()) if gates.width is None else gates.width[i] @ table.astype(np.float32)

    def used(variables, gates):
        hidden = [wide(gates, i) for i in range(len(spec.blocks))]

        def on(names, v):
            if (i := number(names[1], "block")) is None:
                return jnp.ones(())
            axes = inside(names[3])[: v.ndim]
            shape = lambda axis: [-1 if a == axis else 1 for a in range(len(axes))]
            parts = [hidden[i].reshape(shape(axis)) for axis, grows in enumerate(axes) if grows]
            return functools.reduce(jnp.multiply, parts, jnp.asarray(gates.op[i, ops.index(names[2])] != 0, jnp.float32))

        return mask(on, variables)

    def compute(variables, x, gates, t, *, train, path, rngs, mutable):
        del t, path, rngs  # nothing anneals, there is one way to run and nothing is drawn
        on = used(variables, gates)
        narrow = {**variables, "params": jax.tree.map(jnp.multiply, variables["params"], on["params"])}
        logits, new = module.apply(narrow, x, gates, train=train, mutable=mutable)
        return logits, keep_unused(on, new, variables)

    def specialize(arch):
        choice = space.choice(arch)

        def extract(variables):
            def kept(tree):
                out = {}
                for name, v in tree.items():
                    i = number(name, "block")
                    out[name] = v if i is None else map_named(functools.partial(sliced, choice[i].hidden), v[choice[i].op])
                return out

            return {collection: kept(tree) for collection, tree in variables.items()}

        return module.clone(choice=choice), extract

    net = linen(module, space, image, classes, used=used, specialize=specialize, compute=compute, mixes=False)
    return net._replace(macs=shuffle_macs(spec, image, classes))


def inside(module: str) -> tuple[bool, ...]:
    """Which axes of a module's weights are hidden channels; a norm has its convolution's outputs."""
    return INSIDE.get(module.removesuffix("_norm"), ())


def sliced(hidden: int, names: tuple[str, ...], v: jax.Array) -> jax.Array:
    """The first channels of a unit's leaf, names (module, leaf)."""
    return v[tuple(slice(hidden if grows else None) for grows in inside(names[0])[: v.ndim])]


def shuffle_macs(spec: ShuffleSpec, image: tuple[int, int, int], classes: int) -> Callable[[Shuffle], jax.Array]:
    """`Net.macs`: gates -> [].  Unit and width of a block are one table."""
    smaller = lambda size, stride: [-(-n // stride) for n in size]
    size = smaller(image[:2], spec.stem_stride)
    base = np.prod(size) * 9 * image[2] * spec.stem
    table = np.zeros((len(spec.blocks), len(UNITS), len(spec.factors)))
    for i, block in enumerate(spec.blocks):
        before, size = np.prod(size), smaller(size, block.stride)
        after, (inputs, outputs) = np.prod(size), block.branch
        hidden = np.asarray([block.hidden(factor) for factor in spec.factors])  # [F]
        for k, (op, kernel) in enumerate(UNITS.items()):
            if op == "xception":
                table[i, k] = after * (9 * inputs + hidden * (inputs + 9 + hidden + 9 + outputs))
            else:
                table[i, k] = before * inputs * hidden + after * hidden * (kernel**2 + outputs)
            if not block.splits:
                table[i, k] += after * block.inputs * (kernel**2 + block.inputs)
    base += np.prod(size) * spec.blocks[-1].outputs * spec.head + spec.head * classes
    base, table = np.float32(base), table.astype(np.float32)

    def macs(gates: Shuffle):
        width = np.ones((len(table), 1), np.float32) if gates.width is None else gates.width
        return base + jnp.sum(table * gates.op[:, :, None] * width[:, None])

    return macs
