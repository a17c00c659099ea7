"""SNAS: concrete samples, one level, and an expected cost.

Reference: Xie, Zheng, Liu and Lin, SNAS: Stochastic Neural Architecture Search, ICLR 2019, arXiv:1812.09926, eq. 7-9.

    min over w and alpha of  E_{Z ~ concrete(alpha, lambda)} L_train(w, Z) + eta E_{Z ~ softmax(alpha)} C(Z)

w and alpha move on one training batch and one backward pass.  C is linear in Z, so its expectation needs no sample.
The child is the argmax of alpha on every edge, over all operations: where `none` wins, there is no edge (`child`).
"""

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Arch, Strategy
from jaxnas.checks import Temperature, checked
from jaxnas.hardware import Priced, check_priced, is_additive
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.nets.base import Gates, Net
from jaxnas.policies._concrete import concrete
from jaxnas.policies.policy import softmax_rows
from jaxnas.spaces._space import Space
from jaxnas.spaces.cell import CellSpec
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import adam, sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import single_level


def child(space: Space, gates: Gates) -> Arch:
    """The architecture of probabilities [E, O], by the argmax of each edge over all operations, `none` among them.

    A NAS-Bench-201 cell says it as it is.  Other cells keep a fixed number of inputs a node and hold no `none`: two in DARTS's, one
    in a recurrent cell.  There the edges on which `none` does not win come first, the strongest before the others; only a node
    that has too few of them is filled up, with the strongest real operations of edges that the paper's child would not have.
    """
    if not isinstance(space.spec, CellSpec) or "none" not in space.spec.ops:
        return space.derive(gates)
    none = space.spec.ops.index("none")
    last = lambda rows: rows - (jnp.argmax(rows, -1) == none)[:, None]  # behind every probability
    return space.derive(jax.tree.map(last, gates))


@checked
def snas(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    temperature: Temperature,
    paths: Positive = 1,
    cost: Priced | None = None,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The SNAS search; its batches need no validation part.  It answers with the `child` of softmax(alpha).

    Args:
        net: a supernet.
        weights: default `sgd(0.025)`.
        architecture: default `adam()`, as DARTS's.
        temperature: lambda, a schedule of the step or a number; published: linear from 1 to 0.03.
        paths: samples of Z to one step; default 1, as published.
        cost: C, linear in the gates, in a form that adds it: `hardware.priced(table, hardware.additive(eta))`; default: none.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], of weights and theta, and the score; default: of classes.

    Raises:
        ValueError: for a temperature at or below 0, or a cost that is not priced, or is not added.
    """
    check_priced(cost)
    if cost is not None and not is_additive(cost.form):
        raise ValueError("SNAS adds the expected cost to the loss: give `cost` a form that does, as `hardware.additive(eta)`")
    policy = concrete(net.space, temperature, paths=paths)
    policy = policy._replace(derive=lambda theta: child(net.space, softmax_rows(theta)))
    penalty = None if cost is None else lambda theta, t: cost.form(jnp.zeros(()), cost.of(softmax_rows(theta)))
    gradient = single_level(architecture or adam(), penalty)
    return weight_sharing(net, policy, gradient, Weights(weights or sgd(0.025), clip, criterion))
