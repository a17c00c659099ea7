"""ENAS: an LSTM controller draws the networks that share one set of weights, and learns from what they score with it.

Reference: Pham, Guan, Zoph, Le and Dean, Efficient Neural Architecture Search via Parameter Sharing, ICML 2018, arXiv:1802.03268;
the numbers are those of the authors' scripts.

    w       <- sgd(w; grad L_train(w, a)),  a ~ pi_theta: one network, drawn anew for every batch
    theta   <- adam(theta; mean over M networks of grad log pi(a) (R - b)  +  c grad H  -  weight grad KL)
    R       the quality of a on one validation batch, with that batch's statistics and nothing dropped out: its accuracy, or of a
            recurrent cell 80 / perplexity = 80 / exp(min(mean loss, 10));  b moves by 0.99 at each network
    KL      mean over layers of sum over a layer's skip bits of  p log(p / 0.4) + (1 - p) log((1 - p) / 0.6)         (macro)

    answer  the best of 10 networks on one validation batch (`final_choice`), trained from scratch

|  | tanh constant | temperature | M | rate | c | decay of w | batch | epochs | theta's steps an epoch |
|---|---|---|---|---|---|---|---|---|---|
| macro | 1.5 | 1 | 20 | 1e-3 | 1e-4 | 5e-4 | 128 | 310 | 50 |
| micro | 1.1; 0.44 of operations | 1 | 10 | 3.5e-3 | 1e-4 | 2e-4 | 160 | 150 | 30 |
| rnn, other | 2.5 | 5 | 10 | 1e-3 | 1e-3 | 2e-7 | 20 | 100 | 100 |

LSTM: one layer of 64 units (rnn: 100), U(-0.1, 0.1), one head for all operations; for cells it is `block_controller`, which
points at states and favours separable convolutions.  Weights: Nesterov's momentum, `warm_restarts` (rnn: plain SGD at 0.25, from
the 12th epoch 0.95 of it each, clip 10, of losses summed over a window).  The decay is twice the published factor of |w|^2, and
only what was drawn decays.  Steps of theta may be spread among those of w (`data.batches(..., weight_steps=7)`: 351 batches, 50
steps) or come after all of an epoch's.

Not as published: M networks meet one validation batch, whose statistics they use (the released code: the running ones), and the
baseline moves once, by 0.99^M; the entropy is differentiated, not a part of the reward; KL of the bit's own probability p, not of
the two sigmoids of its logits.  Of recurrent cells: a node has a head for the nodes it may read, not attention over them, and
their logits are not lowered by a sixth of the distance squared; the first node is a tanh, and norms, of other places, have an
epsilon of 1e-5 and not 1.

Recurrent cells: the net is `language_model(space, ..., beta=0, private=True, loose_ends=True)`; beta, since the loss that is
rewarded has the net's regulariser in it.  As published each of the M networks starts from a hidden state of zeros and leaves none
(every validation window is a `first` in `data.text.bptt`), and the weights go on from the state that the cell drawn before has
left.  There it is also set back to zeros after each epoch, and a validation window may start anywhere.

Axes: D decisions, M networks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber, Probability
from jaxnas.nets.base import Net
from jaxnas.policies._block_controller import block_controller
from jaxnas.policies._controller import controller
from jaxnas.policies.policy import Policy
from jaxnas.policies.updates import reinforce
from jaxnas.spaces._darts_rnn import RNNCell
from jaxnas.spaces._layerwise import LayerSpec, anchors, kind
from jaxnas.spaces._space import Space
from jaxnas.spaces.blocks import TwoCells
from jaxnas.spaces.enas import MacroSpec
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing.base import Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import reinforce_gradient

BASELINE = 0.99


class Published(NamedTuple):
    tanh: float
    reduce: float  # the tanh constant of operations is divided by it
    temperature: float
    networks: int  # M
    rate: float  # Adam's
    entropy: float  # c
    decay: float  # of the weights


MACRO = Published(1.5, 1.0, 1.0, 20, 1e-3, 1e-4, 5e-4)
MICRO = Published(1.1, 2.5, 1.0, 10, 3.5e-3, 1e-4, 2e-4)
OTHER = Published(2.5, 1.0, 5.0, 10, 1e-3, 1e-3, 2e-7)


def perplexity(loss: jax.Array, score: jax.Array) -> jax.Array:
    """80 / perplexity, a `quality`; a loss of more than 10, or one that is not a number, counts as 10."""
    del score
    return 80 * jnp.exp(-jnp.where(loss < 10, loss, 10.0))


def _is_chain(space: Space) -> bool:
    return isinstance(space.spec, MacroSpec | LayerSpec)


def published(space: Space) -> Published:
    """The numbers for a space: of layers with skips, of two cells of blocks, or of something else."""
    return MACRO if _is_chain(space) else MICRO if isinstance(space.decisions, TwoCells) else OTHER


def sampler(space: Space, paths: int = 1, hidden: int = 64) -> Policy:
    """ENAS's controller of a space.

    Args:
        space: decisions only.
        paths: M, networks a draw.
        hidden: units of the LSTM.

    Raises:
        ValueError: as `controller`.
    """
    row = published(space)
    options: dict[str, Any] = dict(scale=0.1, temperature=row.temperature, tanh=row.tanh, paths=paths)
    if _is_chain(space):
        options |= dict(kind=kind(space), anchors=anchors(space))
    elif row is MICRO:
        return block_controller(space, hidden, 1, op_tanh=row.tanh / row.reduce, **options)
    return controller(space, hidden, 1, **options)


@checked
def skip_rate(space: Space, target: Probability = 0.4, weight: NonNegativeNumber = 0.8) -> Callable:
    """(log p [D], arch) -> []: the KL divergence of the skip bits from Bernoulli(target); a `penalty` of `reinforce`.

    Args:
        space: of layers with skip bits, at least two of them.
        target: the share of skips aimed at.
        weight: of the divergence, the mean over layers of the sum over a layer's bits.

    Raises:
        ValueError: for a space without skip bits, or a target outside (0, 1).
    """
    bits = np.flatnonzero(anchors(space) >= 0) if _is_chain(space) else np.zeros(0, int)
    if not len(bits) or not 0 < target < 1:
        raise ValueError(f"a skip rate in (0, 1) needs a space of layers with skip bits; got {target} and {len(bits)} bits")
    layers = sum(layer.skip is not None for layer in space.decisions)

    def penalty(logp, arch):
        logp, on = logp[bits], space.flat(arch)[bits] == 1
        other = jnp.maximum(-jnp.expm1(logp), jnp.finfo(logp.dtype).tiny)  # p of the value that was not drawn
        aim = jnp.where(on, target, 1 - target)
        kl = jnp.exp(logp) * (logp - jnp.log(aim)) + other * (jnp.log(other) - jnp.log(1 - aim))
        return weight * jnp.sum(kl) / layers

    return penalty


@checked
def enas(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    architecture: optax.GradientTransformation | None = None,
    *,
    networks: Positive | None = None,
    hidden: Positive = 64,
    update: Callable | None = None,
    quality: Callable | None = None,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The ENAS search; its `best` is the controller's greedy network, the published answer is `final_choice`.

    Args:
        net: a supernet: `macro_net` of `enas_macro`, `cell_net` of `enas_micro`, `language_model` of `enas_rnn`, or another.
        weights: default `sgd(0.05)` with Nesterov's momentum and the space's decay; published: `warm_restarts` of the rate.
        architecture: of the controller; default Adam at the space's rate.
        networks: M; default: the space's.
        hidden: units of the LSTM, default 64 (published for recurrent cells: 100).
        update: policy of M paths -> `Update` of theta, in place of `architecture`; default: REINFORCE with the numbers above, and
            the skip rate where there are skips.
        quality: (loss, score) -> [], what is rewarded; default: `perplexity` for recurrent cells, the score for others.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], with a `Path`, and the score; default: of classes.

    Raises:
        ValueError: for a space with real dimensions, sizes below 1, or both `architecture` and `update`.
    """
    if architecture is not None and update is not None:
        raise ValueError("an `update` has an optimizer of its own: give it, or `architecture`, and not both")
    space = net.space
    if quality is None and isinstance(space.decisions, RNNCell):
        quality = perplexity
    row = published(space)
    networks = row.networks if networks is None else networks
    many = sampler(space, networks, hidden)
    weights = weights or sgd(0.05, weight_decay=row.decay, nesterov=True)
    moved = (update or default_update(space, networks, architecture))(many)
    gradient = reinforce_gradient(many, moved, quality=quality)
    return weight_sharing(net, sampler(space, 1, hidden), gradient, Weights(weights, clip, criterion))


def controller_adam(rate: float) -> optax.GradientTransformation:
    """The published Adam of the controller."""
    return optax.adam(rate, b1=0.0, eps=1e-3)


def default_update(space: Space, networks: int | None = None, architecture: optax.GradientTransformation | None = None) -> Callable:
    """policy -> the published update of its theta.

    Args:
        space: the policy's.
        networks: M, of the policy; default: the space's.
        architecture: default Adam at the space's rate.
    """
    row = published(space)
    penalty = skip_rate(space) if _is_chain(space) and len(space.decisions) > 1 else None
    adam = controller_adam(row.rate) if architecture is None else architecture
    decay = BASELINE ** (row.networks if networks is None else networks)
    return lambda policy: reinforce(policy, adam, decay, row.entropy, penalty)


@checked
def warm_restarts(
    first: Positive, cycles: Positive = 5, high: PositiveNumber = 0.05, low: NonNegativeNumber = 0.0005
) -> optax.Schedule:
    """Cosines from high to low, of `first` steps (published: 10 epochs), then of twice as many each; 31 `first` in 5 cycles.

    Raises:
        ValueError: for no step or cycle.
    """
    lengths = [first * 2**i for i in range(cycles)]
    return optax.join_schedules(
        [optax.cosine_decay_schedule(high, n, alpha=low / high) for n in lengths], [sum(lengths[:i]) for i in range(1, cycles)]
    )


@checked
def final_choice(space: Space, scores: Callable, networks: Positive = 10, hidden: Positive = 64) -> Callable:
    """-> (key, theta) -> (architecture, its score): the best of the networks that the controller draws at the end.

    Args:
        space: the one that was searched.
        scores: (key, archs [n, ...]) -> [n], larger is better; not a number: never chosen.  Published: the accuracy on one
            validation batch, with its own statistics (`evaluate.shared_weights(net, "batch")`).
        networks: n, default 10.
        hidden: as in the search.

    Raises:
        ValueError: for fewer than 1 network.
    """
    policy = sampler(space, networks, hidden)

    def choose(key, theta):
        k_draw, k_score = jax.random.split(key)
        archs = policy.sample(k_draw, theta, jnp.zeros((), jnp.int32))
        found = scores(k_score, archs)
        i = jnp.argmax(jnp.where(jnp.isfinite(found), found, -jnp.inf))
        return jax.tree.map(lambda a: a[i], archs), found[i]

    return choose
