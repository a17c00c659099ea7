"""Training networks that are programs of their own: compiled in the background, trained one by one, scored on held-out data.

A program is compiled once for all hyper-parameters, lengths and parts of the data of a network.  A member goes on where it was; one
whose state is not in memory, since the run was cut, is trained to that step again, which gives the same bits.

Axes: N examples, K outputs.
"""

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Key
from jaxnas.data.pixels import Pixels
from jaxnas.driver.program import compiler_options
from jaxnas.nets.blueprints import Blueprints
from jaxnas.training._criterion import Criterion
from jaxnas.training.members import Course, MemberState, member, recipe_of

CHUNK = 256  # examples that are predicted at once


class Examples(NamedTuple):
    """x and y of train and valid, one behind the other, so that one program trains on the first part, or on both."""

    x: jax.Array | Pixels  # [N, ...]
    y: jax.Array
    train: int  # how many are the train part


class Program(NamedTuple):
    init: Callable
    advance: Callable
    predict: Callable
    variables: Callable
    seconds: float  # that compiling took


class Outcome(NamedTuple):
    outputs: np.ndarray  # [n, K], of what was asked for
    loss: float  # mean training loss since the last outcome
    variables: Any  # averaged
    seconds: float
    waited: float  # of them, for the compiler


def scorer(criterion: Criterion, y: jax.Array) -> Callable[[np.ndarray], np.ndarray]:
    """Outputs [n, K] at targets y -> [n], larger is better: the criterion's score, with the loss to decide between equals."""

    def one(outputs, y):  # [K], one target
        loss = jnp.minimum(criterion.loss(outputs[None], y[None]), 10.0)
        return criterion.score(outputs[None], y[None])[0] - 1e-3 * loss

    each = jax.jit(jax.vmap(one))
    return lambda outputs: np.asarray(each(outputs, y), np.float64)


class Trainer:
    """All members of a run.

    Args:
        data: the examples.
        net: builds them.
        batch: examples a step.
        loss: (outputs [B, K], y) -> [].
    """

    def __init__(self, data: Examples, net: Blueprints, batch: int, loss: Callable):
        self.data, self.net, self.batch, self.loss = data, net, min(batch, data.train), loss
        self._compiler = concurrent.futures.ThreadPoolExecutor(1, "compiler")
        self._programs: dict[tuple, concurrent.futures.Future] = {}
        self._members: dict[Any, MemberState] = {}
        self._latencies: dict[tuple, float] = {}

    def close(self) -> None:
        """Stops compiling: what has not begun is not begun."""
        self._compiler.shutdown(wait=False, cancel_futures=True)

    def prepare(self, choice: Any) -> None:
        """Has the program of a network compiled, in the background."""
        if choice.network not in self._programs:
            self._programs[choice.network] = self._compiler.submit(self._compile, choice)

    def compiled(self, choice: Any) -> bool:
        """Whether nobody would have to wait for the program of a network."""
        found = self._programs.get(choice.network)
        return found is not None and found.done()

    def program(self, choice: Any) -> Program:
        self.prepare(choice)
        return self._programs[choice.network].result()

    def _compile(self, choice: Any) -> Program:
        began = time.perf_counter()
        functions = member(self.net.build(choice), self.net.image, self.batch, self.loss, self.net.optimizer)
        key = jax.random.key(0)
        init = jax.jit(functions.init, compiler_options=compiler_options(once=True)).lower(key)
        state = init.out_info
        variables = jax.eval_shape(functions.variables, state)
        course = self.course(choice, 1, 1, 1)
        advance = jax.jit(functions.advance, compiler_options=compiler_options())
        chunk = jax.ShapeDtypeStruct((CHUNK, *self.net.image), jnp.float32)
        predict = jax.jit(functions.predict, compiler_options=compiler_options()).lower(variables, chunk).compile()
        compiled = advance.lower(key, state, course, self.data.x, self.data.y).compile()
        return Program(init.compile(), compiled, predict, functions.variables, time.perf_counter() - began)

    def course(self, choice: Any, total: int, stop: int, examples: int) -> Course:
        whole = lambda n: jnp.asarray(n, jnp.int32)
        return Course(recipe_of(choice.training, self.net.image), jnp.asarray(total, jnp.float32), whole(stop), whole(examples))

    def train(
        self, name: Any, key: Key, choice: Any, start: int, stop: int, total: int, *, on: jax.Array | Pixels, whole: bool = False
    ) -> Outcome:
        """Trains member `name` from step `start` to `stop` of `total`, and predicts `on`.

        `whole`: on train and valid alike.
        """
        began = time.perf_counter()
        program = self.program(choice)
        waited = time.perf_counter() - began
        k_init, k_steps = jax.random.split(key)
        examples = len(self.data.y) if whole else self.data.train
        state = self._members.pop(name, None) if start else None
        if state is None or int(state.step) != start:
            state = program.init(k_init)
            if start:
                course = self.course(choice, total, start, examples)
                state, _ = program.advance(jax.random.clone(k_steps), state, course, self.data.x, self.data.y)
        course = self.course(choice, total, stop, examples)
        state, loss = program.advance(k_steps, state, course, self.data.x, self.data.y)
        loss = float(loss)
        if stop < total:
            self._members[name] = state
        variables = program.variables(jax.tree.map(np.asarray, state._replace(optimizer=None)))
        outputs = self.predict(choice, variables, on)
        return Outcome(outputs, loss, variables, time.perf_counter() - began, waited)

    def forget(self, name: Any) -> None:
        """Drops a member that will not go on."""
        self._members.pop(name, None)

    def latency(self, choice: Any) -> float:
        """Milliseconds of a network, measured once."""
        if choice.network not in self._latencies:
            program = self.program(choice)
            state = program.init(jax.random.key(0))
            self._latencies[choice.network] = self.milliseconds(choice, program.variables(state))
        return self._latencies[choice.network]

    def milliseconds(self, choice: Any, variables: Any, times: int = 9) -> float:
        """What an example takes on this machine, of `CHUNK` at once: the median of so many calls."""
        program, x, each = self.program(choice), jnp.zeros((CHUNK, *self.net.image)), []
        jax.block_until_ready(program.predict(variables, x))
        for _ in range(times):
            began = time.perf_counter()
            jax.block_until_ready(program.predict(variables, x))
            each.append(time.perf_counter() - began)
        return 1e3 * float(np.median(each)) / CHUNK

    def predict(self, choice: Any, variables: Any, x: jax.Array | Pixels) -> np.ndarray:
        """Outputs [n, K] of x [n, ...], a chunk at a time."""
        program, parts = self.program(choice), []
        for start in range(0, len(x), CHUNK):
            some = x[start : start + CHUNK]
            padded = jnp.concatenate([some, jnp.zeros((CHUNK - len(some), *x.shape[1:]), x.dtype)])
            parts.append(np.asarray(program.predict(variables, padded))[: len(some)])
        return np.concatenate(parts)
