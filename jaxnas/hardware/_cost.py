"""Differentiable costs: a table of what each candidate costs, and the losses that weigh it against accuracy.

References: Cai, Zhu and Han, ProxylessNAS, ICLR 2019, arXiv:1812.00332, section 3.3; Wu et al., FBNet, CVPR 2019,
arXiv:1812.03443, section 3.2; Xie et al., SNAS, ICLR 2019, arXiv:1812.09926; Bender et al., TuNAS, CVPR 2020,
arXiv:2008.06120.

    E[cost] = base + sum table * gates

Gates are one-hot (then it is the cost of that architecture), probabilities (then it is the expectation over architectures whose
decisions are drawn independently) or one relaxed sample.  Latency, energy and multiply-adds (`Net.macs`) are
all such tables.  With p = softmax(alpha) of one row and t its row of the table, dE/dalpha_j = p_j (t_j - sum_i p_i t_i).

A search takes a cost with the form in which it joins what the search follows, `priced(table, form)`.  A form is a function
(value [], cost []) -> []: of a loss, which a gradient lowers, or of a reward, which REINFORCE raises.  Those with a logarithm want
the cost in a unit that makes it large.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, PositiveNumber
from jaxnas.spaces._space import Space, is_shape

SMALLEST = 1.001  # the least cost under a logarithm: at 1 a fractional power of log(cost) is infinitely steep, below it is NaN


class Cost(NamedTuple):
    table: Any  # float32, the gates' structure: what each candidate costs
    base: float  # what every architecture costs


@checked
def cost(space: Space, table: Any, base: NonNegativeNumber = 0.0) -> Cost:
    """A cost of the architectures of a space.

    Args:
        space: whose gates the table has an entry for.
        table: arrays, or lists of numbers, of the structure and shapes of `space.gate_shapes`.
        base: what every architecture costs.

    Raises:
        ValueError: for a table of another structure or shape, or for an entry or a base that is negative or not finite.
    """
    shapes, tree = jax.tree_util.tree_flatten_with_path(space.gate_shapes, is_leaf=is_shape)
    try:
        leaves = [np.asarray(leaf, float) for leaf in tree.flatten_up_to(table)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"`table` needs the structure of the gates, {tree}: {error}") from error
    for (path, shape), leaf in zip(shapes, leaves, strict=True):
        name = f"`table`{jax.tree_util.keystr(path)}"
        if leaf.shape != shape:
            raise ValueError(f"{name} has shape {leaf.shape}: give it the gates' {shape}")
        if not np.isfinite(leaf).all() or (leaf < 0).any():
            raise ValueError(f"{name} has entries that are negative or not finite: {leaf.tolist()}")
    if not math.isfinite(base) or base < 0:
        raise ValueError(f"`base` must be finite and not negative; got {base}")
    return Cost(tree.unflatten([np.asarray(leaf, np.float32) for leaf in leaves]), float(base))


def expected(cost: Cost, gates: Any) -> jax.Array:
    """base + sum table * gates, []."""
    entries = zip(jax.tree.leaves(cost.table), jax.tree.leaves(gates), strict=True)
    return jnp.asarray(cost.base + sum(jnp.sum(t * g) for t, g in entries))


Form = Callable[[jax.Array, jax.Array], jax.Array]  # (loss or quality [], cost []) -> []


class Priced(NamedTuple):
    """A cost, and how it joins the loss or the quality of a network."""

    of: Callable  # gates -> []
    form: Form


@checked
def priced(cost: Cost | Callable, form: Form) -> Priced:
    """A cost as searches take it.

    Args:
        cost: a table (`cost(...)`), or a function gates -> [].
        form: how it joins: `relative_excess(...)`, `absolute_reward(...)`, or a function (loss or quality [], cost []) -> [].

    Raises:
        ValueError: for a cost that is neither, or a form that is no function.
    """
    of = functools.partial(expected, cost) if isinstance(cost, Cost) else cost
    if not callable(of) or not callable(form):
        raise ValueError(f"give a table or a function of the gates, and a form such as relative_excess(...); got {cost} and {form}")
    return Priced(of, form)


def check_priced(cost: Priced | None) -> None:
    """Sees to it that a method's `cost` is priced, or None.

    Raises:
        ValueError: for what `priced` has not made.
    """
    if cost is not None and not isinstance(cost, Priced):
        raise ValueError(f"`cost` also says how it joins: give hardware.priced(cost, form), not a {type(cost).__name__}")


def is_additive(form: Form) -> bool:
    """Whether the form adds the cost to the loss, seen at one pair; taken on trust where its numbers are traced."""
    at = lambda loss: form(jnp.asarray(loss), jnp.asarray(2.0))
    gap = at(1.0) - at(0.0)
    return isinstance(gap, jax.core.Tracer) or abs(float(gap) - 1) < 1e-5


@checked
def additive(weight: NonNegativeNumber) -> Form:
    """loss + weight * cost (SNAS; weight is its eta).

    Raises:
        ValueError: for a negative weight.
    """
    if not isinstance(weight, jax.core.Tracer) and not weight >= 0:  # a traced one belongs to a sweep
        raise ValueError(f"`weight` must not be negative; got {weight}")
    return lambda loss, cost: loss + weight * cost


@checked
def fbnet_product(alpha: PositiveNumber = 0.2, beta: PositiveNumber = 0.6) -> Form:
    """loss * alpha * log(cost)^beta, the cost in microseconds (FBNet; alpha and beta as published).

    A cost at or below 1 counts as just above it, and has no gradient: it is in the wrong unit.

    Raises:
        ValueError: for an alpha or a beta that is not positive.
    """
    _positive(alpha=alpha, beta=beta)
    return lambda loss, cost: loss * alpha * _log(cost) ** beta


@checked
def proxyless_product(reference: PositiveNumber, alpha: PositiveNumber = 0.2, beta: PositiveNumber = 0.3) -> Form:
    """alpha * loss * (log(cost) / log(reference))^beta (ProxylessNAS's released search; alpha and beta are its).

    A cost at or below 1 counts as just above it, and has no gradient.

    Args:
        reference: the cost to aim at, in the same unit, above 1: as 80 milliseconds on a phone.

    Raises:
        ValueError: for a reference at or below 1, or an alpha or a beta that is not positive.
    """
    _positive(alpha=alpha, beta=beta)
    if not (math.isfinite(reference) and reference > 1):
        raise ValueError(f"`reference` stands under a logarithm: give it in a unit that makes it more than 1; got {reference}")
    return lambda loss, cost: alpha * loss * (_log(cost) / math.log(reference)) ** beta


@checked
def relative_excess(reference: PositiveNumber, weight: NonNegativeNumber = 0.1) -> Form:
    """loss + weight * (cost - reference) / reference (ProxylessNAS, in units of the reference; weight of its search).

    Raises:
        ValueError: for a reference that is not positive, or a negative weight.
    """
    _positive(reference=reference)
    if not weight >= 0:
        raise ValueError(f"`weight` must not be negative; got {weight}")
    return lambda loss, cost: loss + weight * (cost - reference) / reference


@checked
def absolute_reward(target: PositiveNumber, beta: float = -0.1) -> Form:
    """quality + beta * |cost / target - 1| (TuNAS's absolute reward; beta as published).

    Args:
        target: T0, in the cost's unit.
        beta: not positive.

    Raises:
        ValueError: for a target that is not positive, or a positive beta.
    """
    _positive(target=target)
    if not beta <= 0:
        raise ValueError(f"`beta` must not be positive, or what is off the target is rewarded; got {beta}")
    return lambda quality, cost: quality + beta * jnp.abs(cost / target - 1)


@checked
def power_reward(reference: PositiveNumber, power: NonNegativeNumber = 0.1) -> Form:
    """quality * (reference / cost)^power (ProxylessNAS's REINFORCE; power as published).

    Args:
        reference: the cost to aim at, in the same unit.
        power: how much the cost weighs, not negative.

    Raises:
        ValueError: for a reference that is not positive, or a negative power.
    """
    _positive(reference=reference)
    if not power >= 0:
        raise ValueError(f"`power` must not be negative, or what costs more is rewarded; got {power}")
    return lambda quality, cost: quality * (reference / cost) ** power


@checked
def lagrangian(target: PositiveNumber) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """(loss, cost, multiplier) -> loss + multiplier * (cost / target - 1): at most `target` is allowed.

    The multiplier is the search's state, moved by `dual_ascent` (dual ascent): at a saddle point cost = target, or multiplier = 0.

    Raises:
        ValueError: for a target that is not positive.
    """
    _positive(target=target)
    return lambda loss, cost, multiplier: loss + multiplier * (cost / target - 1)


def dual_ascent(multiplier: jax.Array, cost: jax.Array, target: float, rate: float) -> jax.Array:
    """max(0, multiplier + rate * (cost / target - 1)), []."""
    return jnp.maximum(0, multiplier + rate * (cost / target - 1))


def _log(cost):
    return jnp.log(jnp.maximum(cost, SMALLEST))


def _positive(**numbers):
    for name, number in numbers.items():
        if not (math.isfinite(number) and number > 0):
            raise ValueError(f"`{name}` must be positive and finite; got {number}")
