"""DrNAS: Chen, Wang, Cheng, Tang and Hsieh, ICLR 2021, arXiv:2006.10355.  Dirichlet gates, in two progressive stages.

    python experiments/drnas.py smoke                 digits, NAS-Bench-201 cells
    python experiments/drnas.py cifar10               the paper's NAS-Bench-201 setting (needs tfds:cifar10, and an accelerator)

smoke: 40 + 80 steps a stage; 2 busy CPU cores, 1.6 minutes.  cifar10: K = 4 with 5 operations, then K = 2 with 3, 50 + 50
epochs, on an accelerator; not run.

Results: docs/results.md#drnas-and-p-darts-in-stages

Each stage begins with 10 epochs of weight steps alone.  Between the stages the operations of least concentration are dropped
(`strongest_operations`), the partial channels widen from C / 4 to C / 2 with copies of random ones (`copy_channels`), and the
optimizer begins anew on the cosine where it stood.
"""

import sys

import _common
import jax
import numpy as np
import optax

import jaxnas as nas
from jaxnas import policies, training
from jaxnas.base import Phase, then
from jaxnas.weight_sharing import Given, copy_channels, strongest_operations

SMOKE = _common.StagedSetting(
    **dict(data="digits", batch=32, space=nas.spaces.nasbench201(), channels=8, cells=(1, 1)),
    **dict(epoch=4, alone=10, both=20),
)
CIFAR10 = _common.StagedSetting(
    **dict(data="tfds:cifar10", batch=64, space=nas.spaces.nasbench201(), channels=16, cells=(5, 5)),
    **dict(epoch=390, alone=10, both=40),
)
SETTINGS = {"smoke": SMOKE, "cifar10": CIFAR10}
PARTIAL = 4, 2  # of the channels one in so many, in each stage


def plan(setting: _common.StagedSetting, dataset: nas.data.Dataset):
    size = dict(image=dataset.image, classes=dataset.classes, channels=setting.channels)
    narrow, wide = (
        nas.cell_net(setting.space, **size, cells=cells, partial=K) for cells, K in zip(setting.cells, PARTIAL, strict=True)
    )
    shapes = jax.eval_shape(wide.init, jax.random.key(0))
    whole = optax.cosine_decay_schedule(0.025, 2 * (setting.alone + setting.both) * setting.epoch, alpha=0.04)
    phases, begun = [], 0

    def grow(state):
        grown = copy_channels(jax.random.key(1), state.variables, shapes)
        return Given(grown, theta=state.theta, open=strongest_operations(state.theta, 3))

    def go_on(state):
        return Given(state.variables, theta=state.theta)

    for stage, net in enumerate((narrow, wide)):
        for arch_steps, epochs in ((0, setting.alone), (1, setting.both)):
            steps = epochs * setting.epoch
            search = nas.drnas(net, training.sgd(lambda t, begun=begun: whole(begun + t)), training.adam())
            give = go_on if arch_steps else grow if stage else lambda state: None
            feed = nas.data.batches(dataset, setting.batch, arch_steps=arch_steps, augment=setting.augment)
            phases.append(Phase(search, steps, feed, give, name=f"stage {stage + 1}"))
            begun += steps
    return then(*phases)


def main(name: str = "smoke", out: str | None = None) -> None:
    setting = _common.named(SETTINGS, name)
    k_data, k_search = jax.random.split(jax.random.key(0))
    dataset = nas.data.load(setting.data, k_data, valid=setting.valid)
    result = nas.run(k_search, plan(setting, dataset), directory=out)
    for stage, state in enumerate(result.states[1::2]):
        print(f"stage {stage + 1}: {np.asarray(policies.still_open(state.theta)).sum(-1).tolist()} operations an edge")
    print(setting.space.to_text(jax.tree.map(np.asarray, result.best)))


if __name__ == "__main__":
    main(*sys.argv[1:])
