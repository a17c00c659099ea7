"""The shared NAS-Bench-201 file, for tests only: not part of the project, so what needs it skips where it is absent."""

import functools
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "nb201.npz"

needs_file = pytest.mark.skipif(not PATH.exists(), reason=f"needs the NAS-Bench-201 file {PATH}")


@functools.cache
def load() -> dict[str, np.ndarray]:
    """All arrays of the file, by name; rows in the official order, columns of `datasets` CIFAR-10 then CIFAR-100."""
    with np.load(PATH) as file:
        return {name: file[name] for name in file.files}


def column(name: str, dataset: int) -> np.ndarray:
    """float64[15625] of one data set: 0 CIFAR-10, 1 CIFAR-100."""
    return np.asarray(load()[name][:, dataset], np.float64)
