"""Once for all: one elastic network, shrunk step by step, or trained at all its sizes at once.

References: Cai, Gan, Wang, Zhang and Han, Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR
2020, arXiv:1908.09791, section 3.3; Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models,
ECCV 2020, arXiv:2003.11142, section 3.1.

    progressive shrinking     phase      sizes drawn, uniformly                     M    epochs    rate
                              full       the largest network                        1    180       8e-2
                              kernel     7, 5, 3                                    1    120       3e-2
                              depth 1    and depth 4, 3                             2    25        2.5e-3
                              depth 2    and depth 4, 3, 2                          2    120       7.5e-3
                              expand 1   channels sorted, and expansion 6, 4        4    25        2.5e-3
                              expand 2   channels sorted, and expansion 6, 4, 3     4    120       7.5e-3

    w <- sgd(w; grad of the mean over M networks of  CE(y) + CE(softmax(teacher)))     the teacher: the full phase's weights, fixed

    in-place distillation     M = 4 networks a step: the largest learns the labels, the smallest and M - 2 others its soft logits

Epochs and rates (for a batch of 64; cosine to 0) are those of the authors' code, the full phase's rate that of the paper (2.6 for
2,048); decay 3e-5, not of norms and biases, Nesterov, label smoothing 0.1, distillation ratio 1.  Warm-up is left to `weights`.
Each of the M networks draws its resolution; published: one a batch, the teacher's included, which here sees the largest.

Axes: M networks a step, D decisions, A the largest arity.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Feed, Phase, Strategy, Stream, then
from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber, ProbabilityBelowOne
from jaxnas.nets._elastic_net import sort_channels
from jaxnas.nets.base import Net, Variables
from jaxnas.policies._uniform import sandwich, uniform
from jaxnas.spaces._elastic import ElasticSpec, largest, smallest
from jaxnas.spaces._space import Space
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing.base import Given, Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import frozen

RATES = {"full": 8e-2, "kernel": 3e-2, "depth 1": 2.5e-3, "expand 1": 2.5e-3}
LATER = 7.5e-3  # the rate of the other phases


class Stage(NamedTuple):
    """A phase of progressive shrinking."""

    name: str
    allowed: np.ndarray  # bool[D, A]: the values that are drawn
    paths: int  # M
    widths: int  # expansions in use before it, whose channels stay when it sorts them; 0: it does not sort


class Taught(NamedTuple):
    """The state of a phase with a teacher, and what it is given (then `search` is a `Given`)."""

    search: Any  # a WeightSharingState
    teacher: Any  # variables


def stages(space: Space) -> tuple[Stage, ...]:
    """The phases for an elastic space; those of a dimension with one value are left out.

    Raises:
        ValueError: for another space.
    """
    spec = space.spec
    if not isinstance(spec, ElasticSpec):
        raise ValueError("progressive shrinking needs an elastic space: give a net of `ofa_mobilenet_v3` or `ofa_small`")

    def first(depths, kernels, expands):  # so many of the values of each decision, the largest
        fill = dict(depth=depths, kernel=kernels, expand=expands)
        count = space.decisions._replace(**{name: np.full_like(getattr(space.decisions, name), n) for name, n in fill.items()})
        return np.arange(space.arity.max()) < np.concatenate([np.ravel(n) for n in jax.tree.leaves(count)])[:, None]

    D, K, E = len(spec.depths), len(spec.kernels), len(spec.expansions)
    out = [Stage("full", first(1, 1, 1), 1, 0)]
    if K > 1:
        out.append(Stage("kernel", first(1, K, 1), 1, 0))
    out += [Stage(f"depth {n - 1}", first(n, K, 1), 2, 0) for n in range(2, D + 1)]
    out += [Stage(f"expand {n - 1}", first(D, K, n), 4, n - 1) for n in range(2, E + 1)]
    return tuple(out)


@checked
def distillation(
    ratio: NonNegativeNumber = 1.0, smoothing: ProbabilityBelowOne | None = None, criterion: Criterion = CLASSES
) -> Criterion:
    """The criterion whose loss is that at the labels, and `ratio` times that at the teacher's logits, if there is one.

    Args:
        ratio: of the teacher.
        smoothing: of the labels; default: 0.1 for classes, else 0.
        criterion: of the labels, default of classes.

    Raises:
        ValueError: for a negative ratio, or a smoothing outside [0, 1).
    """
    smoothing = (0.1 if criterion.name == CLASSES.name else 0.0) if smoothing is None else smoothing
    if ratio < 0 or not 0 <= smoothing < 1:
        raise ValueError(f"`ratio` must not be negative, and `smoothing` in [0, 1); got {ratio} and {smoothing}")

    def loss(logits, y, path=None):
        value = criterion.loss(logits, y, smoothing=smoothing)
        if path is None or path.targets is None:
            return value
        return value + ratio * criterion.soft(logits, path.targets)

    return criterion._replace(loss=loss)


def full_logits(net: Net, variables: Variables, x: jax.Array) -> jax.Array:
    """The largest network's logits at the batch's statistics (so in the authors' code)."""
    return net.apply(variables, x, net.space.gates(largest(net.space)), train=True)[0]


def taught(strategy: Strategy) -> Strategy:
    """The strategy with a teacher in `batch.fixed`, which its state carries; `init` takes a `Taught`."""

    def init(key, given=None):
        if given is None:
            raise ValueError("a phase with a teacher cannot be the first: give it Taught(Given(variables), teacher's variables)")
        return Taught(strategy.init(key, given.search), given.teacher)

    def step(key, state, batch):
        search, info = strategy.step(key, state.search, batch._replace(fixed=state.teacher))
        return Taught(search, state.teacher), info

    return Strategy(init, step, lambda state: strategy.best(state.search))


def published(name: str, steps: int) -> optax.GradientTransformation:
    """A phase's SGD, for a batch of 64."""
    rate = optax.cosine_decay_schedule(RATES.get(name, LATER), steps)
    matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    return optax.chain(optax.add_decayed_weights(3e-5, matrices), optax.sgd(rate, momentum=0.9, nesterov=True))


@checked
def progressive_shrinking(
    net: Net,
    weights: Callable[[str, int], optax.GradientTransformation] = published,
    *,
    steps: Mapping[str, Positive],
    data: Feed | Stream,
    criterion: Criterion | None = None,
) -> tuple[Phase, ...]:
    """The plan of `stages(net.space)`, a phase each.

    The state of the first is a `WeightSharingState`, those of the others are `Taught`.

    Args:
        net: `elastic_net(...)`.
        weights: (name, steps) -> the phase's weight optimizer; default `published`.
        steps: of each phase, by name.
        data: of all phases; no validation batches are looked at.
        criterion: default `distillation()`.

    Raises:
        ValueError: for another space, or for steps of other phases.
    """
    order = stages(net.space)
    if set(steps) != {stage.name for stage in order}:
        raise ValueError(f"give `steps` for the phases {', '.join(s.name for s in order)}; got {', '.join(steps) or 'none'}")
    criterion = distillation() if criterion is None else criterion
    teacher = lambda variables, x, fixed: full_logits(net, fixed, x)

    def give(stage):
        def handed(state):
            search, of_full = state if isinstance(state, Taught) else (state, state.variables)
            variables = search.variables
            return Taught(Given(sort_channels(net, variables, stage.widths) if stage.widths else variables), of_full)

        return handed

    phases = []
    for stage in order:
        n, policy = steps[stage.name], uniform(net.space, stage.paths, stage.allowed)
        trained = Weights(weights(stage.name, n), clip=None, criterion=criterion)
        if stage is order[0]:
            phases.append(Phase(weight_sharing(net, policy, frozen, trained), n, data, name=stage.name))
        else:
            search = taught(weight_sharing(net, policy, frozen, trained._replace(teacher=teacher)))
            phases.append(Phase(search, n, data, give(stage), name=stage.name))
    return then(*phases)


@checked
def in_place_distillation(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    *,
    paths: Positive = 4,
    smoothing: ProbabilityBelowOne | None = None,
    clip: PositiveNumber | None = None,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """All sizes at once, by the sandwich rule; the teacher is the largest network as it is.

    Published: decay and dropout of the largest alone; here `weights` decays all that a step has drawn.

    Args:
        net: `elastic_net(...)`.
        weights: the weight optimizer, default SGD with momentum at 0.025.
        paths: M, default 4.
        smoothing: of the labels that the largest network learns; default: 0.1 for classes, else 0.
        clip: global norm of the gradient; None: not clipped.
        criterion: of the labels, and at the teacher's logits; default: of classes.

    Raises:
        ValueError: for fewer than 3 networks a step, or a smoothing outside [0, 1).
    """
    hard = distillation(0.0, smoothing, criterion).loss

    def loss(logits, y, path):
        return jnp.where(path.number == 0, hard(logits, y), criterion.soft(logits, path.targets))

    policy = sandwich(net.space, largest(net.space), smallest(net.space), paths)
    teacher = lambda variables, x, fixed: full_logits(net, variables, x)
    return weight_sharing(net, policy, frozen, Weights(weights or sgd(0.025), clip, criterion._replace(loss=loss), teacher))
