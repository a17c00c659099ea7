"""FBNet: Wu et al., CVPR 2019, arXiv:1812.03443.  Searches with and without a cost; several networks drawn, each trained.

    python experiments/fbnet.py smoke                 digits, 4 layers
    python experiments/fbnet.py imagenet              the paper's setting (needs tfds:imagenet2012 prepared, and accelerators)

smoke: 4 layers, 25 epochs, 3 searches each; 2 busy CPU cores, 5 minutes.  Nothing was tuned; theta's rate, 0.05 (paper 0.01),
was set once.  imagenet: 22 layers, 90 epochs, on accelerators; not run.

Results: docs/results.md#fbnet

Not as published: theta moves after every 4 weight steps (published: at the end of an epoch); multiply-adds for a phone's latency;
random crops and flips for resized crops; the training from scratch, its length and the number of draws are guesses.
"""

import sys

import _common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnas as nas
from jaxnas import data, hardware, nets, policies, spaces, weight_sharing
from jaxnas.spaces._mobile import MobileSpec, staged_layers

IMAGENET = _common.MobileSetting(
    data="tfds:imagenet2012",  # the search takes 100 of its classes
    valid=0.2,
    spec=spaces.fbnet().spec,
    augment=data.chain(data.crop(28), data.flip()),
    batch=192,
    epoch=round(0.8 * 128_000) // 192,
    warm=10,
    epochs=90,
    weight_steps=4,
    arch_rate=0.01,
    train=360,
    seeds=1,
)
OPS = ("k3_e1", "k3_e3", "k5_e3", "k5_e6")
SPEC = MobileSpec(staged_layers(8, [(8, 1, 1), (16, 3, 2)], OPS, "skip"), stem=8, head=32, stem_stride=1, relu6=False)
SMOKE = _common.MobileSetting(
    data="digits",
    valid=0.5,
    spec=SPEC,
    augment=data.identity,
    batch=32,
    epoch=719 // 32,
    warm=5,
    epochs=25,
    weight_steps=4,
    arch_rate=0.05,
    train=20,
    seeds=3,
)
SETTINGS = {"smoke": SMOKE, "imagenet": IMAGENET}
DRAWN = 2  # networks from softmax(theta), of which validation picks one


def plan(net: nets.Net, s: _common.MobileSetting, dataset: data.Dataset, price, cost: hardware.Priced | None):
    """The warm-up, then the search; its first phase ends at the temperature with which the second begins."""
    n = s.epoch // s.weight_steps
    weights = _common.cosine_sgd(0.1, s.epochs * s.epoch, weight_decay=1e-4)
    theta = optax.chain(optax.add_decayed_weights(5e-4), optax.adam(s.arch_rate))
    at = lambda epoch: lambda t: 5 * jnp.exp(-4.05 * (epoch + t / n) / s.epochs)  # published: 0.045 an epoch, 90 epochs
    of = lambda epoch: weight_sharing.fbnet(net, weights, theta, temperature=at(epoch), cost=cost)
    expected = lambda key, state, batch: {"cost": price(jax.tree.map(jax.nn.softmax, state.theta))}
    options = dict(weight_steps=s.weight_steps, augment=s.augment)
    alone, both = (data.batches(dataset, s.batch, arch_steps=a, **options) for a in (0, 1))
    search, feed = weight_sharing.with_measurements(of(s.warm), expected), data.epochs(both, n)
    give = lambda state: weight_sharing.Given(state.variables, state.opt_state, state.theta)
    return nas.then(nas.Phase(of(0), s.warm * n, alone, name="warm-up"), nas.Phase(search, s.epochs - s.warm, feed, give=give))


def main(name: str = "smoke") -> None:
    s = _common.named(SETTINGS, name)
    k_data, k_random, k_search, k_draw, k_train = jax.random.split(jax.random.key(0), 5)
    dataset, space = data.load(s.data, k_data, valid=s.valid), spaces.mobile(s.spec)
    net = nets.mobile_net(space, image=dataset.image, classes=dataset.classes)
    priced = hardware.priced(net.macs, hardware.fbnet_product())
    steps = s.train * (len(dataset.train.y) // s.batch)
    feed = data.batches(dataset, s.batch, arch_steps=0, augment=s.augment)

    def among(archs, i):
        """Each trained; (that of the best validation accuracy, all of them)."""
        all = []
        for m, arch in enumerate(archs):
            key = jax.random.fold_in(jax.random.fold_in(k_train, i), m)
            macs = float(net.macs(space.gates(arch))) / 1e3
            all.append({**_common.train_mobile(key, net, arch, dataset, feed, steps), "macs": macs})
        return max(all, key=lambda r: r["valid"]), all

    draws = policies.concrete(space, paths=DRAWN)
    for method, cost in {"cost": priced, "no cost": None, "random": None}.items():
        seconds, picked, trained, moved = _common.stopwatch(), [], [], []
        for i in range(s.seeds):
            if method == "random":
                archs = [space.sample(k) for k in jax.random.split(jax.random.fold_in(k_random, i), DRAWN)]
            else:
                found = nas.run(jax.random.fold_in(k_search, i), plan(net, s, dataset, net.macs, cost))
                moved.append(found.infos[-1].watched["cost"] / 1e3)
                noisy = draws.sample(jax.random.fold_in(k_draw, i), found.state.theta, 0)  # its argmax is from softmax(theta)
                archs = [space.derive(jax.tree.map(lambda a, m=m: a[m], noisy)) for m in range(DRAWN)]
                print(f"{method} {i}: likeliest {space.to_text(found.best)}; drawn {'; '.join(map(space.to_text, archs))}")
            one, all = among(archs, i)
            picked.append(one)
            trained.append(all)
        print(f"{method}: {seconds() / 60:.1f} minutes")
        if moved:
            _common.show_costs(moved)
        _common.show(f"{method}, best of {DRAWN}", **{c: [r[c] for r in picked] for c in ("valid", "test", "macs")})
        _common.show(f"{method}, all", **{c: [np.mean([r[c] for r in rs]) for rs in trained] for c in ("test", "macs")})


if __name__ == "__main__":
    with _common.compiled_once():
        main(*sys.argv[1:])
