"""One study of the one-shot methods, on digits: how shared weights rank networks, and what is found with them.

Four mobile layers of k3_e3, k5_e3, k3_e6 or k5_e6 (256 networks); a supernet sees 880 batches of 32 (40 epochs); 20 networks are
trained alone, three times, for 440 batches each, and so are the answers of three seeds.
"""

import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnas as nas
from jaxnas import ask_tell, base, data, evaluate, nets, spaces
from jaxnas.analysis import ranking
from jaxnas.spaces._mobile import MobileLayer, MobileSpec

from . import calibrated, compiled_once, cosine_sgd, in_turn, show, train_alone

BATCH, EPOCHS, ALONE, SEEDS, RANKED = 32, 40, 20, 3, 20
OPS = ("k3_e3", "k5_e3", "k3_e6", "k5_e6")
LAYERS = tuple(MobileLayer(i, o, s, OPS) for i, o, s in ((8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 16, 1)))
SPACE = spaces.mobile(MobileSpec(LAYERS, stem=8, head=32, stem_stride=1))


class Supernet(NamedTuple):
    """A trained supernet, and what it is judged by."""

    net: nets.Net
    state: Any
    score: Callable  # (archs [P, ...], batch) -> [P]
    judge: base.Batch
    cost: Callable  # arch -> []
    limit: float


def evolution(key, trained: Supernet):
    """The best of 100 candidates under the limit."""
    algorithm = ask_tell.constrained_evolution(trained.net.space, trained.cost, trained.limit, 20, 5, 10, 10, capacity=100)
    evaluator = base.stateless(lambda key, archs, batch: {"accuracy": trained.score(archs, batch)})
    return nas.run(key, base.black_box(algorithm, evaluator), steps=5, data=nas.Feed(trained.judge, lambda k, a, t: a)).best


def study(
    name: str,
    phases: Callable,
    choose: Callable = evolution,
    *,
    statistics: str = "recalibrated",
    pick=None,
    arch_steps: int = 0,
) -> None:
    """Prints how a one-shot method ranks, and what it finds; a directory on the command line keeps the networks trained alone.

    Args:
        name: of the method.
        phases: (net, batches, cost, limit) -> [(strategy, steps, give)]: how the supernet is trained.
        choose: (key, Supernet) -> arch.
        statistics, pick: as in `evaluate.shared_weights`.
        arch_steps: validation batches of a step.
    """
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        with compiled_once(out / "compiled"):
            study_in(out, name, phases, choose, statistics, pick, arch_steps)


def study_in(out: pathlib.Path, name, phases, choose, statistics, pick, arch_steps) -> None:
    """`study`, in a directory."""
    k_data, k_random, k_search, k_train, k_rank = jax.random.split(jax.random.key(0), 5)
    dataset, space = data.load("digits", k_data), SPACE
    net = nets.mobile_net(space, image=dataset.image, classes=dataset.classes)
    cost = lambda arch: net.macs(space.gates(arch))
    some = jax.vmap(space.sample)(jax.random.split(k_random, 200))
    limit = float(jnp.median(jax.vmap(cost)(some)))
    affordable = [jax.tree.map(lambda a, i=i: a[i], some) for i in np.flatnonzero(jax.vmap(cost)(some) <= limit)[:SEEDS]]
    epoch = len(dataset.train.y) // BATCH
    feed = data.batches(dataset, BATCH, arch_steps=arch_steps)
    judge = calibrated(dataset, BATCH, 8)
    step = evaluate.shared_weights(net, statistics, pick).step
    score = lambda archs, batch: step(jax.random.key(0), (), archs, batch)[1]["accuracy"]
    ranked = jax.tree.map(lambda a: a[-RANKED:], some)

    def alone(key, archs, kept):  # test accuracies in percent, [P]
        flat, steps = np.asarray(jax.vmap(space.flat)(archs)), ALONE * epoch
        optimizer = cosine_sgd(0.025, steps)
        return train_alone(out / f"{kept}.npz", net, dataset, optimizer, flat, key=key, steps=steps, batch=BATCH)

    stack = lambda archs: jax.tree.map(lambda *a: jnp.stack(a), *archs)
    truth = np.stack([alone(jax.random.fold_in(k_rank, r), ranked, f"alone{r}") for r in range(3)], -1)  # [N, 3]
    print(
        f"{RANKED} networks alone: {truth.mean():.2f} %, sd {truth.mean(1).std():.2f}; reliability {ranking.reliability(truth):.2f}"
    )
    show("random", test=alone(k_train, stack(affordable), "random"))
    found = []
    for seed in range(SEEDS):
        key = jax.random.fold_in(k_search, seed)
        state = nas.run(key, in_turn(phases(net, EPOCHS * epoch, cost, limit), feed)).state
        trained = Supernet(net, state, score, judge._replace(fixed=state.variables), cost, limit)
        found.append(choose(jax.random.fold_in(key, 1), trained))
        scores = np.asarray(jax.jit(score)(ranked, trained.judge))
        rank = ranking.ranking(jax.random.key(seed), scores, truth.mean(1), k=5)
        print(
            f"{name}: {space.to_text(found[-1])}; tau {rank.tau.value:.2f} ({rank.tau.low:.2f} to {rank.tau.high:.2f}), "
            f"spearman {rank.spearman.value:.2f}, regret of the top 5 {rank.regret.value:.2f}, shared {100 * scores.mean():.1f} %",
            flush=True,
        )
    show(
        name,
        test=alone(jax.random.clone(k_train), stack(found), name),
        macs=[float(cost(a)) / 1e3 for a in found],
        limit=[limit / 1e3] * 2,
    )
