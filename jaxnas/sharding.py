"""Where arrays live on a mesh.  Outside a mesh, or on a mesh without the axis, everything here is the identity.

Three axis names are used: "seed" (whole searches), "pop" (the candidates of a population) and "batch" (examples).
The mesh must have `Auto` axes, as `mesh()` makes them: the compiler then propagates what is marked here.
"""

from typing import TypeVar

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

AXES = ("seed", "pop", "batch")
Tree = TypeVar("Tree")  # a pytree of arrays, which comes back as it went in


def mesh(axis: str, devices: int | None = None) -> jax.sharding.Mesh:
    """A one-dimensional mesh over `devices` devices (default: all) that shards `axis`.

    Raises:
        ValueError: for an unknown axis or more devices than there are.
    """
    if axis not in AXES:
        raise ValueError(f"unknown mesh axis {axis!r}: choose one of {', '.join(AXES)}")
    have = jax.device_count()
    n = have if devices is None else devices
    if not 1 <= n <= have:
        raise ValueError(f"a mesh of {n} devices was asked for, and there are {have}")
    return jax.make_mesh((n,), (axis,), axis_types=(AxisType.Auto,), devices=jax.devices()[:n])


def constrain(tree: Tree, axis: str, dim: int = 0) -> Tree:
    """Marks dimension `dim` of every leaf as sharded over `axis` of the mesh in force (`jax.set_mesh`), if it has one.

    Leaves whose dimension the axis does not divide are left alone.
    """
    here = jax.sharding.get_abstract_mesh()
    if here.empty or axis not in here.axis_names:
        return tree

    def leaf(x: jax.Array) -> jax.Array:
        if x.ndim <= dim or x.shape[dim] % here.shape[axis]:
            return x
        return jax.lax.with_sharding_constraint(x, PartitionSpec(*[None] * dim, axis))

    return jax.tree.map(leaf, tree)


def over(mesh: jax.sharding.Mesh, axis: str | None) -> NamedSharding:
    """The sharding of an array whose first dimension lies on `axis` of the mesh; replicated where it has no such axis."""
    return NamedSharding(mesh, PartitionSpec(axis) if axis in mesh.axis_names else PartitionSpec())
