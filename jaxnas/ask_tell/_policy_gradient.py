"""Policy-gradient search = policy x update: draw architectures, score them, move the policy towards the better ones.

References: Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv:1611.01578 (an LSTM
controller and REINFORCE); Zoph et al., Learning Transferable Architectures, CVPR 2018, arXiv:1707.07012 (PPO); Dong et al.,
NATS-Bench, TPAMI 2021, arXiv:2009.00437 (independent categoricals and REINFORCE).

    repeat:  a_1 .. a_B ~ p_theta;  R_i <- score(a_i);  theta <- update(theta, a, R)

    policy = categorical(space)
    algorithm = policy_gradient(space, policy, reinforce(policy, optax.adam(0.01)))

The answer is the best candidate ever seen.

Axes: B draws of the policy a step, M paths a draw: B * M candidates.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.base import AskTell
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.policies.policy import Policy
from jaxnas.policies.updates import Update
from jaxnas.spaces._metaqnn import MDP
from jaxnas.spaces._space import Space


class PolicyGradientState(NamedTuple):
    theta: Any
    update: Any
    step: jax.Array  # int32[]


@checked
def policy_gradient(space: Space, policy: Policy, update: Update, batch: Positive = 1) -> AskTell:
    """Asks for draws of the policy and moves it by what they score.

    Args:
        space: where to search.
        policy: over the architectures of `space`.
        update: how the policy follows the scores; made for the same policy.
        batch: B, draws a step, default 1.

    Raises:
        ValueError: for a batch below 1, a policy whose actions are not architectures of `space`, or a space of chains.
    """
    if isinstance(space.spec, MDP):  # what they draw is repaired, and its probability is another than they say
        raise ValueError("policies do not know which actions are legal in a chain: search it by evolution, or `q_learning`")
    theta = jax.eval_shape(policy.init, jax.random.key(0))
    drawn = jax.eval_shape(policy.sample, jax.random.key(0), theta, jnp.zeros((), jnp.int32))
    wanted = jax.eval_shape(space.sample, jax.random.key(0))
    if jax.tree.map(lambda a: (a.shape[1:], a.dtype), drawn) != jax.tree.map(lambda a: (a.shape, a.dtype), wanted):
        raise ValueError("this policy does not draw architectures of this space: make it from the same space, with hard choices")

    def init(key):
        theta = policy.init(key)
        return PolicyGradientState(theta, update.init(theta), jnp.zeros((), jnp.int32))

    def ask(key, state):
        drawn = jax.vmap(lambda key: policy.sample(key, state.theta, state.step))(jax.random.split(key, batch))
        return state, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), drawn)

    def tell(key, state, archs, scores):
        theta, moved = update.step(key, state.theta, state.update, archs, scores, state.step)
        return PolicyGradientState(theta, moved, state.step + 1)

    return AskTell(init, ask, tell)
