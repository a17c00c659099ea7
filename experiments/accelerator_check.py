"""Does jaxnas work on this GPU or TPU?  The ten most used steps: compile time, step time, memory, and agreement with the CPU.

    python experiments/accelerator_check.py                     the ten steps
    python experiments/accelerator_check.py "darts, first"      those whose names begin so
    python experiments/accelerator_check.py --tiny              the speed of toys too: a check of this script on a CPU

Speed and memory are those of the step at its real size; agreement is that of the same step as a toy, whose CPU side takes
seconds (`--tiny`: all of the toy).  It ends with code 1 when a row fails.

Agreement.  From one state, batch and key a step is taken three times: on the accelerator in float32 with the highest precision of
matrix products, on the CPU in float32, and on the CPU in float64, the reference.  The error of the first two is that of the step's
change of the state, ||change - change_64|| / ||change_64|| over all floats together; that of the loss is relative too.  A row
passes where the accelerator's errors are at most 10 times the CPU's own, or 1e-5 where that is larger.

Why so.  Floats of the state that are rounding alone (the gradient of a bias before a norm) may differ by any factor between two
correct programs, so leaf by leaf a comparison says nothing; in the norm over all they weigh what they weigh in the step.  How much
float32 loses differs between steps, so the CPU's own error is the measure, and not a tolerance.  Optimizers are the published ones:
Adam's O(learning rate) moves of such floats were measured, and are a quarter of the error at most (docs/results.md#accelerator).

Draws.  Where one choice differs, two steps have nothing to do with each other, and a float64 is drawn from other bits than a
float32.  So all three steps have keys whose 64-bit draws are made of the 32-bit ones (`PAIRED`), and integers are drawn in 32 bits.
A row whose choices differ all the same, as rounding decides a tie, says "other draw" in the place of a number.

On a machine with a CPU alone the accelerator is played by the CPU, which runs the program that is lowered for a TPU: convolutions
in the place of shifted slices, and populations side by side.

Results: docs/results.md#accelerator
"""

import contextlib
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from _common import row, steps
from jax.extend.random import define_prng_impl, threefry_prng_impl

from jaxnas.driver import compiler_options

TIMES, LEAST = 10, 1e-5
QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 0}  # of what the CPU runs once


def paired_bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    """Random bits; 64 of them are the 23 that a float32 takes of a 32-bit draw, and zeros, so that a float64 is equal to it."""
    if width != 64:
        return threefry_prng_impl.random_bits(key, width, shape)
    bits = threefry_prng_impl.random_bits(key, 32, shape) >> 9 << 9
    return bits.astype(jnp.uint64) << 32


PAIRED = define_prng_impl(
    key_shape=threefry_prng_impl.key_shape,
    seed=threefry_prng_impl.seed,
    split=threefry_prng_impl.split,
    random_bits=paired_bits,
    fold_in=threefry_prng_impl.fold_in,
    name="threefry, 64-bit draws of 32-bit ones",
    tag="paired",
)


@contextlib.contextmanager
def doubles() -> Iterator[None]:
    """Within it float64 is float64, and integers are drawn in 32 bits as they are without."""
    with jax.enable_x64(True), mock.patch("jax.random.randint", functools.partial(jax.random.randint, dtype=jnp.int32)):
        yield


class Outcome(NamedTuple):
    """What a step did."""

    change: list[np.ndarray]  # float64, of every float leaf of the state
    loss: float
    choices: list[np.ndarray]  # integers of the state, and the gates that were drawn


class Agreement(NamedTuple):
    """Errors (of the state's change, of the loss) in float32, to the CPU's float64; None: another draw."""

    accelerator: tuple[float, float] | None
    cpu: tuple[float, float]

    def passes(self) -> bool:
        """Whether the accelerator's errors are at most 10 times the CPU's, or 1e-5."""
        pairs = zip(self.accelerator or (np.inf, np.inf), self.cpu, strict=True)
        return all(mine <= max(10 * its, LEAST) for mine, its in pairs)


class Speed(NamedTuple):
    """Of a compiled step."""

    compiling: float  # seconds, tracing included
    step: float  # milliseconds, median
    memory: float  # MB: arguments, results and temporaries of the program
    peak: float | None  # MB: of the device since the start; None where it does not say


def filled(step: steps.Step) -> Any:
    """Data of the step's shapes: normal images, uniform labels."""
    draws = np.random.default_rng(0)
    image, label = draws.standard_normal, lambda shape: draws.integers(step.classes, size=shape)
    return jax.tree.map(lambda a: jnp.asarray((image if is_float(a) else label)(a.shape), a.dtype), step.data)


def start(step: steps.Step) -> tuple[jax.Array, Any, Any]:
    """What the step is called with: (bits of its key, state, data)."""
    k_state, k_step = jax.random.split(jax.random.key(1))  # with key 0 a unit of a population lies at a relu's kink
    init = jax.jit(step.init, compiler_options=compiler_options(once=True))
    return jax.random.key_data(k_step), init(k_state), filled(step)


def of_bits(step: steps.Step) -> Callable:
    """The step as a function of the bits of its key, which is `PAIRED`."""
    return lambda bits, state, data: step.step(jax.random.wrap_key_data(bits, impl=PAIRED), state, data)


def on_this_device(step: steps.Step, arguments: tuple, options: dict) -> Callable:
    """The step as the default device runs it; a CPU, which plays the accelerator, runs what is lowered for a TPU."""
    run = jax.jit(of_bits(step))
    if jax.default_backend() == "cpu":
        unchecked = [jax.export.DisabledSafetyCheck.platform()]
        run = jax.export.export(run, platforms=["tpu"], disabled_checks=unchecked)(*arguments).call
    return jax.jit(run, compiler_options=options)


def is_float(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)


def double(tree: Any) -> Any:
    """Its floats in float64."""
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) if is_float(a) else a, tree)


def outcome(run: Callable, bits: jax.Array, state: Any, data: Any) -> Outcome:
    """The step, taken."""
    new, info = run(bits, state, data)
    pairs = list(zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True))
    change = [np.asarray(b, np.float64) - np.asarray(a, np.float64) for a, b in pairs if is_float(a)]
    gates = jax.tree.leaves(getattr(info, "gates", None))
    choices = [np.asarray(a) for a in (*(b for _, b in pairs if not is_float(b)), *gates)]
    return Outcome(change, float(info["loss"] if isinstance(info, dict) else info.loss), choices)


def errors(found: Outcome, truth: Outcome) -> tuple[float, float] | None:
    """(of the change of the state, of the loss), relative to the truth; None where choices differ."""
    if any(np.max(np.abs(a.astype(float) - b), initial=0) > 0.1 for a, b in zip(found.choices, truth.choices, strict=True)):
        return None
    norm = lambda leaves: np.sqrt(sum(np.sum(np.square(a)) for a in leaves))
    apart = [a - b for a, b in zip(found.change, truth.change, strict=True)]
    return float(norm(apart) / norm(truth.change)), abs(found.loss - truth.loss) / abs(truth.loss)


def agreement(make: Callable[[], steps.Step], spoil: Callable[[Outcome], Outcome] = lambda found: found) -> Agreement:
    """The step on the accelerator and on the CPU.

    Args:
        make: builds a toy; called again for float64, since JAX keeps the integer types of a closure's constants.
        spoil: of what the accelerator found; a test's fault.

    Raises:
        SystemExit: the CPU's own draws depend on the precision.
    """
    cpu = jax.local_devices(backend="cpu")[0]
    on_cpu = lambda: jax.jit(of_bits(make()), compiler_options=QUICK)
    step = make()
    arguments = start(step)
    with jax.default_matmul_precision("highest"):
        mine = outcome(on_this_device(step, arguments, compiler_options(once=True)), *arguments)
        there = jax.device_put(arguments, cpu)
        single = outcome(on_cpu(), *there)
        with doubles(), jax.default_device(cpu):
            truth = outcome(on_cpu(), *double(there))
    its = errors(single, truth)
    if its is None:
        raise SystemExit("the CPU's draws differ between float32 and float64: choose another key in `start`")
    return Agreement(errors(spoil(mine), truth), its)


def speed(step: steps.Step) -> Speed:
    """The step on the default device."""
    arguments = start(step)
    began = time.perf_counter()
    compiled = on_this_device(step, arguments, compiler_options()).lower(*arguments).compile()
    compiling = time.perf_counter() - began

    def once() -> float:
        began = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        return 1e3 * (time.perf_counter() - began)

    once()
    sizes = compiled.memory_analysis()
    memory = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes - sizes.alias_size_in_bytes
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return Speed(compiling, statistics.median(once() for _ in range(TIMES)), memory / 1e6, None if peak is None else peak / 1e6)


def chosen(begins: Sequence[str]) -> list[str]:
    """The names of the steps that begin with one of these; all of them where there is none.

    Raises:
        SystemExit: no step begins so.
    """
    for text in begins:
        if not any(name.startswith(text) for name in steps.TOYS):
            raise SystemExit(f"no step begins with {text!r}: choose among {'; '.join(steps.TOYS)}")
    return [name for name in steps.TOYS if not begins or name.startswith(tuple(begins))]


def cells_of(name: str, fast: Speed, found: Agreement) -> tuple[str, ...]:
    """A row of the table."""
    told = lambda pair: ("other draw",) * 2 if pair is None else tuple(f"{error:.1e}" for error in pair)
    (change, loss), (cpu_change, cpu_loss) = told(found.accelerator), told(found.cpu)
    peak = "-" if fast.peak is None else f"{fast.peak:,.0f}"
    times = f"{fast.compiling:.1f}", f"{fast.step:,.1f}", f"{fast.memory:,.0f}", peak
    return name, *times, change, cpu_change, loss, cpu_loss, "yes" if found.passes() else "NO"


def main(*arguments: str) -> None:
    names, tiny = chosen([a for a in arguments if a != "--tiny"]), "--tiny" in arguments
    device = jax.devices()[0]
    played = ", which runs the programs that are lowered for a TPU" if device.platform == "cpu" else ""
    print(f"{device.device_kind}{played}, jax {jax.__version__}; {'toys' if tiny else 'real sizes; agreement of toys'}\n")
    row("step", "compile s", "step ms", "program MB", "peak MB", "change", "on CPU", "loss", "on CPU", "agrees")
    row(*["---"] * 10)
    passed = []
    for name in names:
        found = agreement(steps.TOYS[name])
        row(*cells_of(name, speed((steps.TOYS if tiny else steps.REAL)[name]()), found))
        passed.append(found.passes())
    sys.exit(not all(passed))


if __name__ == "__main__":
    main(*sys.argv[1:])
