"""ProxylessNAS: Cai, Zhu and Han, ICLR 2019, arXiv:1812.00332.  Searches with and without a cost, then training from scratch.

    python experiments/proxylessnas.py smoke          digits, 4 layers
    python experiments/proxylessnas.py imagenet       the paper's setting (needs tfds:imagenet2012 prepared, and accelerators)

smoke: 4 layers, 5 + 20 epochs, 3 searches each; 2 busy CPU cores, 6 minutes.  imagenet: 21 layers, 40 + 120 epochs, on
accelerators; not run.

Results: docs/results.md#proxylessnas

Not as published: alpha moves from the first epoch behind the warm-up on (published: from the second); resized crops are taken of
images that the host has resized to 224 x 224; the colours' order is fixed and their hue stays; multiply-adds for a phone's
latency; REINFORCE's weights train without label smoothing; the length of the training from scratch (300 epochs) is a guess.
"""

import functools
import sys

import _common
import jax
import optax

import jaxnas as nas
from jaxnas import data, hardware, nets, spaces, weight_sharing
from jaxnas.spaces._mobile import Mobile, MobileSpec, staged_layers

IMAGENET = _common.MobileSetting(
    data="tfds:imagenet2012",
    valid=50_000 / 1_281_167,
    spec=spaces.proxylessnas().spec,
    augment=data.chain(data.resized_crop(), data.flip(), data.colour_jitter(32 / 255, 0, 0.5)),
    outside=True,
    batch=256,
    epoch=1_231_167 // 256,
    warm=40,
    epochs=120,
    weight_steps=5,
    arch_rate=1e-3,
    train=300,
    aim=300e6,
    seeds=1,
)
OPS = ("k3_e3", "k5_e3", "k3_e6", "k5_e6")
SMOKE = _common.MobileSetting(
    data="digits",
    valid=0.5,
    spec=MobileSpec(staged_layers(8, [(8, 1, 1), (16, 3, 2)], OPS, "zero"), stem=8, head=32, stem_stride=1),
    augment=data.identity,
    batch=32,
    epoch=719 // 32,
    warm=5,
    epochs=20,
    weight_steps=5,
    arch_rate=5e-2,
    train=20,
    aim=2e5,
    seeds=3,
)
SETTINGS = {"smoke": SMOKE, "imagenet": IMAGENET}


sgd = functools.partial(_common.cosine_sgd, weight_decay=4e-5, nesterov=True)
smoothed = nas.training.CLASSES._replace(loss=functools.partial(nas.training.cross_entropy, smoothing=0.1))


def probabilities(space: nas.spaces.Space, theta) -> Mobile:
    return Mobile(tuple(jax.nn.softmax(theta[d, :n]) for d, n in enumerate(space.arity)))


def plan(make, s: _common.MobileSetting, dataset: data.Dataset | data.Streamed, cost_of):
    """Warm-up, then the search; `make` is a method, less its weight optimizer."""
    options = dict(weight_steps=s.weight_steps, augment=s.augment)
    alone, both = (data.batches(dataset, s.batch, arch_steps=a, **options) for a in (0, 1))
    n = s.epoch // s.weight_steps
    watch = 1 if s.outside else n  # steps to a measurement; an epoch of ImageNet is not in memory at once
    warm, search = make(sgd(0.05, s.warm * s.epoch)), make(sgd(0.025, s.epochs * s.epoch))
    watched = weight_sharing.with_measurements(search, lambda key, state, batch: {"cost": cost_of(state.theta)})
    give = lambda state: weight_sharing.Given(state.variables)  # alpha has not moved, the optimizer begins anew
    return nas.then(
        nas.Phase(warm, s.warm * n, alone, name="warm-up"),
        nas.Phase(watched, s.epochs * n // watch, data.epochs(both, watch), give=give),
    )


def main(name: str = "smoke") -> None:
    s = _common.named(SETTINGS, name)
    k_data, k_random, k_search, k_train = jax.random.split(jax.random.key(0), 4)
    dataset, space = _common.images(k_data, s), spaces.mobile(s.spec)
    net = nets.mobile_net(space, image=dataset.image, classes=dataset.classes)
    thousands = lambda arch: float(net.macs(space.gates(arch))) / 1e3
    adam = optax.adam(s.arch_rate, b1=0.0)
    two_paths = functools.partial(weight_sharing.proxylessnas, net, architecture=adam, criterion=smoothed)
    reinforce = functools.partial(weight_sharing.proxylessnas_reinforce, net, architecture=adam)
    forms = {"imagenet": hardware.proxyless_product, "smoke": hardware.relative_excess}
    methods = {
        "two paths": functools.partial(two_paths, cost=hardware.priced(net.macs, forms[name](s.aim))),
        "two paths, no cost": two_paths,
        "REINFORCE": functools.partial(reinforce, cost=hardware.priced(net.macs, hardware.power_reward(s.aim))),
    }
    steps = s.train * ((data.count(dataset.train) + data.count(dataset.valid)) // s.batch)
    feed = data.training(dataset, s.batch, augment=s.augment)
    train = lambda arch, i: _common.train_mobile(jax.random.fold_in(k_train, i), net, arch, dataset, feed, steps)["test"]
    for method in ("random", *methods):
        seconds, archs, moved = _common.stopwatch(), [], []
        for i in range(s.seeds):
            if method == "random":
                archs.append(space.sample(jax.random.fold_in(k_random, i)))
                continue
            phases = plan(methods[method], s, dataset, lambda theta: net.macs(probabilities(space, theta)))
            found = nas.run(jax.random.fold_in(k_search, i), phases, progress=sys.stderr.isatty())
            archs.append(found.best)
            moved.append(found.infos[-1].watched["cost"] / 1e3)
        print(f"{method}: {seconds() / 60:.1f} minutes; {'; '.join(map(space.to_text, archs))}", flush=True)
        if moved:
            _common.show_costs(moved)
        _common.show(method, test=[train(a, i) for i, a in enumerate(archs)], macs=[thousands(a) for a in archs])


if __name__ == "__main__":
    with _common.compiled_once():
        main(*sys.argv[1:])
