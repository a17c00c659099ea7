"""Checks of arguments: a public factory is `checked`, so that each argument is held against its annotation before it is used.

    @checked
    def chain_of(space: Space, layers: Positive = 4, rate: Probability = 0.1) -> Net: ...

    chain_of(space, 2.5)    ValueError: `layers` of chain_of must be a positive integer; got 2.5

Integers are Python's and NumPy's (no bools, no floats), of at most 32 bits; numbers are finite in float32.  A traced value is
not looked at: its kind is known to JAX, its value to nobody yet.  What an annotation cannot say (a list in descending order, two
arguments that exclude each other) is checked by the factory itself.
"""

import collections.abc
import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar

import jax
import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])


class Want(NamedTuple):
    """What an argument must be."""

    text: str  # behind "must be"
    holds: Callable[[Any], bool]


def _scalar(value: Any, kinds: str) -> bool:
    """Whether a value is one number of these NumPy kinds: Python's, NumPy's, or an array [] of JAX or NumPy."""
    if isinstance(value, bool | np.bool_ | str | bytes) or value is None:
        return False
    if isinstance(value, numbers.Integral):
        return "i" in kinds
    if isinstance(value, numbers.Real):
        return "f" in kinds
    return isinstance(value, jax.Array | np.ndarray) and value.ndim == 0 and value.dtype.kind in kinds


def integer(low: int, text: str) -> Want:
    """Integers of at most 32 bits from `low` on."""
    return Want(text, lambda v: isinstance(v, jax.core.Tracer) or (_scalar(v, "iu") and low <= int(v) < 2**31))


def number(text: str, holds: Callable[[float], bool] = lambda v: True) -> Want:
    """Finite numbers of which something holds."""
    finite = lambda v: _scalar(v, "iuf") and abs(v) <= float(np.finfo(np.float32).max)
    return Want(text, lambda v: isinstance(v, jax.core.Tracer) or bool(finite(v) and holds(v)))


_POSITIVE = number("a positive number", lambda v: v > 0)
_NOT_NEGATIVE = number("a number of at least 0", lambda v: v >= 0)


def scheduled(of: Want) -> Want:
    """A number, or a schedule step -> number."""
    return Want(f"{of.text}, or a schedule step -> number", lambda v: callable(v) or of.holds(v))


Positive = Annotated[int, integer(1, "a positive integer")]
NonNegative = Annotated[int, integer(0, "an integer of at least 0")]
PositiveNumber = Annotated[float, _POSITIVE]
NonNegativeNumber = Annotated[float, _NOT_NEGATIVE]
Probability = Annotated[float, number("a probability, from 0 to 1", lambda v: 0 <= v <= 1)]
ProbabilityBelowOne = Annotated[float, number("a probability below 1", lambda v: 0 <= v < 1)]
Share = Annotated[float, number("a share, above 0 and at most 1", lambda v: 0 < v <= 1)]
Rate = Annotated[float | jax.Array | Callable[[Any], Any], scheduled(_NOT_NEGATIVE)]  # of learning
Temperature = Annotated[float | jax.Array | Callable[[Any], Any], scheduled(_POSITIVE)]
_SIZES = Want("(height, width, channels), each a positive integer", lambda v: wanted(tuple[Positive, ...]).holds(v))
Image = Annotated[tuple[int, int, int], _SIZES]  # or fewer axes, where a net says what it reads
_is_key = lambda v: isinstance(v, jax.Array) and jax.dtypes.issubdtype(v.dtype, jax.dtypes.prng_key)
RandomKey = Annotated[jax.Array, Want("a key such as jax.random.key(0)", _is_key)]

_PLAIN = {
    bool: Want("True or False", lambda v: isinstance(v, bool | np.bool_)),
    int: integer(-(2**31), "an integer"),
    float: number("a finite number"),
    str: Want("a text", lambda v: isinstance(v, str)),
    type(None): Want("None", lambda v: v is None),
    jax.Array: Want("an array", lambda v: isinstance(v, jax.Array | np.ndarray | np.generic)),
}
_SUCH_AS = {  # a class -> what makes one
    "AskTell": "an algorithm such as nas.random_search(space)",
    "Criterion": "a criterion such as nas.training.CLASSES",
    "Evaluator": "an evaluator such as nas.evaluate.table(space), or nas.stateless(function)",
    "Feed": "a feed such as nas.data.batches(dataset, 64)",
    "GradientTransformation": "an optimizer such as nas.training.sgd(0.025)",
    "MDP": "a decision process such as nas.spaces.metaqnn()",
    "Module": "a Flax module",
    "Net": "a net such as nas.cell_net(space, image=(32, 32, 3), classes=10)",
    "Policy": "a policy such as nas.policies.softmax(space)",
    "Priced": "a price such as nas.hardware.priced(cost, form)",
    "Space": "a space such as nas.spaces.nasbench201()",
    "Strategy": "a strategy such as nas.darts(net)",
    "Surrogate": "a surrogate such as nas.surrogates.forest(encode)",
    "Update": "an update such as nas.policies.reinforce(policy, optimizer)",
}


def described(value: Any) -> str:
    """What was given, in a few words: short values as they are written, others by their type."""
    plain = isinstance(value, bool | numbers.Number | str | bytes | type(None))
    short = isinstance(value, tuple | list | dict) and not hasattr(value, "_fields")
    if (plain or short) and len(text := repr(value)) <= 80:
        return text
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', 'without a name')}"
    kind = type(value).__name__
    return f"{'an' if kind[:1] in 'AEIOUaeiou' else 'a'} {kind}" + (
        f" of length {len(value)}" if short or (plain and kind == "str") else ""
    )


def _items(value: Any) -> list[Any] | None:
    """The items of a list, tuple or array; None for another kind of thing."""
    if isinstance(value, str | bytes | collections.abc.Mapping | collections.abc.Set) or hasattr(value, "_fields"):
        return None
    if isinstance(value, jax.Array | np.ndarray):
        return list(np.asarray(value)) if value.ndim else None
    return list(value) if isinstance(value, collections.abc.Sequence) else None


def _each(of: Want, length: int | None = None) -> Want:
    """A list whose items are all `of` one kind."""

    def holds(value):
        items = _items(value)
        return items is not None and len(items) == (length or len(items)) and all(of.holds(item) for item in items)

    return Want(f"a list of {length or 'values'}, each {of.text}" if of.text != "anything" else "a list", holds)


_ANYTHING = Want("anything", lambda v: True)
_CALLABLE = Want("a function", callable)


def _is_numeric(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf" or isinstance(value, jax.core.Tracer)
    except (ValueError, TypeError, jax.errors.TracerArrayConversionError):
        return isinstance(value, jax.core.Tracer)


_NUMBERS = Want("an array of numbers", _is_numeric)


def _either(hints: tuple[Any, ...]) -> Want:
    if complex in hints:  # numpy's ArrayLike, whose parts a union has swallowed
        none = type(None) in hints
        return Want(_NUMBERS.text + (" or None" if none else ""), lambda v: (none and v is None) or _NUMBERS.holds(v))
    wants = [wanted(hint) for hint in hints]
    return Want(" or ".join(dict.fromkeys(w.text for w in wants)), lambda v: any(w.holds(v) for w in wants))


@functools.cache
def wanted(hint: Any) -> Want:
    """What an annotation asks for."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return next(meta for meta in args[1:] if isinstance(meta, Want))
    if hint is Any:
        return _ANYTHING
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin in (typing.Union, types.UnionType):
        return _either(args)
    if origin is collections.abc.Callable or hint is Callable or getattr(hint, "_is_protocol", False):
        return _CALLABLE
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        wants = [wanted(arg) for arg in args]
        fits = lambda v: (
            (x := _items(v)) is not None and len(x) == len(wants) and all(w.holds(i) for w, i in zip(wants, x, strict=True))
        )
        return Want(f"({', '.join(w.text for w in wants)})", fits)
    if origin in (tuple, list, collections.abc.Sequence, collections.abc.Iterable):
        return _each(wanted(args[0]))
    if origin in (dict, collections.abc.Mapping):
        of = wanted(args[1])
        holds = lambda v: isinstance(v, collections.abc.Mapping) and all(of.holds(item) for item in v.values())
        return Want(f"a dictionary whose values are each {of.text}" if of is not _ANYTHING else "a dictionary", holds)
    kind = origin or hint
    if isinstance(kind, type) and kind is not object:
        name = kind.__name__
        return Want(_SUCH_AS.get(name, f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"), lambda v: isinstance(v, kind))
    return _ANYTHING


def require(hint: Any, where: str = "", **values: Any) -> None:
    """Raises ValueError for the first of the named values that is not what the annotation asks for.

    Args:
        hint: an annotation, such as `Positive`.
        where: what the values belong to, for the message.
        values: by name.
    """
    want = wanted(hint)
    for name, value in values.items():
        if not want.holds(value):
            of = f" of {where}" if where else ""
            raise ValueError(f"`{name}`{of} must be {want.text}; got {described(value)}")


def require_fields(given: Any, where: str = "") -> None:
    """Holds the fields of a NamedTuple against their annotations.

    Raises:
        ValueError: for the first field that is not what its annotation asks for.
    """
    hints = _hints(type(given))
    for name, value in zip(given._fields, given, strict=True):
        require(hints[name], where or type(given).__name__, **{name: value})


@functools.cache
def _hints(owner: Any) -> dict[str, Any]:
    return typing.get_type_hints(owner, include_extras=True)


def checked(function: Function) -> Function:
    """Holds the arguments of a factory against its annotations, at every call.

    Raises:
        ValueError: at the call, for the first argument that is not what its annotation asks for.
        TypeError: at the call, for a missing or an unknown argument, as without it.
    """
    signature = inspect.signature(function)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

    @functools.wraps(function)
    def call(*args, **kwargs):
        hints = _hints(call)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            kind = signature.parameters[name].kind
            parts = {name: value}
            if kind in several:
                parts = value if kind is inspect.Parameter.VAR_KEYWORD else {f"{name}[{i}]": v for i, v in enumerate(value)}
            require(hints.get(name, Any), function.__name__, **parts)
        return function(*args, **kwargs)

    return typing.cast(Function, call)
