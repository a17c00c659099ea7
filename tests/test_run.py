"""The driver: any chunking, any cut and any layout of devices give the same run, and what cannot go on says why."""

import concurrent.futures
import contextlib
import functools
import gc
import json
import logging
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quick

from jaxnas import sharding
from jaxnas.ask_tell import aging_evolution
from jaxnas.base import Batch, Feed, Phase, Strategy, black_box, stateless, then
from jaxnas.driver import CheckpointError, Checkpoints, Diverged, NoFiniteScore, RunIsLocked, Stopped, files, journal, run
from jaxnas.driver.fingerprint import of_program
from jaxnas.driver.lock import locked
from jaxnas.driver.program import Program
from jaxnas.nets import cell_net
from jaxnas.spaces import darts as darts_space
from jaxnas.spaces import space
from jaxnas.weight_sharing import darts

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS = 23


class State(NamedTuple):
    w: jax.Array  # [D]
    opt_state: Any
    step: jax.Array  # int32[]
    seen: jax.Array  # int32[]: a sum of what was drawn, exact


class Info(NamedTuple):
    loss: jax.Array  # []
    gates: jax.Array  # [2, 3]
    fixed: Any = None


def noisy(dim=4, on_step=lambda t: None, nan_at=None):
    """Gradient descent on noisy linear regression: uses every key, the batch, what is given and what is fixed."""
    optimizer = optax.sgd(0.05, momentum=0.9)

    def init(key, given=None):
        w = jax.random.normal(key, (dim,)) if given is None else given
        return State(w, optimizer.init(w), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def step(key, state, batch):
        on_step(state.step)
        k_noise, k_draw = jax.random.split(key)
        x, y = batch.train  # [B, D], [B]
        noise = 0.1 * jax.random.normal(k_noise, state.w.shape)
        loss, grad = jax.value_and_grad(lambda w: jnp.mean((x @ w - y) ** 2))(state.w)
        updates, opt_state = optimizer.update(grad + noise, state.opt_state, state.w)
        if batch.fixed is not None:
            updates = updates + 0.01 * (batch.fixed - state.w)
        if nan_at is not None:
            loss = jnp.where(state.step == nan_at, jnp.nan, loss)
        seen = state.seen + jax.random.randint(k_draw, (), 0, 1000)
        new = State(optax.apply_updates(state.w, updates), opt_state, state.step + 1, seen)
        return new, Info(loss, jnp.outer(jnp.arange(2.0), state.w[:3]), batch.fixed)

    return Strategy(init, step, lambda state: state.w)


def regression(dim=4, n=32, size=8):
    rng = np.random.default_rng(0)
    arrays = (jnp.asarray(rng.normal(size=(n, dim)), jnp.float32), jnp.asarray(rng.normal(size=n), jnp.float32))

    def draw(key, arrays, t):
        i = jax.random.randint(key, (size,), 0, n)
        return Batch(train=sharding.constrain(jax.tree.map(lambda a: a[i], arrays), "batch"))

    return Feed(arrays, draw)


def evolution(batch=2, nan=False):
    target = jnp.asarray([1, 2, 0, 3])

    def score(key, archs, batch):
        right = jnp.sum(archs == target[None], -1).astype(jnp.float32)  # [B]
        noisy = right + 0.1 * jax.random.normal(key, right.shape)
        return {"accuracy": jnp.where(archs[:, 0] == 2, jnp.nan, noisy) if nan else noisy}

    return black_box(aging_evolution(space(np.asarray([4, 4, 4, 4])), 6, 3, batch), stateless(score))


def two_phases(first=5, second=6):
    return then(
        Phase(noisy(), first, regression(), name="warm-up"),
        Phase(noisy(), second, regression(), give=lambda s: s.w, fix=lambda s: 2 * s.w),
    )


def same(a, b):
    """Equal to the last bit, types included."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        np.testing.assert_array_equal(x.view(np.uint8) if x.ndim else x, y.view(np.uint8) if y.ndim else y)


def near(a, b, rtol=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        if np.issubdtype(x.dtype, np.integer):
            np.testing.assert_array_equal(x, y)
        else:
            np.testing.assert_allclose(x, y, rtol, 1e-6)


def key(seed=0):
    return jax.random.key(seed)


search = functools.partial(run, steps=STEPS, data=regression())


@functools.cache
def whole():
    """The run that nothing cuts."""
    return search(key(), noisy())


@pytest.fixture
def cut(monkeypatch):
    """cut(*steps): the process gets a SIGTERM once the log has reached each of these steps."""
    write = journal.Journal.write

    def at(*steps, number=signal.SIGTERM):
        def and_stop(self, phase, step, info, seconds):
            write(self, phase, step, info, seconds)
            if step in steps:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(journal.Journal, "write", and_stop)

    return at


@pytest.fixture
def always(monkeypatch):
    """Every chunk is checkpointed, even while the one before is written."""
    monkeypatch.setattr(journal, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(Checkpoints, "writing", lambda self: False)


def checkpoint_steps(directory):
    return sorted(int(p.name) for p in (directory / "checkpoints").iterdir())


def logged(directory):
    lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps)), "a step is in the log twice"
    return lines


# --- arrays on disk ---------------------------------------------------------------------------------------------------


def test_an_array_on_disk_is_what_it_was_or_damaged(tmp_path):
    path, values = tmp_path / "kept.npy", np.arange(6, dtype=np.float32).reshape(2, 3)
    files.save_array(path, values)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.npy"]
    np.testing.assert_array_equal(files.load_array(path), values)
    held = path.read_bytes()
    for i in range(len(held)):
        path.write_bytes(held[:i] + bytes([held[i] ^ 1]) + held[i + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            files.load_array(path)


# --- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_the_chunk_size_changes_no_bit(chunk):
    got = search(key(), noisy(), chunk=chunk)
    same(got.state, whole().state)
    same(got.infos, whole().infos)
    same(got.best, whole().state.w)
    assert got.infos[0].loss.shape == (STEPS,) and got.infos[0].gates.shape == (STEPS, 2, 3)
    assert int(got.state.step) == STEPS and got.state.seen.dtype == jnp.int32


def test_a_search_of_one_step_is_one_and_of_none_is_refused():
    assert int(run(key(), noisy(), steps=1, data=regression()).state.step) == 1
    with pytest.raises(ValueError, match="`steps` of Phase must be a positive integer"):
        run(key(), (Phase(noisy(), 0),))


def test_the_chunk_size_changes_no_bit_of_a_black_box_search():
    one, many = (run(key(), evolution(), steps=11, chunk=chunk) for chunk in (4, 100))
    same(one, many)
    assert many.best.shape == (4,) and many.infos[0].archs.shape == (11, 2, 4)


def test_the_loop_is_compiled_once():
    counts = []
    for chunk in (100, 4):  # 4: 23 steps end with a shorter chunk
        calls = []
        search(key(), noisy(on_step=calls.append), chunk=chunk)
        counts.append(len(calls))
    assert counts[0] == counts[1] <= 3


@contextlib.contextmanager
def compilations():
    """A list that grows by one with each program that is compiled, or read from the cache on disk."""
    seen, on = [], [True]
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **more: seen.append(event) if on[0] and event.endswith("/backend_compile_duration") else None
    )
    yield seen
    on[0] = False


@pytest.mark.parametrize("kind", ["gradient", "black box", "phases", "seeds", "mesh"])
def test_a_run_again_compiles_nothing(kind):
    data = regression()
    runs = {
        "gradient": (noisy(), dict(steps=5, data=data)),
        "black box": (evolution(), dict(steps=5)),
        "phases": (two_phases(), {}),
        "seeds": (noisy(), dict(steps=5, data=data, seeds=2)),
        "mesh": (noisy(), dict(steps=5, data=data, seeds=2, mesh=sharding.mesh(seed=2))),
    }
    plan, options = runs[kind]
    counts, states = [], []
    for seed in (0, 1, 2, 0):
        with compilations() as seen:
            states.append(run(key(seed), plan, **options).state)
        counts.append(len(seen))
    assert counts[0] >= 2 and counts[1:] == [0, 0, 0]
    same(states[0], states[3])
    assert not all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[1]), strict=True))


def test_a_dropped_strategy_is_not_kept():
    """Neither its functions nor the arrays that they close over, whether or not its data live on."""
    data = regression()

    def made():
        table = jnp.arange(8.0)
        base = noisy()
        step = lambda key, state, batch: base.step(key, state._replace(w=state.w + 0 * table[:4]), batch)
        return Strategy(base.init, step, base.best), weakref.ref(table), weakref.ref(step)

    strategy, *held = made()
    search(key(), strategy, data=data)
    assert all(ref() is not None for ref in held)
    del strategy
    gc.collect()
    assert all(ref() is None for ref in held)


def test_other_functions_are_other_programs():
    """A step of the same strategy with another `draw`, `give` or `fix`, and functions that cannot be held weakly."""
    strategy, few = noisy(), regression(n=4)
    assert not np.array_equal(search(key(), strategy).state.w, search(key(), strategy, data=few).state.w)
    for fixed in (1.0, 2.0):
        plan = then(Phase(strategy, 2, few), Phase(strategy, 2, few, fix=lambda s, fixed=fixed: fixed + 0 * s.w))
        same(run(key(), plan).infos[1].fixed[0], np.full(4, fixed, np.float32))

    class Methods:
        def init(self, key, given=None):
            return strategy.init(key, given)

        def step(self, key, state, batch):
            return strategy.step(key, state, batch)

    bound = Methods()
    same(search(key(), Strategy(bound.init, bound.step, strategy.best)).state, whole().state)


def test_another_key_is_another_run():
    assert not np.array_equal(search(key(1), noisy()).state.w, whole().state.w)


def test_no_data_is_closed_over():
    """The feed's arrays are arguments of the compiled loop: constants cost compile time."""
    big = regression(n=1000)
    program = Program(Phase(noisy(), 3, big), 0, key(), None, 10)
    state = program.shapes(None)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    closed = jax.make_jaxpr(program._advance.__wrapped__)(key(), state, count, count, big.arrays, None)

    def constants(jaxpr):
        yield from jaxpr.consts
        for eqn in jaxpr.eqns:
            for sub in jax.tree.leaves(eqn.params, is_leaf=lambda a: hasattr(a, "consts")):
                if hasattr(sub, "consts"):
                    yield from constants(sub)

    assert max((np.size(c) for c in constants(closed)), default=0) < 10


# --- cut and resumed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_a_resume_is_exact(tmp_path, cut, number):
    cut(1, number=number)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=f"{number.name}; saved at step 1: continue with resume=True") as stopped:
        search(key(), noisy(), directory=tmp_path)
    assert stopped.value.signal == number and signal.getsignal(number) is before
    assert checkpoint_steps(tmp_path) == [1]
    cut()
    got = search(key(), noisy(), directory=tmp_path, resume=True)
    same(got.state, whole().state)
    same(got.infos[0].loss, whole().infos[0].loss[1:])
    assert logged(tmp_path)[0]["step"] == 1 and logged(tmp_path)[-1]["step"] == STEPS
    again = search(key(), noisy(), directory=tmp_path, resume=True)  # of a finished run: nothing is left to do
    same(again.state, whole().state)
    assert again.infos == (None,) and logged(tmp_path)[-1]["step"] == STEPS


def test_cut_again_and_again(tmp_path, cut):
    cut(1, 9, 17)
    stops = 0
    while True:
        try:
            got = search(key(), noisy(), chunk=1, directory=tmp_path, resume=stops > 0)
            break
        except Stopped:
            stops += 1
    same(got.state, whole().state)
    assert stops == 3 and len(checkpoint_steps(tmp_path)) <= 2


def test_a_black_box_search_is_resumed(tmp_path, cut):
    cut(1)
    with pytest.raises(Stopped):
        run(key(), evolution(), steps=11, directory=tmp_path)
    cut()
    same(run(key(), evolution(), steps=11, directory=tmp_path, resume=True).state, run(key(), evolution(), steps=11).state)


def test_a_signal_without_a_directory(cut):
    cut(1)
    with pytest.raises(Stopped, match="nothing was kept"):
        search(key(), noisy())


def test_a_signal_in_the_last_save_is_not_lost(tmp_path, monkeypatch):
    save = Checkpoints.save

    def and_stop(self, step, key, state):
        save(self, step, key, state)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "save", and_stop)
    with pytest.raises(Stopped, match="saved at step 3"):
        run(key(), noisy(), steps=3, data=regression(), directory=tmp_path)


@pytest.mark.parametrize("seeds", [None, 2])
@pytest.mark.parametrize("at", [3, 5, 8])
def test_a_plan_is_resumed_in_each_phase_and_between(tmp_path, cut, seeds, at):
    want = run(key(), two_phases(), seeds=seeds)
    cut(at)
    options = dict(seeds=seeds, chunk=1, directory=tmp_path)
    with pytest.raises(Stopped):
        run(key(), two_phases(), **options)
    assert checkpoint_steps(tmp_path)[-1] == at
    cut()
    got = run(key(), two_phases(), resume=True, **options)
    same(got.states, want.states)
    same(got.best, want.best)
    assert [line["phase"] for line in logged(tmp_path)] == 5 * ["warm-up"] + 6 * ["search"]
    same(run(key(), two_phases(), resume=True, **options).states, want.states)


SCRIPT = """
import pathlib, sys, time
import jax, numpy as np
sys.path[:0] = [{tests!r}, {root!r}]
from jaxnas.driver import journal
import test_run

journal.SAVE_EVERY = 0.0
write = journal.Journal.write
def slowly(self, *args):
    write(self, *args)
    time.sleep(0.01)
journal.Journal.write = slowly
directory, resume = pathlib.Path(sys.argv[1]), (pathlib.Path(sys.argv[1]) / "checkpoints").exists()
result = test_run.run(test_run.key(), test_run.two_phases(20, 20), chunk=1, directory=directory, resume=resume)
np.savez(directory / "end.npz", *jax.tree.leaves(result.states))
"""


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment(tmp_path, kills):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(tests=str(ROOT / "tests"), root=str(ROOT))))
    directory = tmp_path / "run"
    start = lambda: subprocess.Popen([sys.executable, script, directory], stderr=subprocess.PIPE)
    random = np.random.default_rng()
    for _ in range(kills):
        process = start()
        begun = len(journal.read(directory))
        deadline = time.monotonic() + 120
        while len(journal.read(directory)) <= begun + 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.3))  # anywhere: in a step, in a save, between the phases
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    with np.load(directory / "end.npz") as file:
        got = [file[name] for name in file.files]
    same(got, [np.asarray(a) for a in jax.tree.leaves(run(key(), two_phases(20, 20)).states)])
    assert [line["step"] for line in logged(directory)] == list(range(1, 41))


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_seeds_are_a_loop_over_keys(tmp_path):
    got = search(key(), noisy(), seeds=3, chunk=7, directory=tmp_path)
    alone = [search(jax.random.fold_in(key(), i), noisy()) for i in range(3)]
    near(got.state, jax.tree.map(lambda *a: jnp.stack(a), *(r.state for r in alone)))
    assert got.infos[0].loss.shape == (3, STEPS) and got.infos[0].gates.shape == (3, STEPS, 2, 3)
    np.testing.assert_allclose(got.infos[0].loss, np.stack([r.infos[0].loss for r in alone]), 1e-5)
    assert got.best.shape == (3, 4)
    first = logged(tmp_path)[0]  # one step, three seeds
    losses = got.infos[0].loss[:, 0].astype(float)
    assert first["loss"] == pytest.approx(losses.mean())
    assert first["loss_ci"] == pytest.approx(4.302653 * losses.std(ddof=1) / np.sqrt(3), rel=1e-5)
    np.testing.assert_allclose(first["gates"], got.infos[0].gates[0, 0], atol=1e-5)


def test_seeds_of_a_black_box_search_are_exact():
    got = run(key(), evolution(), steps=9, seeds=3)
    for i in range(3):
        one = run(jax.random.fold_in(key(), i), evolution(), steps=9)
        near(one.state, jax.tree.map(lambda a: a[i], got.state))


def test_a_log_without_seeds(tmp_path):
    search(key(), noisy(), directory=tmp_path, chunk=10)
    lines = logged(tmp_path)
    assert {"phase", "step", "seconds", "loss", "gates"} == set(lines[0])
    begin = 0
    for line in lines:
        assert line["loss"] == pytest.approx(whole().infos[0].loss[begin : line["step"]].astype(float).mean())
        begin = line["step"]
    np.testing.assert_allclose(lines[-1]["gates"], whole().infos[0].gates[-1], atol=1e-5)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 24, "lo')  # cut short
    assert journal.read(tmp_path) == lines


def test_one_seed_has_no_interval_and_tensorboard_has_the_curves(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    search(key(), noisy(), seeds=1, directory=tmp_path)
    assert {"phase", "step", "seconds", "loss", "gates"} == set(logged(tmp_path)[0])  # an interval needs two seeds
    [events] = (tmp_path / "tensorboard").iterdir()
    assert b"search/loss" in events.read_bytes()


# --- phases -----------------------------------------------------------------------------------------------------------


def test_the_second_phase_is_given_and_fixed():
    plan = then(
        Phase(noisy(), 5, regression()),
        Phase(
            noisy()._replace(step=lambda key, s, batch: (s, Info(s.step, s.w, batch.fixed))),
            3,
            give=lambda s: s.w,
            fix=lambda s: 2 * s.w,
        ),
    )
    got = run(key(), plan)
    first = got.states[0].w
    same(got.state.w, first)
    same(got.infos[1].fixed, np.stack(3 * [2 * np.asarray(first)]))
    assert got.infos[0].fixed is None and len(got.states) == 2
    alone = run(key(), noisy(), steps=5, data=regression())
    same(alone.state, got.states[0])


def test_a_phase_given_the_whole_state_keeps_it():
    """What is given is handed over as it is, and is still there when the loop has overwritten its copy."""
    plain = noisy()
    onward = plain._replace(init=lambda key, given=None: plain.init(key) if given is None else given)
    plan = then(Phase(onward, 5, regression()), Phase(onward, 4, regression(), give=lambda s: s, fix=lambda s: s.w))
    got = run(key(), plan)
    assert int(got.states[0].step) == 5 and int(got.state.step) == 9
    same(got.infos[1].fixed[-1], np.asarray(got.states[0].w))


def test_a_state_that_holds_an_array_twice():
    twice = Strategy(
        lambda key, given=None: (lambda w: (w, w))(jax.random.normal(key, (3,))),
        lambda key, s, batch: ((s[0] + 1, s[1] + s[0]), None),
        lambda s: s[1],
    )
    assert run(key(), twice, steps=3).best.shape == (3,)


# --- devices ----------------------------------------------------------------------------------------------------------


def devices(tree):
    return {len(a.sharding.device_set) for a in jax.tree.leaves(tree) if not a.sharding.is_fully_replicated} or {1}


def test_seeds_on_a_mesh(tmp_path, cut):
    want = search(key(), noisy(), seeds=4)
    got = search(key(), noisy(), seeds=4, mesh=sharding.mesh(seed=2))
    near(got.state, want.state)
    assert got.state.w.sharding.shard_shape((4, 4)) == (2, 4) and got.state.step.sharding.shard_shape((4,)) == (2,)
    cut(1)
    with pytest.raises(Stopped):
        search(key(), noisy(), seeds=4, mesh=sharding.mesh(seed=2), directory=tmp_path)
    cut()
    again = search(key(), noisy(), seeds=4, mesh=sharding.mesh(seed=2), directory=tmp_path, resume=True)
    same(again.state, got.state)
    assert again.state.w.sharding.shard_shape((4, 4)) == (2, 4)
    one = search(key(), noisy(), seeds=4, directory=tmp_path, resume=True)  # a mesh's checkpoint, on one device
    same(one.state, got.state)


def test_a_population_on_a_mesh(tmp_path, cut):
    want = run(key(), evolution(), steps=9)
    near(run(key(), evolution(), steps=9, mesh=sharding.mesh(pop=2)).state, want.state)
    cut(1)
    with pytest.raises(Stopped):
        run(key(), evolution(), steps=9, mesh=sharding.mesh(pop=2), directory=tmp_path)
    cut()
    again = run(key(), evolution(), steps=9, mesh=sharding.mesh(pop=2), directory=tmp_path, resume=True)
    near(again.state, want.state)


def test_a_batch_on_a_mesh():
    near(search(key(), noisy(), mesh=sharding.mesh(batch=2)).state, whole().state)
    near(run(key(), two_phases(), mesh=sharding.mesh(batch=2)).states, run(key(), two_phases()).states)


@pytest.mark.parametrize("order", ["first", pytest.param("exact", marks=pytest.mark.slow)])
def test_data_parallel_darts_differs_by_rounding_alone(order):
    """Step by step in float64, batch statistics included: 1e-10 of the largest entry, where float32 would lose 1e-7 a step."""
    with jax.enable_x64(True):
        net = cell_net(darts_space(nodes=1, ops=("none", "sep_conv_3x3")), image=(8, 8, 1), classes=4, channels=2, cells=1)
        rng = np.random.default_rng(0)
        arrays = (jnp.asarray(rng.normal(size=(32, 8, 8, 1))), jnp.asarray(np.arange(32) % 4))

        def draw(key, arrays, t):
            i = jax.random.permutation(key, 32)[:16].reshape(2, 1, 8)
            train, valid = (sharding.constrain((arrays[0][j], arrays[1][j]), "batch", dim=1) for j in i)
            return Batch(train=train, valid=valid)

        strategy, data = darts(net, order=order), Feed(arrays, draw)
        stats = []
        for steps in (1, 2, 3, 4):  # further ones compile nothing
            one, two = (run(key(), strategy, steps=steps, data=data, mesh=m).state for m in (None, sharding.mesh(batch=2)))
            stats.append(one.variables["batch_stats"])
            assert jax.tree.leaves(stats)[0].dtype == jnp.float64
            assert quick.worst(one, two) < 1e-10
        assert quick.worst(stats[0], stats[-1]) > 1e-2  # there was something to get wrong


def test_meshes_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="a mesh needs an axis: give the size of one or more of seed, pop, batch"):
        sharding.mesh()
    with pytest.raises(ValueError, match="`seed` of mesh must be a positive integer or None; got 0"):
        sharding.mesh(seed=0)
    with pytest.raises(ValueError, match="a mesh of seed=3 x batch=2 needs 6 devices, and there are 2"):
        sharding.mesh(seed=3, batch=2)
    assert sharding.mesh(seed=1, pop=2).shape == {"seed": 1, "pop": 2} and sharding.mesh(batch=1).devices.size == 1
    where = tmp_path / "run"
    refused = functools.partial(pytest.raises, ValueError)
    with refused(match=r"the mesh has an axis 'seed', and this is one search: say how many seeds"):
        search(key(), noisy(), mesh=sharding.mesh(seed=2), directory=where)
    with refused(match="3 seeds cannot be split over the 2 parts of the mesh's axis 'seed': take a multiple of 2"):
        search(key(), noisy(), seeds=3, mesh=sharding.mesh(seed=2), directory=where)
    with refused(match="7 examples of a batch cannot be split over the 2 parts of the mesh's axis 'batch'"):
        search(key(), noisy(), data=regression(size=7), mesh=sharding.mesh(batch=2), directory=where)
    with refused(match="3 candidates cannot be split over the 2 parts of the mesh's axis 'pop'"):
        run(key(), evolution(3), steps=2, mesh=sharding.mesh(pop=2), directory=where)
    assert not where.exists()


def test_the_data_are_whole_on_every_device_and_a_large_state_is_split():
    wide, data = noisy(2**17), regression(2**17, n=8)
    data = data._replace(arrays=(data.arrays[0] / 512, data.arrays[1]))  # else the steps are too long
    sizes, states = [], []
    for n in (1, 2):
        mesh = sharding.mesh(batch=n)
        state = run(key(), wide, steps=2, data=data, mesh=mesh).state
        assert state.w.sharding.shard_shape(state.w.shape) == (2**17 // n,) and state.step.sharding.is_fully_replicated
        states.append(state)
        with jax.set_mesh(mesh):
            program = Program(Phase(wide, 2, data._replace(arrays=sharding.replicate(data.arrays, mesh))), 0, key(), None, 2)
            count = jnp.asarray(0, jnp.int32)
            compiled = program._advance.lower(key(), state, count, count, program.phase.data.arrays, None).compile()
        used = compiled.memory_analysis()
        sizes.append((used.alias_size_in_bytes, used.temp_size_in_bytes))
    near(*states)
    (state_1, temporary_1), (state_2, temporary_2) = sizes
    assert state_1 >= 2 * 2**17 * 4 and state_2 < 0.51 * state_1 and temporary_2 < temporary_1


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops(tmp_path, always):
    with pytest.raises(Diverged, match="not finite at step 8; the last good checkpoint is that of step 7: lower the learning"):
        search(key(), noisy(nan_at=7), chunk=1, directory=tmp_path)
    assert logged(tmp_path)[-1]["step"] < 8
    with pytest.raises(Diverged, match=r"not finite at step 8: lower"):
        search(key(), noisy(nan_at=7))


def test_all_seeds_must_diverge_to_stop():
    base = noisy()

    def step(key, state, batch):
        new, info = base.step(key, state, batch)
        return new, info._replace(loss=jnp.where(state.seen % 2 == odd, jnp.nan, info.loss))

    odd = 0  # all start with seen == 0
    with pytest.raises(Diverged, match="at step 1:"):
        run(key(), base._replace(step=step), steps=3, data=regression(), seeds=8)
    odd = 1
    run(key(), base._replace(step=step), steps=3, data=regression(), seeds=8)


def test_candidates_that_diverge_do_not_stop():
    got = run(key(), evolution(nan=True), steps=15)
    assert np.isnan(got.infos[0].scores).any() and np.isfinite(got.state.best_score) and got.best[0] != 2


def test_a_directory_that_holds_a_run(tmp_path):
    search(key(), noisy(), directory=tmp_path)
    with pytest.raises(FileExistsError, match="continue it with resume=True, or name another directory"):
        search(key(), noisy(), directory=tmp_path)
    with pytest.raises(CheckpointError, match="another key"):
        search(key(1), noisy(), directory=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"the data changed from float32\[32, 4\].* to float32\[32, 5\]"):
        search(key(), noisy(5), data=regression(5), directory=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="the data changed"):
        run(key(), evolution(), steps=STEPS, directory=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="the seeds changed from None to 2"):
        search(key(), noisy(), seeds=2, directory=tmp_path, resume=True)
    same(search(key(), noisy(), directory=tmp_path, resume=True).state, whole().state)


def test_a_resume_of_nothing_starts(tmp_path):
    same(search(key(), noisy(), directory=tmp_path / "new", resume=True).state, whole().state)


def damage(path, how):
    for file in [p for p in path.rglob("*") if p.is_file()]:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if how == "cut" else bytes(b ^ 0x55 for b in content))


@pytest.fixture
def stopped_run(cut, always, tmp_path, monkeypatch):
    """A run that ended early, with two checkpoints; on a slow machine, too, it takes two steps a chunk."""
    monkeypatch.setattr("jaxnas.driver.loop._next_pace", lambda n, seconds: 2)
    cut(13)
    with pytest.raises(Stopped):
        search(key(), noisy(), chunk=2, directory=tmp_path)
    cut()
    assert len(checkpoint_steps(tmp_path)) == 2


@pytest.mark.parametrize("how", ["cut", "bits"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, stopped_run, caplog, how):
    older, newest = checkpoint_steps(tmp_path)
    damage(tmp_path / "checkpoints" / str(newest), how)
    with caplog.at_level(logging.WARNING, "jaxnas"):
        got = search(key(), noisy(), directory=tmp_path, resume=True)
    assert any(f"checkpoints/{newest} cannot be used" in r.getMessage() for r in caplog.records if r.name == "jaxnas")
    same(got.state, whole().state)
    same(got.infos[0].loss, whole().infos[0].loss[older:])
    assert logged(tmp_path)[-1]["step"] == STEPS


def test_all_checkpoints_damaged(tmp_path, stopped_run):
    damage(tmp_path / "checkpoints", "bits")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read") as caught:
        search(key(), noisy(), directory=tmp_path, resume=True)
    assert "\n" not in str(caught.value) and f"remove {tmp_path / 'checkpoints'}" in str(caught.value)
    shutil.rmtree(tmp_path / "checkpoints")  # the advice
    same(search(key(), noisy(), directory=tmp_path, resume=True).state, whole().state)


def test_saves_after_a_fall_back_keep_two_good_ones(tmp_path, stopped_run, cut):
    older, newest = checkpoint_steps(tmp_path)
    damage(tmp_path / "checkpoints" / str(newest), "cut")
    cut(older + 1)
    with pytest.raises(Stopped):
        search(key(), noisy(), chunk=1, directory=tmp_path, resume=True)
    assert checkpoint_steps(tmp_path) == [older, older + 1, newest]


# --- another run's checkpoint -----------------------------------------------------------------------------------------


def test_a_plan_is_resumed_as_itself_and_may_only_grow_at_its_end(tmp_path, cut):
    cut(8)
    with pytest.raises(Stopped):
        run(key(), two_phases(5, 6), directory=tmp_path, chunk=1)
    cut()
    again = functools.partial(run, key(), directory=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"the steps of phase 1 changed from 5 to 7; set it back .*, or start anew"):
        again(two_phases(7, 6))
    with pytest.raises(CheckpointError, match="the steps of phase 2 changed from 6 to 3"):
        again(two_phases(5, 3))
    with pytest.raises(CheckpointError, match="the phases changed from 2 to 1"):
        again(two_phases(5, 6)[:1])
    with pytest.raises(CheckpointError, match=r"the learning rate changed from None to 0\.1"):
        again(two_phases(5, 6), settings={"the learning rate": 0.1})
    same(again(two_phases(5, 9)).states, run(key(), two_phases(5, 9)).states)
    with pytest.raises(CheckpointError, match="the steps of phase 2 changed from 9 to 6"):
        again(two_phases(5, 6))


def test_what_is_computed_is_part_of_what_a_checkpoint_is_of(tmp_path, cut):
    """A rate in a closure, the numbers of the data, and how they are drawn."""
    cut(1)
    with pytest.raises(Stopped):
        search(key(), noisy(), directory=tmp_path)
    again = functools.partial(run, key(), steps=STEPS, directory=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="the strategy changed"):
        again(noisy(nan_at=30), data=regression())
    with pytest.raises(CheckpointError, match="the strategy changed"):
        again(noisy(), data=regression(size=4))
    arrays, draw = regression()
    with pytest.raises(CheckpointError, match="the data changed"):
        again(noisy(), data=Feed(jax.tree.map(lambda a: a.at[0].add(1), arrays), draw))


def test_a_renamed_checkpoint_is_not_believed(tmp_path, stopped_run, caplog):
    _, newest = checkpoint_steps(tmp_path)
    (tmp_path / "checkpoints" / str(newest)).rename(tmp_path / "checkpoints" / "20")
    got = search(key(), noisy(), directory=tmp_path, resume=True)
    assert f"checkpoints/20 cannot be used (it is of step {newest})" in caplog.text
    same(got.state, whole().state)


def test_the_end_of_a_phase_that_is_missing(tmp_path, cut):
    cut(8)
    with pytest.raises(Stopped):
        run(key(), two_phases(), directory=tmp_path, chunk=1)
    cut()
    shutil.rmtree(tmp_path / "phases")
    with pytest.raises(CheckpointError, match=f"phases/0 is missing: remove {tmp_path / 'checkpoints'}, and a resume"):
        run(key(), two_phases(), directory=tmp_path, resume=True)
    shutil.rmtree(tmp_path / "checkpoints")
    same(run(key(), two_phases(), directory=tmp_path, resume=True).states, run(key(), two_phases()).states)


def test_a_fingerprint_does_not_depend_on_names_addresses_and_caches():
    f = lambda rate: jax.jit(lambda x: jax.lax.cond(x.sum() > 0, lambda x: x * rate, jax.nn.relu, x)).trace(jnp.ones(3)).jaxpr
    one, other = of_program(f(2.0)), of_program(f(3.0))
    jax.clear_caches()
    assert one == of_program(f(2.0)) != other


# --- files that are not what they should be, and others on the same run -----------------------------------------------


@pytest.mark.parametrize("log", [b"{}\n", b"[1,2]\n", b'{"step": "x"}\n', b"\x80\xff\n", 50_000 * b"[" + b"\n", None])
def test_a_damaged_log_does_not_stop_a_resume(tmp_path, cut, caplog, log):
    cut(1)
    with pytest.raises(Stopped):
        search(key(), noisy(), directory=tmp_path)
    cut()
    path = tmp_path / "log.jsonl"
    first = path.read_bytes()
    if log is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(first + log)
    same(search(key(), noisy(), directory=tmp_path, resume=True).state, whole().state)
    assert logged(tmp_path)[0]["step"] == (2 if log is None else 1)  # the line of step 1 is lost with the file alone
    assert "it is set aside as log.jsonl.aside" in caplog.text and (tmp_path / "log.jsonl.aside").exists()


def test_two_on_one_run(tmp_path):
    """The second is told who holds it; what a killed one has left is taken over."""
    script = """if True:
        import pathlib, sys
        from jaxnas.driver.lock import locked
        with locked(pathlib.Path(sys.argv[1])):
            print(1, flush=True)
            input()
    """
    other = subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"1\n"
    assert json.loads((tmp_path / "lock").read_text()) == {"host": socket.gethostname(), "pid": other.pid}
    with pytest.raises(RunIsLocked, match=f"{tmp_path} is in use by process {other.pid} on {socket.gethostname()}: wait for"):
        search(key(), noisy(), directory=tmp_path)
    other.kill()
    other.communicate()
    assert (tmp_path / "lock").exists()
    same(search(key(), noisy(), directory=tmp_path).state, whole().state)
    assert not (tmp_path / "lock").exists()


def test_a_lock_is_of_a_thread(tmp_path):
    def enter():
        with locked(tmp_path):
            return True

    with concurrent.futures.ThreadPoolExecutor(1) as pool, locked(tmp_path):
        assert enter()
        with pytest.raises(RunIsLocked):
            pool.submit(enter).result()
    assert enter()


@pytest.mark.parametrize("bad", [jnp.nan, -jnp.inf])
def test_no_finite_score_ever_is_no_answer(tmp_path, bad):
    score = stateless(lambda key, archs, batch: {"accuracy": bad * jnp.ones(2)})
    never = black_box(aging_evolution(space(np.asarray([4, 4])), 6, 3, 2), score)
    for seeds in (None, 2):
        with pytest.raises(NoFiniteScore, match="no candidate had a finite score, so there is no answer"):
            run(key(), never, steps=3, seeds=seeds, directory=tmp_path / str(seeds))
    assert checkpoint_steps(tmp_path / "None")[-1] == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run(key(), noisy(), steps=2, directory=""), "the directory has no name"),
        (lambda: run(key(), noisy()), "say how many steps"),
        (lambda: run(key(), noisy(), steps=0), "`steps` of run must be a positive integer"),
        (lambda: run(key(), noisy(), steps=2, chunk=0), "`chunk` of run must be a positive integer"),
        (lambda: run(key(), noisy(), steps=2, seeds=0), "`seeds` of run must be a positive integer"),
        (lambda: run(key(), two_phases(), steps=2), "leave `steps` and `data` out"),
        (lambda: run(key(), two_phases(), data=regression()), "leave `steps` and `data` out"),
        (lambda: run(key(), noisy(), steps=2, resume=True), "resume needs the directory"),
        (lambda: then(), "at least one phase"),
    ],
)
def test_calls_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_bar_goes_to_stderr(capsys):
    search(key(), noisy(), progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "23/23" in err and "loss=" in err
