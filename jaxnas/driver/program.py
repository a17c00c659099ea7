"""A phase of a plan as compiled programs: its first state, its loop, and what a stream has to read.

The keys of step t of phase p follow from those of the run: see `jaxnas.driver.loop`.

Axes: S seeds, T steps.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import sharding
from jaxnas.base import Phase, Stream
from jaxnas.checks import checked
from jaxnas.driver import ahead
from jaxnas.driver.cache import reused
from jaxnas.driver.fingerprint import of_program


@checked
def compiler_options(once: bool = False) -> dict[str, bool | int]:
    """What the driver compiles with.

    On CPU the classic loop emitter is faster, in compiling and in running, for these nets; LLVM's first level of
    optimisation gives code as fast as its third in two thirds of the time (a NAS-Bench-201 step of exact second order:
    17 s instead of 28 s); and what runs `once` is not worth optimising (drawing a supernet's weights: 2 s instead of 12 s).
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 0 if once else 1}


class Program:
    """One phase, compiled: its init, and its loop of up to `chunk` steps with a traced number of them."""

    def __init__(self, phase: Phase, number: int, keys, seeds, chunk, mesh=None):
        self.phase, self._seeds = phase, seeds
        self._whole_keys = keys  # in every process, which computes the indices of a stream by itself
        self._keys = keys if mesh is None else sharding.place(keys, mesh, seeds is not None)
        functions = reused(phase, (number, seeds is None, chunk), lambda weak: self._functions(weak, number, seeds, chunk))
        self._init, self._one_step, self._advance, self._indices = functions

    @staticmethod
    def _functions(phase, number: int, seeds, chunk):
        """(init, step, loop, indices), each under `jax.jit`."""
        vmap = (lambda f, axes: f) if seeds is None else (lambda f, axes: jax.vmap(f, axes))
        split = lambda k: jax.random.split(jax.random.fold_in(k, number))
        of_step = lambda k, t: jax.random.split(jax.random.fold_in(split(k)[1], t))  # for the data, and for the step
        here = functools.partial(ahead.of_step, phase.data)

        def init(keys, previous):
            one = lambda k, previous: phase.strategy.init(split(k)[0], None if previous is None else phase.give(previous))
            return sharding.spread(vmap(one, (0, None if previous is None else 0))(keys, previous), seeds is not None)

        def step(k, state, t, arrays, previous):
            k_data, k_step = of_step(k, t)
            batch = phase.data.draw(k_data, arrays, t)
            if phase.fix is not None:
                batch = batch._replace(fixed=phase.fix(previous))
            return phase.strategy.step(k_step, state, batch)

        axes = 0, 0, None, 0 if isinstance(phase.data, Stream) else None, None if phase.fix is None else 0

        def laid_out(*arguments):
            state, info = vmap(step, axes)(*arguments)
            return sharding.spread(state, seeds is not None), info

        one_step = jax.jit(laid_out)  # traced once, used twice

        def advance(keys, state, start, n, arrays, previous):
            _, info = jax.eval_shape(one_step, keys, state, start, here(arrays, start), previous)
            first = 0 if seeds is None else 1
            shape = lambda a: (*a.shape[:first], chunk, *a.shape[first:])
            blank = jax.tree.map(lambda a: jnp.zeros(shape(a), a.dtype), info)

            def body(i, carry):
                state, infos = carry
                state, info = one_step(keys, state, start + i, here(arrays, start + i), previous)
                put = lambda all, a: jax.lax.dynamic_update_index_in_dim(all, a.astype(all.dtype), i, first)
                return state, jax.tree.map(put, infos, info)

            state, infos = jax.lax.fori_loop(0, n, body, (state, blank))
            return state, sharding.whole(infos)

        def indices(keys, start, steps):  # [steps, ...] or [steps, S, ...]
            one = lambda k, t: ahead.drawn(phase.data, of_step(k, t)[0], t)
            return jax.vmap(lambda t: vmap(one, (0, None))(keys, t))(start + jnp.arange(steps))

        once, often = (compiler_options(once) for once in (True, False))
        return (
            jax.jit(init, compiler_options=once),
            one_step,
            jax.jit(advance, compiler_options=often, donate_argnums=1),
            jax.jit(indices, static_argnums=2, compiler_options=once),
        )

    def digest(self, previous):
        """A hash of what it computes, given the shapes of the state before."""
        step = self._traced_step(self.shapes(previous), previous)
        count = jax.ShapeDtypeStruct((), jnp.int32)
        drawn = [self._indices.trace(self._keys, count, 1).jaxpr] if isinstance(self.phase.data, Stream) else []
        return of_program(self._init.trace(self._keys, previous).jaxpr, step.jaxpr, *drawn)

    def _traced_step(self, state, previous):
        count, fixed = jax.ShapeDtypeStruct((), jnp.int32), previous if self.phase.fix is not None else None
        return self._one_step.trace(self._keys, state, count, ahead.shapes(self.phase.data, self._seeds), fixed)

    def check(self, state, previous):
        """Traces a step, which raises ValueError for whatever its shapes do not allow, before anything is compiled."""
        self._traced_step(state, previous)

    def shapes(self, previous):
        return jax.eval_shape(self._init, self._keys, previous)

    def init(self, previous):
        return self._init(self._keys, previous)

    def indices(self, start, steps, device):
        """Of `steps` steps of a stream, [steps, ...], computed on `device`."""
        return self._indices(jax.device_put(self._whole_keys, device), np.int32(start), steps)

    def advance(self, state, t, n, previous, arrays):
        previous = previous if self.phase.fix is not None else None
        count = lambda i: jnp.asarray(i, jnp.int32)
        return self._advance(self._keys, state, count(t), count(n), arrays, previous)
