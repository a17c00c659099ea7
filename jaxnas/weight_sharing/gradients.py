"""Gradients of the architecture parameters: an estimator and an optax transformation.

    pathwise                d/dtheta of the validation loss through the gates, by any hypergradient of `jaxnas.training.bilevel`
    single_level            the same of the training loss, which the weight step's backward pass has left (single level)
    two_paths               ProxylessNAS's: one operation is run for its weights, one more for its gate
    reinforce_gradient      REINFORCE or PPO on rewards of sampled networks

A total(loss, gates, theta, t) -> [] turns the loss into what theta descends: costs and regularisers go there.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from jaxnas.checks import checked, described
from jaxnas.policies._categorical import options
from jaxnas.policies.policy import Policy
from jaxnas.policies.updates import Update
from jaxnas.spaces._space import Space
from jaxnas.training.bilevel import Bilevel, Method, first_order
from jaxnas.weight_sharing.base import Gradient, Problem

frozen = Gradient(lambda theta: (), lambda key, theta, state, problem, t: (theta, state, {}))
"""theta does not move (single-path training before a search)."""


def _path(actions, m):
    return jax.tree.map(lambda a: a[m], actions)


def _paths(actions) -> int:
    return jax.tree.leaves(actions)[0].shape[0]


@checked
def pathwise(
    policy: Policy, optimizer: optax.GradientTransformation, method: Method | None = None, total: Callable | None = None
) -> Gradient:
    """The gradient of the validation loss through the policy's gates, by a hypergradient method of `jaxnas.training.bilevel`.

        theta <- optimizer(theta, d/dtheta total(L_valid(w'(theta), gates(theta)), gates, theta, t))

    Args:
        policy: a relaxation.
        optimizer: moves theta.
        method: how w' follows theta: `first_order()` (the default: w' = w), `unrolled()`, `finite_difference()`,
            `neumann(...)`, `conjugate_gradient(...)`.
        total: default: the loss.

    Reports "loss" (validation, total) and "norm" (of the gradient).
    """
    method = first_order() if method is None else method
    total = (lambda loss, gates, theta, t: loss) if total is None else total

    def step(key, theta, state, problem: Problem, t):
        k_gates, k_loss = jax.random.split(key)

        def mean(of, theta, params, batch):  # over the policy's M paths, with common random numbers
            actions = policy.sample(jax.random.clone(k_gates), theta, t)
            each = []
            for m in range(_paths(actions)):
                gates = policy.gates(_path(actions, m))
                each.append(of(problem.loss(params, gates, batch, jax.random.clone(k_loss))[0], gates, theta, t))
            return jnp.asarray(sum(each)) / len(each)

        bilevel = Bilevel(
            outer=lambda theta, params, batch: mean(total, theta, params, batch),
            inner=lambda theta, params, batch: mean(lambda loss, gates, theta, t: loss, theta, params, batch),
            update=lambda theta, grads, opt_state, params: problem.update(grads, opt_state, params),
        )
        found = method(bilevel, theta, problem.params, problem.opt_state, problem.look, problem.valid)
        updates, state = optimizer.update(found.grad, state, theta)
        info = {"loss": found.value, "norm": optax.tree.norm(found.grad)}
        return optax.apply_updates(theta, updates), state, info

    return Gradient(optimizer.init, step)


@checked
def single_level(optimizer: optax.GradientTransformation, penalty: Callable | None = None) -> Gradient:
    """Single level: theta follows the training loss, in the backward pass that moves the weights.

        theta <- optimizer(theta, d/dtheta [E L_train(w, gates(theta)) + penalty(theta, t)])

    Args:
        optimizer: moves theta.
        penalty: an expected cost, in closed form; default: none.

    Reports "norm" (of the gradient).
    """

    def step(key, theta, state, problem: Problem, t):
        del key  # nothing is drawn
        grad = problem.theta_grad
        if penalty is not None:
            grad = jax.tree.map(jnp.add, grad, jax.grad(penalty)(theta, t))
        updates, state = optimizer.update(grad, state, theta)
        return optax.apply_updates(theta, updates), state, {"norm": optax.tree.norm(grad)}

    return Gradient(optimizer.init, step, joint=True)


@checked
def reinforce_gradient(policy: Policy, update: Update, reward: Callable | None = None, quality: Callable | None = None) -> Gradient:
    """The score function: M networks drawn from the policy meet one validation batch, with its own batch statistics.

    Nothing is dropped out.  What else a net keeps (a hidden state) each network finds as the weights left it, and leaves so.

    Args:
        policy: with a log_prob, and as many paths as networks are to be drawn (ProxylessNAS: 10).
        update: `policies.reinforce(...)` or `policies.ppo(...)`.
        reward: (quality [], gates) -> []; default: the quality.
        quality: (loss [], score []) -> [], of the validation batch; default: the score, of classes the accuracy.

    Reports "reward", the mean.
    """
    reward = (lambda quality, gates: quality) if reward is None else reward
    quality = (lambda loss, score: score) if quality is None else quality

    def step(key, theta, state, problem: Problem, t):
        k_sample, k_update = jax.random.split(key)
        actions = policy.sample(k_sample, theta, t)

        def one(_, m):
            gates = policy.gates(_path(actions, m))
            loss, (_, score) = problem.loss(problem.params, gates, problem.valid, None)
            return None, reward(quality(loss, score), gates)

        rewards = jax.lax.scan(one, None, jnp.arange(_paths(actions)))[1]
        theta, state = update.step(k_update, theta, state, actions, rewards, t)
        return theta, state, {"reward": jnp.mean(rewards)}

    return Gradient(update.init, step)


@checked
def two_paths(
    space: Space,
    optimizer: optax.GradientTransformation,
    gates_of: Callable,
    total: Callable | None = None,
    zero: ArrayLike | None = None,
) -> Gradient:
    """ProxylessNAS's gradient: two operations a decision, of which one is run for its weights.

        (i, j) ~ p without replacement,  q = p over the two, renormalised,  active ~ q,  g = onehot(active)
        dL/dalpha_k = sum_l dL/dg_l q_l (delta_kl - q_k),  k, l in {i, j}
        after the optimizer's step both are shifted by one number, so that the two keep their joint probability

    so that all other operations keep their probabilities, without a `total` and with an optimizer without momentum or decay.

    Args:
        space: theta is that of `policies.categorical(space)`, [D, A].
        optimizer: moves theta.
        gates_of: (index int32[D, 2], weight [D, 2]) -> gates of two paths.
        total: (loss, theta, t) -> []; the cost in closed form.  Its gradient reaches all operations; default: the loss.
        zero: int32[D], the operation that is an absent layer, or -1: while it is active its row does not move, as in the authors'
            code; default: there is none.

    Reports "loss" (total) and "norm".
    """
    legal = options(space)
    if zero is not None and (np.shape(zero) != (len(legal),) or not np.isin(zero, np.arange(-1, legal.shape[1])).all()):
        raise ValueError(f"`zero` names an operation of each of the {len(legal)} decisions, or -1; got {described(zero)}")
    zero = jnp.full(len(legal), -1) if zero is None else jnp.asarray(zero, jnp.int32)
    total = (lambda loss, theta, t: loss) if total is None else total
    rows = jnp.arange(len(legal))[:, None]

    def step(key, theta, state, problem: Problem, t):
        k_pair, k_active, k_loss = jax.random.split(key, 3)
        noisy = jnp.where(legal, theta + jax.random.gumbel(k_pair, theta.shape), -jnp.inf)
        pair = jax.lax.top_k(noisy, 2)[1]  # [D, 2]: two draws without replacement
        second = jax.random.bernoulli(k_active, jax.nn.softmax(theta[rows, pair])[:, 1])
        index = jnp.where(second[:, None], pair[:, ::-1], pair)  # the active one first
        q = jax.nn.softmax(theta[rows, index])

        def loss(weight, theta):
            value = problem.loss(problem.params, gates_of(index, weight), problem.valid, jax.random.clone(k_loss))[0]
            return total(value, jnp.where(legal, theta, -jnp.inf), t)

        first = jnp.broadcast_to(jnp.asarray([1.0, 0.0], theta.dtype), index.shape)
        value, (by_gate, grad) = jax.value_and_grad(loss, (0, 1))(first, theta)
        by_logit = q * (by_gate - jnp.sum(by_gate * q, 1, keepdims=True))
        grad = jnp.where(legal, grad, 0).at[rows, index].add(by_logit)
        grad = jnp.where((index[:, 0] == zero)[:, None], 0, grad)
        updates, state = optimizer.update(grad, state, theta)
        moved: Any = optax.apply_updates(theta, updates)
        mass = lambda theta: jax.nn.logsumexp(theta[rows, index], 1, keepdims=True)
        moved = moved.at[rows, index].add(mass(theta) - mass(moved))
        return moved, state, {"loss": value, "norm": optax.tree.norm(grad)}

    return Gradient(optimizer.init, step)
