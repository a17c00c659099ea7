"""Zero-cost proxies on NAS-Bench-201: do they rank, and do they agree with the published scores?

    python experiments/zero_cost.py shallow TABLE.npz                              400 cells, C=16, one cell a stage, noise
    python experiments/zero_cost.py deep TABLE.npz SCORES.npz IMAGES.npz OUT [N]   N cells (1,000), C=16, five a stage, CIFAR-10
    python experiments/zero_cost.py warm TABLE.npz SCORES.npz                      aging evolution from the best of synflow

TABLE has `ops` [N, 6] and `test_acc_200` [N, D] (CIFAR-10 first), SCORES `scores` [N, M] and `proxy_names`, NaN where nothing was
published; IMAGES as `experiments/_common/cifar10.py` reads them.  `deep` keeps what it has in OUT and goes on from there.

Weights within 1 / sqrt(fan in), as PyTorch draws them, but He's for nwot in `shallow`, and N(0, 1) for zen.  `deep` takes one
draw of the weights and one batch of 64 for all cells; `shallow` 16 x 16 noise in batches of 32 and random labels, and its
reference is a run of the same protocol in PyTorch; `warm` is aging evolution (population 10, tournament 5) of 50 queries, 500
seeds.

Two CPU cores with much other work on them; `shallow` takes three minutes with nothing else running.

Results: docs/results.md#zero-cost-proxies, docs/results.md#warm-starts
"""

import sys
from functools import partial

import _common
import jax
import jax.numpy as jnp
import numpy as np
from _common import cifar10

import jaxnas as nas
from jaxnas import proxies
from jaxnas.analysis import ranking
from jaxnas.app import rank
from jaxnas.base import Batch
from jaxnas.evaluate import zero_cost

SPACE = nas.spaces.nasbench201()
PUBLISHED = {"jacob_cov": "jacov"}  # where the file has another name


def scored(key, archs, names, batch, cells, draw, kept=None, own=False):
    """{proxy: [N]} of architectures; `kept` is a file that spares a second time."""
    if kept is not None and kept.exists():
        return dict(np.load(kept))
    net = nas.cell_net(SPACE, image=batch[0].shape[2:], classes=10, cells=cells)
    say = lambda line: print(line, flush=True)
    scores = rank.scored(key, net, archs, batch, names, evaluator=partial(zero_cost, draw=draw, own=own), chunk=20, say=say)
    if kept is not None:
        np.savez(kept, **scores)
    return scores


def archs_of(ops, rows):
    return jax.vmap(SPACE.unflat)(jnp.asarray(ops[rows], jnp.int32))


def shallow(table):
    table = np.load(table)
    rows = np.random.default_rng(0).choice(15625, 400, replace=False)
    archs, truth = archs_of(table["ops"], rows), table["test_acc_200"][rows]
    k_draw, k_x, k_y = jax.random.split(jax.random.key(0), 3)
    of = lambda B: (jax.random.normal(k_x, (2, B, 16, 16, 3)), jax.random.randint(k_y, (2, B), 0, 10))
    groups = {
        "uniform": (("params", "flops"), ("synflow",), ("jacob_cov",), ("grad_norm", "snip", "fisher")),
        "net": (("nwot",),),
        "normal": (("zen",),),
    }
    scores = {}
    for draw, several in groups.items():
        for names in several:
            scores |= scored(k_draw, archs, names, of(16 if names == ("zen",) else 32), 1, draw)
    for own in (False, True):
        for i in range(3):
            found = scored(jax.random.fold_in(k_draw, i), archs, ("jacob_cov",), of(32), 1, "uniform", own=own)
            scores[f"jacob_cov, {'own draws' if own else 'another draw'} {i}"] = found["jacob_cov"]
    print("| proxy | C10 | C100 | Kendall C10 |\n|---|---|---|---|")
    for name, s in scores.items():
        rho = [f"{ranking.spearman(s, truth[:, d]):.3f}" for d in (0, 1)]
        print(f"| {name} | {' | '.join(rho)} | {ranking.kendall(s, truth[:, 0]):.3f} |")


def deep(table, scores, images, out, n="1000"):
    table, published, out = np.load(table), np.load(scores), _common.made(out)
    column = {str(name): published["scores"][:, i] for i, name in enumerate(published["proxy_names"])}
    there = np.flatnonzero(np.isfinite(column["synflow"]))
    rows = np.sort(np.random.default_rng(0).choice(there, int(n), replace=False))
    archs, truth = archs_of(table["ops"], rows), table["test_acc_200"][rows, 0]
    k_data, k_draw, k_batch = jax.random.split(jax.random.key(0), 3)
    (x, y), _ = cifar10.arrays(images)
    dataset = nas.data.split(k_data, x[:5000], y[:5000], name="cifar10")
    feed = nas.data.batches(dataset, 64, weight_steps=2, arch_steps=0)
    batch = jax.jit(feed.draw)(k_batch, feed.arrays, 0).train
    mine = {}
    for names in (("params", "flops"), ("synflow",), ("grad_norm", "snip", "fisher"), ("nwot",), ("jacob_cov",)):
        mine |= scored(k_draw, archs, names, batch, 5, "uniform", kept=out / f"{names[0]}.npz")
    mine["vote"] = np.asarray(proxies.vote(jnp.stack([mine[name] for name in ("synflow", "jacob_cov", "snip")], -1)))
    mine["synflow + nwot"] = np.asarray(proxies.rank_average(jnp.stack([mine["synflow"], mine["nwot"]], -1)))
    judged = rank.rank_quality(jax.random.key(1), mine, truth)
    print(rank.quality_table(judged))
    print("| proxy | agreement with the published score | its Spearman with accuracy | published |\n|---|---|---|---|")
    for name, s in mine.items():
        if (theirs := column.get(PUBLISHED.get(name, name))) is not None:
            pairs = (s, theirs[rows]), (s, truth), (theirs[rows], truth)
            print(f"| {name} | {' | '.join(f'{ranking.spearman(*pair):.3f}' for pair in pairs)} |")
    rank.write(out, [str(row) for row in rows], mine, truth, judged)
    print(
        "of the whole table, published parameters:",
        *(f"{ranking.spearman(table['params'][:, d], table['test_acc_200'][:, d]):.3f}" for d in (0, 1)),
    )


def warm(table, scores):
    """Aging evolution of 50 queries, 12-epoch validation its guide: its first 10 drawn, or the best ten of 1,000 by synflow."""
    table, published = np.load(table), np.load(scores)
    names = [str(name) for name in published["proxy_names"]]
    synflow = published["scores"][:, names.index("synflow")]
    rows = np.flatnonzero(np.isfinite(synflow))  # where there is a score, for both
    columns = nas.evaluate.rows(SPACE, table["ops"], {"accuracy": table["val_acc_12"][:, 0], "test": table["test_acc_200"][:, 0]})
    seen, test = Batch(fixed={"accuracy": columns["accuracy"]}), columns["test"]
    place = np.asarray(jax.vmap(SPACE.index)(archs_of(table["ops"], np.arange(15625))))
    value = jnp.full(15625, -jnp.inf).at[place].set(jnp.where(jnp.isfinite(synflow), synflow, -jnp.inf))
    usable = jnp.asarray(np.sort(place[rows]))

    def search(key, warmed):
        k_pool, k_init, k_steps = jax.random.split(key, 3)
        pool = usable[jax.random.permutation(k_pool, len(usable))[:1000]]
        first = jnp.where(warmed, pool[jnp.argsort(-value[pool])], pool)[:10]
        evolution = nas.aging_evolution(SPACE, population=10, tournament=5)
        strategy = nas.black_box(nas.warm_start(evolution, jax.vmap(SPACE.from_index)(first)), nas.evaluate.table(SPACE))
        query = lambda state, t: (strategy.step(jax.random.fold_in(k_steps, t), state, seen)[0], None)
        state, _ = jax.lax.scan(query, strategy.init(k_init), jnp.arange(50))
        return test[SPACE.index(strategy.best(state))]

    keys = jax.random.split(jax.random.key(0), 500)
    plain, warmed = (np.asarray(jax.jit(jax.vmap(search, (0, None)))(keys, flag), float) for flag in (False, True))
    for name, values in (("plain", plain), ("warmed", warmed), ("warmed - plain", warmed - plain)):
        print(f"{name}: {values.mean():.3f}, s.e. {values.std(ddof=1) / np.sqrt(len(values)):.3f}")


if __name__ == "__main__":
    {"shallow": shallow, "deep": deep, "warm": warm}[sys.argv[1]](*sys.argv[2:])
