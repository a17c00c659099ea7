"""The laws that every strategy obeys, and the table of strategies: a new one joins by one row.

Rows are tiny, since compiling is what they cost.  `toy` rows search a space whose optimum is known.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas import ask_tell, base, nets, policies, spaces, weight_sharing
from jaxnas.base import Batch, Strategy
from jaxnas.bilevel import unrolled

IMAGE, CLASSES, EXAMPLES = (4, 4, 1), 3, 8


class Row(NamedTuple):
    strategy: Strategy
    batch: Callable[[jax.Array], Any]  # key -> Batch
    exact: bool  # an integer search: vmap equals a loop to the last bit


def images(key):
    """A batch with one weight and one architecture step."""
    k_x, k_y = jax.random.split(key)
    x = jax.random.normal(k_x, (2, 1, EXAMPLES, *IMAGE))
    y = jax.random.randint(k_y, (2, 1, EXAMPLES), 0, CLASSES)
    return Batch(train=(x[0], y[0]), valid=(x[1], y[1]))


class Flat(NamedTuple):
    a: Any


def flat_space():
    """1,024 architectures; the fitness is the number of decisions that are 3."""
    return spaces.space(Flat([4, 4, 4, 4, 4]))


def ones_max(key, archs, batch):
    del key, batch
    return {"accuracy": jnp.sum(jnp.stack([jnp.asarray(a == 3, jnp.float32) for a in archs.a]), 0)}


def cell_space():
    return spaces.darts(nodes=1, ops=("none", "skip_connect", "sep_conv_3x3"))


def tiny_net(space):
    return nets.cell_net(space, image=IMAGE, classes=CLASSES, channels=2, cells=1)


def black_box(algorithm):
    return Row(base.black_box(algorithm(flat_space()), base.stateless(ones_max)), lambda key: Batch(), True)


def shared(make):
    return Row(make(tiny_net(cell_space())), images, False)


def single_path(net):
    """Uniform single paths: a hard policy, so that unsampled weights must not move."""
    return weight_sharing.weight_sharing(net, policies.uniform(net.space), weight_sharing.none, weight_sharing.sgd(0.1))


def noisy_softmax(space, paths=2):
    """A relaxation that draws: alpha with Gumbel noise, through a softmax."""
    plain = policies.softmax(space)

    def sample(key, theta, t):
        leaves, tree = jax.tree.flatten(theta)
        keys = jax.random.split(key, len(leaves))
        noisy = [a[None] + jax.random.gumbel(k, (paths, *a.shape)) for k, a in zip(keys, leaves, strict=True)]
        return jax.tree.map(lambda a: jax.nn.softmax(a, -1), tree.unflatten(noisy))

    return plain._replace(sample=sample)


def descent(rate, joint):
    """theta follows the gradient that the weight step's own backward pass left."""
    step = lambda key, theta, state, problem, t: (
        jax.tree.map(lambda a, g: a - rate * g, theta, problem.theta_grad),
        state,
        {"norm": optax.tree.norm(problem.theta_grad)},
    )
    return weight_sharing.Gradient(lambda theta: (), step, joint)


def joint_two_paths(net):
    """Single level, two paths to a step: the shape of SNAS."""
    return weight_sharing.weight_sharing(net, noisy_softmax(net.space), descent(0.5, True), weight_sharing.sgd(0.1))


def darts_two_steps(net):
    policy = policies.softmax(net.space)
    gradient = weight_sharing.pathwise(policy, weight_sharing.adam(), unrolled())
    return weight_sharing.weight_sharing(net, policy, gradient, weight_sharing.sgd(0.1), clip=None)


ROWS: dict[str, Callable[[], Row]] = {
    "random_search": lambda: black_box(lambda s: ask_tell.random_search(s, batch=2)),
    "aging_evolution": lambda: black_box(lambda s: ask_tell.aging_evolution(s, population=8, tournament=4, batch=2)),
    "darts": lambda: shared(weight_sharing.darts),
    "darts, first order": lambda: shared(lambda net: weight_sharing.darts(net, order="first")),
    "darts, finite difference": lambda: shared(lambda net: weight_sharing.darts(net, order="finite_difference")),
    "uniform single path": lambda: shared(single_path),
    "joint gradient of two paths": lambda: shared(joint_two_paths),
}
