"""Few-shot NAS: not one supernet but a few, each of a part of the space.

Reference: Zhao et al., Few-Shot Neural Architecture Search, ICML 2021, arXiv:2006.06863.

    1   train one supernet on the whole space                                              (`spos`)
    2   split one decision: child k keeps its k-th value alone, and starts from the parent's weights
    3   train the children a little longer, each on paths of its part                      (`few_shot`)
    4   score an architecture on the weights of the child that it belongs to               (`shared_weights(pick=pick_child(...))`)

Two decisions split give a child for each pair of values, and so on.

Axes: K children, D decisions, A the largest arity.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Arch, Strategy
from jaxnas.checks import checked
from jaxnas.kinds import NonNegative, PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._categorical import options as values
from jaxnas.policies._uniform import restricted
from jaxnas.spaces._space import Space
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.weight_sharing._spos import spos
from jaxnas.weight_sharing.base import Given


@checked
def split_space(space: Space, decisions: Iterable[NonNegative]) -> np.ndarray:
    """bool[K, D, A]: what each child may draw; together they cover the space, and share no architecture.

    Args:
        space: whose decisions are split.
        decisions: their numbers, in the order of `space.flat`.

    Raises:
        ValueError: for none, one twice, one that is not there, or one that not every architecture makes.
    """
    decisions, legal = list(decisions), values(space)
    if not decisions or len(set(decisions)) < len(decisions) or not all(0 <= d < len(legal) for d in decisions):
        raise ValueError(f"split one or more decisions of 0 to {len(legal) - 1}, each once; got {decisions}")
    never = [d for d in decisions if not all(bool(space.active(space.unflat(jnp.asarray(v)))[d]) for v in _corners(space))]
    if never:
        raise ValueError(f"decision {never[0]} is not active in every architecture: split one that is")
    children = []
    for chosen in itertools.product(*(range(int(space.arity[d])) for d in decisions)):
        allowed = legal.copy()
        for d, k in zip(decisions, chosen, strict=True):
            allowed[d] = np.arange(legal.shape[1]) == k
        children.append(allowed)
    return np.stack(children)


def _corners(space):
    """Architectures among which each value of each decision occurs."""
    return [np.minimum(k, space.arity - 1).astype(np.int32) for k in range(int(space.arity.max()))]


@checked
def pick_child(space: Space, decisions: Sequence[NonNegative]) -> Callable[[Any, Arch], Any]:
    """(stacked variables [K, ...], arch) -> the variables of the child that the architecture belongs to."""
    sizes = [int(space.arity[d]) for d in decisions]

    def pick(stacked, arch):
        k = jnp.ravel_multi_index([space.flat(arch)[d] for d in decisions], sizes, mode="clip")
        return jax.tree.map(lambda a: a[k], stacked)

    return pick


@checked
def few_shot(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    *,
    decisions: Sequence[NonNegative],
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """Trains K children side by side on the same batches; the state has a leading axis K.

    Args:
        net: the supernet.
        weights: the weight optimizer, default as `spos`.
        decisions: those that are split, see `split_space`.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], with a `Path`, and the score; default: of classes.

    `init(key, given)` takes the parent's `Given(variables)`, which all children start from; without it they start alike.

    Raises:
        ValueError: as `split_space` and `spos`.
    """
    thetas = jnp.stack([restricted(net.space, part) for part in split_space(net.space, decisions)])  # [K, D, A]
    search, K = spos(net, weights, clip=clip, criterion=criterion), len(thetas)

    def init(key, given=None):
        given = Given() if given is None else given
        start = search.init(key, given)
        state = jax.tree.map(lambda a: jnp.broadcast_to(a, (K, *a.shape)), start)
        return state._replace(theta=thetas)

    def step(key, state, batch):
        one = lambda x: search.step(jax.random.fold_in(key, x[0]), x[1], batch)
        state, info = jax.lax.map(one, (jnp.arange(K), state))  # one child after the other: a vmap would run every operation
        return state, info._replace(loss=jnp.mean(info.loss), score=jnp.mean(info.score))

    return Strategy(init, step, lambda state: search.best(jax.tree.map(lambda a: a[0], state)))
