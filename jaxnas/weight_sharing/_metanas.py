"""MetaNAS: weights and architecture parameters from which a few steps of a search suffice for a new task.

Reference: Elsken, Staffler, Metzen and Hutter, Meta-Learning of Neural Architectures for Few-Shot Learning, CVPR 2020,
arXiv:1911.11090; the meta-update is that of Nichol, Achiam and Schulman, On First-Order Meta-Learning Algorithms (Reptile),
arXiv:1803.02999, or that of Finn, Abbeel and Levine, Model-Agnostic Meta-Learning (MAML), ICML 2017, arXiv:1703.03400.

    task i:   (w_i, alpha_i) = k steps of a search on the task's data, from (w, alpha)
    Reptile:  (w, alpha) <- optimizer((w, alpha); (w, alpha) - mean over i of (w_i, alpha_i))        no second derivatives
    MAML:     (w, alpha) <- optimizer((w, alpha); d/d(w, alpha) mean over i of L_query(w_i, alpha_i))     through the k steps

The search of a task is any of `weight_sharing`: with k = 1 and SGD Reptile's difference is a multiple of the gradient of the mean
loss over tasks.  Its temperature falls within the k steps (`soft_pruning`), so that it ends near one operation a row and what is
below a threshold can go without training anew (`prune_gates`).  With `policies.input_pairs` each node ends near one pair of its
inputs as well.  An optimizer of a task, its step and its batch statistics begin anew with every task, and are no one else's.

Published: Adam for both updates, temperature 1 -> 0.1, thresholds 0.01 in training and 0.05 in testing; weights alone in the
first half of the meta-steps (a phase whose batches have no `valid`).  Published results are Reptile's.

Axes: T tasks of a meta-batch, K steps of a task, W weight steps, A architecture steps, B batch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Batch, Key, Strategy
from jaxnas.checks import Temperature, checked
from jaxnas.kinds import NonNegativeNumber
from jaxnas.nets.base import Gates, Variables
from jaxnas.policies._softmax import softmax
from jaxnas.policies.policy import Policy, Theta, annealed
from jaxnas.spaces._space import Space
from jaxnas.trees import count, loop, take
from jaxnas.weight_sharing.base import Given


class MetaState(NamedTuple):
    variables: Any  # w in "params"; the statistics are those that every task begins with
    theta: Any  # the paper's alpha
    opt_state: Any  # of the meta-optimizer
    step: jax.Array  # int32[]


class MetaInfo(NamedTuple):
    loss: jax.Array  # [] training loss of the tasks' last steps, their mean (second order: L_query); not finite: all have diverged
    first: jax.Array  # [] that of their first steps
    failed: jax.Array  # int32[]: tasks of this step that diverged, and are left out


@checked
def soft_pruning(space: Space, temperature: Temperature, scale: NonNegativeNumber = 1e-3) -> Policy:
    """softmax(alpha / temperature): the relaxation of DARTS, whose temperature falls within a task.

    `policies.input_pairs` prunes a node's inputs in the same way.

    Args:
        space: its gates give theta its structure.
        temperature: a number or a schedule of the task's step; published: `optax.linear_schedule(1.0, 0.1, k - 1)`.
        scale: of the initial logits.

    Raises:
        ValueError: for a temperature at or below 0, or an edge of a single operation.
    """
    at, plain = annealed("temperature", temperature), softmax(space, scale)
    return plain._replace(sample=lambda key, theta, t: plain.sample(key, jax.tree.map(lambda a: a / at(t), theta), t))


def prune_gates(gates: Gates, threshold: float = 0.05) -> Gates:
    """The gates without what is below the threshold; the others stay as they are.

    A gate of `policies.input_pairs` is a product, of an edge's weight and an operation's; the authors' code holds the weight of
    each pair, and that of each operation, against the threshold.
    """
    return jax.tree.map(lambda g: jnp.where(g < threshold, 0, g), gates)


def adapt(
    key: Key, search: Strategy, variables: Variables, theta: Theta, batch: Batch, *, checkpoint: bool = False
) -> tuple[Any, Any]:
    """A task: (the search's state after K steps from (variables, theta), their infos [K]).

    Args:
        key: consumed.
        search: of `weight_sharing`.
        variables, theta: where the task begins.
        batch: of the task; each part has a leading axis K before what a step of the search takes, `fixed` excepted.
        checkpoint: for a derivative through the task: it keeps the K states, and computes what is inside each step anew.
    """
    k_init, k_steps = jax.random.split(key)
    state = search.init(k_init, Given(variables=variables, theta=theta))
    steps = batch._replace(fixed=None)
    K = jax.tree.leaves(steps)[0].shape[0]
    step = lambda state, xs: search.step(jax.random.fold_in(k_steps, xs[0]), state, xs[1]._replace(fixed=batch.fixed))
    return loop(jax.checkpoint(step, prevent_cse=False) if checkpoint else step, state, (jnp.arange(K), steps))


def query_loss(key: Key, search: Strategy, variables: Variables, theta: Theta, batch: Batch) -> tuple[jax.Array, Any]:
    """What MAML descends: (the loss of a task's end on examples that its K steps have not seen [], the steps' infos [K]).

    Args:
        key: consumed.
        search, variables, theta: as `adapt`.
        batch: of the task, [K + 1, ...]: in the last entry `valid` is the query, or `train` where there is no `valid`.
    """
    k_steps, k_query = jax.random.split(key)
    parts = batch._replace(fixed=None)
    steps, last = take(parts, slice(-1)), take(parts, -1)
    ended, infos = adapt(k_steps, search, variables, theta, steps._replace(fixed=batch.fixed), checkpoint=True)
    query = last.train if last.valid is None else last.valid  # [A, B, ...]

    def one(_, xs):  # the training loss of a step that is not taken
        return None, search.step(xs[0], ended, Batch(train=take(xs[1], None), fixed=batch.fixed))[1].loss

    return jnp.mean(loop(one, None, (jax.random.split(k_query, count(query)), query))[1]), infos


@checked
def metanas(search: Strategy, optimizer: optax.GradientTransformation, order: str = "first") -> Strategy:
    """Meta-learns the start of a search; a step takes a batch [T, K, ...] of T tasks.

    Args:
        search: of `weight_sharing`, such as one with the policy `soft_pruning(...)`; with a policy of one architecture and no
            gradient it is Reptile, or MAML.
        optimizer: of weights and theta.  In first order its gradient is the difference to the tasks' ends: SGD at rate 1 goes to
            their mean.
        order: "first" (Reptile, default) or "second" (MAML), whose batches [T, K + 1, ...] end with a query: examples of the task
            that none of its K steps sees, the last `valid`, or the last `train` in a warm-up.

    In second order the steps of the search are differentiated.  An Adam among its optimizers then needs an `eps_root` above 0,
    and each task holds K copies of the search's state.

    `init(key, given)` takes a `Given` from an earlier phase, of which `opt_state` is not used.  `adapt` applies the result
    to a task.  `best` is the architecture that a task would end with if it had no data.

    Raises:
        ValueError: for an unknown order; when traced, for a second order without a query.
    """
    if order not in ("first", "second"):
        raise ValueError(f"unknown order {order!r}: choose one of first, second")

    def init(key, given=None):
        state = search.init(key, given)
        start = {"params": state.variables["params"], "theta": state.theta}
        return MetaState(state.variables, state.theta, optimizer.init(start), jnp.zeros((), jnp.int32))

    def end(key, state, start, task):  # -> (where a task ends, its last loss, its first)
        ended, infos = adapt(key, search, state.variables, state.theta, task)
        return {"params": ended.variables["params"], "theta": ended.theta}, infos.loss[-1], infos.loss[0]

    def derivative(key, state, start, task):  # -> (d loss / d start, the loss of the query, a task's first)
        def loss(start):
            return query_loss(key, search, {**state.variables, "params": start["params"]}, start["theta"], task)

        (value, infos), grads = jax.value_and_grad(loss, has_aux=True)(start)
        return grads, value, infos.loss[0]

    def step(key, state, batch):
        tasks = batch._replace(fixed=None)
        T, K = jax.tree.leaves(tasks)[0].shape[:2]
        if order == "second" and K < 2:
            raise ValueError("a task of one batch has no query: give the second order K + 1 batches a task, the last for its loss")
        start = {"params": state.variables["params"], "theta": state.theta}
        of = end if order == "first" else derivative
        run = lambda key, task: of(key, state, start, task._replace(fixed=batch.fixed))
        found, losses, firsts = jax.vmap(run)(jax.random.split(key, T), tasks)
        finite = jnp.stack([jnp.isfinite(a).reshape(T, -1).all(1) for a in jax.tree.leaves(found)]).all(0)  # [T]
        total = jnp.sum(finite)

        def mean(a):
            on = finite.reshape(T, *[1] * (a.ndim - 1))
            return jnp.sum(jnp.where(on, a, 0), 0) / total

        away = lambda begin, a: begin - mean(a) if order == "first" else mean(a)
        grads = jax.tree.map(lambda begin, a: jnp.where(total > 0, away(begin, a), 0).astype(begin.dtype), start, found)
        updates, opt_state = optimizer.update(grads, state.opt_state, start)
        moved: Any = optax.apply_updates(start, updates)
        new = MetaState({**state.variables, "params": moved["params"]}, moved["theta"], opt_state, state.step + 1)
        return new, MetaInfo(mean(losses), mean(firsts), T - total)

    def best(state):
        key = jax.random.key(0)  # nothing is drawn: both are given
        return search.best(search.init(key, Given(variables=state.variables, theta=state.theta)))

    return Strategy(init, step, best)
