"""Fences: what the compiler must compute once and keep; and plain nets, which have none.

fence(x)    x, made in full before anyone reads it (CPU; elsewhere the compiler decides)
plain()     nets that are traced inside consist of JAX's own operations
"""

import contextlib
import contextvars
from collections.abc import Generator

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain() -> Generator[None, None, None]:
    """Nets that are traced inside consist of JAX's own operations: dense convolutions of [B, C, H, W], and no fences.

    For a converter, which reads the traced program and knows no other primitives and no other axes.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def is_plain() -> bool:
    """Whether what is traced now is to be `plain`."""
    return _plain.get()


_fence = Primitive("fence")  # x, and its cotangent, made in full before anyone reads them
_fence.def_impl(lambda x: x)
_fence.def_abstract_eval(lambda x: x)
ad.deflinear2(_fence, lambda u, x: [_fence.bind(u)])
batching.primitive_batchers[_fence] = lambda args, dims: (_fence.bind(*args), *dims)
_whole = jax.jit(lax.optimization_barrier)


def _apart(x):
    """XLA's CPU fusion ignores barriers, and would compute x again inside every reader: it stops at a call it may not inline."""
    with set_xla_metadata(inlineable="false"):
        return _whole(x)


mlir.register_lowering(_fence, mlir.lower_fun(_apart, multiple_results=False), platform="cpu")
mlir.register_lowering(_fence, mlir.lower_fun(lambda x: x, multiple_results=False))


def fence(x: jax.Array) -> jax.Array:
    """x, computed once and kept, whoever reads it (CPU; elsewhere the compiler decides)."""
    return x if is_plain() else _fence.bind(x)
