"""Training one network from scratch, itself a strategy: resumable, vmappable, scanned by the same driver.

Reference for the recipe: DARTS, arXiv:1806.09055, appendix A: SGD with momentum, a cosine to 0, gradient clip 5, an
auxiliary head weighted 0.4, and a drop-path probability that rises linearly to its final value.

Axes: B batch, K classes, N examples.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Strategy
from jaxnas.training.losses import cross_entropy
from jaxnas.trees import count, loop


class TrainState(NamedTuple):
    variables: Any
    opt_state: Any
    step: jax.Array  # int32[]


class TrainInfo(NamedTuple):
    loss: jax.Array  # [] mean training loss, the auxiliary head's share included; not finite: the run has diverged
    accuracy: jax.Array  # [] on the training batches


def train(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    image: tuple[int, int, int],
    *,
    steps: int,
    drop_path: float = 0.0,
    auxiliary_weight: float = 0.4,
    label_smoothing: float = 0.0,
    clip: float | None = 5.0,
) -> Strategy:
    """Trains `module` (see `jaxnas.nets.evaluation_net`) on `batch.train`; `best(state)` is its variables.

    Args:
        module: called as module.apply(variables, x, train=True, rate=..., rngs={"drop_path": key, "dropout": key}).
        optimizer: of the weights, decay included.
        image: (H, W, C).
        steps: the length of the run, over which the drop-path probability rises.
        drop_path: its final value; 0 turns it off.
        auxiliary_weight: of the auxiliary head's loss, where the module has one.
        label_smoothing: in [0, 1).
        clip: global norm of the gradient; None: not clipped.

    Raises:
        ValueError: for a probability outside [0, 1).
    """
    for name, value in (("drop_path", drop_path), ("label_smoothing", label_smoothing)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} is a probability below 1: got {value}")
    clipper = optax.identity() if clip is None else optax.clip_by_global_norm(clip)

    criterion = partial(cross_entropy, smoothing=label_smoothing)

    def init(key, given=None):
        variables = module.init(key, jnp.zeros((1, *image)), train=True) if given is None else given
        return TrainState(variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32))

    def weight_step(state, inputs):
        key, (x, y) = inputs
        rate = drop_path * state.step / steps if drop_path else None

        def loss(params):
            variables = {**state.variables, "params": params}
            rngs = dict(zip(("drop_path", "dropout"), jax.random.split(key), strict=True))
            outputs, new = module.apply(variables, x, train=True, rate=rate, rngs=rngs, mutable=["batch_stats"])
            logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
            value = criterion(logits, y)
            if auxiliary is not None:
                value = value + auxiliary_weight * criterion(auxiliary, y)
            return value, (new, jnp.mean((jnp.argmax(logits, -1) == y).astype(jnp.float32)))

        params = state.variables["params"]
        (value, (new, accuracy)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        grads, _ = clipper.update(grads, clipper.init(params))
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        variables = {**state.variables, **new, "params": optax.apply_updates(params, updates)}
        return TrainState(variables, opt_state, state.step + 1), TrainInfo(value, accuracy)

    def step(key, state, batch):
        keys = jax.random.split(key, count(batch.train))
        state, info = loop(weight_step, state, (keys, batch.train))
        return state, jax.tree.map(jnp.mean, info)

    return Strategy(init, step, lambda state: state.variables)


def accuracy(logits_of: Callable[[jax.Array], jax.Array], split: tuple[jax.Array, jax.Array], size: int = 256) -> jax.Array:
    """The share of `split` = (x [N, ...], y [N]) that `logits_of(x) -> [B, K]` gets right, every example once.

    The examples pass in chunks of `size`, the last one padded.
    """
    x, y = split
    n = len(y)
    size = min(size, n)
    chunks = -(-n // size)
    pad = chunks * size - n

    def in_chunks(a, fill):  # [N, ...] -> [chunks, size, ...]
        padded = jnp.concatenate([a, jnp.full((pad, *a.shape[1:]), fill, a.dtype)])
        return padded.reshape(chunks, size, *a.shape[1:])

    right_of = lambda chunk: jnp.sum(jnp.argmax(logits_of(chunk[0]), -1) == chunk[1])
    right = jax.lax.map(right_of, (in_chunks(x, 0), in_chunks(y, -1)))
    return jnp.sum(right) / n
