"""A network that a run has kept, for use: `nas.load(run).predict(x)` of raw examples.

It needs export.bin and network.json of the run directory, and neither the space nor the strategy that it comes from, but for ONNX.

Axes: N examples, K classes, labels or numbers.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxnas.app.export import load_export
from jaxnas.data.errors import DataError
from jaxnas.data.inputs import Inputs, scaled
from jaxnas.data.target import Target

CHUNK = 256  # examples at once


@dataclasses.dataclass(frozen=True)
class Network:
    """What was kept.  `x` is in the user's own form: an array of the layout and range of the training data, paths of images where
    these were files, of a table a DataFrame, dicts or an array of all its columns."""

    call: Callable[[Any], jax.Array]  # raw examples [n, *shape] -> what is predicted [n, K]
    inputs: Inputs | None  # None: float32 inputs, as they are
    target: Target
    shape: tuple[int, ...]  # of a raw example in `call`
    space: str
    genotype: str
    temperature: float
    data: str  # what it has learnt
    run: pathlib.Path  # the directory that it comes from

    @property
    def names(self) -> tuple[str, ...]:
        """Of the K classes, labels or numbers."""
        return self.target.names

    def outputs(self, x: Any) -> np.ndarray:
        """float32[N, K]: probabilities of classes, a probability of each label, or numbers in their own units.

        Raises:
            DataError: for examples of another shape or range, or a column that is missing.
        """
        raw = self._examples(x)
        parts = [np.zeros((0, self.target.outputs), np.float32)]
        size = min(CHUNK, 1 << max(len(raw) - 1, 0).bit_length())  # few shapes, since each is compiled
        for start in range(0, len(raw), size):
            some = raw[start : start + size]
            padded = np.concatenate([some, np.zeros((size - len(some), *raw.shape[1:]), raw.dtype)])
            parts.append(np.asarray(self.call(padded))[: len(some)])
        return np.concatenate(parts)

    def probabilities(self, x: Any) -> np.ndarray:
        """float32[N, K], of each class or label.

        Raises:
            ValueError: for a network that predicts numbers.
        """
        if self.target.kind == "numbers":
            raise ValueError("this network predicts numbers, which have no probabilities: call `predict`")
        return self.outputs(x)

    def predict(self, x: Any) -> Any:
        """What is likeliest: see `decide`."""
        return self.decide(self.outputs(x))

    def decide(self, outputs: np.ndarray) -> Any:
        """Outputs [N, K] as class names, str[N]; as N tuples of the names of the labels with at least even odds, none or several;
        or as numbers, [N] of a single one and [N, K] of several."""
        if self.target.kind == "classes":
            return np.asarray(self.names)[outputs.argmax(-1)]
        if self.target.kind == "labels":
            return [tuple(name for name, p in zip(self.names, row, strict=True) if p > 0.5) for row in outputs]
        return outputs[:, 0] if self.target.outputs == 1 else outputs

    def to_onnx(self, path: str | pathlib.Path) -> None:
        """Writes the network as ONNX, from raw examples "x" to what `outputs` gives: see `jaxnas.app.onnx`.

        Raises:
            ValueError: in one line, where the extra `onnx` is not installed, or the network cannot be converted.
        """
        from jaxnas.app import onnx

        onnx.write(self, self.run, pathlib.Path(path))

    def _examples(self, x: Any) -> np.ndarray:
        if self.inputs is not None:
            return self.inputs.examples(x)
        raw = np.asarray(x)
        if raw.dtype.kind not in "buif" or raw.shape[1:] != self.shape or raw.ndim < 2:
            raise DataError(f"examples must be numbers [N, {', '.join(map(str, self.shape))}], and x is {list(raw.shape)}")
        return scaled(raw, 1.0, "x")


def load(run: str | pathlib.Path) -> Network:
    """The network that a finished run has kept.

    Args:
        run: its directory.

    Raises:
        ValueError: in one line, for what is no run, is not finished, has no export, or is damaged.
    """
    if not str(run).strip():
        raise ValueError("the run has no name: give its directory")
    run = pathlib.Path(run).expanduser()
    if not run.is_dir():
        raise ValueError(f"there is no run {run}: give the directory of one")
    absent = [name for name in ("export.bin", "network.json") if not (run / name).is_file()]
    if absent:
        raise ValueError(_why(run, absent))
    try:
        held = json.loads((run / "network.json").read_text())
        inputs = None if held["inputs"] is None else Inputs.from_json(held["inputs"])
        network = Network(
            call=jax.jit(load_export(run / "export.bin")),
            inputs=inputs,
            target=Target.from_json(held["target"]),
            shape=tuple(held["shape"]),
            space=held["space"],
            genotype=held["genotype"],
            temperature=held["temperature"],
            data=held["name"],
            run=run,
        )
        if held["sha256"] == hashlib.sha256((run / "export.bin").read_bytes()).hexdigest():
            return network
    except Exception:  # damage shows in many ways: OSError, ValueError, KeyError, TypeError, struct.error, ...
        pass
    raise ValueError(f"export.bin or network.json in {run} is damaged: make them again with jaxnas resume {run}")


def _why(run: pathlib.Path, absent: Sequence[str]) -> str:
    """What is missing, and what to do."""
    if not (run / "config.json").is_file() and len(absent) == 2:
        return f"{run} is not a run: it has no export.bin (start one with jaxnas search)"
    if not (run / "result.json").is_file():
        return f"{run} has no network yet: finish it with jaxnas resume {run}"
    if len(absent) == 2 and '"no finite score"' in (run / "result.json").read_text(errors="replace"):
        return f"{run} has no network: no candidate of its search had a finite score"
    if len(absent) == 2:
        return f"{run} has no export.bin: a network that reads text is kept as weights alone"
    return f"{run} has no {absent[0]}: make it with jaxnas resume {run}"
