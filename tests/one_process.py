"""One of several processes of a run, for tests: `python one_process.py PORT PROCESSES PROCESS JSON`; it prints its end."""

import json
import os
import signal
import sys

import jax
import numpy as np

port, count, number = (int(a) for a in sys.argv[1:4])
asked = json.loads(sys.argv[4])
mine = asked.get("of", {}).get(str(number), {})  # what this process has otherwise
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", asked.get("devices", 1))

from jaxnas.driver import processes  # noqa: E402

if count > 1:
    processes.initialize(f"localhost:{port}", count, number)

from test_run import evolution, noisy, regression, two_phases  # noqa: E402

from jaxnas import sharding  # noqa: E402
from jaxnas.base import Batch, Stream  # noqa: E402
from jaxnas.driver import CheckpointError, Stopped, journal, run  # noqa: E402
from jaxnas.driver.fingerprint import of_arrays  # noqa: E402

rows = []  # of each call of a stream's `read`


def outside(dim, n=32, size=8):
    """`regression` as a stream, which counts what it reads, and fails where the process is to."""
    held = jax.tree.map(np.asarray, regression(dim, n).arrays)

    def read(index):
        rows.append(index.size)
        if len(rows) == mine.get("unreadable"):
            raise ValueError(f"call {len(rows)} cannot be read")
        return tuple(a[index] for a in held)

    draw = lambda key, arrays, t: Batch(train=sharding.constrain(arrays, "batch"))
    like = tuple(jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype) for a in held)
    return Stream(lambda key, t: jax.random.randint(key, (size,), 0, n), read, draw, like, "rows", 3000, batch_axis=0)


journal.SAVE_EVERY = asked.get("save_every", 30.0)
dim = asked.get("dim", 4)
plan = {"noisy": lambda: noisy(dim), "evolution": evolution, "phases": two_phases}[asked["plan"]]()
options = {} if asked["plan"] == "phases" else {"steps": mine.get("steps", asked.get("steps", 23))}
if asked["plan"] == "noisy":
    options["data"] = outside(dim) if asked.get("stream") else regression(dim, n=mine.get("n", 32))

if "signal" in mine:  # at the end of the chunk of this number
    plain, chunks = journal.Journal.write, []

    def write(self, *arguments):
        plain(self, *arguments)
        chunks.append(arguments)
        if len(chunks) == mine["chunk"]:
            os.kill(os.getpid(), signal.Signals[mine["signal"]])

    journal.Journal.write = write

try:
    mesh = sharding.mesh(**asked["mesh"]) if asked.get("mesh") else None
    found = run(
        jax.random.key(0), plan, seeds=asked.get("seeds"), chunk=asked.get("chunk", 100), mesh=mesh,
        directory=asked.get("directory"), resume=asked.get("resume", False), **options,
    )  # fmt: skip
    said = {"state": of_arrays(processes.fetch(found.state)), "best": of_arrays(processes.fetch(found.best))}
    said["infos"] = of_arrays(processes.fetch(found.infos))
    if asked.get("stream"):
        said["rows"] = sum(rows)
    if asked.get("w"):
        said["w"] = processes.fetch(found.state.w).tolist()
except (ValueError, OSError, Stopped, CheckpointError) as error:
    said = {"error": str(error)}
sys.stdout.write(json.dumps(said) + "\n")
