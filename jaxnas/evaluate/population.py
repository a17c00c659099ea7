"""Training a population from scratch: every candidate gets weights of its own, the same batches and the same steps.

One compiled program trains any architecture of the space: the supernet with one-hot gates.  Three ways to run it:
    "vmap"  all candidates side by side: every operation is computed for each (a `switch` under `vmap` is a select)
    "map"   one candidate at a time, only its own operations, and no further once its loss is not finite
    n       chunks of n candidates side by side
On CPU "map" wins for convolutional cells, "vmap" for small dense ones; the default is "map" there and "vmap" elsewhere.

A member's life is `start`, `advance` and `judge`; the evaluator of trials, whose members may train further later, uses the
same three (`jaxnas.evaluate.trials`).

Axes: P candidates, S training steps, B batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas import sharding
from jaxnas.ask_tell.trial import require_archs_alone
from jaxnas.base import Arch, Evaluator, Key, stateless
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.nets.base import Net
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.trees import count, take

Logits = Callable[[jax.Array], jax.Array]  # x [B, H, W, C] -> [B, K]
Score = Callable[[Logits, Any], dict[str, jax.Array]]  # (logits_of, held) -> {name: []}


class Member(NamedTuple):
    """One candidate in training."""

    variables: Any
    opt_state: Any
    losses: jax.Array  # float32[S]: of every step on its batch; NaN where it has not been
    alive: jax.Array  # bool[]: every loss was finite


def start(net: Net, optimizer: optax.GradientTransformation, key: Key, gates: Any, steps: int) -> Member:
    """A new member, with room for the losses of `steps`."""
    variables = net.init(key, gates)
    nowhere = jnp.full(steps, jnp.nan, jnp.float32)
    return Member(variables, optimizer.init(variables["params"]), nowhere, jnp.ones((), bool))


def advance(
    net: Net,
    optimizer: optax.GradientTransformation,
    member: Member,
    gates: Any,
    begin: jax.Array | int,
    end: jax.Array | int,
    batch_of: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    path: bool,
    criterion: Criterion = CLASSES,
) -> Member:
    """Trains the steps [begin, end), which may be traced, on `batch_of(t)`; with `path` alone, and until it diverges."""

    def step(t, member):
        x, y = batch_of(t)
        stats = {k: v for k, v in member.variables.items() if k != "params"}
        params = member.variables["params"]

        def loss(params):
            logits, new = net.apply({**stats, "params": params}, x, gates, train=True, path=path)
            kept = {name: new[name] for name in stats}  # and not what the net adds to the loss
            return sum(jax.tree.leaves(new.get("losses", {})), criterion.loss(logits, y)), kept

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, member.opt_state, params)
        return Member(
            variables={**new, "params": optax.apply_updates(params, updates)},
            opt_state=opt_state,
            losses=member.losses.at[t].set(value),
            alive=member.alive & jnp.isfinite(value),
        )

    going = lambda carry: (carry[0] < end) & (carry[1].alive if path else True)
    return jax.lax.while_loop(going, lambda carry: (carry[0] + 1, step(*carry)), (jnp.asarray(begin, jnp.int32), member))[1]


def judge(net: Net, member: Member, gates: Any, end: jax.Array | int, score: Score, held: Any, path: bool) -> dict[str, jax.Array]:
    """The metrics of `score` and "loss", that of step `end` - 1; NaN for a member that diverged."""
    logits_of = lambda x: net.apply(member.variables, x, gates, train=False, path=path)[0]
    metrics = {**score(logits_of, held), "loss": member.losses[end - 1]}
    return jax.tree.map(lambda m: jnp.where(member.alive, m, jnp.nan), metrics)


def each(mode: str | int | None) -> Callable[[Callable[[bool, Any], Any], Any], Any]:
    """(f, inputs [P, ...]) -> f(path, input) of each input; `path`: whether members are alone.

    None: "map" where the program is lowered for a CPU, whose `vmap` of a `switch` would run all branches, "vmap" elsewhere.

    Raises:
        ValueError: for another mode.
    """
    if mode is None:
        of = {name: each(name) for name in ("map", "vmap")}
        return lambda f, inputs: jax.lax.platform_dependent(inputs, cpu=partial(of["map"], f), default=partial(of["vmap"], f))
    if mode == "vmap":
        return lambda f, inputs: jax.vmap(partial(f, False))(inputs)
    if mode == "map":
        return lambda f, inputs: jax.lax.map(partial(f, True), inputs)
    if not (isinstance(mode, int) and mode >= 1):
        raise ValueError(f"unknown mode {mode!r}: choose 'vmap', 'map' or a chunk size")
    return lambda f, inputs: jax.lax.map(partial(f, False), inputs, batch_size=mode)


def population(
    net: Net,
    optimizer: optax.GradientTransformation,
    score: Score,
    mode: str | int | None = None,
    every: int | None = None,
    criterion: Criterion = CLASSES,
) -> Callable[[Key, Arch, Any, Any], dict[str, Any]]:
    """-> (keys [P], archs [P, ...], train, held) -> {name: [P]}: trains every candidate on `train`, then scores it on `held`.

    `train` is (x, y) of S steps, [S, B, ...].  Metrics are those of `score` and "loss", of the last training step; all are
    NaN for a candidate that diverged.

    Args:
        net: the supernet of the space.
        optimizer: of the weights.
        score: (logits_of, held) -> {name: []}, where logits_of(x [B, H, W, C]) -> [B, K] uses running statistics.
        mode: "vmap", "map" or a chunk size; default by the platform that the program is lowered for: see `each`.
        every: k, for learning curves: "losses" [P, S], NaN from where a candidate diverged, and "curves", what `score` gives after
            every k steps, {name: [P, S / k]}; default: no curves.
        criterion: whose loss is trained; default: of classes.

    Raises:
        ValueError: for another mode, or, when called, a k that does not divide S.
    """
    run = each(mode)

    def one(path, key, arch, train, held):
        gates, steps = net.space.gates(arch), count(train)
        k = steps if every is None else every
        if k < 1 or steps % k:
            raise ValueError(f"a score every so many steps must divide them: {k} does not divide {steps}")
        batch_of = lambda t: take(train, t)

        def segment(member, i):
            member = advance(net, optimizer, member, gates, i * k, (i + 1) * k, batch_of, path, criterion)
            return member, judge(net, member, gates, (i + 1) * k, score, held, path)

        begin = start(net, optimizer, key, gates, steps)
        if every is None:
            return segment(begin, 0)[1]
        member, curves = jax.lax.scan(segment, begin, jnp.arange(steps // k))
        metrics = take(curves, -1)
        return {**metrics, "losses": member.losses, "curves": {name: c for name, c in curves.items() if name != "loss"}}

    def all_of_them(keys, archs, train, held):
        return run(lambda path, inputs: one(path, inputs[0], inputs[1], train, held), sharding.constrain((keys, archs), "pop"))

    return all_of_them


def batch_score(criterion: Criterion) -> Score:
    """The score of batches [A, B, ...], all of them: {"accuracy": []} of classes."""

    def score(logits_of: Logits, valid: Any) -> dict[str, jax.Array]:
        of_batch = lambda batch: jnp.mean(criterion.score(logits_of(batch[0]), batch[1]))
        return {criterion.name: jnp.mean(jax.lax.map(of_batch, valid))}

    return score


@checked
def train_from_scratch(
    net: Net,
    optimizer: optax.GradientTransformation,
    mode: str | int | None = None,
    every: Positive | None = None,
    criterion: Criterion = CLASSES,
) -> Evaluator:
    """The evaluator that trains each candidate on `batch.train` ([S, B, ...]: S steps) and scores it on `batch.valid`.

    Metrics: the criterion's, "accuracy" of classes, on the validation batches ([A, B, ...], all of them) with running statistics,
    and "loss", of the last training step; with `every`, learning curves.  A candidate that diverges scores NaN, and only loses.

    Args:
        net, optimizer, mode, every, criterion: as in `population`.

    Raises:
        ValueError: as `population`.
    """
    train = population(net, optimizer, batch_score(criterion), mode, every, criterion)

    def evaluate(key, archs, batch):
        require_archs_alone(archs)
        keys = jax.random.split(key, count(archs))
        return train(keys, archs, batch.train, batch.valid)

    return stateless(evaluate)
