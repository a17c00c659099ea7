"""PNAS: Liu et al., ECCV 2018, arXiv:1712.00559.  Cells grow block by block; a model of those trained picks what is trained next.

    python experiments/pnas.py smoke                  digits
    python experiments/pnas.py paper                  CIFAR-10 (needs tfds:cifar10 prepared, and an accelerator)

smoke: 36 + 2 * 16 cells of up to 3 blocks, 4 operations, 30 steps each; 2 busy CPU cores, 2 + 3 minutes (random search's after
PNAS's). paper: 136 + 4 * 256 cells, N = 2, F = 24, 20 epochs; not run.

Results: docs/results.md#pnas
"""

import sys
from dataclasses import dataclass

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import ask_tell, data, evaluate, nets, spaces, surrogates
from jaxnas.base import black_box
from jaxnas.driver import run
from jaxnas.spaces.blocks import PNAS_OPS


@dataclass(frozen=True, kw_only=True)
class Setting(_common.Setting):
    ops: tuple[str, ...]
    blocks: int
    beam: int
    at_once: int  # cells trained in one step
    channels: int
    cells: int  # a stage
    steps: int  # of a cell's training
    rate: float


PAPER = Setting(
    **dict(data="tfds:cifar10", batch=128, blocks=5, ops=PNAS_OPS, beam=256, at_once=8),
    **dict(channels=24, cells=2, steps=20 * 45_000 // 128, rate=0.01),
)
SMOKE = Setting(
    **dict(data="digits", batch=64, blocks=3, ops=("sep_conv_3x3", "skip_connect", "max_pool_3x3", "nor_conv_1x1"), beam=16),
    **dict(at_once=4, channels=4, cells=1, steps=30, rate=0.05),
)
SETTINGS = {"paper": PAPER, "smoke": SMOKE}


def main(name: str = "smoke") -> None:
    s = _common.named(SETTINGS, name)
    dataset = data.load(s.data, jax.random.key(0), valid=s.valid)
    space = spaces.pnas(s.blocks, s.ops)
    net = nets.cell_net(space, image=dataset.image, classes=dataset.classes, channels=s.channels, cells=s.cells)
    evaluator = evaluate.train_from_scratch(net, _common.cosine_sgd(s.rate, s.steps))
    scored = len(dataset.valid.y) // s.batch
    feed = data.batches(dataset, s.batch, weight_steps=s.steps, arch_steps=scored, augment=s.augment)
    growth = ask_tell.growing_blocks(space)
    predictor = surrogates.BlockPerceptron(s.blocks + 2, len(s.ops))
    surrogate = surrogates.ensemble(predictor, surrogates.block_tokens(space), later_rate=0.002, folds=True)
    algorithms = {
        "PNAS": ask_tell.progressive(growth, surrogate, beam=s.beam, batch=s.at_once),
        "random search": ask_tell.random_search(space, batch=s.at_once),
    }
    cells = len(growth.first.size) + (s.blocks - 1) * s.beam
    for title, algorithm in algorithms.items():
        seconds = _common.stopwatch()
        result = run(jax.random.key(1), black_box(algorithm, evaluator), steps=cells // s.at_once, data=feed)
        info = result.infos[0]
        accuracy = np.asarray(info.metrics["accuracy"]).ravel()
        size = np.asarray(info.archs.size).ravel() + 1
        levels = ", ".join(f"{b}: {100 * np.nanmean(accuracy[size == b]):.2f}" for b in range(1, s.blocks + 1) if (size == b).any())
        top = np.sort(accuracy)[-5:]
        print(f"{title}: {cells} cells in {seconds() / 60:.1f} minutes, {int(jnp.sum(info.failed))} diverged")
        print(
            f"  validation accuracy by number of blocks {levels}; best five {100 * top.mean():.2f} ± {100 * top.std(ddof=1):.2f} %"
        )
        print(f"  answer {space.to_text(jax.tree.map(np.asarray, result.best))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
