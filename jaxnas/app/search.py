"""The main job: search, derive, retrain from scratch, compare, test once, keep.

A run directory holds config.json, log.jsonl, checkpoints/, found/ and random/ (the retraining of the found and of a random
architecture), result.json ("outcome": found, or "no finite score", with nothing but a verdict), report.html, architecture.svg,
curves.png, weights.npz, and where there are such gates.png, export.bin and network.json.  Every stage is a driver run with
checkpoints of its own, so that a run that is cut anywhere goes on from there.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import pathlib
import shutil
import signal
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxnas.app import times
from jaxnas.app.config import SETTINGS, Config, complete
from jaxnas.app.methods import METHODS, Job, check_needs
from jaxnas.app.methods import plan as plan_of
from jaxnas.app.methods.base import IMAGES
from jaxnas.app.spaces import NETS, SPACES, NetEntry
from jaxnas.app.stages import Layout, Resumable
from jaxnas.app.tasks import TASKS, Task, score_of, without_retraining
from jaxnas.driver.errors import NoFiniteScore, Stopped
from jaxnas.driver.files import make_way, write_whole
from jaxnas.driver.lock import locked

if TYPE_CHECKING:
    from jaxnas.base import Key
    from jaxnas.nets.base import Net
    from jaxnas.spaces._space import Space

log = logging.getLogger("jaxnas")
NO_SCORE = "no finite score"
FILES = ("result.json", "times.json", "report.html", "architecture.svg", "curves.png", "gates.png", "weights.npz", "export.bin")
FILES += ("network.json", "trials.jsonl", "boosting.json", "boosting.npy")
FOLDERS = ("found", "random", "members", "finals")


def make_space(name: str, settings: Any = None, image: tuple[int, int, int] = (32, 32, 3)) -> "Space":
    """A space of the table; settings: its own, default as the table has them."""
    entry = SPACES.find(name)
    return entry.make(entry.settings() if settings is None else settings, image)


def net_entry(config: Config) -> NetEntry:
    return NETS.find(SPACES.find(config.space).net)


def make_net(config: Config, space: "Space", dataset: Any, **more: Any) -> Any:
    """A config's net, in its precision; `more` is what a method adds."""
    from jaxnas.nets import with_precision

    entry = net_entry(config)
    net = entry.make(space, dataset, config, **more)
    return net if entry.data == "text" else with_precision(net, config.precision)  # one that reads text has it already


def data_and_net(config: Config, key: "Key") -> tuple[Any, "Net"]:
    """(the data, and the plain net) of a config."""
    dataset = TASKS[net_entry(config).data].load(config, key)
    space = make_space(config.space, config.space_settings, getattr(dataset, "image", (1, 1, 1)))
    return dataset, make_net(config, space, dataset)


def make_job(config: Config, dataset: Any) -> Job:
    """A config's net, as its method wants it, with its settings and data.

    Raises:
        ValueError: for a method that cannot make sense of the space, and whatever space and net refuse.
    """
    config = complete(config)
    method = METHODS.find(config.strategy)
    space = make_space(config.space, config.space_settings, getattr(dataset, "image", (1, 1, 1)))
    job = Job(config, config.strategy_settings, make_net(config, space, dataset), dataset)
    check_needs(config.strategy, method, job.net, config.space)
    if method.net is not None:
        job = job._replace(net=make_net(config, space, dataset, **method.net(job)))
    return job


def make_plan(job: Job) -> tuple:
    """The phases of a job's search."""
    return plan_of(job, METHODS.find(job.config.strategy))


def execute(
    directory: str | pathlib.Path,
    config: Config,
    *,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
    mesh: Any = None,
) -> dict:
    """Runs, or goes on with, the run in `directory`; returns what result.json holds.

    Args:
        directory: made by `jaxnas.app.config.prepare`.
        config: its config.
        progress: show bars on stderr.
        say: takes a line for a person at each stage.
        mesh: of `jaxnas.sharding.mesh`, for a search that is one program; None: one device.  Under `jax.distributed` every process
            calls this with one directory, which all can read, and process 0 writes there.

    Raises:
        ValueError: for a config that is not the one the run began with, or a run that another process goes on with.
    """
    from jaxnas.driver import processes

    directory = pathlib.Path(directory)
    with contextlib.ExitStack() as stack:
        processes.on_first(lambda: stack.enter_context(locked(directory)))
        processes.on_first(lambda: make_way(directory, files=FILES, folders=FOLDERS))
        own = directory
        if not processes.is_first():  # computes the same results, and throws them away
            own, progress, say = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())), False, lambda line: None
            shutil.copy(directory / "config.json", own)  # which the report reads
        config = complete(config)
        stage = Resumable(progress, {}, Layout(mesh, config.batch, own, directory))
        return _executed(own, config, stage, say)


def identity(config: Config, dataset: Any) -> dict[str, Any]:
    """What a run depends on, by the names of its flags; the data by what they hold, wherever they lie."""
    from jaxnas.driver.fingerprint import of_arrays

    held: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), "--" + field.name.replace("_", "-")
        if field.name in SETTINGS:
            prefix = "--" + field.name.removesuffix("_settings")
            held |= {f"{prefix}.{name.replace('_', '-')}": v for name, v in dataclasses.asdict(value).items()}
        elif field.name not in ("data", "use"):
            held[flag] = value
    meaning = [getattr(dataset, name, None) for name in ("target", "inputs", "vocabulary")]
    words = json.dumps([m.to_json() if hasattr(m, "to_json") else m for m in meaning], sort_keys=True, default=str)
    of = getattr(dataset, "identity", None) or of_arrays((dataset.train, dataset.valid, dataset.test))
    held["--data"] = f"{of} {hashlib.sha256(words.encode()).hexdigest()[:4]}"
    return json.loads(json.dumps(held))


def _executed(directory: pathlib.Path, config: Config, stage: Resumable, say: Callable[[str], None]) -> dict:
    """`execute`, in a directory that is ours."""
    import jax
    import numpy as np

    from jaxnas import plot
    from jaxnas.analysis import diagnostics
    from jaxnas.app import report
    from jaxnas.driver import journal

    k_data, k_search, k_random, k_train = jax.random.split(jax.random.key(config.seed), 4)
    task = TASKS[net_entry(config).data]
    dataset = task.load(config, k_data)
    job = make_job(config, dataset)
    space, plan = job.space, make_plan(job)
    if not net_entry(config).supernet:
        return _main_job(directory, config, job, k_search, say, stage.progress)
    seeds = None if config.seeds == 1 else config.seeds
    stage = dataclasses.replace(stage, settings=identity(config, dataset))

    say(f"run directory: {directory}")
    for note in getattr(dataset, "notes", ()):
        say(f"data: {note}")
    say(f"searching: {config.strategy} in {config.space} on {config.data}, {config.steps} steps")
    result: dict[str, Any] = {"strategy": config.strategy, "space": config.space, "data": config.data}
    result |= {"precision": config.precision, "seeds": config.seeds}
    try:
        searched = stage.run(k_search, plan, directory, seeds=seeds)
    except NoFiniteScore as error:
        return _no_answer(directory, result, error)
    lines = journal.read(directory)
    best, chosen, by, state = searched.best, 0, "", searched.state
    if seeds is not None:
        chosen, by = _best_seed(job, task, searched)
        say(f"seed {chosen} of {seeds} goes on, by {by}")
        best, state = jax.tree.map(lambda a: a[chosen], (searched.best, searched.state))
    best = jax.tree.map(np.asarray, best)
    rivals = {"found": best, "random": jax.tree.map(np.asarray, space.sample(k_random))}
    title = f"{config.strategy} on {config.data}"
    plot.save(plot.architecture(space, best, title=title), directory / "architecture.svg")

    result["outcome"] = "found"
    result["genotype"] = space.to_text(best)
    if front := _front(space, searched.state, None if seeds is None else chosen):
        result["front"] = front
    result["collapsed"] = diagnostics.collapsed(space, best)
    if seeds is not None:
        every = [space.to_text(jax.tree.map(lambda a: np.asarray(a)[i], searched.best)) for i in range(seeds)]
        result.update(chosen_seed=chosen, chosen_by=by, genotypes=every)
    if METHODS.find(config.strategy).child:
        result["without_retraining"] = _on_shared_weights(job, task, state.variables, best)
        say(f"on the weights of the search: {without_retraining(result)}")
    for name, arch in rivals.items():
        say(f"training the {name} architecture from scratch: {space.to_text(arch)}")
        result[name] = _retrain(job, task, arch, stage, k_train, directory / name, keep=name == "found")
    score = score_of(result["found"])
    margin = result["found"][score.name] - result["random"][score.name]
    verdict = "better than" if score.sign * margin > 0 else "worse than" if score.sign * margin < 0 else "the same as"
    result["verdict"] = f"the found architecture is {verdict} one random architecture trained the same way ({score.margin(margin)})"
    if result["collapsed"]:
        result["verdict"] += f"; the search has collapsed: nothing but {result['collapsed']}"
    try:
        if directory == stage.layout.shared:
            _plots(directory, space, lines, journal.read(directory / "found"))
    except (ValueError, TypeError) as error:
        log.warning("no curves are drawn: %s holds other values than this search logs (%s)", directory / "log.jsonl", error)
    write_whole(directory / "result.json", json.dumps(result, indent=2) + "\n")
    report.write(directory, dataset, result)
    return result


def _no_answer(directory: pathlib.Path, result: dict[str, Any], error: NoFiniteScore) -> dict:
    """The result of a search that has ended without one; it is kept, too."""
    result = {**result, "outcome": NO_SCORE, "genotype": None, "verdict": str(error)}
    write_whole(directory / "result.json", json.dumps(result, indent=2) + "\n")
    return result


def _main_job(directory: pathlib.Path, config: Config, job: Job, key: "Key", say: Callable[[str], None], shown: bool) -> dict:
    """The search of networks that are programs of their own, with a bar where one is shown: see `jaxnas.app.main_job`."""
    from jaxnas.app import main_job, progress, report

    say(f"run directory: {directory}")
    for note in job.data.notes:
        say(f"data: {note}")
    make = METHODS.find(config.strategy).algorithm
    if make is None:
        raise ValueError(f"{config.strategy} has no algorithm: register it with one")

    def asked(space):
        cost = lambda gates: job.net.cost(space.derive(gates)).macs
        return make(space, config.steps, job.settings, cost), getattr(job.settings, "largest", 1)

    algorithm = None if config.strategy == "portfolio" else asked
    steps = None if config.trials is None else config.train_steps
    effort = main_job.Effort(config.minutes, config.limit, config.batch, steps, config.trials)
    result = {"strategy": config.strategy, "space": config.space, "data": config.data, "outcome": "found"}
    result["precision"] = config.precision
    try:
        with progress.bar(directory, config, say, shown=shown) as say:
            named: dict[str, Any] = dict(criterion=job.criterion, algorithm=algorithm, space_name=config.space, say=say)
            named["settings"] = identity(config, job.data)
            result |= main_job.run(directory, key, job.net, job.data, effort, **named)
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT, f"stopped; every finished trial is kept: continue with jaxnas resume {directory}") from None
    except NoFiniteScore as error:
        return _no_answer(directory, result, error)
    same, measured = times.apart(result)
    write_whole(directory / "result.json", json.dumps(same, indent=2) + "\n")
    times.write(directory, measured)
    report.write(directory, job.data, result)
    return result


def _retrain(job: Job, task: Task, arch, stage: Resumable, key, where: pathlib.Path, *, keep: bool) -> dict:
    """Trains one architecture from scratch in `where` and tests it once; `keep` puts weights and export beside it."""
    from jaxnas import nets
    from jaxnas.app import export

    config, entry = job.config, net_entry(job.config)
    training = task.train(config, entry, job.net, job.data, arch)
    best = stage.run(key, training.strategy, where, steps=config.train_steps, data=training.feed).best
    variables = training.variables(best)
    if keep:
        export.save_weights(where.parent / "weights.npz", variables)
        if task.exports:
            named = dict(space=config.space, genotype=job.space.to_text(arch))
            export.export_network(where.parent, training.module, variables, job.data, **named)
    parameters = nets.count_parameters(variables)
    return {"genotype": job.space.to_text(arch), **training.test(best), "parameters": parameters}


def _best_seed(job: Job, task: Task, searched) -> tuple[int, str]:
    """(the seed to go on with, by what): the score of the best candidate, or the validation loss under the shared weights; the
    first, where a search has neither."""
    import jax
    import jax.numpy as jnp

    if hasattr(searched.state, "best_score"):
        return int(jnp.argmax(searched.state.best_score)), "score of the best candidate"
    state = getattr(searched.state, "search", searched.state)  # `search`: of early stopping
    if not hasattr(state, "variables"):
        return 0, "none: the search trains no weights and scores no candidate"
    judge = lambda variables, arch: task.judge(job.config, job.net, job.data, variables, arch)
    losses = jax.jit(jax.vmap(judge))(state.variables, searched.best)
    if not jnp.isfinite(losses).any():
        return 0, "none: the validation loss is not finite with any seed"
    return int(jnp.nanargmin(losses)), "validation loss on the shared weights"


def _on_shared_weights(job: Job, task: Task, variables, arch) -> dict[str, float]:
    """What an architecture makes of the validation part with the weights that the search leaves it, by the names of metrics.

    Norms take the architecture's own statistics, of training examples (`evaluate.shared_weights`).
    """
    import jax
    import jax.numpy as jnp

    from jaxnas import evaluate
    from jaxnas.driver import compiler_options

    if not IMAGES.holds(job.net):
        return {"loss": float(jax.jit(lambda v, arch: task.judge(job.config, job.net, job.data, v, arch))(variables, arch))}
    feed, evaluator = job.judge(), evaluate.shared_weights(job.net, criterion=job.criterion)
    k_draw, k_step = jax.random.split(jax.random.key(0))  # neither draws anything

    def judged(variables, archs, arrays):
        batch = feed.draw(k_draw, arrays, jnp.zeros((), jnp.int32))
        return evaluator.step(k_step, evaluator.init(k_step), archs, batch._replace(fixed=variables))[1]

    metrics = jax.jit(judged, compiler_options=compiler_options())(
        variables, jax.tree.map(lambda a: jnp.asarray(a)[None], arch), feed.arrays
    )
    return {name: float(values[0]) for name, values in metrics.items()}


def _front(space: "Space", state: Any, seed: int | None) -> list[dict[str, Any]]:
    """The networks that no other beats in everything, the best score first, of a search for several things; of others none."""
    import jax
    import numpy as np

    from jaxnas.app.methods.evaluators import FRONT

    found = getattr(state, "algorithm", None)
    if not hasattr(found, "rank"):
        return []
    found = jax.tree.map(lambda a: np.asarray(a if seed is None else a[seed]), found)
    members = [
        i for i in np.argsort(-found.scores[:, 0], kind="stable") if found.rank[i] == 0 and np.isfinite(found.scores[i]).all()
    ]
    text = lambda i: space.to_text(jax.tree.map(lambda a: a[i], found.archs))
    sizes = lambda i: dict(zip(FRONT, np.abs(found.scores[i]).tolist(), strict=False))  # costs are told as their negatives
    return [{"genotype": text(i)} | sizes(i) | {"score": float(found.scores[i, 0])} for i in members]


def _plots(directory, space, search_lines, train_lines) -> None:
    import numpy as np

    from jaxnas import plot

    def by_step(lines, name):  # a line speaks for all the steps since the one before
        counts = np.diff([0] + [line["step"] for line in lines])
        return np.repeat(np.asarray([line.get(name, np.nan) for line in lines]), counts, axis=0)

    scalars = sorted({k for line in search_lines for k, v in line.items() if isinstance(v, float)} - {"seconds"})
    series = {f"search {k}": by_step(search_lines, k) for k in scalars if not k.endswith("_ci")}
    series |= {f"training {k}": by_step(train_lines, k) for k in ("loss", "score") if train_lines}
    if series:
        plot.save(plot.curves(series, xlabel="step"), directory / "curves.png")
    if not hasattr(space.spec, "edges"):
        return
    kinds = space.spec.kinds or ("",)
    top = "search/gates" if search_lines and any(name.startswith("search/gates") for name in search_lines[-1]) else "gates"
    names = {kind: f"{top}/{kind}" if kind else top for kind in kinds}
    if search_lines and all(name in line for line in search_lines for name in names.values()):
        history = {kind: by_step(search_lines, name) for kind, name in names.items()}
        plot.save(plot.gates(history, space.spec), directory / "gates.png")
