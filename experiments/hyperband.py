"""Multi-fidelity search at equal epochs: successive halving, Hyperband, ASHA and BOHB against random search.

    python experiments/hyperband.py table NB201.npz
    python experiments/hyperband.py curves NLP.npz
    python experiments/hyperband.py digits OUT

`table`: CIFAR-10 of NAS-Bench-201, `ops` [N, 6], `val_acc_12`, `test_acc_200` [N, D] and `val_acc_200` [N, D, 3], in percent.  A
search sees validation accuracy after 12 or after 200 epochs of the first training; the 12-epoch trainings anneal fully, so that a
member that goes on begins anew and pays all 200.  Reported: test accuracy after 200 epochs of the answer, mean of 200 searches and
its 95 % interval; p against the first row, Mann-Whitney, two-sided.  R = 200, r = 12, eta = 16.

`curves`: 345 recurrent cells of NAS-Bench-NLP on WikiText-2, `val_loss` and `test_loss` [345, 50].  Members go on (their one
training is what the table has), any epoch is a budget, R = 50, eta = 3.  Reported: the answer's test loss at epoch 50; a minus is
printed before it.

`digits`: real trainings, 27 epochs of 8 steps: 15 members at 1 epoch, 3 at 3, 1 at 9, which go on; or 9, 3 and 1, which begin anew
(9 + 9 + 9).  Cells of NAS-Bench-201 from a pool of 18, C=4, one cell a stage, batch 64.  `reference` is the answer's mean test
accuracy of two trainings of 9 epochs, `seen` its validation accuracy in the search; 12 searches, Student's 95 % interval.

Two CPU cores with much other work on them: 5 minutes, 40 seconds and 6 minutes.

Results: docs/results.md#multi-fidelity-search
"""

import sys

import _common
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxnas import data, evaluate, spaces, training
from jaxnas.analysis import ranking
from jaxnas.app.tabulate import choose
from jaxnas.ask_tell._asha import asha
from jaxnas.ask_tell._bohb import KernelModel, bohb
from jaxnas.ask_tell._hyperband import hyperband
from jaxnas.ask_tell.halving import Proposer, brackets
from jaxnas.ask_tell.halving import steps as steps_of
from jaxnas.base import Batch, black_box
from jaxnas.driver import journal
from jaxnas.evaluate.fidelity import Fidelity, setting
from jaxnas.evaluate.population import population
from jaxnas.evaluate.trials import Held, by_budget, train_trials
from jaxnas.training.scratch import accuracy

SEEDS = 200


def searches(space, algorithm, evaluator, fixed, steps, seeds=SEEDS, chunk=50):
    """(index of the answer, epochs spent) after every step, [seeds, steps]."""
    strategy = black_box(algorithm, evaluator)

    def one(key, fixed):
        k_init, k_steps = jax.random.split(key)

        def step(state, t):
            state, info = strategy.step(jax.random.fold_in(k_steps, t), state, Batch(fixed=fixed))
            return state, (space.index(strategy.best(state)), jnp.sum(info.metrics["cost"]))

        return jax.lax.scan(step, strategy.init(k_init), jnp.arange(steps))[1]

    keys = jax.random.split(jax.random.key(0), seeds)
    index, cost = _common.jit(lambda keys, fixed: jax.lax.map(lambda k: one(k, fixed), keys, batch_size=chunk))(keys, fixed)
    return np.asarray(index), np.cumsum(np.asarray(cost), 1)


def at(index, spent, epochs):
    """The answers [seeds] once that many epochs are spent: of the last step that is within them."""
    last = np.sum(spent <= epochs, 1) - 1
    assert (spent[:, -1] >= epochs).all(), "too few steps"
    return index[np.arange(len(index)), last]


def compare(space, rows, evaluator, fixed, budgets, worth):
    """Prints one line a row: what its answers are worth at each budget, and a test against the first row."""
    first = {}
    for name, (algorithm, cheapest) in rows.items():
        seconds = _common.stopwatch()
        index, spent = searches(space, algorithm, evaluator, fixed, -(-budgets[-1] // cheapest) + 1)
        cells = []
        for epochs in budgets:
            found = worth[at(index, spent, epochs)]
            p = stats.mannwhitneyu(found, first.setdefault(epochs, found), alternative="two-sided").pvalue
            cells.append(f"{found.mean():.3f} +- {1.96 * found.std() / np.sqrt(len(found)):.3f} | {p:.0e}")
        _common.row(name, *cells, f"{seconds():.0f} s")


def table(path):
    space = spaces.nasbench201()
    with np.load(path) as file:
        held = {name: file[name] for name in ("ops", "val_acc_12", "val_acc_200", "test_acc_200")}
    columns = {"short": held["val_acc_12"][:, 0], "long": held["val_acc_200"][:, 0, 0], "test": held["test_acc_200"][:, 0]}
    columns = evaluate.rows(space, held["ops"], columns)
    fixed = {"accuracy": jnp.stack([columns["short"], columns["long"]], -1)}
    alone = lambda budget: brackets(space, [[(1, budget)]])
    R, r, eta = 200, 12, 16
    rows = {  # with the least mean cost of a step
        "random search, 200 epochs": (alone(200), 200),
        "random search, 12 epochs": (alone(12), 12),
        "successive halving, 16 to 1": (brackets(space, [[(16, 12), (1, 200)]]), 20),
        "Hyperband": (hyperband(space, R, eta, r=r), 38),
        "ASHA": (asha(space, R, r, eta, capacity=600), 20),
        "BOHB": (bohb(space, R, eta=eta, r=r, capacity=270), 38),
        "BOHB, bandwidths of 0.3": (bohb(space, R, eta=eta, r=r, capacity=270, model=KernelModel(minimum=0.3)), 38),
    }
    worth = np.asarray(columns["test"], np.float64)
    compare(space, rows, by_budget(space, (r, R), restart=True), fixed, (4_000, 10_000), worth)


def curves(path):
    with np.load(path) as file:
        loss, final = file["val_loss"], file["test_loss"][:, -1]
    space, R = spaces.space((len(loss),)), loss.shape[1]
    fixed = {"accuracy": -jnp.asarray(np.nan_to_num(loss, nan=99.0), jnp.float32)}
    rows = {
        "random search": (brackets(space, [[(1, R)]]), R),
        "successive halving, 27 to 1": (brackets(space, [[(27, 1), (9, 5), (3, 16), (1, 50)]]), 3),
        "Hyperband": (hyperband(space, R), 4),
        "ASHA": (asha(space, R, capacity=1000), 2),
    }
    compare(space, rows, by_budget(space, range(1, R + 1)), fixed, (250, 500, 1_500), -np.asarray(final, np.float64))


CELLS, REPEATS, BATCH, R = 18, 2, 64, 9
WIDE, NARROW = [[(15, 1), (3, 3), (1, 9)]], [[(9, 1), (3, 3), (1, 9)]]  # 27 epochs if members go on, and if they begin anew


def moves(progress):
    return training.sgd(lambda t: 0.05 * (1 + jnp.cos(jnp.pi * progress(t))))


def from_scratch(evaluator):
    """The same, but members that go on begin anew, and are paid for."""

    def step(key, state, trials, batch):
        begin = jnp.where(trials.start < trials.stop, 0, trials.start)
        return evaluator.step(key, state, trials._replace(start=begin), batch)

    return evaluator._replace(step=step)


def digits(out):
    out = _common.made(out)
    space = spaces.nasbench201()
    small = Fidelity(R, 0.72, channels=4, cells=1, resolution=8)
    net, dataset, steps = setting(small, space, data.load("digits", jax.random.key(0)), BATCH)
    epoch, flat = steps // R, choose(jax.random.key(1), space, CELLS)
    pool = jax.vmap(space.unflat)(jnp.asarray(flat))
    feed = data.batches(dataset, BATCH, arch_steps=0)

    def alone(key, arrays, test):  # every cell of the pool, all of the budget
        k_data, k_members = jax.random.split(key)
        train = data.batches(dataset, BATCH, weight_steps=steps, arch_steps=0).draw(k_data, arrays, 0).train
        run = population(net, moves(lambda t: t / steps), lambda f, held: {"accuracy": accuracy(f, held)})
        return run(jax.random.split(k_members, CELLS), pool, train, test)["accuracy"]

    def all_alone():
        run, keys = _common.jit(alone), jax.random.split(jax.random.key(2), REPEATS)
        return [np.asarray(run(k, feed.arrays, dataset.test)).tolist() for k in keys]

    each = 100 * np.asarray(_common.kept(out / "alone.json", all_alone))
    truth = each.mean(0)
    tau = ranking.kendall(*each[:2])
    print(f"pool: {truth.mean():.2f} % in the mean, the best {truth.max():.2f}, tau of two trainings {tau:.2f}", flush=True)

    draw = lambda key, state: jax.tree.map(lambda a: a[jax.random.randint(key, (1,), 0, CELLS)], pool)
    from_pool = Proposer(lambda key: (), draw, lambda state, trials, scores: state)
    trained = lambda anneal: train_trials(net, moves, feed.draw, slots=15, budget=R, unit=epoch, anneal=anneal)
    rows = {
        "go on, one schedule over 9 epochs": (WIDE, trained("whole")),
        "go on, a schedule each": (WIDE, trained("own")),
        "begin anew, a schedule each": (NARROW, from_scratch(trained("own"))),
    }
    held = Batch(fixed=Held(feed.arrays, dataset.valid))
    for name, (plan, evaluator) in rows.items():
        seconds, strategy, found = _common.stopwatch(), black_box(brackets(space, plan, propose=from_pool), evaluator), []

        def one(key, held):
            k_init, k_steps = jax.random.split(key)
            step = lambda state, t: strategy.step(jax.random.fold_in(k_steps, t), state, held)
            state, info = jax.lax.scan(step, strategy.init(k_init), jnp.arange(steps_of(plan)))
            return space.flat(strategy.best(state)), state.algorithm.answer.score, jnp.sum(info.metrics["cost"])

        run = _common.jit(one)
        for key in jax.random.split(jax.random.key(3), 12):
            arch, score, spent = run(key, held)
            i = np.flatnonzero((flat == np.asarray(arch)).all(1))[0]
            found.append((truth[i], 100 * float(score), float(spent)))
        mean, half = journal.interval(found)  # [3]
        _common.row(name, f"{mean[0]:.2f} +- {half[0]:.2f}", f"{mean[1]:.2f}", f"{mean[2]:.0f}", f"{seconds():.0f} s")


if __name__ == "__main__":
    {"table": table, "curves": curves, "digits": digits}[sys.argv[1]](*sys.argv[2:])
