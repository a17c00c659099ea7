"""The memory-bank space: a network is what its operations read from, and add to, a few banks of channels.

Reference: Brock, Lim, Ritchie and Weston, SMASH: One-Shot Model Architecture Search through HyperNetworks, ICLR 2018,
arXiv:1708.05344, section 3.1.

    operation l:   bank_b <- bank_b + f_l(the banks that it reads, concatenated)     for each bank b that it writes
    f_l            = conv k x k, dilated, in groups (bottleneck);  gated: tanh(conv) sigmoid(another conv)

A residual network reads and writes one bank; a densely connected one reads all banks so far and writes a new one.  An operation
that reads no bank, or writes none, is not there: `canonical` forgets the rest of it.  A block's operations work at one
resolution; between blocks it is halved.

A block's banks have one size, which may be a decision of its own, a multiple of the net's channels; so may be the groups of each
operation's convolution.

Not as published: the number of banks is the same in every block, whatever their size (published: their channels are, in sum); the
bottleneck's width, activations and branches beyond the gate are not searched.

Text form, an operation a word: banks read > banks written : kernel, dilation, groups where they are searched, * where gated, as in
"0,2>1:k3d2* 1>0,3:k1"; where sizes are searched, a word a block in front of them, as in "x2 x1 0,2>1:k3d2g4* 1>0,3:k1g1".

Axes: L operations of all blocks, M banks.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space, derived


class MemoryBank(NamedTuple):
    """An architecture; the gates are its one-hot rows."""

    reads: Any  # int32[L, M]: 1 where operation l reads bank m
    writes: Any  # int32[L, M]
    kernel: Any  # int32[L]
    dilation: Any  # int32[L]; matters where the kernel is larger than 1
    gated: Any  # int32[L]
    groups: Any = None  # int32[L]; None: one number of groups, nothing to decide
    size: Any = None  # int32[blocks], of the banks; None: one size


class MemoryBankSpec(NamedTuple):
    """What a memory-bank space tells a net."""

    ops: int  # of a block
    banks: int
    blocks: int
    kernels: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: tuple[int, ...] = (1,)
    sizes: tuple[int, ...] = (1,)  # of a bank, in multiples of the net's channels

    @property
    def layers(self) -> int:
        """L."""
        return self.ops * self.blocks


class OperationChoice(NamedTuple):
    """An operation of one architecture, as Python numbers."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    kernel: int
    dilation: int
    gated: bool
    groups: int = 1


@checked
def memory_bank(
    ops: Positive = 3,
    banks: Positive = 4,
    *,
    blocks: Positive = 1,
    kernels: tuple[Positive, ...] = (1, 3, 5),
    dilations: tuple[Positive, ...] = (1, 2),
    groups: tuple[Positive, ...] = (1,),
    sizes: tuple[Positive, ...] = (1,),
) -> Space:
    """The space of memory-bank networks.

    Args:
        ops: operations of a block, default 3.
        banks: M, default 4.
        blocks: of one resolution each, default 1.
        kernels: odd sizes; published: up to 7.
        dilations: published: up to 3.
        groups: of an operation's convolution; published: 1, 2, 4, 8.
        sizes: of a block's banks, in multiples of the net's channels; published: 1 to 8.

    Raises:
        ValueError: for numbers below 1, an even kernel, or a list that is empty or repeats a value.
    """
    spec = MemoryBankSpec(ops, banks, blocks, *map(tuple, (kernels, dilations, groups, sizes)))
    for name, values in spec._asdict().items():
        listed = values if isinstance(values, tuple) else (values,)
        if min(listed, default=0) < 1 or len(set(listed)) < len(listed):
            raise ValueError(f"`{name}` needs positive numbers, each once; got {values}")
    if any(k % 2 == 0 for k in spec.kernels):
        raise ValueError(f"kernels need a centre: give odd sizes, got {kernels}")
    L, both = spec.layers, np.full((spec.layers, banks), 2)
    arity = MemoryBank(
        *(both, both, *(np.full(L, n) for n in (len(spec.kernels), len(spec.dilations), 2))),
        groups=np.full(L, len(spec.groups)) if len(spec.groups) > 1 else None,
        size=np.full(blocks, len(spec.sizes)) if len(spec.sizes) > 1 else None,
    )
    first = 2 * L * banks  # the first kernel
    parent = np.full(sum(field.size for field in arity if field is not None), -1)
    parent[first + L : first + 2 * L] = first + np.arange(L)  # a dilation's is its operation's kernel
    when = np.ones((len(parent), max(map(len, (range(2), *spec[3:])))), bool)
    when[first + L : first + 2 * L, : len(spec.kernels)] = np.asarray(spec.kernels) > 1
    base = derived(arity, parent=parent, when=when)

    def canonical(arch):
        on = there(arch.reads, arch.writes)  # [L]
        blank = lambda a: a * on.reshape(-1, *[1] * (a.ndim - 1))
        return base.canonical(jax.tree.map(blank, arch._replace(size=None))._replace(size=arch.size))

    def choice(arch) -> tuple[OperationChoice, ...]:
        which = lambda bits: tuple(map(int, np.flatnonzero(bits)))
        grouped = np.zeros(L, int) if arch.groups is None else arch.groups
        return tuple(
            OperationChoice(
                *(which(reads), which(writes), spec.kernels[int(kernel)], spec.dilations[int(dilation)], bool(gated)),
                groups=spec.groups[int(group)],
            )
            for reads, writes, kernel, dilation, gated, group in zip(*map(np.asarray, (*arch[:5], grouped)), strict=True)
        )

    def to_text(arch):
        return " ".join([*(f"x{n}" for n in bank_sizes(spec, arch) if arch.size is not None), *map(one, choice(arch))])

    def one(op: OperationChoice) -> str:
        banks = lambda which: ",".join(map(str, which))
        dilation = f"d{op.dilation}" if op.kernel > 1 else ""
        group = f"g{op.groups}" if arity.groups is not None else ""
        return f"{banks(op.reads)}>{banks(op.writes)}:k{op.kernel}{dilation}{group}{'*' * op.gated}"

    def from_text(text):
        words = text.split()
        ahead = 0 if arity.size is None else blocks
        if len(words) != ahead + L:
            more = f" behind {ahead} sizes" if ahead else ""
            raise ValueError(f"{text!r} has {len(words)} words; this space has {L} operations{more}")
        size = [parse_size(b, word) for b, word in enumerate(words[:ahead])]
        rows = [parse(i, word) for i, word in enumerate(words[ahead:])]
        whole = lambda values: jnp.asarray(values, jnp.int32)
        reads, writes, kernel, dilation, gated, group = map(whole, zip(*rows, strict=True))
        group, size = (None if arity.groups is None else group), (whole(size) if ahead else None)
        return base.canonical(MemoryBank(reads, writes, kernel, dilation, gated, group, size))

    def parse_size(b, word):
        match = re.fullmatch(r"x(\d+)", word)
        if not match or int(match[1]) not in spec.sizes:
            raise ValueError(f"the banks of block {b} are {word!r}: write one of {', '.join(f'x{n}' for n in spec.sizes)}")
        return spec.sizes.index(int(match[1]))

    def parse(i, word):
        match = re.fullmatch(r"([\d,]*)>([\d,]*):k(\d+)(?:d(\d+))?(?:g(\d+))?(\*?)", word)
        if not match or (match[5] is None) != (arity.groups is None):
            form = "0,2>1:k3d2" + ("" if arity.groups is None else f"g{spec.groups[0]}")
            raise ValueError(f"operation {i} is {word!r}: write {form}, and a * behind it for a gate")
        read, written = ({int(m) for m in part.split(",") if m} for part in match.groups()[:2])
        kernel, dilation = int(match[3]), int(match[4] or spec.dilations[0])
        group = int(match[5] or spec.groups[0])
        known = kernel in spec.kernels and dilation in spec.dilations and group in spec.groups
        if max(read | written, default=0) >= banks or not known:
            limits = f"banks 0 to {banks - 1}, kernels {spec.kernels}, dilations {spec.dilations}, groups {spec.groups}"
            raise ValueError(f"operation {i} is {word!r}: this space has {limits}")
        bits = lambda which: [int(m in which) for m in range(banks)]
        made = spec.kernels.index(kernel), spec.dilations.index(dilation), len(match[6]), spec.groups.index(group)
        return bits(read), bits(written), *made

    return base._replace(canonical=canonical, to_text=to_text, from_text=from_text, spec=spec, choice=choice)


def there(reads: jax.Array, writes: jax.Array) -> jax.Array:
    """1 where an operation reads a bank and writes one, of reads and writes [L, M]."""
    return jnp.max(reads, 1) * jnp.max(writes, 1)


def bank_sizes(spec: MemoryBankSpec, arch: MemoryBank) -> tuple[int, ...]:
    """Of the banks of each block of one architecture, in multiples of the net's channels."""
    if arch.size is None:
        return (spec.sizes[0],) * spec.blocks
    return tuple(spec.sizes[int(i)] for i in np.asarray(arch.size))
