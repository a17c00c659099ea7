"""AmoebaNet: Real, Aggarwal, Huang and Le, AAAI 2019, arXiv:1802.01548.  Aging evolution against random search.

    python experiments/amoebanet.py smoke             digits, cells of 2 blocks and 4 operations
    python experiments/amoebanet.py paper             the paper's sizes (needs tfds:cifar10 prepared, and accelerators)

smoke: P=12, S=3, 60 models of 30 steps; 2 busy CPU cores, 3.2 minutes.  paper: P=100, S=25, 20,000 models, N=3, F=24 (450 K40
for 7 days there); not run.

Results: docs/results.md#amoebanet

Mutation as published: with odds 0.05 the child is its parent, trained anew; else one side of one block reads another state or
applies another operation, with equal odds, as `space.mutate` does where all blocks add.  Not as published: children come one
after another (the paper: 450 workers), the recipe of training is DARTS's (SGD with momentum, a cosine), without an auxiliary
head.  The batches of a child are drawn at once.
"""

import sys
from dataclasses import dataclass

import _common
import jax
import jax.numpy as jnp
import numpy as np

import jaxnas as nas
from jaxnas import data, evaluate, nets, spaces, training
from jaxnas.spaces.blocks import AMOEBANET_OPS


@dataclass(frozen=True, kw_only=True)
class Setting(_common.Setting):
    blocks: int
    ops: tuple[str, ...]
    population: int
    tournament: int
    models: int
    rate: float  # of learning
    size: dict  # of a child
    steps: int  # of its training
    final_size: dict  # of the network that is retrained
    final_steps: int
    drop_path: float  # at the end of the retraining
    repeats: int  # of the retraining


PAPER = Setting(
    **dict(data="tfds:cifar10", valid=0.1, augment=data.chain(data.crop(), data.flip()), blocks=5, ops=AMOEBANET_OPS, batch=128),
    **dict(population=100, tournament=25, models=20_000, rate=0.025, size=dict(channels=24, cells=3), steps=25 * 45_000 // 128),
    **dict(final_size=dict(channels=36, cells=6), final_steps=600 * 50_000 // 128, drop_path=0.3, repeats=5),
)
SMOKE = Setting(
    **dict(data="digits", valid=0.5, augment=data.identity, blocks=2, ops=AMOEBANET_OPS[:2] + AMOEBANET_OPS[4:6], batch=32),
    **dict(population=12, tournament=3, models=60, rate=0.1, size=dict(channels=4, cells=1), steps=30),
    **dict(final_size=dict(channels=4, cells=1), final_steps=200, drop_path=0.1, repeats=3),
)

SETTINGS = {"smoke": SMOKE, "paper": PAPER}


def mutation(space: spaces.Space, identity: float = 0.05):
    def mutate(key, arch):
        k_same, k_other = jax.random.split(key)
        same = jax.random.bernoulli(k_same, identity)
        return jax.tree.map(lambda a, b: jnp.where(same, a, b), arch, space.mutate(k_other, arch))

    return mutate


def retrained(setting: Setting, space: spaces.Space, dataset: data.Dataset, arch) -> np.ndarray:
    """Test accuracies [repeats], each with a key of its own: the same keys for every architecture."""
    module = nets.evaluation_net(space, arch, classes=dataset.classes, **setting.final_size)
    optimizer = _common.cosine_sgd(setting.rate, setting.final_steps)
    strategy = training.train(module, optimizer, dataset.image, steps=setting.final_steps, drop_path=setting.drop_path)
    feed = data.training(dataset, setting.batch, augment=setting.augment)
    trained = nas.run(jax.random.key(1), strategy, steps=setting.final_steps, data=feed, seeds=setting.repeats)
    test = lambda variables: training.accuracy(lambda x: module.apply(variables, x), dataset.test)
    return np.asarray(jax.jit(lambda all_of_them: jax.lax.map(test, all_of_them))(trained.best))


def main(name: str = "smoke") -> None:
    setting = _common.named(SETTINGS, name)
    dataset = data.load(setting.data, jax.random.key(0), valid=setting.valid)
    space = spaces.amoebanet(setting.blocks, setting.ops)
    net = nets.cell_net(space, image=dataset.image, classes=dataset.classes, **setting.size)
    evaluator = evaluate.train_from_scratch(net, _common.cosine_sgd(setting.rate, setting.steps))
    steps = dict(weight_steps=setting.steps, arch_steps=len(dataset.valid.y) // setting.batch)
    feed = data.batches(dataset, setting.batch, augment=setting.augment, **steps)
    aging = nas.aging_evolution(space, setting.population, setting.tournament, mutate=mutation(space))
    print(f"{setting.models} models each; accuracy in %, (sd over models), and of {setting.repeats} retrainings with 95 % interval")
    print("            first quarter    last quarter     best     retrained, test", flush=True)
    for name, algorithm in {"aging": aging, "random": nas.random_search(space)}.items():
        found = nas.run(jax.random.key(0), nas.black_box(algorithm, evaluator), steps=setting.models, data=feed)
        a = np.asarray(found.infos[0].metrics["accuracy"])[:, 0]
        quarters = [f"{100 * np.nanmean(q):5.2f} ({100 * np.nanstd(q, ddof=1):5.2f})" for q in np.split(a, 4)[::3]]
        test = _common.plus_minus(100 * retrained(setting, space, dataset, found.best))
        print(f"{name:10}", *quarters, f"{100 * np.nanmax(a):5.2f}", test, sep="    ")
        print(space.to_text(found.best), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
