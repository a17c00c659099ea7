"""MetaQNN: tabular Q-learning of the sequence of choices that makes an architecture, with experience replay.

Reference: Baker, Gupta, Naik and Raskar, Designing Neural Network Architectures using Reinforcement Learning, ICLR 2017,
arXiv:1611.02167; numbers are those of the authors' CIFAR-10 configuration.

    ask    walk from state 0: with odds epsilon a uniform legal action, else argmax_a Q(s, a), ties at random
    tell   store the trajectory, unless it is known;  then 128 times: draw a stored one, and from its last transition back
           Q(s, a) <- (1 - alpha) Q(s, a) + alpha (r + max_a' Q(s', a')),    r = the score at the end, else 0

The updates follow one another, so that a reward runs down a whole trajectory at once.  alpha = 0.01, no discount, Q starts
at 0.5: scores are accuracies in [0, 1].  epsilon falls with the number of different models, not with the steps: one asked
for again is not counted and keeps its first score, but is a step of replay.  The answer is the best candidate ever seen.

Axes: S states, A actions, T steps of the longest walk, N stored trajectories, B candidates asked for at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import AskTell
from jaxnas.checks import checked
from jaxnas.kinds import Positive, Probability, Share
from jaxnas.spaces._metaqnn import MDP, longest_walk
from jaxnas.spaces._space import Space

SCHEDULE = ((1.0, 1500), (0.9, 100), (0.8, 100), (0.7, 100), *((e / 10, 150) for e in range(6, 0, -1)))  # 2,700 models


class QLearningState(NamedTuple):
    q: jax.Array  # float32[rows, A]; -inf where illegal, 0 at the end
    states: jax.Array  # int32[N, T + 1]: the stored trajectories, a ring
    actions: jax.Array  # int32[N, T]
    scores: jax.Array  # float32[N]
    models: jax.Array  # int32[]: different ones told so far


@checked
def q_learning(
    mdp: MDP,
    schedule: tuple[tuple[Probability, Positive], ...] = SCHEDULE,
    replay: Positive = 128,
    alpha: Share = 0.01,
    initial: float = 0.5,
    batch: Positive = 1,
) -> AskTell:
    """Q-learning of a walk.

    Args:
        mdp: `mdp_of(space)`, `metaqnn()` (that of `chain(metaqnn())`), or your own.
        schedule: (epsilon, number of different models) one after another; the last epsilon stays.  N is their sum.  Scale
            it to the budget and the space: the default explores blindly for its first 1,500 models.
        replay: trajectories replayed a candidate, default 128.
        alpha: learning rate; the published 0.01 needs thousands of models before Q says much, 0.3 learns from 150.
        initial: Q of a legal action before its first update.
        batch: B, default 1; candidates of one batch are walked with one Q, and told one after another.

    Raises:
        ValueError: for numbers out of range, or an MDP with a cycle or a state that has no legal action.
    """
    if replay < 1 or batch < 1 or not 0 < alpha <= 1:
        raise ValueError(f"Q-learning needs replay and batch of at least 1 and alpha in (0, 1]; got {replay}, {batch} and {alpha}")
    if not schedule or any(not 0 <= epsilon <= 1 or models < 1 for epsilon, models in schedule):
        raise ValueError(f"a schedule is pairs (epsilon in [0, 1], at least 1 model); got {schedule}")
    T, (S, A), N = longest_walk(mdp), mdp.legal.shape, sum(models for _, models in schedule)
    _, first, row = np.unique(np.arange(S) if mdp.row is None else mdp.row, return_index=True, return_inverse=True)
    if (mdp.legal != mdp.legal[first[row]]).any() or (mdp.terminal != mdp.terminal[first[row]]).any():
        raise ValueError("states that share a row of Q must share their legal actions, and whether they are terminal")
    start = np.where(mdp.legal, initial, np.where(mdp.terminal[:, None], 0, -np.inf))[first]
    epsilons = jnp.asarray([epsilon for epsilon, _ in schedule], jnp.float32)
    until = np.cumsum([models for _, models in schedule])[:-1]
    follow = np.where(mdp.terminal[:, None], np.arange(S)[:, None], mdp.next).astype(np.int32)  # the end is where a walk stays
    legal, follow, terminal, row = map(jnp.asarray, (mdp.legal, follow, mdp.terminal, row))

    def init(key):
        del key  # nothing to draw
        return QLearningState(
            q=jnp.asarray(start, jnp.float32),
            states=jnp.zeros((N, T + 1), jnp.int32),
            actions=jnp.zeros((N, T), jnp.int32),
            scores=jnp.zeros(N, jnp.float32),
            models=jnp.zeros((), jnp.int32),
        )

    def walk(choose, given):
        """(states [T + 1], actions [T]); the action in state s is choose(s, given_t)."""

        def step(s, x):
            a = choose(s, x)
            return follow[s, a], (s, a)

        end, (states, actions) = jax.lax.scan(step, jnp.zeros((), jnp.int32), given)
        return jnp.append(states, end), actions

    def ask(key, state):
        epsilon = epsilons[jnp.sum(state.models >= until)]

        def choose(s, u):  # u [A + 1]
            q = state.q[row[s]]
            among = legal[s] & ((u[A] < epsilon) | (q == jnp.max(q)))
            return jnp.argmax(jnp.where(among, u[:A], -1)).astype(jnp.int32)

        u = jax.random.uniform(key, (batch, T, A + 1))
        return state, jax.vmap(lambda u: mdp.arch(walk(choose, u)[1]))(u)

    def tell(key, state, archs, scores):
        def one(state, told):
            b, arch, score = told
            states, actions = walk(lambda s, a: a, mdp.actions(arch))
            known = jnp.any(jnp.all(state.actions == actions[None], -1) & (jnp.arange(N) < state.models))
            slot = jnp.where(known, N, state.models % N)  # N: nowhere
            state = state._replace(
                states=state.states.at[slot].set(states, mode="drop"),
                actions=state.actions.at[slot].set(actions, mode="drop"),
                scores=state.scores.at[slot].set(score, mode="drop"),
                models=state.models + ~known,
            )
            drawn = jax.random.randint(jax.random.fold_in(key, b), (replay,), 0, jnp.minimum(state.models, N))
            s, to = state.states[drawn, :-1], state.states[drawn, 1:]  # [replay, T]
            reward = jnp.where(terminal[to] & ~terminal[s], state.scores[drawn, None], 0)
            steps = (row[s], state.actions[drawn], row[to], reward)  # past the end, Q is 0 and stays it
            steps = jax.tree.map(lambda a: a[:, ::-1].ravel(), steps)  # each trajectory from its end
            return state._replace(q=jax.lax.scan(update, state.q, steps)[0]), None

        return jax.lax.scan(one, state, (jnp.arange(batch), archs, scores))[0]

    def update(q, step):
        s, a, to, reward = step
        return q.at[s, a].add(alpha * (reward + jnp.max(q[to]) - q[s, a])), None

    return AskTell(init, ask, tell)


@checked
def mdp_of(space: Space) -> MDP:
    """The MDP of a space of chains, and any other discrete space as a walk through its decisions.

    A state of such a walk is the position and the last value, not the whole prefix.  So Q knows how two decisions that follow
    one another go together, and no more: the prefix would make a state of every architecture.  Inactive decisions are walked
    too; the trajectory that is stored has them at 0.

    Raises:
        ValueError: for a space with real dimensions.
    """
    if isinstance(space.spec, MDP):
        return space.spec
    if space.reals is not None:
        raise ValueError("this space has real dimensions: Q-learning walks through decisions only")
    D, A = len(space.arity), int(space.arity.max())
    position = np.concatenate([[0], np.repeat(np.arange(1, D), A), [D]])  # of the states (0), (d, v), (end)
    end = len(position) - 1
    to = np.where(position < D - 1, 1 + position * A, end)[:, None] + np.arange(A) * (position < D - 1)[:, None]
    return MDP(
        legal=np.arange(A) < np.append(space.arity, 0)[position][:, None],
        next=to,
        terminal=position == D,
        arch=lambda v: space.unflat(jnp.where(space.active(space.unflat(v)), v, 0)),
        actions=space.flat,
    )
