"""Bilevel machinery: the acceptance lines B1 to B7, and the edges of the contract.

Truth is a closed form, a central difference of a pipeline written by hand, or `jax.grad` of one.
"""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import jit

from jaxnas.training.bilevel import (
    Bilevel,
    conjugate_gradient,
    descend,
    finite_difference,
    first_order,
    hypergradient,
    neumann,
    unrolled,
)

METHODS = {
    "first_order": first_order(),
    "unrolled": unrolled(),
    "unrolled_plain": unrolled(remat=False),
    "truncated": unrolled(backprop_last=1),
    "finite_difference": finite_difference(),
    "neumann": neumann(3, 0.1),
    "conjugate_gradient": conjugate_gradient(damping=0.5),
}


EXACT = {"remat": unrolled(), "plain": unrolled(remat=False)}


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def error(got, want):
    """Relative error of one tree against another, as vectors."""
    got, want = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (got, want))
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def run(method, problem, a, w, opt_state, inner, outer=None):
    return jit(lambda *args: hypergradient(problem, *args, method=method))(a, w, opt_state, inner, outer)


def tree_map(f, *trees):
    return jax.tree.map(f, *trees)


def squash(x):  # smooth like tanh, and quicker to compile
    return x / (1 + x * x)


# --- the quadratic of the sheet: f64, numpy default_rng(0), drawn in the order of ref/bilevel_golden.py ---


@pytest.fixture(scope="module")
def quadratic():
    rng = np.random.default_rng(0)
    n, m = 6, 3
    q = rng.normal(size=(n, n))
    H, C, b, t = q @ q.T / n + 0.5 * np.eye(n), rng.normal(size=(n, m)), rng.normal(size=n), rng.normal(size=n)
    a, buf, w = rng.normal(size=m), rng.normal(size=n), rng.normal(size=n)
    lam, rate = 0.1, 1 / np.linalg.eigvalsh(H).max()
    w_star = lambda a: np.linalg.solve(H, C @ a + b)
    inner = lambda a, w, _: 0.5 * w @ H @ w - (C @ a + b) @ w
    outer = lambda a, w, _: 0.5 * jnp.sum((w - t) ** 2) + 0.5 * lam * a @ a
    gradient = lambda a: C.T @ np.linalg.solve(H, w_star(a) - t) + lam * a
    D = np.linalg.solve(H, C)  # dw*/da
    return SimpleNamespace(
        a=a,
        w=w,
        buf=buf,
        w0=np.zeros(n),
        rate=rate,
        H=H,
        C=C,
        inner=inner,
        outer=outer,
        w_star=w_star,
        gradient=gradient,
        hessian=D.T @ D + lam * np.eye(m),
        a_star=np.linalg.solve(D.T @ D + lam * np.eye(m), -D.T @ (np.linalg.solve(H, b) - t)),
        problem=Bilevel(outer, inner, descend(optax.sgd(rate))),
        # the tanh-coupled problem on which the finite difference is not exact
        coupled=lambda a, w, _: jnp.sum(jnp.tanh(H @ w * jnp.tanh(C @ a)) ** 2) + inner(a, w, _),
    )


def on_quadratic(q, method, w, steps):
    args = tree_map(jnp.asarray, (q.a, w))
    return run(method, q.problem, *args, optax.sgd(q.rate).init(args[1]), jnp.zeros(steps)).grad


@pytest.mark.parametrize("method", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("steps, want", [(1, -0.42), (2, -0.4968), (10, 0.9076363733073077)])
def test_b1_scalar(x64, method, steps, want):
    h, c, t, rate = 2.0, 3.0, 1.0, 0.1
    problem = Bilevel(
        outer=lambda a, w, _: 0.5 * (w - t) ** 2,
        inner=lambda a, w, _: 0.5 * h * (w - c * a) ** 2,
        update=descend(optax.sgd(rate)),
    )
    a, w = jnp.asarray(0.5), jnp.asarray(0.0)
    out = run(method, problem, a, w, optax.sgd(rate).init(w), jnp.zeros(steps))
    rho = (1 - rate * h) ** steps
    np.testing.assert_allclose(out.grad, want, rtol=1e-13)
    np.testing.assert_allclose(out.grad, (c * a * (1 - rho) - t) * c * (1 - rho), rtol=1e-13)
    np.testing.assert_allclose(out.value, 0.5 * (c * 0.5 * (1 - rho) - t) ** 2, rtol=1e-13)


def test_b1_scalar_implicit(x64):
    problem = Bilevel(lambda a, w, _: 0.5 * (w - 1) ** 2, lambda a, w, _: (w - 3 * a) ** 2, descend(optax.sgd(0.1)))
    w = jnp.asarray(1.5)
    out = run(conjugate_gradient(tol=1e-12), problem, jnp.asarray(0.5), w, optax.sgd(0.1).init(w), jnp.zeros(1))
    np.testing.assert_allclose(out.grad, 1.5, rtol=1e-13)
    assert out.info["residual"] == 0


# The relative errors of the sheet, to more digits where the sheet's print is coarser than its tolerance of 1e-3.
def check_golden(got, want):
    if isinstance(want, str):  # at round-off: the printed digit
        assert f"{got:.0e}" == want
    else:
        np.testing.assert_allclose(got, want, rtol=1e-3)


@pytest.mark.parametrize("method", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("steps, want", [(1, 0.9074265), (5, 0.4076607), (20, 0.008546068), (100, "5e-12")])
def test_b1_unrolled(x64, quadratic, method, steps, want):
    got = on_quadratic(quadratic, method, quadratic.w0, steps)
    check_golden(error(got, quadratic.gradient(quadratic.a)), want)


@pytest.mark.parametrize("remat", [True, False])
@pytest.mark.parametrize("last, want", [(1, 0.6847207), (5, 0.2139444), (20, 0.003843497), (100, "2e-12")])
def test_b1_truncated(x64, quadratic, remat, last, want):
    got = on_quadratic(quadratic, unrolled(backprop_last=last, remat=remat), quadratic.w0, 500)
    check_golden(error(got, quadratic.gradient(quadratic.a)), want)


@pytest.mark.parametrize("terms, want", [(0, 0.6847207), (5, 0.1630852), (20, 0.002943422), (100, "2e-12")])
def test_b1_neumann(x64, quadratic, terms, want):
    got = on_quadratic(quadratic, neumann(terms, quadratic.rate), quadratic.w_star(quadratic.a), 1)
    check_golden(error(got, quadratic.gradient(quadratic.a)), want)


def test_b1_conjugate_gradient(x64, quadratic):
    got = on_quadratic(quadratic, conjugate_gradient(tol=1e-12), quadratic.w_star(quadratic.a), 1)
    assert error(got, quadratic.gradient(quadratic.a)) < 2e-15


def one_coupled_step(q):
    """The sheet's DARTS step: weight decay, momentum with a buffer, the coupled loss; and its gradient by hand."""
    mom, wd, rate = 0.9, 3e-4, 0.025
    tx = optax.chain(optax.add_decayed_weights(wd), optax.sgd(rate, momentum=mom))
    a, w, buf = tree_map(jnp.asarray, (q.a, q.w, q.buf))
    state = with_momentum(tx.init(w), buf)

    def hand(a):
        return q.outer(a, w - rate * (mom * buf + jax.grad(q.coupled, 1)(a, w, None) + wd * w), None)

    return Bilevel(q.outer, q.coupled, descend(tx)), (a, w, state, jnp.zeros(1)), jit(jax.grad(hand))(a)


def with_momentum(state, buf):
    def put(s):
        return s._replace(trace=buf) if isinstance(s, optax.TraceState) else s

    return jax.tree.map(put, state, is_leaf=lambda s: isinstance(s, optax.TraceState))


@pytest.mark.parametrize("r, want", [(0.1, 1.347617e-5), (0.01, 1.352018e-7), (0.001, 1.352000e-9)])
def test_b1_finite_difference_is_quadratic_in_r(x64, quadratic, r, want):
    problem, args, exact = one_coupled_step(quadratic)
    check_golden(error(run(finite_difference(r), problem, *args).grad, exact), want)


# --- B2: the full pipeline, against central differences ---


def small_problem(tx):
    """A two-layer network with a mixture a, on 3 inner batches and an outer one; f64."""
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape))

    def loss(a, w, batch):
        x, y = batch
        z = x @ w["hidden"]  # [B, 5]
        p = jax.nn.softmax(a)
        z = p[0] * squash(z) + p[1] * z + p[2] * z * squash(z)
        return jnp.mean((squash(z @ w["out"]) - y) ** 2)

    w = {"hidden": draw(4, 5), "out": draw(5)}
    buf = {"hidden": draw(4, 5), "out": draw(5)}
    problem = Bilevel(loss, loss, descend(tx))
    return problem, draw(3), w, buf, (draw(3, 7, 4), draw(3, 7)), (draw(7, 4), draw(7))


RATE, WD, MOMENTUM = 0.1, 0.05, 0.9


def by_hand(problem, w, buf, inner, outer):
    """f(a, w_3) through three steps of SGD with momentum and weight decay, without optax or scan."""

    def F(a):
        v, m = w, buf
        for k in range(3):
            g = jax.grad(problem.inner, 1)(a, v, tree_map(lambda x, k=k: x[k], inner))
            m = tree_map(lambda m, g, v: MOMENTUM * m + g + WD * v, m, g, v)
            v = tree_map(lambda v, m: v - RATE * m, v, m)
        return problem.outer(a, v, outer)

    return F


def test_b2_exact_against_central_differences(x64):
    tx = optax.chain(optax.add_decayed_weights(WD), optax.sgd(RATE, momentum=MOMENTUM))
    problem, a, w, buf, inner, outer = small_problem(tx)
    F = by_hand(problem, w, buf, inner, outer)
    directions = jnp.asarray(np.random.default_rng(2).normal(size=(20, 3)))
    h = 1e-4
    numeric = jit(jax.vmap(lambda d: (F(a + h * d) - F(a - h * d)) / (2 * h)))(directions)

    def worst(problem, state):
        grad = run(unrolled(), problem, a, w, state, inner, outer).grad
        return np.max(np.abs(directions @ grad - numeric) / np.abs(numeric))

    assert worst(problem, with_momentum(tx.init(w), buf)) < 1e-6
    # the same test must catch a look-ahead that forgets the momentum: its buffer, or all of it
    assert worst(problem, tx.init(w)) > 1e-3
    plain = optax.chain(optax.add_decayed_weights(WD), optax.sgd(RATE))
    assert worst(problem._replace(update=descend(plain)), plain.init(w)) > 1e-3


@pytest.mark.parametrize("method", EXACT.values(), ids=EXACT)
def test_b3_optax_equals_the_formula(x64, quadratic, method):
    problem, args, exact = one_coupled_step(quadratic)
    assert error(run(method, problem, *args).grad, exact) < 1e-12


def test_b3_optax_equals_the_formula_over_three_steps(x64):
    tx = optax.chain(optax.add_decayed_weights(WD), optax.sgd(RATE, momentum=MOMENTUM))
    problem, a, w, buf, inner, outer = small_problem(tx)
    value, want = jit(jax.value_and_grad(by_hand(problem, w, buf, inner, outer)))(a)
    for method in EXACT.values():
        out = run(method, problem, a, w, with_momentum(tx.init(w), buf), inner, outer)
        assert error(out.grad, want) < 1e-12
        np.testing.assert_allclose(out.value, value, rtol=1e-13)


# --- B4: memory ---


def test_b4_remat_same_gradient_and_a_third_of_the_memory():
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)

    def loss(a, w, batch):  # a small convnet whose op is a mixture; x: [B, H, W, C]
        x, y = batch
        for k, p in zip(w["conv"], jax.nn.softmax(a), strict=True):
            z = jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = p[0] * jnp.tanh(z) + p[1] * x
        logits = jnp.mean(x, (1, 2)) @ w["head"]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    K, B, S, C = 16, 8, 8, 4
    w = {"conv": [0.3 * draw(3, 3, C, C)], "head": draw(C, 3)}
    tx = optax.chain(optax.add_decayed_weights(3e-4), optax.sgd(0.1, momentum=0.9))
    problem = Bilevel(loss, loss, descend(tx))
    inner = draw(K, B, S, S, C), jnp.asarray(rng.integers(3, size=(K, B)), jnp.int32)
    args = draw(1, 2), w, tx.init(w), inner, tree_map(lambda x: x[0], inner)
    grads, memory = [], []
    for method in EXACT.values():
        compiled = jax.jit(lambda *args, m=method: m(problem, *args)).lower(*args).compile()
        grads.append(compiled(*args).grad)
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
    assert error(*grads) < 1e-6
    assert memory[1] / memory[0] >= 3


@pytest.mark.parametrize("name", ["unrolled", "unrolled_plain", "truncated", "finite_difference"])
def test_one_step_is_not_looped(name):
    problem = Bilevel(lambda a, w, _: w**2, lambda a, w, _: (w - a) ** 2, descend(optax.sgd(0.1)))
    state = optax.sgd(0.1).init(jnp.ones(()))

    def jaxpr(steps):
        f = lambda a: METHODS[name](problem, a, a, state, jnp.zeros(steps), None)
        return str(jax.make_jaxpr(f)(jnp.ones(())))

    assert "scan" not in jaxpr(1)
    if name != "finite_difference":
        assert "scan" in jaxpr(3)


# --- B5: the outer problem is solved ---


def outer_descent(q, method, steps=100):
    """Hypergradient descent, warm-started: 100 inner steps, one hypergradient from where they began or ended, one outer."""
    a, w = tree_map(jnp.asarray, (q.a, q.w0))
    tx = optax.sgd(q.rate)
    size = np.linalg.eigvalsh(q.hessian)
    rate = 2 / (size.min() + size.max())
    implicit = method in ("neumann", "conjugate_gradient", "first_order")
    make = {
        "unrolled": unrolled(),
        "neumann": neumann(steps, q.rate),
        "conjugate_gradient": conjugate_gradient(tol=1e-12),
        "first_order": first_order(),
    }[method]

    def outer_step(carry, _):
        a, w = carry
        train = lambda w, _: (w - q.rate * jax.grad(q.inner, 1)(a, w, None), None)
        trained, _ = jax.lax.scan(train, w, None, length=steps)
        start = trained if implicit else w
        grad = make(q.problem, a, start, tx.init(w), jnp.zeros(steps), None).grad
        return (a - rate * grad, trained), None

    return jit(lambda carry: jax.lax.scan(outer_step, carry, None, length=400)[0][0])((a, w))


@pytest.mark.parametrize("method", ["unrolled", "neumann", "conjugate_gradient"])
def test_b5_descent_finds_the_minimum_of_f(x64, quadratic, method):
    assert np.max(np.abs(outer_descent(quadratic, method) - quadratic.a_star)) < 1e-6


def test_b5_first_order_does_not(x64, quadratic):
    assert np.max(np.abs(outer_descent(quadratic, "first_order") - quadratic.a_star)) > 1e-2


# --- B6: three callers of one code path ---


def regression(rng):
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
    return draw(6), draw(3, 9, 6), draw(3, 9), draw(9, 6), draw(9)


def caller_mixture():
    """DARTS: a mixes operations, in both losses."""
    w, x, y, xv, yv = regression(np.random.default_rng(4))

    def predict(a, w, x):
        p = jax.nn.softmax(a)
        z = x @ w
        return p[0] * squash(z) + p[1] * z + p[2] * z * squash(z)

    def loss(a, w, batch):
        return jnp.mean((predict(a, w, batch[0]) - batch[1]) ** 2)

    def direct(a, steps):
        v = w
        for k in range(steps):
            v = v - 0.1 * jax.grad(lambda v, k=k: jnp.mean((predict(a, v, x[k]) - y[k]) ** 2))(v)
        return jnp.mean((predict(a, v, xv) - yv) ** 2)

    tx = optax.sgd(0.1)
    return Bilevel(loss, loss, descend(tx)), jnp.asarray([0.3, -0.2, 0.1]), w, tx.init(w), (x, y), (xv, yv), direct


def caller_hyperparameters():
    """Hyper-parameter learning: a is a log learning rate (in the update) and a log weight decay (in the inner loss)."""
    w, x, y, xv, yv = regression(np.random.default_rng(5))
    fit = lambda w, x, y: jnp.mean(jnp.log1p((x @ w - y) ** 2))

    def update(a, grads, state, w):
        momentum, count = 0.9 * state[0] + grads, state[1] + 1
        return w - jnp.exp(a["log_rate"]) / jnp.sqrt(count.astype(w.dtype)) * momentum, (momentum, count)

    problem = Bilevel(
        outer=lambda a, w, batch: fit(w, *batch),
        inner=lambda a, w, batch: fit(w, *batch) + 0.5 * jnp.exp(a["log_wd"]) * w @ w,
        update=update,
    )

    def direct(a, steps):
        v, m = w, jnp.ones_like(w)
        for k in range(steps):
            m = 0.9 * m + jax.grad(fit)(v, x[k], y[k]) + jnp.exp(a["log_wd"]) * v
            v = v - jnp.exp(a["log_rate"]) / jnp.sqrt(k + 1.0) * m
        return fit(v, xv, yv)

    a = {"log_rate": jnp.log(jnp.asarray([0.1])[0]), "log_wd": jnp.log(jnp.asarray([0.03])[0])}
    return problem, a, w, (jnp.ones_like(w), jnp.zeros((), jnp.int32)), (x, y), (xv, yv), direct


def caller_reweighting():
    """Data reweighting: a weighs the 27 training examples, which the batches name."""
    w, x, y, xv, yv = regression(np.random.default_rng(6))
    which = jnp.arange(27, dtype=jnp.int32).reshape(3, 9)

    def inner(a, w, batch):
        i, x, y = batch
        return jnp.mean(jax.nn.sigmoid(a[i]) * jnp.log1p((x @ w - y) ** 2))

    def direct(a, steps):
        v = w
        for k in range(steps):
            s = jax.nn.sigmoid(a[9 * k : 9 * k + 9])
            miss = x[k] @ v - y[k]
            v = v - 0.2 * x[k].T @ (s * 2 * miss / (1 + miss**2)) / 9
        return jnp.mean((xv @ v - yv) ** 2)

    tx = optax.sgd(0.2)
    problem = Bilevel(lambda a, w, batch: jnp.mean((batch[0] @ w - batch[1]) ** 2), inner, descend(tx))
    a = jnp.asarray(np.random.default_rng(7).normal(size=27))
    return problem, a, w, tx.init(w), (which, x, y), (xv, yv), direct


CALLERS = {"mixture": caller_mixture, "hyperparameters": caller_hyperparameters, "reweighting": caller_reweighting}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_b6_one_code_path_three_callers(x64, caller, steps):
    problem, a, w, state, inner, outer, direct = caller()
    args = problem, a, w, state, tree_map(lambda x: x[:steps], inner), outer
    value, want = jit(jax.value_and_grad(lambda a: direct(a, steps)))(a)
    for method in EXACT.values():
        out = run(method, *args)
        chex.assert_trees_all_equal_shapes_and_dtypes(out.grad, a)
        assert error(out.grad, want) < 1e-12
        np.testing.assert_allclose(out.value, value, rtol=1e-13)
    if steps == 1:
        assert error(run(finite_difference(1e-3), *args).grad, want) < 1e-6


# --- B7: vmap ---


@pytest.mark.parametrize("name", METHODS)
def test_b7_vmap_over_eight_alphas_is_a_loop(x64, name):
    problem, _, w, state, inner, outer, _ = caller_mixture()
    inner = tree_map(lambda x: x[:1] if name == "finite_difference" else x, inner)
    alphas = jnp.asarray(np.random.default_rng(8).normal(size=(8, 3)))
    f = lambda a: METHODS[name](problem, a, w, state, inner, outer)
    many, loop = jit(lambda alphas: (jax.vmap(f)(alphas), jax.lax.map(f, alphas)))(alphas)
    chex.assert_shape([many.grad, many.value], [(8, 3), (8,)])
    assert error(many, loop) < 1e-12


def test_hyperparameters_of_a_method_may_be_traced(x64):
    problem, a, w, state, inner, outer, _ = caller_mixture()
    f = lambda rate: neumann(4, rate)(problem, a, w, state, inner, outer).grad
    one, rates = jit(f), jnp.asarray([0.01, 0.1])
    chex.assert_trees_all_close(jit(jax.vmap(f))(rates), jnp.stack([one(r) for r in rates]), rtol=1e-12)


# --- identities between methods ---


@pytest.mark.parametrize("terms", [0, 5, 20])
def test_neumann_is_the_truncated_unroll_at_the_optimum(x64, quadratic, terms):
    w = quadratic.w_star(quadratic.a)
    series = on_quadratic(quadratic, neumann(terms, quadratic.rate), w, 1)
    unroll = on_quadratic(quadratic, unrolled(backprop_last=terms + 1), w, terms + 3)
    assert error(series, unroll) < 1e-12


def test_damping_is_added_to_the_hessian(x64, quadratic):
    q, damping = quadratic, 0.7
    w = q.w_star(q.a)
    f_w = np.asarray(jax.grad(q.outer, 1)(q.a, jnp.asarray(w), None))
    want = q.C.T @ np.linalg.solve(q.H + damping * np.eye(6), f_w) + 0.1 * q.a
    assert error(on_quadratic(q, conjugate_gradient(tol=1e-13, damping=damping), w, 1), want) < 1e-12


def test_implicit_methods_use_the_last_batch_and_report_the_residual(x64):
    problem, a, w, state, inner, outer, _ = caller_mixture()
    out = run(METHODS["neumann"], problem, a, w, state, inner, outer)
    last = run(METHODS["neumann"], problem, a, w, state, tree_map(lambda x: x[-1:], inner), outer)
    chex.assert_trees_all_close(out, last, rtol=1e-12)
    g_w = jit(jax.grad(problem.inner, 1))(a, w, tree_map(lambda x: x[-1], inner))
    np.testing.assert_allclose(out.info["residual"], jnp.linalg.norm(g_w) / jnp.linalg.norm(w), rtol=1e-12)
    np.testing.assert_allclose(out.value, jit(problem.outer)(a, w, outer), rtol=1e-12)


def test_first_order_is_the_partial_derivative(x64):
    problem, a, w, state, inner, outer, _ = caller_mixture()
    out = run(first_order(), problem, a, w, state, inner, outer)
    value, grad = jit(jax.value_and_grad(problem.outer))(a, w, outer)
    chex.assert_trees_all_close((out.value, out.grad, out.info), (value, grad, {}), rtol=1e-13)


def test_truncation_drops_the_early_steps_only(x64):
    problem, a, w, state, inner, outer, _ = caller_hyperparameters()
    step = jit(lambda w, s, batch: problem.update(a, jax.grad(problem.inner, 1)(a, w, batch), s, w))
    v, s = w, state
    for i in (1, 2):  # after i steps
        v, s = step(v, s, tree_map(lambda x, i=i: x[i - 1], inner))
        want = run(unrolled(), problem, a, v, s, tree_map(lambda x, i=i: x[i:], inner), outer)
        for remat in (True, False):
            got = run(unrolled(backprop_last=3 - i, remat=remat), problem, a, w, state, inner, outer)
            chex.assert_trees_all_close(got, want, rtol=1e-12)


# --- optimizers whose state counts, or whose derivative is delicate ---

OPTIMIZERS = {
    "adam": optax.adam(0.1, eps_root=1e-8),
    "clip": optax.chain(optax.clip_by_global_norm(0.1), optax.add_decayed_weights(WD), optax.sgd(RATE, momentum=0.9)),
    "nesterov, cosine": optax.sgd(optax.cosine_decay_schedule(0.3, 4), momentum=0.9, nesterov=True),
    "injected": optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9),
}


@pytest.mark.parametrize("tx", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_adjoint_equals_autodiff_for_any_optimizer(x64, tx):
    problem, a, w, _, inner, outer, _ = caller_mixture()
    args = problem._replace(update=descend(tx)), a, w, tx.init(w), inner, outer
    got, want = run(unrolled(), *args), run(unrolled(remat=False), *args)
    assert np.isfinite(got.grad).all() and np.linalg.norm(got.grad) > 1e-6
    assert error(got.grad, want.grad) < 1e-9


@pytest.mark.parametrize("method", EXACT.values(), ids=EXACT)
def test_adam_inside_is_finite_with_eps_root_and_not_without(x64, method):
    def through(tx):  # the last weight's gradient is zero, and so are its moments
        problem = Bilevel(lambda a, w, _: jnp.sum((w - 1) ** 2), lambda a, w, _: jnp.sum((w - a) ** 2), descend(tx))
        w = jnp.zeros(3)
        return run(method, problem, jnp.asarray([0.5, 0.25, 0.0]), w, tx.init(w), jnp.zeros(1)).grad

    assert np.isfinite(through(optax.adam(0.1, eps_root=1e-8))).all()
    assert not np.isfinite(through(optax.adam(0.1))).all()


# --- the contract: types, keys, jit, errors ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", METHODS)
def test_types_are_kept_and_strong(x64, name, dtype):
    tx = optax.sgd(0.1, momentum=0.9)
    problem = Bilevel(
        outer=lambda a, w, x: jnp.sum((w["u"] - x) ** 2) + jnp.sum(a["p"] ** 2),
        inner=lambda a, w, x: jnp.sum((w["u"] * a["p"][:1] - x) ** 2) + a["s"] * jnp.sum(w["v"] ** 2),
        update=descend(tx),
    )
    a = {"p": jnp.ones(2, dtype), "s": jnp.asarray(0.5, dtype)}
    w = {"u": jnp.ones(3, dtype), "v": jnp.full((2, 2), 0.5, dtype)}
    args = problem, a, w, tx.init(w), jnp.ones((1, 3), dtype), jnp.zeros(3, dtype)
    out = jax.eval_shape(lambda: METHODS[name](*args))
    chex.assert_trees_all_equal_shapes_and_dtypes(out.grad, a)
    assert out.value.shape == () and all(x.shape == () for x in out.info.values())
    assert all(x.dtype == dtype and not x.weak_type for x in jax.tree.leaves(out))
    jitted = jit(lambda: METHODS[name](*args))()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jitted))
    if dtype == "float32" and name in ("unrolled", "neumann"):  # eagerly too
        chex.assert_trees_all_close(METHODS[name](*args), jitted, rtol=1e-5)


def test_weak_inputs_give_strong_outputs():
    problem = Bilevel(lambda a, w, _: (w - 1) ** 2, lambda a, w, _: (w - a) ** 2, descend(optax.sgd(0.1)))
    a = w = jnp.asarray(0.5)
    assert a.weak_type
    for name, method in METHODS.items():
        steps = jnp.zeros(1 if name == "finite_difference" else 2)
        out = jax.eval_shape(lambda m=method, s=steps: m(problem, a, w, optax.sgd(0.1).init(w), s, None))
        assert not any(x.weak_type for x in jax.tree.leaves(out)), name


@pytest.mark.parametrize("name", ["unrolled", "unrolled_plain", "finite_difference", "neumann"])
def test_keys_may_ride_in_the_batches(x64, name):
    def inner(a, w, batch):
        return jnp.mean((jax.random.normal(batch, (8, 3)) @ (w - a)) ** 2)

    def fixed(a, w, batch):
        return jnp.mean((batch @ (w - a)) ** 2)

    tx = optax.sgd(0.1)
    outer = lambda a, w, _: jnp.sum(w**4)
    keys = jax.random.split(jax.random.key(0), 1 if name == "finite_difference" else 3)
    noise = jax.vmap(lambda k: jax.random.normal(k, (8, 3)))(jax.random.clone(keys))
    a, w = jnp.asarray([1.0, 2.0, 3.0]), jnp.ones(3)
    got = run(METHODS[name], Bilevel(outer, inner, descend(tx)), a, w, tx.init(w), keys)
    want = run(METHODS[name], Bilevel(outer, fixed, descend(tx)), a, w, tx.init(w), noise)
    chex.assert_trees_all_close(got, want, rtol=1e-12)


def test_finite_difference_where_the_outer_loss_ignores_the_weights():
    problem = Bilevel(lambda a, w, _: jnp.sum(a**2), lambda a, w, _: jnp.sum((w - a) ** 2), descend(optax.sgd(0.1)))
    a, w = jnp.ones(2), jnp.zeros(2)
    out = finite_difference()(problem, a, w, optax.sgd(0.1).init(w), jnp.zeros(1), None)
    np.testing.assert_array_equal(out.grad, 2 * a)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: unrolled(backprop_last=0), "give 1 or more"),
        (lambda: finite_difference(0.0), "give it above 0"),
        (lambda: neumann(-1, 0.1), "give 0 or more"),
        (lambda: conjugate_gradient(damping=-1.0), "give 0 or more"),
    ],
)
def test_factories_check_their_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "method, batches, message",
    [
        (finite_difference(), jnp.zeros(2), "give 1 inner batch"),
        (unrolled(backprop_last=3), jnp.zeros(2), "give at least 3"),
        (unrolled(), None, "leading axis"),
        (unrolled(), jnp.zeros(0), "leading axis"),
        (unrolled(), jnp.zeros(()), "leading axis"),
        (neumann(1, 0.1), (jnp.zeros(2), jnp.zeros(3)), "leading axis"),
    ],
)
def test_batches_are_checked(method, batches, message):
    problem = Bilevel(lambda a, w, _: w, lambda a, w, _: w * a, descend(optax.sgd(0.1)))
    with pytest.raises(ValueError, match=message):
        hypergradient(problem, jnp.ones(()), jnp.ones(()), optax.sgd(0.1).init(jnp.ones(())), batches, None, method=method)
