"""The driver: the only loop, and the only place with side effects below the command line.

A plan is a strategy or `then(Phase(...), Phase(...))`.  Each phase is one compiled loop of its strategy's step, run in
chunks; between chunks the driver logs, checkpoints and moves the bar.  The key of step t of phase p is derived from (root
key, p, t) alone, so neither the chunk size nor a cut and a resume changes a bit.

    k_init, k_steps = split(fold_in(key, p));    k_data, k_step = split(fold_in(k_steps, t))

With `seeds=n` the whole program is vmapped over n keys `fold_in(key, i)`.

Axes: S seeds, T steps.
"""

import contextlib
import logging
import pathlib
import signal
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import sharding
from jaxnas.base import Feed, Phase, Strategy, Stream, nothing, then
from jaxnas.checks import RandomKey, checked
from jaxnas.driver import ahead, processes, signals
from jaxnas.driver.checkpoint import CheckpointError, Checkpoints, again
from jaxnas.driver.errors import Diverged, NoFiniteScore, Stopped
from jaxnas.driver.files import make_way
from jaxnas.driver.fingerprint import Fingerprint, fingerprint
from jaxnas.driver.journal import Journal
from jaxnas.driver.lock import locked
from jaxnas.driver.program import Program
from jaxnas.kinds import Positive

log = logging.getLogger("jaxnas")


class Result(NamedTuple):
    best: Any  # the last phase's answer; leading axis S under `seeds`
    state: Any  # the last phase's state
    states: tuple[Any, ...]  # every phase's last state
    infos: tuple[Any, ...]  # every phase's Info, [T, ...] or [S, T, ...], of the steps that this call ran; None where it ran none


@checked
def run(
    key: RandomKey,
    plan: Strategy | tuple[Phase, ...],
    *,
    steps: Positive | None = None,
    data: Feed | Stream = nothing,
    seeds: Positive | None = None,
    chunk: Positive = 100,
    directory: str | pathlib.Path | None = None,
    resume: bool = False,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Result:
    """Runs a search to its end.

    A further run of the same functions (`init`, `step`, `draw`, `give`, `fix`: the same objects) and shapes compiles nothing.

    Args:
        key: the root of all randomness.
        plan: a strategy (with `steps` and `data`), or a plan of phases.
        seeds: None for one search, or n whole searches as one vmapped program.
        chunk: the most steps between two writes of the log, checks for a signal and checkpoints; it never changes the result.
            Of a `Stream` no more than it reads at a time.
        directory: where log.jsonl and checkpoints/ go; None keeps nothing.
        resume: continue from the last good checkpoint in `directory`.
        mesh: see `jaxnas.sharding.mesh`: splits seeds, candidates, batches and large states.  A feed's arrays are whole on every
            device; of a stream each process reads the seeds and examples of its own devices.  The result differs from one
            device's by rounding alone.
        progress: show a bar on stderr.
        settings: name -> a value that JSON holds: what else the run depends on.  They are kept with plan, data, key and versions in
            every checkpoint; a resume with others is refused.  Only the steps of the last phase may have grown: that extends a run.

    Raises:
        ValueError: for a plan without steps, `resume` without a directory, a directory that another process goes on with, or
            seeds, candidates or a batch that the mesh does not divide.
        FileExistsError: for a directory that holds a run, unless `resume`.
        CheckpointError: for checkpoints of another run; names what differs.
        Diverged: when the Info's `loss` is not finite for every seed; the last good checkpoint stays.
        NoFiniteScore: at the end of a search of candidates none of which has a finite score, with any seed; all is saved.
        Stopped: on SIGTERM or Ctrl-C, after saving.  The run heeds it within about 2 s or one step, whichever is longer: between
            chunks, each of as many steps as take 2 s at the speed of the one before, and while it waits for a stream (several
            processes: once that is read).  A program that is being compiled is compiled first.
    """
    if isinstance(plan, Strategy):
        if steps is None:
            raise ValueError("say how many steps: run(key, strategy, steps=...)")
        plan = then(Phase(plan, steps, data))
    elif steps is not None or data is not nothing:
        raise ValueError("a plan's phases have steps and data of their own: leave `steps` and `data` out")
    if resume and directory is None:
        raise ValueError("resume needs the directory of the run")
    if directory is not None and not str(directory).strip():
        raise ValueError("the directory has no name: give one, or None to keep nothing")
    if mesh is None and processes.several():
        raise ValueError("several processes need a mesh: give one of all devices, such as sharding.mesh(batch=jax.device_count())")
    store = None if directory is None else pathlib.Path(directory)
    if store is not None and not resume and (store / "checkpoints").exists():
        raise FileExistsError(f"{store} holds a run already: continue it with {_resumed(store)}, or name another directory")

    keys = key if seeds is None else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(seeds))
    begin = np.cumsum([0] + [p.steps for p in plan]).tolist()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(signals.noted())  # before anything is traced: a Ctrl-C that falls into JAX's gc callback is lost
        programs = [Program(p, number, keys, seeds, chunk) for number, p in enumerate(plan)]
        shapes: list[Any] = [None]
        for program in programs:
            shapes.append(program.shapes(shapes[-1]))
        of: Fingerprint = {}
        if store is not None or processes.several():
            each = zip(plan, programs, shapes, strict=False)  # shapes: of the state before
            phases = [(p.steps, ahead.identity(p.data), program.digest(before)) for p, program, before in each]
            of = fingerprint(key, seeds, phases, settings or {})
            processes.require_same(of)
        if mesh is not None:  # a program's digest is that of one device
            sharding.require_seeds(seeds, mesh)
            stack.enter_context(jax.set_mesh(mesh))
            plan = tuple(p._replace(data=ahead.placed(p.data, mesh)) for p in plan)
            programs = [Program(p, number, keys, seeds, chunk, mesh) for number, p in enumerate(plan)]
            for program, before, after in zip(programs, shapes, shapes[1:], strict=False):
                program.check(after, before)
            shapes = [None if s is None else sharding.laid_out(s, mesh, seeds is not None) for s in shapes]
        checkpoints = ends = None
        if store is not None:
            processes.on_first(lambda: stack.enter_context(locked(store)))
            processes.on_first(lambda: make_way(store, files=("log.jsonl",), folders=("checkpoints", "phases", "tensorboard")))
            last = "the steps" if len(plan) == 1 else f"the steps of phase {len(plan)}"
            checkpoints = Checkpoints(store / "checkpoints", of=of, grows=last)
            stack.callback(checkpoints.close)
            ends = Checkpoints(store / "phases", keep=None, of=of, grows=last)
            stack.callback(ends.close)
        at, state = 0, None
        if resume and checkpoints is not None:
            of_step = lambda s: next((shapes[p + 1] for p in range(len(plan)) if begin[p] < s <= begin[p + 1]), None)
            at, state = checkpoints.restore(of_step, key) or (0, None)
        saved = at
        writes = processes.is_first()
        journal = stack.enter_context(Journal(store if writes else None, at, begin[-1], progress and writes, seeds))
        states, infos, previous = [], [], None
        for number, program in enumerate(programs):
            if store is not None and ends is not None and at > begin[number + 1]:  # a later phase has begun: its end is on disk
                target = lambda s, number=number: shapes[number + 1] if s == number else None
                found = ends.restore(target, key, [number]) if number in ends.steps() else None
                if found is None:
                    raise CheckpointError(f"{store / 'phases' / str(number)} is missing: {again(store / 'checkpoints')}")
                _, previous = found
                states.append(previous)
                infos.append(None)
                continue
            if at <= begin[number]:
                state = program.init(previous)
            done = []
            pace = 1
            source = ahead.source(program.phase, program.indices, at - begin[number], chunk, seeds, mesh)
            stack.callback(source.close)
            while at < begin[number + 1]:
                t, started, due = at - begin[number], time.perf_counter(), False
                if not _stopped_waiting(source, t, stop):
                    arrays, held = source.take(t)
                    n = min(pace, chunk, begin[number + 1] - at, held)
                    state, info = program.advance(state, t, n, previous, arrays)
                    info = jax.tree.map(lambda a, n=n: np.asarray(a)[:n] if seeds is None else np.asarray(a)[:, :n], info)
                    seconds = time.perf_counter() - started
                    _check_finite(info, seeds, at, checkpoints)
                    at += n
                    done.append(info)
                    journal.write(plan[number].name, at, info, seconds)
                    due = checkpoints is not None and journal.save_due() and not checkpoints.writing()
                    stop.number, pace, due = processes.agreed(stop.number, _next_pace(n, seconds), due)
                leaving = stop.number is not None or at == begin[number + 1]
                if checkpoints and at > saved and (leaving or due):
                    checkpoints.save(at, key, state)
                    journal.saved()
                    saved = at
                if leaving:
                    if checkpoints:
                        checkpoints.wait()
                    stop.number = processes.agreed(stop.number, 0, False).signal  # a signal during the last save counts too
                if stop.number is not None and leaving:
                    kept = f"saved at step {at}: continue with {_resumed(store)}" if checkpoints and at else "nothing was kept"
                    raise Stopped(stop.number, f"stopped by {signal.Signals(stop.number).name}; {kept}")
            source.close()
            if ends and number + 1 < len(plan):
                ends.save(number, key, state)
                ends.wait()  # before the next phase's first checkpoint, which needs it
            axis = 0 if seeds is None else 1
            infos.append(jax.tree.map(lambda *a: np.concatenate(a, axis), *done) if done else None)
            states.append(state)
            previous = state
        whole = processes.fetch(state)
        _check_scored(whole)
        best = plan[-1].strategy.best
        best = best(whole) if seeds is None else jax.vmap(best)(whole)
    return Result(best, state, tuple(states), tuple(infos))


def _next_pace(n: int, seconds: float, aim: float = 2.0) -> int:
    """How many steps fill about `aim` seconds; grows at most tenfold, since the first chunk includes the compilation."""
    return max(1, min(10 * n, int(n * aim / max(seconds, 1e-6))))


def _stopped_waiting(source: ahead.Resident | ahead.Ahead, t: int, stop: signals.Seen) -> bool:
    """Waits for the arrays of step t; whether a signal has come first.  Several processes stop together, so after a chunk alone."""
    while not processes.several() and stop.number is None and not source.ready(t):
        pass
    return stop.number is not None and not processes.several()


def _resumed(store: pathlib.Path | None) -> str:
    """How a person goes on with a run: of the command line, a stage of one, or a program's own."""
    whole = next((d for d in (store, store.parent) if (d / "config.json").exists()), None) if store else None
    return "resume=True" if whole is None else f"jaxnas resume {whole}"


def _check_scored(state):
    score = getattr(state, "best_score", None)
    if score is not None and not np.isfinite(np.asarray(score)).any():
        raise NoFiniteScore(
            "no candidate had a finite score, so there is no answer: look at what scores them, lower the learning rate, "
            "or look for bad examples"
        )


def _check_finite(info, seeds, at, checkpoints):
    loss = getattr(info, "loss", None)
    if loss is None:
        return
    finite = np.isfinite(loss) if seeds is None else np.isfinite(loss).any(0)
    if not finite.all():
        step = at + int(np.argmin(finite)) + 1
        if checkpoints:
            checkpoints.wait()
        good = checkpoints.steps() if checkpoints else []
        kept = f"; the last good checkpoint is that of step {good[-1]}" if good else ""
        raise Diverged(
            f"the loss is not finite at step {step}{kept}: lower the learning rate, clip the gradient, or "
            "look for bad examples and for labels outside 0 to classes - 1"
        )
