"""DARTS: Liu, Simonyan and Yang, ICLR 2019, arXiv:1806.09055.  The exact second order, then training from scratch.

    python experiments/darts.py smoke                     digits, DARTS cells
    python experiments/darts.py cifar10                   the paper's search (needs tfds:cifar10 prepared, and an accelerator)
    python experiments/darts.py imagenet [GENOTYPE]       a cell at the paper's mobile size (needs tfds:imagenet2012 prepared)

smoke: C=4, 3 cells, 100 + 300 steps; 2 busy CPU cores, 17 minutes.  cifar10: C=16, 8 cells, 50 epochs, batch 64 (a GPU day in
the paper); not run.  imagenet: C=48, 14 cells, 224 x 224, 250 epochs, on accelerators; not run.

Results: docs/results.md#darts

The published recipe trains the found cell with C=36, 20 cells, auxiliary head, cutout and drop path for 600 epochs
(`jaxnas.nets.evaluation_net`, `jaxnas.training.train`); `jaxnas search` trains at the size of the search instead.

imagenet, not as published: resized crops are taken of images that the host has resized to 224 x 224; the colours' order is fixed
and their hue stays.
"""

import sys
from dataclasses import dataclass

import _common
import jax
import optax

from jaxnas import data, nets, spaces, training
from jaxnas.app.config import Config


@dataclass(frozen=True, kw_only=True)
class Transfer(_common.Setting):
    """The training of one cell; the rate falls by 3 % after every epoch."""

    channels: int
    cells: int
    epochs: int
    rate: float


SMOKE = Config(space="darts", strategy="darts", data="digits", steps=100, channels=4, cells=3, train_steps=300)
IMAGENET = Transfer(
    data="tfds:imagenet2012",
    outside=True,
    augment=data.chain(data.resized_crop(), data.flip(), data.colour_jitter(0.4, 0.4, 0.4)),
    batch=128,
    channels=48,
    cells=14,
    epochs=250,
    rate=0.1,
)
SEARCHES = {"smoke": SMOKE, "cifar10": _common.DARTS_CIFAR10}
SETTINGS = {**SEARCHES, "imagenet": IMAGENET}


def train(key: jax.Array, s: Transfer, dataset: _common.Images, genotype: str) -> float:
    """The accuracy on the test part of a cell that is trained on the others, in percent."""
    space = spaces.darts()
    size = dict(channels=s.channels, cells=s.cells, auxiliary=True, imagenet=True)
    module = nets.evaluation_net(space, space.from_text(genotype), classes=dataset.classes, **size)
    epoch = (data.count(dataset.train) + data.count(dataset.valid)) // s.batch
    optimizer = training.sgd(optax.exponential_decay(s.rate, epoch, 0.97, staircase=True), weight_decay=3e-5)
    feed = data.training(dataset, s.batch, augment=s.augment)
    variables = _common.train(key, module, optimizer, dataset, feed, s.epochs * epoch, label_smoothing=0.1)
    return 100 * _common.accuracy_on(dataset, "test", module, variables)


def main(name: str = "smoke", *rest: str) -> None:
    setting = _common.named(SETTINGS, name)
    if not isinstance(setting, Transfer):
        return _common.search_and_train(SEARCHES, name, *rest)
    k_data, k_train = jax.random.split(jax.random.key(0))
    genotype = rest[0] if rest else "DARTS_V2"
    print(f"{genotype}: {train(k_train, setting, _common.images(k_data, setting), genotype):.2f} % on the validation images")


if __name__ == "__main__":
    main(*sys.argv[1:])
