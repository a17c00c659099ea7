"""The vocabulary of nets: what every net of this package is, how one is made of a Flax module, and what they check alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, overload

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, Key
from jaxnas.spaces._space import Space, is_shape

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}
Gates = Any  # a pytree of float arrays, in the shapes of the space's gates
Extract = Callable[[Variables], Variables]  # a supernet's variables -> those of one architecture's module


class InitFn(Protocol):
    def __call__(self, key: Key, gates: Gates = None, /) -> Variables:
        """Variables to start from.

        Args:
            key: consumed.
            gates: of an architecture, where the draw depends on it; None: of any.
        """


class ApplyFn(Protocol):
    def __call__(
        self,
        variables: Variables,
        x: Any,
        gates: Gates,
        /,
        *,
        train: bool,
        path: bool = False,
        key: Key | None = None,
        t: jax.Array | int | None = None,
    ) -> tuple[jax.Array, Variables]:
        """What the gates' paths make of a batch -> (logits [B, K], the variables, whose statistics may have moved).

        Args:
            variables: of the net.
            x: images [B, H, W, C], or what a net without images reads.
            gates: of one architecture, or soft.
            train: use the batch's statistics, and move the running ones.
            path: compute only what one-hot gates choose.
            key: of dropout; None: nothing is dropped.
            t: the step of a search, for what anneals; None: nothing does.
        """


class ComputeFn(Protocol):
    def __call__(
        self,
        variables: Variables,
        x: Any,
        gates: Gates,
        t: jax.Array | int | None,
        /,
        *,
        train: bool,
        path: bool,
        rngs: dict[str, Key],
        mutable: list[str],
    ) -> Any:
        """What a module computes -> (logits, the collections that have moved); see `linen`."""


class Net(NamedTuple):
    init: InitFn
    apply: ApplyFn
    used: Callable[[Variables, Gates], Variables]  # a 0/1 tree, 1 where the paths with nonzero gates keep weights and statistics
    specialize: Callable[[Arch], tuple[nn.Module, Extract]]  # the module of one architecture, and its variables out of the net's
    space: Space
    image: tuple[int, ...]  # (H, W, C); () for a net that reads no images
    classes: int
    mixes: bool = True  # soft gates weigh operations; False: it computes one architecture, and gates are one-hot
    # Of convolutions and dense layers; rows of gates that are probabilities give the mean over architectures whose decisions are
    # drawn independently, so that it can be differentiated.
    macs: Callable[[Gates], jax.Array] | None = None  # -> [], float32: multiply-adds of one example; None: not counted


def linen(
    module: nn.Module,
    space: Space,
    image: tuple[int, ...],
    classes: int,
    *,
    used: Callable[[Variables, Gates], Variables],
    specialize: Callable[[Arch], tuple[nn.Module, Extract]],
    compute: ComputeFn | None = None,
    mixes: bool = True,
) -> Net:
    """The net of a Flax module that is called as module(x, gates, *, train, path).

    Training moves the module's "batch_stats", and a key is its rng "dropout".  A net that starts differently replaces `init`,
    and one that counts its multiply-adds `macs`.

    Args:
        module: of all architectures.
        space, image, classes, used, specialize, mixes: see `Net`.
        compute: (variables, x, gates, t, *, train, path, rngs, mutable) -> (logits, the collections that have moved), for a module
            that needs other variables or arguments; default: `module.apply`, which does not look at the step t.
    """

    def plain(variables, x, gates, t, **how):
        del t  # nothing anneals
        return module.apply(variables, x, gates, **how)

    compute = compute or plain

    def init(key, gates=None) -> Any:
        del gates  # every candidate has weights of its own, or a part of the largest one's
        return module.init(key, jnp.zeros((1, *image)), blank_gates(space), train=True)

    def apply(variables, x, gates, *, train, path=False, key=None, t=None):
        rngs = {"dropout": key} if train and key is not None else {}
        mutable = ["batch_stats"] if train else []
        logits, moved = compute(variables, x, gates, t, train=train, path=path, rngs=rngs, mutable=mutable)
        return logits, {**variables, **moved}

    return Net(init, apply, used, specialize, space, tuple(image), classes, mixes)


def blank_gates(space: Space) -> Any:
    """Zeros in the shapes of a space's gates."""
    return jax.tree.map(lambda shape: np.zeros(shape, np.float32), space.gate_shapes, is_leaf=is_shape)


def map_named(f: Callable[[tuple[str, ...], Any], Any], tree: Any) -> Any:
    """f(names, leaf) of every leaf of variables; its names are (collection, module, ..., leaf)."""
    return jax.tree_util.tree_map_with_path(lambda path, v: f(tuple(p.key for p in path), v), tree)


def mask(f: Callable[[tuple[str, ...], jax.Array], jax.Array], variables: Variables) -> Any:
    """The 0/1 tree of what f(names, leaf) says of every leaf: an array that broadcasts against the leaf's first axes."""

    def leaf(names, v):
        on = f(names, v)
        return on.astype(v.dtype).reshape(on.shape + (1,) * (v.ndim - on.ndim))

    return map_named(leaf, variables)


def number(name: str, prefix: str) -> int | None:
    """3 for "layer3" and the prefix "layer"; None for a name of another kind."""
    digits = name.removeprefix(prefix)
    return int(digits) if name.startswith(prefix) and digits.isdecimal() else None


def keep_unused(on: Variables, new: Mapping[str, Any], old: Variables) -> Variables:
    """The collections of `new`, with the old values where `on`, a tree as `Net.used` gives, is 0."""
    keep = lambda on, new, old: jnp.where(on > 0, new, old)
    return {name: jax.tree.map(keep, on[name], new[name], old[name]) for name in new}


def check_variables(net: Net, variables: Variables) -> None:
    """Raises ValueError for variables of another net: another space, other sizes, or a part alone."""
    shapes = lambda tree: {jax.tree_util.keystr(path): jnp.shape(a) for path, a in jax.tree_util.tree_leaves_with_path(tree)}
    wanted, given = shapes(jax.eval_shape(net.init, jax.random.key(0))), shapes(variables)
    if wanted != given:
        odd = min(name for name in {*wanted, *given} if wanted.get(name) != given.get(name))
        raise ValueError(
            f"these variables are of another net or space: {odd} has shape {given.get(odd, 'none')} there, and "
            f"{wanted.get(odd, 'none')} here; make the net as it was made when they were trained"
        )


def check_examples(net: Net, split: Any) -> None:
    """Raises ValueError for batches (x [W, B, ...], y) whose examples are of another shape than a net of images reads."""
    if not net.image or not isinstance(split, tuple) or not hasattr(split[0], "shape"):
        return
    shape = tuple(split[0].shape[2:])
    if shape != tuple(net.image):
        raise ValueError(
            f"this net reads examples of the shape {tuple(net.image)}, and the data's are {shape}: make it with image={shape}"
        )


def check_image(image: Sequence[int], classes: int, stride: int = 1) -> None:
    """Raises ValueError for an image that is not (H, W, C), sizes below 1, or less of it than the strides need."""
    if len(image) != 3:
        raise ValueError(f"this net reads images (H, W, C), and examples are of the shape {tuple(image)}: give images")
    if min(*image, classes) < 1:
        raise ValueError(f"image and classes must be positive: got {tuple(image)} and {classes}")
    if min(image[:2]) < stride:
        raise ValueError(f"`image` is {image}, but the strides of this space multiply to {stride}: give at least that")


@overload
def count_parameters(module_or_variables: nn.Module, image: Sequence[int]) -> int: ...


@overload
def count_parameters(module_or_variables: Variables) -> int: ...


def count_parameters(module_or_variables: Any, image: Any = None) -> int:
    """The number of weights, as papers count them: without the auxiliary head, but with the biases and the scales of norms.

    The proxy `params` counts fewer: the weights of convolutions and dense layers alone.

    Args:
        module_or_variables: variables, or a module whose shapes are inferred without computing anything.
        image: (H, W, C), needed for a module.

    Raises:
        ValueError: for a module without an image.
    """
    variables = module_or_variables
    if isinstance(variables, nn.Module):
        if image is None:
            raise ValueError("give a module the image that it reads: count_parameters(module, (H, W, C))")
        x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
        variables = jax.eval_shape(lambda x: module_or_variables.init(jax.random.key(0), x, train=True), x)
    params = {k: v for k, v in variables["params"].items() if k != "auxiliary"}
    return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))


def count_used(net: Net, gates: Gates) -> jax.Array:
    """[], float32: the weights that an architecture's gates use of a net, by `Net.used`; it can be traced.

    It counts as `count_parameters` does, of a net whose `used` marks exactly what `specialize` extracts.
    """
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    used = {k: v for k, v in net.used(zeros, gates)["params"].items() if k != "auxiliary"}
    shapes = {k: v for k, v in shapes["params"].items() if k != "auxiliary"}
    share = lambda on, v: jnp.sum(on, dtype=jnp.float32) * (v.size / on.size)
    return sum(jax.tree.leaves(jax.tree.map(share, used, shapes)), jnp.zeros(()))
