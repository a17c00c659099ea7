"""ProxylessNAS: binary gates on a layer-wise space, one path in memory, and the device's latency in the loss.

Reference: Cai, Zhu and Han, ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019,
arXiv:1812.00332, eq. 2-8.

    weights       the path g ~ onehot(Categorical(softmax(alpha))) alone is run and moves
    alpha         two paths (`gradients.two_paths`), or REINFORCE on 10 networks (`gradients.reinforce_gradient`)
    E[latency]    = base + sum_l sum_o softmax(alpha_l)_o F(l, o), in closed form

The published cadence is one architecture step in five weight steps, after 40 epochs of weight steps alone: the first is an
axis of the batch (`data.batches(..., weight_steps=5)`), the second a phase without validation batches.
"""

import jax
import numpy as np
import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.hardware import Priced, check_priced
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.nets.mobile_ops import Paths
from jaxnas.policies._categorical import categorical
from jaxnas.policies.updates import reinforce
from jaxnas.spaces._mobile import NONE, MobileSpec
from jaxnas.spaces._space import Space
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import reinforce_gradient, two_paths


def _check(space: Space):
    if not isinstance(space.spec, MobileSpec):
        raise ValueError("ProxylessNAS searches a mobile space: give a net of `spaces.proxylessnas()` or `spaces.mobile`")
    if (space.arity < 2).any():
        raise ValueError("a layer of this `space` has a single operation: give at least two to choose from")


@checked
def proxylessnas(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    cost: Priced | None = None,
    clip: PositiveNumber | None = None,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The gradient version, with two paths.

    Args:
        net: of a mobile space.
        weights: default `sgd(0.025, weight_decay=4e-5)`.
        architecture: default `optax.adam(1e-3, b1=0)`.
        cost: linear in the gates, as `hardware.priced(table, hardware.proxyless_product(...))` or with
            `hardware.relative_excess(...)`; default: none.
        clip: global norm of the weights' gradient; default: not, as published.
        criterion: the loss (logits, y, path) -> [], of weights and theta, and the score; default: of classes (published: label
            smoothing 0.1).

    Raises:
        ValueError: for another space, a layer of a single operation, or a cost that is not priced.
    """
    space = net.space
    _check(space)
    check_priced(cost)
    tree = jax.tree.structure(space.decisions)

    def gates_of(index, weight):
        return tree.unflatten([Paths(index[d], weight[d]) for d in range(len(space.arity))])

    def total(cost: Priced, value, theta):
        rows = [jax.nn.softmax(theta[d, :n]) for d, n in enumerate(space.arity)]
        return cost.form(value, cost.of(tree.unflatten(rows)))

    priced = None if cost is None else lambda value, theta, t: total(cost, value, theta)
    absent = [next((k for k, op in enumerate(layer.ops) if op in NONE), -1) for layer in space.spec.layers]
    architecture = architecture or optax.adam(1e-3, b1=0.0)
    gradient = two_paths(space, architecture, gates_of, priced, np.asarray(absent))
    weights = weights or sgd(0.025, weight_decay=4e-5)
    return weight_sharing(net, categorical(space), gradient, Weights(weights, clip, criterion))


@checked
def proxylessnas_reinforce(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    networks: Positive = 10,
    cost: Priced | None = None,
    clip: PositiveNumber | None = None,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The REINFORCE version: the reward is accuracy * (reference / cost)^0.1, of `networks` draws an update.

    Args:
        net, weights, architecture, clip, criterion: as `proxylessnas`.
        networks: drawn an update, default 10.
        cost: of one network, as `hardware.priced(table, hardware.power_reward(reference))`; default: none.

    Raises:
        ValueError: for another space, a layer of a single operation, fewer than 1 network, or a cost that is not priced.
    """
    _check(net.space)
    check_priced(cost)
    many = categorical(net.space, paths=networks)
    reward = None if cost is None else lambda score, gates: cost.form(score, cost.of(gates))
    update = reinforce(many, architecture or optax.adam(1e-3, b1=0.0), baseline=0.01)  # b += 0.99 (mean - b), as published
    gradient = reinforce_gradient(many, update, reward)
    weights = weights or sgd(0.025, weight_decay=4e-5)
    return weight_sharing(net, categorical(net.space), gradient, Weights(weights, clip, criterion))
