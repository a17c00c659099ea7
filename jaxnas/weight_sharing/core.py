"""Weight sharing = net x policy x gradient of the architecture parameters.

One step, at supernet weights w, statistics s, architecture parameters theta:

    A times   theta <- gradient(theta; w, a validation batch, K look-ahead batches)     statistics discarded
    W times   w, s  <- optimizer(w; grad_w of the mean loss of M paths drawn from the policy, a train batch)

A method is a policy and a gradient: DARTS is softmax x the exact unrolled step (`jaxnas.weight_sharing.darts`), single-path
one-shot is uniform x none (`jaxnas.weight_sharing.one_shot`).  With a hard policy only the sampled paths are run, and with a
hard or a sparse one only their weights, statistics and optimizer state move.  What a net keeps in the collection "losses"
(Flax's `sow`) is added to the loss, and not kept.

Axes: M paths, W weight steps, A architecture steps, K look-ahead steps, B batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Key, Strategy, require_data
from jaxnas.checks import checked
from jaxnas.nets.base import Gates, Net, Variables, check_examples, check_variables
from jaxnas.policies.policy import Policy
from jaxnas.trees import loop
from jaxnas.weight_sharing.base import Given, Gradient, Path, Problem, Weights, WeightSharingInfo, WeightSharingState

FIRST = np.int32(0)  # the number of a lone path


class Slots(NamedTuple):
    """What a search is made of."""

    net: Net
    policy: Policy
    gradient: Gradient
    weights: Weights


class View(NamedTuple):
    """What one path sees in a weight step."""

    number: Any  # int32[]: the m-th of the M paths
    batch: Any  # (x, y) [B, ...]; [B / M, ...] of a ghost batch
    targets: Any  # the teacher's, for this batch; None without one
    step: jax.Array  # int32[]


@checked
def weight_sharing(net: Net, policy: Policy, gradient: Gradient, weights: Weights) -> Strategy:
    """A search that trains one supernet while it moves the architecture parameters.

    Args:
        net: the supernet.
        policy: which gates the weights see.
        gradient: how theta moves.
        weights: how the weights are trained: `Weights(sgd(0.025))`, with a clip of 5 and cross-entropy unless told otherwise.
            The look-ahead of a second-order gradient is not clipped, as published.  A teacher's targets reach the loss in its
            path; a perturbation's `loss_of(gates)` is the training loss of its batch with the running statistics.

    `init(key, given)` takes a `Given` from an earlier phase.

    Raises:
        ValueError: for an optimizer in place of `Weights`; for a relaxation on a net that computes one architecture at a time; in
            `init`, for variables of another net, a theta with NaN, or operations left out of a policy that cannot; when traced,
            for a batch that does not split into M ghost batches.
    """
    if not isinstance(weights, Weights):
        raise ValueError(f"`weights` says how they are trained: give it Weights(optimizer, ...), not a {type(weights).__name__}")
    if not policy.hard and not net.mixes:
        raise ValueError("this net computes one architecture, it mixes none: take a policy of hard gates, or a black-box search")
    slots = Slots(net, policy, gradient, weights)

    def init(key, given=None):
        k_net, k_theta = jax.random.split(key)
        variables, opt_state, theta, still = Given() if given is None else given
        if variables is None:
            variables = net.init(k_net)
        else:
            check_variables(net, variables)
        opt_state = weights.optimizer.init(variables["params"]) if opt_state is None else opt_state
        theta = policy.init(k_theta) if theta is None else _without_nan(theta)
        if still is not None:
            if policy.close is None:
                raise ValueError("this policy cannot leave operations out: give no `open`")
            theta = policy.close(theta, still)
        return WeightSharingState(variables, opt_state, theta, gradient.init(theta), jnp.zeros((), jnp.int32))

    def step(key, state, batch):
        require_data(batch, "train")
        check_examples(net, batch.train)
        k_arch, k_weights = jax.random.split(key)
        reported = {}
        if not gradient.joint and batch.valid is not None:
            A = jax.tree.leaves(batch.valid)[0].shape[0]
            look = batch.look
            if look is None:  # the look-ahead takes the very batch that the weights train on next
                look = jax.tree.map(lambda a: jnp.broadcast_to(a[None, :1], (A, 1, *a.shape[1:])), batch.train)
            move = lambda state, xs: arch_step(slots, xs[0], state, *xs[1:])
            state, reported = loop(move, state, (jax.random.split(k_arch, A), batch.valid, look))
        W = jax.tree.leaves(batch.train)[0].shape[0]
        move = lambda state, xs: weight_step(slots, xs[0], state, xs[1], batch.fixed)
        state, (losses, scores, gates, extra) = loop(move, state, (jax.random.split(k_weights, W), batch.train))
        info = WeightSharingInfo(
            loss=jnp.mean(losses),
            score=jnp.mean(scores),
            gates=jax.tree.map(lambda g: g[0], gates),
            gradient=jax.tree.map(jnp.mean, {**reported, **extra}),
        )
        return state._replace(step=state.step + 1), info

    return Strategy(init, step, lambda state: policy.derive(state.theta))


def arch_step(slots: Slots, key: Key, state: WeightSharingState, valid: Any, look: Any) -> tuple[WeightSharingState, Any]:
    """(state, what the gradient reports): theta moves at weights that stand still."""
    params, stats = _split(state.variables)

    def loss(params, gates, batch, key):
        return training_loss(slots, params, stats, gates, View(FIRST, batch, None, state.step), key)

    problem = Problem(loss, _update(slots), params, state.opt_state, look, valid, None)
    return move_theta(slots, key, state, problem)


def weight_step(
    slots: Slots,
    key: Key,
    state: WeightSharingState,
    batch: Any,
    fixed: Any,
) -> tuple[WeightSharingState, tuple[jax.Array, jax.Array, Gates, Any]]:
    """(state, (loss [], score [], gates, what a joint gradient reports)): the weights move by the mean over M paths."""
    k_sample, k_loss, k_theta, k_perturb = jax.random.split(key, 4)
    net, policy, gradient, weights = slots
    params, stats = _split(state.variables)
    targets = None
    if weights.teacher is not None:
        targets = jax.lax.stop_gradient(weights.teacher(state.variables, batch[0], fixed))
    actions = jax.eval_shape(lambda: policy.sample(jax.random.clone(k_sample), state.theta, state.step))
    paths = jax.tree.leaves(actions)[0].shape[0]  # M

    def one(carry, m):  # one path: its gradient is added, its statistics move
        stats, total, used = carry
        own, aims = _ghost(batch, targets, m, paths) if weights.ghost else (batch, targets)
        view = View(m, own, aims, state.step)
        (loss, (new, score, gates)), grads = path_gradient(slots, (k_sample, k_loss, k_perturb), state, stats, view)
        if _masked(policy):
            mask = net.used({**stats, "params": params}, jax.lax.stop_gradient(gates))
            new = _keep(_split(mask)[1], new, stats)
            used = jax.tree.map(jnp.maximum, used, mask["params"])
        return (new, jax.tree.map(jnp.add, total, grads), used), (loss, score, gates)

    zeros = jax.tree.map(jnp.zeros_like, (params, state.theta) if gradient.joint else (params,))
    start = (stats, zeros, nothing_used(slots, state, actions))
    (stats, total, used), (losses, scores, gates) = loop(one, start, jnp.arange(paths))
    grads, *theta_grad = jax.tree.map(lambda g: g / paths, total)
    params, opt_state = move_weights(slots, state, grads, used)
    state = state._replace(variables={**stats, "params": params}, opt_state=opt_state)
    report = {}
    if gradient.joint:
        problem = Problem(None, _update(slots), params, opt_state, None, None, theta_grad[0])
        state, report = move_theta(slots, k_theta, state, problem)
    return state, (jnp.mean(losses), jnp.mean(scores), jax.tree.map(lambda g: g[0], gates), report)


def training_loss(
    slots: Slots,
    params: Any,
    stats: Variables,
    gates: Gates,
    view: View,
    key: Key,
) -> tuple[jax.Array, tuple[Variables, jax.Array]]:
    """(loss [], (statistics, score [])) of one path, with the batch's own statistics."""
    x, y = view.batch
    variables = {**stats, "params": params}
    logits, new = slots.net.apply(variables, x, gates, train=True, path=slots.policy.hard, key=key, t=view.step)
    score = jnp.mean(slots.weights.criterion.score(logits, y))
    loss = slots.weights.criterion.loss(logits, y, Path(view.number, params, gates, view.targets))
    loss = loss + sum(jax.tree.leaves(new.get("losses", {})))
    return loss, (jax.lax.stop_gradient({name: new[name] for name in stats}), score)


def running_loss(slots: Slots, variables: Variables, gates: Gates, view: View) -> jax.Array:
    """The training loss of one path with the running statistics, at weights that stand still, []."""
    x, y = view.batch
    still = jax.lax.stop_gradient(variables)
    logits, _ = slots.net.apply(still, x, gates, train=False, path=slots.policy.hard)
    return slots.weights.criterion.loss(logits, y, Path(view.number, still["params"], gates, view.targets))


def path_gradient(
    slots: Slots,
    keys: tuple[Key, Key, Key],
    state: WeightSharingState,
    stats: Variables,
    view: View,
) -> tuple[tuple[jax.Array, tuple[Variables, jax.Array, Gates]], Any]:
    """((loss [], (statistics, score [], gates)), gradients): in the weights, and in theta for a joint gradient."""
    k_sample, k_loss, k_perturb = keys
    m, t, perturb = view.number, view.step, slots.weights.perturb

    def loss(params, theta):
        actions = slots.policy.sample(jax.random.clone(k_sample), theta, t)  # the same M paths every time
        gates = slots.policy.gates(jax.tree.map(lambda a: a[m], actions))
        if perturb is not None:
            loss_of = lambda gates: running_loss(slots, state.variables, gates, view)
            gates = perturb(jax.random.fold_in(k_perturb, m), gates, loss_of, t)
        value, (new, score) = training_loss(slots, params, stats, gates, view, jax.random.fold_in(k_loss, m))
        return value, (new, score, gates)

    wrt = (0, 1) if slots.gradient.joint else (0,)
    return jax.value_and_grad(loss, wrt, has_aux=True)(state.variables["params"], state.theta)


def move_theta(slots: Slots, key: Key, state: WeightSharingState, problem: Problem) -> tuple[WeightSharingState, Any]:
    """(state, what the gradient reports)."""
    theta, gradient, report = slots.gradient.step(key, state.theta, state.gradient, problem, state.step)
    return state._replace(theta=theta, gradient=gradient), report


def move_weights(slots: Slots, state: WeightSharingState, grads: Any, used: Any) -> tuple[Any, Any]:
    """(params, opt_state) after a clipped step; what no path has used stays as it was, decay and momentum included."""
    optimizer, params = slots.weights.optimizer, state.variables["params"]
    clip = slots.weights.clip
    clipper = optax.identity() if clip is None else optax.clip_by_global_norm(clip)
    grads, _ = clipper.update(grads, clipper.init(params))
    moved, opt_state = _update(slots)(grads, state.opt_state, params)
    if not _masked(slots.policy):
        return moved, opt_state
    other = lambda s: jnp.ones((1,) * jnp.ndim(s), jnp.int32)
    on = optax.tree_utils.tree_map_params(optimizer.init, lambda s, k: k, opt_state, used, transform_non_params=other)
    return _keep(used, moved, params), _keep(on, opt_state, state.opt_state)


def nothing_used(slots: Slots, state: WeightSharingState, actions: Any) -> Any:
    """The mask of the weights when no path is used: zeros of the params' structure; () where nothing is masked."""
    if not _masked(slots.policy):
        return ()
    first = jax.tree.map(lambda a: jnp.zeros(a.shape[1:], a.dtype), actions)
    gates = jax.tree.map(lambda g: jnp.zeros(g.shape, g.dtype), jax.eval_shape(slots.policy.gates, first))
    return jax.tree.map(jnp.zeros_like, slots.net.used(state.variables, gates)["params"])


def _masked(policy: Policy) -> bool:
    return policy.hard or policy.sparse


def _split(variables):
    return variables["params"], {k: v for k, v in variables.items() if k != "params"}


def _update(slots: Slots) -> Callable:
    def update(grads, opt_state, params):
        updates, opt_state = slots.weights.optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return update


def _ghost(batch, targets, m, paths: int):
    """The m-th of M parts of a batch, and of its targets."""
    B = len(batch[1])
    if B % paths:
        raise ValueError(f"a batch of {B} does not split into {paths} ghost batches: choose a multiple of {paths}")
    return jax.tree.map(lambda a: a.reshape(paths, B // paths, *a.shape[1:])[m], (batch, targets))


def _keep(mask, new, old):
    """The new where the mask is set, the old elsewhere."""
    return jax.tree.map(lambda k, n, o: jnp.where(k > 0, n, o), mask, new, old)


def _without_nan(theta):
    for leaf in jax.tree.leaves(theta):
        if not isinstance(leaf, jax.core.Tracer) and np.isnan(np.asarray(leaf)).any():
            raise ValueError("the `theta` given has NaN in it: start from the last finite one, or leave it out")
    return theta
