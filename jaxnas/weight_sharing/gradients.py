"""Gradients of the architecture parameters: an estimator and an optax transformation."""

import jax
import optax

from jaxnas.bilevel import Bilevel, Method, first_order
from jaxnas.policies.policy import Policy
from jaxnas.weight_sharing.weight_sharing import Gradient, Problem

none = Gradient(lambda theta: (), lambda key, theta, state, problem, t: (theta, state, {}))
"""theta does not move (single-path training before a search)."""


def pathwise(policy: Policy, optimizer: optax.GradientTransformation, method: Method | None = None) -> Gradient:
    """The gradient of the validation loss through the policy's gates, by a hypergradient method of `jaxnas.bilevel`.

        theta <- optimizer(theta, d/dtheta L_valid(w'(theta), gates(theta)))

    Args:
        policy: a relaxation.
        optimizer: moves theta.
        method: how w' follows theta: `first_order()` (the default: w' = w), `unrolled()`, `finite_difference()`,
            `neumann(...)`, `conjugate_gradient(...)`.

    Reports "loss" (validation) and "norm" (of the gradient).
    """
    method = first_order() if method is None else method

    def step(key, theta, state, problem: Problem, t):
        k_gates, k_loss = jax.random.split(key)

        def loss(theta, params, batch):  # the mean over the policy's M paths, with common random numbers
            actions = policy.sample(jax.random.clone(k_gates), theta, t)
            paths = jax.tree.leaves(actions)[0].shape[0]
            each = [
                problem.loss(params, policy.gates(jax.tree.map(lambda a: a[m], actions)), batch, jax.random.clone(k_loss))[0]
                for m in range(paths)
            ]
            return sum(each) / paths

        bilevel = Bilevel(
            outer=loss, inner=loss, update=lambda theta, grads, opt_state, params: problem.update(grads, opt_state, params)
        )
        found = method(bilevel, theta, problem.params, problem.opt_state, problem.look, problem.valid)
        updates, state = optimizer.update(found.grad, state, theta)
        info = {"loss": found.value, "norm": optax.tree.norm(found.grad)}
        return optax.apply_updates(theta, updates), state, info

    return Gradient(optimizer.init, step)
