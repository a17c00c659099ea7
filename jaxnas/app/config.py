"""What a run is made from, and its directory."""

import contextlib
import dataclasses
import json
import math
import pathlib

STRATEGIES = {
    "darts": "differentiable, exact second order (Liu et al. 2019)",
    "darts-fd": "differentiable, the published finite-difference second order",
    "darts-first": "differentiable, first order",
    "robust-darts": "first order, stopped before the Hessian's eigenvalue rises (Zela et al. 2020)",
    "snas": "concrete samples on the training loss (Xie et al. 2019)",
    "gdas": "straight-through Gumbel, one operation an edge (Dong and Yang 2019)",
    "pc-darts": "one channel in four, normalised edges (Xu et al. 2020)",
    "drnas": "Dirichlet gates (Chen et al. 2021)",
    "gaea": "exponentiated gradients on the simplex, at a rate of its own, 0.1 (Li et al. 2021)",
    "sdarts-rs": "DARTS under random perturbations (Chen and Hsieh 2020)",
    "sdarts-adv": "DARTS under adversarial perturbations (Chen and Hsieh 2020)",
    "darts-minus": "DARTS with an auxiliary skip that fades (Chu et al. 2021)",
    "beta-darts": "DARTS with beta decay (Ye et al. 2022)",
    "spos": "one supernet trained on uniform single paths, then evolution on its weights (Guo et al. 2020)",
    "fairnas": "the same with every operation trained equally often (Chu et al. 2021); nasbench201 only",
    "one-shot": "one supernet of all paths with path dropout, then evolution on its weights (Bender et al. 2018)",
    "aging": "aging evolution (Real et al. 2019), candidates trained from scratch",
    "random": "random search, candidates trained from scratch",
    "local": "local search (White et al. 2021), candidates trained from scratch",
    "reinforce": "REINFORCE on independent categoricals, candidates trained from scratch",
    "q-learning": "MetaQNN's Q-learning (Baker et al. 2017), candidates trained from scratch",
    "tpe": "tree-structured Parzen estimator (Bergstra et al. 2011), candidates trained from scratch",
    "gp": "Gaussian process and expected improvement, candidates trained from scratch",
}
ONE_SHOT = ("spos", "fairnas", "one-shot")
DIFFERENTIABLE = tuple(STRATEGIES)[: tuple(STRATEGIES).index("spos")]
SPACES = {
    "nasbench201": "NAS-Bench-201 cells: 4 nodes, 5 operations, 15,625 architectures",
    "darts": "DARTS convolutional cells: normal and reduction, 1,037,664,180 each",
    "nasnet": "NASNet cells: normal and reduction, 5 blocks of 13 operations (black-box strategies and spos)",
    "amoebanet": "AmoebaNet cells: normal and reduction, 5 blocks of 8 operations (black-box strategies and spos)",
    "pnas": "PNAS cells: one, of 1 to 5 blocks of 8 operations (black-box strategies and spos)",
}
AUGMENTS = ("none", "crop", "crop+flip")


@dataclasses.dataclass(frozen=True)
class Config:
    """What a run is made from; config.json in its directory."""

    space: str = "nasbench201"
    """Where to search: see `jaxnas list`."""
    strategy: str = "darts"
    """How to search: see `jaxnas list`."""
    data: str = "digits"
    """digits, a file.npz with arrays x and y, or tfds:NAME."""
    steps: int = 300
    """Search steps (DARTS: one architecture and one weight step each; one-shot: one weight step; black box: one candidate)."""
    batch: int = 64
    """Examples a batch."""
    channels: int = 8
    """Channels of the first cells."""
    cells: int = 1
    """Cells in all (darts space), or in each of the three stages (nasbench201 space)."""
    learning_rate: float = 0.025
    """Of the weights; annealed to 0.001 by a cosine in the search, to 0 in training."""
    arch_learning_rate: float = 3e-3
    """Of the architecture parameters (the paper's 3e-4 is for 50 epochs of CIFAR-10)."""
    augment: str = "none"
    """none, crop, or crop+flip: of the training images."""
    candidate_steps: int = 60
    """Training steps a candidate of a black-box search gets."""
    train_steps: int = 600
    """Training steps of the found and of the random architecture."""
    seeds: int = 1
    """Whole searches, run as one vmapped program; the one with the best validation is kept."""
    seed: int = 0
    """The root of all randomness."""


def check(config: Config) -> None:
    """Raises ValueError, in one line that says what to do, for what no run can be made from."""
    for field, known in (("space", SPACES), ("strategy", STRATEGIES), ("augment", AUGMENTS)):
        value = getattr(config, field)
        if value not in known:
            raise ValueError(f"unknown {field} {value!r}: choose one of {', '.join(known)}")
    if config.strategy == "fairnas" and config.space != "nasbench201":
        raise ValueError(f"fairnas needs decisions of as many values each: search {config.space} with --strategy spos")
    if config.strategy in (*DIFFERENTIABLE, "one-shot") and config.space in ("nasnet", "amoebanet", "pnas"):
        raise ValueError(f"{config.strategy} needs edges that mix operations: search {config.space} with --strategy aging")
    for field in ("steps", "batch", "channels", "cells", "candidate_steps", "train_steps", "seeds"):
        if getattr(config, field) < 1:
            raise ValueError(f"--{field.replace('_', '-')} must be at least 1, not {getattr(config, field)}")
    if config.strategy == "pc-darts" and config.channels % 4:
        raise ValueError(f"pc-darts takes one channel in four: --channels must be a multiple of 4, not {config.channels}")
    check_seed(config.seed)
    if not all(0 < rate < math.inf for rate in (config.learning_rate, config.arch_learning_rate)):
        raise ValueError("learning rates must be positive and finite")


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that no key can be made from."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"the seed must be in [0, 2**63), not {seed}")


@contextlib.contextmanager
def empty(out):
    """A directory for results that are still to be made; where nothing came of them it is gone again.

    Raises:
        FileExistsError: for a directory that is not empty.
        PermissionError: for one that cannot be made.
    """
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
    check(config)
    if out is None:
        base = pathlib.Path("runs")
        number = next(i for i in range(1, 1_000_000) if not (base / f"{config.strategy}-{i}").exists())
        directory = base / f"{config.strategy}-{number}"
    else:
        directory = pathlib.Path(out)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} exists: continue it with jaxnas resume {directory}, or give another --out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    except OSError as error:
        raise PermissionError(f"cannot write to {directory} ({error.strerror}): give another --out") from None
    return directory


@contextlib.contextmanager
def fresh(out: str | None, config: Config):
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


def load_config(directory) -> Config:
    """The config of a run directory.

    Raises:
        ValueError: where there is none, or one of another version.
    """
    path = pathlib.Path(directory) / "config.json"
    try:
        values = json.loads(path.read_text())
        config = Config(**values)
        kinds = {f.name: (int, float) if f.type is float else f.type for f in dataclasses.fields(Config)}
        wrong = [name for name, kind in kinds.items() if not isinstance(getattr(config, name), kind)]
        if wrong:
            raise TypeError(f"{wrong[0]} is {getattr(config, wrong[0])!r}")
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{directory} is not a run: it has no config.json (start one with jaxnas search)") from None
    except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged or of another version ({error}): start anew with jaxnas search") from None
    check(config)
    return config
