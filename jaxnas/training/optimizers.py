"""The optimizers of the field's published settings."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.checks import Rate, checked
from jaxnas.kinds import NonNegative, NonNegativeNumber, ProbabilityBelowOne


@checked
def sgd(
    learning_rate: Rate, momentum: ProbabilityBelowOne = 0.9, weight_decay: NonNegativeNumber = 3e-4, nesterov: bool = False
) -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay (added to the gradient), as in the paper; `learning_rate` may be a schedule."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov))


@checked
def adam(
    learning_rate: Rate = 3e-4, weight_decay: NonNegativeNumber = 1e-3, eps_root: NonNegativeNumber = 0.0
) -> optax.GradientTransformation:
    """The paper's optimizer of the architecture parameters: betas (0.5, 0.999), coupled weight decay.

    With an `eps_root` above 0 its updates can be differentiated where a gradient is 0.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate, b1=0.5, b2=0.999, eps_root=eps_root))


class DecayState(NamedTuple):
    weight_decay: jax.Array  # float32[]


@checked
def adjustable_decay(weight_decay: NonNegativeNumber = 3e-4) -> optax.GradientTransformation:
    """Coupled weight decay whose factor is in its state, where a search may change it: see `adaptive_regularisation`.

    It goes before the optimizer, `optax.chain(adjustable_decay(), optax.sgd(0.025, momentum=0.9))`, in the place of `sgd`'s own.
    """

    def init(params):
        del params
        return DecayState(jnp.asarray(weight_decay, jnp.float32))

    def update(updates, state, params=None):
        return jax.tree.map(lambda g, p: g + state.weight_decay.astype(p.dtype) * p, updates, params), state

    return optax.GradientTransformation(init, update)


@checked
def delayed(optimizer: optax.GradientTransformation, steps: NonNegative) -> optax.GradientTransformation:
    """An optimizer that moves nothing, itself included, in its first `steps` updates.

    As PC-DARTS and DrNAS hold their architecture still while the weights alone are trained (15 of 50 and 10 of 50 epochs).
    """
    if not steps:
        return optimizer
    begun: Any = lambda step: step >= steps
    return optax.transforms.conditionally_mask(optimizer, begun)
