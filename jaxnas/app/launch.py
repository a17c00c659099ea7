"""Where a search runs: one device, a mesh of several, or one of several processes (`--mesh`, `--distributed`)."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Generator
from typing import TYPE_CHECKING

from jaxnas.app.commands import Launch
from jaxnas.app.config import Config, check_words
from jaxnas.app.spaces import NETS, SPACES

if TYPE_CHECKING:
    import jax

GONE = ("gloo", "heartbeat", "coordination", "connection", "unavailable", "barrier")  # in what JAX says when a process has gone


def read_mesh(text: str) -> dict[str, int]:
    """The sizes by axis in a text such as seed=2,batch=4; ValueError for what cannot be read."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = (word.strip() for word in part.partition("="))
        if name not in ("seed", "pop", "batch") or name in sizes or not size.isdecimal() or not 1 <= int(size) < 2**31:
            raise ValueError(f"--mesh {text}: give the sizes of axes, such as seed=2,batch=4 (axes: seed, pop, batch)")
        sizes[name] = int(size)
    return sizes


@contextlib.contextmanager
def started(launch: Launch, config: Config) -> Generator["jax.sharding.Mesh | None", None, None]:
    """The mesh of a search, or None; joins the other processes where there are any.

    Raises:
        ValueError: for flags that say nothing together, processes that do not find each other or have another config, and a mesh
            that the devices do not fill.
        ConnectionError: where another process has gone.
    """
    check_words({"--mesh": launch.mesh, "--coordinator": launch.coordinator})
    sizes = None if launch.mesh is None else read_mesh(launch.mesh)
    for name in ("coordinator", "processes", "process"):
        if getattr(launch, name) is not None and not launch.distributed:
            raise ValueError(f"--{name} is for several processes: add --distributed, or leave it out")
    if not launch.distributed and sizes is None:
        yield None
        return
    if not NETS.find(SPACES.find(config.space).net).supernet:
        flag = "--distributed" if launch.distributed else "--mesh"
        raise ValueError(f"{flag} is for searches that are one program, and {config.space} trains network by network: leave it out")
    import jax

    from jaxnas import sharding
    from jaxnas.driver import processes

    if not launch.distributed:
        yield _checked(sharding.mesh(**(sizes or {})), config)
        return
    processes.initialize(launch.coordinator, launch.processes, launch.process)
    try:
        plain = json.loads(json.dumps(dataclasses.asdict(config), default=str))
        where = ("data", "use")  # paths; what the files hold is compared before the first step
        processes.require_same({f"--{name.replace('_', '-')}": v for name, v in plain.items() if name not in where})
        n = jax.device_count()
        axis = "seed" if config.seeds > 1 and config.seeds % n == 0 else "batch"
        yield _checked(sharding.mesh(**({axis: n} if sizes is None else sizes)), config)
    except jax.errors.JaxRuntimeError as error:
        if not any(word in str(error).lower() for word in GONE):
            raise
        raise ConnectionError("another process has gone: start all of them again, with jaxnas resume") from None
    finally:
        with contextlib.suppress(RuntimeError):  # the others may have gone
            jax.distributed.shutdown()


def _checked(mesh: "jax.sharding.Mesh", config: Config) -> "jax.sharding.Mesh":
    """The mesh; ValueError where it does not divide what the config says."""
    from jaxnas import sharding

    sharding.require_seeds(None if config.seeds == 1 else config.seeds, mesh)
    if "batch" in mesh.axis_names:
        sharding.require_divides(config.batch, "batch", mesh)
    return mesh


def directory_of(
    launch: Launch, directory: contextlib.AbstractContextManager[pathlib.Path], stack: contextlib.ExitStack
) -> pathlib.Path:
    """A run directory that process 0 makes for all."""
    if not launch.distributed:
        return stack.enter_context(directory)
    from jaxnas.driver import processes

    return pathlib.Path(processes.on_first(lambda: str(stack.enter_context(directory))))
