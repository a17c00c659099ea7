"""Keeping a network: its weights as .npz, and the whole of it as a `jax.export` artefact.

The export holds the network and its weights in one file that needs neither jaxnas nor Flax:

    exported = jax.export.deserialize(open("export.bin", "rb").read());    logits = exported.call(x)
"""

import pathlib
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np


def save_weights(path: str | pathlib.Path, variables: dict[str, Any]) -> None:
    """Writes variables as arrays named by their path ("params/stem/kernel"); `load_weights` reads them back."""
    flat = flax.traverse_util.flatten_dict(flax.core.unfreeze(variables), sep="/")
    arrays: dict[str, Any] = {name: np.asarray(a) for name, a in flat.items()}
    with pathlib.Path(path).open("wb") as file:
        np.savez(file, **arrays)


def load_weights(path: str | pathlib.Path) -> dict:
    with np.load(path) as file:
        return flax.traverse_util.unflatten_dict({name: jnp.asarray(file[name]) for name in file.files}, sep="/")


def export(path: str | pathlib.Path, module: nn.Module, variables: dict[str, Any], image: tuple[int, ...]) -> None:
    """Writes the inference function x float32[B, H, W, C] -> logits [B, K], for any batch size B, weights included."""
    (batch,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((batch, *image), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: module.apply(variables, x)))(x)
    pathlib.Path(path).write_bytes(exported.serialize())


def load_export(path: str | pathlib.Path) -> Callable[[jax.Array], jax.Array]:
    """The exported inference function: images -> logits."""
    return jax.export.deserialize(bytearray(pathlib.Path(path).read_bytes())).call
