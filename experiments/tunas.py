"""TuNAS: Bender et al., CVPR 2020, arXiv:2008.06120.  REINFORCE on shared weights, at a cost that is given.

    python experiments/tunas.py [OUT]           fixed filters, as experiments/spos.py
    python experiments/tunas.py filters         searched filters, with both warm-ups and with none

The paper's setting (ImageNet, 90 epochs of 4,096) was not run.  Both: digits; warm-up over the first quarter, then theta by
Adam at 0.01 rising tenfold, beta -0.1, the median multiply-adds as the target, the likeliest network as the answer, trained
alone for 440 batches.

Fixed filters: two busy CPU cores, 3 minutes.  Searched filters: five layers, 130 thousand settings, a supernet of 880 batches,
three seeds; 3.7 minutes of processor time, 8 by the clock with four more programs on the two cores.  Ranking: 20 random
networks by shared weights, against each trained alone, once.

Results: docs/results.md#spos-and-its-relatives, docs/results.md#tunas-with-searched-filters
"""

import pathlib
import sys
import tempfile

import _common
import jax
import numpy as np
import optax
from _common import cosine_sgd, one_shot

import jaxnas as nas
from jaxnas import data, evaluate, hardware, policies, weight_sharing
from jaxnas.analysis import ranking
from jaxnas.nets._tunas_net import tunas_net
from jaxnas.spaces._tunas import TunasSpec, TunasStage, tunas, widest

BATCH, EPOCHS, ALONE, SEEDS, RANKED = 32, 40, 20, 3, 20  # of the searched filters; ALONE: epochs
STAGES = TunasStage((8, 6, 4), 1, 1, (1,)), TunasStage((12, 8, 4), 2, 1, (4, 2)), TunasStage((24, 16, 8), 2, 2, (4, 2))
SPEC = TunasSpec(STAGES, stem=(8, 4), head=(48, 32, 16), kernels=(5, 3), stem_stride=1)


def plan(net, n, cost, full=None, odds=1.0):
    """The warm-up, from `odds` on, then the search."""
    warm = n // 4
    theta = optax.adam(optax.exponential_decay(0.01, n - warm, 10.0), b1=0.0)
    weights, give = cosine_sgd(0.025, n), lambda state: weight_sharing.Given(state.variables, state.opt_state)
    first = weight_sharing.op_warm_up(net, weights, share=optax.linear_schedule(odds, 0.0, warm), full=full)
    return [(first, warm, None), (weight_sharing.tunas(net, weights, theta, cost=cost), n - warm, give)]


def phases(net, n, cost, limit):
    return plan(net, n, hardware.priced(net.macs, hardware.absolute_reward(limit)))


def likeliest(key, trained):
    return policies.categorical(trained.net.space).derive(trained.state.theta)


def filters(out: pathlib.Path) -> None:
    k_data, k_random, k_search, k_train = jax.random.split(jax.random.key(0), 4)
    dataset, space = data.load("digits", k_data), tunas(SPEC)
    net = tunas_net(space, image=dataset.image, classes=dataset.classes)
    costs = jax.jit(jax.vmap(lambda arch: net.macs(space.gates(arch)) / 1e3))
    some = jax.vmap(space.sample)(jax.random.split(k_random, 200))
    target = float(np.median(costs(some)))
    near = np.flatnonzero(abs(np.asarray(costs(some)) / target - 1) < 0.05)[:SEEDS]
    archs = {"random": jax.tree.map(lambda a: a[near], some)}
    ranked = jax.tree.map(lambda a: a[-RANKED:], some)
    epoch = len(dataset.train.y) // BATCH
    feed, judge = data.batches(dataset, BATCH), _common.calibrated(dataset, BATCH, 8)
    shared = evaluate.shared_weights(net).step
    score = jax.jit(lambda variables: shared(jax.random.key(0), (), ranked, judge._replace(fixed=variables))[1]["accuracy"])
    scores = {}
    cost = hardware.priced(lambda gates: net.macs(gates) / 1e3, hardware.absolute_reward(target))
    for name, full, odds in (("both warm-ups", widest(space), 1.0), ("no warm-up", None, 0.0)):
        parts = plan(net, EPOCHS * epoch, cost, full, odds)
        state = nas.run(jax.random.clone(k_search), _common.in_turn(parts, feed), seeds=SEEDS).state
        archs[name] = jax.vmap(parts[-1][0].best)(state)
        scores[name] = [np.asarray(score(jax.tree.map(lambda a, i=i: a[i], state.variables))) for i in range(SEEDS)]

    flat = np.concatenate([jax.vmap(space.flat)(a) for a in (*archs.values(), ranked)])
    steps = ALONE * epoch
    alone = dict(key=k_train, steps=steps, batch=BATCH)
    test = _common.train_alone(out / "filters.npz", net, dataset, cosine_sgd(0.025, steps), flat, **alone)
    *tested, truth = np.split(test, np.cumsum([SEEDS] * len(archs)))
    print(f"{space.size:.2g} networks, target {target:.1f}; {RANKED} alone: {truth.mean():.2f} %, sd {truth.std():.2f}", flush=True)
    for (name, found), test in zip(archs.items(), tested, strict=True):
        _common.show(name, test=test, macs=np.asarray(costs(found)))
        for i, each in enumerate(scores.get(name, [])):
            rank = ranking.ranking(jax.random.key(i), each, truth, k=5)
            text = space.to_text(jax.tree.map(lambda a, i=i: a[i], found))
            print(f"    {text}; shared {100 * each.mean():.1f} %; {_common.told(rank)}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["filters"]:
        with tempfile.TemporaryDirectory() as temporary:
            filters(pathlib.Path(temporary))
    else:
        one_shot.study("TuNAS", phases, likeliest, arch_steps=1)
