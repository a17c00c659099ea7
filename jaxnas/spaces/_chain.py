"""The walks of an MDP as a space: what MetaQNN's chains of layers are to every algorithm but Q-learning.

Reference: Baker, Gupta, Naik and Raskar, Designing Neural Network Architectures using Reinforcement Learning, ICLR 2017,
arXiv:1611.02167.

    a_t in legal(s_t),   s_{t+1} = next(s_t, a_t),   from s_0 = 0 until "stop", which every state allows

An architecture holds one action a step, and 0, "stop", after the end.  No tokens spell an illegal chain: `unflat` replaces
an action that is not legal where the walk stands by the last legal one listed before it, and "stop" is listed first.
So a mutation, a crossover or a draw of independent tokens may write what it likes, and the steps behind it keep their
actions as long as those remain legal.

    size  = n(0),   n(s) = sum over legal a of n(next(s, a)),   1 at the end
    index = sum over t and over legal a < a_t of n(next(s_t, a)),   the rank of the walk among all, in lexicographic order

Text form: the layers in order, as in "conv 8 3 | pool 2 2 | dense 16"; "stop" for the chain without layers.

Axes: T steps of the longest walk, S states, A actions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.spaces._metaqnn import MDP, Layers, longest_walk
from jaxnas.spaces._space import Space, space


@checked
def chain(mdp: MDP) -> Space:
    """The space of the chains of layers that an MDP allows; `space.spec` is that MDP.

    `sample` walks with a uniform legal action a step, as Q-learning explores: short chains are likelier than in a uniform
    draw of chains.  `mutate` gives exactly one step with a choice another legal action; `crossover` joins the first steps of
    one chain to the later ones of another; both repair the steps behind, as said above.  `active` are the steps at which
    there is more than one legal action.  An edit in `neighbors` that is not legal is no edit.  The probabilities of a policy
    such as `categorical` are those of tokens, not of the chains that they are repaired to: a policy gradient needs another.

    Args:
        mdp: `metaqnn(...)`, or another whose architectures are `Layers` and whose action 0 stops.

    Raises:
        ValueError: for an MDP whose walks are not `Layers`, do not all end, or may not stop everywhere.
    """
    T, (S, A) = longest_walk(mdp), mdp.legal.shape
    if mdp.arch is not Layers or mdp.meaning[:1] != (("stop",),):
        raise ValueError("a chain is a walk of `Layers` whose action 0 is ('stop',): give the MDP of `metaqnn`")
    ends = mdp.legal[:, 0] & mdp.terminal[np.where(mdp.legal[:, 0], mdp.next[:, 0], 0)]
    if not (ends | mdp.terminal).all():
        raise ValueError("a chain may stop after any layer: action 0 must be legal in every state, and end the walk")
    base = space(Layers(np.append(np.full(T - 1, A), 1)))  # the last step can only stop
    counts = walks_from(mdp)
    size, radix = counts[0], walk_ranks(mdp, counts)
    legal = np.where(mdp.terminal[:, None], False, mdp.legal)
    stay = np.where(legal, mdp.next, np.arange(S)[:, None]).astype(np.int32)
    nearest = np.maximum.accumulate(np.where(legal, np.arange(A), 0), 1).astype(np.int32)  # [S, A]: the repair
    legal, follow, nearest = map(jnp.asarray, (legal, stay, nearest))
    start = jnp.zeros((), jnp.int32)

    def walk(choose, given):
        """(actions [T], states [T]); the action in state s is choose(s, given_t)."""

        def step(s, x):
            a = choose(s, x).astype(jnp.int32)
            return follow[s, a], (a, s)

        return jax.lax.scan(step, start, given)[1]

    def greedy(rows):  # [T, A] -> arch: the legal action of the largest entry
        return Layers(walk(lambda s, row: jnp.argmax(jnp.where(legal[s], row, -jnp.inf)), rows)[0])

    def unflat(v, u=None):
        del u  # there are no reals
        return Layers(walk(lambda s, a: nearest[s, a], v)[0])

    def states(arch):  # int32[T]
        return walk(lambda s, a: a, arch.action)[1]

    def active(arch):
        return jnp.sum(legal[states(arch)], -1) > 1

    def one_of(key, among):  # bool[n] -> a uniform choice
        return jnp.argmax(jnp.where(among, jax.random.uniform(key, among.shape), -1)).astype(jnp.int32)

    def mutate(key, arch):
        k_step, k_action = jax.random.split(key)
        v, options = arch.action, legal[states(arch)]  # [T], [T, A]
        t = one_of(k_step, jnp.sum(options, -1) > 1)
        a = one_of(k_action, options[t] & (jnp.arange(A) != v[t]))
        return unflat(v.at[t].set(a))

    def crossover(key, a, b):
        both = jnp.minimum(jnp.sum(a.action > 0), jnp.sum(b.action > 0))  # layers
        cut = jax.random.randint(key, (), 1, jnp.maximum(both, 1) + 1)
        return unflat(jnp.where(jnp.arange(T) < cut, a.action, b.action))

    moved = np.repeat(np.arange(T - 1), A - 1)  # which step each neighbor changes
    shift = np.tile(np.arange(1, A), T - 1)

    def neighbors(arch):
        v, options = arch.action, legal[states(arch)]
        to = (v[moved] + shift) % A
        rows = jnp.where((moved[:, None] == np.arange(T)) & options[moved, to][:, None], to[:, None], v[None])
        return jax.vmap(unflat)(rows)

    def features(arch):
        hot = jax.nn.one_hot(arch.action, A) * active(arch)[:, None]
        return jnp.append(hot[:-1].ravel(), jnp.zeros(1))  # the last step has no choice

    def ranked():
        if radix is None:
            raise ValueError(f"this space has {size} chains: `index` needs fewer than 2**31")
        return radix

    def index(arch):
        return jnp.sum(ranked()[states(arch), arch.action])

    def from_index(i):
        rank = ranked()

        def step(carry, _):
            s, left = carry
            a = jnp.max(jnp.where(legal[s] & (rank[s] <= left), jnp.arange(A), 0))  # the last that does not exceed it
            return (follow[s, a], left - rank[s, a]), a

        return Layers(jax.lax.scan(step, (start, jnp.asarray(i, jnp.int32)), length=T)[1].astype(jnp.int32))

    def to_text(arch):
        layers = [" ".join(map(str, mdp.meaning[a])) for a in np.asarray(arch.action).tolist() if a]
        return " | ".join(layers) or "stop"

    def from_text(text):
        words, s, actions = {" ".join(map(str, action)): a for a, action in enumerate(mdp.meaning)}, 0, []
        parts = [" ".join(part.split()) for part in text.split("|")]
        for part in parts if parts != ["stop"] else []:
            a = words.get(part, 0)
            if a == 0:
                raise ValueError(f"{part!r} is not a layer of this space: write one of {', '.join(list(words)[1:])}, joined by |")
            if not mdp.legal[s, a]:
                raise ValueError(f"{part!r} is not allowed after {' | '.join(parts[: len(actions)]) or 'the image'!r}")
            actions, s = [*actions, a], mdp.next[s, a]
        return Layers(jnp.asarray(actions + [0] * (T - len(actions)), jnp.int32))

    return base._replace(
        size=size,
        unflat=unflat,
        active=active,
        sample=lambda key: greedy(jax.random.uniform(key, (T, A))),
        mutate=mutate,
        crossover=crossover,
        neighbors=neighbors,
        features=features,
        index=index,
        from_index=from_index,
        canonical=lambda arch: unflat(arch.action),
        derive=lambda soft: greedy(soft.action),
        to_text=to_text,
        from_text=from_text,
        spec=mdp,
    )


def walks_from(mdp: MDP) -> list[int]:
    """[S]: how many walks there are from each state to the end, exactly."""

    @functools.cache
    def count(s: int) -> int:
        return 1 if mdp.terminal[s] else sum(count(n) for n in mdp.next[s][mdp.legal[s]].tolist())

    return [count(s) for s in range(len(mdp.terminal))]


def walk_ranks(mdp: MDP, counts: list[int]) -> jax.Array | None:
    """int32[S, A]: the walks of a state that begin with an earlier action; None where there are 2**31 walks or more."""
    if counts[0] >= 2**31:
        return None
    reached = [n if n <= counts[0] else 0 for n in counts]  # a state that no walk reaches may have more
    branch = np.where(mdp.legal, np.asarray(reached)[mdp.next], 0)
    return jnp.asarray(np.cumsum(branch, 1) - branch, jnp.int32)
