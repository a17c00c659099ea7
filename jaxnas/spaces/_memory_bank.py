"""The memory-bank space: a network is what its operations read from, and add to, a few banks of channels.

Reference: Brock, Lim, Ritchie and Weston, SMASH: One-Shot Model Architecture Search through HyperNetworks, ICLR 2018,
arXiv:1708.05344, section 3.1.

    operation l:   bank_b <- bank_b + f_l(the banks that it reads, concatenated)     for each bank b that it writes
    f_l            = conv k x k, dilated (bottleneck);  gated: tanh(conv) sigmoid(another conv)

A residual network reads and writes one bank; a densely connected one reads all banks so far and writes a new one.  An operation
that reads no bank, or writes none, is not there: `canonical` forgets the rest of it.  A block's operations work at one
resolution; between blocks it is halved.

Not as published: the number of banks and of channels is the same in every block, and not searched; nor are groups, widths,
activations and branches beyond the gate.

Text form, an operation a word: banks read > banks written : kernel, dilation, * where gated, as in "0,2>1:k3d2* 1>0,3:k1".

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


class MemoryBankSpec(NamedTuple):
    """What a memory-bank space tells a net."""

    ops: int  # of a block
    banks: int
    blocks: int
    kernels: tuple[int, ...]
    dilations: tuple[int, ...]

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


@checked
def memory_bank(
    ops: Positive = 3,
    banks: Positive = 4,
    *,
    blocks: Positive = 1,
    kernels: tuple[Positive, ...] = (1, 3, 5),
    dilations: tuple[Positive, ...] = (1, 2),
) -> Space:
    """The space of memory-bank networks.

    Args:
        ops: operations of a block, default 3.
        banks: M, default 4.
        blocks: of one resolution each, default 1.
        kernels: odd sizes; published: up to 7.
        dilations: published: up to 3.

    Raises:
        ValueError: for numbers below 1, an even kernel, or a list that is empty or repeats a value.
    """
    spec = MemoryBankSpec(ops, banks, blocks, tuple(kernels), tuple(dilations))
    for name, values in spec._asdict().items():
        listed = values if isinstance(values, tuple) else (values,)
        if min(listed, default=0) < 1 or len(set(listed)) < len(listed):
            raise ValueError(f"`{name}` needs positive numbers, each once; got {values}")
    if any(k % 2 == 0 for k in spec.kernels):
        raise ValueError(f"kernels need a centre: give odd sizes, got {kernels}")
    L, both = spec.layers, np.full((spec.layers, banks), 2)
    arity = MemoryBank(both, both, *(np.full(L, n) for n in (len(spec.kernels), len(spec.dilations), 2)))
    first = 2 * L * banks  # the first kernel
    parent = np.full(first + 3 * L, -1)
    parent[first + L : first + 2 * L] = first + np.arange(L)  # a dilation's is its operation's kernel
    when = np.ones((len(parent), max(2, len(spec.kernels), len(spec.dilations))), bool)
    when[first + L : first + 2 * L, : len(spec.kernels)] = np.asarray(spec.kernels) > 1
    base = derived(arity, parent=parent, when=when)

    def canonical(arch):
        on = there(arch.reads, arch.writes)  # [L]
        blank = lambda a: a * on.reshape(-1, *[1] * (a.ndim - 1))
        return base.canonical(MemoryBank(*map(blank, arch)))

    def choice(arch) -> tuple[OperationChoice, ...]:
        which = lambda bits: tuple(map(int, np.flatnonzero(bits)))
        return tuple(
            OperationChoice(which(reads), which(writes), spec.kernels[int(kernel)], spec.dilations[int(dilation)], bool(gated))
            for reads, writes, kernel, dilation, gated in zip(*map(np.asarray, arch), strict=True)
        )

    def to_text(arch):
        return " ".join(map(one, choice(arch)))

    def one(op: OperationChoice) -> str:
        banks = lambda which: ",".join(map(str, which))
        dilation = f"d{op.dilation}" if op.kernel > 1 else ""
        return f"{banks(op.reads)}>{banks(op.writes)}:k{op.kernel}{dilation}{'*' * op.gated}"

    def from_text(text):
        words = text.split()
        if len(words) != L:
            raise ValueError(f"{text!r} has {len(words)} operations; this space has {L}")
        rows = [parse(i, word) for i, word in enumerate(words)]
        return base.canonical(MemoryBank(*(jnp.asarray(field, jnp.int32) for field in zip(*rows, strict=True))))

    def parse(i, word):
        match = re.fullmatch(r"([\d,]*)>([\d,]*):k(\d+)(?:d(\d+))?(\*?)", word)
        if not match:
            raise ValueError(f"operation {i} is {word!r}: write 0,2>1:k3d2, and a * behind it for a gate")
        read, written = ({int(m) for m in part.split(",") if m} for part in match.groups()[:2])
        kernel, dilation = int(match[3]), int(match[4] or spec.dilations[0])
        if max(read | written, default=0) >= banks or kernel not in spec.kernels or dilation not in spec.dilations:
            limits = f"banks 0 to {banks - 1}, kernels {spec.kernels}, dilations {spec.dilations}"
            raise ValueError(f"operation {i} is {word!r}: this space has {limits}")
        bits = lambda which: [int(m in which) for m in range(banks)]
        sizes = spec.kernels.index(kernel), spec.dilations.index(dilation)
        return bits(read), bits(written), *sizes, len(match[5])

    return base._replace(canonical=canonical, to_text=to_text, from_text=from_text, spec=spec, choice=choice)


def there(reads: jax.Array, writes: jax.Array) -> jax.Array:
    """1 where an operation reads a bank and writes one, of reads and writes [L, M]."""
    return jnp.max(reads, 1) * jnp.max(writes, 1)
