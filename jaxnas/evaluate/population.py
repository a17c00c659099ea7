"""Training a population from scratch: every candidate gets weights of its own, the same batches and the same steps.

One compiled program trains any architecture of the space: the supernet with one-hot gates.  Three ways to run it:
    "vmap"  all candidates side by side: every operation is computed for each (a `switch` under `vmap` is a select)
    "map"   one candidate at a time, and only its own operations
    n       chunks of n candidates side by side
On CPU "map" wins for convolutional cells, "vmap" for small dense ones; the default is "map" there and "vmap" elsewhere.

Axes: P candidates, S training steps, B batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxnas import sharding
from jaxnas.base import Evaluator, stateless
from jaxnas.nets.net import Net
from jaxnas.weight_sharing.weight_sharing import cross_entropy


def population(net: Net, optimizer: optax.GradientTransformation, score: Callable, mode: str | int | None = None) -> Callable:
    """-> (keys [P], archs [P, ...], train, held) -> {name: [P]}: trains every candidate on `train`, then scores it on `held`.

    `train` is (x, y) of S steps, [S, B, ...].  Metrics are those of `score` and "loss", of the last training step; all are
    NaN for a candidate that diverged.

    Args:
        net: the supernet of the space.
        optimizer: of the weights.
        score: (logits_of, held) -> {name: []}, where logits_of(x [B, H, W, C]) -> [B, K] uses running statistics.
        mode: "vmap", "map" or a chunk size; default by backend.

    Raises:
        ValueError: for another mode.
    """
    if mode is None:
        mode = "map" if jax.default_backend() == "cpu" else "vmap"
    if mode not in ("vmap", "map") and not (isinstance(mode, int) and mode >= 1):
        raise ValueError(f"unknown mode {mode!r}: choose 'vmap', 'map' or a chunk size")
    path = mode == "map"

    def one(key, arch, train, held):
        gates = net.space.gates(arch)
        variables = net.init(key, gates)

        def step(carry, batch):
            variables, opt_state = carry
            x, y = batch
            stats = {k: v for k, v in variables.items() if k != "params"}

            def loss(params):
                logits, new = net.apply({**stats, "params": params}, x, gates, train=True, path=path)
                return cross_entropy(logits, y), new

            (value, new), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
            updates, opt_state = optimizer.update(grads, opt_state, variables["params"])
            return ({**new, "params": optax.apply_updates(variables["params"], updates)}, opt_state), value

        (variables, _), losses = jax.lax.scan(step, (variables, optimizer.init(variables["params"])), train)
        metrics = {**score(lambda x: net.apply(variables, x, gates, train=False, path=path)[0], held), "loss": losses[-1]}
        return jax.tree.map(lambda m: jnp.where(jnp.isfinite(losses[-1]), m, jnp.nan), metrics)

    def all_of_them(keys, archs, train, held):
        inputs = sharding.constrain((keys, archs), "pop")
        run = lambda inputs: one(*inputs, train, held)
        if mode == "vmap":
            return jax.vmap(run)(inputs)
        return jax.lax.map(run, inputs, batch_size=None if path else mode)

    return all_of_them


def train_from_scratch(net: Net, optimizer: optax.GradientTransformation, mode: str | int | None = None) -> Evaluator:
    """The evaluator that trains each candidate on `batch.train` ([S, B, ...]: S steps) and scores it on `batch.valid`.

    Metrics: "accuracy" on the validation batches ([A, B, ...], all of them) with running statistics, and "loss", of the last
    training step.  A candidate that diverges scores NaN, and only loses.

    Args:
        net, optimizer, mode: as in `population`.

    Raises:
        ValueError: for another mode.
    """

    def score(logits_of, valid):
        right = lambda batch: jnp.mean((jnp.argmax(logits_of(batch[0]), -1) == batch[1]).astype(jnp.float32))
        return {"accuracy": jnp.mean(jax.lax.map(right, valid))}

    train = population(net, optimizer, score, mode)

    def evaluate(key, archs, batch):
        keys = jax.random.split(key, jax.tree.leaves(archs)[0].shape[0])
        return train(keys, archs, batch.train, batch.valid)

    return stateless(evaluate)
