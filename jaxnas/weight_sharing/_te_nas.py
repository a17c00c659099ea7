"""TE-NAS: a supernet at initialisation is pruned to one architecture, without labels and without training.

Reference: Chen, Gong and Wang, Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired Perspective,
ICLR 2021, arXiv:2102.11535; the order of the ranks is that of the authors' code.

    an edge's remaining operations weigh 1 / n each
    of every one of them, what removing it alone does:
        to trainability      kappa = v_max / v_min of the tangent kernel, relative to before: the more it falls the better
        to expressivity      R = linear regions, relative to before: the less it falls the better
    the two ranks are added; every edge that has more than one left loses the operation of the best sum

A round is a step; after O - 1 rounds one operation an edge is left.  kappa and R are means over draws of the weights (published:
3), kappa on a supernet whose norms are affine (`cell_net(..., affine=True)`), over its weights and the scales of its norms, R on a
thin one: a cell of one channel alone, 3 x 3 inputs.

Not as published: `none` is pruned as the other operations are (the released code leaves it out from the start), what is relative
are the means over draws (there: the mean of each draw's own), and both nets are drawn alike (there: He's normal by what leaves a
layer for kappa, by what enters it for R; on NAS-Bench-201 the net of kappa has 3 channels).

Axes: D rows of gates (edges), O operations, n draws.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.nets.base import Gates, Net, Variables
from jaxnas.proxies import Proxy, drawn, ntk, regions
from jaxnas.proxies.aggregate import rank_scores
from jaxnas.proxies.proxy import Batches
from jaxnas.spaces._space import is_shape


class TENASState(NamedTuple):
    alive: jax.Array  # bool[D, O]


class TENASInfo(NamedTuple):
    kappa: jax.Array  # [], before the round
    regions: jax.Array  # []
    left: jax.Array  # int32[], operations behind it


def ntk_of_all(net: Net, variables: Variables, gates: Gates, batch: Batches) -> jax.Array:
    """`ntk` over the weights and the scales of the norms, as the authors' code has it."""
    return ntk(net, variables, gates, batch, scales=True)


@checked
def te_nas(
    net: Net,
    thin: Net,
    *,
    draws: Positive = 3,
    points: Positive = 1000,
    trainability: Proxy = ntk_of_all,
    expressivity: Proxy = regions,
) -> Strategy:
    """The pruning; it takes O - 1 steps, on `batch.train` = (x [S, B, ...], y), of whose labels nothing is read.

    Args:
        net: the supernet whose tangent kernel is measured.
        thin: the one whose regions are counted, of the same space: `cell_net(space, image=(3, 3, 1), channels=1, cells=1,
            bare=True, classes=10)`.  Where the regions are as many as the points they tell nothing: take fewer units.
        draws: n of the weights.
        points: N(0, 1) inputs of `thin`, new at each round.
        trainability, expressivity: the two scores, larger is better; default: the condition of the tangent kernel over weights
            and norms' scales, and the linear regions.

    Raises:
        ValueError: for nets of two spaces, gates that are not rows of one width, or no draw.
    """
    space = net.space
    shapes = jax.tree.leaves(space.gate_shapes, is_leaf=is_shape)
    tree = jax.tree.structure(space.gate_shapes, is_leaf=is_shape)
    if space.gate_shapes != thin.space.gate_shapes or len({shape[-1] for shape in shapes}) != 1:
        raise ValueError("TE-NAS prunes rows of as many operations each: give two nets of one cell space")
    if draws < 1 or points < 2:
        raise ValueError(f"TE-NAS needs at least one draw of the weights and two points; got {draws=} and {points=}")
    width = shapes[0][-1]  # O
    ends = np.cumsum([int(np.prod(shape[:-1])) for shape in shapes])
    D = int(ends[-1])
    soft = [_mixing(n) for n in (net, thin)]

    def gates(alive):
        rows = alive / jnp.maximum(jnp.sum(alive, -1, keepdims=True), 1)
        return tree.unflatten(part.reshape(shape) for part, shape in zip(jnp.split(rows, ends[:-1]), shapes, strict=True))

    def draw(key, i):
        """Draw i of both nets' weights, and of the points."""
        k_net, k_thin, k_points = jax.random.split(jax.random.fold_in(key, i), 3)
        x = jax.random.normal(k_points, (1, points, *thin.image))
        return drawn(net, k_net), drawn(thin, k_thin), (x, jnp.zeros(x.shape[:2], jnp.int32))

    def measure(held, alive, batch):
        """(kappa, R) of what is alive, means over the draws held."""

        def one(held):
            variables, of_thin, noise = held
            kappa = -trainability(soft[0], variables, gates(alive), batch.train)
            return kappa, expressivity(soft[1], of_thin, gates(alive), noise)

        return jax.tree.map(jnp.mean, jax.lax.map(one, held))

    def step(key, state, batch):
        alive = state.alive
        held = jax.lax.map(lambda i: draw(key, i), jnp.arange(draws))  # one for all: what is compared sees the same
        kappa, R = measure(held, alive, batch)
        places = jnp.stack(jnp.meshgrid(jnp.arange(D), jnp.arange(width), indexing="ij"), -1).reshape(-1, 2)  # [D O, 2]

        def without(place):
            wanted = alive[place[0], place[1]] & (jnp.sum(alive[place[0]]) > 1)
            pruned = alive.at[place[0], place[1]].set(False)
            blank = lambda: (jnp.asarray(jnp.inf, kappa.dtype), jnp.zeros_like(R))
            return jax.lax.cond(wanted, lambda: measure(held, pruned, batch), blank)

        k, r = jax.lax.map(without, places)
        many = jnp.sum(alive, -1, keepdims=True) > 1
        able = (alive & many).reshape(-1)
        worth = jnp.stack([(kappa - k) / kappa, (r - R) / R], -1)
        score = jnp.sum(rank_scores(jnp.where(able[:, None], worth, -jnp.inf)), -1)
        best = jnp.argmax(jnp.where(able, score, -jnp.inf).reshape(D, width), -1)  # [D]
        left = alive & ~(many & (jnp.arange(width)[None] == best[:, None]))
        return TENASState(left), TENASInfo(kappa, R, jnp.sum(left, dtype=jnp.int32))

    return Strategy(
        lambda key, given=None: TENASState(jnp.ones((D, width), bool)),
        step,
        lambda state: space.derive(gates(state.alive)),
    )


def _mixing(net: Net) -> Net:
    """The net, whose gates always weigh all operations: the proxies ask for single paths."""

    def apply(*args: Any, path: bool = False, **more: Any) -> tuple[jax.Array, Variables]:
        del path
        return net.apply(*args, path=False, **more)

    return net._replace(apply=apply)
