"""The steps that users run, at their real sizes and as toys, as functions of a key, a state and data whose shapes are known."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxnas as nas
from jaxnas import hardware, nets, spaces, training, weight_sharing
from jaxnas.base import Batch
from jaxnas.evaluate.population import batch_score, population
from jaxnas.weight_sharing.ofa import progressive_shrinking, stages

Shape = tuple[int, ...]
CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
ACCURACY = batch_score(training.CLASSES)
KEY = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)


class Step(NamedTuple):
    """One step, and what it starts from."""

    init: Callable[[jax.Array], Any]  # key -> state
    step: Callable[..., tuple[Any, Any]]  # (key, state, data) -> (state, info)
    data: Any  # a tree of shapes: images are floats, labels of `classes` integers
    classes: int

    def arguments(self) -> tuple:
        """The shapes of what `step` takes."""
        return KEY, jax.eval_shape(self.init, KEY), self.data


def images(shape: Shape, size: int, weight_steps: int = 1, arch_steps: int = 1) -> Batch:
    """The shapes of a batch of `size` images for each weight and architecture step."""
    part = lambda n: (jax.ShapeDtypeStruct((n, size, *shape), jnp.float32), jax.ShapeDtypeStruct((n, size), jnp.int32))
    return Batch(train=part(weight_steps) if weight_steps else None, valid=part(arch_steps) if arch_steps else None)


def of(strategy: nas.Strategy, batch: Batch, classes: int = 10) -> Step:
    """The step of a search, or of a training."""
    return Step(strategy.init, strategy.step, batch, classes)


def cells(
    make: Callable,
    space: spaces.Space,
    image: Shape = CIFAR,
    channels: int = 16,
    count: int = 8,
    size: int = 64,
    arch_steps: int = 1,
) -> Step:
    """A search among cells; `make` gives the method for a net."""
    net = nas.cell_net(space, image=image, classes=10, channels=channels, cells=count)
    return of(make(net), images(image, size, arch_steps=arch_steps))


def macro(make: Callable, layers: int = 12, image: Shape = CIFAR, channels: int = 36, size: int = 128) -> Step:
    """A search among whole networks of ENAS."""
    return of(make(nets.macro_net(spaces.enas_macro(layers), image=image, classes=10, channels=channels)), images(image, size))


def evaluation(space: spaces.Space, genotype, channels: int, count: int, image: Shape = CIFAR, size: int = 96) -> Step:
    """The training of one network of cells."""
    module = nets.evaluation_net(space, genotype, classes=10, channels=channels, cells=count)
    return of(nas.train(module, training.sgd(0.025), image, steps=100), images(image, size, arch_steps=0))


def populations(
    mode: str | int | None,
    score: Callable = ACCURACY,
    image: Shape = CIFAR,
    channels: int = 16,
    count: int = 3,
    size: int = 64,
    members: int = 8,
) -> Step:
    """Four steps of training for each of a population; its state holds the architectures, and what `score` gives of each."""
    space = spaces.nasbench201()
    net = nas.cell_net(space, image=image, classes=10, channels=channels, cells=count)
    trained = population(net, training.sgd(0.1), score, mode)
    data = images(image, size, 4, 1)[:2]
    run = lambda key, archs, data: trained(jax.random.split(key, members), archs, *data)

    def init(key):
        archs = jax.vmap(space.sample)(jax.random.split(key, members))
        return archs, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(run, KEY, archs, data))

    def step(key, state, data):
        metrics = run(key, state[0], data)
        return (state[0], metrics), {"loss": jnp.mean(metrics["loss"])}

    return Step(init, step, data, 10)


def mobile(space: spaces.Space, image: Shape = IMAGENET, classes: int = 1000, size: int = 32, macs: float = 300e6) -> Step:
    """ProxylessNAS, whose loss has a price on multiply-adds."""
    net = nas.mobile_net(space, image=image, classes=classes)
    cost = hardware.priced(net.macs, hardware.proxyless_product(macs))
    return of(weight_sharing.proxylessnas(net, training.sgd(0.05), cost=cost), images(image, size), classes)


def once_for_all(name: str, space: spaces.Space, image: Shape = IMAGENET, classes: int = 1000, size: int = 32) -> Step:
    """The stage of this name of progressive shrinking; its state follows from those before, whose steps are not taken."""
    net = nets.elastic_net(space, image=image, classes=classes)
    order = [stage.name for stage in stages(space)]
    batch = images(image, size, 1, 0)
    feed = nas.Feed((), lambda key, arrays, t: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), batch))
    plan = progressive_shrinking(net, steps=dict.fromkeys(order, 10), data=feed)[: order.index(name) + 1]

    def init(key):
        state = plan[0].strategy.init(key)
        for phase in plan[1:]:
            state = phase.strategy.init(jax.random.clone(key), phase.give(state))  # the last one's `fixed`: from the state before
        return state

    return of(plan[-1].strategy, batch, classes)._replace(init=init)


def first_order(net: nets.Net) -> nas.Strategy:
    """DARTS of first order."""
    return nas.darts(net, training.sgd(0.025), order="first")


def second_order(net: nets.Net) -> nas.Strategy:
    """DARTS of exact second order."""
    return nas.darts(net, training.sgd(0.025))


def cooled_gdas(net: nets.Net) -> nas.Strategy:
    """GDAS whose temperature falls."""
    return nas.gdas(net, temperature=optax.linear_schedule(10.0, 0.1, 10))


def logits(logits_of: Callable, held: Any) -> dict[str, jax.Array]:
    """A score that is no number: the logits [A, B, K] themselves."""
    return {"logits": jax.vmap(logits_of)(held[0])}


DARTS, NB201 = spaces.darts(), spaces.nasbench201()
REAL: dict[str, Callable[[], Step]] = {
    "darts, first order (C=16, 8 cells)": lambda: cells(first_order, DARTS),
    "darts, exact second order (C=16, 8 cells)": lambda: cells(second_order, DARTS),
    "pc-darts (C=16, 8 cells)": lambda: cells(nas.pc_darts, DARTS),
    "gdas (C=16, 8 cells)": lambda: cells(cooled_gdas, DARTS),
    "spos (NAS-Bench-201, C=16)": lambda: cells(nas.spos, NB201, count=5, arch_steps=0),
    "enas, macro": lambda: macro(nas.enas),
    "ofa, full": lambda: once_for_all("full", spaces.ofa_mobilenet_v3()),
    "ofa, kernel": lambda: once_for_all("kernel", spaces.ofa_mobilenet_v3()),
    "proxylessnas (224 x 224)": lambda: mobile(spaces.proxylessnas()),
    "training (DARTS cell, C=36, 20 cells)": lambda: evaluation(DARTS, DARTS.from_text("DARTS_V2"), 36, 20),
    "training (NAS-Bench-201 cell)": lambda: evaluation(NB201, NB201.from_text(CELL), 16, 5),
    **{f"population training, {mode or 'by platform'}": functools.partial(populations, mode) for mode in (None, "map", "vmap", 4)},
}

TOY = dict(image=(8, 8, 3), size=8)
TOY_CELLS = dict(channels=4, count=2, **TOY)
ONE_CELL = {**TOY_CELLS, "count": 1}
TOY_DARTS = spaces.darts(nodes=1, ops=("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"))
TOY_NETWORK = (
    "Genotype(normal=[('skip_connect', 0), ('dil_conv_5x5', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('sep_conv_3x3', 1)], reduce_concat=[2])"
)
TOY_OFA = spaces.elastic(spaces.ElasticSpec((spaces.Unit(4, 1),), (2, 1), (5, 3), (3, 2), stem=4, head=8, stem_stride=1))
TOY_LAYERS = tuple(spaces.MobileLayer(4, 4, 1, ("k3_e1", "k5_e2", *skip)) for skip in ((), ("skip",)))
TOYS: dict[str, Callable[[], Step]] = {  # the ten most used, of the names above
    "darts, first order (C=16, 8 cells)": lambda: cells(first_order, TOY_DARTS, **TOY_CELLS),
    "darts, exact second order (C=16, 8 cells)": lambda: cells(second_order, TOY_DARTS, **ONE_CELL),
    "pc-darts (C=16, 8 cells)": lambda: cells(nas.pc_darts, TOY_DARTS, **ONE_CELL),
    "gdas (C=16, 8 cells)": lambda: cells(cooled_gdas, TOY_DARTS, **ONE_CELL),
    "spos (NAS-Bench-201, C=16)": lambda: cells(nas.spos, NB201, **ONE_CELL, arch_steps=0),
    "enas, macro": lambda: macro(nas.enas, 2, channels=4, **TOY),
    "ofa, kernel": lambda: once_for_all("kernel", TOY_OFA, classes=10, **TOY),
    "proxylessnas (224 x 224)": lambda: mobile(
        spaces.mobile(spaces.MobileSpec(TOY_LAYERS, stem=4, head=8, stem_stride=1)), classes=10, macs=1e5, **TOY
    ),
    "training (DARTS cell, C=36, 20 cells)": lambda: evaluation(TOY_DARTS, TOY_DARTS.from_text(TOY_NETWORK), **TOY_CELLS),
    "population training, by platform": lambda: populations(None, logits, members=3, **ONE_CELL),
}
