"""Nets for pretext tasks (`jaxnas.data.pretext`): any image net under the head of a task.

Reference: Liu et al., Are Labels Necessary for Neural Architecture Search?, ECCV 2020, arXiv:2003.12056.

With f the maps before the average, [B, h, w, C], and W, c the net's classifier:

    rotation         logits = W mean(f) + c                      the net as it is, with 4 classes
    jigsaw           logits = sum_k W_k mean(f(tile k)) + c_k    linear in the concatenated features of the T tiles
    colourisation    logits = resize(W f + c)                    bilinear, to the size of the image

In all three the classifier is the net's own: for tiles it has T x P outputs, W_k being the k-th P of them.  So a head has no
variables, and what works for the net (its `used` paths, its specialised modules) works under it.

Axes: B images, T tiles, P orders, K classes.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.checks import checked
from jaxnas.data.pretext import Pretext
from jaxnas.nets import probe
from jaxnas.nets.base import Net

Trunk = Callable[[jax.Array], jax.Array]  # images -> logits
Head = Callable[[Trunk, Callable[[], Any], jax.Array], jax.Array]  # (trunk, () -> the trunk's params, x) -> logits


def tiles(trunk: Trunk, params: Callable[[], Any], x: jax.Array) -> jax.Array:
    """x [B, T, h, w, C] -> logits [B, P]."""
    del params
    B, T = x.shape[:2]
    return jnp.einsum("bttp->bp", trunk(x.reshape(B * T, *x.shape[2:])).reshape(B, T, T, -1))


def pixels(trunk: Trunk, params: Callable[[], Any], x: jax.Array) -> jax.Array:
    """x [B, H, W, C] -> logits [B, H, W, K]."""
    seen = []
    with probe.probing(probe.Probe(last=seen.append)):
        trunk(x)
    if not seen:
        raise ValueError("a target for every pixel needs a net that averages maps before its classifier, such as a cell net")
    kernel, bias = params()["classifier"]["kernel"], params()["classifier"]["bias"]
    logits = jnp.einsum("chwb,ck->bhwk", seen[0], kernel) + bias[None, None, None]
    return jax.image.resize(logits, (*x.shape[:3], logits.shape[3]), "bilinear")


class Headed(nn.Module):
    """A module under a head; its variables have the names they have without."""

    trunk: nn.Module
    head: Head

    def setup(self) -> None:
        nn.share_scope(self, self.trunk)

    def __call__(self, x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        return self.head(lambda x: self.trunk(x, *args, **kwargs), lambda: self.trunk.variables["params"], x)


def headed(net: Net, head: Head) -> Net:
    def apply(variables, x, gates, **kwargs):
        moved = []

        def trunk(x):
            logits, new = net.apply(variables, x, gates, **kwargs)
            moved.append(new)
            return logits

        return head(trunk, lambda: variables["params"], x), moved[0]

    def specialize(arch):
        module, extract = net.specialize(arch)
        return Headed(module, head), extract

    return net._replace(apply=apply, specialize=specialize, macs=None)  # a head has some of its own


@checked
def pretext_net(task: Pretext, build: Callable[..., Net]) -> Net:
    """The net of a task: logits [B, K], or [B, H, W, K] for a target of every pixel.

    Args:
        task: one of `jaxnas.data.pretext`.
        build: build(image=(H, W, C), classes=K) -> Net, such as `functools.partial(cell_net, space, channels=8)`.
    """
    T = task.inputs[0] if len(task.inputs) == 4 else 1
    net = build(image=task.inputs[-3:], classes=T * task.classes)
    if T > 1:
        net = headed(net, tiles)
    if task.targets:
        net = headed(net, pixels)
    return net._replace(image=task.inputs, classes=task.classes)
