"""Probes: what happens inside a net, read from outside, through its scans, switches and vmaps.

    with probing(Probe(tap, relu=...)):
        statistic = jax.grad(lambda tap: ..., of the net's output)(tap)

A tap is an argument that changes nothing, and whose cotangent is a statistic of what passes by; reverse mode adds it up over all
the places that are computed.  So one compiled program counts the multiply-adds, or compares the signs, of any architecture.

A probe is there while the net is traced; without one the layers compute as if this file did not exist.  Inside another one both
are there, the inner one nearer to the layers, and a probe that changes nothing tells what it would tell alone:

    with probing(Probe(taps[0], relu=...)), probing(Probe(taps[1], linear=...)):
        signs, counted = jax.grad(lambda taps: ..., of the net's output)(taps)

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


Probes = tuple[Probe, ...]  # the outermost first
_current: contextvars.ContextVar[Probes] = contextvars.ContextVar("probes", default=())


@contextlib.contextmanager
def _only(probes: Probes) -> Generator[None, None, None]:
    """These probes and no others."""
    token = _current.set(probes)
    try:
        yield
    finally:
        _current.reset(token)


def probing(probe: Probe) -> contextlib.AbstractContextManager[None]:
    """The nets that are traced inside are probed, by the probes around as well."""
    return _only((*_current.get(), probe))


def probing_alone(probe: Probe) -> contextlib.AbstractContextManager[None]:
    """The same without the probes around: for what is computed on the side, and is no part of the net that they look at."""
    return _only((probe,))


def _with_taps(probes: Probes, taps: tuple[Any, ...]) -> Probes:
    return tuple(probe._replace(tap=tap) for probe, tap in zip(probes, taps, strict=True))


def _taps(probes: Probes) -> tuple[Any, ...]:
    return tuple(probe.tap for probe in probes)


def where(there: jax.Array | bool) -> contextlib.AbstractContextManager[None]:
    """What is computed inside counts where `there`, bool[]: an operation of a mixture whose gate may be 0."""
    probes = _current.get()
    return _only(_with_taps(probes, jax.tree.map(lambda tap: there * tap, _taps(probes))))


def norms() -> bool:
    """Whether normalisations normalise."""
    return all(probe.norms for probe in _current.get())


def relu(x: jax.Array, f: Activation = jax.nn.relu) -> jax.Array:
    """f(x), an activation that is 0 below 0; x [..., B]."""
    for probe in reversed(_current.get()):
        if probe.relu is not None:
            f = _seen_by(probe.relu, probe.tap, f)
    return f(x)


def _seen_by(relu: Callable[[Any, jax.Array, Activation], jax.Array], tap: Any, f: Activation) -> Activation:
    return lambda x: relu(tap, x, f)


def linear(y: jax.Array, n: int) -> jax.Array:
    """y [C, ..., B], each entry a sum of n products."""
    for probe in reversed(_current.get()):
        if probe.linear is not None:
            y = probe.linear(probe.tap, y, n)
    return y


def whole(*xs: jax.Array) -> Maps:
    """The maps that all paths from the input to the output go through."""
    for probe in reversed(_current.get()):
        if probe.whole is not None:
            xs = probe.whole(probe.tap, xs)
    return xs


def last(x: jax.Array) -> jax.Array:
    """The maps x [C, H, W, B] that are averaged for the classifier."""
    for probe in reversed(_current.get()):
        if probe.last is not None:
            probe.last(x)
    return x


def carried(f: Callable[..., Any]) -> tuple[Callable[..., Any], Any]:
    """-> (g, taps) with g(taps, *args) = f(*args): for what may not close over a tap, as a `custom_vjp` may not."""
    probes = _current.get()

    def g(taps, *args):
        with _only(_with_taps(probes, taps)):
            return f(*args)

    return g, _taps(probes)
