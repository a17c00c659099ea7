"""Checkpoints are written while the run goes on, and count once they are whole; a signal is heeded soon."""

import os
import resource
import shutil
import signal
import threading
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_run import checkpoint_steps, logged, noisy, regression, two_phases

from jaxnas import sharding
from jaxnas.base import Batch, Strategy, Stream
from jaxnas.driver import CheckpointError, Checkpoints, Stopped, journal, loop, run

DIM = 50_000
key = jax.random.key


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """A checkpoint is due whenever none is under way."""
    monkeypatch.setattr(journal, "SAVE_EVERY", 0.0)


def hook(monkeypatch, owner, name, before):
    """Calls `before` with the same arguments ahead of a method."""
    plain = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *arguments: (before(*arguments), plain(*arguments))[1])


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("megabytes, arrays, on_mesh", [(1, 3, False), (64, 1, False), (64, 16, False), (32, 2, True)])
def test_a_state_is_written_as_it_was_though_it_is_donated_at_once(tmp_path, megabytes, arrays, on_mesh):
    shape = (2, megabytes * 2**17 // arrays)
    state = {str(i): jax.random.normal(key(i), shape) for i in range(arrays)}
    if on_mesh:
        state = sharding.place(state, sharding.mesh(seed=2), True)
    overwrite = jax.jit(lambda state: jax.tree.map(lambda a: 0 * a - 1, state), donate_argnums=0)
    want = jax.tree.map(lambda a: np.array(a, copy=True), state)
    shapes = jax.eval_shape(lambda: want)
    jax.block_until_ready(overwrite(jax.tree.map(jnp.copy, state)))  # compiled
    store = Checkpoints(tmp_path)
    store.save(1, key(0), state)
    for _ in range(3):
        state = jax.block_until_ready(overwrite(state))
    step, found = store.restore(lambda step: shapes, key(0))
    store.close()
    assert step == 1
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, found), want)


def test_a_resume_from_every_checkpoint_is_exact(tmp_path, monkeypatch):
    """All that a run writes while its steps go on, with arrays of some size."""
    monkeypatch.setattr(loop, "Checkpoints", lambda *at, **options: Checkpoints(*at, **{"keep": None, **options}))
    monkeypatch.setattr(Checkpoints, "writing", lambda self: False)
    options = dict(steps=4, data=regression(DIM), chunk=1, directory=tmp_path)
    whole = run(key(0), noisy(DIM), **options)
    assert checkpoint_steps(tmp_path) == [1, 2, 3, 4]
    for kept in range(3, 0, -1):
        for step in range(kept + 1, 5):
            shutil.rmtree(tmp_path / "checkpoints" / str(step))
        again = run(key(0), noisy(DIM), **options, resume=True)
        chex.assert_trees_all_equal(again.state, whole.state)
        assert len(again.infos[0].loss) == 4 - kept


# --- what waits, and what does not ------------------------------------------------------------------------------------


def test_steps_go_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """The first is held up until step 5 is in the log; no other is begun before; the end waits for the last."""
    reached, waited, begun = threading.Event(), [], []
    hook(monkeypatch, journal.Journal, "write", lambda log, phase, step, *more: reached.set() if step == 5 else None)
    hook(monkeypatch, Checkpoints, "save", lambda store, step, *more: begun.append(step))
    hook(monkeypatch, Checkpoints, "_finish", lambda store, step: waited.append(reached.wait(20)))
    run(key(0), noisy(), steps=9, data=regression(), chunk=1, directory=tmp_path)
    assert all(waited) and begun[0] == 1 and begun[1] >= 5
    assert checkpoint_steps(tmp_path) == sorted(begun)[-2:] and begun[-1] == 9


def test_the_end_of_a_phase_is_whole_before_the_next_begins(tmp_path, monkeypatch):
    """Else a kill would leave checkpoints of the second phase without what it needs of the first."""
    whole, finish = [], Checkpoints._finish

    def slowly(store, step):
        time.sleep(0.3 if store._path.name == "phases" else 0)
        finish(store, step)
        whole.append((store._path.name, step))

    monkeypatch.setattr(Checkpoints, "_finish", slowly)
    run(key(0), two_phases(2, 3), chunk=1, directory=tmp_path)
    at = whole.index(("phases", 0))
    assert all(step <= 2 for _, step in whole[:at]) and ("checkpoints", 2) in whole[:at] and ("checkpoints", 5) in whole[at:]


@pytest.mark.parametrize("ends", ["a later step", "the end", "a signal"])
def test_a_write_that_fails_is_said_in_one_line(tmp_path, monkeypatch, ends):
    """No file may grow beyond 40 kB once step 3 is saved: the checkpoint before stays, and a resume is exact."""
    monkeypatch.setattr(Checkpoints, "writing", lambda self: False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(store, step, *more):
        if step == 3:
            store.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))

    def stop(log, phase, step, *more):
        if step == 3 and ends == "a signal":
            os.kill(os.getpid(), signal.SIGTERM)

    steps = {"a later step": 6, "the end": 3, "a signal": 6}[ends]
    options = dict(data=regression(DIM), chunk=1, directory=tmp_path)
    with monkeypatch.context() as patch:
        hook(patch, Checkpoints, "save", fill)
        hook(patch, journal.Journal, "write", stop)
        try:
            with pytest.raises(CheckpointError) as caught:
                run(key(0), noisy(DIM), steps=steps, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = str(caught.value)
    assert "\n" not in said and "File too large" in said and said.endswith("make room there, and resume")
    assert said.startswith(f"the checkpoint of step 3 cannot be written to {tmp_path / 'checkpoints'} (")
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdecimal()] in (["1", "2"], ["2", "1"])
    again = run(key(0), noisy(DIM), steps=6, resume=True, **options)
    chex.assert_trees_all_equal(again.state, run(key(0), noisy(DIM), steps=6, data=regression(DIM)).state)


# --- how soon a signal is heeded --------------------------------------------------------------------------------------


def test_a_signal_is_heeded_within_two_seconds_of_steps(tmp_path):
    """Steps of 0.2 s, so at most ten of them after it; fewer on a busy machine."""
    base, taken = noisy(), []

    def work(t):
        taken.append(int(t))
        if len(taken) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        return np.float32(0)

    def step(k, state, batch):
        nothing = jax.pure_callback(work, jax.ShapeDtypeStruct((), jnp.float32), state.step, vmap_method="sequential")
        return base.step(k, state._replace(w=state.w + nothing), batch)

    with pytest.raises(Stopped, match="saved at step"):
        run(key(0), base._replace(step=step), steps=200, data=regression(), directory=tmp_path)
    assert 6 <= len(taken) <= 6 + 10
    assert logged(tmp_path)[-1]["step"] == checkpoint_steps(tmp_path)[-1] == len(taken)


@pytest.mark.parametrize("directory", [True, False])
@pytest.mark.parametrize("at", [3, 30])
def test_a_signal_is_heeded_while_a_stream_is_read(tmp_path, monkeypatch, at, directory):
    """In the first block nothing is done yet; in the second the steps of the first are saved.  No block is read to its end."""
    read, options = [], dict(steps=80, chunk=20, directory=tmp_path if directory else None)
    used_up = threading.Event()
    hook(monkeypatch, journal.Journal, "write", lambda log, phase, step, *more: used_up.set() if step == 20 else None)

    def rows(indices):
        read.append(int(indices))
        if len(read) == at:
            used_up.wait(20 if at > 20 else 0)
            os.kill(os.getpid(), signal.SIGTERM)
        if len(read) >= at:
            time.sleep(0.2)
        return np.float32(indices)

    def stream(read):
        draw = lambda k, arrays, t: Batch(train=arrays)
        return Stream(lambda k, t: t, read, draw, jax.ShapeDtypeStruct((), jnp.float32), "0 to 79")

    add = lambda k, state, batch: (state + batch.train, state)
    strategy = Strategy(lambda k, given=None: jnp.zeros(()), add, lambda state: state)
    words = "saved at step 20: continue" if directory and at == 30 else "nothing was kept"
    with pytest.raises(Stopped, match=words):
        run(key(0), strategy, data=stream(rows), **options)
    assert at <= len(read) <= at + 2
    if directory:
        again = run(key(0), strategy, data=stream(lambda indices: np.float32(indices)), **options, resume=True)
        assert again.state == sum(range(80))
