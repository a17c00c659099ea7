"""Memory-bank networks whose 1 x 1 convolutions are generated from the architecture.

Reference: Brock, Lim, Ritchie and Weston, SMASH: One-Shot Model Architecture Search through HyperNetworks, ICLR 2018,
arXiv:1708.05344.

    banks = norm(conv)                                                           of the image, M N channels
    h     = relu(W_l relu(norm(banks)))                                          W = standardised(H(architecture)), 0 where not read
    a     = conv k x k (h);     a = tanh(a) sigmoid(conv k x k (h))              where gated
    banks = banks + norm(a)                                                      in the banks that are written
    logits = dense(mean over the map of relu(norm(banks)))                       between blocks: relu(norm), 1 x 1, mean of 2 x 2

Everything but W is shared as usual: a smaller kernel is the centre of the largest, and a dilation spreads it.  W has no norm
behind it, which is why it is standardised.  Training on random architectures trains H, so that H scores any architecture:

    net = memory_bank_net(memory_bank(), image=image, classes=10)
    train = weight_sharing(net, policies.uniform(net.space), frozen, sgd(0.1))
    search = black_box(random_search(net.space), evaluate.shared_weights(net))

Axes: L operations, M banks, N channels of a bank, G of the bottleneck, B batch, H rows, W columns, K classes.
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
from jaxnas.nets.layers import BatchNorm, Conv, Dense, Rate, to_net
from jaxnas.spaces._memory_bank import MemoryBank, MemoryBankSpec, OperationChoice, there
from jaxnas.spaces._space import Space

HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=1, out_axis=0)


class PointwiseWeights(nn.Module):
    """The weights [L, G, M, N] of every 1 x 1 convolution of an architecture; without a HyperNet they are parameters."""

    G: int
    N: int
    hyper: tuple[int, int] | None  # width and depth

    @nn.compact
    def __call__(self, gates: MemoryBank) -> jax.Array:
        reads = gates.reads[..., 1]
        if self.hyper is None:
            v = self.param("kernel", nn.initializers.normal(1.0), (len(reads), self.G, reads.shape[1], self.N), reads.dtype)
        else:
            v = HyperNet(*self.hyper, self.N, name="hyper")(embedding(gates, self.G)).transpose(2, 1, 3, 0)
        return standardised(v, reads[:, None])


def placement(spec: MemoryBankSpec) -> np.ndarray:
    """[kernels, dilations, S, largest kernel]: where in a window of S rows the largest kernel's rows go, the outer ones nowhere."""
    K = max(spec.kernels)
    offset = np.arange(K) - K // 2
    half = max(spec.dilations) * (K // 2)
    to = np.asarray(spec.dilations)[:, None] * offset  # [dilations, K]
    here = to[:, None] == np.arange(-half, half + 1)[None, :, None]  # [dilations, S, K]
    inside = abs(offset) <= np.asarray(spec.kernels)[:, None] // 2  # [kernels, K]
    return (here[None] & inside[:, None, None]).astype(np.float32)


class AnyConv(nn.Module):
    """A convolution of any kernel and dilation of the space, by gates."""

    features: int
    spec: MemoryBankSpec

    @nn.compact
    def __call__(self, x: jax.Array, gates: MemoryBank) -> jax.Array:
        K = max(self.spec.kernels)
        w = self.param("kernel", HE, (self.features, x.shape[0], K, K), x.dtype)
        rows = jnp.einsum("k,d,kdsi->si", gates.kernel, gates.dilation, jnp.asarray(placement(self.spec), x.dtype))
        return conv(x, jnp.einsum("si,ocij,tj->ocst", rows, w, rows))


class DilatedConv(nn.Module):
    """That of one architecture."""

    features: int
    kernel: int
    dilation: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = self.param("kernel", HE, (self.features, x.shape[0], self.kernel, self.kernel), x.dtype)
        return conv(x, w, dilation=self.dilation)


class BankOp(nn.Module):
    """An operation of any architecture: banks [M N, H, W, B], w [G, M, N] -> what is written [N, H, W, B]."""

    spec: MemoryBankSpec

    @nn.compact
    def __call__(self, banks: jax.Array, w: jax.Array, gates: MemoryBank, train: bool) -> jax.Array:
        (G, _, N), gated = w.shape, gates.gated[1]
        x = probe.relu(BatchNorm(name="read")(banks, train))
        x = probe.relu(conv(x, w.reshape(G, -1, 1, 1)))
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
        branch = lambda name: DilatedConv(self.N, self.made.kernel, self.made.dilation, name=name)(x)
        a = jnp.tanh(branch("conv")) * nn.sigmoid(branch("gate")) if self.made.gated else branch("conv")
        return BatchNorm(name="write")(a, train)


class MemoryBankNet(nn.Module):
    """x is [B, H, W, C], as users hold images; the result is logits [B, K]."""

    spec: MemoryBankSpec
    classes: int
    N: int
    G: int
    hyper: tuple[int, int] | None
    stem: int
    choice: tuple[OperationChoice | None, ...] | None = None  # the operations of one architecture; None: of any

    @nn.compact
    def __call__(
        self, x: jax.Array, gates: Gates = None, *, train: bool = False, path: bool = False, rate: Rate = None
    ) -> jax.Array:
        del path, rate  # there is one way to run, and no path to drop
        spec, M, N, x = self.spec, self.spec.banks, self.N, to_net(x)
        w: Any = None  # of one architecture: its operations have their own
        writes: Any = None
        if self.choice is None:
            gates = jax.tree.map(lambda g: jnp.asarray(g, x.dtype), gates)
            w = PointwiseWeights(self.G, N, self.hyper, name="pointwise")(gates)
            writes = gates.writes[..., 1] * there(gates.reads[..., 1], gates.writes[..., 1])[:, None]
        banks = BatchNorm(name="stem_norm")(Conv(M * N, self.stem, name="stem")(x), train)
        for i in range(spec.layers):
            if i and i % spec.ops == 0:
                y = probe.relu(BatchNorm(name=f"halve{i}_norm")(banks, train))
                banks = avg_pool(Conv(M * N, name=f"halve{i}")(y), 2, 2, 0)
            if self.choice is None:
                own = jax.tree.map(lambda g, i=i: g[i], gates)
                y, on = BankOp(spec, name=f"op{i}")(banks, w[i], own, train), writes[i]
            elif (made := self.choice[i]) is None:
                continue
            else:
                y = Op(made, self.G, N, name=f"op{i}")(banks[slots(made.reads, N)], train)
                on = np.isin(np.arange(M), made.writes).astype(y.dtype)
            banks = banks + per_channel(jnp.repeat(on, N)) * jnp.tile(y, (M, 1, 1, 1))
        x = probe.relu(BatchNorm(name="head_norm")(banks, train))
        return Dense(self.classes, name="classifier")(jnp.mean(x, (1, 2)).T)


def slots(banks: Sequence[int], N: int) -> np.ndarray:
    """The channels of some banks."""
    return (np.asarray(banks)[:, None] * N + np.arange(N)).ravel()


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
        channels: N of a bank.
        bottleneck: G.
        hyper: width and depth of the HyperNet.  None: the 1 x 1 weights are parameters, shared by all architectures, and
            standardised alike: what trains one architecture alone (`evaluate.population`).
        stem: kernel of the first convolution; at 1 only the operations look at more than a pixel.

    Raises:
        ValueError: for another space, an image that the blocks halve to nothing, sizes below 1 (`channels` below 2), or an even
            stem.
    """
    spec, N, G = space.spec, channels, bottleneck
    if not isinstance(spec, MemoryBankSpec):
        raise ValueError("this space has no banks (`space.spec`): a memory-bank net needs a `memory_bank` space")
    check_image(image, classes)
    if min(*image, classes, G, *(hyper or (1, 1))) < 1 or N < 2:
        raise ValueError(f"sizes must be positive, and a bank needs 2 channels: got {image}, {classes}, {N}, {G}, {hyper}")
    if stem < 1 or stem % 2 == 0:
        raise ValueError(f"the kernel of the stem needs a centre: give an odd size, got {stem}")
    if min(image[:2]) < 2 ** (spec.blocks - 1):
        raise ValueError(f"`image` is {image}: {spec.blocks} blocks need at least {2 ** (spec.blocks - 1)} rows and columns")
    module = MemoryBankNet(spec, classes, N, G, None if hyper is None else tuple(hyper), stem)

    def used(variables, gates):
        reads, on = gates.reads[..., 1], there(gates.reads[..., 1], gates.writes[..., 1])
        K = max(spec.kernels)
        inside = abs(np.arange(K) - K // 2) <= np.asarray(spec.kernels)[:, None] // 2  # [kernels, K]

        def has(names, v):
            _, layer, part, *_ = names
            if layer == "pointwise" and part == "kernel":
                return (reads * on[:, None])[:, None, :, None]
            if (i := number(layer, "op")) is None:
                return jnp.ones(())
            rows = gates.kernel[i] @ inside.astype(np.float32)
            kernel = jnp.outer(rows, rows)[None, None] * (gates.gated[i, 1] if part == "gate" else 1)
            return on[i] * {"read": jnp.repeat(reads[i], N), "write": jnp.ones(1)}.get(part, kernel)

        return mask(has, variables)

    def specialize(arch):
        ops = tuple(op if op.reads and op.writes else None for op in space.choice(arch))
        return module.clone(choice=ops), lambda variables: _extract(module, space.gates(arch), ops, variables)

    return linen(module, space, image, classes, used=used, specialize=specialize, mixes=False)


def _extract(module: MemoryBankNet, gates, ops, variables):
    """The variables of one architecture's module: the HyperNet is run once, and left behind."""
    params, N, K = variables["params"], module.N, max(module.spec.kernels)
    gates = jax.tree.map(lambda g: g.astype(params["stem"]["kernel"].dtype), gates)
    w: Any = PointwiseWeights(module.G, N, module.hyper).apply({"params": params["pointwise"]}, gates)  # [L, G, M, N]

    def kept(tree):
        out = {name: v for name, v in tree.items() if number(name, "op") is None and name != "pointwise"}
        for i, op in enumerate(ops):
            if op is None:
                continue
            centre = slice((K - op.kernel) // 2, (K + op.kernel) // 2)
            cut = {"read": lambda v, op=op: v[slots(op.reads, N)], "write": lambda v: v}
            of = lambda name, centre=centre, cut=cut: cut.get(name, lambda v: v[..., centre, centre])
            parts = {name: v for name, v in tree[f"op{i}"].items() if name != "gate" or op.gated}
            out[f"op{i}"] = {name: jax.tree.map(of(name), v) for name, v in parts.items()}
        return out

    small = {collection: kept(tree) for collection, tree in variables.items()}
    for i, op in enumerate(ops):
        if op is not None:
            point = w[i][:, np.asarray(op.reads)].reshape(module.G, -1, 1, 1)
            small["params"][f"op{i}"]["point"] = {"kernel": point}
    return small
