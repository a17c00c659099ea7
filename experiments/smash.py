"""SMASH: Brock, Lim, Ritchie and Weston, ICLR 2018, arXiv:1708.05344.  A HyperNet, how it ranks, and the paper's search on it.

    python experiments/smash.py smoke                 digits, 3 operations, 4 banks
    python experiments/smash.py cifar10               nearer to the paper (needs tfds:cifar10 prepared, and an accelerator)

smoke: 60 epochs, 40 architectures; 2 busy CPU cores, 7.2 minutes.  Its stem and its rate were chosen after others (see there).
cifar10: SMASHv2, on an accelerator; not run.

Results: docs/results.md#smash
"""

import sys
from dataclasses import dataclass

import _common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnas as nas
from jaxnas import data, nets, policies, training, weight_sharing
from jaxnas.analysis import ranking
from jaxnas.evaluate.population import population
from jaxnas.evaluate.shared import shared_weights
from jaxnas.nets._memory_bank_net import memory_bank_net
from jaxnas.spaces._memory_bank import memory_bank


@dataclass(frozen=True, kw_only=True)
class Setting(_common.Setting):
    space: dict  # of `memory_bank`
    net: dict  # of `memory_bank_net`
    hyper: tuple[int, int]  # width and depth of the HyperNet
    rate: float  # of Adam, for the HyperNet and what is shared
    alone_rate: float  # where one architecture is trained
    epochs: int  # of the HyperNet
    seeds: int
    archs: int  # that are ranked
    alone: int  # epochs of their training
    alone_batch: int
    repeats: int  # with weights and batches of their own
    retrain: int  # epochs of the best of the search, and of as many random ones as there are seeds


SMOKE = Setting(
    **dict(data="digits", valid=0.5, space=dict(kernels=(1, 3)), net=dict(channels=4, bottleneck=8, stem=1), hyper=(32, 4)),
    **dict(rate=0.005, alone_rate=0.02, batch=32, epochs=60, seeds=2, archs=40, alone=2, alone_batch=8, repeats=3, retrain=30),
)
CIFAR10 = Setting(
    **dict(data="tfds:cifar10", valid=0.1, space=dict(ops=4, banks=8, blocks=3, kernels=(1, 3, 5, 7), dilations=(1, 2, 3))),
    **dict(net=dict(channels=16, bottleneck=64), hyper=(32, 26)),
    **dict(rate=0.01, alone_rate=0.01, batch=50, epochs=100, seeds=3, archs=40, alone=30, alone_batch=50, repeats=3, retrain=100),
)
SETTINGS = {"smoke": SMOKE, "cifar10": CIFAR10}


def adam(rate: float, steps: int):
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def stand_alone(key, s: Setting, net: nets.Net, dataset: data.Dataset, archs) -> np.ndarray:
    """Validation accuracy [N, R] of every architecture with weights of its own."""
    steps = s.alone * len(dataset.train.y) // s.alone_batch
    feed = data.batches(dataset, s.alone_batch, weight_steps=steps, arch_steps=0, augment=s.augment)
    score = lambda logits_of, held: {"accuracy": training.accuracy(logits_of, held)}
    train = population(net, adam(s.alone_rate, steps), score)

    def repeat(key, archs, arrays, held):
        k_weights, k_data = jax.random.split(key)
        keys = jax.random.split(k_weights, s.archs)
        return train(keys, archs, feed.draw(k_data, arrays, 0).train, held)["accuracy"]

    run = _common.jit(repeat)
    return np.stack([run(k, archs, feed.arrays, dataset.valid) for k in jax.random.split(key, s.repeats)], 1)


def smash(key, s: Setting, net: nets.Net, dataset: data.Dataset):
    """(variables of the HyperNet trained on random architectures, score(variables, archs) -> validation accuracies)."""
    feed = data.batches(dataset, s.batch, arch_steps=0, augment=s.augment)
    steps = s.epochs * len(dataset.train.y) // s.batch
    weights = weight_sharing.Weights(adam(s.rate, steps))
    search = weight_sharing.weight_sharing(net, policies.uniform(net.space), weight_sharing.frozen, weights)
    held, evaluator = _common.calibrated(dataset, 128, 2), shared_weights(net)
    score = lambda variables, archs, held: evaluator.step(jax.random.key(0), (), archs, held._replace(fixed=variables))[1]
    run = _common.jit(lambda variables, archs, held: score(variables, archs, held)["accuracy"])
    return nas.run(key, search, steps=steps, data=feed).state.variables, lambda variables, archs: run(variables, archs, held)


def search(key, space, score):
    """The paper's: the best of 500 random ones, of 100 perturbations of it, then 100 steps of a chain that keeps what is better."""
    k_random, k_near, k_chain = jax.random.split(key, 3)

    def perturbed(key, arch):  # each decision drawn anew at odds 0.05
        k_which, k_drawn = jax.random.split(key)
        drawn = space.flat(space.sample(k_drawn))
        anew = jax.random.bernoulli(k_which, 0.05, drawn.shape)
        return space.canonical(space.unflat(jnp.where(anew, drawn, space.flat(arch))))

    def best(archs):
        scores = score(archs)
        return jax.tree.map(lambda a: a[np.argmax(scores)], archs), float(np.max(scores))

    many, near = _common.jit(jax.vmap(space.sample)), _common.jit(jax.vmap(perturbed, (0, None)))
    arch, top = best(many(jax.random.split(k_random, 500)))
    tops = [top]
    other, top = best(near(jax.random.split(k_near, 100), arch))
    arch, tops = (other, [*tops, top]) if top > tops[-1] else (arch, [*tops, tops[-1]])
    top = tops[-1]
    for k in jax.random.split(k_chain, 100):
        other, found = best(near(k[None], arch))
        arch, top = (other, found) if found > top else (arch, top)
    return arch, [*tops, top]


def retrained(key, s: Setting, net: nets.Net, dataset: data.Dataset, arch) -> float:
    """Test accuracy of the plain module, its 1 x 1 weights its own, trained from scratch on all but the test images."""
    module, _ = net.specialize(arch)
    steps = s.retrain * (len(dataset.train.y) + len(dataset.valid.y)) // s.batch
    feed = data.training(dataset, s.batch, augment=s.augment)
    variables = _common.train(key, module, adam(s.alone_rate, steps), dataset, feed, steps)
    return float(_common.jit(lambda v, test: training.accuracy(lambda x: module.apply(v, x), test))(variables, dataset.test))


def main(name: str = "smoke") -> None:
    s, key, seconds = _common.named(SETTINGS, name), jax.random.key(0), _common.stopwatch()
    k_data, k_archs, k_alone, k_search, k_train, k_rank = jax.random.split(key, 6)
    dataset, space = data.load(s.data, k_data, valid=s.valid), memory_bank(**s.space)
    make = lambda hyper: memory_bank_net(space, image=dataset.image, classes=dataset.classes, hyper=hyper, **s.net)
    archs = jax.vmap(space.sample)(jax.random.split(k_archs, s.archs))
    truth = stand_alone(k_alone, s, make(None), dataset, archs)
    mean = 100 * truth.mean(1)
    print(f"stand-alone: {mean.min():.1f} to {mean.max():.1f} %, reliability {ranking.reliability(truth):.2f}")
    width, depth = s.hyper
    for method, hyper in {"HyperNet": s.hyper, "its width / 16": (width // 16, depth), "none": None}.items():
        net = make(hyper)
        for i in range(s.seeds):
            variables, score = smash(jax.random.fold_in(k_train, i), s, net, dataset)
            scores = np.asarray(score(variables, archs))
            r = ranking.ranking(k_rank, scores, truth.mean(1))
            bounds = f"Spearman {r.spearman.value:.2f} ({r.spearman.low:.2f} to {r.spearman.high:.2f}), tau {r.tau.value:.2f}"
            print(f"{method}, seed {i}: {bounds}, scores {100 * scores.mean():.1f} +- {100 * scores.std():.1f} %")
            if method != "HyperNet" or i:
                continue
            found, tops = search(k_search, space, lambda archs: score(variables, archs))
            print(f"found {space.to_text(found)}; best score of the three stages {tops}")
            for k, arch in enumerate([found, *(space.sample(jax.random.fold_in(k_archs, k)) for k in range(s.seeds))]):
                test = retrained(jax.random.fold_in(k_train, k), s, net, dataset, arch)
                print(f"{'random' if k else 'found'}, from scratch: test {100 * test:.2f} %, {space.to_text(arch)}")
    print(f"{seconds() / 60:.1f} minutes")


if __name__ == "__main__":
    with _common.compiled_once():
        main(*sys.argv[1:])
