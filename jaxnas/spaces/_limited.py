"""A space within a limit: what would cost more is never drawn, whatever algorithm asks.

    sample: the first of T uniform draws that costs at most the limit;  where none does, the cheapest of them
    mutate: the first of T mutants that does;                           where none does, the architecture as it was

A uniform draw is so uniform over what the limit allows, up to (1 - p)^T of the cases, p the share that it allows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnas.base import Arch, Key
from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber
from jaxnas.spaces._space import Space
from jaxnas.trees import take


@checked
def limited(space: Space, cost: Callable[[Arch], jax.Array], limit: PositiveNumber, draws: Positive = 64) -> Space:
    """The space whose `sample` and `mutate` stay within a limit; crossover and neighbors do not know of it.

    Args:
        space: the whole one.
        cost: arch -> [], in the limit's unit; traceable.
        limit: the most that an architecture may cost.
        draws: T.

    Raises:
        ValueError: for a limit that is not positive, or no draw.
    """
    if not limit > 0 or draws < 1:
        raise ValueError(f"give a positive limit and at least one draw: got {limit} and {draws}")

    def sample(key: Key) -> Arch:
        some = jax.vmap(space.sample)(jax.random.split(key, draws))
        costs = jax.vmap(cost)(some)
        fits = costs <= limit
        return take(some, jnp.where(jnp.any(fits), jnp.argmax(fits), jnp.argmin(costs)))

    def mutate(key: Key, arch: Arch) -> Arch:
        some = jax.vmap(space.mutate, (0, None))(jax.random.split(key, draws), arch)
        fits = jax.vmap(cost)(some) <= limit
        return jax.tree.map(lambda new, old: jnp.where(jnp.any(fits), new, old), take(some, jnp.argmax(fits)), arch)

    return space._replace(sample=sample, mutate=mutate)
