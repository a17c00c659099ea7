"""`jit` for tests of tiny nets: compiled without optimisation, since compiling is what they cost."""

import functools

import jax

from jaxnas.driver import compiler_options

jit = functools.partial(jax.jit, compiler_options=compiler_options(once=True))
