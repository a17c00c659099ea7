"""Bilevel optimisation: the gradient of an outer loss through the weights that an inner loss trains.

    min_a F(a) = f(a, w*(a)),    w*(a) = argmin_w g(a, w)

f is the validation loss and g the training loss.  `a` is whatever the outer level owns: architecture logits, a log
learning rate, the weights of the examples.  A method approximates dF/da from the current w and a few batches; they do
not estimate the same number (one step may be far from dF/da), so report which one you use.

Subscripts are partial derivatives, H = g_ww.  Second derivatives are forward over reverse (Pearlmutter, 1994; Kemaev et
al., 2025, arXiv:2505.00793): the gradient of g, pushed along one direction.  The backward pass of g's ops must therefore
have a forward derivative; for a `custom_vjp` that has none there is `unrolled(remat=False)`, reverse over reverse.

Axes: K inner steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.sparse.linalg import cg

from jaxnas.trees import Tree, loop, take


class Bilevel(NamedTuple):
    """Two losses, and the optimizer of the lower one.  Weight decay is in `inner` or in `update`, never in both; the
    implicit methods see only `inner`.  BatchNorm statistics are no part of w: the losses close over them."""

    outer: Callable[[Tree, Tree, Tree], jax.Array]  # f(a, w, batch) -> []
    inner: Callable[[Tree, Tree, Tree], jax.Array]  # g(a, w, batch) -> [], which one inner step descends
    update: Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree]]  # (a, grads, opt_state, w) -> (w, opt_state)


class Hypergradient(NamedTuple):
    value: jax.Array  # []; f where it was evaluated: at the w given, or after the look-ahead
    grad: Tree  # dF/da, of a's structure
    info: dict[str, jax.Array]  # name -> []


# (problem, a, w, opt_state, inner_batches [K, ...], outer_batch) -> Hypergradient
Method = Callable[[Bilevel, Tree, Tree, Tree, Tree, Tree], Hypergradient]


def descend(tx: optax.GradientTransformation) -> Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree]]:
    """The `update` of an optax transformation, which ignores a.  Adam has no second derivative without an `eps_root`."""

    def update(a, grads, opt_state, w):
        del a
        updates, opt_state = tx.update(grads, opt_state, w)
        return optax.apply_updates(w, updates), opt_state

    return update


def first_order() -> Method:
    """f_a at the current w, which does not follow a: DARTS with xi = 0 (Liu et al., 2019, arXiv:1806.09055, eq. 6)."""

    def method(problem, a, w, opt_state, inner_batches, outer_batch):
        del opt_state, inner_batches  # w does not move
        return _result(*jax.value_and_grad(_on(problem.outer, outer_batch))(a, w))

    return method


def unrolled(*, backprop_last: int | None = None, remat: bool = True) -> Method:
    """The exact gradient of f(a, w_K) through K steps of the inner optimizer; K is the leading axis of the batches.

    With s = (w, optimizer state) and s_{k+1} = Phi(a, g_w(a, w_k), s_k), the adjoint p of s runs backwards from f_w:

        (abar_k, u_k, p_k) = p_{k+1} . dPhi/d(a, g_w, s)
        p_k  += H u_k  (its part in w)
        dF/da = f_a + sum_k abar_k + g_aw u_k

    Franceschi et al. (2017), "Forward and Reverse Gradient-Based Hyperparameter Optimization", arXiv:1703.01785, alg. 1;
    K = 1 is exactly DARTS's second order (arXiv:1806.09055, eq. 6).

    Args:
        backprop_last: pull back through the last k steps only (Shaban et al., 2019, arXiv:1810.10667); default: all.
        remat: keep s_k, in memory O(K |s|) and one step of activations; False transposes the loop: O(K activations).

    Raises:
        ValueError: for batches without a common leading axis, or fewer than `backprop_last`.
    """
    if backprop_last is not None and backprop_last < 1:
        raise ValueError(f"`backprop_last` counts steps: give 1 or more, not {backprop_last}, or use first_order()")

    def method(problem, a, w, opt_state, inner_batches, outer_batch):
        steps = _steps(inner_batches)
        last = backprop_last or steps
        if last > steps:
            raise ValueError(f"`backprop_last` is {last}, but there are {steps} inner batches: give at least {last}")
        head, tail = take(inner_batches, slice(-last)), take(inner_batches, slice(-last, None))
        f = _on(problem.outer, outer_batch)

        def ahead(a, state, batches):  # -> the state after all batches, and the state before each
            grads = lambda w, batch: jax.grad(_on(problem.inner, batch), 1)(a, w)
            return loop(lambda s, batch: (problem.update(a, grads(s[0], batch), s[1], s[0]), s), state, batches)

        start = ahead(a, (w, opt_state), head)[0] if last < steps else (w, opt_state)
        if not remat:
            return _result(*jax.value_and_grad(lambda a: f(a, ahead(a, start, tail)[0][0]))(a))

        (w, opt_state), states = ahead(a, start, tail)
        value, (abar, wbar) = jax.value_and_grad(f, (0, 1))(a, w)

        def pull(cotangents, step):
            abar, *p = cotangents
            (w, opt_state), batch = step
            (grads, _), push = _second_order(_on(problem.inner, batch), a, w)

            def update(a, grads, moving, w):
                state = jax.tree.map(lambda m, x: x if m is None else m, moving, opt_state, is_leaf=lambda m: m is None)
                w, state = problem.update(a, grads, state, w)
                return [w, _moving(state)]

            direct, u, sbar, wbar = jax.vjp(update, a, grads, _moving(opt_state), w)[1](p)
            hu, mixed = push(u)
            return (_add(abar, _add(direct, mixed)), _add(wbar, hu), sbar), None

        sbar = jax.tree.map(jnp.zeros_like, _moving(opt_state))
        (grad, _, _), _ = loop(pull, (abar, wbar, sbar), (states, tail), reverse=True)
        return _result(value, grad)

    return method


def finite_difference(r: float = 0.01) -> Method:
    """One unrolled step, with a central difference of g_a in place of the second derivative.

        dF/da ~ f_a(a, w') + abar + (g_a(a, w + eps u) - g_a(a, w - eps u)) / (2 eps),    eps = r / ||u||

    w' is w after one inner step, abar what its update owes to a directly, and u the cotangent of its gradient: -rate f_w'
    for SGD, which makes this Liu, Simonyan and Yang (2019), "DARTS", arXiv:1806.09055, eq. 7-8.

    Args:
        r: how far w is moved.  The error is quadratic in it until round-off (r ~ 1e-2 in float32).

    Raises:
        ValueError: unless there is exactly one inner batch.
    """
    if r <= 0:
        raise ValueError(f"`r` is the distance by which the weights are moved: give it above 0, not {r}")

    def method(problem, a, w, opt_state, inner_batches, outer_batch):
        if (steps := _steps(inner_batches)) != 1:
            raise ValueError(f"finite_difference looks one step ahead: give 1 inner batch, not {steps}, or use unrolled()")
        g = _on(problem.inner, take(inner_batches, 0))
        w_ahead, pull = jax.vjp(lambda a, grads: problem.update(a, grads, opt_state, w)[0], a, jax.grad(g, 1)(a, w))
        value, (f_a, f_w) = jax.value_and_grad(_on(problem.outer, outer_batch), (0, 1))(a, w_ahead)
        abar, u = pull(f_w)
        size = optax.tree.norm(u)
        eps = r / jnp.where(size > 0, size, 1)
        plus, minus = (jax.grad(g)(a, _add(w, u, scale)) for scale in (eps, -eps))
        return _result(value, _add(_add(f_a, abar), _add(plus, minus, -1), 0.5 / eps))

    return method


def neumann(terms: int, rate: jax.Array | float) -> Method:
    """The implicit hypergradient at the current w, with n `terms` of the Neumann series after the first.

        dF/da ~ f_a - g_aw v,    v = rate sum_{i=0..n} (I - rate H)^i f_w  ->  H^-1 f_w

    True where g_w = 0 (`info["residual"]` is ||g_w|| / ||w||), where it also equals the unroll of the last n + 1 steps of
    SGD at this rate.  The series needs rate < 2 / lambda_max(H).  Uses the last inner batch.

    Lorraine et al. (2020), "Optimizing Millions of Hyperparameters by Implicit Differentiation", arXiv:1911.02590, alg. 3.
    """
    if terms < 0:
        raise ValueError(f"`terms` counts the powers of (I - rate H): give 0 or more, not {terms}")

    def solve(hvp, f_w):
        def step(_, carry):
            power = _add(carry[0], hvp(carry[0]), -rate)
            return power, _add(carry[1], power)

        total = jax.lax.fori_loop(0, terms, step, (f_w, f_w))[1]
        return jax.tree.map(lambda t: (rate * t).astype(t.dtype), total)

    return _implicit(solve)


def conjugate_gradient(tol: float = 1e-6, damping: float = 0.0, maxiter: int | None = None) -> Method:
    """The implicit hypergradient at the current w, by conjugate gradients.

        dF/da ~ f_a - g_aw v,    (H + damping I) v = f_w, to ||residual|| <= tol ||f_w||

    True where g_w = 0 (`info["residual"]` is ||g_w|| / ||w||) and damping = 0.  Where g is not convex give a damping above
    |lambda_min(H)|; for a network give a `maxiter` (the default is 10 |w|).  Uses the last inner batch.
    Pedregosa (2016), "Hyperparameter Optimization with Approximate Gradient", arXiv:1602.02355, alg. 1.
    """
    if damping < 0:
        raise ValueError(f"`damping` is there to keep H + damping I positive definite: give 0 or more, not {damping}")

    def solve(hvp, f_w):
        damped = lambda v: _add(hvp(v), v, damping)  # (H + damping I) v
        return cg(damped, f_w, tol=tol, maxiter=maxiter)[0]

    return _implicit(solve)


def hypergradient(
    problem: Bilevel,
    a: Tree,
    w: Tree,
    opt_state: Tree,
    inner_batches: Tree,
    outer_batch: Tree,
    *,
    method: Method | None = None,
) -> Hypergradient:
    """dF/da by `method` (default: `unrolled()`), at the current w and the current optimizer state, momentum included."""
    return (method or unrolled())(problem, a, w, opt_state, inner_batches, outer_batch)


def _implicit(solve) -> Method:  # f_a - g_aw v, with v = solve(u -> H u, f_w)
    def method(problem, a, w, opt_state, inner_batches, outer_batch):
        del opt_state  # w* does not depend on how it was reached
        _steps(inner_batches)
        g = _on(problem.inner, take(inner_batches, -1))
        value, (f_a, f_w) = jax.value_and_grad(_on(problem.outer, outer_batch), (0, 1))(a, w)
        (grads, _), push = _second_order(g, a, w)
        _, mixed = push(solve(lambda u: push(u)[0], f_w))
        return _result(value, _add(f_a, mixed, -1), residual=optax.tree.norm(grads) / optax.tree.norm(w))

    return method


def _second_order(g, a, w):  # (g_w, g_a), and their derivative along u in w: u -> (H u, g_aw u)
    return jax.linearize(lambda w: jax.grad(g, (1, 0))(a, w), w)


def _on(loss, batch):  # (a, w) -> loss; its keys are cloned: the same noise is meant to be drawn at every evaluation
    again = lambda x: jax.random.clone(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return lambda a, w: loss(a, w, jax.tree.map(again, batch))


def _steps(batches) -> int:
    lengths = {jnp.shape(x)[:1] for x in jax.tree.leaves(batches)}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError("the arrays in `inner_batches` must share a leading axis: K inner steps, at least one")
    return lengths.pop()[0]


def _moving(tree):  # the leaves that have a cotangent: counts and keys become None
    return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jnp.inexact) else None, tree)


def _add(x, y, scale=1):  # x + scale y, in x's type
    return jax.tree.map(lambda x, y: (x + scale * y).astype(x.dtype), x, y)


def _result(value, grad, **info) -> Hypergradient:
    return Hypergradient(*jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), (value, grad, info)))
