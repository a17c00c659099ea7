"""The vocabulary of weight sharing: what a search is made of, what it carries, and what its parts see.

    theta      the architecture parameters
    action     what a policy draws by theta: an architecture, or the gates themselves
    gates      what the net sees

Axes: M paths, K look-ahead steps, B batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from jaxnas.training._criterion import CLASSES, Criterion


class Problem(NamedTuple):
    """What an architecture gradient may see: the bilevel problem at the current weights."""

    loss: Any  # (params, gates, (x, y), key) -> (loss [], (statistics, score [])); None for a joint gradient
    update: Callable  # (grads, opt_state, params) -> (params, opt_state): the weight optimizer, without the clip
    params: Any
    opt_state: Any
    look: Any  # (x, y) [K, B, ...]
    valid: Any  # (x, y) [B, ...]
    theta_grad: Any  # a joint gradient's: what the weight step's own backward pass left; None otherwise


class Gradient(NamedTuple):
    """How theta moves."""

    init: Callable  # theta -> state (of an optimizer, of a baseline)
    step: Callable  # (key, theta, state, problem, t) -> (theta, state, info {name: []})
    joint: bool = False  # single level: the weight step's sample and backward pass yield the gradient (problem.theta_grad)


class Path(NamedTuple):
    """What a loss may look at besides logits and labels."""

    number: jax.Array  # int32[]: the m-th of the M paths
    params: Any
    gates: Any
    targets: Any  # the teacher's; None without one


class Given(NamedTuple):
    """What an earlier phase hands over; None: drawn anew."""

    variables: Any = None
    opt_state: Any = None  # of the weight optimizer
    theta: Any = None
    open: Any = None  # bool, of the gates' structure: the operations that are still in the search


class WeightSharingState(NamedTuple):
    variables: Any  # {"params", "batch_stats"}
    opt_state: Any
    theta: Any
    gradient: Any
    step: jax.Array  # int32[]


class WeightSharingInfo(NamedTuple):
    loss: jax.Array  # [] mean training loss of the weight steps; not finite: the run has diverged
    score: jax.Array  # [] mean of the criterion's score on the training batches: of classes, the accuracy
    gates: Any  # the first path's gates, at the step's start
    gradient: dict  # what the gradient reports, {name: []}


class Weights(NamedTuple):
    """How the weights are trained."""

    optimizer: optax.GradientTransformation  # weight decay goes in it (`optax.add_decayed_weights` before `optax.sgd`)
    clip: float | None = 5.0  # global norm of the gradient, before the decay is added; None: not clipped
    criterion: Criterion = CLASSES  # its loss is (logits, y, path) -> [], with a `Path`
    teacher: Callable | None = None  # (variables, x, batch.fixed) -> targets: once a weight step, without a gradient
    ghost: bool = False  # each of the M paths sees its own M-th of the batch (its ghost batch), and not all of it
    perturb: Callable | None = None  # (key, gates, loss_of, t) -> the gates that the weight step sees instead (SmoothDARTS)
