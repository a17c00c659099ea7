"""NASNet: Zoph, Vasudevan, Shlens and Le, CVPR 2018, arXiv:1707.07012.  PPO on an LSTM controller; the best cells retrained.

    python experiments/nasnet.py smoke                digits, cells of 2 blocks and 5 operations
    python experiments/nasnet.py paper                the paper's sizes (needs tfds:cifar10 prepared, and accelerators)

smoke: 80 children of 30 steps; 2 busy CPU cores, 3.7 minutes.  Adam's rate is 1e-2 there (the paper's 3.5e-4 would hardly move
in 20 updates): set once, not tuned.  paper: 20,000 children, N=2, F=32, 20 epochs (500 P100, 4 days there); not run.

Results: docs/results.md#nasnet

Not as published: the controller emits the inputs of a cell, then its operations, then how its blocks combine; updates are of
one controller, one after another (the paper: 500 workers); the three best children are retrained (the paper: 250), by DARTS's
recipe (SGD with momentum, a cosine), with ScheduledDropPath, without an auxiliary head; ratios and clips are of single
decisions.  The batches of a child are drawn at once.
"""

import sys
from dataclasses import dataclass

import _common
import jax
import numpy as np
import optax

import jaxnas as nas
from jaxnas import data, evaluate, nets, policies, spaces
from jaxnas.spaces.blocks import GENOTYPES, NASNET_OPS


@dataclass(frozen=True, kw_only=True)
class Setting(_common.Setting):
    blocks: int
    ops: tuple[str, ...]
    children: int
    update: int  # children an update
    controller_rate: float
    rate: float  # of learning the weights
    size: dict  # of a child
    steps: int  # of its training
    final_size: dict  # of a network that is retrained
    final_steps: int
    drop_path: float  # at the end of the retraining
    retrained: int = 3  # of the found, and as many random ones


PAPER = Setting(
    **dict(data="tfds:cifar10", valid=0.1, augment=data.chain(data.crop(), data.flip()), blocks=5, ops=NASNET_OPS, batch=128),
    **dict(children=20_000, update=20, controller_rate=3.5e-4),
    **dict(rate=0.025, size=dict(channels=32, cells=2), steps=20 * 45_000 // 128),
    **dict(final_size=dict(channels=32, cells=6), final_steps=600 * 50_000 // 128, drop_path=0.4),
)
OPS = ("skip_connect", "avg_pool_3x3", "max_pool_3x3", "nor_conv_1x1", "sep_conv_3x3")
SMOKE = Setting(
    **dict(data="digits", valid=0.5, augment=data.identity, blocks=2, ops=OPS, batch=32),
    **dict(children=80, update=4, controller_rate=1e-2, rate=0.1, size=dict(channels=4, cells=1), steps=30),
    **dict(final_size=dict(channels=4, cells=1), final_steps=200, drop_path=0.1),
)

SETTINGS = {"smoke": SMOKE, "paper": PAPER}


def retrained(setting: Setting, space: spaces.Space, dataset: data.Dataset, text: str) -> float:  # test accuracy
    module = nets.evaluation_net(space, space.from_text(text), classes=dataset.classes, **setting.final_size)
    steps, optimizer = setting.final_steps, _common.cosine_sgd(setting.rate, setting.final_steps)
    feed = data.training(dataset, setting.batch, augment=setting.augment)
    variables = _common.train(jax.random.key(1), module, optimizer, dataset, feed, steps, drop_path=setting.drop_path)
    return _common.accuracy(module, variables, dataset.test)


def main(name: str = "smoke") -> None:
    setting = _common.named(SETTINGS, name)
    published = dict(classes=10, keep=GENOTYPES["NASNET_A"][1], **PAPER.final_size)
    nasnet_a = nets.evaluation_net(spaces.nasnet(), spaces.nasnet().from_text("NASNET_A"), **published)
    print(f"NASNet-A, 6 @ 768: {nets.count_parameters(nasnet_a, (32, 32, 3)):,} weights")

    dataset = data.load(setting.data, jax.random.key(0), valid=setting.valid)
    space = spaces.nasnet(setting.blocks, setting.ops)
    net = nets.cell_net(space, image=dataset.image, classes=dataset.classes, **setting.size)
    evaluator = evaluate.train_from_scratch(net, _common.cosine_sgd(setting.rate, setting.steps))
    policy = policies.controller(space, hidden=100, layers=1, scale=0.1)
    update = policies.ppo(policy, optax.adam(setting.controller_rate), clip=0.2, entropy=1e-5, baseline=0.95)
    search = nas.black_box(nas.policy_gradient(space, policy, update, batch=setting.update), evaluator)
    scored = len(dataset.valid.y) // setting.batch
    feed = data.batches(dataset, setting.batch, weight_steps=setting.steps, arch_steps=scored, augment=setting.augment)
    info = nas.run(jax.random.key(0), search, steps=setting.children // setting.update, data=feed).infos[0]

    a = info.metrics["accuracy"].ravel()
    quarters = [f"{100 * np.nanmean(q):.2f} (sd {100 * np.nanstd(q, ddof=1):.2f})" for q in np.split(a, 4)]
    print(f"{len(a)} children, validation accuracy in %, by quarters: {', '.join(quarters)}; best {100 * np.nanmax(a):.2f}")
    archs = jax.vmap(space.canonical)(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), info.archs))
    archs = jax.tree.map(np.asarray, archs)
    texts = [space.to_text(jax.tree.map(lambda x: x[i], archs)) for i in np.argsort(-a, kind="stable")]  # NaN is last
    n, keys = setting.retrained, jax.random.split(jax.random.key(2), setting.retrained)
    chosen = {"found": list(dict.fromkeys(texts))[:n], "random": [space.to_text(space.sample(k)) for k in keys]}
    for kind, cells in chosen.items():
        test = np.asarray([retrained(setting, space, dataset, text) for text in cells])
        print(
            f"{kind}: test {_common.plus_minus(100 * test)} % (95 % of {n}), {np.round(100 * test, 2)}",
            *cells,
            sep="\n",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
