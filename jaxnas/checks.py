"""Checks of arguments: a public factory is `checked`, so that each argument is held against its annotation before it is used.

    @checked
    def chain_of(space: Space, layers: Positive = 4, rate: Probability = 0.1) -> Net: ...

    chain_of(space, 2.5)    ValueError: `layers` of chain_of must be a positive integer; got 2.5

What an annotation cannot say (a list in descending order, two arguments that exclude each other) is checked by the factory itself.
The kinds of numbers are those of `jaxnas.kinds`.
"""

import collections.abc
import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.kinds import INTEGER, NOT_NEGATIVE, NUMBER, POSITIVE, Positive, Want, is_traced

Function = TypeVar("Function", bound=Callable[..., Any])


def scheduled(of: Want) -> Want:
    """A number, or a schedule step -> number."""
    return Want(f"{of.text}, or a schedule step -> number", lambda v: callable(v) or of.holds(v))


Rate = Annotated[float | jax.Array | Callable[[Any], Any], scheduled(NOT_NEGATIVE)]  # of learning
Temperature = Annotated[float | jax.Array | Callable[[Any], Any], scheduled(POSITIVE)]
_SIZES = Want("(height, width, channels), each a positive integer", lambda v: wanted(tuple[Positive, ...]).holds(v))
Image = Annotated[tuple[int, int, int], _SIZES]  # or fewer axes, where a net says what it reads
Flags = Annotated[
    Any, Want("an array of True and False, or of 1 and 0", lambda v: _is_numeric(v) and bool(np.isin(v, (0, 1)).all()))
]


def _is_arity(value: Any) -> bool:
    whole = _is_numeric(value) and np.asarray(value).dtype.kind in "iu"
    return whole and bool((np.asarray(value) > 0).all() and (np.asarray(value) < 2**31).all())


Arities = Annotated[Any, Want("positive integers below 2**31, how many values each has", _is_arity)]
_is_key = lambda v: isinstance(v, jax.Array) and jax.dtypes.issubdtype(v.dtype, jax.dtypes.prng_key)
RandomKey = Annotated[jax.Array, Want("a key such as jax.random.key(0)", _is_key)]

_PLAIN = {
    bool: Want("True or False", lambda v: isinstance(v, bool | np.bool_)),
    int: INTEGER,
    float: NUMBER,
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
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array {value.dtype}{[*value.shape]}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', 'without a name')}"
    kind = type(value).__name__
    return f"{'an' if kind[:1] in 'AEIOUaeiou' else 'a'} {kind}" + (
        f" of length {len(value)}" if short or (plain and kind == "str") else ""
    )


def _items(value: Any) -> list[Any] | None:
    """The items of a list, tuple or array; None for another kind of thing."""
    if isinstance(value, str | bytes):
        return None
    if isinstance(value, jax.Array | np.ndarray):
        return list(np.asarray(value)) if value.ndim else None
    return list(value) if isinstance(value, collections.abc.Sequence) else None


def _each(of: Want) -> Want:
    """A list whose items are all `of` one kind."""

    def holds(value):
        items = None if hasattr(value, "_fields") else _items(value)
        return items is not None and all(of.holds(item) for item in items)

    return Want(f"a list, each item {of.text}" if of.text != "anything" else "a list", holds)


_ANYTHING = Want("anything", lambda v: True)
_CALLABLE = Want("a function", callable)


def _is_numeric(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf" or is_traced(value)
    except (ValueError, TypeError, jax.errors.TracerArrayConversionError):
        return is_traced(value)


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
        return next((meta for meta in args[1:] if isinstance(meta, Want)), None) or wanted(args[0])
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
        return Want(f"a dictionary, each value {of.text}" if of is not _ANYTHING else "a dictionary", holds)
    kind = origin or hint
    if isinstance(kind, type) and kind is not object:
        name = kind.__name__
        return Want(_SUCH_AS.get(name, f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"), lambda v: isinstance(v, kind))
    return _ANYTHING


def require(hint: Any, where: str = "", **values: Any) -> None:
    """Holds named values against an annotation; of a NamedTuple whose fields say what they must be, its fields, too.

    Args:
        hint: such as `Positive`.
        where: what the values belong to, for the message.
        values: by name.

    Raises:
        ValueError: for the first value that is not what the annotation asks for.
    """
    want = wanted(hint)
    of = f" of {where}" if where else ""
    for name, value in values.items():
        if not want.holds(value):
            raise ValueError(f"`{name}`{of} must be {want.text}; got {described(value)}")
        for part in value if type(value) in (tuple, list) else (value,):
            if hasattr(part, "_fields") and _says_what(type(part)):
                require_fields(part)


def require_fields(given: Any) -> None:
    """Holds the fields of a NamedTuple against their annotations.

    Raises:
        ValueError: for the first field that is not what its annotation asks for.
    """
    hints = _hints(type(given))
    for name, value in zip(given._fields, given, strict=True):
        require(hints[name], type(given).__name__, **{name: value})


@functools.cache
def _says_what(kind: type) -> bool:
    """Whether a field of a NamedTuple has an annotation that says what it must be, alone, in a list or or-ed."""
    parts = lambda hint: [hint, *(part for arg in typing.get_args(hint) for part in parts(arg))]
    return any(isinstance(part, Want) for hint in _hints(kind).values() for part in parts(hint))


def require_like(like: Any, axes: int = 0, **values: Any) -> None:
    """Holds pytrees of numbers against another: the same structure, and in each leaf the same shape behind so many axes.

    Args:
        like: a pytree of arrays, or of their shapes and dtypes.
        axes: leading ones, alike in all leaves.
        values: by name.

    Raises:
        ValueError: for the first pytree that is not alike.
    """
    shapes = jax.tree.map(jnp.shape, like)
    for name, value in values.items():
        same = jax.tree.structure(value) == jax.tree.structure(like) and all(map(_is_numeric, jax.tree.leaves(value)))
        given = jax.tree.map(jnp.shape, value) if same else None
        leads = {jnp.shape(leaf)[:axes] for leaf in jax.tree.leaves(value)} if same else set()
        lead = next(iter(leads), ())
        if not same or len(leads) > 1 or len(lead) != axes or given != jax.tree.map(lambda leaf: lead + jnp.shape(leaf), like):
            stacked = f", behind {axes} axis" if axes == 1 else ""
            raise ValueError(f"`{name}` must be a pytree of numbers of the shapes {shapes}{stacked}; got {described(value)}")


def require_labels(y: Any, classes: int) -> np.ndarray:
    """Labels of classes as NumPy integers.

    Raises:
        ValueError: for labels that are not whole numbers from 0 to classes - 1.
    """
    if not _is_numeric(y) or np.asarray(y).dtype.kind not in "iu":
        raise ValueError(f"labels of classes must be integers [N]; got {described(y)}")
    y = np.asarray(y)
    wrong = y[(y < 0) | (y >= classes)]
    if wrong.size:
        raise ValueError(f"labels of {classes} classes go from 0 to {classes - 1}, and {wrong[0]} is among them: count from 0")
    return y


def require_rows(count: int, **values: Any) -> None:
    """Holds pytrees of arrays to one number of rows.

    Args:
        count: N.
        values: by name.

    Raises:
        ValueError: for the first that is no pytree of arrays [N, ...].
    """
    for name, value in values.items():
        leaves = jax.tree.leaves(value)
        if not leaves or not all(_is_numeric(leaf) and np.shape(leaf)[:1] == (count,) for leaf in leaves):
            raise ValueError(f"`{name}` must be a pytree of arrays with {count} rows each; got {described(value)}")


def require_archs(space: Any, axes: int = 0, **values: Any) -> None:
    """Holds architectures against their space: the structure, the shapes and, where values are at hand, their range.

    Args:
        space: a `Space`.
        axes: leading ones.
        values: by name.

    Raises:
        ValueError: for the first that is not of the space.
    """
    for name, value in values.items():
        require_like(jax.eval_shape(space.sample, jax.random.key(0)), axes, **{name: value})
        decisions = jax.tree.leaves(value if space.reals is None else value.decisions)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in decisions):
            continue
        lead = math.prod(jnp.shape(decisions[0])[:axes]) if decisions else 1
        flat = np.concatenate([np.zeros((lead, 0)), *(np.asarray(leaf).reshape(lead, -1) for leaf in decisions)], 1)  # [N, D]
        whole = (flat == np.floor(flat)) & (flat >= 0) & (flat < space.arity)
        if not whole.all():
            n, d = np.argwhere(~whole)[0]
            raise ValueError(f"`{name}` is not in this space: decision {d} is {flat[n, d]:g}, and may be 0 to {space.arity[d] - 1}")


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
