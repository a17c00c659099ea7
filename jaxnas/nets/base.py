"""The vocabulary of nets: what every net of this package is made as, and what they check alike."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.spaces._space import Space

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}


class Net(NamedTuple):
    init: Callable  # (key, gates=None) -> variables; gates, where the draw depends on the architecture
    apply: Callable  # (variables, x [B, H, W, C], gates, *, train, path=False, key=None, t=None) -> (logits [B, K], variables)
    used: Callable  # (variables, gates) -> a 0/1 tree, 1 where the paths with nonzero gates keep weights and statistics
    specialize: Callable  # arch -> (module, extract); extract(variables) -> the module's variables
    space: Space
    image: tuple[int, ...]  # (H, W, C); () for a net that reads no images
    classes: int
    mixes: bool = True  # soft gates weigh operations; False: it computes one architecture, and gates are one-hot


def check_variables(net: Net, variables) -> None:
    """Raises ValueError for variables of another net: another space, other sizes, or a part alone."""
    shapes = lambda tree: {jax.tree_util.keystr(path): jnp.shape(a) for path, a in jax.tree_util.tree_leaves_with_path(tree)}
    wanted, given = shapes(jax.eval_shape(net.init, jax.random.key(0))), shapes(variables)
    if wanted != given:
        odd = min(name for name in {*wanted, *given} if wanted.get(name) != given.get(name))
        raise ValueError(
            f"these variables are of another net or space: {odd} has shape {given.get(odd, 'none')} there, and "
            f"{wanted.get(odd, 'none')} here; make the net as it was made when they were trained"
        )


def check_image(image, classes: int, stride: int = 1) -> None:
    """Raises ValueError for an image that is not (H, W, C), sizes below 1, or less of it than the strides need."""
    if len(image) != 3 or min(*image, classes) < 1:
        raise ValueError(f"`image` is (H, W, C) and positive, as `classes` is: got {image} and {classes}")
    if min(image[:2]) < stride:
        raise ValueError(f"`image` is {image}, but the strides of this space multiply to {stride}: give at least that")


def count_parameters(module_or_variables, image=None) -> int:
    """The number of weights, as papers count them: without the auxiliary head.

    Args:
        module_or_variables: variables, or a module whose shapes are inferred without computing anything.
        image: (H, W, C), needed for a module.
    """
    variables = module_or_variables
    if isinstance(variables, flax.linen.Module):
        x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
        variables = jax.eval_shape(lambda x: module_or_variables.init(jax.random.key(0), x, train=True), x)
    params = {k: v for k, v in variables["params"].items() if k != "auxiliary"}
    return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))
