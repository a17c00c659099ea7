"""What several experiments share: how a setting is said, how results are printed, how one network is trained.  Not an experiment.

An experiment imports this package, `jaxnas` and third-party packages, and never another experiment.  `_common.one_shot` holds the
study of the one-shot methods, `_common.recurrent` the training of recurrent cells on text, `_common.cifar10` the images and the
table of the NAS-Bench-201 experiments.
"""

import contextlib
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import flax.linen as nn
import jax
import numpy as np
import optax

import jaxnas as nas
from jaxnas import data, nets, spaces, training
from jaxnas.analysis import ranking
from jaxnas.app import bench, config, search
from jaxnas.app.tabulate import Recipe, tabulate
from jaxnas.data import Augment, Dataset, Streamed, identity
from jaxnas.driver import compiler_options
from jaxnas.evaluate.benchmark import find
from jaxnas.spaces._mobile import MobileSpec

T = TypeVar("T")
Images = Dataset | Streamed


# Settings


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the settings of image experiments have in common; an experiment adds fields of its own."""

    data: str  # as `jaxnas.data.load` takes it
    batch: int
    valid: float = 0.5  # the part of the training images that scores architectures, or moves their parameters
    augment: Augment = identity
    outside: bool = False  # whether the images are too many for the device's memory: they are read while it runs


@dataclass(frozen=True, kw_only=True)
class MobileSetting(Setting):
    """A search among mobile networks, its weights warmed up, and the training of the answer: ProxylessNAS and FBNet."""

    spec: MobileSpec
    epoch: int  # weight steps
    warm: int  # epochs of weight steps alone
    epochs: int  # of the search
    weight_steps: int  # to an architecture step
    arch_rate: float
    train: int  # epochs from scratch
    seeds: int  # searches, and random networks
    aim: float | None = None  # multiply-adds; FBNet has none


@dataclass(frozen=True, kw_only=True)
class StagedSetting(Setting):
    """A search in stages, each with weight steps alone and then both: DrNAS and P-DARTS."""

    space: spaces.Space
    channels: int
    cells: tuple[int, ...]  # in each stage of the search
    epoch: int  # steps
    alone: int  # epochs of weight steps
    both: int  # epochs


DARTS_EPOCH = 25_000 // 64  # steps over half of CIFAR-10's training images
DARTS_CIFAR10 = config.Config(  # DARTS's published setting; the methods after it change a few of these
    space="darts",
    strategy="darts",
    data="tfds:cifar10",
    steps=50 * DARTS_EPOCH,
    batch=64,
    channels=16,
    cells=8,
    arch_learning_rate=3e-4,
    augment="crop+flip",
    train_steps=600 * 2 * DARTS_EPOCH,
)


def named(settings: Mapping[str, T], name: str) -> T:
    """The setting of this name.

    Raises:
        SystemExit: there is none; the message lists those that there are.
    """
    if name not in settings:
        raise SystemExit(f"no setting {name!r}: choose one of {', '.join(settings)}")
    return settings[name]


# Time, and what is kept between runs


def stopwatch() -> Callable[[], float]:
    """-> the seconds since this call."""
    started = time.perf_counter()
    return lambda: time.perf_counter() - started


@contextlib.contextmanager
def compiled_once(directory: pathlib.Path | None = None) -> Iterator[None]:
    """Within it, programs that differ in their key alone are compiled once; `directory` keeps the compiled code."""
    with tempfile.TemporaryDirectory() as temporary:
        jax.config.update("jax_compilation_cache_dir", str(directory or temporary))
        yield


def made(directory: str | pathlib.Path) -> pathlib.Path:
    """The directory, which is created if need be."""
    path = pathlib.Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    return path


def kept(path: pathlib.Path, work: Callable[[], Any]) -> Any:
    """What the JSON file holds; where there is none, `work()` is called and its result written there."""
    if not path.exists():
        path.write_text(json.dumps(work()))
    return json.loads(path.read_text())


# What is printed


def plus_minus(values, digits: int = 2) -> str:
    """The mean and half of Student's 95 % interval."""
    mean, half = ranking.interval(np.asarray(values))
    return f"{mean:.{digits}f} +- {half:.{digits}f}"


def each(values) -> str:
    """The mean, its 95 % interval, and the values."""
    return f"{plus_minus(values)} ({np.round(values, 2).tolist()})"


def show(name: str, **columns) -> None:
    """Prints a line for each column: its mean, its 95 % interval and its values."""
    for what, values in columns.items():
        print(f"{name}: {what} {each(values)}", flush=True)


def row(*cells) -> None:
    """Prints a row of a Markdown table."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def told(rank: ranking.Ranking, k: int = 5) -> str:
    """Kendall's tau, Spearman's rho and the regret of the top k, with their bootstrap intervals."""
    estimates = {"tau": rank.tau, "spearman": rank.spearman, f"regret of the top {k}": rank.regret}
    return ", ".join(f"{what} {e.value:.2f} ({e.low:.2f} to {e.high:.2f})" for what, e in estimates.items())


def show_costs(moved: Sequence) -> None:
    """Prints the expected cost at five points of the search, start and end among them, in the mean over searches [S, T]."""
    mean = np.mean(moved, 0, dtype=float)
    print(f"    expected, thousands: {mean[np.linspace(0, len(mean) - 1, 5).astype(int)].round(1).tolist()}", flush=True)


def show_queries(rows: Mapping[str, Callable], *, seeds: int = 16, marks: tuple[int, ...] = (30, 50, 100)) -> None:
    """Prints the accuracy of what each algorithm answers on the CIFAR-10 table of NAS-Bench-201, with its standard error.

    It is the validation accuracy of trainings that the search has not seen.

    Args:
        rows: title -> (space, budget) -> algorithm.
        seeds: searches of each.
        marks: after how many queries the answer is judged; the last is the budget.
    """
    table = find("nasbench201:cifar10")
    for name, make in rows.items():
        history = bench.search(jax.random.key(0), make, table, queries=marks[-1], seeds=seeds, at_once=8)
        test = np.nanmax(table.test) - bench.regret_curve(table, history.index)[:, np.asarray(marks) - 1]  # [S, marks]
        error = test.std(0, ddof=1) / np.sqrt(seeds)
        cells = [f"{m:.3f} ± {e:.3f}" for m, e in zip(test.mean(0), error, strict=True)]
        row(name, *cells, f"{history.seconds:.0f} s")


# Searches and trainings


def search_and_train(settings: Mapping[str, config.Config], name: str = "smoke", out: str | None = None) -> None:
    """As `jaxnas search --strategy darts` does: a search, then the training of what it found against random architectures."""
    chosen = named(settings, name)
    result = search.execute(config.prepare(out, chosen), chosen, progress=sys.stderr.isatty(), say=print)
    print(result["verdict"])


def images(key: jax.Array, s: Setting) -> Images:
    """The images of a setting, in memory or read while a search runs; those have ImageNet's size and parts."""
    if not s.outside:
        return data.load(s.data, key, valid=s.valid)
    return data.streamed(s.data, key, valid=s.valid, valid_as_test=True)


def jit(f: Callable) -> Callable:
    """`jax.jit` with the options that the driver compiles with."""
    return jax.jit(f, compiler_options=compiler_options())


def cosine_sgd(rate: float, steps: int, **options) -> optax.GradientTransformation:
    """`training.sgd`, its rate falling to 0 by a cosine."""
    return training.sgd(optax.cosine_decay_schedule(rate, steps), **options)


def in_turn(phases: Sequence, feed: nas.Feed) -> tuple[nas.Phase, ...]:
    """The plan of phases (strategy, steps, what is given to it or None), all on one feed."""
    return nas.then(*(nas.Phase(s, n, feed, **({"give": give} if give else {})) for s, n, give in phases))


def train(key: jax.Array, module: nn.Module, optimizer, dataset: Images, feed: nas.Feed | nas.Stream, steps: int, **options):
    """The variables of one network after its training; `options` are those of `training.train`."""
    return nas.run(key, training.train(module, optimizer, dataset.image, steps=steps, **options), steps=steps, data=feed).best


def calibrated(dataset: Images, size: int, batches: int) -> nas.Batch:
    """What shared weights are judged on: the one draw of `data.calibration`."""
    feed = data.calibration(dataset, size, batches)
    return jax.jit(feed.draw)(jax.random.key(0), feed.arrays, 0)


def accuracy(module: nn.Module, variables, split) -> float:
    """On a split (images, labels); a fraction."""
    return float(jax.jit(lambda v, split: training.accuracy(lambda x: module.apply(v, x), split))(variables, split))


def accuracy_on(dataset: Images, part: str, module: nn.Module, variables) -> float:
    """On a part of a data set; a fraction."""
    held = getattr(dataset, part)
    if isinstance(dataset, Dataset):
        return accuracy(module, variables, held)
    run = jax.jit(lambda v, split: training.accuracy(lambda x: module.apply(v, x), split))
    right = sum(len(split.y) * float(run(variables, split)) for split in dataset.in_order(held, 256))
    return right / len(held)


def train_mobile(key: jax.Array, net: nets.Net, arch, dataset: Images, feed: nas.Feed | nas.Stream, steps: int) -> dict[str, float]:
    """Trains one mobile network, specialised, with smoothed labels: its accuracies in percent."""
    module, _ = net.specialize(arch)
    optimizer = cosine_sgd(0.05, steps, weight_decay=4e-5, nesterov=True)
    variables = train(key, module, optimizer, dataset, feed, steps, label_smoothing=0.1)
    return {part: 100 * accuracy_on(dataset, part, module, variables) for part in ("valid", "test")}


def train_alone(path: pathlib.Path, net: nets.Net, dataset: Dataset, optimizer, flat, *, key, steps: int, batch: int) -> np.ndarray:
    """Test accuracies [A] in percent of a fixed pool of architectures, each with weights of its own, on the same batches.

    Args:
        path: an .npz that keeps them; what it has is not trained again.
        net: the supernet, whose `specialize` is not used: the whole pool is one program.
        dataset: the train half is trained on.
        optimizer: of the weights, over `steps`.
        flat: int[A, D], the architectures.
        key: draws weights and batches.
        steps: of each training.
        batch: images a step.

    Raises:
        SystemExit: one of them diverged.
    """
    if tabulate(path, net, dataset, Recipe(optimizer, steps, batch), key=key, archs=flat, chunk=len(flat)):
        raise SystemExit("a network diverged when it was trained alone: lower the learning rate")
    with np.load(path) as file:
        return 100 * file["test"]
