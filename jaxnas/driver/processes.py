"""Several processes that take one run's steps together, under `jax.distributed`: who writes, and what they agree on.

Process 0 holds the directory, which all must see, and writes log and bar; checkpoints are written and read by all.  Each
computes its own part of seeds, candidates or batch; it holds a feed's data whole, and reads of a stream's what it computes with
(`jaxnas.driver.slices`).  With one process everything here is the identity.
"""

import json
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxnas.driver.fingerprint import Fingerprint, difference

Returned = TypeVar("Returned")
ERROR = b"!"  # before the words of an error
WHERE = (
    "give --coordinator HOST:PORT, --processes and --process to each, or start them under Slurm, on a TPU pod or in an indexed job"
)


def initialize(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """`jax.distributed.initialize`, which also finds its way in an indexed job of Kubernetes, and on CPUs.

    Args:
        coordinator: HOST:PORT of process 0, the same for all; default: JAX_COORDINATOR_ADDRESS, or what Slurm or a TPU pod says.
        processes: how many; default: what Slurm or the pod says.
        process: which of them this is, from 0; default: JOB_COMPLETION_INDEX of an indexed job, or what Slurm or the pod says.

    Raises:
        ValueError: where nothing says which processes there are, or they do not find each other.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    index = os.environ.get("JOB_COMPLETION_INDEX", "")
    if process is None and coordinator and index.isdecimal():
        process = int(index)
    found = _found()
    if not found and None in (coordinator, processes, process):
        missing = {"--coordinator": coordinator, "--processes": processes, "--process": process}
        names = ", ".join(name for name, value in missing.items() if value is None)
        raise ValueError(f"--distributed: nothing says which processes there are ({names} missing): {WHERE}")
    if process is not None and processes is not None and process >= processes:
        raise ValueError(f"--process {process} of --processes {processes}: they are counted from 0")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # read on CPUs alone
    try:
        method = None if found else "deactivate"  # else JAX looks for Kubernetes' own package, and warns
        jax.distributed.initialize(coordinator, processes, process, cluster_detection_method=method)
    except (RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0][:160]
        raise ValueError(f"--distributed: the processes do not find each other at {coordinator} ({line})") from None


def _found() -> bool:
    """Whether JAX finds the processes by itself."""
    from jax._src import clusters  # it has no public list

    with warnings.catch_warnings(action="ignore"):
        return any(not kind.opt_in_only_method and kind.is_env_present() for kind in clusters.ClusterEnv._cluster_types)


def several() -> bool:
    """Whether there is more than this one."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this one writes."""
    return jax.process_index() == 0


def on_first(call: Callable[[], str | None]) -> str:
    """Calls in process 0; what it returns, or the error that it raises, is everyone's.

    Raises:
        ValueError, OSError: in process 0, as `call` does; a ValueError of the same words in the others.
    """
    if not several():
        return call() or ""
    words, raised = b"", None
    if is_first():
        try:
            words = (call() or "").encode()
        except (ValueError, OSError) as error:
            words, raised = ERROR + str(error).encode(), error
    words = _broadcast(words)
    if raised is not None:
        raise raised
    if words.startswith(ERROR):
        raise ValueError(words[len(ERROR) :].decode())
    return words.decode()


def require_same(held: Fingerprint) -> None:
    """Raises ValueError, in every process, where one holds something else than process 0; names what differs, where it does."""
    if not several():
        return
    first = json.loads(_broadcast(json.dumps(held).encode() if is_first() else b""))
    differs = difference(first, held)
    others = np.flatnonzero(gather(int(differs is not None)))
    if differs is not None:
        field, was, now = differs
        raise ValueError(f"the processes disagree: {field} is {was} in process 0, and {now} in process {jax.process_index()}")
    if others.size:
        raise ValueError(f"the processes disagree: process {others[0]} has another configuration, data or code; it says which")


def all_or_none(call: Callable[[], Returned], what: str) -> Returned:
    """What `call`, which every process calls, returns here.  Without this the others would wait for one that has failed.

    Args:
        call: this process's part of what all do.
        what: the words for a failure, behind "process 1".

    Raises:
        Exception: what `call` raises here.
        ValueError: where it raises in other processes alone.
    """
    if not several():
        return call()
    try:
        returned = call()
    except Exception:
        gather(1)
        raise
    failed = np.flatnonzero(gather(0))
    if failed.size:
        raise ValueError(f"process {failed[0]} {what}; it says why")
    return returned


class Agreed(NamedTuple):
    signal: int | None  # that any of them has seen
    pace: int  # process 0's, since clocks differ
    save: bool  # process 0's


def agreed(signal: int | None, pace: int, save: bool) -> Agreed:
    """What all do after a chunk."""
    if not several():
        return Agreed(signal, pace, save)
    said = gather(np.asarray([signal or 0, pace, save], np.int32))  # [processes, 3]
    return Agreed(int(said[:, 0].max()) or None, int(said[0, 1]), bool(said[0, 2]))


def fetch(tree: Any) -> Any:
    """Arrays, some of which lie in parts in several processes, whole in each."""
    if not several():
        return tree
    whole = lambda x: multihost_utils.process_allgather(x, tiled=True)
    local = lambda x: not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated
    return jax.tree.map(lambda x: np.asarray(x) if local(x) else whole(x), tree)


def gather(value: Any) -> np.ndarray:
    """What each process gives, [processes, ...]."""
    return np.asarray(multihost_utils.process_allgather(np.asarray(value, np.int32)))


def _broadcast(words: bytes) -> bytes:
    """Process 0's."""
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(words), np.int32)))
    held = np.zeros(size, np.uint8)
    if is_first():
        held[:] = np.frombuffer(words, np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(held)).astype(np.uint8)) if size else b""
