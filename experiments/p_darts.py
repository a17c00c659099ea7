"""P-DARTS: Chen, Xie, Wu and Tian, ICCV 2019, arXiv:1904.12760.  Deeper nets, fewer operations, fewer skips.

    python experiments/p_darts.py smoke                 digits, DARTS cells
    python experiments/p_darts.py cifar10               the paper's setting (needs tfds:cifar10 prepared, and an accelerator)

smoke: 1, 3, 3 cells, 20 + 40 steps a stage; 2 busy CPU cores, 10 minutes.  cifar10: 5, 11, 17 cells, 8, 5, 3 operations, 25
epochs a stage, on an accelerator; not run.

Results: docs/results.md#drnas-and-p-darts-in-stages

Each stage is two phases, weight steps alone and then both; its weights and alpha begin anew, and what the stage before has dropped
stays out (`strongest_operations`).  Dropout behind the skips decays within a stage, from 0.0, 0.4 and 0.7; `at_most_skips`
leaves two in the final normal cell.  As published: linear decay in the first phase, exponential in the second.
"""

import sys

import _common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnas as nas
from jaxnas import policies, training
from jaxnas.base import Phase, then
from jaxnas.weight_sharing import Given, at_most_skips, strongest_operations

SMOKE = _common.StagedSetting(
    **dict(data="digits", batch=32, space=nas.spaces.darts(nodes=2), channels=4, cells=(1, 3, 3)),
    **dict(epoch=4, alone=5, both=10),
)
CIFAR10 = _common.StagedSetting(
    **dict(data="tfds:cifar10", batch=96, space=nas.spaces.darts(nodes=4), channels=16, cells=(5, 11, 17)),
    **dict(epoch=260, alone=10, both=15),
)
SETTINGS = {"smoke": SMOKE, "cifar10": CIFAR10}
OPERATIONS, DROPOUT = (8, 5, 3), (0.0, 0.4, 0.7)


def plan(setting: _common.StagedSetting, dataset: nas.data.Dataset):
    phases, none = [], setting.space.spec.ops.index("none")
    for stage, (cells, keep, start) in enumerate(zip(setting.cells, OPERATIONS, DROPOUT, strict=True)):
        alone, both = setting.alone * setting.epoch, setting.both * setting.epoch
        linear = optax.linear_schedule(start, 0.0, alone + both)
        later = lambda t, start=start: start * jnp.exp(-0.2 * t / setting.epoch)
        schedule = optax.cosine_decay_schedule(0.025, alone + both)
        without = (none,) if stage == 2 else ()
        drop = lambda state, keep=keep, without=without: Given(open=strongest_operations(state.theta, keep, without))
        go_on = lambda state: Given(state.variables, state.opt_state, state.theta)
        for name, dropout, steps, arch_steps in (("weights", linear, alone, 0), ("both", later, both, 1)):
            net = nas.cell_net(
                setting.space,
                image=dataset.image,
                classes=dataset.classes,
                channels=setting.channels,
                cells=cells,
                skip_dropout=dropout,
            )
            search = nas.darts(net, training.sgd(schedule), training.adam(6e-4), order="first")
            feed = nas.data.batches(dataset, setting.batch, arch_steps=arch_steps, augment=setting.augment)
            give = go_on if arch_steps else drop if stage else lambda state: None
            phases.append(Phase(search, steps, feed, give, name=f"stage {stage + 1}, {name}"))
    return then(*phases)


def main(name: str = "smoke", out: str | None = None) -> None:
    setting = _common.named(SETTINGS, name)
    k_data, k_search = jax.random.split(jax.random.key(0))
    dataset = nas.data.load(setting.data, k_data, valid=setting.valid)
    result = nas.run(k_search, plan(setting, dataset), directory=out)
    policy = policies.softmax(setting.space)
    gates = jax.tree.map(lambda a: a[0], policy.sample(k_search, result.state.theta, 0))
    for stage, state in enumerate(result.states[1::2]):
        left = np.concatenate([np.asarray(policies.still_open(a)).sum(-1) for a in jax.tree.leaves(state.theta)])
        print(f"stage {stage + 1}: {left.min()} to {left.max()} operations an edge")
    print(setting.space.to_text(jax.tree.map(np.asarray, at_most_skips(setting.space, gates))))


if __name__ == "__main__":
    main(*sys.argv[1:])
