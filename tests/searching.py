"""Whole searches for tests: one scan, and many seeds of it as one compiled program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import quick

from jaxnas.base import Batch
from jaxnas.spaces._space import space
from jaxnas.spaces.real import Real

TOY = space((np.asarray([3, 4, 2]),))  # 24 settings
MIXED = space((3, 2), reals={"x": Real(0.0, 1.0), "rate": Real(1e-4, 1.0, log=True)})


def answer(strategy, state, info):
    """The best architecture so far and its score."""
    return strategy.best(state), state.best_score


def run(strategy, key, steps, batch, watch=answer):
    """One search: (its last state, what `watch` sees after every step)."""
    k_init, k_steps = jax.random.split(key)

    def body(state, t):
        state, info = strategy.step(jax.random.fold_in(k_steps, t), state, batch)
        return state, watch(strategy, state, info)

    return jax.lax.scan(body, strategy.init(k_init), jnp.arange(steps))


@functools.cache
def program(strategy, steps, watch=answer, jit=jax.jit):
    """(keys [seeds], batch) -> the same for every seed; compiled once for all tables of one size."""
    return jit(jax.vmap(lambda key, batch: run(strategy, key, steps, batch, watch), (0, None)))


def run_seeds(strategy, steps, batch=None, seeds=20, seed=0, watch=answer, jit=jax.jit):
    """The same; leaves have leading axes [seeds, ...] and [seeds, steps, ...]."""
    keys = jax.random.split(jax.random.key(seed), seeds)
    return program(strategy, steps, watch, jit)(keys, Batch() if batch is None else batch)


def mixed_score(key, archs, batch):
    """Highest at decisions (2, 1), x = 0.3, rate = 0.01, where it is 0."""
    del key, batch
    a, b = archs.decisions
    rate = jnp.log10(archs.reals["rate"]) + 2
    return {"accuracy": -(1.0 * (a != 2) + 0.5 * (b != 1) + 4 * (archs.reals["x"] - 0.3) ** 2 + 0.5 * rate**2)}


def asked(algorithm, score, steps, s=TOY):
    """[(state, index of the candidates [B])] of a plain loop; `score` by `space.index`."""
    ask, tell = quick.jit(algorithm.ask), quick.jit(algorithm.tell)
    k_init, *keys = jax.random.split(jax.random.key(0, impl="unsafe_rbg"), 1 + steps)  # the cheapest to compile
    state, history = algorithm.init(k_init), []
    for key in keys:
        k_ask, k_tell = jax.random.split(key)
        state, archs = ask(k_ask, state)
        index = np.asarray(jax.vmap(s.index)(archs))
        state = tell(k_tell, state, archs, jnp.asarray(score[index], jnp.float32))
        history.append((state, index))
    return history
