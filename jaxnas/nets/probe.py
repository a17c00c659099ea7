"""Probes: what happens inside a net, read from outside, through its scans, switches and vmaps.

    with probing(Probe(tap, relu=...)):
        statistic = jax.grad(lambda tap: ..., of the net's output)(tap)

A tap is an argument that changes nothing, and whose cotangent is a statistic of what passes by; reverse mode adds it up over all
the places that are computed.  So one compiled program counts the multiply-adds, or compares the signs, of any architecture.

A probe is there while the net is traced; without one the layers compute as if this file did not exist.

Axes: C channels, H rows, W columns, B batch.
"""

import contextlib
import contextvars
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax

Activation = Callable[[jax.Array], jax.Array]
Maps = tuple[jax.Array, ...]


class Probe(NamedTuple):
    """What layers do besides computing.  A function that is None is not called."""

    tap: Any = None
    relu: Callable[[Any, jax.Array, Activation], jax.Array] | None = None  # (tap, x, f) -> f(x); x of any shape, the batch last
    linear: Callable[[Any, jax.Array, int], jax.Array] | None = None  # (tap, y, n) -> y [C, ..., B], each of n products
    whole: Callable[[Any, Maps], Maps] | None = None  # (tap, xs) -> xs, where nothing goes around the maps xs
    last: Callable[[jax.Array], None] | None = None  # the maps [C, H, W, B] before they are averaged
    norms: bool = True  # False: normalisations pass on what they get


_NONE = Probe()
_current = contextvars.ContextVar("probe", default=_NONE)


@contextlib.contextmanager
def probing(probe: Probe) -> Generator[None, None, None]:
    """The nets that are traced inside are probed."""
    token = _current.set(probe)
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def where(there: jax.Array | bool) -> Generator[None, None, None]:
    """What is computed inside counts where `there`, bool[]: an operation of a mixture whose gate may be 0."""
    probe = _current.get()
    with probing(probe._replace(tap=jax.tree.map(lambda tap: there * tap, probe.tap))):
        yield


def norms() -> bool:
    """Whether normalisations normalise."""
    return _current.get().norms


def relu(x: jax.Array, f: Activation = jax.nn.relu) -> jax.Array:
    """f(x), an activation that is 0 below 0; x [..., B]."""
    probe = _current.get()
    return f(x) if probe.relu is None else probe.relu(probe.tap, x, f)


def linear(y: jax.Array, n: int) -> jax.Array:
    """y [C, ..., B], each entry a sum of n products."""
    probe = _current.get()
    return y if probe.linear is None else probe.linear(probe.tap, y, n)


def whole(*xs: jax.Array) -> Maps:
    """The maps that all paths from the input to the output go through."""
    probe = _current.get()
    return xs if probe.whole is None else probe.whole(probe.tap, xs)


def last(x: jax.Array) -> jax.Array:
    """The maps x [C, H, W, B] that are averaged for the classifier."""
    probe = _current.get()
    if probe.last is not None:
        probe.last(x)
    return x


def carried(f: Callable[..., Any]) -> tuple[Callable[..., Any], Any]:
    """-> (g, tap) with g(tap, *args) = f(*args): for what may not close over a tap, as a `custom_vjp` may not."""
    probe = _current.get()

    def g(tap, *args):
        with probing(probe._replace(tap=tap)):
            return f(*args)

    return g, probe.tap
