"""Once for all: Cai et al., ICLR 2020, arXiv:1908.09791.  One elastic network trained three ways, then searched under a limit.

    python experiments/ofa.py smoke          digits, 3 units of at most 2 layers
    python experiments/ofa.py rank           a third of its steps, one seed: shared scores against networks trained alone
    python experiments/ofa.py imagenet       the paper's setting (needs tfds:imagenet2012 prepared, and accelerators)

smoke: 74,088 networks, 3,600 trained in a row, 5 seeds; 2 busy CPU cores, 15 minutes.  rank: 30 minutes by the clock with five
more programs on the two cores.  imagenet: 25 x 7371^5 networks, 590 epochs, on accelerators; not run.

Results: docs/results.md#once-for-all

Naive is training on uniform draws of all sizes from the first update on, with labels alone.  Rank quality: 20 random networks
by shared validation accuracy, statistics recalibrated, against each extracted and trained alone for 600 batches, on labels
only, the mean of two trainings.

Not as published: the rates of smoke (0.1, then 0.05); warm-up; in imagenet resized crops of images that the
host has resized to 224 x 224, colours in a fixed order and without hue, 10,000 images to test on, one device's batch.
"""

import dataclasses
import sys
from collections.abc import Callable

import _common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnas as nas
from jaxnas import data, evaluate, policies, training, weight_sharing
from jaxnas.analysis import ranking
from jaxnas.ask_tell._constrained_evolution import constrained_evolution
from jaxnas.nets._elastic_net import elastic_net
from jaxnas.spaces._elastic import ElasticSpec, elastic, largest, ofa_mobilenet_v3, ofa_small, smallest
from jaxnas.surrogates._ensemble import Perceptron, ensemble
from jaxnas.weight_sharing import ofa


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(_common.Setting):
    spec: ElasticSpec
    steps: dict  # of each phase of progressive shrinking
    weights: Callable  # (phase, steps) -> its weight optimizer
    calibration: int  # batches that the statistics of a network are taken from
    seeds: int
    random: int  # networks to a seed, besides the largest and the smallest
    pairs: int  # (network, accuracy) that the predictor sees; a fifth are held out
    epochs: int  # of the predictor
    generations: int
    limit: float  # multiply-adds
    alone: int  # steps of each of the random networks when it is trained on its own; 0: they are not


def smoke_weights(name: str, steps: int) -> optax.GradientTransformation:
    rate = 0.1 if name in ("full", "naive", "sandwich") else 0.05
    return _common.cosine_sgd(rate, steps, weight_decay=3e-5, nesterov=True)


SMOKE = Setting(
    data="digits",
    valid=0.5,
    spec=ofa_small((4, 8, 16), (1, 2, 2), depths=(2, 1), kernels=(5, 3), head=32).spec,
    augment=data.identity,
    batch=32,
    steps={"full": 600, "kernel": 300, "depth 1": 450, "expand 1": 150, "expand 2": 300},
    weights=smoke_weights,
    calibration=8,
    seeds=5,
    random=20,
    pairs=1000,
    epochs=200,
    generations=20,
    limit=80e3,
    alone=600,
)
RANK = dataclasses.replace(SMOKE, steps={name: n // 3 for name, n in SMOKE.steps.items()}, seeds=1, pairs=0)
EPOCH = 1_271_167 // 64
IMAGENET = Setting(
    data="tfds:imagenet2012",
    valid=10_000 / 1_281_167,
    spec=ofa_mobilenet_v3(resolutions=tuple(range(224, 127, -4))).spec,
    augment=data.chain(data.resized_crop(), data.flip(), data.colour_jitter(32 / 255, 0, 0.5)),
    outside=True,
    batch=64,
    steps={
        name: epochs * EPOCH
        for name, epochs in {"full": 180, "kernel": 120, "depth 1": 25, "depth 2": 120, "expand 1": 25, "expand 2": 120}.items()
    },
    weights=ofa.published,
    calibration=32,
    seeds=1,
    random=20,
    pairs=16_000,
    epochs=200,
    generations=500,
    limit=230e6,
    alone=0,
)
SETTINGS = {"smoke": SMOKE, "rank": RANK, "imagenet": IMAGENET}
REPEATS = 2  # of a network trained alone


def plans(s: Setting, net: nas.nets.Net, feed: nas.Feed | nas.Stream) -> dict:
    """Each trains as many networks; the first two in as many updates."""
    steps, trained = sum(s.steps.values()), sum(stage.paths * s.steps[stage.name] for stage in ofa.stages(net.space))
    policy = policies.uniform(net.space, round(trained / steps))
    weights = weight_sharing.Weights(s.weights("naive", steps), clip=None, criterion=ofa.distillation())
    naive = weight_sharing.weight_sharing(net, policy, weight_sharing.frozen, weights)
    sandwich = ofa.in_place_distillation(net, s.weights("sandwich", trained // 4))
    return {
        "shrinking": ofa.progressive_shrinking(net, s.weights, steps=s.steps, data=feed),
        "naive": nas.then(nas.Phase(naive, steps, feed)),
        "sandwich": nas.then(nas.Phase(sandwich, trained // 4, feed)),
    }


def scorer(s: Setting, net: nas.nets.Net, dataset: data.Dataset | data.Streamed) -> Callable:
    """(variables, archs [P], part of the data) -> accuracies [P] in percent, statistics recalibrated."""
    evaluator = evaluate.shared_weights(net)
    parts = {part: dataclasses.replace(dataset, valid=getattr(dataset, part)) for part in ("valid", "test")}
    most = lambda d: min(-(-data.count(d.valid) // s.batch), 10_000 // s.batch) if s.outside else None
    held = {part: data.calibration(d, s.batch, s.calibration, valid_batches=most(d)) for part, d in parts.items()}

    @jax.jit
    def run(variables, archs, arrays):
        batch = held["valid"].draw(jax.random.key(0), arrays, jnp.zeros((), jnp.int32))
        return evaluator.step(jax.random.key(0), (), archs, batch._replace(fixed=variables))[1]

    return lambda variables, archs, part: 100 * np.asarray(run(variables, archs, held[part].arrays)["accuracy"], float)


def trained_alone(s: Setting, net: nas.nets.Net, dataset: data.Dataset, feed: nas.Feed, archs, key) -> np.ndarray:
    """Test accuracies in percent, [N, REPEATS]: each network extracted, and trained from scratch."""
    out, optimizer = [], s.weights("full", s.alone)
    for i in range(s.random):
        module, _ = net.specialize(jax.tree.map(lambda a, i=i: a[i], archs))
        strategy = nas.train(module, optimizer, dataset.image, steps=s.alone, label_smoothing=0.1, clip=None)
        variables = nas.run(jax.random.fold_in(key, i), strategy, steps=s.alone, data=feed, seeds=REPEATS).state.variables
        one = lambda v, split, module=module: training.accuracy(lambda x: module.apply(v, x), split)
        out.append(100 * np.asarray(jax.jit(jax.vmap(one, (0, None)))(variables, dataset.test), float))
    return np.stack(out)


def searched(s: Setting, net: nas.nets.Net, variables, score: Callable, cost: Callable, key) -> None:
    """The predictor, and evolution on it under the limit, against ten times as many random networks."""
    k_archs, k_init, k_fit, k_search, k_random = jax.random.split(key, 5)
    space, seconds = net.space, _common.stopwatch()
    sample = jax.jit(lambda key, n: jax.vmap(space.sample)(jax.random.split(key, n)), static_argnums=1)
    archs = sample(k_archs, s.pairs)
    y = score(variables, archs, "valid")
    n = 4 * s.pairs // 5
    mean, std = y[:n].mean(), y[:n].std()
    predictor = ensemble(Perceptron(400, 3), space.features, members=1, epochs=s.epochs, rate=1e-3)
    model = predictor.init(k_init, archs)
    model = jax.jit(predictor.fit)(k_fit, model, archs, jnp.asarray((y - mean) / std, jnp.float32), jnp.arange(s.pairs) < n)
    predict = jax.jit(lambda archs: mean + std * predictor.predict(model, archs)[0])
    rmse = np.sqrt(np.mean(np.square(np.asarray(predict(archs))[n:] - y[n:])))
    print(f"predictor: {seconds() / 60:.1f} minutes; RMSE {rmse:.3f}, a standard deviation of {y[n:].std():.3f}", flush=True)

    evolution = constrained_evolution(space, cost, s.limit)
    search = nas.black_box(evolution, nas.stateless(lambda key, archs, batch: {"accuracy": predict(archs)}))
    found = nas.run(k_search, search, steps=s.generations)
    asked = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found.infos[0].archs)
    costs = jax.jit(jax.vmap(cost))
    print(f"evolution: {len(asked.depth)} networks, the dearest {np.max(costs(asked)):.0f} of {s.limit:.0f} multiply-adds")
    many = sample(k_random, 30 * len(asked.depth))  # a third and more can be afforded
    many = jax.tree.map(lambda a: a[np.asarray(costs(many)) <= s.limit][: 10 * len(asked.depth)], many)
    best = lambda archs: jax.tree.map(lambda a: a[np.argmax(predict(archs))][None], archs)
    for name, arch in (("evolution", jax.tree.map(lambda a: a[None], found.best)), (f"random, {len(many.depth)}", best(many))):
        scores = [float(predict(arch)[0]), *(score(variables, arch, part)[0] for part in ("valid", "test"))]
        one = jax.tree.map(lambda a: a[0], arch)
        print(f"{name}: predicted, valid, test {np.round(scores, 2)}; {float(cost(one)):.0f}; {space.to_text(one)}", flush=True)


def main(name: str = "smoke") -> None:
    s = _common.named(SETTINGS, name)
    k_data, k_archs, k_train, k_search = jax.random.split(jax.random.key(0), 4)
    k_alone, seconds = jax.random.key(1), _common.stopwatch()
    dataset, space = _common.images(k_data, s), elastic(s.spec)
    net = elastic_net(space, image=dataset.image, classes=dataset.classes)
    cost = lambda arch: net.macs(space.gates(arch))
    score, feed = scorer(s, net, dataset), data.batches(dataset, s.batch, arch_steps=0, augment=s.augment)
    few = jax.vmap(space.sample)(jax.random.split(k_archs, s.random))
    archs = jax.tree.map(lambda a, b, c: jnp.concatenate([a[None], b[None], c]), smallest(space), largest(space), few)
    print(f"{space.size:.2g} networks of {cost(smallest(space)):.0f} to {cost(largest(space)):.0f} multiply-adds", flush=True)
    if s.alone:
        alone = trained_alone(s, net, dataset, feed, few, k_alone)
        print(f"{s.random} alone: {alone.mean():.2f} %, sd {alone.mean(1).std():.2f}; {ranking.reliability(alone):.2f} reliable")
        print(f"    {seconds() / 60:.1f} minutes", flush=True)
    for method, plan in plans(s, net, feed).items():
        trained = _common.stopwatch()
        state = nas.run(k_train, plan, seeds=s.seeds, progress=sys.stderr.isatty()).state
        variables = (state.search if method == "shrinking" else state).variables
        of = lambda i: jax.tree.map(lambda a: a[i], variables)
        tested = np.stack([score(of(i), archs, "test") for i in range(s.seeds)])
        print(f"{method}: {trained() / 60:.1f} minutes", flush=True)
        for what, values in (("smallest", tested[:, 0]), ("largest", tested[:, 1]), ("random ones", tested[:, 2:].mean(1))):
            print(f"    {what}: {_common.each(values)}", flush=True)
        for i in range(s.seeds if s.alone else 0):
            shared = score(of(i), few, "valid")
            rank = ranking.ranking(jax.random.key(i), shared, alone.mean(1), k=5)
            print(f"    shared {shared.mean():.2f} %; {_common.told(rank)}", flush=True)
        if method == "shrinking" and s.pairs:
            searched(s, net, of(0), score, cost, k_search)


if __name__ == "__main__":
    main(*sys.argv[1:])
