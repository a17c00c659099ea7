"""The candidate operations: a table of named constructors.

An operation is a Flax module for ONE edge, `op(x [C, H, W, B], train) -> [C, H / stride, W / stride, B]`, built by
`OPS[name](features, stride, affine)`.  One that ends in a BatchNorm returns it unapplied (`layers.Affine`): its scale is
then one with the edge's weight.  `affine` is False inside a search net, so that no BatchNorm scale can undo an
architecture weight.  One of your own joins by `OPS.register("mine", build)`, or for one net by
`cell_net(..., ops={"mine": build})`.

References: DARTS (Liu et al. 2019, arXiv:1806.09055); NAS-Bench-201 (Dong and Yang 2020, arXiv:2001.00326); NASNet
(Zoph et al. 2018, arXiv:1707.07012); RobustDARTS (Zela et al. 2020, arXiv:1909.09656).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.nets import probe
from jaxnas.nets.convolution import avg_pool, max_pool
from jaxnas.nets.layers import BatchNorm, Conv, Depthwise, Output, apply_norm
from jaxnas.registry import Table


class Zero(nn.Module):
    """none: the edge is absent."""

    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        return jnp.zeros_like(x[:, :: self.stride, :: self.stride])


class Noise(nn.Module):
    """noise: N(0, 1) of the output's shape in the place of the input, of which nothing is left; no gradient passes (RobustDARTS).

    Operations are called without a key, so the draw follows from the statistic "noise": which sequence, drawn with the weights, and
    how many batches it was trained on.  So every edge has noise of its own, every training batch new noise, and all ways to run a
    supernet have the same.  Outside training the noise stands still: an image's depends on its place in the batch alone.
    """

    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        first = lambda: jnp.stack([jax.random.randint(self.make_rng("params"), (), 0, 2**24), 0]).astype(jnp.float32)
        drawn = self.variable("batch_stats", "noise", first)  # float32[2]: whole numbers up to 2^24, which it holds exactly
        sequence, batch = drawn.value.astype(jnp.uint32)
        if train and not self.is_initializing():
            drawn.value = drawn.value + jnp.asarray([0, 1], jnp.float32)
        C, H, W, B = x[:, :: self.stride, :: self.stride].shape
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), sequence), batch)
        return jnp.moveaxis(jax.random.normal(key, (B, C, H, W), x.dtype), 0, -1)  # B first: the same for the first images of more


class Identity(nn.Module):
    """skip_connect at stride 1."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        return x


class FactorizedReduce(nn.Module):
    """skip_connect at stride 2: two strided 1x1 convolutions, the second one pixel further on, concatenated."""

    features: int
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Output:
        x = probe.relu(x)
        half = self.features // 2
        shifted = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]  # odd sizes: both halves give ceil(H / 2)
        y = jnp.concatenate([Conv(half, stride=2)(x), Conv(self.features - half, stride=2)(shifted)], 0)
        return BatchNorm(self.affine)(y, train, defer=True)


class ReLUConvBN(nn.Module):
    features: int
    kernel: int = 1
    stride: int = 1
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Output:
        y = Conv(self.features, self.kernel, self.stride)(probe.relu(x))
        return BatchNorm(self.affine)(y, train, defer=True)


class SepConv(nn.Module):
    """Depthwise-separable convolution, applied twice; only the first is strided."""

    features: int
    kernel: int
    stride: int = 1
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Output:
        y: Output = x
        for stride in (self.stride, 1):
            z = Conv(self.features)(Depthwise(self.kernel, stride)(probe.relu(apply_norm(y))))
            y = BatchNorm(self.affine)(z, train, defer=True)
        return y


class DilConv(nn.Module):
    """Depthwise-separable convolution with dilation 2, applied once."""

    features: int
    kernel: int
    stride: int = 1
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Output:
        x = Conv(self.features)(Depthwise(self.kernel, self.stride, 2)(probe.relu(x)))
        return BatchNorm(self.affine)(x, train, defer=True)


class TwoStripes(nn.Module):
    """A 1 x k and a k x 1 convolution, each behind its relu (NASNet)."""

    features: int
    kernel: int
    stride: int = 1
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Output:
        y: Output = x
        for kernel, stride in (((1, self.kernel), (1, self.stride)), ((self.kernel, 1), (self.stride, 1))):
            z = Conv(self.features, kernel, stride)(probe.relu(apply_norm(y)))
            y = BatchNorm(self.affine)(z, train, defer=True)
        return y


class Pool(nn.Module):
    """Pooling; `norm` adds the BatchNorm that DARTS puts behind the pools of its search net."""

    kind: str
    stride: int = 1
    norm: bool = False
    kernel: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Output:
        y = {"max": max_pool, "avg": avg_pool}[self.kind](x, self.kernel, self.stride)
        return BatchNorm(False)(y, train, defer=True) if self.norm else y


def _skip(features, stride, affine):
    return Identity() if stride == 1 else FactorizedReduce(features, affine)


Build = Callable[[int, int, bool], nn.Module]

OPS: Table[Build] = Table(
    "operation",
    {
        "none": lambda features, stride, affine: Zero(stride),
        "noise": lambda features, stride, affine: Noise(stride),
        "skip_connect": _skip,
        "max_pool_3x3": lambda features, stride, affine: Pool("max", stride, norm=not affine),
        "max_pool_5x5": lambda features, stride, affine: Pool("max", stride, norm=not affine, kernel=5),
        "max_pool_7x7": lambda features, stride, affine: Pool("max", stride, norm=not affine, kernel=7),
        "avg_pool_3x3": lambda features, stride, affine: Pool("avg", stride, norm=not affine),
        "nor_conv_1x1": lambda features, stride, affine: ReLUConvBN(features, 1, stride, affine),
        "nor_conv_3x3": lambda features, stride, affine: ReLUConvBN(features, 3, stride, affine),
        "conv_1x3_3x1": lambda features, stride, affine: TwoStripes(features, 3, stride, affine),
        "conv_1x7_7x1": lambda features, stride, affine: TwoStripes(features, 7, stride, affine),
        "sep_conv_3x3": lambda features, stride, affine: SepConv(features, 3, stride, affine),
        "sep_conv_5x5": lambda features, stride, affine: SepConv(features, 5, stride, affine),
        "sep_conv_7x7": lambda features, stride, affine: SepConv(features, 7, stride, affine),
        "dil_conv_3x3": lambda features, stride, affine: DilConv(features, 3, stride, affine),
        "dil_conv_5x5": lambda features, stride, affine: DilConv(features, 5, stride, affine),
    },
)
