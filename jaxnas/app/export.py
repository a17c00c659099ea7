"""Keeping a network: its weights as .npz, and the whole of it as a `jax.export` artefact that reads raw examples.

The export holds the network, its weights, how inputs are normalised and what outputs mean in one file that needs neither jaxnas nor
Flax:

    exported = jax.export.deserialize(open("export.bin", "rb").read());    probabilities = exported.call(x)

    x   images and series   as the training data held them: [B, H, W, C], [B, C, H, W], [B, H, W], [B, T, C] or [B, C, T], uint8 if
                            they were bytes, else float32
        tables              float32[B, columns], one number a value: see `jaxnas.data.Inputs.rows`
    ->  classes             probabilities [B, K], softmax(logits / temperature)
        labels              a probability each [B, K], sigmoid(logits / temperature)
        numbers             [B, K] in their own units

network.json beside it says which of these, and what classes and columns are called.  `jaxnas.load` reads both.

Axes: B batch, H height, W width, C channels, T times, K outputs.
"""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Callable, Generator
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxnas.data.dataset import Dataset
from jaxnas.data.inputs import Inputs
from jaxnas.data.target import Target

PLATFORMS = ("cpu", "cuda", "tpu")  # whatever it was trained on


def save_weights(path: str | pathlib.Path, variables: dict[str, Any]) -> None:
    """Writes variables as arrays named by their path ("params/stem/kernel"); `load_weights` reads them back."""
    flat = flax.traverse_util.flatten_dict(flax.core.unfreeze(variables), sep="/")
    arrays: dict[str, Any] = {name: np.asarray(a) for name, a in flat.items()}
    with pathlib.Path(path).open("wb") as file:
        np.savez(file, **arrays)


def load_weights(path: str | pathlib.Path) -> dict:
    with open(path, "rb") as opened, np.load(opened) as file:  # closed even where it is damaged
        return flax.traverse_util.unflatten_dict({name: jnp.asarray(file[name]) for name in file.files}, sep="/")


def export_network(
    directory: str | pathlib.Path,
    module: nn.Module,
    variables: dict[str, Any],
    dataset: Dataset,
    *,
    space: str,
    genotype: str,
    temperature: float = 1.0,
) -> None:
    """Writes export.bin, raw examples -> what is predicted for any batch size, and network.json.

    Args:
        directory: of the run.
        module: (variables, x [B, ...]) -> outputs [B, K].
        variables: its weights.
        dataset: whose `inputs` and `target` it has learnt; without `inputs` the export reads float32 inputs as they are.
        space: what the genotype is of.
        genotype: of the network.
        temperature: of the probabilities.
    """
    inputs, target, directory = dataset.inputs, dataset.target, pathlib.Path(directory)
    shape, dtype = (dataset.image, jnp.float32) if inputs is None else (inputs.raw_shape, inputs.raw_dtype)
    predict = inference(module, variables, inputs, target, temperature)
    (batch,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((batch, *shape), dtype)
    with _without_paths():
        blob = jax.export.export(jax.jit(predict), platforms=PLATFORMS)(x).serialize()
    described = {
        "genotype": genotype,
        "inputs": None if inputs is None else inputs.to_json(),
        "name": dataset.name,
        "sha256": hashlib.sha256(blob).hexdigest(),
        "shape": list(shape),
        "space": space,
        "target": target.to_json(),
        "temperature": float(temperature),
    }
    (directory / "export.bin").write_bytes(blob)
    (directory / "network.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")


@contextlib.contextmanager
def _without_paths() -> Generator[None, None, None]:
    """Programs lowered within do not name the files of their source: equal networks give equal bytes wherever jaxnas lies."""
    config: Any = jax.config  # its flags are not declared
    frames = config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)


def inference(
    module: nn.Module, variables: dict[str, Any], inputs: Inputs | None, target: Target, temperature: float = 1.0
) -> Callable[[jax.Array], jax.Array]:
    """raw examples -> what is predicted, to be traced: see `export_network`."""

    def predict(raw: jax.Array) -> jax.Array:
        x = raw if inputs is None else inputs.normalise(raw)
        outputs: Any = module.apply(variables, x)
        return predicted(target, outputs, temperature)

    return predict


def predicted(target: Target, outputs: jax.Array, temperature: float = 1.0) -> jax.Array:
    """A network's outputs [B, K] as probabilities, or as numbers in their own units."""
    if target.kind == "classes":
        return jax.nn.softmax(outputs / temperature)
    if target.kind == "labels":
        return jax.nn.sigmoid(outputs / temperature)
    if not target.std:
        return outputs
    return outputs * jnp.asarray(target.std, jnp.float32)[None] + jnp.asarray(target.mean, jnp.float32)[None]


def load_export(path: str | pathlib.Path) -> Callable[[jax.Array], jax.Array]:
    """The exported inference function: raw examples -> what is predicted."""
    return jax.export.deserialize(bytearray(pathlib.Path(path).read_bytes())).call
