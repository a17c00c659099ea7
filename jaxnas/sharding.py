"""Where arrays live on a mesh.  Outside a mesh, or on a mesh without the axis, everything here is the identity.

Three axes, alone or together: "seed" (whole searches), "pop" (the candidates of a population) and "batch" (examples).
The mesh must have `Auto` axes, as `mesh()` makes them: the compiler then propagates what is marked here.

The driver places what it runs:

    keys and states      split over "seed", where there are seeds; leaves of at least `LARGE` elements also over "pop" and "batch",
                         each along the first dimension that it divides, so that a device holds a part of them
    arrays of a feed     whole on every device: a draw picks examples from anywhere
    arrays of a stream   their seeds split over "seed", their examples over "batch": see `jaxnas.driver.slices`
    drawn batches        split over "batch", by the feeds of `jaxnas.data`
    candidates           split over "pop"
"""

import math
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnas.checks import checked
from jaxnas.kinds import Positive

AXES = ("seed", "pop", "batch")
LARGE = 2**16  # elements, from which on a leaf of a state is split
WHAT = {"seed": "seeds", "pop": "candidates", "batch": "examples of a batch"}
Tree = TypeVar("Tree")  # a pytree of arrays, which comes back as it went in


@checked
def mesh(*, seed: Positive | None = None, pop: Positive | None = None, batch: Positive | None = None) -> jax.sharding.Mesh:
    """A mesh of seed x pop x batch devices, the first that there are; it has the axes that are named.

        sharding.mesh(batch=jax.device_count())    data-parallel training on all devices
        sharding.mesh(seed=2, batch=4)             two searches at a time, each on four devices

    Args:
        seed: parts that the seeds of `nas.run(seeds=...)` are split into.
        pop: parts of the candidates of a step.
        batch: parts of the examples of a batch.

    Raises:
        ValueError: without an axis, for more devices than there are, or, under `jax.distributed`, for fewer.
    """
    sizes = {name: size for name, size in zip(AXES, (seed, pop, batch), strict=True) if size is not None}
    if not sizes:
        raise ValueError(f"a mesh needs an axis: give the size of one or more of {', '.join(AXES)}")
    n, have = math.prod(sizes.values()), jax.device_count()
    asked = " x ".join(f"{name}={size}" for name, size in sizes.items())
    if n > have:
        raise ValueError(f"a mesh of {asked} needs {n} devices, and there are {have}")
    if n < have and jax.process_count() > 1:
        raise ValueError(
            f"a mesh of {asked} fills {n} of the {have} devices, and several processes need all of them: enlarge an axis"
        )
    kinds = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds, devices=jax.devices()[:n])


def constrain(tree: Tree, axis: str, dim: int = 0) -> Tree:
    """Marks dimension `dim` of every leaf as sharded over `axis` of the mesh in force (`jax.set_mesh`), if it has one.

    Leaves without that dimension are left alone.

    Raises:
        ValueError: when traced, for a dimension that the axis does not divide.
    """
    here = jax.sharding.get_abstract_mesh()
    if here.empty or axis not in here.axis_names:
        return tree

    def leaf(x: jax.Array) -> jax.Array:
        if x.ndim <= dim:
            return x
        require_divides(x.shape[dim], axis, here)
        return jax.lax.with_sharding_constraint(x, PartitionSpec(*[None] * dim, axis))

    return jax.tree.map(leaf, tree)


def require_divides(count: int, axis: str, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> None:
    """Raises ValueError where `count` things cannot be split evenly over an axis of a mesh."""
    size = mesh.shape[axis]
    if count % size:
        raise ValueError(
            f"{count} {WHAT.get(axis, 'rows')} cannot be split over the {size} parts of the mesh's axis {axis!r}: "
            f"take a multiple of {size}, or a smaller axis"
        )


def require_seeds(seeds: int | None, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError for a mesh with an axis "seed" and seeds that it does not divide, or none."""
    if "seed" not in mesh.axis_names:
        return
    if seeds is None:
        raise ValueError("the mesh has an axis 'seed', and this is one search: say how many seeds, or take other axes")
    require_divides(seeds, "seed", mesh)


def spec(x: jax.Array | jax.ShapeDtypeStruct, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh, seeds: bool) -> PartitionSpec:
    """How the driver lays a leaf of a state on a mesh; `seeds`: whether its first dimension is theirs."""
    parts: list[str | None] = [None] * x.ndim
    if seeds and x.ndim and "seed" in mesh.axis_names:
        parts[0] = "seed"
    if x.size >= LARGE:
        for axis in ("pop", "batch"):
            size = mesh.shape.get(axis, 1)
            free = (d for d in range(int(seeds), x.ndim) if parts[d] is None and size > 1 and x.shape[d] % size == 0)
            if (d := next(free, None)) is not None:
                parts[d] = axis
    return PartitionSpec(*parts)


def spread(state: Tree, seeds: bool) -> Tree:
    """Marks the leaves of a state, when traced, as lying where `spec` says, on the mesh in force."""
    here = jax.sharding.get_abstract_mesh()
    if here.empty:
        return state
    here_spec = lambda x: spec(x, here, seeds)
    mark = lambda x: jax.lax.with_sharding_constraint(x, here_spec(x)) if any(here_spec(x)) else x
    return jax.tree.map(mark, state)


def whole(tree: Tree) -> Tree:
    """Marks every leaf, when traced, as whole on every device of the mesh in force: any process can read it."""
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec())


def place(state: Tree, mesh: jax.sharding.Mesh, seeds: bool) -> Tree:
    """Puts arrays, which every process has whole, where `spec` says."""
    return jax.tree.map(lambda x: _put(x, NamedSharding(mesh, spec(x, mesh, seeds))), state)


def laid_out(shapes: Tree, mesh: jax.sharding.Mesh, seeds: bool) -> Tree:
    """The shapes of a state, each with where `spec` says that it lies."""
    lies = lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=NamedSharding(mesh, spec(s, mesh, seeds)))
    return jax.tree.map(lies, shapes)


def replicate(tree: Tree, mesh: jax.sharding.Mesh) -> Tree:
    """Puts arrays, which every process has, whole on every device of a mesh."""
    return jax.tree.map(lambda x: _put(x, NamedSharding(mesh, PartitionSpec())), tree)


def _put(x: jax.Array | np.ndarray, lies: NamedSharding) -> jax.Array:
    if lies.is_fully_addressable:
        return jax.device_put(x, lies)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(x), lies), impl=jax.random.key_impl(x))
    whole = np.asarray(x)
    return jax.make_array_from_callback(whole.shape, lies, lambda part: whole[part])
