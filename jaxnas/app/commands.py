"""What a person can ask of `jaxnas`, and how it is read: a dataclass a command, whose fields are its flags."""

import contextlib
import dataclasses
import difflib
import io
import re
import typing
from typing import Annotated, Any

import tyro

from jaxnas.app.config import SETTINGS, Config, named, read_config_file
from jaxnas.app.settings import load_plugins
from jaxnas.kinds import NonNegative, Positive, PositiveNumber, Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """Where a search runs, which changes its result by rounding alone."""

    mesh: str | None = None
    """How devices share the search: seed=N, pop=N and batch=N, joined by commas (default: one device; with --distributed
    all of them, over the seeds where they divide them, else over the batch)."""
    distributed: bool = False
    """This is one of several processes, each started by the same command: see docs/pods.md."""
    coordinator: str | None = None
    """HOST:PORT of process 0 (default: what Slurm, the TPU pod or JAX_COORDINATOR_ADDRESS says)."""
    processes: Positive | None = None
    """How many there are (default: what Slurm or the pod says)."""
    process: NonNegative | None = None
    """Which of them this is, from 0 (default: what Slurm, the pod or an indexed job of Kubernetes says)."""


@dataclasses.dataclass(frozen=True)
class Search(Launch, Config):
    """Search, derive, retrain, compare and keep a network.

    Further flags belong to the strategy and to the space: name them first, as in jaxnas search --strategy tunas --help.
    """

    config: str | None = None
    """A .json or .toml file with any of these settings, such as a run's own config.json; flags win over it."""
    out: str | None = None
    """The run directory (default: a new one under runs/); never overwritten."""


@dataclasses.dataclass(frozen=True)
class Resume(Launch):
    """Go on with a run from its last checkpoint."""

    run: Annotated[str, tyro.conf.Positional]
    """The run directory."""


@dataclasses.dataclass(frozen=True)
class Show:
    """Draw a run's architecture, or a genotype."""

    what: Annotated[str, tyro.conf.Positional]
    """A run directory, a published name (DARTS_V2, NASNET_A, PNASNET_5), or a genotype's text."""
    space: str | None = None
    """Of a genotype: see `jaxnas list` (default: the first that it is of)."""
    out: str = "architecture.svg"
    """The picture of a genotype: .svg or .png."""
    open: bool = False
    """Show a run's report.html, or the picture, in the browser."""


@dataclasses.dataclass(frozen=True)
class Watch:
    """Follow a run that goes on in another terminal, until it has its result."""

    run: Annotated[str, tyro.conf.Positional]
    """The run directory."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Say what a run's network makes of examples: a line each, and how often it is right where the answers are known."""

    run: Annotated[str, tyro.conf.Positional]
    """The run directory."""
    data: Annotated[str, tyro.conf.Positional]
    """A table (.csv, .tsv, .parquet), an image, a folder of images, a .npy or .npz, or what else --data reads; targets may be left
    out."""
    out: str | None = None
    """A new file.csv for the predictions, with the probability of every class (default: they are printed)."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a run's network in a form that other programs read; export.bin, for JAX, is in the run already."""

    run: Annotated[str, tyro.conf.Positional]
    """The run directory."""
    format: str = "onnx"
    """onnx (pip install 'jaxnas[onnx]')."""
    out: str | None = None
    """The new file (default: network.onnx in the run directory); never overwritten."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """Compare algorithms on tables: regret curves, rank tests, pictures."""

    tables: tuple[str, ...] = ("nasbench201:cifar10",)
    """nasbench201:DATASET, nas-bench-graph:DATASET (pip install 'jaxnas[benchmarks]'), or a file.npz of your own."""
    space: str | None = None
    """Of the rows of the files: see `jaxnas list` (default: the one that a file names, as jaxnas tabulate writes it; else the
    file's decisions, none of them conditional)."""
    accuracy: str = "accuracy"
    """The array of the files that a search sees, larger is better; =-NAME for one of which less is better."""
    test: str = "test"
    """The array that is reported of the answer (default: test, or what a search sees where there is none)."""
    cost: str = "cost"
    """The array of what a query takes, in seconds."""
    algorithms: tuple[str, ...] = ()
    """Which to compare, with settings where they are not the default, as q-learning:alpha=0.01,replay=64 (default: all that ask for
    architectures)."""
    queries: Positive = 150
    """Architectures that each search may ask for."""
    seeds: Positive = 100
    """Searches of each algorithm, run side by side."""
    seed: Seed = 0
    """The root of all randomness."""
    out: str = "bench"
    """Where curves.csv, results.csv, results.md and the pictures go; never overwritten.  The same command goes on with a comparison
    that was cut."""


@dataclasses.dataclass(frozen=True)
class Tabulate:
    """Train every architecture of a space, or a sample, on your data, and keep the table, which jaxnas bench reads."""

    space: str = "nasbench201"
    """Where: see `jaxnas list`."""
    data: str = "digits"
    """digits, a file.npz with arrays x and y, or tfds:NAME."""
    architectures: NonNegative = 100
    """How many different ones, drawn at random; 0: all."""
    steps: Positive = 60
    """Training steps of each."""
    batch: Positive = 64
    """Examples a batch."""
    channels: Positive = 8
    """Channels of the first cells."""
    cells: Positive = 1
    """As in jaxnas search."""
    learning_rate: PositiveNumber = 0.025
    """Annealed to 0 by a cosine."""
    seed: Seed = 0
    """The root of all randomness."""
    out: str = "table.npz"
    """The table; a table that was cut short is continued, any other file is left alone."""


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
    architectures: Positive = 100
    """How many of the table's rows, drawn at random."""
    batch: Positive = 64
    """Examples a batch."""
    channels: Positive = 16
    """Channels of the first cells."""
    cells: Positive = 5
    """As in jaxnas search; a shallow network ranks otherwise than the deep one that was trained."""
    own: bool = False
    """Each architecture draws weights of its own, as networks built one by one do; else all share one draw."""
    top: Positive = 10
    """k of recall and regret."""
    seed: Seed = 0
    """The root of all randomness."""
    out: str = "rank"
    """Where results.md, scores.csv and the pictures go; never overwritten."""


@dataclasses.dataclass(frozen=True)
class Runs:
    """List and compare the runs in a directory: what each searched, how far it is, and its result."""

    directory: Annotated[str, tyro.conf.Positional] = "runs"
    """Where the run directories are."""


@dataclasses.dataclass(frozen=True)
class Worker:
    """Run a program of your own for each trial of a study: jaxnas worker STUDY -- python train.py.

    The first worker makes the study; any number of others, on any machine that sees the directory, join it.  The program finds the
    architecture in $JAXNAS_ARCH, and all there is in the JSON file $JAXNAS_TRIAL; it answers with the last line of its output, such
    as {"accuracy": 0.93}.
    """

    study: Annotated[str, tyro.conf.Positional]
    """The directory of the study, or a file.py with a `study` of your own, made by nas.study(...)."""
    script: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """The program and its arguments, behind --."""
    space: str | None = None
    """Where: see `jaxnas list` (default: the study's; of a new one nasbench201)."""
    strategy: str | None = None
    """Of a new study, with settings where they are not the default, as aging:population=20 (default: aging); those of `jaxnas list`
    that ask for candidates."""
    objectives: str | None = None
    """What is maximised, with commas between several metrics and - before one of which less is better, as accuracy,-latency
    (default: the study's; of a new one accuracy)."""
    trials: Positive | None = None
    """How many, of all workers together (default: as many as the study was made for; a new one 100).  One that has ended goes on
    with more."""
    patience: PositiveNumber = 60.0
    """Seconds without a sign of life after which a trial of this worker is given to another."""
    seed: Seed | None = None
    """The root of all randomness (default: the study's; of a new one 0)."""
    use: tuple[str, ...] = ()
    """Python files that register more spaces and strategies."""


@dataclasses.dataclass(frozen=True)
class List:
    """List spaces, strategies, evaluators, nets, data, operations and proxies."""

    use: tuple[str, ...] = ()
    """Python files that register more of them."""


COMMANDS = {
    "search": Search,
    "resume": Resume,
    "show": Show,
    "watch": Watch,
    "predict": Predict,
    "export": Export,
    "bench": Bench,
    "tabulate": Tabulate,
    "rank": Rank,
    "runs": Runs,
    "worker": Worker,
    "list": List,
}


def _value(arguments: list[str], flag: str) -> list[str]:
    """What a flag is given before anything else is read: the words behind it."""
    for i, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return [argument.split("=", 1)[1]]
        if argument == flag:
            behind = arguments[i + 1 :]
            return behind[: next((n for n, word in enumerate(behind) if word.startswith("--")), len(behind))]
    return []


def search_command(arguments: list[str]) -> type[Search]:
    """`Search` with the defaults of --config, and with the settings of its strategy and its space as flags.

    Raises:
        ValueError: for a config, a strategy, a space or a --use that cannot be.
    """
    load_plugins(tuple(_value(arguments, "--use")))
    held = Config()
    if path := _value(arguments, "--config"):
        held = read_config_file(path[0])
    fields = []
    for name, flag in (("strategy", "--strategy"), ("space", "--space")):
        given = _value(arguments, flag)
        if given and given[0] != getattr(held, name):
            other: dict[str, Any] = {name: given[0], f"{name}_settings": None}
            held = dataclasses.replace(held, **other)
    for field in dataclasses.fields(Search):
        kind, default = field.type, getattr(held, field.name, field.default)
        if field.name in SETTINGS:
            made = SETTINGS[field.name](held).settings
            prefix = field.name.removesuffix("_settings")
            kind = Annotated[made, tyro.conf.arg(name=prefix, help=f"Of {getattr(named(held), prefix)}.")]
            default = made() if default is None else default
        fields.append((field.name, kind, dataclasses.field(default=default)))
    return dataclasses.make_dataclass("Search", fields, bases=(Search,), frozen=True, namespace={"__doc__": Search.__doc__})


def flags_of(command: type) -> set[str]:
    """Every flag of a command, those of nested settings included."""
    flags = {"--help", "-h"}
    for f in dataclasses.fields(command):
        kind = typing.get_args(f.type)[0] if typing.get_origin(f.type) is Annotated else f.type
        if f.name in SETTINGS and dataclasses.is_dataclass(kind):
            names = [f"{f.name.removesuffix('_settings')}.{inner.name}" for inner in dataclasses.fields(kind)]
        else:
            names = [f.name]
        flags |= {"--" + name.replace("_", "-") for name in names}
    return flags | {"--" + flag[2:].replace(".", ".no-", 1) for flag in flags if "." in flag}


def parse(arguments: list[str]) -> Any:
    """The command's dataclass; ValueError, in one line, for what tyro cannot read."""
    commands: dict[str, Any] = dict(COMMANDS)
    if arguments and arguments[0] == "worker" and "--" in arguments:  # what is behind it is another program's
        at = arguments.index("--")
        return dataclasses.replace(parse(arguments[:at]), script=tuple(arguments[at + 1 :]))
    if arguments and arguments[0] == "search":
        commands["search"] = search_command(arguments[1:])
    command = commands.get(arguments[0]) if arguments else None
    if arguments and command is None and not arguments[0].startswith("-"):
        raise ValueError(f"unknown command {arguments[0]!r}: choose one of {', '.join(commands)}")
    if command is not None:
        flags = flags_of(command)
        for argument in arguments[1:]:
            flag = argument.split("=")[0].replace("_", "-")
            if argument.startswith("--") and flag not in flags:
                near = difflib.get_close_matches(flag, flags, 1)
                hint = f"did you mean {near[0]}?" if near else f"see jaxnas {arguments[0]} --help"
                raise ValueError(f"unknown flag {flag}: {hint}")
    _check_values(arguments, command)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.extras.subcommand_cli_from_dict(
                commands, prog="jaxnas", description="Neural architecture search in JAX.", args=arguments
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ValueError(_plain(errors.getvalue()) or "cannot read these arguments: see jaxnas --help") from None


def _check_values(arguments: list[str], command: type | None) -> None:
    """Raises ValueError for an empty word, and for a flag of several values that is given none."""
    before = arguments[0] if arguments else ""
    for argument in arguments[1:]:
        flag, equals, value = argument.partition("=")
        if not argument.strip() or (flag.startswith("--") and equals and not value.strip()):
            empty = flag if flag.startswith("--") else before if before.startswith("--") else f"what to {arguments[0]}"
            raise ValueError(f"{empty} is empty: give a value, or leave it out")
        before = argument
    for field in dataclasses.fields(command) if command is not None else ():
        flag = f"--{field.name}"
        if typing.get_origin(field.type) is tuple and flag in arguments and not _value(arguments, flag):
            one = {"use": "file"}.get(field.name, field.name.removesuffix("s"))
            raise ValueError(f"{flag} has no value: give at least one {one}, or leave it out")


def _plain(box: str) -> str:
    """tyro's words without its frame, its headings, and the help of the argument, which --help has."""
    lines = [line for line in box.splitlines() if not re.match(r"\s*[\u256d\u2570]", line)]
    words = re.sub(r"[^\x20-\x7e]+|-{3,}", " ", " ".join(lines))
    words = re.sub(r"Argument helptext: .*?(?=For full helptext|$)", "", re.sub(r"\s+", " ", words))
    return re.sub(r"\.? ?For full helptext,? (?:run|see):? ", ": see ", words).strip()
