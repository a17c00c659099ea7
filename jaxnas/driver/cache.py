"""Compiled programs that are used again: by a later run in this process, and, from disk, by other processes.

Functions are what a program is known by, since a strategy is a tuple of closures.  They are held weakly, and so are those in the
programs themselves: once a strategy is dropped, its programs and the arrays that they close over go with it.
"""

import contextlib
import os
import pathlib
import types
import weakref
from collections.abc import Callable
from typing import Any

from jaxnas.base import Phase, Stream
from jaxnas.checks import checked

_programs: weakref.WeakKeyDictionary[Any, dict[tuple, Any]] = weakref.WeakKeyDictionary()  # by the step function


def reused(phase: Phase, static: tuple, make: Callable[[Phase], Any]) -> Any:
    """What `make` made for an earlier phase of the same functions and `static`, or makes now.

    Args:
        phase: whose functions are the key: `init`, `step`, `draw`, `give`, `fix`, and a stream's `indices`.
        static: what else the programs depend on, apart from shapes, types and the mesh, which `jax.jit` tells apart.
        make: is given the phase with functions that are held weakly, and without data; they work as long as the phase lives.
    """
    indices = phase.data.indices if isinstance(phase.data, Stream) else None
    functions = (phase.strategy.step, phase.strategy.init, phase.data.draw, phase.give, phase.fix, indices)
    if not all(f is None or _lasts(f) for f in functions):
        return make(phase)
    step, init, draw, give, fix, _ = functions
    known = _programs.setdefault(step, {})
    name = (*(None if f is None else weakref.ref(f) for f in functions[1:]), *static)
    if name not in known:
        for old in [old for old in known if any(isinstance(f, weakref.ref) and f() is None for f in old)]:
            del known[old]  # without its data's `draw`, say, it is never asked for again
        strategy = phase.strategy._replace(init=_weak(init), step=_weak(step), best=lambda state: None)  # `best` is not compiled
        held: dict[str, Any] = {"arrays": None} if indices is None else {"indices": _weak(indices), "read": None, "like": None}
        data = phase.data._replace(draw=_weak(draw), **held)
        known[name] = make(phase._replace(strategy=strategy, data=data, give=_weak(give), fix=fix and _weak(fix)))
    return known[name]


@checked
def compilation_cache(directory: str | pathlib.Path | None = None) -> pathlib.Path | None:
    """Keeps every compiled program on disk, where other processes find it: one call at the top of a program or a notebook.

    The command line calls it too.

    Args:
        directory: where; default: JAX_COMPILATION_CACHE_DIR of the environment, or else ~/.cache/jaxnas.

    Returns:
        The directory, or None where it cannot be made: programs are then compiled anew in every process.
    """
    import jax

    named = directory or os.environ.get("JAX_COMPILATION_CACHE_DIR") or pathlib.Path.home() / ".cache" / "jaxnas"
    path = pathlib.Path(named)
    with contextlib.suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        return path
    return None


def _lasts(function: Callable) -> bool:
    """Whether it can be held weakly: a bound method, for one, is another object each time it is asked for."""
    try:
        weakref.ref(function), hash(function)
    except TypeError:
        return False
    return not isinstance(function, types.MethodType)


def _weak(function: Callable) -> Callable:
    """The function, which whoever calls this must keep alive."""
    held: Callable[[], Any] = weakref.ref(function)
    return lambda *arguments, **named: held()(*arguments, **named)
