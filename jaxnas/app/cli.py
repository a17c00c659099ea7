"""The command line: jaxnas search | resume | show | watch | predict | export | bench | tabulate | rank | runs | worker | list.

Whatever a person can get wrong is answered with one line on stderr, wrapped in a terminal, and exit code 2; Ctrl-C with 130 after
saving; a search in which no candidate had a finite score with 3.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import shutil
import signal
import sys
import textwrap
from typing import Any

from jaxnas.app import launch
from jaxnas.app.commands import Bench, Export, List, Predict, Rank, Resume, Runs, Search, Show, Tabulate, Watch, Worker, parse
from jaxnas.app.config import Config, complete, empty, fresh, load_config
from jaxnas.app.settings import check, load_plugins
from jaxnas.app.spaces import NETS, SPACES
from jaxnas.app.tasks import score_of, without_retraining
from jaxnas.app.times import with_times
from jaxnas.driver.errors import Diverged, Stopped
from jaxnas.driver.files import read_json

NO_ANSWER = 3  # the exit code of a search that ends without one


def _configure() -> None:
    """A cache for compiled programs, and the library's log on stderr."""
    from jaxnas.driver import compilation_cache

    compilation_cache()
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="jaxnas: %(message)s")
    logging.getLogger("jaxnas").setLevel(logging.WARNING)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _search(command: Search) -> int:
    config = complete(Config(**{f.name: getattr(command, f.name) for f in dataclasses.fields(Config)}))
    with contextlib.ExitStack() as stack:
        mesh = stack.enter_context(launch.started(command, config))
        return _execute(launch.directory_of(command, fresh(command.out, config), stack), config, mesh)


def _resume(command: Resume) -> int:
    config = load_config(command.run)
    with launch.started(command, config) as mesh:
        return _execute(pathlib.Path(command.run), config, mesh)


def _execute(directory: pathlib.Path, config: Config, mesh: Any) -> int:
    _configure()
    from jaxnas.app import search
    from jaxnas.driver import processes

    result = search.execute(directory, config, progress=sys.stderr.isatty(), say=_say, mesh=mesh)
    if processes.is_first():
        print(_summary(directory, result))
    return 0 if "found" in result else NO_ANSWER


def _summary(directory: pathlib.Path, result: dict) -> str:
    kept = ", ".join(sorted(p.name for p in directory.iterdir()))
    if "found" not in result:
        return f"{result['verdict']}\nkept in {directory}: {kept}"
    words = score_of(result["found"]).words
    lines = [f"genotype        {result['genotype']}"]
    for name in ("found", "hand-made", "random", "small", "one-random", "gradient-boosting", "ensemble"):
        if name in result:
            size = f", {result[name]['parameters']:,} parameters" if "parameters" in result[name] else ""
            size += f", {result['milliseconds'][name]:.3g} ms" if name in result.get("milliseconds", {}) else ""
            lines.append(f"{name:<9} test  {words(result[name])}{size}")
    if "without_retraining" in result:
        lines.append(f"found, as is    {without_retraining(result)}")
    return "\n".join([*lines, result["verdict"], f"kept in {directory}: {kept}"])


def _show(command: Show) -> None:
    path = pathlib.Path(command.what)
    if path.is_dir():
        _show_run(path, command.open)
    elif path.suffix in (".json", ".npz", ".svg") or (os.sep in command.what and "|" not in command.what):
        raise ValueError(f"there is no run {command.what}: give a run directory or a genotype")
    else:
        _show_genotype(command)


def _show_run(path: pathlib.Path, in_browser: bool) -> None:
    config = load_config(path)
    if not (path / "result.json").exists():
        raise ValueError(f"{path} has no result yet: finish it with jaxnas resume {path}")
    try:
        summary = _summary(path, with_times(path, read_json(path / "result.json")))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, IsADirectoryError):
        raise ValueError(f"{path / 'result.json'} is damaged: make it again with jaxnas resume {path}") from None
    length = f"{config.steps} steps" if NETS[SPACES[config.space].net].supernet else f"{config.minutes:g} minutes"
    length = length if config.trials is None else f"{config.trials} trials an arm"
    print(f"{config.strategy} in {config.space} on {config.data}, {length}, seed {config.seed}")
    print(summary)
    if (path / "architecture.svg").exists():
        print(f"drawn in {path / 'architecture.svg'}")
    report = path / "report.html"
    if report.exists():
        print(f"report in {report}")
    elif in_browser:
        raise ValueError(f"{path} has no report.html: make it with jaxnas resume {path}")
    if in_browser:
        _open(report)


def _open(path: pathlib.Path) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        raise ValueError(f"no browser was found: open {path} yourself")


def _watch(command: Watch) -> None:
    from jaxnas.app import progress

    for line in progress.watch(command.run):
        print(line, flush=True)


def _show_genotype(command: Show) -> None:
    from jaxnas import plot
    from jaxnas.app.search import make_space

    reasons = {}
    for name in [command.space] if command.space else SPACES:
        space = make_space(name)
        try:
            arch = space.from_text(command.what)
        except ValueError as error:
            reasons[name] = str(error)
            continue
        if pathlib.Path(command.out).suffix not in (".svg", ".png"):
            raise ValueError(f"--out must end in .svg or .png, not {command.out!r}")
        try:
            plot.save(plot.architecture(space, arch, title=command.what if len(command.what) < 40 else name), command.out)
        except OSError as error:
            raise ValueError(f"cannot write {command.out} ({error.strerror}): give another --out") from None
        print(f"{name}: {space.to_text(arch)}\ndrawn in {command.out}")
        if command.open:
            _open(pathlib.Path(command.out))
        return
    looks_like = "nasbench201" if "|" in command.what else "nasnet" if "~" in command.what else "darts"
    raise ValueError(reasons[command.space or looks_like])


def _predict(command: Predict) -> None:
    out = None if command.out is None else pathlib.Path(command.out)
    if out is not None and out.suffix != ".csv":
        raise ValueError(f"--out must end in .csv, not {command.out!r}")
    if out is not None and out.exists():
        raise FileExistsError(f"{out} exists: give another --out")
    _configure()
    from jaxnas.app import network, predict

    kept = network.load(command.run)
    examples = predict.read(command.data, kept, predict.said_target(command.run), _say)
    outputs = kept.outputs(examples.x)
    if out is None:
        for line in predict.lines(kept, examples.names, outputs):
            print(line)
    else:
        try:
            predict.write_csv(out, kept, examples.names, outputs)
        except OSError as error:
            raise ValueError(f"cannot write {out} ({error.strerror}): give another --out") from None
        print(f"{len(outputs)} predictions in {out}")
    if examples.y is not None:
        if command.data == kept.data and not examples.test:
            _say(f"data: the network has learnt from most of {kept.data}; the score of what it had not seen is in result.json")
        print(predict.score(kept, outputs, examples.y))


def _export(command: Export) -> None:
    if command.format != "onnx":
        raise ValueError(f"unknown format {command.format!r}: choose onnx, or take export.bin of the run, which JAX reads")
    out = pathlib.Path(command.run) / "network.onnx" if command.out is None else pathlib.Path(command.out)
    if out.suffix != ".onnx":
        raise ValueError(f"--out must end in .onnx, not {command.out!r}")
    if out.exists():
        raise FileExistsError(f"{out} exists: give another --out")
    _configure()
    from jaxnas.app import network

    kept = network.load(command.run)
    try:
        kept.to_onnx(out)
    except OSError as error:
        raise ValueError(f"cannot write {out} ({error.strerror}): give another --out") from None
    print(f"{kept.genotype} in {out}")


def _bench(command: Bench) -> None:
    check(command)
    _configure()
    from jaxnas.app import bench, regret, search
    from jaxnas.evaluate.benchmark import COLUMNS, Columns, find, load_table

    columns, space = Columns(command.accuracy, command.test, command.cost), None
    if columns != COLUMNS or command.space is not None:
        packaged = [name for name in command.tables if not name.endswith(".npz")]
        if packaged:
            raise ValueError(f"{packaged[0]} is no file.npz: leave --space, --accuracy, --test and --cost out")
        space = None if command.space is None else search.make_space(command.space)
    read = functools.partial(load_table, space=space, columns=columns, named=search.make_space)
    tables = [read(name) if name.endswith(".npz") else find(name) for name in command.tables]
    names = list(command.algorithms)
    lines = bench.compare_algorithms(
        command.out, tables, names, queries=command.queries, seeds=command.seeds, seed=command.seed, say=_say
    )
    print(regret.results_table(lines))
    print(f"kept in {command.out}: {', '.join(sorted(p.name for p in pathlib.Path(command.out).iterdir()))}")


def _tabulate(command: Tabulate) -> None:
    check(command)
    fields = {f.name: getattr(command, f.name) for f in dataclasses.fields(command) if f.name in Config.__dataclass_fields__}
    config = complete(Config(**fields))
    if pathlib.Path(command.out).suffix != ".npz":
        raise ValueError(f"--out must end in .npz, not {command.out!r}")
    _configure()
    import jax
    import optax

    from jaxnas import training
    from jaxnas.app import search, tabulate

    k_data, k_archs, k_train = jax.random.split(jax.random.key(config.seed), 3)
    dataset, net = search.data_and_net(config, k_data)
    archs = tabulate.choose(k_archs, net.space, command.architectures)
    optimizer = training.sgd(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    recipe = tabulate.Recipe(optimizer, config.steps, config.batch)
    diverged = tabulate.tabulate(command.out, net, dataset, recipe, key=k_train, archs=archs, name=command.space, say=_say)
    print(f"{len(archs) - diverged} architectures in {command.out}, {diverged} diverged")
    if len(archs) == net.space.size:
        print(f"compare algorithms on it: jaxnas bench --tables {command.out}")


def _rank(command: Rank) -> None:
    check(command)
    fields = {f.name: getattr(command, f.name) for f in dataclasses.fields(command) if f.name in Config.__dataclass_fields__}
    config = complete(Config(**{k: v for k, v in fields.items() if k != "proxy"}))
    _configure()
    import jax

    from jaxnas.app import rank, search
    from jaxnas.evaluate import zero_cost
    from jaxnas.evaluate.benchmark import find, load_table

    space = search.make_space(command.space)
    benchmark = load_table(command.table, space) if command.table.endswith(".npz") else find(command.table)
    if list(benchmark.space.arity) != list(space.arity):
        raise ValueError(f"the rows of {command.table} are not of {command.space}: give the --space that they are of")
    k_data, k_rank, k_judge = jax.random.split(jax.random.key(command.seed), 3)
    k_rows, k_batch, k_draw = jax.random.split(k_rank, 3)
    dataset, net = search.data_and_net(config, k_data)
    rank.discard_part(command.out)
    with empty(command.out) as out:  # before anything is computed: nothing is lost for want of a place to keep it
        of = rank.reference(k_rows, space, benchmark, command.architectures, command.top)
        two = rank.two_batches(k_batch, dataset, command.batch)
        evaluator = functools.partial(zero_cost, own=command.own)
        scores = rank.scored(k_draw, net, of.archs, two, command.proxy, evaluator=evaluator, say=_say)
        judged = rank.rank_quality(k_judge, scores, of.truth, command.top)
        rank.write(out, of.texts, scores, of.truth, judged, command.top)
        print(rank.quality_table(judged, command.top))
        print(f"kept in {out}: {', '.join(sorted(p.name for p in out.iterdir()))}")


def _runs(command: Runs) -> None:
    from jaxnas.app import runs

    for line in runs.lines(command.directory):
        print(line)


def _worker(command: Worker) -> None:
    check(command)
    if not command.script:
        raise ValueError(f"give the program that runs a trial: jaxnas worker {command.study} -- python train.py")
    load_plugins(command.use)
    _configure()
    from jaxnas.app import worker
    from jaxnas.studies import work

    study = worker.open_study(command)
    told = work(study, command.script, say=_say)
    print(f"{told} trials of {study.directory}\n{worker.answer(study)}")


def _list(command: List) -> None:
    load_plugins(command.use)
    from jaxnas.app import overview
    from jaxnas.nets import OPS
    from jaxnas.proxies import PROXIES

    for title, table in overview.tables().items():
        print(title)
        for name, text in table.items():
            print(f"  {name:<21} {text}")
    print("operations of cells\n  " + ", ".join(OPS))
    print("proxies\n  " + ", ".join(PROXIES))


RUN = {
    Search: _search,
    Resume: _resume,
    Show: _show,
    Watch: _watch,
    Predict: _predict,
    Export: _export,
    Bench: _bench,
    Tabulate: _tabulate,
    Rank: _rank,
    Runs: _runs,
    Worker: _worker,
    List: _list,
}


def _wrapped(line: str) -> str:
    """One line; in a terminal as many as it needs."""
    if not sys.stderr.isatty():
        return line
    width = max(shutil.get_terminal_size().columns, 20)
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        command = parse(arguments or ["--help"])
        run = next(run for kind, run in RUN.items() if isinstance(command, kind))
        code = run(command)
        sys.stdout.flush()
        return code or 0
    except BrokenPipeError:  # the reader has gone, as in `jaxnas list | head`: what is left to print has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("jaxnas: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, Diverged, Stopped) as error:
        _say(_wrapped(f"jaxnas: {' '.join(str(error).split())}"))
        stopped = getattr(error, "signal", None)
        return {None: 2, signal.SIGINT: 130}.get(stopped, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
