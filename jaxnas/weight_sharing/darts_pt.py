"""DARTS-PT: what an operation is worth is what its removal costs, not its alpha.

Reference: Wang, Cheng, Chen, Tang and Hsieh, Rethinking Architecture Selection in Differentiable NAS, ICLR 2021,
arXiv:2108.04392, algorithm 1.

    operations   of a random undecided edge: mask each operation in turn, measure the validation accuracy, keep the one
                 whose removal hurts most; train the supernet on; until every edge is decided
    edges        of a random node with more than two inputs: mask each edge in turn, delete the one whose removal hurts
                 least; train on; until every node has two

Each step is one decision: W weight steps (batch.train), then the measurements (batch.valid, A batches).  So the two stages
are two phases that follow a search, or follow weight steps at a uniform alpha that never moved ("blank").

Axes: R rows of the gates (the edges of all kinds), O operations, W weight steps, A validation batches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Strategy
from jaxnas.checks import checked
from jaxnas.kinds import PositiveNumber
from jaxnas.nets.base import Net
from jaxnas.policies._softmax import softmax
from jaxnas.policies.policy import Policy, close, still_open
from jaxnas.spaces.cell import CellSpec
from jaxnas.training._criterion import CLASSES, Criterion
from jaxnas.training.optimizers import sgd
from jaxnas.weight_sharing.base import Given, Weights, WeightSharingState
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import frozen


class ProjectionState(NamedTuple):
    search: WeightSharingState  # theta: the gates that the weights see, float32[R, O]
    decided: jax.Array  # bool[R]: edges whose operation is chosen; in the edges' phase those that are left


class ProjectionInfo(NamedTuple):
    loss: jax.Array  # [] of the weight steps
    score: jax.Array  # [] on the validation batches, with nothing masked: of classes, the accuracy
    row: jax.Array  # int32[]: the edge that was decided, or deleted


def _parts(net: Net, weights, clip, criterion: Criterion):
    """(rows -> the space's gates, its inverse, the search that trains the weights at fixed gates, the measurement)."""
    space, shapes = net.space, net.space.gate_shapes
    if not isinstance(space.spec, CellSpec):
        raise ValueError("DARTS-PT decides the edges of cells: give a net of a cell space")
    kinds, edges = space.spec.kinds, len(space.spec.edges)
    whole = lambda rows: type(shapes)(*jnp.split(rows, len(kinds))) if kinds else rows
    flat = lambda gates: jnp.concatenate(jax.tree.leaves(gates))
    derive = lambda rows: space.derive(whole(rows))
    fixed = Policy(lambda key: None, lambda key, rows, t: rows[None], whole, None, derive, False)
    search = weight_sharing(net, fixed, frozen, Weights(weights or sgd(0.0025), clip, criterion))

    def score(variables, rows, valid):
        def one(_, batch):
            logits, _ = net.apply(variables, batch[0], whole(rows), train=True)  # the batch's own statistics
            return None, jnp.mean(criterion.score(logits, batch[1]))

        return jnp.mean(jax.lax.scan(one, None, valid)[1])

    return flat, edges, max(len(kinds), 1), search, score


def _step(search, score, decide):
    def step(key, state, batch):
        k_train, k_pick = jax.random.split(key)
        trained, info = search.step(k_train, state.search, batch._replace(valid=None))
        rows = trained.theta
        measure = lambda masked: jax.lax.map(lambda m: score(trained.variables, rows * m, batch.valid), masked)
        rows, decided, row = decide(k_pick, rows, state.decided, measure)
        plain = score(trained.variables, state.search.theta, batch.valid)
        return ProjectionState(trained._replace(theta=rows), decided), ProjectionInfo(info.loss, plain, row)

    return step


def _pick(key, among):
    """A random index among those that are set; 0 where none is."""
    return jnp.argmax(jnp.where(among, jax.random.uniform(key, among.shape), -1.0)).astype(jnp.int32)


@checked
def project_operations(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    *,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The phase that decides the operations: as many steps as the cells have edges (all kinds together).

    Args:
        net: the supernet of the search before.
        weights: default `sgd(0.0025)`; published: a tenth of the search's rate, annealed over all steps by a cosine.
        clip: global norm of the weights' gradient.
        criterion: the loss (logits, y, path) -> [], with a `Path`, and the score; default: of classes.

    `init(key, given)`: the search's `Given(variables, opt_state, theta)`; theta are its logits.  Without a theta they are uniform.
    `best` decides what is undecided by its gates.

    Raises:
        ValueError: for a space without cells.
    """
    flat, edges, kinds, search, score = _parts(net, weights, clip, criterion)
    space, R = net.space, edges * kinds
    relax = softmax(space)
    choosable = np.asarray([name != "none" or not space.spec.kinds for name in space.spec.ops])  # DARTS never derives `none`

    def init(key, given=None):
        k_theta, k_search = jax.random.split(key)
        given = Given() if given is None else given
        theta = given.theta
        if theta is None:
            theta = relax.init(k_theta)
            theta = close(jax.tree.map(jnp.zeros_like, theta), still_open(theta))
        theta = theta if given.open is None else close(theta, given.open)
        gates = flat(jax.tree.map(lambda a: a[0], relax.sample(k_theta, theta, jnp.zeros((), jnp.int32))))
        return ProjectionState(search.init(k_search, given._replace(theta=gates, open=None)), jnp.zeros(R, bool))

    def decide(key, rows, decided, measure):
        row, ops = _pick(key, ~decided), rows.shape[1]
        without = 1 - jnp.eye(ops)  # [O, O]: each without one operation
        masks = jnp.where((jnp.arange(R) == row)[None, :, None], without[:, None], 1.0)
        open_ = choosable & (rows[row] > 0)
        kept = jnp.argmin(jnp.where(open_, measure(masks), jnp.inf))
        chosen = jnp.where((jnp.arange(R) == row)[:, None], jax.nn.one_hot(kept, ops), rows)
        rows = jnp.where(jnp.all(decided), rows, chosen)
        return rows, decided | (jnp.arange(R) == row), row

    return Strategy(init, _step(search, score, decide), lambda state: search.best(state.search))


@checked
def project_edges(
    net: Net,
    weights: optax.GradientTransformation | None = None,
    *,
    clip: PositiveNumber | None = 5.0,
    criterion: Criterion = CLASSES,
) -> Strategy:
    """The phase that decides the edges, two to a node: as many steps as there are edges too many (DARTS cells: 12).

    Arguments as `project_operations`; `init(key, given)` takes that phase's `state.search` as `Given(variables, opt_state, theta)`.

    Raises:
        ValueError: for a space whose nodes do not keep two edges each.
    """
    _, edges, kinds, search, score = _parts(net, weights, clip, criterion)
    spec, R = net.space.spec, edges * kinds
    if spec.inputs != 2:
        raise ValueError("only cells of two inputs keep two edges a node: this space's nodes keep all, leave this phase out")
    node = np.asarray([i + kind * spec.nodes for kind in range(kinds) for _, i in spec.edges])  # [R]
    together = jnp.asarray(node[:, None] == node[None])  # [R, R]

    def init(key, given=None):
        if given is None or given.theta is None:
            raise ValueError("this phase goes on from `project_operations`: give it that search's variables, opt_state and theta")
        return ProjectionState(search.init(key, given._replace(open=None)), jnp.ones(R, bool))

    def decide(key, rows, left, measure):
        many = jnp.sum(together & left[None], 1) > 2  # [R]: the node has edges to spare
        row = _pick(key, many & left)
        here = together[row] & left
        masks = 1 - jnp.eye(R)[:, :, None]  # [R, R, 1]: all without one edge
        inputs = max(spec.inputs + i for i in range(spec.nodes))
        few = jnp.argsort(~here, stable=True)[:inputs]  # only this node's edges are measured
        worth = jnp.where(here[few], measure(masks[few]), -jnp.inf)
        gone = few[jnp.argmax(worth)].astype(jnp.int32)
        delete = (jnp.arange(R) == gone) & jnp.any(many & left)
        return jnp.where(delete[:, None], 0.0, rows), left & ~delete, gone

    return Strategy(init, _step(search, score, decide), lambda state: search.best(state.search))
