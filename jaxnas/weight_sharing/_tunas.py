"""TuNAS: REINFORCE on shared weights, with a reward that stays at the cost it is given.

Reference: Bender et al., Can Weight Sharing Outperform Random Architecture Search? An Investigation With TuNAS, CVPR 2020,
arXiv:2008.06120.

    r = accuracy_valid + beta |T(a) / T0 - 1|                       beta = -0.1; accuracy with the batch's own statistics
    theta <- adam(theta; grad log p_theta(a) (r - b))               b a moving average of the rewards, decay 0.95
    w     <- optimizer(w; grad L_train(w, a))                       the same policy draws

Before that, a phase in which theta stands still (`op_warm_up`): with odds that fall linearly from 1 to 0 a decision has all its
operations, at equal weights 1 / n, or, where it is a number of filters, the largest (the filter warm-up); otherwise it is drawn
uniformly.  What follows takes its variables:

    Phase(op_warm_up(net, weights, share=falling, full=widest(space)), n, data)
    Phase(tunas(net, weights, cost=priced(table, absolute_reward(T0))), m, data, give=lambda s: Given(s.variables, s.opt_state))

Published: rate of theta 3e-4 times batch / 256, growing tenfold over the search, Adam with b1 = 0, b2 = 0.999; both warm-ups over
the first quarter.  Spaces with filters: `jaxnas.spaces.tunas`.

Axes: M paths, O operations of a decision.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked, require_like
from jaxnas.hardware import Priced, check_priced
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.nets.base import Gates, Net, blank_gates
from jaxnas.policies._categorical import categorical
from jaxnas.policies.policy import Policy
from jaxnas.policies.updates import reinforce
from jaxnas.spaces._space import Space, is_shape
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import frozen, reinforce_gradient


@checked
def tunas(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    networks: Positive = 1,
    cost: Priced,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """Searches a supernet for the most accurate architecture at a cost.

    Args:
        net: the supernet.
        weights: the weight optimizer, default SGD with momentum at 0.025.
        architecture: default `optax.adam(3e-4, b1=0)`.
        networks: drawn a step for theta, default 1 (published: one a replica).
        cost: `hardware.priced(table, hardware.absolute_reward(T0))`.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], with a `Path`, and the score; default: of classes.

    Raises:
        ValueError: for a cost that is not priced, or as `weight_sharing`.
    """
    if cost is None:
        raise ValueError("TuNAS searches at a cost: give it `hardware.priced(table, hardware.absolute_reward(target))`")
    check_priced(cost)
    policy, many = categorical(net.space, scale=0.0), categorical(net.space, scale=0.0, paths=networks)
    update = reinforce(policy, architecture or optax.adam(3e-4, b1=0.0), baseline=0.95)
    gradient = reinforce_gradient(many, update, lambda score, gates: cost.form(score, cost.of(gates)))
    return weight_sharing(net, policy, gradient, Weights(weights or sgd(0.025), clip, criterion))


def warming(space: Space, share: Callable, full: Gates = None) -> Policy:
    """A decision is as in `full` with the odds share(t), and one value of it otherwise; theta does not exist."""
    shapes, tree = jax.tree.flatten(space.gate_shapes, is_leaf=is_shape)
    whole = [jnp.full(shape, 1 / shape[-1]) for shape in shapes] if full is None else tree.flatten_up_to(full)
    if full is None and space.open is not None:
        whole = [jnp.asarray(on / on.sum(-1, keepdims=True), jnp.float32) for on in tree.flatten_up_to(space.open)]
    D = len(space.arity)

    def sample(key, theta, t):
        del theta
        k_arch, k_open = jax.random.split(key)
        tokens = jax.random.randint(k_arch, (D,), 0, space.arity)  # also below what may be opened
        keys = jax.random.split(k_open, len(shapes))

        def row(key, gate, all):
            opened = jax.random.bernoulli(key, share(t), gate.shape[:-1])[..., None]
            return jnp.where(opened, all, gate)[None]

        one = tree.flatten_up_to(space.gates(space.unflat(tokens)))
        return tree.unflatten([row(*each) for each in zip(keys, one, whole, strict=True)])

    first = lambda theta: space.unflat(jnp.zeros(D, jnp.int32))
    return Policy(lambda key: (), sample, lambda gates: gates, None, first, False, sparse=True)


@checked
def op_warm_up(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    *,
    share: optax.Schedule,
    full: Gates = None,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """Trains the weights before theta moves.

    Args:
        net: a supernet that mixes operations.
        weights: as `tunas`.
        share: t -> the odds that a decision is full, as `optax.linear_schedule(1, 0, steps)`.
        full: gates; what full decisions hold, as `spaces.tunas.widest(space)`; default: all operations at 1 / n.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], with a `Path`, and the score; default: of classes.

    Raises:
        ValueError: for a net that mixes none.
    """
    if full is not None:
        require_like(blank_gates(net.space), full=full)
    return weight_sharing(net, warming(net.space, share, full), frozen, Weights(weights or sgd(0.025), clip, criterion))
