"""One-Shot: a supernet of all paths at once, with path dropout, so that it still works when most of them are taken away.

Reference: Bender et al., Understanding and Simplifying One-Shot Architecture Search, ICML 2018.

    path dropout    an incoming path of a node of k goes with the odds r^(1/k), rising linearly from 0 over the warm-up
    ghost batches   each has paths dropped, and norms, of its own
    L2              of the weights of paths that are there:  lambda / 2 sum of w^2

The outputs of a node's paths are added.  A candidate is scored with all other paths taken away, and with the statistics of the
batch: `evaluate.shared_weights(net, "batch")`.

Defaults: ghost batches of 32 in a batch of 1,024 as published; r is a hyper-parameter (here 0.1, a guess).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber, Probability
from jaxnas.nets.base import Gates, Net
from jaxnas.policies._path_dropout import path_dropout
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import frozen


def active_l2(net: Net, params: Any, gates: Gates) -> jax.Array:
    """1/2 sum of w^2 over the weights that the gates' paths use, []."""
    used = net.used({"params": params}, jax.lax.stop_gradient(gates))["params"]
    half = lambda w, on: 0.5 * jnp.sum(jnp.where(on > 0, jnp.square(w), 0))
    return jnp.asarray(sum(jax.tree.leaves(jax.tree.map(half, params, used))))


@checked
def one_shot(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    *,
    rate: Probability = 0.1,
    warm_up: Callable | None = None,
    ghosts: Positive = 1,
    decay: NonNegativeNumber = 0.0,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """Trains a supernet under path dropout; `best` means nothing before a search on its weights.

    Args:
        net: a supernet whose operations may all be there at once.
        weights: the weight optimizer, without a decay of its own, default SGD with momentum at 0.025.
        rate: r, the odds that a node loses all its paths once the warm-up is over.
        warm_up: t -> [0, 1], as `optax.linear_schedule(0, 1, steps)`; default: 1.
        ghosts: ghost batches in a batch, a divisor of its size.
        decay: lambda.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], with a `Path`, and the score; default: of classes.

    Raises:
        ValueError: as `policies.path_dropout` and `weight_sharing`.
    """
    policy = path_dropout(net.space, rate, warm_up, ghosts)
    weights = weights or sgd(0.025, weight_decay=0.0)

    def decayed(logits, y, path):
        value = criterion.loss(logits, y, path)
        return value + decay * active_l2(net, path.params, path.gates) if decay else value

    return weight_sharing(net, policy, frozen, Weights(weights, clip, criterion._replace(loss=decayed), ghost=ghosts > 1))
