"""MetaNAS: Elsken, Staffler, Metzen and Hutter, CVPR 2020, arXiv:1911.11090.  Two families of tasks that need two operations.

    python experiments/metanas.py                     sines and saw-teeth, 2 x 20 examples a task

2 busy CPU cores, 1.6 minutes: 1,500 meta-steps, 3 seeds.  The paper's setting (miniImageNet, 5 ways, 5 shots) needs an
accelerator, and was not run.

Results: docs/results.md#metanas

The families have one amplitude and variance, and no operation can stand in for another: where a sine could make up for a
saw-tooth the start drifted to sines.  Rates and units were set by hand, on the tasks of these seeds.

Reptile trains its weights on all 40 examples; MetaNAS on 20, with alpha on the other 20.

Rank quality: the three operations of each of 600 other tasks.  `shared`: what the adapted weights lose on the 20 validation
examples with this operation alone; `alpha`: as adapted.  Against the loss of 50 queries of the operation trained alone on the 40
examples, from random weights, for 500 steps, the mean of two (whose tau is 0.957).  Means over tasks, 95 % by resampling tasks:
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnas as nas
from jaxnas import Batch, nets, policies, spaces, weight_sharing
from jaxnas.analysis import ranking
from jaxnas.base import Feed
from jaxnas.weight_sharing._metanas import adapt, metanas, prune_gates, soft_pruning

K, SHOTS, QUERIES = 10, 20, 50  # steps of a task; its examples to train on, and to move alpha on; those that it is judged on
TASKS, META, TESTED, SEEDS = 8, 1500, 200, 3  # tasks of a meta-step; meta-steps; tasks that a seed is judged on
ALONE, REPEATS = 500, 2  # steps of an operation that is trained alone, and how often it is
UNITS = 16


def saw(z):
    """Of period 2 pi, from -1 to 1."""
    turns = z / (2 * jnp.pi)
    return 2 * (turns - jnp.floor(turns + 0.5))


OPS: dict[str, Callable] = {  # of one variance; none can make up for another
    "sine": lambda z: np.sqrt(2.0) * jnp.sin(z),
    "saw": lambda z: np.sqrt(3.0) * saw(2 * z),
    "tanh": jnp.tanh,
}


class Edge(NamedTuple):
    op: Any  # one of OPS


def edge_net() -> nets.Net:
    """Numbers x [B, 1] -> sum over the operations of gate * sum_j a_j op(x + p_j), [B, 1]."""
    space = spaces.space(Edge(len(OPS)))

    def init(key, gates=None):
        keys = jax.random.split(key, (len(OPS), 2))
        normal = lambda k: jax.random.normal(k, (UNITS,))
        unit = lambda k: {"a": 0.1 * normal(k[0]), "p": 3 * normal(k[1])}
        return {"params": {name: unit(k) for name, k in zip(OPS, keys, strict=True)}}

    def apply(variables, x, gates, *, train, path=False, key=None, t=None):
        params = variables["params"]
        unit = lambda f, p: p["a"] @ f(x.T + p["p"][:, None])
        return (gates.op @ jnp.stack([unit(f, params[name]) for name, f in OPS.items()]))[:, None], variables

    return nets.Net(init, apply, None, None, space, (), 1)


def task(key):
    """(its family, 0 or 1; a function to draw (x [n, 1], y [n]) of it)."""
    k_family, k_size, k_phase = jax.random.split(key, 3)
    family = jax.random.bernoulli(k_family).astype(jnp.int32)
    size, phase = jax.random.uniform(k_size, (), minval=0.5, maxval=2), jax.random.uniform(k_phase, (), maxval=2 * jnp.pi)

    def examples(key, n):
        x = jax.random.uniform(key, (n, 1), minval=-5, maxval=5)
        z = x[:, 0] + phase
        return x, size * jnp.where(family == 0, OPS["sine"](z), OPS["saw"](z))

    return family, examples


def steps(examples):
    """All of a task's examples in each of its K steps."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (K, 1, *a.shape)), examples)


def halves(examples):
    return jax.tree.map(lambda a: a[:SHOTS], examples), jax.tree.map(lambda a: a[SHOTS:], examples)


def searching(examples) -> Batch:
    train, valid = halves(examples)
    return Batch(train=steps(train), valid=steps(valid))


def fixed(examples) -> Batch:
    """Without a search all examples train the weights."""
    return Batch(train=steps(examples))


def feed(of) -> Feed:
    def one(key):
        k_task, k_examples = jax.random.split(key)
        return of(task(k_task)[1](k_examples, 2 * SHOTS))

    return Feed((), lambda key, arrays, t: jax.vmap(one)(jax.random.split(key, TASKS)))


def squared(logits, y, path=None):
    return jnp.mean(jnp.square(logits[:, 0] - y))


def nearness(logits, y):
    return -jnp.square(logits[:, 0] - y)


NET = edge_net()
WEIGHTS = weight_sharing.Weights(optax.sgd(0.03), criterion=nas.training.NUMBERS._replace(loss=squared, score=nearness))
SOFT = soft_pruning(NET.space, optax.linear_schedule(1.0, 0.1, K - 1))
SEARCH = weight_sharing.weight_sharing(NET, SOFT, weight_sharing.pathwise(SOFT, optax.sgd(1.0)), WEIGHTS)


def of_gates(gates):
    """The search that trains weights at fixed gates: with `metanas`, Reptile."""
    still = lambda key, theta, t: Edge(gates[None])
    policy = policies.Policy(
        lambda key: None, still, lambda action: action, None, lambda theta: NET.space.derive(Edge(gates)), False
    )
    return weight_sharing.weight_sharing(NET, policy, weight_sharing.frozen, WEIGHTS)


def meta_trained(key, search, of, warm_up: bool):
    """(variables, theta) [SEEDS, ...] after META steps; half of them without alpha, as published, with a warm-up."""
    strategy = metanas(search, optax.adam(0.01))
    if not warm_up:
        state = nas.run(key, strategy, steps=META, data=feed(of), seeds=SEEDS).state
        return state.variables, state.theta
    weights = feed(lambda examples: of(examples)._replace(valid=None))
    give = lambda state: weight_sharing.Given(state.variables, theta=state.theta)
    plan = nas.then(nas.Phase(strategy, META // 2, weights, name="warm-up"), nas.Phase(strategy, META // 2, feed(of), give=give))
    state = nas.run(key, plan, seeds=SEEDS).state
    return state.variables, state.theta


class Tested(NamedTuple):
    loss: jax.Array  # of the queries, with the pruned gates
    unpruned: jax.Array  # with all of them
    shift: jax.Array  # the largest difference of the two outputs, as a part of the targets' size
    right: jax.Array  # whether alpha's largest is the family's operation


def tested(key, search, of, variables, theta, gates_of) -> Tested:
    """Adapted to one new task."""
    k_task, k_examples, k_queries, k_adapt = jax.random.split(key, 4)
    family, examples = task(k_task)
    ended, _ = adapt(k_adapt, search, variables, theta, of(examples(k_examples, 2 * SHOTS)))
    x, y = examples(k_queries, QUERIES)
    gates = gates_of(ended.theta)
    all_of_them, few = (NET.apply(ended.variables, x, g, train=False)[0] for g in (gates, prune_gates(gates)))
    right = jnp.argmax(gates.op) == family
    return Tested(squared(few, y), squared(all_of_them, y), jnp.max(abs(few - all_of_them)) / jnp.max(abs(y)), right)


def judged(search, of, start, gates_of) -> Tested:
    """[SEEDS, TESTED]; the tasks are those of the seed, whatever the method."""
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(jax.random.key(1), i), TESTED))(jnp.arange(SEEDS))
    one = lambda key, variables, theta: tested(key, search, of, variables, theta, gates_of)
    return jax.jit(jax.vmap(jax.vmap(one, (0, None, None))))(keys, *start)


class Ranks(NamedTuple):
    """Of the operations of one task; larger is better."""

    shared: jax.Array  # [3] less the loss on the validation half, with the adapted weights and this operation alone
    alpha: jax.Array  # [3] as adapted
    alone: jax.Array  # [REPEATS, 3] less the loss of the queries, of the operation trained alone from its own random weights


def ranks(key, variables, theta) -> Ranks:
    """A new task's operations: what the adapted start says of them, and what they are worth."""
    k_task, k_examples, k_queries, k_adapt, k_alone = jax.random.split(key, 5)
    _, examples = task(k_task)
    seen, queries = examples(k_examples, 2 * SHOTS), examples(k_queries, QUERIES)
    ended, _ = adapt(k_adapt, SEARCH, variables, theta, searching(seen))
    score = lambda variables, op, x, y: -squared(NET.apply(variables, x, Edge(op), train=False)[0], y)

    def alone(key, op):
        step = lambda v, _: (jax.tree.map(lambda a, g: a + 0.03 * g, v, jax.grad(score)(v, op, *seen)), None)
        return score(jax.lax.scan(step, NET.init(key), length=ALONE)[0], op, *queries)

    ops = jnp.eye(len(OPS))
    truth = jax.vmap(jax.vmap(alone, (None, 0)), (0, None))(jax.random.split(k_alone, REPEATS), ops)
    return Ranks(jax.vmap(lambda op: score(ended.variables, op, *halves(seen)[1]))(ops), ended.theta.op, truth)


def ranked(name: str, start) -> None:
    """How well both scores rank a task's three operations, in the mean over tasks; intervals by resampling tasks."""
    with_keys = jax.vmap(jax.vmap(ranks, (0, None, None)))
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(jax.random.key(2), i), TESTED))(jnp.arange(SEEDS))
    found = jax.tree.map(lambda a: np.asarray(a, float).reshape(-1, *a.shape[2:]), jax.jit(with_keys)(keys, *start))
    truth, tasks = found.alone.mean(1), len(found.alone)
    order = np.random.default_rng(0).integers(0, tasks, (500, tasks))

    def show(what, statistic, scores):
        each = np.asarray([statistic(*pair) for pair in zip(scores, truth, strict=True)])
        mean = ranking.estimate(lambda values, _: values.mean(), each, each, order)
        print(f"    {what} {mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})")

    statistics = {"tau": ranking.kendall, "spearman": ranking.spearman, "regret": ranking.regret}
    for score in ("shared", "alpha"):
        print(f"{name}, {score}, {tasks} tasks:")
        for what, statistic in statistics.items():
            show(what, statistic, getattr(found, score))
    agree = np.mean([ranking.kendall(*pair) for pair in zip(found.alone[:, 0], found.alone[:, 1], strict=True)])
    print(f"    alone: less loss {truth.mean(0).round(3).tolist()}; tau of two trainings {agree:.3f}", flush=True)


def last_gates(theta):
    """Those of the lowest temperature."""
    return jax.tree.map(lambda a: a[0], SOFT.sample(jax.random.key(0), theta, K))


def main() -> None:
    key, began = jax.random.key(0), time.perf_counter()
    learned = meta_trained(key, SEARCH, searching, True)
    rows = {"MetaNAS": judged(SEARCH, searching, learned, last_gates)}
    rows["MetaNAS, no warm-up"] = judged(SEARCH, searching, meta_trained(key, SEARCH, searching, False), last_gates)
    started = jax.vmap(metanas(SEARCH, optax.sgd(1.0)).init)(jax.random.split(key, SEEDS))
    rows["no meta-training"] = judged(SEARCH, searching, (started.variables, started.theta), last_gates)
    ranked("MetaNAS", learned)
    ranked("no meta-training", (started.variables, started.theta))
    alone = dict(zip(OPS, np.eye(len(OPS), dtype=np.float32), strict=True))
    for name, gates in {**alone, "all three": np.full(3, 1 / 3, np.float32)}.items():
        search = of_gates(jnp.asarray(gates))
        at = lambda theta, gates=gates: Edge(jnp.asarray(gates))
        rows[f"Reptile, {name}"] = judged(search, fixed, meta_trained(key, search, fixed, False), at)
    reference = np.asarray(rows["MetaNAS"].loss).ravel()
    for name, row in rows.items():
        loss, gap = np.asarray(row.loss).ravel(), np.asarray(row.loss).ravel() - reference
        half = 1.96 * gap.std(ddof=1) / np.sqrt(len(gap))
        shift, right = np.asarray(row.shift), 100 * np.mean(row.right, 1)
        print(f"{name}: loss {loss.mean():.4f} (median {np.median(loss):.4f}), less MetaNAS {gap.mean():+.4f} +- {half:.4f}")
        print(f"    pruning moves {np.quantile(shift, 0.95):.4f} of the targets in 95 %, at most {shift.max():.4f}")
        print(f"    unpruned {np.mean(row.unpruned):.4f}; right {right.mean():.1f} % ({', '.join(f'{r:.1f}' for r in right)})")
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
