"""A run's network as ONNX, by jax2onnx: from raw examples to what is predicted, as `export.bin` has it.

    session = onnxruntime.InferenceSession("network.onnx");    (probabilities,) = session.run(None, {"x": x})

`x` and the result are those of `jaxnas.app.export`, of any number of examples.  The metadata of the model name its classes, labels
or numbers, and hold all else that network.json says.  ONNX cannot be made of `export.bin`: the network is built again from
config.json and weights.npz, in dense convolutions (`jaxnas.nets.fences.plain`), and what the converter made of it is compared
with `export.bin` before it is written.

Axes: N examples, K classes, labels or numbers.
"""

import contextlib
import importlib
import json
import logging
import pathlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.app import tasks
from jaxnas.app.config import complete, load_config
from jaxnas.app.export import inference, load_weights
from jaxnas.app.search import make_job, net_entry
from jaxnas.data.dataset import Dataset, Split
from jaxnas.nets.fences import plain

if TYPE_CHECKING:
    import flax.linen as nn

    from jaxnas.app.network import Network

TOLERANCE = 1e-4  # between ONNX and export.bin, relative to the largest output; rounding alone is below 1e-5
CHECKED = 3  # examples


def write(network: "Network", run: pathlib.Path, path: pathlib.Path) -> None:
    """Writes a network as ONNX.

    Args:
        network: what `jaxnas.load` gives.
        run: the directory that it comes from, with config.json and weights.npz.
        path: of the new file.

    Raises:
        ValueError: in one line, where jax2onnx is not installed, the run does not say how its network is built, or the converter
            does not know an operation of it or gets it wrong.
    """
    try:
        onnxruntime, jax2onnx = (importlib.import_module(name) for name in ("onnxruntime", "jax2onnx"))
    except ImportError:
        raise ValueError("ONNX is made by jax2onnx: pip install 'jaxnas[onnx]'") from None
    if not (run / "weights.npz").is_file():
        raise ValueError(f"{run} has no weights.npz, from which ONNX is made: make it with jaxnas resume {run}")
    try:
        variables = load_weights(run / "weights.npz")
    except Exception:  # damage shows in many ways
        raise ValueError(f"weights.npz in {run} is damaged: make it again with jaxnas resume {run}") from None
    module = rebuild(network, run)
    predict = inference(module, variables, network.inputs, network.target, network.temperature)
    raw = random_examples(np.random.default_rng(0), network)
    batched: Any = ("N", *network.shape)
    try:
        with plain(), _quiet("jax2onnx", "onnx_ir"):
            x = jax.ShapeDtypeStruct(batched, raw.dtype)
            model: Any = jax2onnx.to_onnx(predict, [x], model_name="network", input_names=["x"], output_names=["y"])
        described = json.loads((run / "network.json").read_text())
        for name, value in {"names": network.names, **described}.items():
            model.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
        written = model.SerializeToString()
        session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
        found = np.asarray(session.run(None, {"x": raw})[0])
    except Exception as error:  # the converter and the runtime raise whatever they meet
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"jax2onnx cannot convert {network.genotype} ({said}): use export.bin, which needs JAX alone") from error
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # accelerators round more
        want = np.asarray(network.call(raw))
    if found.shape != want.shape or not np.abs(found - want).max() <= TOLERANCE * max(1.0, np.abs(want).max()):
        raise ValueError(f"jax2onnx converts {network.genotype} to other outputs: use export.bin, which needs JAX alone")
    path.write_bytes(written)


def rebuild(network: "Network", run: pathlib.Path) -> "nn.Module":
    """The plain module of a run's network.

    Raises:
        ValueError: for a config that is missing or damaged, or a genotype that is of another space.
    """
    config = complete(load_config(run))
    shape = network.shape if network.inputs is None else network.inputs.shape
    none = Split(jnp.zeros((0, *shape)), jnp.zeros(0))
    dataset = Dataset(train=none, valid=none, test=none, target=network.target, inputs=network.inputs, name=network.data)
    job = make_job(config, dataset)
    return tasks.final_module(config, net_entry(config), job.net, dataset, job.space.from_text(network.genotype))


def random_examples(random: np.random.Generator, network: "Network") -> np.ndarray:
    """[CHECKED, *shape] raw examples, about as far spread as those of the training data."""
    inputs, shape = network.inputs, (CHECKED, *network.shape)
    if inputs is None:
        return random.normal(size=shape).astype(np.float32)
    if inputs.raw_dtype == np.uint8:
        return random.integers(0, 256, shape).astype(np.uint8)
    normal = random.normal(size=shape)
    if inputs.kind != "table":
        return (np.mean(inputs.mean) + np.mean(inputs.std) * normal).astype(np.float32)
    columns = [
        random.integers(0, len(c.values), len(z)) if c.kind == "category" else c.mean + c.std * z
        for c, z in zip(inputs.columns, normal.T, strict=True)
    ]
    return np.stack(columns, 1).astype(np.float32)


@contextlib.contextmanager
def _quiet(*names: str) -> Generator[None, None, None]:
    """Inside, these libraries' logs say nothing: they warn of plugins and of types that no network here needs."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
