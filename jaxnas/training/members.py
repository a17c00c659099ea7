"""Training one network of many: a program whose hyper-parameters are arguments, so that a network is compiled once for all of them.

    rate(t) = rate min(1, t / (0.05 T)) (1 + cos(pi t / T)) / 2;  gradients clipped to norm 5
    sgd     Nesterov's momentum of 0.9;  decay is added to the gradient of kernels
    adam    decay times the rate is taken off kernels
    the answer is the average weights of the last tenth of the steps so far

References: the cosine, Loshchilov and Hutter, SGDR, ICLR 2017, arXiv:1608.03983; the warm-up, Goyal et al. 2017, arXiv:1706.02677;
decay beside Adam, Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101; averages of weights, Polyak and Juditsky 1992, and Izmailov
et al. 2018, arXiv:1803.05407: by them a training that goes on is worth what one that ended here would be.

A step draws its batch and its noise from the key and the step's number alone: any cutting of a training gives the same bits.

Axes: B batch, N examples, K outputs.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Key
from jaxnas.kinds import Precision
from jaxnas.nets.precision import with_precision
from jaxnas.training.losses import cross_entropy

MOMENTUM, CLIP, WARM_UP, AVERAGED = 0.9, 5.0, 0.05, 0.1


class Rule(NamedTuple):
    """How gradients become steps."""

    direction: optax.GradientTransformation
    decoupled: bool  # decay shrinks the weights, not through the gradient


RULES = {
    "sgd": Rule(optax.trace(MOMENTUM, nesterov=True), decoupled=False),
    "adam": Rule(optax.scale_by_adam(), decoupled=True),
}


class Recipe(NamedTuple):
    """What a training may vary without being compiled again; all float32[]."""

    rate: Any
    decay: Any
    dropout: Any
    pad: Any  # crops: images are shifted by up to so many pixels
    flip: Any  # odds of a mirror image
    cut: Any  # the side of a square that is blanked


class Course(NamedTuple):
    """A part of a training, to the step `stop`."""

    recipe: Recipe
    total: Any  # float32[]: T, the steps of the whole training
    stop: Any  # int32[]
    examples: Any  # int32[]: the first so many of x and y are trained on


class Packed(NamedTuple):
    """A network's variables end to end: three vectors to update compile in half the time that one array a layer takes."""

    kernels: jax.Array  # [P]: weights of two axes and more, which decay
    others: jax.Array  # [Q]: the other weights
    statistics: jax.Array  # [S]: what is not trained


class MemberState(NamedTuple):
    packed: Packed
    optimizer: Any
    average: Packed
    step: jax.Array  # int32[]


class Member(NamedTuple):
    """The functions of one network."""

    init: Callable[[Key], MemberState]
    advance: Callable[..., tuple[MemberState, jax.Array]]  # (key, state, Course, x, y) -> (state, mean loss [])
    predict: Callable[[Any, jax.Array], jax.Array]  # (variables, x [n, ...]) -> outputs [n, K]
    variables: Callable[[MemberState], Any]  # the answer, as the module holds them; of JAX or NumPy


def recipe_of(training: Any, image: tuple[int, ...]) -> Recipe:
    """The recipe of a `TrainingChoice`: crops shift by an eighth of the shorter side, a cut is half of it."""
    sides = [] if len(image) == 1 else [image[0]] if len(image) == 2 else [n for n in image[:2] if n > 1]
    side = min(sides, default=1)
    parts = training.augment.split("+")
    pad, cut = float(max(1, side // 8) * ("crop" in parts)), float(side // 2 * ("cutout" in parts))
    numbers = training.rate, training.decay, training.dropout, pad, 0.5 * ("flip" in parts), cut
    return Recipe(*(jnp.asarray(n, jnp.float32) for n in numbers))


def member(
    module: nn.Module,
    image: tuple[int, ...],
    batch: int,
    loss: Callable = cross_entropy,
    optimizer: str = "sgd",
    precision: Precision = "float32",
) -> Member:
    """The program of one module.

    Args:
        module: called as module.apply(variables, x, train=, dropout=, rngs={"dropout": key}).
        image: the shape of an example.
        batch: B.
        loss: (outputs [B, K], y) -> [].
        optimizer: of `RULES`.
        precision: that the module computes in (see `jaxnas.nets.with_precision`).

    Raises:
        ValueError: for a batch below 1, an unknown optimizer or precision, or variables that are not all of one dtype.
    """
    if optimizer not in RULES:
        raise ValueError(f"unknown optimizer {optimizer!r}: choose one of {', '.join(RULES)}")
    module, rule = with_precision(module, precision), RULES[optimizer]
    if batch < 1:
        raise ValueError(f"a batch has at least one example: got {batch}")
    first = functools.partial(module.init, train=True)
    pack, unpack = packing(jax.eval_shape(first, jax.random.key(0), jax.ShapeDtypeStruct((1, *image), jnp.float32)))

    def init(key: Key) -> MemberState:
        packed = pack(first(key, jnp.zeros((1, *image))))
        return MemberState(packed, rule.direction.init(packed[:2]), packed, jnp.zeros((), jnp.int32))

    def step(key, state, course, x, y):
        recipe, total = course.recipe, course.total
        k_rows, k_augment, k_dropout = jax.random.split(jax.random.fold_in(key, state.step), 3)
        rows = jax.random.bits(k_rows, (batch,)) % course.examples.astype(jnp.uint32)
        inputs = jax.vmap(augmented, (0, 0, None))(jax.random.split(k_augment, batch), x[rows], recipe)

        variables = unpack(state.packed)

        def objective(params):
            rngs = {"dropout": k_dropout}
            outputs, moved = module.apply(
                {**variables, "params": params}, inputs, train=True, dropout=recipe.dropout, rngs=rngs, mutable=["batch_stats"]
            )
            return loss(outputs, y[rows]), moved

        (value, moved), grads = jax.value_and_grad(objective, has_aux=True)(variables["params"])
        *grads, statistics = pack({**variables, **moved, "params": grads})
        weights, decays = state.packed[:2], (recipe.decay, 0.0)
        shrink = jnp.minimum(1.0, CLIP / jnp.maximum(optax.tree.norm(grads), 1e-12))
        decayed = lambda updates: jax.tree.map(lambda u, d, w: u + d * w, updates, decays, weights)
        grads = tuple(g * shrink for g in grads)
        updates, optimizer = rule.direction.update(grads if rule.decoupled else decayed(grads), state.optimizer, weights)
        t = state.step / total
        rate = recipe.rate * jnp.minimum(1.0, (t + 1 / total) / WARM_UP) * 0.5 * (1 + jnp.cos(jnp.pi * t))
        updates = decayed(updates) if rule.decoupled else updates
        packed = Packed(*jax.tree.map(lambda w, u: w - rate * u, weights, updates), statistics=statistics)
        share = 1 / (1 + AVERAGED * state.step)
        average = jax.tree.map(lambda a, v: a + share * (v - a), state.average, packed)
        return MemberState(packed, optimizer, average, state.step + 1), value

    def advance(key, state, course, x, y):
        def body(carry):
            state, seen = carry
            state, value = step(key, state, course, x, y)
            return state, seen + value

        start = state.step
        state, seen = jax.lax.while_loop(lambda carry: carry[0].step < course.stop, body, (state, jnp.zeros(())))
        return state, seen / jnp.maximum(course.stop - start, 1)

    def predict(variables, x):
        outputs: Any = module.apply(variables, x)
        return outputs

    return Member(init, advance, predict, lambda state: unpack(state.average))


def packing(shapes: Any) -> tuple[Callable[[Any], Packed], Callable[[Packed], Any]]:
    """(variables -> `Packed`, and back), for variables of these shapes.

    Raises:
        ValueError: where they are not all of one dtype.
    """
    listed, tree = jax.tree.flatten_with_path(shapes)
    if len(dtypes := {leaf.dtype for _, leaf in listed}) != 1:
        raise ValueError(f"a member's variables are all of one dtype: got {', '.join(sorted(map(str, dtypes)))}")
    shape = [leaf.shape for _, leaf in listed]
    part = [2 if path[0].key != "params" else int(leaf.ndim < 2) for path, leaf in listed]
    ends, filled = [], [0, 0, 0]
    for p, s in zip(part, shape, strict=True):
        filled[p] += math.prod(s)
        ends.append(filled[p])

    def pack(variables: Any) -> Packed:
        leaves = [leaf.reshape(-1) for leaf in jax.tree.leaves(variables)]
        of = lambda k: [leaf for leaf, p in zip(leaves, part, strict=True) if p == k]
        return Packed(*(jnp.concatenate(of(k)) if of(k) else jnp.zeros(0, *dtypes) for k in range(3)))

    def unpack(packed: Packed) -> Any:
        each = zip(part, ends, shape, strict=True)
        return jax.tree.unflatten(tree, [packed[p][end - math.prod(s) : end].reshape(s) for p, end, s in each])

    return pack, unpack


def augmented(key: Key, image: jax.Array, recipe: Recipe) -> jax.Array:
    """One example, shifted, mirrored and cut as the recipe says: images [H, W, C] and series [T, C]; a row [F] stays as it is."""
    if image.ndim == 1:
        return image
    if image.ndim == 2:
        return augmented(key, image[:, None], recipe)[:, 0]
    k_shift, k_flip, k_cut = jax.random.split(key, 3)
    H, W, _ = image.shape
    most = max(1, min(n for n in (H, W, max(H, W)) if n > 1 or max(H, W) == 1) // 8)
    pads = tuple((most, most) if n > 1 else (0, 0) for n in (H, W))
    shift = jnp.round(jax.random.uniform(k_shift, (2,), minval=-0.5, maxval=0.5) * (2 * recipe.pad + 0.999)).astype(jnp.int32)
    start = [most + jnp.clip(s, -most, most) if n > 1 else 0 for s, n in zip(shift, (H, W), strict=True)]
    image = jax.lax.dynamic_slice(jnp.pad(image, (*pads, (0, 0))), (*start, 0), image.shape)
    image = jnp.where(jax.random.bernoulli(k_flip, recipe.flip), image[:, ::-1], image)
    centre = jax.random.uniform(k_cut, (2,)) * jnp.asarray([H, W], jnp.float32)
    inside = lambda n, c: jnp.abs(jnp.arange(n) + 0.5 - c) < recipe.cut / 2
    hole = inside(H, centre[0])[:, None, None] & inside(W, centre[1])[None, :, None]
    return jnp.where(hole, 0.0, image)
