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

from jaxnas.base import Strategy
from jaxnas.nets.base import Net, check_variables
from jaxnas.policies.policy import Policy
from jaxnas.training.losses import cross_entropy
from jaxnas.trees import loop

FIRST = np.int32(0)  # the number of a lone path


class Problem(NamedTuple):
    """What an architecture gradient may see: the bilevel problem at the current weights."""

    loss: Callable  # (params, gates, (x, y), key) -> (loss [], (statistics, accuracy []))
    update: Callable  # (grads, opt_state, params) -> (params, opt_state): the weight optimizer, without the clip
    params: Any
    opt_state: Any
    look: Any  # (x, y) [K, B, ...]
    valid: Any  # (x, y) [B, ...]
    theta_grad: Any  # a joint gradient's: what the weight step's own backward pass left; None otherwise


class Gradient(NamedTuple):
    """How theta moves."""

    init: Callable  # theta -> state (of an optimizer, of a baseline)
    step: Callable  # (key, theta, state, problem, t) -> (theta, state, info {name: []})
    joint: bool = False  # single level: the weight step's sample and backward pass yield the gradient (problem.theta_grad)


class Path(NamedTuple):
    """What a loss may look at besides logits and labels."""

    number: jax.Array  # int32[]: the m-th of the M paths
    params: Any
    gates: Any
    targets: Any  # the teacher's; None without one


class Given(NamedTuple):
    """What an earlier phase hands over; None: drawn anew."""

    variables: Any = None
    opt_state: Any = None  # of the weight optimizer
    theta: Any = None
    open: Any = None  # bool, of the gates' structure: the operations that are still in the search


class WeightSharingState(NamedTuple):
    variables: Any  # {"params", "batch_stats"}
    opt_state: Any
    theta: Any
    gradient: Any
    step: jax.Array  # int32[]


class WeightSharingInfo(NamedTuple):
    loss: jax.Array  # [] mean training loss of the weight steps; not finite: the run has diverged
    accuracy: jax.Array  # [] on the training batches
    gates: Any  # the first path's gates, at the step's start
    gradient: dict  # what the gradient reports, {name: []}


def weight_sharing(
    net: Net,
    policy: Policy,
    gradient: Gradient,
    weights: optax.GradientTransformation,
    *,
    clip: float | None = 5.0,
    loss: Callable = cross_entropy,
    teacher: Callable | None = None,
    ghost: bool = False,
    perturb: Callable | None = None,
) -> Strategy:
    """A search that trains one supernet while it moves the architecture parameters.

    Args:
        net: the supernet.
        policy: which gates the weights see.
        gradient: how theta moves.
        weights: the weight optimizer; weight decay goes in it (`optax.add_decayed_weights` before `optax.sgd`).
        clip: global norm that the weights' gradient is clipped to, before the decay is added; None: not.  The look-ahead
            of a second-order gradient is not clipped, as published.
        loss: (logits, y, path) -> [], with a `Path`.
        teacher: (variables, x, fixed) -> targets, once a weight step, without a gradient; `fixed` is the batch's.  A loss
            finds them in its path.
        ghost: each of the M paths sees its own M-th of the batch (its ghost batch), and not all of it.
        perturb: (key, gates, loss_of, t) -> the gates that the weight step sees instead (SmoothDARTS); `loss_of(gates)` is the
            training loss of its batch with the running statistics.

    `init(key, given)` takes a `Given` from an earlier phase.

    Raises:
        ValueError: for a relaxation on a net that computes one architecture at a time; in `init`, for variables of another net, a
            theta with NaN, or operations left out of a policy that cannot; when traced, for a batch that does not split into M
            ghost batches.
    """
    if not policy.hard and not net.mixes:
        raise ValueError("this net computes one architecture, it mixes none: take a policy of hard gates, or a black-box search")
    clipper = optax.identity() if clip is None else optax.clip_by_global_norm(clip)
    split = lambda variables: (variables["params"], {k: v for k, v in variables.items() if k != "params"})

    masked = policy.hard or policy.sparse

    def evaluate(params, stats, gates, batch, key, t, number=FIRST, targets=None):
        x, y = batch
        logits, new = net.apply({**stats, "params": params}, x, gates, train=True, path=policy.hard, key=key, t=t)
        accuracy = jnp.mean((jnp.argmax(logits, -1) == y).astype(jnp.float32))
        value = loss(logits, y, Path(number, params, gates, targets)) + sum(jax.tree.leaves(new.get("losses", {})))
        return value, (jax.lax.stop_gradient({name: new[name] for name in stats}), accuracy)

    def update(grads, opt_state, params):
        updates, opt_state = weights.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def init(key, given=None):
        k_net, k_theta = jax.random.split(key)
        variables, opt_state, theta, still = Given() if given is None else given
        if variables is None:
            variables = net.init(k_net)
        else:
            check_variables(net, variables)
        opt_state = weights.init(variables["params"]) if opt_state is None else opt_state
        theta = policy.init(k_theta) if theta is None else _without_nan(theta)
        if still is not None:
            if policy.close is None:
                raise ValueError("this policy cannot leave operations out: give no `open`")
            theta = policy.close(theta, still)
        return WeightSharingState(variables, opt_state, theta, gradient.init(theta), jnp.zeros((), jnp.int32))

    def arch_step(key, state, batches):
        valid, look = batches
        params, stats = split(state.variables)
        on = lambda params, gates, batch, key: evaluate(params, stats, gates, batch, key, state.step)
        problem = Problem(on, update, params, state.opt_state, look, valid, None)
        theta, gradient_state, info = gradient.step(key, state.theta, state.gradient, problem, state.step)
        return state._replace(theta=theta, gradient=gradient_state), info

    def weight_step(key, state, batch, fixed):
        k_sample, k_loss, k_theta = jax.random.split(key, 3)
        params, stats = split(state.variables)
        targets = None if teacher is None else jax.lax.stop_gradient(teacher(state.variables, batch[0], fixed))
        k_perturb = jax.random.fold_in(k_loss, 2**31 - 1)

        draw = lambda theta: policy.sample(jax.random.clone(k_sample), theta, state.step)  # the same M paths every time
        actions = jax.eval_shape(draw, state.theta)
        paths = jax.tree.leaves(actions)[0].shape[0]

        def part(tree, m):  # what path m sees of the batch
            if not ghost:
                return tree
            if (B := len(batch[1])) % paths:
                raise ValueError(f"a batch of {B} does not split into {paths} ghost batches: choose a multiple of {paths}")
            return jax.tree.map(lambda a: a.reshape(paths, B // paths, *a.shape[1:])[m], tree)

        def one(carry, m):  # one path: its gradient is added, its statistics move
            stats, grads, used = carry
            own, aims = part(batch, m), part(targets, m)

            def loss_of(gates):
                still = jax.lax.stop_gradient({**split(state.variables)[1], "params": params})
                logits = net.apply(still, own[0], gates, train=False, path=policy.hard)[0]
                return loss(logits, own[1], Path(m, still["params"], gates, aims))

            def on_path(params, theta):
                gates = policy.gates(jax.tree.map(lambda a: a[m], draw(theta)))
                if perturb is not None:
                    gates = perturb(jax.random.fold_in(k_perturb, m), gates, loss_of, state.step)
                seen = (own, jax.random.fold_in(k_loss, m), state.step, m, aims)
                value, (new, accuracy) = evaluate(params, stats, gates, *seen)
                return value, (new, accuracy, gates)

            wrt = (0, 1) if gradient.joint else (0,)
            (value, (new, accuracy, gates)), g = jax.value_and_grad(on_path, wrt, has_aux=True)(params, state.theta)
            if masked:
                mask = net.used({**stats, "params": params}, jax.lax.stop_gradient(gates))
                new = jax.tree.map(lambda n, o, k: jnp.where(k > 0, n, o), new, stats, split(mask)[1])
                used = jax.tree.map(jnp.maximum, used, mask["params"])
            return (new, jax.tree.map(jnp.add, grads, g), used), (value, accuracy, gates)

        zeros = (params, state.theta) if gradient.joint else (params,)
        nothing = jax.tree.map(jnp.zeros_like, zeros)
        unused = ()
        if masked:
            gates = jax.eval_shape(lambda: policy.gates(jax.tree.map(lambda a: jnp.zeros(a.shape[1:], a.dtype), actions)))
            gates = jax.tree.map(lambda g: jnp.zeros(g.shape, g.dtype), gates)
            unused = jax.tree.map(jnp.zeros_like, net.used(state.variables, gates)["params"])
        (stats, grads, used), (values, accuracies, gates) = loop(one, (stats, nothing, unused), jnp.arange(paths))
        grads, *theta_grad = jax.tree.map(lambda g: g / paths, grads)
        grads, _ = clipper.update(grads, clipper.init(params))
        moved, opt_state = update(grads, state.opt_state, params)
        if masked:
            moved, opt_state = _masked(weights, (params, state.opt_state), (moved, opt_state), used)
        info = (jnp.mean(values), jnp.mean(accuracies), jax.tree.map(lambda g: g[0], gates))
        state = state._replace(variables={**stats, "params": moved}, opt_state=opt_state)
        if not gradient.joint:
            return state, (*info, {})
        problem = Problem(None, update, moved, opt_state, None, None, theta_grad[0])
        theta, gradient_state, extra = gradient.step(k_theta, state.theta, state.gradient, problem, state.step)
        return state._replace(theta=theta, gradient=gradient_state), (*info, extra)

    def step(key, state, batch):
        k_arch, k_weights = jax.random.split(key)
        reported = {}
        if not gradient.joint and batch.valid is not None:
            A = jax.tree.leaves(batch.valid)[0].shape[0]
            look = batch.look
            if look is None:  # the look-ahead takes the very batch that the weights train on next
                look = jax.tree.map(lambda a: jnp.broadcast_to(a[None, :1], (A, 1, *a.shape[1:])), batch.train)
            keys = jax.random.split(k_arch, A)
            state, reported = loop(lambda s, xs: arch_step(xs[0], s, xs[1]), state, (keys, (batch.valid, look)))
        W = jax.tree.leaves(batch.train)[0].shape[0]
        keys = jax.random.split(k_weights, W)
        weigh = lambda s, xs: weight_step(xs[0], s, xs[1], batch.fixed)
        state, (values, accuracies, gates, extra) = loop(weigh, state, (keys, batch.train))
        info = WeightSharingInfo(
            loss=jnp.mean(values),
            accuracy=jnp.mean(accuracies),
            gates=jax.tree.map(lambda g: g[0], gates),
            gradient=jax.tree.map(jnp.mean, {**reported, **extra}),
        )
        return state._replace(step=state.step + 1), info

    return Strategy(init, step, lambda state: policy.derive(state.theta))


def _without_nan(theta):
    for leaf in jax.tree.leaves(theta):
        if not isinstance(leaf, jax.core.Tracer) and np.isnan(np.asarray(leaf)).any():
            raise ValueError("the `theta` given has NaN in it: start from the last finite one, or leave it out")
    return theta


def _masked(weights, before, after, used):
    """Weights and optimizer state of the unsampled paths stay as they were, decay and momentum included."""
    (params, opt_state), (moved, new_state) = before, after
    pick = lambda k, n, o: jnp.where(k > 0, n, o)
    on = optax.tree_utils.tree_map_params(
        weights, lambda s, k: k, new_state, used, transform_non_params=lambda s: jnp.ones((1,) * jnp.ndim(s), jnp.int32)
    )
    return jax.tree.map(pick, used, moved, params), jax.tree.map(pick, on, new_state, opt_state)
