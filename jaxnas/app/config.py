"""What a run is made from, and its directory."""

import contextlib
import dataclasses
import json
import pathlib
import tomllib
from collections.abc import Generator
from typing import Any, Literal

from jaxnas.app.limits import read_limit
from jaxnas.app.methods import METHODS
from jaxnas.app.methods.evaluators import EVALUATORS
from jaxnas.app.settings import check, load_plugins, read_settings
from jaxnas.app.spaces import NETS, SPACES
from jaxnas.driver.files import parse_json, read_json
from jaxnas.kinds import Positive, PositiveNumber, Precision, Seed


@dataclasses.dataclass(frozen=True)
class Config:
    """What a run is made from; config.json in its directory."""

    space: str = "auto"
    """Where to search: see `jaxnas list`; auto: what the strategy searches if nothing is said."""
    strategy: str = "auto"
    """How to search: see `jaxnas list`; auto: portfolio in the macro space, darts where another --space is given."""
    minutes: PositiveNumber = 3.0
    """For all of it, in the macro space; a search elsewhere counts steps."""
    limit: str | None = None
    """What a network of the macro space may cost: params=200k, macs=5M, or both with a comma between."""
    trials: Positive | None = None
    """Trainings of each arm in the macro space, with --train-steps each, instead of as many as there is time for."""
    evaluator: str = "scratch"
    """What candidates of a black-box search are worth: see `jaxnas list`."""
    data: str = "digits"
    """digits, file.npz, x.npy,y.npy, file.csv (.tsv, .parquet), a folder of images for each class, or of a saved Hugging Face data
    set, tfds:NAME, or, for recurrent cells, a file.txt."""
    target: str | None = None
    """The column to predict, or several, parted by commas (default: one called target, label, class or y, or the last)."""
    kind: Literal["classes", "labels", "numbers"] | None = None
    """What the target is: one class an example, any number of labels, or real numbers (default: found out, and said)."""
    group: str | None = None
    """The column whose groups are never split between train, valid and test."""
    balance: bool = False
    """Every class counts the same, however rare: in the loss, and in what networks are chosen and compared by."""
    size: Positive | None = None
    """Pixels on the longer side of images in files (default: their median, at most 64)."""
    stream: bool = False
    """Read images while it searches, and never have them all in memory: of a folder or tfds:NAME of any size, in searches on shared
    weights.  They are resized in proportion, and their middle is taken, --size pixels squared (default: 64)."""
    layout: Literal["NHWC", "NCHW", "NHW", "NTC", "NCT", "NF"] | None = None
    """What the axes of arrays are (default: found out, and said)."""
    steps: Positive = 300
    """Search steps (DARTS: one architecture and one weight step each; one-shot: one weight step; black box: one candidate)."""
    batch: Positive = 64
    """Examples a batch."""
    precision: Precision = "float32"
    """What networks compute in; their weights, norms and outputs are float32 in both."""
    channels: Positive = 8
    """Channels of the first cells, of a layer or of a bank; hidden units of a recurrent cell."""
    cells: Positive = 1
    """Cells in all (darts space), or in each of the three stages (other cells)."""
    learning_rate: PositiveNumber = 0.025
    """Of the weights; annealed to 0.001 by a cosine in the search, to 0 in training."""
    arch_learning_rate: PositiveNumber = 3e-3
    """Of the architecture parameters (the paper's 3e-4 is for 50 epochs of CIFAR-10)."""
    augment: str = "none"
    """none, crop, or crop+flip: of the training images."""
    candidate_steps: Positive = 60
    """Training steps a candidate of a black-box search gets."""
    supernet_steps: Positive = 300
    """Training steps of the supernet, with --evaluator supernet."""
    proxy: str = "synflow"
    """Which, with --evaluator zero-cost."""
    train_steps: Positive = 600
    """Training steps of the found and of the random architecture."""
    seeds: Positive = 1
    """Whole searches, run as one vmapped program; the one with the best validation is kept (the first, where a search has none)."""
    seed: Seed = 0
    """The root of all randomness."""
    use: tuple[str, ...] = ()
    """Python files that register methods, spaces or operations of your own."""
    strategy_settings: Any = None
    """The strategy's own numbers: flags --strategy.NAME; None: as published."""
    space_settings: Any = None
    """The space's own: flags --space.NAME; None: the default ones."""


SETTINGS = {
    "strategy_settings": lambda c: METHODS.find(named(c).strategy),
    "space_settings": lambda c: SPACES.find(named(c).space),
}


def named(config: Config) -> Config:
    """The config, with a strategy and a space."""
    strategy, space = config.strategy, config.space
    if strategy == "auto":
        strategy = "portfolio" if space in ("auto", METHODS["portfolio"].space) else "darts"
    if space == "auto":
        space = METHODS.find(strategy).space
    return dataclasses.replace(config, strategy=strategy, space=space)


def complete(config: Config) -> Config:
    """The config, with every setting filled in.

    Raises:
        ValueError: in one line that says what to do, for what no run can be made from.
    """
    load_plugins(config.use)
    config = named(config)
    for name, entry in SETTINGS.items():
        kind = entry(config).settings
        if getattr(config, name) is None:
            config = dataclasses.replace(config, **{name: kind()})
        elif not isinstance(getattr(config, name), kind):
            config = dataclasses.replace(config, **{name: read_settings(kind, getattr(config, name), name)})
    check_words({f"--{f.name.replace('_', '-')}": getattr(config, f.name) for f in dataclasses.fields(config)})
    check(config)
    for name in SETTINGS:
        check(getattr(config, name), f"--{name.removesuffix('_settings')}.")
    EVALUATORS.find(config.evaluator)
    read_limit(config.limit)
    _check_used(config)
    return config


def _check_used(config: Config) -> None:
    """Raises ValueError for a setting that says nothing about this kind of space: it would be ignored in silence."""
    shared = (
        "channels",
        "cells",
        "learning_rate",
        "arch_learning_rate",
        "augment",
        "candidate_steps",
        "supernet_steps",
        "proxy",
        "seeds",
    )
    supernet = NETS.find(SPACES.find(config.space).net).supernet
    unused = ["minutes", "limit", "trials"] if supernet else list(shared)
    if not supernet:
        unused += ["train_steps"] * (config.trials is None) + ["steps"] * (config.strategy == "portfolio")
    for name in unused:
        if getattr(config, name) != getattr(Config, name):
            where = "the macro space" if supernet else "other spaces"
            raise ValueError(f"--{name.replace('_', '-')} is for {where}, and this searches {config.space}: leave it out")
    for name, evaluator in (("candidate_steps", "scratch"), ("supernet_steps", "supernet"), ("proxy", "zero-cost")):
        if config.evaluator != evaluator and getattr(config, name) != getattr(Config, name):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} is for --evaluator {evaluator}, and this is judged by {config.evaluator}: leave it out")


def check_words(values: dict[str, Any]) -> None:
    """Raises ValueError for a text, among values by the names of their flags, that is empty: it names nothing."""
    for name, value in values.items():
        if any(isinstance(word, str) and not word.strip() for word in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{name} is empty: give a value, or leave it out")


def read_config(values: Any, where: str) -> Config:
    """A config of what JSON or TOML holds: {name: value}, and tables of settings.

    Raises:
        ValueError: for names, types or values that no run can be made from; `where` names the place.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a table of names and values")
    if _depth(values) > 4:
        raise ValueError(f"{where} is nested too deeply: it is a table of names and values")
    nested = {name: values[name] for name in SETTINGS if name in values}
    config = read_settings(Config, {k: v for k, v in values.items() if k not in nested}, where)
    load_plugins(config.use)
    for name, held in nested.items():
        kind = SETTINGS[name](config).settings
        nested[name] = None if held is None else read_settings(kind, held, f"{where}, {name}")
    return complete(dataclasses.replace(config, **nested))


def _depth(value: Any, most: int = 5) -> int:
    """How deeply tables and lists are nested; it is not counted beyond `most`."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(part, most - 1) for part in parts), default=0) if most else 0


def read_config_file(path: str) -> Config:
    """The config in a .json (a run's own config.json) or .toml file.

    Raises:
        ValueError: for a file that is not there, cannot be read, or holds what no run can be made from.
    """
    file = pathlib.Path(path).expanduser()
    if file.suffix not in (".json", ".toml"):
        raise ValueError(f"--config {path}: give a .json or a .toml file")
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ValueError(f"--config {path} cannot be read ({error.strerror})") from None
    try:
        values = parse_json(text) if file.suffix == ".json" else tomllib.loads(text.decode())
    except UnicodeDecodeError:
        raise ValueError(f"--config {path} is not {file.suffix[1:].upper()}: it is not text") from None
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"--config {path} is not {file.suffix[1:].upper()}: {why}") from None
    return read_config(values, f"--config {path}")


@contextlib.contextmanager
def empty(out: str | pathlib.Path) -> Generator[pathlib.Path, None, None]:
    """A directory for results that are still to be made; it is removed again if none were.

    Raises:
        FileExistsError: for a directory that is not empty.
        PermissionError: for one that cannot be made.
    """
    check_words({"--out": out})
    directory = pathlib.Path(out)
    made = [p for p in (directory, *directory.parents) if not p.exists()]
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} exists: give another --out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(f"cannot write to {directory} ({error.strerror}): give another --out") from None
    try:
        yield directory
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()


def prepare(out: str | None, config: Config) -> pathlib.Path:
    """Makes a new run directory and writes config.json; never touches one that holds anything.

    Raises:
        FileExistsError: for a directory that is not empty.
        PermissionError: for one that cannot be written.
    """
    config = complete(config)
    check_words({"--out": out})
    if out is None:
        base = pathlib.Path("runs")
        number = next(i for i in range(1, 1_000_000) if not (base / f"{config.strategy}-{i}").exists())
        directory = base / f"{config.strategy}-{number}"
    else:
        directory = pathlib.Path(out)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        there = (directory / "config.json").exists()
        how = f"continue it with jaxnas resume {directory}, or give another --out" if there else "give another --out"
        raise FileExistsError(f"{directory} exists{'' if there else ', and is no run'}: {how}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    except OSError as error:
        raise PermissionError(f"cannot write to {directory} ({error.strerror}): give another --out") from None
    return directory


@contextlib.contextmanager
def fresh(out: str | None, config: Config) -> Generator[pathlib.Path, None, None]:
    """`prepare`s a run directory; a start that fails, before it keeps anything there, leaves nothing behind."""
    top = pathlib.Path("runs" if out is None else out)
    made = [p for p in (top, *top.parents) if not p.exists()]
    directory = prepare(out, config)
    try:
        yield directory
    except Exception:
        if [p.name for p in directory.iterdir()] == ["config.json"]:
            (directory / "config.json").unlink()
            for path in [directory, *made] if out is None else made:
                with contextlib.suppress(OSError):  # gone already, or not empty
                    path.rmdir()
        raise


def load_config(directory: str | pathlib.Path) -> Config:
    """The config of a run directory.

    Raises:
        ValueError: where there is none, or one of another version.
    """
    if not str(directory).strip():
        raise ValueError("the run has no name: give its directory, such as runs/portfolio-1")
    path = pathlib.Path(directory) / "config.json"
    try:
        values = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{directory} is not a run: it has no config.json (start one with jaxnas search)") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder: start anew with jaxnas search") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): start anew with jaxnas search") from None
    try:
        return read_config(values, str(path))
    except ValueError as error:
        raise ValueError(f"{path} is damaged or of another version ({error}): start anew with jaxnas search") from None
