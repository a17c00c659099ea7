"""MetaQNN: Baker, Gupta, Naik and Raskar, ICLR 2017, arXiv:1611.02167.  Also how to evaluate candidates outside of jaxnas.

    python experiments/metaqnn.py smoke               digits, chains of up to 5 layers
    python experiments/metaqnn.py paper               the authors' sizes (needs tfds:cifar10 prepared, and an accelerator)

smoke: up to 5 layers, 100 chains of 60 steps; 2 busy CPU cores, 4.4 minutes.  paper: up to 18 layers, 2,700 chains of 20 epochs
(10 GPUs, 8 to 10 days there); not run.

Results: docs/results.md#metaqnn

There is no strategy and no driver around the search: `ask` says what to try, plain Python trains it as it likes (here a Flax
module of its own for every chain; it could be a cluster, or a phone), `tell` takes the score, which must be finite.  A chain
that was trained before is not trained again, and does not count for the schedule of epsilon.

Not as published: the score is the validation accuracy at the end of training (the paper: the best of the epochs), and there
are no restarts at a lower rate for a chain that is at chance after its first epoch.
"""

import sys
from dataclasses import dataclass

import _common
import jax
import numpy as np
import optax

import jaxnas as nas
from jaxnas import data, nets, spaces
from jaxnas.ask_tell._q_learning import SCHEDULE
from jaxnas.driver.errors import Diverged


@dataclass(frozen=True, kw_only=True)
class Setting(_common.Setting):
    space: dict  # of `metaqnn`
    schedule: tuple[tuple[float, int], ...]  # (epsilon, different chains)
    steps: int  # of a chain's training
    rate: optax.Schedule  # of Adam


EPOCH = 45_000 // 128
PAPER = Setting(
    **dict(data="tfds:cifar10", valid=0.1, space={}, schedule=SCHEDULE, batch=128, steps=20 * EPOCH),
    rate=optax.exponential_decay(1e-3, 5 * EPOCH, 0.2, staircase=True),
)
SMOKE = Setting(
    **dict(data="digits", valid=0.5, batch=64, steps=60),
    space=dict(image=8, layers=5, filters=(8, 16), kernels=(1, 3), pools=((2, 2), (3, 2)), dense=(32, 16)),
    schedule=((1.0, 40), (0.8, 10), (0.6, 10), (0.4, 10), (0.2, 10), (0.1, 20)),
    rate=optax.exponential_decay(1e-2, 15, 0.2, staircase=True),
)

SETTINGS = {"smoke": SMOKE, "paper": PAPER}


def validation_accuracy(key: jax.Array, module, setting: Setting, dataset: data.Dataset) -> float:
    feed = data.batches(dataset, setting.batch, augment=setting.augment)
    try:
        variables = _common.train(key, module, optax.adam(setting.rate), dataset, feed, setting.steps, clip=None)
    except Diverged:
        return 0.0
    return _common.accuracy(module, variables, dataset.valid)


def main(name: str = "smoke") -> None:
    setting, key = _common.named(SETTINGS, name), jax.random.key(0)
    dataset = data.load(setting.data, key, valid=setting.valid)
    mdp = spaces.metaqnn(**setting.space)
    net = nets.chain_net(spaces.chain(mdp), image=dataset.image, classes=dataset.classes)
    algorithm = nas.q_learning(mdp, setting.schedule)
    ask, tell = jax.jit(algorithm.ask), jax.jit(algorithm.tell)
    state = jax.jit(algorithm.init)(key)

    ends = np.cumsum([models for _, models in setting.schedule])
    trained: dict[tuple, float] = {}  # layers -> score
    phases, asked = [], np.zeros(len(ends), int)
    while len(trained) < ends[-1] and asked.sum() < 100 * ends[-1]:  # a policy that is sure asks for few new chains
        k_ask, k_train, k_tell = jax.random.split(jax.random.fold_in(key, asked.sum()), 3)
        phase = np.searchsorted(ends, len(trained), side="right")
        asked[phase] += 1
        state, archs = ask(k_ask, state)  # a batch of one
        module, _ = net.specialize(jax.tree.map(lambda a: a[0], archs))
        if module.layers not in trained:
            trained[module.layers] = validation_accuracy(k_train, module, setting, dataset)
            phases.append(phase)
        state = tell(k_tell, state, archs, np.asarray([trained[module.layers]], np.float32))

    print("epsilon   asked   trained   mean (sd) of the trained   best, %")
    scores = 100 * np.asarray(list(trained.values()))
    for phase, (epsilon, _) in enumerate(setting.schedule):
        of_phase = scores[np.asarray(phases) == phase]
        row = f"{of_phase.mean():.2f} ({of_phase.std(ddof=1):.2f})   {of_phase.max():.2f}" if len(of_phase) > 1 else "-"
        print(f"{epsilon:7.1f} {asked[phase]:7d} {len(of_phase):9d}   {row}")
    print(f"best: {max(trained, key=trained.get)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
