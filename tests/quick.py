"""What tests of tiny nets share: `jit` without optimisation, since compiling is what they cost, and a distance of trees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.driver import compiler_options

jit = functools.partial(jax.jit, compiler_options=compiler_options(once=True))


def worst(a, b):
    """The largest difference between two trees, relative to the largest entry."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert all(np.shape(x) == np.shape(y) for x, y in pairs)
    largest = max(float(np.max(np.abs(np.asarray(x)), initial=0)) for x, _ in pairs)
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0)) for x, y in pairs) / max(1.0, largest)


def everything(net):
    """(variables, x, gates) -> logits, new statistics, logits in evaluation, gradients of weights and images."""

    def run(variables, x, gates):
        def loss(params, x):
            logits, new = net.apply({**variables, "params": params}, x, gates, train=True)
            return jnp.sum(jnp.sin(logits)), (logits, new["batch_stats"])

        grads, (logits, stats) = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)
        return logits, stats, net.apply(variables, x, gates, train=False)[0], grads

    return jit(run)


def both_ways(net, program, arch, variables, x, gates):
    """What a program of `everything` gives, what one architecture's module does, gradients led back; and all new statistics."""
    module, extract = net.specialize(arch)

    def run(variables, x):
        def loss(params, x):
            small = extract({**variables, "params": params})
            logits, new = module.apply(small, x, train=True, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(logits)), (logits, new["batch_stats"])

        grads, (logits, stats) = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)
        return logits, stats, module.apply(extract(variables), x), grads

    logits, stats, evaluated, grads = program(variables, x, gates)
    mine = logits, extract({**variables, "batch_stats": stats})["batch_stats"], evaluated, grads
    return mine, jit(run)(variables, x), stats
