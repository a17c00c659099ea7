"""BOHB: Hyperband whose new members come from a model of what was good at the largest budget known well enough.

Reference: Falkner, Klein and Hutter, BOHB: Robust and Efficient Hyperparameter Optimization at Scale, ICML 2018, arXiv:1807.01774.

    D_b <- the scores at budget b;  b <- the largest budget with |D_b| >= N_min + 2,  N_min = D + R + 1
    with probability rho, or without such a b:  a random architecture
    else  l <- density(the best N_l of D_b),  g <- density(the worst N_g),    N_l = max(N_min, gamma |D_b|),
          the argmax of l / g over C candidates drawn from l,                  N_g = max(N_min, |D_b| - N_l)
          its bandwidths times `factor`

The densities are TPE's `joint` with `normal_reference` bandwidths, without forgetting and without a prior (`jaxnas.ask_tell.tpe`).
`KernelModel` has the defaults of the authors' code.

Axes: N capacity, B trials asked for at once, C candidates, D decisions, R reals.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.ask_tell._hyperband import hyperband_plan
from jaxnas.ask_tell._tpe import joint, normal_reference, points_of
from jaxnas.ask_tell.halving import Proposer, brackets
from jaxnas.ask_tell.history import no_archs
from jaxnas.base import Arch, AskTell
from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber, Probability, Share
from jaxnas.spaces._space import Space


class KernelModel(NamedTuple):
    """The numbers of the model."""

    rho: Probability = 1 / 3  # the share of new members that are drawn at random
    candidates: Positive = 64  # C
    gamma: Share = 0.15  # the share of the scores that are good
    factor: PositiveNumber = 3.0  # of the bandwidths of what candidates are drawn from
    minimum: PositiveNumber = 1e-3  # the least bandwidth; NATS-Bench takes 0.3


PUBLISHED = KernelModel()


class ModelState(NamedTuple):
    archs: Arch  # [N, ...]: a ring, `told % N` is the oldest once it is full
    scores: jax.Array  # float32[N]
    budget: jax.Array  # int32[N]; 0: nothing yet
    told: jax.Array  # int32[]: scores so far


@checked
def bohb(
    space: Space,
    R: Positive,
    *,
    capacity: Positive,
    eta: Positive = 3,
    r: Positive = 1,
    form: str = "jmlr",
    batch: Positive = 1,
    model: KernelModel = PUBLISHED,
) -> AskTell:
    """Hyperband with a model; it asks for `Trial`s.

    Args:
        space, R, eta, r, form, batch: as in `hyperband`.
        capacity: N, the scores kept, of all budgets; beyond it the oldest is forgotten.
        model: its numbers.

    Raises:
        ValueError: as `hyperband`; for a capacity that the model needs more of, a rho outside [0, 1], no candidate, or a minimum
            outside (0, 1).
    """
    plan = hyperband_plan(R, eta, form, r)
    budgets = sorted({rung.budget for bracket in plan for rung in bracket})
    return brackets(space, plan, batch, kernel_model(space, budgets, capacity, batch, model))


def kernel_model(
    space: Space,
    budgets: Sequence[int],
    capacity: int,
    batch: int = 1,
    model: KernelModel = PUBLISHED,
) -> Proposer:
    """BOHB's proposer, for any plan whose budgets are `budgets`."""
    rho, C, gamma, factor, minimum = model
    N, B, known_budgets = capacity, batch, np.asarray(budgets, np.int32)
    cube = jax.eval_shape(lambda key: space.unit(space.sample(key)), jax.random.key(0))
    least = len(space.arity) + cube.size + 1  # N_min
    if max(least + 2, B) > N:
        raise ValueError(
            f"a model of this space needs {least + 2} scores of one budget, and room for a batch of {B}; got capacity={N}"
        )
    if not 0 <= rho <= 1 or C < 1 or not 0 < minimum < 1:
        raise ValueError(f"give rho in [0, 1], a candidate and a minimum in (0, 1); got {rho}, {C} and {minimum}")

    def wide(space, points, weight):
        lam, sigma = normal_reference(minimum)(space, points, weight)
        return jnp.minimum(factor * lam, 1 - 1 / space.arity), factor * sigma

    def init(key):
        del key  # nothing to draw
        return ModelState(no_archs(space, N), jnp.zeros(N, jnp.float32), jnp.zeros(N, jnp.int32), jnp.zeros((), jnp.int32))

    def ask(key, state):
        k_draw, k_random, k_rho = jax.random.split(key, 3)
        b, good, bad = split_at(state, known_budgets, least, gamma)
        known = points_of(space, state.archs)
        fit = lambda members, bandwidth: joint(space, known, members.astype(jnp.float32), bandwidth, prior=0.0)
        best, rest = (fit(members, normal_reference(minimum)) for members in (good, bad))
        v, u = fit(good, wide).sample(k_draw, B * C)
        on = jax.vmap(lambda v, u: space.active(space.unflat(v, u)))(v, u)
        options = jax.vmap(space.unflat)(jnp.where(on, v, 0), u)
        value = jax.vmap(lambda x: best.log_prob(x) - rest.log_prob(x))(points_of(space, options))
        at = jnp.argmax(value.reshape(B, C), -1) + C * np.arange(B)
        blind = (b == 0) | (jax.random.uniform(k_rho, (B,)) < rho)
        drawn = jax.vmap(space.sample)(jax.random.split(k_random, B))
        pick = lambda a, o: jnp.where(blind.reshape(B, *[1] * (a.ndim - 1)), a, o[at])
        return jax.tree.map(pick, drawn, options)

    def tell(state, trials, scores):
        new = trials.start < trials.stop
        to = jnp.where(new, (state.told + jnp.cumsum(new) - 1) % N, N)  # what is idle goes nowhere
        put = lambda old, new: old.at[to].set(new, mode="drop")
        return ModelState(
            archs=jax.tree.map(put, state.archs, trials.arch),
            scores=put(state.scores, scores),
            budget=put(state.budget, trials.stop),
            told=state.told + jnp.sum(new, dtype=jnp.int32),
        )

    return Proposer(init, ask, tell)


def split_at(state: ModelState, budgets: np.ndarray, least: int, gamma: float = 0.15) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(b, good [N], bad [N]): the budget of the model, 0 without one, and the observations of its two densities."""
    enough = jnp.sum(state.budget[:, None] == budgets[None], 0) >= least + 2
    b = jnp.max(jnp.where(enough, budgets, 0))
    there = (state.budget == b) & (b > 0)
    n = jnp.sum(there)
    goods = jnp.maximum(least, jnp.floor(gamma * n).astype(jnp.int32))
    score, i = jnp.where(there, state.scores, -jnp.inf), np.arange(len(state.scores))
    rank = jnp.sum((score[None] > score[:, None]) | ((score[None] == score[:, None]) & (i[None] < i[:, None])), -1)
    return b, there & (rank < goods), there & (rank >= n - jnp.maximum(least, n - goods))
