"""Black-box algorithms against their named peers: NSGA-II and pymoo, TPE and Optuna, a Gaussian process and BoTorch.

    python experiments/peers/black_box.py            (needs the extras `benchmarks` and `peers`: pymoo, optuna, botorch)

    nsga2, ZDT1            N = 100, 250 generations, SBX 0.9 and polynomial mutation, eta 20 for both
    nsga2, NAS-Bench-201   test error against multiply-adds, N = 20, 25 generations; pymoo with rounded SBX and polynomial
                           mutation (eta 3, as in its guide), and with uniform crossover and random choices
    tpe                    100 evaluations, 20 of them random; densities independent or joint (Optuna: multivariate)
    gp                     50 evaluations, 10 of them random; expected improvement over 500 random cells and the neighbours
                           of the best 5 for both, BoTorch's in logarithms and with its MixedSingleTaskGP

jaxnas runs its seeds as one compiled program on all cores, a peer one run after the other (BoTorch in one thread: two are
slower).  The contestants take turns, every repetition has seeds of its own; seconds are medians over the repetitions, quality
is the mean over all runs with its standard error: of NSGA-II the last population's hypervolume and distinct points that no
other dominates, of the rest the accuracy of the best cell in other trainings, on NAS-Bench-201's cifar10.  The ratio is
to jaxnas with JAX's default keys.  Aging evolution against a loop has its own file, aging_evolution.py.

Two cores of an AMD EPYC, otherwise idle, jax 0.10.2, pymoo 0.6.2 (compiled), Optuna 5.0, BoTorch 0.18.1.

Results: docs/results.md#black-box-algorithms-against-their-peers
"""

import argparse
import functools
import statistics
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import ask_tell
from jaxnas.app.bench import algorithm, regret_curve
from jaxnas.ask_tell._tpe import independent, joint
from jaxnas.base import Batch, black_box, stateless
from jaxnas.evaluate import benchmark, rows, table
from jaxnas.spaces import Real, nasbench201, space


class Contest(NamedTuple):
    ours: Callable  # keys [seeds] -> outcomes [seeds, ...]
    peers: dict[str, Callable]  # seed -> outcome
    runs: int  # of each peer in a repetition
    quality: Callable  # outcome -> {what: figure}


def searched(strategy, steps, watch, fixed=None):
    """keys [seeds] -> (last states, what `watch` saw after every step [seeds, steps, ...])."""

    def one(key):
        k_init, k_steps = jax.random.split(key)

        def step(state, t):
            state, info = strategy.step(jax.random.fold_in(k_steps, t), state, Batch(fixed=fixed))
            return state, watch(info)

        return jax.lax.scan(step, strategy.init(k_init), jnp.arange(steps))

    return jax.vmap(one)


cifar10 = lambda: benchmark.find("nasbench201:cifar10")
validation = lambda: np.asarray(cifar10().fixed["accuracy"], np.float64)  # by `index`
index = lambda ops: np.asarray(ops, int) @ 5 ** np.arange(5, -1, -1)


def front_of(reference, points):
    """Of two objectives, the smaller the better."""
    points = np.unique(np.asarray(points, np.float64), axis=0)
    record = np.minimum.accumulate(points[:, 1])
    points = points[np.append(True, points[1:, 1] < record[:-1])]
    inside = points[(points < reference).all(1)]
    volume = np.diff(np.append(inside[:, 0], reference[0])) @ (reference[1] - inside[:, 1])
    return {"hypervolume": volume, "points": len(points)}


def two_objectives(strategy, steps, fixed, problem, population, operators, runs, reference):
    """An outcome is the last population's objectives [P, 2]; `operators`: pymoo's, by the contestant's name."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.functions import is_compiled
    from pymoo.optimize import minimize

    print(f"pymoo runs {'with' if is_compiled() else 'WITHOUT'} its compiled modules")
    ours = lambda keys: -searched(strategy, steps, lambda info: (), fixed)(keys)[0].algorithm.scores
    run = lambda options, seed: minimize(problem, NSGA2(pop_size=population, **options), ("n_gen", steps), seed=seed).pop.get("F")
    peers = {name: functools.partial(run, options) for name, options in operators.items()}
    return Contest(ours, peers, runs, functools.partial(front_of, np.asarray(reference)))


def zdt1():
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.problems import get_problem

    g = lambda x: 1 + 9 * jnp.mean(x[1:])
    score = lambda x: -jnp.stack([x[0], g(x) - jnp.sqrt(x[0] * g(x))])
    evaluate = stateless(lambda key, archs, batch: {"scores": jax.vmap(score)(archs.reals)})
    algorithm = ask_tell.nsga2(space(reals=Real(np.zeros(30), np.ones(30))), 2, population=100)
    strategy = black_box(algorithm, evaluate, lambda metrics: metrics["scores"])
    operators = {"pymoo": {"crossover": SBX(prob=0.9, eta=20), "mutation": PM(eta=20)}}
    return two_objectives(strategy, 250, None, get_problem("zdt1"), 100, operators, 4, (1.1, 1.1))


def table_front():
    from pymoo.core.problem import Problem
    from pymoo.core.variable import Choice
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.crossover.ux import UX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.mutation.rm import ChoiceRandomMutation
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    cells = nasbench201()
    ops = np.stack(np.unravel_index(np.arange(5**6), (5,) * 6), -1)
    flops = 7.78304 + 3.93216 * (ops == 2).sum(1) + 35.38944 * (ops == 3).sum(1)  # million, the published counts
    points = np.stack([flops, 100 - cifar10().test], -1)  # by `index`

    class Table(Problem):
        def _evaluate(self, x, out, *args, **kwargs):
            out["F"] = points[index(x)]

    both = lambda metrics: jnp.stack([metrics["flops"], metrics["error"]], -1)
    strategy = black_box(ask_tell.nsga2(cells, 2, population=20), table(cells), both)
    start, rounded = {"sampling": IntegerRandomSampling()}, {"vtype": float, "repair": RoundingRepair(), "eta": 3}
    operators = {
        "pymoo, rounded": start | {"crossover": SBX(prob=0.9, **rounded), "mutation": PM(**rounded)},
        "pymoo, choices": start | {"crossover": UX(prob=0.9), "mutation": ChoiceRandomMutation()},
    }
    choices = {d: Choice(options=range(5)) for d in range(6)}  # the bounds are for the other operators
    problem = Table(n_obj=2, xl=np.zeros(6, int), xu=np.full(6, 4), vars=choices)
    fixed = rows(cells, ops, {"flops": -points[:, 0], "error": -points[:, 1]})
    return two_objectives(strategy, 25, fixed, problem, 20, operators, 16, (225.0, 100.0))


def one_objective(algorithm, queries, marks, peers, runs):
    """An outcome is what was asked for, by `index`."""
    data = cifar10()
    strategy = black_box(algorithm(data.space, queries), table(data.space))
    asked = lambda info: jax.vmap(data.space.index)(info.archs)[0]
    ours = lambda keys: searched(strategy, queries, asked, data.fixed)(keys)[1]

    def quality(outcome):
        test = np.nanmax(data.test) - regret_curve(data, np.asarray(outcome)[None])[0]
        return {f"test at {q}": test[q - 1] for q in marks}

    return Contest(ours, peers, runs, quality)


def tpe(multivariate):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # `multivariate` is one
    accuracy = validation()
    cell = lambda trial: index([trial.suggest_categorical(str(d), range(5)) for d in range(6)])

    def peer(seed):
        sampler = optuna.samplers.TPESampler(n_startup_trials=20, multivariate=multivariate, seed=seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(lambda trial: accuracy[cell(trial)], n_trials=100)
        return [index([trial.params[str(d)] for d in range(6)]) for trial in study.trials]

    density = joint if multivariate else independent
    ours = lambda cells, queries: ask_tell.tpe(cells, capacity=queries, initial=20, density=density)
    return one_objective(ours, 100, (50, 100), {"Optuna": peer}, 16)


def gp():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        import botorch
        import torch
        from gpytorch.mlls import ExactMarginalLogLikelihood
    torch.set_num_threads(1)
    accuracy = validation()
    moves = np.kron(np.eye(6, dtype=int), np.arange(1, 5)[:, None])  # [24, 6]: another operation on one edge

    def peer(seed):
        torch.manual_seed(seed)
        draw = np.random.default_rng(seed)
        told = draw.integers(0, 5, (10, 6))
        while len(told) < 50:
            y = accuracy[index(told)]
            near = (told[np.argsort(-y)[:5], None] + moves) % 5
            pool = np.concatenate([draw.integers(0, 5, (500, 6)), near.reshape(-1, 6)])
            x, y, pool = (torch.tensor(a, dtype=torch.double) for a in (told, y[:, None], pool))
            model = botorch.models.MixedSingleTaskGP(x, y, cat_dims=list(range(6)))
            botorch.fit.fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            value = botorch.acquisition.LogExpectedImprovement(model, best_f=y.max())
            chosen, _ = botorch.optim.optimize_acqf_discrete(value, 1, pool, X_avoid=x)
            told = np.concatenate([told, chosen.numpy().astype(int)])
        return index(told)

    return one_objective(algorithm("gp"), 50, (25, 50), {"BoTorch": peer}, 2)


OURS = {"jaxnas": None, "jaxnas, philox": "philox4x32"}  # the keys' implementation
CONTESTS = {
    "nsga2, ZDT1": zdt1,
    "nsga2, NAS-Bench-201": table_front,
    "tpe, independent": functools.partial(tpe, False),
    "tpe, joint": functools.partial(tpe, True),
    "gp": gp,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=32, help="of jaxnas, in one program")
    parser.add_argument("--only", default="", help="contests whose name contains this")
    arguments = parser.parse_args()
    split = lambda key: jax.random.split(key, (arguments.repetitions + 1, arguments.seeds))
    keys = {who: split(jax.random.key(0, impl=impl)) for who, impl in OURS.items()}
    contests, turns, compiled_in = {}, {}, {}
    for name in filter(lambda name: arguments.only in name, CONTESTS):
        try:
            contest = contests[name] = CONTESTS[name]()
        except ImportError as error:
            print(f"{name} is left out: {error}; pip install 'jaxnas[peers]'")
            continue
        for who, k in keys.items():
            started = time.perf_counter()
            program = jax.jit(contest.ours).lower(k[0]).compile()
            compiled_in[name, who] = f"{time.perf_counter() - started:.1f} s"
            turns[name, who] = lambda r, program=program, k=k: np.asarray(program(k[r]))
        for who, run in contest.peers.items():
            turns[name, who] = lambda r, run=run, n=contest.runs: [run(n * r + i) for i in range(n if r else 1)]
    times, outcomes = ({turn: [] for turn in turns} for _ in range(2))
    for r in range(arguments.repetitions + 1):
        for turn, take in turns.items():
            started = time.perf_counter()
            found = take(r)
            if r:  # the first round is not measured
                times[turn].append((time.perf_counter() - started) / len(found))
                outcomes[turn] += list(found)
    print(f"{'':<40}{'s / run':>9}{'ratio':>7}{'compile':>9}{'runs':>6}  quality")
    for (name, who), seconds in times.items():
        median = statistics.median(seconds)
        ratio = median / statistics.median(times[name, "jaxnas"])
        figures = [contests[name].quality(outcome) for outcome in outcomes[name, who]]
        quality = {what: np.asarray([figure[what] for figure in figures], np.float64) for what in figures[0]}
        text = ", ".join(f"{what} {v.mean():.6g} ± {v.std(ddof=1) / len(v) ** 0.5:.2g}" for what, v in quality.items())
        print(f"{f'{name}: {who}':<40}{median:9.4f}{ratio:7.1f}{compiled_in.get((name, who), ''):>9}{len(figures):6d}  {text}")


if __name__ == "__main__":
    main()
