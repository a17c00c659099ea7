"""The command line and what it runs: one table of methods, spaces and nets; searches, comparisons, tables, exports."""

import importlib

# Imported when they are first used: `jaxnas --help` does not wait for JAX.
__all__ = ["bench", "commands", "config", "export", "rank", "regret", "search", "tabulate"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module 'jaxnas.app' has no attribute {name!r}")
    return importlib.import_module(f"jaxnas.app.{name}")
