"""The check of an accelerator: a TPU's program on a CPU passes, a fault is flagged, draws do not depend on the precision."""

import importlib.util
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="module")
def check():
    """The experiment, imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))  # for what experiments share
        spec = importlib.util.spec_from_file_location("accelerator_check", FOLDER / "accelerator_check.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        for name in [name for name in sys.modules if name.split(".")[0] == "_common"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def line(check):
    """A step in little: the change of a state is a sum of squares of images, and its choice is drawn."""

    def step(key, state, data):
        images, _ = data
        moved = {"w": state["w"] + jnp.sum(images**2, (0, 1)), "choice": jax.random.randint(key, (5,), 0, 7)}
        return moved, {"loss": jnp.mean(moved["w"])}

    shape = jax.ShapeDtypeStruct((2, 300, 4), jnp.float32), jax.ShapeDtypeStruct((2, 300), jnp.int32)
    return check.steps.Step(lambda key: {"w": jnp.ones(4), "choice": jnp.zeros(5, jnp.int32)}, step, shape, 3)


def test_draws_are_those_of_32_bits(check):
    """Integers are equal, and floats to what a float32 rounds."""
    bits = jax.random.key_data(jax.random.key(3))

    def draws(dtype):
        a, b, c, d = jax.random.split(jax.random.wrap_key_data(bits, impl=check.PAIRED), 4)
        number = jax.random.randint(a, (50,), 0, 7)
        return number, jax.random.uniform(b, (50,), dtype), jax.random.gumbel(c, (50,), dtype), jax.random.normal(d, (50,), dtype)

    single = draws(jnp.float32)
    with check.doubles():
        double = draws(jnp.float64)
        assert double[1].dtype == jnp.float64 and double[0].dtype == jnp.int32
    np.testing.assert_array_equal(single[0], double[0])
    np.testing.assert_array_equal(single[1], np.asarray(double[1], np.float32))
    for one, two in zip(single[2:], double[2:], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


def test_the_reference_is_that_of_float64(check, line):
    """The change has a closed form, and the CPU's own error is that of sums in float32."""
    bits, state, data = check.start(line)
    exact = np.sum(np.asarray(data[0], np.float64) ** 2, (0, 1))
    with check.doubles():
        truth = check.outcome(quick.jit(check.of_bits(line)), *check.double((bits, state, data)))
    np.testing.assert_allclose(truth.change[0], exact, rtol=1e-14)
    np.testing.assert_allclose(truth.loss, np.mean(1 + exact), rtol=1e-14)
    found = check.agreement(lambda: line)
    assert 0 < found.cpu[0] < 1e-6 and found.passes()


@pytest.mark.parametrize("where", ["change", "loss"])
def test_a_fault_of_a_thousandth_is_flagged(check, line, where):
    faulty = {
        "change": lambda found: found._replace(change=[1.001 * a for a in found.change]),
        "loss": lambda found: found._replace(loss=1.001 * found.loss),
    }
    found = check.agreement(lambda: line, faulty[where])
    assert not found.passes()
    assert found.accelerator[("change", "loss").index(where)] == pytest.approx(1e-3, rel=1e-2)


def test_another_draw_is_no_number(check, line):
    found = check.agreement(lambda: line, lambda found: found._replace(choices=[a + 1 for a in found.choices]))
    assert found.accelerator is None and not found.passes()
    cells = check.cells_of("line", check.Speed(1.0, 2.0, 3.0, None), found)
    assert cells.count("other draw") == 2 and cells[-1] == "NO" and cells[4] == "-"


def test_errors_pass_by_the_cpus_own(check):
    passes = lambda mine, its: check.Agreement((mine, 0.0), (its, 0.0)).passes()
    assert passes(9e-4, 1e-4) and not passes(1.1e-3, 1e-4)
    assert passes(9e-6, 1e-9) and not passes(1.1e-5, 1e-9)
    assert not passes(float("nan"), 1e-4)


def test_a_step_of_spos_runs_through(check, capsys):
    """Exit code 0, and a table whose row agrees."""
    with pytest.raises(SystemExit) as end:
        check.main("--tiny", "spos")
    assert not end.value.code
    _, _, header, _, line = capsys.readouterr().out.splitlines()
    assert header.count("|") == line.count("|") == 11
    assert re.fullmatch(r"\| spos \(.*\)( \| [\d.,]+){3} \| -( \| \d\.\de[+-]\d\d){4} \| yes \|", line)


def test_a_row_that_fails_ends_with_code_1(check, line, monkeypatch, capsys):
    wrong = check.Agreement((1e-3, 0.0), (1e-7, 0.0))
    monkeypatch.setattr(check, "agreement", lambda make: wrong)
    monkeypatch.setattr(check.steps, "TOYS", {"line": lambda: line})
    with pytest.raises(SystemExit) as end:
        check.main("--tiny")
    assert end.value.code == 1 and "| 1.0e-03 | 1.0e-07 | 0.0e+00 | 0.0e+00 | NO |" in capsys.readouterr().out


def test_a_step_that_there_is_not_is_said_in_a_line(check):
    with pytest.raises(SystemExit, match=r"^no step begins with 'dartz': choose among darts, first order[^\n]*$"):
        check.main("dartz")


def test_every_toy_has_a_real_size(check):
    assert len(check.steps.TOYS) == 10 and set(check.steps.TOYS) <= set(check.steps.REAL)
