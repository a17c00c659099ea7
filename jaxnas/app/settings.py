"""Settings as typed dataclasses, read from JSON and TOML; and how entries of one's own join the tables.

An entry joins by one call, `TABLE.register(name, entry)`, in a program, in a file that `jaxnas search --use FILE` names, or in a
module that an installed package names as an entry point of the group "jaxnas":

    [project.entry-points.jaxnas]
    mine = "my_package.my_methods"
"""

import dataclasses
import difflib
import hashlib
import importlib.metadata
import importlib.util
import pathlib
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any


def load_plugins(files: tuple[str, ...] = ()) -> None:
    """Runs what registers further entries: the entry points of installed packages, and Python files, each once a process.

    Raises:
        ValueError: for a file that is not there or fails.
    """
    for point in importlib.metadata.entry_points(group="jaxnas"):
        point.load()
    for file in files:
        path, name = _place(file)
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, path) if path.suffix == ".py" and path.is_file() else None
        if spec is None or spec.loader is None:
            raise ValueError(f"--use {file}: there is no such Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise ValueError(f"--use {file} fails: {type(error).__name__}: {error}") from error


def _place(file: str) -> tuple[pathlib.Path, str]:
    """(where a plugin is, the name of its module)."""
    path = pathlib.Path(file).expanduser().resolve()
    return path, f"jaxnas_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"


def module_of(file: str) -> types.ModuleType:
    """The module of a file that `load_plugins` has run."""
    return sys.modules[_place(file)[1]]


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """Nothing to set."""


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type: int, float, str, bool, None, a union, a literal, or a tuple of those."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return fits(value, parts[0])
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        every = parts[:1] * len(value) if parts[1:] == (Ellipsis,) else parts
        return len(value) == len(every) and all(fits(v, part) for v, part in zip(value, every, strict=True))
    if kind is None or kind is type(None):
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def read_settings(kind: type, values: Any, where: str) -> Any:
    """A settings dataclass of {field: value}, as JSON and TOML hold it: lists are tuples.

    Raises:
        ValueError: for a field that there is not, or a value of another type; `where` names the place.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a table of names and values, not {values!r}")
    kinds = {f.name: f.type for f in dataclasses.fields(kind)}
    values = {name: _tuples(value) for name, value in values.items()}
    for name, value in values.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(kinds) or 'nothing to set'}"
            raise ValueError(f"{where} has no {name!r}: {hint}")
        if not fits(value, kinds[name]):
            raise ValueError(f"{where}: {name} is {value!r}, which is not of type {describe(kinds[name])}")
    return kind(**values)


def check(settings: Any, prefix: str = "--") -> None:
    """Holds the fields of a dataclass against their annotations, such as `jaxnas.kinds.Positive`.

    Args:
        settings: the dataclass.
        prefix: of the flags, by which the fields are called.

    Raises:
        ValueError: for the first field that is not what its annotation asks for.
    """
    from jaxnas.checks import described, wanted

    for field in dataclasses.fields(settings):
        want, value = wanted(field.type), getattr(settings, field.name)
        if not want.holds(value):
            raise ValueError(f"{prefix}{field.name.replace('_', '-')} must be {want.text}, not {described(value)}")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def describe(kind: Any) -> str:
    """The name of a type, for a person."""
    if typing.get_origin(kind) is typing.Annotated:
        return describe(typing.get_args(kind)[0])
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")
