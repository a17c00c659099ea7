"""Mixed precision: float32 weights, norms and logits, with the maps between the layers in bfloat16.

References: Micikevicius et al., Mixed Precision Training, ICLR 2018, arXiv:1710.03740; Kalamkar et al., A Study of BFLOAT16 for
Deep Learning Training, 2019, arXiv:1905.12322: bfloat16 has the exponents of float32, so the loss needs no scaling.

    weights, their gradients and optimizer states, running statistics        float32 at the least
    convolutions, dense layers, activations, sums of maps                    the dtype of what the net reads
    normalisation, the mixture of an edge, gates, logits and loss            float32 at the least

No layer is told a dtype: each computes in that of its input, casts its weights to it and returns it.  So a net's precision is
settled where its input enters, by `with_precision`.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from jaxnas.checks import checked, described
from jaxnas.kinds import Precision
from jaxnas.nets.base import Net
from jaxnas.nets.blueprints import Blueprints

Network = TypeVar("Network", bound=Net | Blueprints | nn.Module)


def at_least_float32(dtype: DTypeLike) -> Any:
    """The dtype of weights and statistics where maps have `dtype`: float32, or what is wider."""
    return jnp.promote_types(dtype, jnp.float32)


def parameter(module: nn.Module, name: str, init: Callable[..., Any], shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """A weight as a layer uses it: kept in float32 at the least, read in `dtype`, that of the layer's input."""
    return module.param(name, init, shape, at_least_float32(dtype)).astype(dtype)


def to_inputs(x: jax.Array, *weights: jax.Array | None, dtype: Any = None, inexact: bool = True) -> list[Any]:
    """The `promote_dtype` of Flax's layers that computes in the dtype of the input x, where Flax's default takes the widest."""
    del dtype
    return promote_dtype(x, *weights, dtype=x.dtype, inexact=inexact)


def scaled(y: jax.Array, by: jax.Array | float) -> jax.Array:
    """y times a gate or a mask, whose dtype may be wider, in the dtype of y."""
    return (y * by).astype(y.dtype)


def check_precision(precision: str) -> None:
    """Raises ValueError for an unknown precision."""
    if precision not in (known := get_args(Precision)):
        raise ValueError(f"unknown precision {precision!r}: choose {' or '.join(known)}")


class InPrecision(nn.Module):
    """A module that is given its input in another dtype; its variables have the names, and the dtypes, that they have without."""

    module: nn.Module
    dtype: Any

    def setup(self) -> None:
        nn.share_scope(self, self.module)

    def __call__(self, x: jax.Array, *args: Any, **kwargs: Any) -> Any:
        return cast(Any, self.module)(x.astype(self.dtype), *args, **kwargs)


@checked
def with_precision(network: Network, precision: Precision = "float32") -> Network:
    """A network that computes in this precision; its variables are those that it has without, all of them float32.

    What it specialises to, or builds, computes in the same precision.

    Args:
        network: a net, the networks of a space that are built one by one, or a plain module, called as module(x, ...).
        precision: "float32" leaves it as it is; "bfloat16" has convolutions, dense layers and activations in bfloat16.

    Raises:
        ValueError: for no network, an unknown precision, or bfloat16 for a net that reads tokens: `language_model` takes it itself.
    """
    check_precision(precision)
    given: Any = network
    if not isinstance(given, Net | Blueprints | nn.Module):
        raise ValueError(f"`network` must be a net, the networks of a space or a module; got {described(given)}")
    if precision == "float32":
        return network
    dtype = jnp.dtype(precision)
    if isinstance(given, nn.Module):
        return cast(Any, InPrecision(given, dtype))
    if isinstance(given, Blueprints):
        return cast(Any, given._replace(build=lambda choice: InPrecision(given.build(choice), dtype)))
    if not given.image:
        raise ValueError("tokens have no precision to compute in: give it to the net itself, language_model(..., precision=...)")

    def apply(variables, x, gates, /, **how):
        return given.apply(variables, x.astype(dtype), gates, **how)

    def specialize(arch):
        module, extract = given.specialize(arch)
        return InPrecision(module, dtype), extract

    return cast(Any, given._replace(apply=apply, specialize=specialize))
