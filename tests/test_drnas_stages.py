"""DrNAS's two stages, as the command line plans them: what each sees, what goes over, and that a cut changes no bit."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import jit

import jaxnas as nas
from jaxnas import data, policies
from jaxnas.app import search
from jaxnas.app.config import Config, complete
from jaxnas.app.methods.drnas import Stage, _drnas_stages
from jaxnas.driver import journal
from jaxnas.driver.errors import Stopped

STEPS, ALONE = 8, 2  # in all, and of each stage's 4 the weights alone


def dataset():
    rng = np.random.default_rng(0)
    return data.split(jax.random.key(0), rng.normal(size=(30, 8, 8, 1)).astype(np.float32), np.arange(30) % 3)


def job_of(space, channels, steps=STEPS, space_settings=None, **settings):
    sizes = dict(steps=steps, batch=2, channels=channels, cells=1)
    config = Config(space=space, strategy="drnas", **sizes, strategy_settings=settings, space_settings=space_settings)
    return search.make_job(complete(config), dataset())


@pytest.mark.parametrize(
    ("space", "channels", "settings", "stages"),
    [
        ("nasbench201", 16, {}, (Stage(4), Stage(2, 3))),  # published
        ("darts", 36, {}, (Stage(6), Stage(4, 4))),  # published
        ("darts", 8, {}, (Stage(4), Stage(2, 4))),
        ("nasbench201", 2, {}, (Stage(2), Stage(1, 3))),
        ("darts", 36, dict(partial=(6, 3), operations=2), (Stage(6), Stage(3, 2))),
        ("darts", 8, dict(stages=1), (Stage(),)),
        ("mobile", 8, {}, (Stage(),)),
    ],
)
def test_the_stages_are_the_published_ones(space, channels, settings, stages):
    job = job_of(space, channels, **settings)
    assert _drnas_stages(job) == stages
    plan = search.make_plan(job)
    assert [(phase.name, phase.steps) for phase in plan] == {
        1: [("search", STEPS)],
        2: [("stage 1", STEPS // 2), ("stage 2", STEPS // 2)],
    }[len(stages)]


@pytest.mark.parametrize(
    ("space", "settings", "words"),
    [
        ("mobile", dict(stages=2), "two stages need cells"),
        ("nasbench201", dict(stages=1, operations=3), "leave --strategy.partial"),
        ("nasbench201", dict(operations=6), "an edge has 5 operations"),
        ("darts", dict(operations=8), "an edge has 7 operations"),
        ("nasbench201", dict(partial=(2, 4)), "must not rise"),
        ("nasbench201", dict(partial=(3, 2)), "3 does not divide 4"),
        ("nasbench201", dict(steps=1), "take 2 steps or more"),
    ],
)
def test_stages_that_cannot_be_are_named(space, settings, words):
    with pytest.raises(ValueError, match=words):
        search.make_plan(job_of(space, 4, **settings))


CELL = dict(nodes=1, ops=("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"))  # 3 can be chosen, of which 2 are left


def plan_of_two():
    return search.make_plan(job_of("darts", 4, space_settings=CELL, warm_up=ALONE / 4))


def open_rows(state):
    return np.asarray(policies.still_open(state.theta.reduce))  # of the one cell that there is


def conv(state, name, source=0):
    """The first weights of an operation, [1, C / K, C / K, k, k]."""
    return np.asarray(jax.tree.leaves(state.variables["params"]["cell0"][f"from{source}"][name])[0], float)


def test_the_architecture_stands_still_then_half_goes_and_one_cosine_spans_both_stages():
    first, second = plan_of_two()
    state, left = jit(first.strategy.init)(jax.random.key(0)), np.asarray(2 * [[False, True, True, True]])
    for number, phase in enumerate((first, second)):
        if number:
            before = state
            state = jit(lambda key, state: second.strategy.init(key, second.give(state)))(jax.random.key(1), before)
            left, strength = open_rows(state), np.asarray(before.theta.reduce)
            assert (left.sum(-1) == 2).all() and not left[:, 0].any()
            went = ~left & open_rows(before)
            assert (np.where(left, strength, np.inf).min(-1) >= np.where(went, strength, -np.inf).max(-1)).all()
            np.testing.assert_array_equal(np.asarray(state.theta.reduce)[left], strength[left])
            assert all((np.asarray(m) == 0).all() for m in jax.tree.leaves(state.opt_state))
            old, new = (
                conv(s, "nor_conv_1x1")[0, :, :, 0, 0].sum(1) for s in (before, state)
            )  # copies share their readers' weight
            assert (len(old), len(new)) == (2, 4) and np.isclose(new[:, None], old[None], atol=1e-6).any(1).all()
            np.testing.assert_allclose(new[:2], old, atol=1e-6)
        step = jit(phase.strategy.step)
        for t in range(phase.steps):
            batch = phase.data.draw(jax.random.key(t), phase.data.arrays, jnp.asarray(t))
            after, info = step(jax.random.key(10 + t), state, batch)
            moved = np.asarray(after.theta.reduce != state.theta.reduce)
            assert moved[left].all() if t >= ALONE else not moved.any()
            assert not moved[~left].any() and (np.asarray(info.gates.reduce)[~left] == 0).all()
            if number and not t:
                check_rate(state, after, went)
            state = after


def check_rate(before, after, went):
    """What went has no gradient, so that in the first step its weights only decay: at the rate where the cosine stands."""
    rate = float(optax.cosine_decay_schedule(0.025, STEPS, alpha=0.001 / 0.025)(STEPS // 2))
    for edge, k in zip(*np.nonzero(went), strict=True):
        if CELL["ops"][k] != "skip_connect":
            a, b = (conv(s, CELL["ops"][k], edge) for s in (before, after))
            np.testing.assert_allclose(a - b, rate * 3e-4 * a, rtol=0.05, atol=1e-7)


def test_cells_of_two_inputs_are_searched_without_none():
    plan = search.make_plan(job_of("darts", 4, space_settings=CELL, stages=1))
    assert (open_rows(jit(plan[0].strategy.init)(jax.random.key(0))) == [False, True, True, True]).all()


@pytest.mark.parametrize("at", [pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow), 7])
def test_a_cut_in_either_stage_changes_no_bit(tmp_path, monkeypatch, at):
    """3 is in the first stage, where the architecture moves already; 4 is between them; 7 is in the second."""
    write = journal.Journal.write

    def and_stop(self, phase, step, info, seconds):
        write(self, phase, step, info, seconds)
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)

    key = jax.random.key(3)
    want = nas.run(key, plan_of_two())
    options = dict(chunk=1, directory=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "write", and_stop)
        with pytest.raises(Stopped, match=f"saved at step {at}"):
            nas.run(key, plan_of_two(), **options)
    got = nas.run(key, plan_of_two(), resume=True, **options)
    for a, b in zip(jax.tree.leaves((want.states, want.best)), jax.tree.leaves((got.states, got.best)), strict=True):
        np.testing.assert_array_equal(a, b)
