"""What a person can ask of `jaxnas`, and how it is read: a dataclass a command, whose fields are its flags."""

import contextlib
import dataclasses
import difflib
import io
import re
from typing import Annotated

import tyro

from jaxnas.app.config import Config


@dataclasses.dataclass(frozen=True)
class Search(Config):
    """Search, derive, retrain, compare and keep a network."""

    out: str | None = None
    """The run directory (default: a new one under runs/); never overwritten."""


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with a run from its last checkpoint."""

    run: Annotated[str, tyro.conf.Positional]
    """The run directory."""


@dataclasses.dataclass(frozen=True)
class Show:
    """Draw a run's architecture, or a genotype."""

    what: Annotated[str, tyro.conf.Positional]
    """A run directory, a published name (DARTS_V2, NASNET_A, PNASNET_5), or a genotype's text."""
    out: str = "architecture.svg"
    """The picture of a genotype: .svg or .png."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """Compare algorithms on tables: regret curves, rank tests, pictures."""

    tables: tuple[str, ...] = ("nasbench201:cifar10",)
    """nasbench201:DATASET, nas-bench-graph:DATASET (pip install 'jaxnas[benchmarks]'), or a file.npz of your own."""
    algorithms: tuple[str, ...] = ()
    """Which to compare (default: all of `jaxnas list`)."""
    queries: int = 150
    """Architectures that each search may ask for."""
    seeds: int = 100
    """Searches of each algorithm, run side by side."""
    seed: int = 0
    """The root of all randomness."""
    out: str = "bench"
    """Where curves.csv, results.csv, results.md and the pictures go; never overwritten."""


@dataclasses.dataclass(frozen=True)
class Tabulate:
    """Train every architecture of a space, or a sample, on your data, and keep the table; jaxnas bench reads a whole one."""

    space: str = "nasbench201"
    """Where: see `jaxnas list`."""
    data: str = "digits"
    """digits, a file.npz with arrays x and y, or tfds:NAME."""
    architectures: int = 100
    """How many different ones, drawn at random; 0: all."""
    steps: int = 60
    """Training steps of each."""
    batch: int = 64
    """Examples a batch."""
    channels: int = 8
    """Channels of the first cells."""
    cells: int = 1
    """As in jaxnas search."""
    learning_rate: float = 0.025
    """Annealed to 0 by a cosine."""
    seed: int = 0
    """The root of all randomness."""
    out: str = "table.npz"
    """The table; one that was cut is gone on with, another one never overwritten."""


@dataclasses.dataclass(frozen=True)
class Rank:
    """Score architectures before training, and say how well that ranks them against a table."""

    proxy: tuple[str, ...] = ("params", "synflow", "nwot")
    """Which: see `jaxnas list`."""
    table: str = "nasbench201:cifar10"
    """The reference, as in jaxnas bench."""
    space: str = "nasbench201"
    """Of the table's rows: nasbench201, or another cell space of `jaxnas list` that a file.npz is of."""
    data: str = "digits"
    """What the batches are of: digits, a file.npz with arrays x and y, or tfds:NAME."""
    architectures: int = 100
    """How many of the table's rows, drawn at random."""
    batch: int = 64
    """Examples a batch."""
    channels: int = 16
    """Channels of the first cells."""
    cells: int = 5
    """As in jaxnas search; a shallow network ranks otherwise than the deep one that was trained."""
    own: bool = False
    """Each architecture draws weights of its own, as networks built one by one do; else all share one draw."""
    top: int = 10
    """k of recall and regret."""
    seed: int = 0
    """The root of all randomness."""
    out: str = "rank"
    """Where results.md, scores.csv and the pictures go; never overwritten."""


@dataclasses.dataclass(frozen=True)
class List:
    """List spaces, strategies, operations and data."""


COMMANDS = {"search": Search, "resume": Resume, "show": Show, "bench": Bench, "tabulate": Tabulate, "rank": Rank, "list": List}


def parse(arguments: list[str]):
    """The command's dataclass; ValueError, in one line, for what tyro cannot read."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    if arguments and command is None and not arguments[0].startswith("-"):
        raise ValueError(f"unknown command {arguments[0]!r}: choose one of {', '.join(COMMANDS)}")
    if command is not None:
        flags = {"--" + f.name.replace("_", "-") for f in dataclasses.fields(command)} | {"--help", "-h"}
        for argument in arguments[1:]:
            flag = argument.split("=")[0].replace("_", "-")
            if argument.startswith("--") and flag not in flags:
                near = difflib.get_close_matches(flag, flags, 1)
                hint = f"did you mean {near[0]}?" if near else f"see jaxnas {arguments[0]} --help"
                raise ValueError(f"unknown flag {flag}: {hint}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="jaxnas", description="Neural architecture search in JAX.", args=arguments
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        words = re.sub(r"[^\x20-\x7e]+|-{3,}", " ", errors.getvalue())
        raise ValueError(re.sub(r"\s+", " ", words).strip() or "cannot read these arguments: see jaxnas --help") from None
