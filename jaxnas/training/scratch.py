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

from jaxnas.base import Strategy, require_data
from jaxnas.checks import Image, checked
from jaxnas.data.pixels import Pixels, plain
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber, Precision, ProbabilityBelowOne
from jaxnas.nets.precision import with_precision
from jaxnas.training._criterion import CLASSES, Criterion, correct
from jaxnas.trees import count, loop


class TrainState(NamedTuple):
    variables: Any
    opt_state: Any
    step: jax.Array  # int32[]


class TrainInfo(NamedTuple):
    loss: jax.Array  # [] mean training loss, the auxiliary head's share included; not finite: the run has diverged
    score: jax.Array  # [] mean of the criterion's score on the training batches: of classes, the accuracy


@checked
def train(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    image: Image,
    *,
    steps: Positive,
    criterion: Criterion = CLASSES,
    drop_path: ProbabilityBelowOne = 0.0,
    auxiliary_weight: NonNegativeNumber = 0.4,
    label_smoothing: ProbabilityBelowOne = 0.0,
    clip: PositiveNumber | None = 5.0,
    precision: Precision = "float32",
) -> Strategy:
    """Trains `module` (see `jaxnas.nets.evaluation_net`) on `batch.train`; `best(state)` is its variables.

    Args:
        module: called as module.apply(variables, x, train=True, rate=..., rngs={"drop_path": key, "dropout": key}).
        optimizer: of the weights, decay included.
        image: the shape of one example: (H, W, C) of an image.
        steps: the length of the run, over which the drop-path probability rises.
        criterion: the loss and the score; default: of classes.  See `jaxnas.training.criterion`.
        drop_path: its final value; 0 turns it off.
        auxiliary_weight: of the auxiliary head's loss, where the module has one.
        label_smoothing: in [0, 1); of classes alone.
        clip: global norm of the gradient; None: not clipped.
        precision: that the module computes in, "float32" or "bfloat16"; its variables are float32 in both (see
            `jaxnas.nets.with_precision`).

    Raises:
        ValueError: for a probability outside [0, 1), an unknown precision, or, when traced, a smoothing of what is no class.
    """
    module = with_precision(module, precision)
    for name, value in (("drop_path", drop_path), ("label_smoothing", label_smoothing)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} is a probability below 1: got {value}")
    clipper = optax.identity() if clip is None else optax.clip_by_global_norm(clip)

    loss_of = partial(criterion.loss, smoothing=label_smoothing) if label_smoothing else criterion.loss

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
            value = loss_of(logits, y)
            if auxiliary is not None:
                value = value + auxiliary_weight * loss_of(auxiliary, y)
            return value, (new, jnp.mean(criterion.score(logits, y)))

        params = state.variables["params"]
        (value, (new, score)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        grads, _ = clipper.update(grads, clipper.init(params))
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        variables = {**state.variables, **new, "params": optax.apply_updates(params, updates)}
        return TrainState(variables, opt_state, state.step + 1), TrainInfo(value, score)

    def step(key, state, batch):
        require_data(batch, "train")
        keys = jax.random.split(key, count(batch.train))
        state, info = loop(weight_step, state, (keys, batch.train))
        return state, jax.tree.map(jnp.mean, info)

    return Strategy(init, step, lambda state: state.variables)


Logits = Callable[[jax.Array], jax.Array]  # x [B, ...] -> [B, K]


def _in_chunks(examples: Any, size: int) -> Any:
    """[N, ...] -> [chunks, size, ...], the last one padded with zeros; images that are bytes stay so."""

    def cut(a):
        chunks = -(-len(a) // size)
        padded = jnp.concatenate([a, jnp.zeros((chunks * size - len(a), *a.shape[1:]), a.dtype)])
        return padded.reshape(chunks, size, *a.shape[1:])

    return jax.tree.map(cut, examples)


def mean_score(
    logits_of: Logits,
    split: tuple[jax.Array, jax.Array],
    score: Callable[[jax.Array, jax.Array], jax.Array] = correct,
    size: int = 256,
) -> jax.Array:
    """The mean of a criterion's score over `split` = (x [N, ...], y [N, ...]), every example once; -> [].

    The examples pass in chunks of `size`, the last one padded.
    """
    x, y = split
    n = len(y)
    size = min(size, n)
    there = _in_chunks(jnp.ones(n, bool), size)

    def total(chunk):
        x, y, there = chunk
        return jnp.sum(jnp.where(there, score(logits_of(plain(x)), y), 0))

    return jnp.sum(jax.lax.map(total, (*_in_chunks((x, y), size), there))) / n


def accuracy(logits_of: Logits, split: tuple[jax.Array, jax.Array], size: int = 256) -> jax.Array:
    """The share of `split` = (x [N, ...], y [N]) that `logits_of(x) -> [B, K]` gets right: `mean_score` of classes."""
    return mean_score(logits_of, split, correct, size)


def outputs(logits_of: Logits, x: jax.Array | Pixels, size: int = 256) -> jax.Array:
    """The outputs [N, K] of examples x [N, ...], which pass in chunks of `size`."""
    chunks = _in_chunks(x, min(size, len(x)))
    logits = jax.lax.map(lambda chunk: logits_of(plain(chunk)), chunks)
    return logits.reshape(-1, *logits.shape[2:])[: len(x)]
