"""Multiply-adds of cell networks: each operation of each edge has its own, so that an architecture's are a weighted sum.

    macs(gates) = skeleton + sum over cells, edges e and operations o of gates[e, o] * cost[e, o]

Operations are counted as `jaxnas.proxies.flops` counts them, those of convolutions and dense layers of one example.

Axes: E edges, O operations, C channels, H rows, W columns.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.nets import probe
from jaxnas.nets.base import Gates
from jaxnas.nets.cell_module import CellNet


def multiply_adds(module: nn.Module, x: tuple[int, ...], *args: Any, **how: Any) -> int:
    """Of a module that is called with an array of shape x, one example, and with what else it takes."""
    counted = []

    def linear(tap, y, n):
        counted.append(n * y.size)
        return y

    with probe.probing_alone(probe.Probe(linear=linear)):
        example = jax.ShapeDtypeStruct(x, jnp.float32)
        jax.eval_shape(lambda key, x: module.init_with_output(key, x, *args, **how), jax.random.key(0), example)
    return sum(counted)


def tables(module: CellNet, image: tuple[int, int, int]) -> tuple[int, dict[str, np.ndarray]]:
    """(what every architecture has, kind -> float32[E, O]) of a supernet whose cells have edges."""
    spec: Any = module.spec
    K = module.partial
    skeleton = module.clone(choice=flax.core.FrozenDict({kind: () for kind in spec.kinds or ("cell",)}))
    (H, W), names = image[:2], list(module.ops)
    costs = {kind: np.zeros((len(spec.edges), len(names)), np.float32) for kind in spec.kinds or ("cell",)}

    @functools.cache
    def of(name: str, features: int, stride: int, size: tuple[int, int]) -> int:
        op = module.ops[name](features // K, stride, module.affine).clone(parent=None)
        return 0 if name == "none" else multiply_adds(op, (features // K, *size, 1), False)

    for kind, features, stride in module.layout:
        halved = -(-H // stride), -(-W // stride)
        for e, (source, _) in enumerate(spec.edges if kind in costs else ()):
            outer = source < spec.inputs
            for o, name in enumerate(names):
                costs[kind][e, o] += of(name, features, *((stride, (H, W)) if outer else (1, halved)))
        H, W = halved
    return multiply_adds(skeleton, (1, *image)), costs


def cell_macs(module: CellNet, image: tuple[int, int, int], kinds: Callable[[Gates], Mapping[str, jax.Array]]) -> Callable:
    """`Net.macs` of a supernet whose cells have edges; counted when it is first called.

    Args:
        module: the supernet.
        image: (H, W, C).
        kinds: gates -> kind -> [E, O].
    """
    counted = functools.cache(lambda: tables(module, image))

    def macs(gates: Gates) -> jax.Array:
        base, costs = counted()
        varied: Any = sum(jnp.sum(costs[kind] * g) for kind, g in kinds(gates).items())
        return jnp.asarray(base + varied, jnp.float32)

    return macs
