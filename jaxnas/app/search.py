"""The main job: search, derive, retrain from scratch, compare, test once, keep.

A run directory holds config.json, log.jsonl, checkpoints/, train/ and random/ (the retraining of the found and of a random
architecture), result.json, architecture.svg, gates.png, curves.png, weights.npz and export.bin.  Every stage is a driver
run with checkpoints of its own, so a run that is cut anywhere goes on from there.
"""

import json
import pathlib
from collections.abc import Callable

from jaxnas import training
from jaxnas.app.config import DIFFERENTIABLE, ONE_SHOT, Config

CANDIDATES = 20  # of a generation on shared weights; there are ten


def make_space(name: str):
    from jaxnas import spaces

    return spaces.SPACES[name]()


def make_augment(name: str):
    from jaxnas import data

    return {"none": data.identity, "crop": data.crop(), "crop+flip": data.chain(data.crop(), data.flip())}[name]


def make_net(config: Config, space, dataset):
    """The net that a config searches."""
    import optax

    from jaxnas import nets

    fading = optax.linear_schedule(1.0, 0.0, config.steps)
    has = {"pc-darts": {"partial": 4}, "darts-minus": {"auxiliary_skip": fading}}.get(config.strategy, {})
    size = dict(image=dataset.image, classes=dataset.classes, channels=config.channels, cells=config.cells)
    return nets.cell_net(space, **size, **has)


def make_search(config: Config, dataset):
    """-> (space, plan) of a config."""
    import optax

    from jaxnas import base, data, evaluate
    from jaxnas.app import bench
    from jaxnas.base import Phase, then

    space, augment = make_space(config.space), make_augment(config.augment)
    net = make_net(config, space, dataset)
    if config.strategy in DIFFERENTIABLE:
        feed = data.batches(dataset, config.batch, augment=augment)
        if config.strategy == "robust-darts":
            feed = data.epochs(feed, _epoch(config))
        return space, then(Phase(_differentiable(config, net), search_steps(config), feed))
    if config.strategy in ONE_SHOT:
        feed = data.batches(dataset, config.batch, arch_steps=0, augment=augment)
        train = Phase(_supernet(config, net), config.steps, feed, name="supernet")
        return space, then(train, _search_weights(config, net, dataset))
    algorithm = bench.ALGORITHMS[config.strategy].make(space, config.steps)
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.candidate_steps)
    evaluator = evaluate.train_from_scratch(net, training.sgd(schedule))
    feed = data.batches(
        dataset,
        config.batch,
        weight_steps=config.candidate_steps,
        arch_steps=max(1, len(dataset.valid.y) // config.batch),
        augment=augment,
    )
    return space, then(Phase(base.black_box(algorithm, evaluator), config.steps, feed))


def _supernet(config: Config, net):
    """A way to train a supernet, of `ONE_SHOT`."""
    import optax

    from jaxnas import weight_sharing as ws

    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    if config.strategy == "one-shot":
        return ws.one_shot(
            net, training.sgd(rate, weight_decay=0.0), warm_up=optax.linear_schedule(0.0, 1.0, config.steps), decay=3e-4
        )
    return {"spos": ws.spos, "fairnas": ws.fairnas}[config.strategy](net, training.sgd(rate))


def _search_weights(config: Config, net, dataset):
    """Ten generations of evolution on a supernet's weights."""
    from jaxnas import ask_tell, base, data, evaluate
    from jaxnas.base import Phase

    half = CANDIDATES // 2
    free = ask_tell.constrained_evolution(net.space, lambda arch: 0.0, 0.0, CANDIDATES, half, half, half)
    evaluator = evaluate.shared_weights(net, "batch" if config.strategy == "one-shot" else "recalibrated")
    size = min(config.batch, len(dataset.train.y))
    judge = data.calibration(dataset, size, min(8, len(dataset.train.y) // size))
    return Phase(base.black_box(free, evaluator), 10, judge, fix=lambda state: state.variables)


def _epoch(config: Config) -> int:
    """Steps between two looks at the eigenvalue: 50 looks at a short search, and one in 20 steps of a longer."""
    return min(20, max(1, config.steps // 50))


def search_steps(config: Config) -> int:
    """The steps that the driver counts."""
    return -(-config.steps // _epoch(config)) if config.strategy == "robust-darts" else config.steps


def _differentiable(config: Config, net):
    """A method of `DIFFERENTIABLE`, its schedules over the whole search as published."""
    import optax

    from jaxnas import policies
    from jaxnas import weight_sharing as ws

    linear = lambda start, end: optax.linear_schedule(start, end, config.steps)
    weights = training.sgd(optax.cosine_decay_schedule(config.learning_rate, config.steps, alpha=0.001 / config.learning_rate))
    adam, order = training.adam(config.arch_learning_rate), {"darts": "exact", "darts-fd": "finite_difference"}

    def robust():
        search = ws.darts(net, weights, adam, order="first")
        return ws.early_stopping(ws.with_measurements(search, ws.measurements(net, policies.softmax(net.space))))

    methods = {
        "robust-darts": robust,
        "snas": lambda: ws.snas(net, weights, adam, temperature=linear(1.0, 0.03)),
        "gdas": lambda: ws.gdas(net, weights, adam, temperature=linear(10.0, 0.1)),
        "pc-darts": lambda: ws.pc_darts(net, weights, adam),
        "drnas": lambda: ws.drnas(net, weights, adam),
        "gaea": lambda: ws.gaea(net, weights),
        "sdarts-rs": lambda: ws.smooth_darts(net, weights, adam, perturb=ws.random_noise(linear(0.03, 0.3))),
        "sdarts-adv": lambda: ws.smooth_darts(net, weights, adam, perturb=ws.adversarial(linear(0.03, 0.3))),
        "beta-darts": lambda: ws.beta_darts(net, weights, training.adam(config.arch_learning_rate, 0.0), decay=linear(0.0, 50.0)),
    }
    darts = lambda: ws.darts(net, weights, adam, order=order.get(config.strategy, "first"))
    return methods.get(config.strategy, darts)()


def execute(directory, config: Config, *, progress: bool = False, say: Callable[[str], None] = lambda line: None) -> dict:
    """Runs, or goes on with, the run in `directory`; returns what result.json holds.

    Args:
        directory: made by `prepare`.
        config: its config.
        progress: show bars on stderr.
        say: takes a line for a person at each stage.
    """
    import jax
    import numpy as np

    from jaxnas import data, plot
    from jaxnas.analysis import diagnostics
    from jaxnas.driver import journal
    from jaxnas.driver.loop import run

    directory = pathlib.Path(directory)
    key = jax.random.key(config.seed)
    k_data, k_search, k_random, k_train = jax.random.split(key, 4)
    dataset = data.load(config.data, k_data)
    space, plan = make_search(config, dataset)
    seeds = None if config.seeds == 1 else config.seeds

    def stage(key, plan, where, **kw):
        return run(
            key,
            plan,
            directory=where,
            resume=(where / "checkpoints").exists(),
            progress=progress,
            **kw,
        )

    say(f"run directory: {directory}")
    say(f"searching: {config.strategy} in {config.space} on {config.data}, {config.steps} steps")
    searched = stage(k_search, plan, directory, seeds=seeds)
    lines = journal.read(directory)
    best, chosen = searched.best, 0
    if seeds is not None:
        chosen = _best_seed(config, searched, space, dataset)
        best = jax.tree.map(lambda a: a[chosen], searched.best)
    best = jax.tree.map(np.asarray, best)
    rivals = {"train": best, "random": jax.tree.map(np.asarray, space.sample(k_random))}
    titles = {"train": "found architecture", "random": "random architecture"}
    plot.save(plot.architecture(space, best, title=f"{config.strategy} on {config.data}"), directory / "architecture.svg")

    result = {"strategy": config.strategy, "space": config.space, "data": config.data, "seeds": config.seeds}
    result["genotype"] = space.to_text(best)
    result["collapsed"] = diagnostics.collapsed(space, best)
    if seeds is not None:
        every = [space.to_text(jax.tree.map(lambda a: np.asarray(a)[i], searched.best)) for i in range(seeds)]
        result.update(chosen_seed=chosen, genotypes=every)
        result["search"] = {k: v for k, v in lines[-1].items() if isinstance(v, float)} if lines else {}
    for name, arch in rivals.items():
        say(f"training the {titles[name]} from scratch: {space.to_text(arch)}")
        result[titles[name].split()[0]] = _retrain(config, dataset, space, arch, stage, k_train, directory / name)
    margin = result["found"]["test_accuracy"] - result["random"]["test_accuracy"]
    verdict = "better than" if margin > 0 else "worse than" if margin < 0 else "the same as"
    result["verdict"] = (
        f"the found architecture is {verdict} one random architecture trained the same way "
        f"({100 * margin:+.2f} points of test accuracy)"
    )
    if result["collapsed"]:
        result["verdict"] += f"; the search has collapsed: nothing but {result['collapsed']}"
    _plots(directory, space, lines, journal.read(directory / "train"))
    (directory / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def _retrain(config, dataset, space, arch, stage, key, where) -> dict:
    """Trains one architecture from scratch, tests it once, and keeps it in `where` (the found one also a level up)."""
    import jax
    import optax

    from jaxnas import data, nets, training
    from jaxnas.app import export

    module = nets.evaluation_net(space, arch, classes=dataset.classes, channels=config.channels, cells=config.cells)
    optimizer = training.sgd(optax.cosine_decay_schedule(config.learning_rate, config.train_steps))
    strategy = training.train(module, optimizer, dataset.image, steps=config.train_steps)
    feed = data.training(dataset, config.batch, augment=make_augment(config.augment))
    variables = stage(key, strategy, where, steps=config.train_steps, data=feed).best
    test = jax.jit(lambda v, split: training.accuracy(lambda x: module.apply(v, x), split))(variables, dataset.test)
    if where.name == "train":
        export.save_weights(where.parent / "weights.npz", variables)
        export.export(where.parent / "export.bin", module, variables, dataset.image)
    return {
        "genotype": space.to_text(arch),
        "test_accuracy": float(test),
        "test_examples": len(dataset.test.y),
        "parameters": nets.count_parameters(variables),
    }


def _best_seed(config, searched, space, dataset) -> int:
    """The seed whose search ended with the best validation: score of the best candidate, or, under the weights that were shared,
    the loss of the architecture found, on the first examples with their own statistics."""
    import jax
    import jax.numpy as jnp

    from jaxnas.training.losses import cross_entropy

    if hasattr(searched.state, "best_score"):
        return int(jnp.argmax(searched.state.best_score))
    net, state = make_net(config, space, dataset), getattr(searched.state, "search", searched.state)  # `search`: of early stopping
    x, y = (a[:256] for a in dataset.valid)
    logits = lambda variables, arch: net.apply(variables, x, space.gates(arch), train=True)[0]
    losses = jax.jit(jax.vmap(lambda variables, arch: cross_entropy(logits(variables, arch), y)))(state.variables, searched.best)
    return int(jnp.nanargmin(losses))


def _plots(directory, space, search_lines, train_lines) -> None:
    import numpy as np

    from jaxnas import plot

    def by_step(lines, name):  # a line speaks for all the steps since the one before
        counts = np.diff([0] + [line["step"] for line in lines])
        return np.repeat(np.asarray([line.get(name, np.nan) for line in lines]), counts, axis=0)

    scalars = sorted({k for line in search_lines for k, v in line.items() if isinstance(v, float)} - {"seconds"})
    series = {f"search {k}": by_step(search_lines, k) for k in scalars if not k.endswith("_ci")}
    series |= {f"training {k}": by_step(train_lines, k) for k in ("loss", "accuracy") if train_lines}
    if series:
        plot.save(plot.curves(series, xlabel="step"), directory / "curves.png")
    kinds = space.spec.kinds or ("",)
    top = "search/gates" if search_lines and any(name.startswith("search/gates") for name in search_lines[-1]) else "gates"
    names = {kind: f"{top}/{kind}" if kind else top for kind in kinds}
    if search_lines and all(name in search_lines[-1] for name in names.values()):
        history = {kind: by_step(search_lines, name) for kind, name in names.items()}
        plot.save(plot.gates(history, space.spec), directory / "gates.png")
