"""The portfolio: what is given comes first, then mutants of the best, with budgets before scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import ask_tell
from jaxnas.ask_tell.trial import FAILED, Trial
from jaxnas.spaces._space import space
from jaxnas.trees import take


def toy():
    return space((5, 5, 5, 5))


def run(algorithm, worth, steps):
    """Every trial, and its score."""
    ask, tell, state, seen = jax.jit(algorithm.ask), jax.jit(algorithm.tell), algorithm.init(jax.random.key(0)), []
    for t in range(steps):
        state, trials = ask(jax.random.fold_in(jax.random.key(1), t), state)
        scores = jax.vmap(worth)(trials.arch)
        flat = np.stack([np.asarray(a) for a in trials.arch], -1)  # [B, 4]
        seen += [(flat[b], int(trials.start[b]), int(trials.stop[b])) for b in range(len(scores))]
        state = tell(jax.random.key(2), state, trials, scores)
    return seen, state


def halved(space, given, batch=1, capacity=64):
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *given)
    propose = ask_tell.portfolio(space, stacked, capacity, batch)
    return ask_tell.asha(space, 3, 1, 3, capacity=capacity, batch=batch, propose=propose)


def given(space, n):
    return [space.from_index(jnp.asarray(100 * i)) for i in range(n)]


@pytest.mark.parametrize("batch", [1, 4])
def test_what_is_given_comes_first_and_in_order(batch):
    toys = toy()
    first = given(toys, 6)
    seen, _ = run(halved(toys, first, batch), lambda arch: jnp.sum(toys.flat(arch)).astype(jnp.float32), 16 // batch)
    new = [arch for arch, start, _ in seen if start == 0]
    for arch, wanted in zip(new, first, strict=False):
        np.testing.assert_array_equal(arch, np.asarray(toys.flat(wanted)))
    assert len(new) > 6 and any(start for _, start, _ in seen)


def test_mutants_are_new_and_climb():
    toys = space((5,) * 8)
    worth = lambda arch: jnp.sum(toys.flat(arch)).astype(jnp.float32)
    seen, state = run(halved(toys, given(toys, 4), capacity=128), worth, 150)
    new = [tuple(arch) for arch, start, _ in seen if start == 0]
    assert len(set(new)) == len(new)
    random = jax.vmap(worth)(jax.vmap(toys.sample)(jax.random.split(jax.random.key(4), 20 * len(new)))).reshape(20, -1)
    assert float(state.answer.score) > random.max(1).mean() + 1  # the best of as many random ones, in the mean of 20 searches


def test_scores_at_two_budgets_are_never_compared():
    toys = toy()
    propose = ask_tell.portfolio(toys, jax.tree.map(lambda *a: jnp.stack(a), *given(toys, 1)), 8, 1, parents=1, draws=1)
    state = propose.init(jax.random.key(0))

    def told(state, index, slot, start, stop, score):
        arch = jax.tree.map(lambda a: a[None], toys.from_index(jnp.asarray(index)))
        one = lambda n: jnp.asarray([n], jnp.int32)
        return propose.tell(state, Trial(arch, one(slot), one(start), one(stop)), jnp.asarray([score]))

    state = told(state, 0, 0, 0, 1, 0.5)
    state = told(state, 0, 0, 1, 3, 0.6)  # at the largest budget
    state = told(state, 624, 1, 0, 1, 0.9)  # better, but at a smaller one
    one = lambda k: toys.flat(take(propose.ask(k, state), 0))
    asked = jax.vmap(one)(jax.random.split(jax.random.key(3), 50))
    assert ((asked != 0).sum(-1) <= 3).all()  # mutants of 0-0-0-0, not of 4-4-4-4


@pytest.mark.parametrize(
    "sizes", [dict(capacity=0), dict(capacity=4, batch=0), dict(capacity=4, parents=0), dict(capacity=4, draws=0)]
)
def test_sizes_that_make_no_portfolio_are_refused(sizes):
    toys = toy()
    with pytest.raises(ValueError, match="must be a positive integer"):
        ask_tell.portfolio(toys, jax.tree.map(lambda *a: jnp.stack(a), *given(toys, 1)), **sizes)


def test_what_diverged_at_the_largest_budget_is_no_parent():
    """All that go on diverge: mutants are of what did not, a step of at most three decisions away."""
    toys = space([30] * 6)
    first = [toys.from_index(jnp.asarray(0))] + [toys.from_index(jnp.asarray(int(toys.size) - 1))] * 3
    propose = ask_tell.portfolio(toys, jax.tree.map(lambda *a: jnp.stack(a), *first), 8, 1, 1)
    state = propose.init(jax.random.key(0))
    for slot, (arch, stop, score) in enumerate(zip(first, (1, 3, 3, 1), (0.5, FAILED, FAILED, 0.1), strict=True)):
        trial = Trial(arch, *(jnp.asarray(n, jnp.int32) for n in (slot, 0, stop)))
        state = propose.tell(state, jax.tree.map(lambda a: a[None], trial), jnp.asarray([score]))
    for key in jax.random.split(jax.random.key(1), 4):
        assert 1 <= int((toys.flat(take(propose.ask(key, state), 0)) > 0).sum()) <= 3
