"""Networks of the layer-wise mobile spaces.

References: Cai, Zhu and Han, ProxylessNAS, ICLR 2019, arXiv:1812.00332; Wu et al., FBNet, CVPR 2019, arXiv:1812.03443.

    x = act(norm(conv 3 x 3))                    (one fixed k3_e1 block, where the spec has it)
    x = (x +) sum_i g_i f_i(x)                   a layer; x where it keeps the shape; f = 0 for zero and skip
    logits = dense(mean over the map of act(norm(conv 1 x 1)))

A layer's gates are a row [O], or `Paths`: see `jaxnas.nets.mobile_ops`, which has the blocks.

Axes: L layers, O candidates of a layer, C channels, H rows, W columns, B batch, K classes.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import Image, checked
from jaxnas.kinds import Positive
from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, check_image, linen, mask, number
from jaxnas.nets.layers import BatchNorm, Conv, Logits, Rate, apply_norm, to_net
from jaxnas.nets.mobile_ops import Paths, SuperLayer, activation, mobile_block
from jaxnas.spaces._mobile import Mobile, MobileLayer, MobileSpec, block
from jaxnas.spaces._space import Space


class MobileNet(nn.Module):
    """Stem, layers, head.  x is [B, H, W, C], as users hold images; the result is logits [B, K]."""

    spec: MobileSpec
    classes: int
    choice: tuple[str, ...] | None = None  # the operations of one architecture; None: of any

    @nn.compact
    def __call__(
        self, x: jax.Array, gates: Gates = None, *, train: bool = False, path: bool = False, rate: Rate = None
    ) -> jax.Array:
        del rate  # no path to drop
        spec, x = self.spec, to_net(x)
        act = activation(spec.relu6)
        norm = lambda name: BatchNorm(epsilon=spec.epsilon, name=name)
        x = act(norm("stem_norm")(Conv(spec.stem, 3, spec.stem_stride, name="stem")(x), train))
        if spec.fixed is not None:
            layer = MobileLayer(spec.stem, spec.fixed, 1, ())
            y = apply_norm(mobile_block(spec, layer, "k3_e1", name="fixed")(x, train))
            x = x + y if layer.keeps else y
        for i, layer in enumerate(spec.layers):
            if self.choice is None:
                y = SuperLayer(spec, layer, name=f"layer{i}")(x, gates.op[i], train, path)
            elif block(self.choice[i]) is None:
                continue
            else:
                y = apply_norm(mobile_block(spec, layer, self.choice[i], name=f"layer{i}")(x, train))
            (x,) = probe.whole(x + y if layer.keeps else y)
        x = act(norm("head_norm")(Conv(spec.head, name="head")(x), train))
        return Logits(self.classes, name="classifier")(jnp.mean(probe.last(x), (1, 2)).T)


@checked
def mobile_net(space: Space, *, image: Image, classes: Positive) -> Net:
    """The supernet of a mobile space.  A layer's gates are a row [O], or `Paths`.

    Args:
        space: `proxylessnas(...)`, `fbnet(...)` or your own `mobile(spec)`.
        image: (H, W, C) of the examples.
        classes: number of classes.

    Raises:
        ValueError: for another space, an image smaller than the strides, or sizes below 1.
    """
    spec = space.spec
    if not isinstance(spec, MobileSpec):
        raise ValueError("this space has no mobile layers (`space.spec`): give `proxylessnas`, `fbnet` or `mobile(spec)`")
    check_image(image, classes, spec.stride)
    module = MobileNet(spec, classes)
    table, base = mobile_macs(spec, image, classes)

    def used(variables, gates):
        def on(names, v):
            if (i := number(names[1], "layer")) is None:
                return jnp.ones(())
            gate, k = gates.op[i], spec.layers[i].ops.index(names[2])
            return gate.index[0] == k if isinstance(gate, Paths) else gate[k] != 0

        return mask(on, variables)

    def specialize(arch):
        choice = space.choice(arch)

        def extract(variables):
            def kept(tree):
                out = {name: v for name, v in tree.items() if number(name, "layer") is None}
                real = {f"layer{i}": name for i, name in enumerate(choice) if block(name)}
                return out | {layer: tree[layer][name] for layer, name in real.items()}

            return {collection: kept(tree) for collection, tree in variables.items()}

        return module.clone(choice=choice), extract

    def macs(gates):
        varied: Any = sum(jnp.sum(row.astype(np.float32) * gate) for row, gate in zip(table.op, gates.op, strict=True))
        return base + varied

    return linen(module, space, image, classes, used=used, specialize=specialize)._replace(macs=macs)


def mobile_macs(spec: MobileSpec, image: tuple[int, int, int], classes: int) -> tuple[Mobile, float]:
    """Of one example: (those of each candidate, in the gates' structure; those of all that is fixed)."""
    smaller = lambda size, stride: [-(-n // stride) for n in size]

    def of(layer, name, size):
        if (made := block(name)) is None:
            return 0
        hidden, after = made.expansion * layer.inputs, np.prod(smaller(size, layer.stride))
        expand = np.prod(size) * layer.inputs * hidden // made.groups if made.expansion > 1 else 0
        return expand + after * (made.kernel**2 * hidden + hidden * layer.outputs // made.groups)

    size = smaller(image[:2], spec.stem_stride)
    base = np.prod(size) * 9 * image[2] * spec.stem
    if spec.fixed is not None:
        base += of(MobileLayer(spec.stem, spec.fixed, 1, ()), "k3_e1", size)
    rows = []
    for layer in spec.layers:
        rows.append(np.asarray([of(layer, name, size) for name in layer.ops], float))
        size = smaller(size, layer.stride)
    base += np.prod(size) * spec.layers[-1].outputs * spec.head + spec.head * classes
    return Mobile(tuple(rows)), float(base)
