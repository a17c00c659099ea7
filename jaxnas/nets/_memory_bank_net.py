"""Memory-bank networks whose 1 x 1 convolutions are generated from the architecture.

Reference: Brock, Lim, Ritchie and Weston, SMASH: One-Shot Model Architecture Search through HyperNetworks, ICLR 2018,
arXiv:1708.05344.

    banks = norm(conv)                                                           of the image, M banks of N channels
    h     = relu(W_l relu(norm(banks)))                                          W = standardised(H(architecture)), 0 where not read
    a     = conv k x k (h);     a = tanh(a) sigmoid(conv k x k (h))              where gated
    banks = banks + norm(a)                                                      in the banks that are written
    logits = dense(mean over the map of relu(norm(banks)))                       between blocks: relu(norm), 1 x 1, mean of 2 x 2

Everything but W is shared as usual: a smaller kernel is the centre of the largest, and a dilation spreads it; in g groups, an
output reads its group's G / g inputs by the first G / g of its weights; a smaller bank has the first channels of the largest, at
multiples of `channels`.  W has no norm behind it, which is why it is standardised.  Training on random architectures trains H, so
that H scores any architecture:

    net = memory_bank_net(memory_bank(), image=image, classes=10)
    train = weight_sharing(net, policies.uniform(net.space), frozen, sgd(0.1))
    search = black_box(random_search(net.space), evaluate.shared_weights(net))

Axes: L operations, M banks, N channels of the largest bank, G of the bottleneck, B batch, H rows, W columns, K classes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import Image, checked
from jaxnas.kinds import Positive
from jaxnas.nets import probe
from jaxnas.nets.base import Gates, Net, check_image, linen, mask, number
from jaxnas.nets.convolution import avg_pool, conv, per_channel
from jaxnas.nets.hyper_net import HyperNet, embedding, standardised
from jaxnas.nets.layers import BatchNorm, Conv, Logits, Rate, to_net
from jaxnas.nets.precision import at_least_float32, parameter, scaled
from jaxnas.spaces._memory_bank import MemoryBank, MemoryBankSpec, OperationChoice, bank_sizes, there
from jaxnas.spaces._space import Space

HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=1, out_axis=0)


class PointwiseWeights(nn.Module):
    """The weights [L, G, M, N] of every 1 x 1 convolution of an architecture; without a HyperNet they are parameters."""

    G: int
    N: int
    hyper: tuple[int, int] | None  # width and depth

    @nn.compact
    def __call__(self, gates: MemoryBank, wide: jax.Array | None = None) -> jax.Array:
        """wide [L, N]: 1 for the channels that an operation's banks have; None: all."""
        reads = gates.reads[..., 1]
        if self.hyper is None:
            v = self.param("kernel", nn.initializers.normal(1.0), (len(reads), self.G, reads.shape[1], self.N), reads.dtype)
        else:
            v = HyperNet(*self.hyper, self.N, name="hyper")(embedding(gates, self.G)).transpose(2, 1, 3, 0)
        return standardised(v, reads[:, None], None if wide is None else wide[:, None, None])


def placement(spec: MemoryBankSpec) -> np.ndarray:
    """[kernels, dilations, S, largest kernel]: where in a window of S rows the largest kernel's rows go, the outer ones nowhere."""
    K = max(spec.kernels)
    offset = np.arange(K) - K // 2
    half = max(spec.dilations) * (K // 2)
    to = np.asarray(spec.dilations)[:, None] * offset  # [dilations, K]
    here = to[:, None] == np.arange(-half, half + 1)[None, :, None]  # [dilations, S, K]
    inside = abs(offset) <= np.asarray(spec.kernels)[:, None] // 2  # [kernels, K]
    return (here[None] & inside[:, None, None]).astype(np.float32)


def channels_there(spec: MemoryBankSpec, gates: MemoryBank, N: int) -> jax.Array | None:
    """[blocks, N]: 1 for the channels that a block's banks have, of the N of the largest; None: all have them."""
    if gates.size is None:
        return None
    return gates.size @ (np.arange(N) * max(spec.sizes) < N * np.asarray(spec.sizes)[:, None]).astype(np.float32)


def dense_kernel(spec: MemoryBankSpec, w: jax.Array, gates: MemoryBank) -> jax.Array:
    """The kernel [N, G, k, k] of one operation's gates that is 0 between its groups, and in channels that its banks lack."""
    N, G, *_ = w.shape
    if spec.groups == (1,) and gates.size is None:
        return w
    o, c, total = np.arange(N)[:, None], np.arange(G), jnp.zeros_like(w)
    for k, g in enumerate(spec.groups):
        n = [N * size // max(spec.sizes) for size in (spec.sizes if gates.size is not None else (max(spec.sizes),))]
        table = np.stack([(o < n) & (o * g // n == c * g // G) for n in n]).astype(np.float32)  # [sizes, N, G]
        on = jnp.asarray(table[0]) if gates.size is None else jnp.einsum("s,soc->oc", gates.size, table)
        on = on if gates.groups is None else gates.groups[k] * on
        total = total + w[:, c % (G // g)] * on[:, :, None, None].astype(w.dtype)
    return total


class AnyConv(nn.Module):
    """A convolution of any kernel, dilation and groups of the space, by gates."""

    features: int
    spec: MemoryBankSpec

    @nn.compact
    def __call__(self, x: jax.Array, gates: MemoryBank) -> jax.Array:
        K = max(self.spec.kernels)
        w = self.param("kernel", HE, (self.features, x.shape[0], K, K), at_least_float32(x.dtype))
        w = dense_kernel(self.spec, w, gates)
        rows = jnp.einsum("k,d,kdsi->si", gates.kernel, gates.dilation, jnp.asarray(placement(self.spec), w.dtype))
        return conv(x, jnp.einsum("si,ocij,tj->ocst", rows, w, rows).astype(x.dtype))


class DilatedConv(nn.Module):
    """That of one architecture."""

    features: int
    kernel: int
    dilation: int
    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = parameter(self, "kernel", HE, (self.features, x.shape[0] // self.groups, self.kernel, self.kernel), x.dtype)
        parts = zip(jnp.split(x, self.groups), jnp.split(w, self.groups), strict=True)
        each = [conv(*part, dilation=self.dilation) for part in parts]
        return jnp.concatenate(each) if len(each) > 1 else each[0]


class BankOp(nn.Module):
    """An operation of any architecture: banks [M N, H, W, B], w [G, M, N] -> what is written [N, H, W, B]."""

    spec: MemoryBankSpec

    @nn.compact
    def __call__(self, banks: jax.Array, w: jax.Array, gates: MemoryBank, train: bool) -> jax.Array:
        (G, _, N), gated = w.shape, gates.gated[1].astype(banks.dtype)
        x = probe.relu(BatchNorm(name="read")(banks, train))
        x = probe.relu(conv(x, w.reshape(G, -1, 1, 1).astype(x.dtype)))
        a = AnyConv(N, self.spec, name="conv")(x, gates)
        b = AnyConv(N, self.spec, name="gate")(x, gates)
        return BatchNorm(name="write")((1 - gated) * a + gated * jnp.tanh(a) * nn.sigmoid(b), train)


class Op(nn.Module):
    """An operation of one architecture, with a 1 x 1 convolution of its own; it is given the banks that it reads."""

    made: OperationChoice
    G: int
    N: int

    @nn.compact
    def __call__(self, banks: jax.Array, train: bool) -> jax.Array:
        x = probe.relu(BatchNorm(name="read")(banks, train))
        x = probe.relu(Conv(self.G, name="point")(x))
        branch = lambda name: DilatedConv(self.N, self.made.kernel, self.made.dilation, self.made.groups, name=name)(x)
        a = jnp.tanh(branch("conv")) * nn.sigmoid(branch("gate")) if self.made.gated else branch("conv")
        return BatchNorm(name="write")(a, train)


class MemoryBankNet(nn.Module):
    """x is [B, H, W, C], as users hold images; the result is logits [B, K]."""

    spec: MemoryBankSpec
    classes: int
    N: int  # of the largest bank
    G: int
    hyper: tuple[int, int] | None
    stem: int
    choice: tuple[OperationChoice | None, ...] | None = None  # the operations of one architecture; None: of any
    wide: tuple[int, ...] | None = None  # channels of its banks, block by block; None: N

    @nn.compact
    def __call__(
        self, x: jax.Array, gates: Gates = None, *, train: bool = False, path: bool = False, rate: Rate = None
    ) -> jax.Array:
        del path, rate  # there is one way to run, and no path to drop
        spec, M, x = self.spec, self.spec.banks, to_net(x)
        wide = self.wide or (self.N,) * spec.blocks
        w: Any = None  # of one architecture: its operations have their own
        writes: Any = None
        on: Any = None  # [blocks, N], the channels of its banks; None: it has all
        if self.choice is None:
            gates = jax.tree.map(lambda g: jnp.asarray(g, at_least_float32(x.dtype)), gates)
            on = channels_there(spec, gates, self.N)
            of_op = None if on is None else jnp.repeat(on, spec.ops, 0)
            w = PointwiseWeights(self.G, self.N, self.hyper, name="pointwise")(gates, of_op)
            writes = gates.writes[..., 1] * there(gates.reads[..., 1], gates.writes[..., 1])[:, None]
        kept = lambda y, b: y if on is None else scaled(y, per_channel(jnp.tile(on[b], len(y) // self.N)))  # a bank, or all of them
        banks = kept(BatchNorm(name="stem_norm")(Conv(M * wide[0], self.stem, name="stem")(x), train), 0)
        for i in range(spec.layers):
            b, N = i // spec.ops, wide[i // spec.ops]
            if i and i % spec.ops == 0:
                y = kept(probe.relu(BatchNorm(name=f"halve{i}_norm")(banks, train)), b - 1)
                banks = kept(avg_pool(Conv(M * N, name=f"halve{i}")(y), 2, 2, 0), b)
            if self.choice is None:
                y = kept(BankOp(spec, name=f"op{i}")(banks, w[i], gates_of(gates, i, spec), train), b)
                written = writes[i].astype(y.dtype)
            elif (made := self.choice[i]) is None:
                continue
            else:
                y = Op(made, self.G, N, name=f"op{i}")(banks[slots(made.reads, N, N)], train)
                written = np.isin(np.arange(M), made.writes).astype(y.dtype)
            banks = banks + per_channel(jnp.repeat(written, N)) * jnp.tile(y, (M, 1, 1, 1))
        x = kept(probe.relu(BatchNorm(name="head_norm")(banks, train)), spec.blocks - 1)
        return Logits(self.classes, name="classifier")(jnp.mean(x, (1, 2)).T)


def gates_of(gates: MemoryBank, i: int, spec: MemoryBankSpec) -> MemoryBank:
    """Those of operation i, with the size of its block's banks."""
    own = jax.tree.map(lambda g: g[i], gates._replace(size=None))
    return own if gates.size is None else own._replace(size=gates.size[i // spec.ops])


def slots(banks: Sequence[int], N: int, n: int) -> np.ndarray:
    """The first n channels of some banks of N."""
    return (np.asarray(banks)[:, None] * N + np.arange(n)).ravel()


@checked
def memory_bank_net(
    space: Space,
    *,
    image: Image,
    classes: Positive,
    channels: Positive = 8,
    bottleneck: Positive = 16,
    hyper: tuple[Positive, Positive] | None = (32, 4),
    stem: Positive = 3,
) -> Net:
    """The network of any architecture of a memory-bank space.  `apply` computes the one of its one-hot gates.

    Args:
        space: `memory_bank(...)`.
        image: (H, W, C) of the examples.
        classes: number of classes.
        channels: of a bank of size 1.
        bottleneck: G.
        hyper: width and depth of the HyperNet.  None: the 1 x 1 weights are parameters, shared by all architectures, and
            standardised alike: what trains one architecture alone (`evaluate.population`).
        stem: kernel of the first convolution; at 1 only the operations look at more than a pixel.

    Raises:
        ValueError: for another space, an image that the blocks halve to nothing, sizes below 1 (`channels` below 2), channels or
            a bottleneck that the groups do not divide, or an even stem.
    """
    spec, G = space.spec, bottleneck
    if not isinstance(spec, MemoryBankSpec):
        raise ValueError("this space has no banks (`space.spec`): a memory-bank net needs a `memory_bank` space")
    check_image(image, classes)
    if min(*image, classes, G, *(hyper or (1, 1))) < 1 or channels < 2:
        raise ValueError(f"sizes must be positive, and a bank needs 2 channels: got {image}, {classes}, {channels}, {G}, {hyper}")
    if any(channels % g or G % g for g in spec.groups):
        raise ValueError(f"groups of {spec.groups} must divide `channels` and `bottleneck`: got {channels} and {G}")
    if stem < 1 or stem % 2 == 0:
        raise ValueError(f"the kernel of the stem needs a centre: give an odd size, got {stem}")
    if min(image[:2]) < 2 ** (spec.blocks - 1):
        raise ValueError(f"`image` is {image}: {spec.blocks} blocks need at least {2 ** (spec.blocks - 1)} rows and columns")
    N, M = channels * max(spec.sizes), spec.banks
    module = MemoryBankNet(spec, classes, N, G, None if hyper is None else tuple(hyper), stem)

    def used(variables, gates):
        reads, on = gates.reads[..., 1], there(gates.reads[..., 1], gates.writes[..., 1])
        K = max(spec.kernels)
        inside = abs(np.arange(K) - K // 2) <= np.asarray(spec.kernels)[:, None] // 2  # [kernels, K]
        first = np.arange(G) < G // np.asarray(spec.groups)[:, None]  # [groups, G]
        wide = channels_there(spec, gates, N)
        one = lambda b: jnp.ones(N) if wide is None else wide[b]  # of one bank of a block
        each = lambda b: jnp.tile(one(b), M)

        def around(layer, part):
            """What is there of a leaf outside the operations."""
            if layer == "pointwise" and part == "kernel":
                wanted = (reads * on[:, None])[:, None, :, None]
                return wanted if wide is None else wanted * jnp.repeat(wide, spec.ops, 0)[:, None, None]
            if layer in ("stem", "stem_norm"):
                return each(0)
            if (i := number(layer.removesuffix("_norm"), "halve")) is not None:
                before, after = each(i // spec.ops - 1), each(i // spec.ops)
                return before if layer.endswith("_norm") else jnp.outer(after, before)
            if layer == "head_norm" or (layer, part) == ("classifier", "kernel"):
                return each(spec.blocks - 1)
            return jnp.ones(())

        def has(names, v):
            _, layer, part, *_ = names
            if (i := number(layer, "op")) is None:
                return around(layer, part)
            b = i // spec.ops
            if part == "read":
                return on[i] * jnp.repeat(reads[i], N) * each(b)
            if part == "write":
                return on[i] * one(b)
            rows = gates.kernel[i] @ inside.astype(np.float32)
            groups = first[0].astype(np.float32) if gates.groups is None else gates.groups[i] @ first.astype(np.float32)
            centre = jnp.outer(rows, rows) * (gates.gated[i, 1] if part == "gate" else 1)
            return on[i] * jnp.outer(one(b), groups)[:, :, None, None] * centre[None, None]

        return mask(has, variables)

    def specialize(arch):
        ops = tuple(op if op.reads and op.writes else None for op in space.choice(arch))
        small = module.clone(choice=ops, wide=tuple(channels * size for size in bank_sizes(spec, arch)))
        return small, lambda variables: _extract(small, space.gates(arch), variables)

    return linen(module, space, image, classes, used=used, specialize=specialize, mixes=False)


def _extract(small: MemoryBankNet, gates, variables):
    """The variables of one architecture's module: the HyperNet is run once, and left behind."""
    spec, params, N, G, K = small.spec, variables["params"], small.N, small.G, max(small.spec.kernels)
    gates = jax.tree.map(lambda g: g.astype(params["stem"]["kernel"].dtype), gates)
    on = channels_there(spec, gates, N)
    of_op = None if on is None else jnp.repeat(on, spec.ops, 0)
    w: Any = PointwiseWeights(G, N, small.hyper).apply({"params": params["pointwise"]}, gates, of_op)  # [L, G, M, N]
    wide, ops = small.wide or (), small.choice or ()
    all_of = lambda b: slots(range(spec.banks), N, wide[b])

    def around(name, tree):
        """The channels of what lies outside the operations."""
        if (i := number(name.removesuffix("_norm"), "halve")) is not None:
            before, after = all_of(i // spec.ops - 1), all_of(i // spec.ops)
            return jax.tree.map(lambda v: v[before] if v.ndim == 1 else v[after][:, before], tree)
        if name == "classifier":
            return {**tree, "kernel": tree["kernel"][all_of(-1)]}
        return jax.tree.map(lambda v: v[all_of(-1 if name == "head_norm" else 0)], tree)

    def own(i, op, tree):
        """An operation's parts."""
        n, centre = wide[i // spec.ops], slice((K - op.kernel) // 2, (K + op.kernel) // 2)
        cut = {"read": lambda v: v[slots(op.reads, N, n)], "write": lambda v: v[:n]}
        kernel = lambda v: v[:n, : G // op.groups, centre, centre]
        parts = {name: v for name, v in tree.items() if name != "gate" or op.gated}
        return {name: jax.tree.map(cut.get(name, kernel), v) for name, v in parts.items()}

    def kept(tree):
        out = {name: around(name, v) for name, v in tree.items() if number(name, "op") is None and name != "pointwise"}
        return out | {f"op{i}": own(i, op, tree[f"op{i}"]) for i, op in enumerate(ops) if op is not None}

    found = {collection: kept(tree) for collection, tree in variables.items()}
    for i, op in enumerate(ops):
        if op is not None:
            point = w[i][:, np.asarray(op.reads), : wide[i // spec.ops]].reshape(G, -1, 1, 1)
            found["params"][f"op{i}"]["point"] = {"kernel": point}
    return found
