"""Running a search: the only loop, and, with `jaxnas.app`, the only side effects."""

import importlib

# Imported when they are first used: the command line reads `errors` without waiting for JAX.
_HOME = {
    "CheckpointError": "checkpoint",
    "Checkpoints": "checkpoint",
    "Diverged": "errors",
    "Journal": "journal",
    "NoFiniteScore": "errors",
    "Result": "loop",
    "RunIsLocked": "lock",
    "Stopped": "errors",
    "compilation_cache": "cache",
    "compiler_options": "program",
    "run": "loop",
}
__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Diverged",
    "Journal",
    "NoFiniteScore",
    "Result",
    "RunIsLocked",
    "Stopped",
    "compilation_cache",
    "compiler_options",
    "run",
]


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'jaxnas.driver' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxnas.driver.{_HOME[name]}"), name)
