"""Kinds of arguments and settings: what a number must be, said once in its annotation, and checked from there.

    layers: Positive = 4
    rate: Probability = 0.1

Factories hold their arguments against them (`jaxnas.checks`), the command line its flags (`jaxnas.app.settings`), which does not
wait for JAX to do so.  Integers are Python's and NumPy's (no bools, no floats), of at most 32 bits; numbers are finite in float32.
A traced value is not looked at: its kind is known to JAX, its value to nobody yet.
"""

import numbers
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

LARGEST = 3.4028234e38  # float32


class Want(NamedTuple):
    """What an argument must be."""

    text: str  # behind "must be"
    holds: Callable[[Any], bool]


def is_traced(value: Any) -> bool:
    """Whether a value is traced by JAX, which a program without JAX has not."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def is_scalar(value: Any, kinds: str) -> bool:
    """Whether a value is one number of these NumPy kinds: Python's, NumPy's, or an array [] of JAX or NumPy."""
    if isinstance(value, bool | str | bytes) or value is None:
        return False
    if isinstance(value, numbers.Integral):
        return "i" in kinds
    if isinstance(value, numbers.Real):
        return "f" in kinds
    return hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0 and getattr(value.dtype, "kind", "") in tuple(kinds)


def integer(low: int, text: str) -> Want:
    """Integers of at most 32 bits from `low` on."""
    return Want(text, lambda v: is_traced(v) or (is_scalar(v, "iu") and low <= int(v) < 2**31))


def number(text: str, holds: Callable[[float], bool] = lambda v: True) -> Want:
    """Finite numbers of which something holds."""
    finite = lambda v: is_scalar(v, "iuf") and abs(v) <= LARGEST
    return Want(text, lambda v: is_traced(v) or bool(finite(v) and holds(v)))


POSITIVE = number("a positive number", lambda v: v > 0)
NOT_NEGATIVE = number("a number of at least 0", lambda v: v >= 0)

Positive = Annotated[int, integer(1, "a positive integer")]
NonNegative = Annotated[int, integer(0, "an integer of at least 0")]
PositiveNumber = Annotated[float, POSITIVE]
NonNegativeNumber = Annotated[float, NOT_NEGATIVE]
Probability = Annotated[float, number("a probability, from 0 to 1", lambda v: 0 <= v <= 1)]
ProbabilityBelowOne = Annotated[float, number("a probability below 1", lambda v: 0 <= v < 1)]
Share = Annotated[float, number("a share, above 0 and at most 1", lambda v: 0 < v <= 1)]
Seed = Annotated[int, Want("an integer from 0 to 2**63 - 1", lambda v: is_scalar(v, "iu") and 0 <= int(v) < 2**63)]

Precision = Literal["float32", "bfloat16"]  # that the maps of a network are computed in

INTEGER = integer(-(2**31), "an integer")
NUMBER = number("a finite number")
