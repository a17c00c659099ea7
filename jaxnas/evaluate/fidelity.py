"""Proxy tasks: the settings that make a training cheaper, in one place, and what they save.

References: Zoph et al., Learning Transferable Architectures, CVPR 2018 (20 epochs of a small net); Zhou et al., EcoNAS, CVPR 2020,
arXiv:2001.01233 (which of them keeps the ranking).

    cost / cost of the full setting = multiply-adds x samples x epochs,   multiply-adds ~ cells channels^2 resolution^2

A proxy's schedule of the learning rate is as long as the proxy: `Setting.steps`.  Cutting a longer schedule short is another proxy,
with another ranking (`jaxnas.evaluate.trials`).
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.data.dataset import Dataset, Split
from jaxnas.nets.base import Net
from jaxnas.nets.cells import cell_net
from jaxnas.spaces._space import Space


class Fidelity(NamedTuple):
    """A setting of one recipe; defaults are NAS-Bench-201's on CIFAR."""

    epochs: int = 200
    data_fraction: float = 1.0  # of the training examples
    channels: int = 16  # of the first cells
    cells: int = 5  # in all, or a stage: see `jaxnas.nets.cell_module`
    resolution: int = 32  # of an image's height


def check_fidelity(fidelity: Fidelity, full: Fidelity) -> None:
    """Raises ValueError for a setting that is not positive, or above the full one."""
    for name, value, most in zip(Fidelity._fields, fidelity, full, strict=True):
        if not 0 < value <= most:
            raise ValueError(f"{name} of a proxy lies above 0 and at most at the full setting's {most}; got {value}")


def relative_cost(fidelity: Fidelity, full: Fidelity) -> float:
    """What a training costs, as a share of the full one's.

    Raises:
        ValueError: as `check_fidelity`.
    """
    check_fidelity(fidelity, full)
    share = {name: a / b for name, a, b in zip(Fidelity._fields, fidelity, full, strict=True)}
    return share["cells"] * share["channels"] ** 2 * share["resolution"] ** 2 * share["data_fraction"] * share["epochs"]


class Setting(NamedTuple):
    """What a recipe trains."""

    net: Net
    dataset: Dataset  # train examples and all images as the fidelity has them
    steps: int


def setting(fidelity: Fidelity, space: Space, dataset: Dataset, batch: int) -> Setting:
    """The net, the data and the number of steps of a fidelity.

    Args:
        fidelity: at most all of the data, and its resolution.
        space: a cell space.
        dataset: its train half is cut (the split has shuffled it), its valid half and its test set are only resized.
        batch: examples a step.

    Raises:
        ValueError: for a fidelity above the data's maximum, fewer examples than a batch, or what `cell_net` refuses.
    """
    check_fidelity(fidelity, fidelity._replace(data_fraction=1.0, resolution=dataset.image[0]))
    n = math.floor(fidelity.data_fraction * len(dataset.train.y))
    if n < batch:
        raise ValueError(f"{fidelity.data_fraction} of the data are {n} examples, less than a batch of {batch}: take more")
    cut = lambda split, n: Split(_resized(split.x[:n], fidelity.resolution), split.y[:n])
    whole = lambda split: cut(split, len(split.y))
    small = dataclasses.replace(dataset, train=cut(dataset.train, n), valid=whole(dataset.valid), test=whole(dataset.test))
    height, width, channels = small.image
    net = cell_net(space, image=(height, width, channels), classes=small.classes, channels=fidelity.channels, cells=fidelity.cells)
    return Setting(net, small, fidelity.epochs * (n // batch))


def _resized(x, height):
    """Images [N, H, W, C] at another height, antialiased."""
    n, h, w, c = x.shape
    width = max(1, round(w * height / h))
    return x if h == height else jnp.asarray(jax.image.resize(x, (n, height, width, c), "linear"))
