"""Reading .npz files supplied by the user; whatever is wrong with one is reported in a single line."""

import pathlib
from collections.abc import Iterable

import numpy as np

from jaxnas.data.errors import DataError


def read_npz(
    path: str | pathlib.Path, wanted: Iterable[str], *, instead: str, write: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """({name: array}, all names in the file), where the arrays are those wanted that the file has.

    Args:
        path: the file.
        wanted: names.
        instead: what to do without the file; write: the call that makes such a file.

    Raises:
        DataError: for no file, one that is no .npz, a damaged one, or Python objects in it.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file: check the path, or {instead}")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # np.load leaks what it opens
            arrays = {n: file[n] for n in wanted if n in file.files}
            if not all(isinstance(a, np.ndarray) for a in arrays.values()):
                raise ValueError("what is no array is handed over as bytes")
            return arrays, list(file.files)
    except Exception as error:  # a damaged file fails in many ways: BadZipFile, zlib.error, EOFError, OSError, ...
        if "allow_pickle" in str(error) and "Object arrays" in str(error):
            raise DataError(f"{path}: holds Python objects, which are never loaded: save plain number arrays") from None
        raise DataError(f"{path}: not an .npz file, or a damaged one: write it with {write}") from None
