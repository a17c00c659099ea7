"""The three spaces of ENAS: whole networks, cells, and recurrent cells.

Reference: Pham, Guan, Zoph, Le and Dean, Efficient Neural Architecture Search via Parameter Sharing, ICML 2018, arXiv:1802.03268.

    macro   layer i = an operation, i bits: whether the output of layer j < i is added to its own
            6^L 2^(L (L - 1) / 2) networks, 1.6e29 of 12 layers
    micro   two cells of B blocks, each of two inputs and two of 5 operations: `jaxnas.spaces.blocks` without a choice of how to add
            (5^B (B + 1)!)^4 settings, 2.6e25 of 5 blocks; the paper counts (5 B!)^4 = 1.3e11
    rnn     node i = an activation and the one of nodes 1 .. i - 1 that it reads
            4^N (N - 1)! = 6.7e14 cells of 12 nodes, a quarter of them here: the first node is always a tanh

An architecture of the macro space is in the order of the controller's tokens, and `layerwise.kind` and `layerwise.anchors` say
which token is what.  Text form of a layer: the operation < what is added, as in "conv_3x3 max_pool_3x3<0 sep_conv_5x5<0,1".

Axes: L layers, B blocks, N nodes.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._darts_rnn import darts_rnn
from jaxnas.spaces._space import Space, space
from jaxnas.spaces.blocks import nasnet

MACRO_OPS = ("conv_3x3", "conv_5x5", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
MICRO_OPS = ("skip_connect", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
RNN_OPS = ("tanh", "relu", "identity", "sigmoid")

GENOTYPES = {  # the cells that the authors released, of five blocks
    "ENAS_MICRO": (
        "[avg_pool_3x3~0+sep_conv_3x3~0 skip_connect~0+sep_conv_5x5~0 skip_connect~0+sep_conv_5x5~1 "
        "sep_conv_3x3~1+sep_conv_5x5~0 avg_pool_3x3~0+sep_conv_5x5~1] "
        "[sep_conv_3x3~1+sep_conv_3x3~1 max_pool_3x3~0+avg_pool_3x3~0 sep_conv_5x5~1+sep_conv_5x5~3 "
        "sep_conv_3x3~1+skip_connect~0 max_pool_3x3~0+sep_conv_5x5~1]"
    )
}


class MacroLayer(NamedTuple):
    """An architecture is a tuple of these; the gates are its one-hot rows."""

    op: Any  # int32[]
    skip: Any  # int32[i]: 1 where the output of an earlier layer is added; None in the first


class MacroSpec(NamedTuple):
    """What a macro space tells a net."""

    layers: int
    ops: tuple[str, ...]


class MacroChoice(NamedTuple):
    """A layer of one architecture, as Python values."""

    op: str
    skips: tuple[int, ...]  # the layers whose outputs are added


@checked
def enas_macro(layers: Positive = 12, ops: tuple[str, ...] = MACRO_OPS) -> Space:
    """The space of whole networks.

    Args:
        layers: L, default 12, as the published search has it.
        ops: candidate operations by name.

    Raises:
        ValueError: for no layer, no operation, or one twice.
    """
    spec = MacroSpec(layers, tuple(ops))
    if layers < 1 or not ops or len(set(ops)) < len(ops):
        raise ValueError(f"give at least one layer, and operations that differ; got {layers} and {', '.join(ops) or 'none'}")
    base = space(tuple(MacroLayer(len(ops), np.full(i, 2) if i else None) for i in range(layers)))

    def choice(arch) -> tuple[MacroChoice, ...]:
        added = lambda skip: () if skip is None else tuple(map(int, np.flatnonzero(skip)))
        return tuple(MacroChoice(spec.ops[int(layer.op)], added(layer.skip)) for layer in arch)

    def to_text(arch):
        return " ".join(op + "<" * bool(skips) + ",".join(map(str, skips)) for op, skips in choice(arch))

    def from_text(text):
        words = text.split()
        if len(words) != layers:
            raise ValueError(f"{text!r} has {len(words)} layers; this space has {layers}")
        return tuple(parse(i, word) for i, word in enumerate(words))

    def parse(i, word) -> MacroLayer:
        op, sign, listed = word.partition("<")
        skips = listed.split(",") if sign else []
        if op not in ops:
            raise ValueError(f"layer {i} is {word!r}: its operation must be one of {', '.join(ops)}")
        if not all(j.isdecimal() and int(j) < i for j in skips):
            raise ValueError(f"layer {i} is {word!r}: write <0,1 behind the operation to add layers 0 and 1; only earlier ones")
        bits = [j in map(int, skips) for j in range(i)]
        return MacroLayer(jnp.asarray(ops.index(op), jnp.int32), jnp.asarray(bits, jnp.int32) if i else None)

    return base._replace(to_text=to_text, from_text=from_text, spec=spec, choice=choice)


@checked
def enas_micro(blocks: Positive = 5, ops: tuple[str, ...] = MICRO_OPS) -> Space:
    """The space of a normal and a reduction cell; `from_text` knows the released ENAS_MICRO.

    Args:
        blocks: B, default 5 (the paper's 7 nodes are these and the two inputs).
        ops: candidate operations by name.

    Raises:
        ValueError: as `nasnet`.
    """
    base = nasnet(blocks, ops, ("add",))
    return base._replace(from_text=lambda text: base.from_text(GENOTYPES.get(text.strip(), text)))


@checked
def enas_rnn(nodes: Positive = 12) -> Space:
    """The space of recurrent cells, as DARTS's: its fixed first state is ENAS's node 1, and all nodes are averaged, not the
    loose ends alone.

    Args:
        nodes: N, default 12, the first included.

    Raises:
        ValueError: for fewer than 2 nodes.
    """
    if nodes < 2:
        raise ValueError(f"a cell needs the first node and one more; got nodes={nodes}")
    return darts_rnn(nodes - 1, RNN_OPS)
