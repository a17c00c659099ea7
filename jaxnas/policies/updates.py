"""Score-function updates: how a policy's parameters follow the rewards of what it drew.

References: Williams, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, Machine
Learning 8, 1992; Schulman et al., Proximal Policy Optimization Algorithms, 2017, arXiv:1707.06347.

    b <- bias-corrected moving average of the rewards;  advantage A = R - b, with R already in b

    REINFORCE   grad mean_B [sum_d log p(a_d) A  -  penalty(log p, a)]  +  c grad H
    PPO         grad mean_B sum_d min(r_d A, clip(r_d, 1 - e, 1 + e) A)  +  c grad H,    r_d = p(a_d) / p_old(a_d),
                for some epochs over the batch; p_old is the policy that drew it

Axes: B architectures of an update, D decisions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Arch, Key, State
from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber, Probability
from jaxnas.policies.policy import Action, LogProbFn, Policy, Theta
from jaxnas.trees import take


class UpdateFn(Protocol):
    def __call__(
        self, key: Key, theta: Theta, state: State, actions: Action, rewards: jax.Array, t: jax.Array, /
    ) -> tuple[Theta, State]:
        """Moves theta towards what was rewarded.

        Args:
            key: consumed.
            theta: the policy's parameters, which drew the actions.
            state: what the update before returned, or `init`.
            actions: the draws [B, ...].
            rewards: [B]; larger is better.
            t: int32[]; counts steps, for what anneals.

        Returns:
            (theta, state).
        """


class Update(NamedTuple):
    """How theta moves; the same in a black-box search and on shared weights."""

    init: Callable[[Theta], State]
    step: UpdateFn


class UpdateState(NamedTuple):
    optimizer: Any
    baseline: jax.Array  # float32[]
    weight: jax.Array  # float32[]: batches behind the baseline, discounted; 0 before the first


def _init(optimizer):
    return lambda theta: UpdateState(optimizer.init(theta), jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))


def _advantage(state, rewards, decay):
    """(A [B], state): b_n = (1 - m) / (1 - m^n) sum_i m^(n-i) mean R_i, to the last bit R when all rewards are R."""
    weight = decay * state.weight + 1
    ahead = rewards[0] - state.baseline + jnp.mean(rewards - rewards[0])
    baseline = state.baseline + ahead / weight
    return rewards - baseline, state._replace(baseline=baseline, weight=weight)


def _ascend(optimizer, gain, theta, opt_state):
    updates, opt_state = optimizer.update(jax.grad(lambda theta: -gain(theta))(theta), opt_state, theta)
    return optax.apply_updates(theta, updates), opt_state


def _log_prob(policy: Policy, baseline: float) -> LogProbFn:
    """The policy's, once it and the baseline's decay have been checked."""
    if policy.log_prob is None:
        raise ValueError("this policy has no log_prob: a score-function update needs one that draws (categorical, controller)")
    if not 0 <= baseline < 1:
        raise ValueError(f"the baseline's decay lies in [0, 1); got baseline={baseline}")
    return policy.log_prob


@checked
def reinforce(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    baseline: Probability = 0.9,
    entropy: NonNegativeNumber = 0.0,
    penalty: Callable[[jax.Array, Arch], jax.Array] | None = None,
) -> Update:
    """REINFORCE, one optimizer step a batch.

    Args:
        policy: one with a log_prob.
        optimizer: minimises; NATS-Bench uses `optax.adam(0.01)` with rewards in percent, Zoph and Le `optax.adam(6e-4)`.
        baseline: decay of the moving average, default 0.9 (NATS-Bench's).
        entropy: c, default 0 (Zoph and Le).
        penalty: (log p [D], arch) -> [], differentiable, such as ENAS's skip rate; default: none.

    Raises:
        ValueError: for a policy without log_prob, or a decay outside [0, 1).
    """
    log_prob = jax.vmap(_log_prob(policy, baseline), (None, 0))

    def step(key, theta, state, actions, rewards, t):
        del key, t  # nothing is drawn, nothing anneals
        advantage, state = _advantage(state, rewards, baseline)

        def gain(theta):
            logp, h = log_prob(theta, actions)  # [B, D]
            total = jnp.mean(logp.sum(-1) * advantage + entropy * h.sum(-1))
            return total if penalty is None else total - jnp.mean(jax.vmap(penalty)(logp, actions))

        theta, opt_state = _ascend(optimizer, gain, theta, state.optimizer)
        return theta, state._replace(optimizer=opt_state)

    return Update(_init(optimizer), step)


@checked
def ppo(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    clip: PositiveNumber = 0.2,
    epochs: Positive = 4,
    minibatches: Positive = 1,
    entropy: NonNegativeNumber = 1e-5,
    baseline: Probability = 0.95,
    per_token: bool = True,
) -> Update:
    """PPO with a clipped ratio, one return an architecture (gamma = lambda = 1).

    Args:
        policy: one with a log_prob.
        optimizer: minimises; NASNet uses `optax.adam(3.5e-4)` and batches of 20.
        clip: e, default 0.2; entropy, default 1e-5; baseline, default 0.95 (NASNet).
        epochs: passes over the batch, default 4; minibatches: optimizer steps a pass, default 1.
        per_token: one ratio a decision (the default); False: one an architecture, the product, which leaves the clip's
            range within a few steps when there are many decisions.

    Raises:
        ValueError: as `reinforce`, for a clip, epochs or minibatches out of range, and (when traced) for a batch that
            the minibatches do not divide.
    """
    log_prob = jax.vmap(_log_prob(policy, baseline), (None, 0))
    if clip <= 0 or epochs < 1 or minibatches < 1:
        raise ValueError(f"PPO needs clip > 0 and at least 1 epoch and minibatch; got {clip}, {epochs} and {minibatches}")

    def step(key, theta, state, actions, rewards, t):
        del t
        B = len(rewards)
        if B % minibatches:
            raise ValueError(f"a batch of {B} does not split into {minibatches} minibatches: choose a divisor of {B}")
        advantage, state = _advantage(state, rewards, baseline)
        old = log_prob(theta, actions)[0]  # [B, D]
        order = jnp.argsort(jax.random.uniform(key, (epochs, B)))  # a permutation an epoch

        def one(carry, rows):
            theta, opt_state = carry

            def gain(theta):
                logp, h = log_prob(theta, take(actions, rows))
                moved = logp - old[rows]  # [rows, D]
                ratio = jnp.exp(moved if per_token else moved.sum(-1, keepdims=True))
                A = advantage[rows, None]
                clipped = jnp.minimum(ratio * A, jnp.clip(ratio, 1 - clip, 1 + clip) * A)
                return jnp.mean(clipped.sum(-1) + entropy * h.sum(-1))

            return _ascend(optimizer, gain, theta, opt_state), None

        (theta, opt_state), _ = jax.lax.scan(one, (theta, state.optimizer), order.reshape(epochs * minibatches, -1))
        return theta, state._replace(optimizer=opt_state)

    return Update(_init(optimizer), step)
