"""Networks that are programs of their own: nothing is shared between them, and each is compiled as what it is.

A supernet computes any architecture of a space by one program; where widths, depths and kinds of block are searched, one program
would compute the largest of everything.  These are built one by one.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax

from jaxnas.base import Arch
from jaxnas.spaces._space import Space


class Cost(NamedTuple):
    """Of one network."""

    params: jax.Array  # float32[]
    macs: jax.Array  # float32[]: multiply-adds of convolutions and dense layers, for one example


class Blueprints(NamedTuple):
    """How the networks of a space are built; for the tables a net, which methods with shared weights refuse."""

    space: Space  # whose `choice` has `network`, what a program is compiled from, and `training`
    image: tuple[int, ...]  # the shape of an example
    classes: int  # outputs
    build: Callable[[Any], nn.Module]  # choice -> the module
    cost: Callable[[Arch], Cost]  # traceable
    families: Mapping[str, tuple[Arch, ...]]  # hand-made networks, from the cheapest to the dearest of each family
    recipes: tuple[str, ...]  # trainings, as the space writes them, that the hand-made networks are tried with
    optimizer: Literal["sgd", "adam"] = "sgd"  # of `jaxnas.training.members.RULES`
    epochs: int = 30  # of a training, where there is time
    mixes: bool = False
    macs: None = None  # gates would say too little
