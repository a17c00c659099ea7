"""One process at a time in the directory of a run: a file `lock` that says who is there, by host and process."""

import contextlib
import json
import os
import pathlib
import socket
import threading
from collections.abc import Generator
from typing import Any

fcntl: Any = None
with contextlib.suppress(ImportError):  # not a POSIX system: there are no such locks
    import fcntl

_held: dict[pathlib.Path, int] = {}  # directory -> the thread of this process that is there
_guard = threading.Lock()


class RunIsLocked(ValueError):
    """Another process goes on with this run."""


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Generator[None, None, None]:
    """Holds the directory of a run, which is made where there is none.  A thread that holds it may enter again.

    The lock is the operating system's, on the file: it ends with its process, so that what a killed one has left is taken over.

    Raises:
        RunIsLocked: where somebody else holds it; names the host and the process.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name, me = directory.resolve(), threading.get_ident()
    with _guard:
        inside = _held.get(name) == me
    if inside or fcntl is None:
        yield
        return
    file = _taken(directory / "lock")
    with _guard:
        _held[name] = me
    try:
        yield
    finally:
        with _guard:
            del _held[name]
        with contextlib.suppress(OSError):
            (directory / "lock").unlink()
        os.close(file)  # releases it


def is_held(directory: pathlib.Path) -> bool:
    """Whether a process goes on with the run in a directory; False where the file system has no locks."""
    if fcntl is None:
        return False
    try:
        file = os.open(directory / "lock", os.O_RDONLY)
    except OSError:  # nobody is there
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def _taken(path: pathlib.Path) -> int:
    """The descriptor of the locked file, with this process's name in it."""
    if path.is_dir():
        raise RunIsLocked(f"{path} is a folder, and the lock of a run belongs there: remove it")
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 4096)
            os.close(file)
            raise RunIsLocked(
                f"{path.parent} is in use by {_named(holder)}: wait for its end, follow it with jaxnas watch, or stop it"
            ) from None
        except OSError:  # a file system without locks
            return file
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):  # else its holder has just removed it
            os.ftruncate(file, 0)
            os.write(file, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
            return file
        os.close(file)


def _named(content: bytes) -> str:
    try:
        held = json.loads(content)
        return f"process {held['pid']} on {held['host']}"
    except (ValueError, TypeError, KeyError):
        return "another process"
