"""Zero-cost proxies on NAS-Bench-201: do they rank, and do they agree with the published scores?

    python experiments/zero_cost.py shallow TABLE.npz                              400 cells, C=16, one cell a stage, noise
    python experiments/zero_cost.py deep TABLE.npz SCORES.npz IMAGES.npz OUT [N]   N cells (1,000), C=16, five a stage, CIFAR-10
    python experiments/zero_cost.py warm TABLE.npz SCORES.npz                      aging evolution from the best of synflow

TABLE has `ops` [N, 6] and `test_acc_200` [N, D] (CIFAR-10 first), SCORES `scores` [N, M] and `proxy_names`, NaN where nothing was
published; IMAGES as `experiments/cifar10_cells.py` wants them.  `deep` keeps what it has in OUT and goes on from there.

Weights within 1 / sqrt(fan in), as PyTorch draws them, but He's for nwot in `shallow`, and N(0, 1) for zen.  Obtained, two CPU
cores with much other work on them:

deep, 1,000 cells; one draw of the weights and one batch of 64 for all:

| proxy | cells | agrees with the published score | with accuracy | Kendall | the published score with accuracy |
|---|---|---|---|---|---|
| params | 1,000 | 1.000 | 0.793 (0.766 to 0.814) | 0.614 | 0.793 |
| flops | 1,000 | 0.996 | 0.793 (0.766 to 0.814) | 0.614 | 0.765 |
| synflow | 1,000 | 1.000 | 0.761 (0.728 to 0.786) | 0.566 | 0.761 |
| nwot | 1,000 | 0.994 | 0.799 (0.770 to 0.827) | 0.613 | 0.800 |
| grad_norm | 1,000 | 0.986 | 0.606 (0.545 to 0.657) | 0.448 | 0.610 |
| snip | 1,000 | 0.985 | 0.608 (0.548 to 0.659) | 0.452 | 0.610 |
| fisher | 1,000 | 0.983 | 0.562 (0.502 to 0.613) | 0.412 | 0.554 |
| jacob_cov | 1,000 | 0.946 | 0.810 (0.779 to 0.839) | 0.633 | 0.800 |
| synflow + nwot, mean rank | 1,000 | | 0.835 (0.811 to 0.856) | 0.645 | |
| vote (synflow, jacob_cov, snip) | 1,000 | | 0.860 (0.836 to 0.880) | 0.685 | |

The first three columns of numbers are Spearman's, with the bootstrap's 95 % over cells.  Parameters on the whole table, by the
table's own column: 0.753 and 0.728 (CIFAR-10, CIFAR-100).  No single proxy ranks clearly better than the number of weights
here (jacob_cov by 0.017, within the intervals); the vote does, and the interval of synflow + nwot touches.  None finds the
best: of the ten best cells no top ten holds more than one.  jacob_cov took 318 s, 3.1 cells a second.

shallow (400 cells, 16 x 16 noise in batches of 32, random labels; the reference is a run of the same protocol in PyTorch):

| proxy | C10 | C100 | Kendall C10 | reference: C10 | C100 | Kendall |
|---|---|---|---|---|---|---|
| params | 0.761 | 0.746 | 0.583 | 0.761 | 0.746 | 0.583 |
| synflow | 0.785 | 0.785 | 0.586 | 0.786 | 0.786 | 0.588 |
| jacob_cov, own draws, three times | 0.673, 0.663, 0.692 | 0.676, 0.665, 0.698 | 0.493, 0.484, 0.507 | 0.643 | 0.659 | 0.468 |
| jacob_cov, one draw for all | 0.731, 0.642, 0.701, 0.744 | 0.731, 0.651, 0.709, 0.739 | 0.541, 0.468, 0.517, 0.559 | | | |
| grad_norm | 0.520 | 0.505 | 0.359 | 0.495 | 0.482 | 0.341 |
| snip | 0.495 | 0.480 | 0.342 | 0.477 | 0.464 | 0.331 |
| nwot | 0.709 | 0.739 | 0.523 | 0.717 | 0.746 | 0.531 |
| zen | 0.703 | 0.700 | 0.519 | 0.670 | 0.666 | 0.491 |
| fisher | -0.198 | -0.221 | -0.128 | | | |

Three minutes, nothing else running (before the own draws: 800 cells a second by synflow, 80 by a gradient, 170 by nwot, 200 by
zen).  All are within 0.06
of the reference (synflow within 0.02), jacob_cov where each cell draws its own weights, as there: with one draw for all cells it
depends on the draw.  The other rows are of one draw for all.

warm: aging evolution (population 10, tournament 5) of 50 queries of the 12-epoch validation accuracy, CIFAR-10 test accuracy of the
answer, 500 seeds: 93.742 with a first population drawn at random, 94.231 with the best ten of 1,000 by the published synflow; the
difference is 0.489 with a standard error of 0.028.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxnas as nas
from jaxnas import proxies
from jaxnas.analysis import ranking
from jaxnas.app import rank
from jaxnas.base import Batch

SPACE = nas.spaces.nasbench201()
PUBLISHED = {"jacob_cov": "jacov"}  # where the file has another name


def scored(key, archs, names, batch, cells, draw, kept=None, own=False):
    """{proxy: [N]} of architectures; `kept` is a file that spares a second time."""
    if kept is not None and kept.exists():
        return dict(np.load(kept))
    net = nas.cell_net(SPACE, image=batch[0].shape[2:], classes=10, cells=cells)
    say = lambda line: print(line, flush=True)
    scores = rank.scored(key, net, archs, batch, names, draw=draw, own=own, chunk=20, say=say)
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
    from cifar10_cells import arrays

    table, published, out = np.load(table), np.load(scores), pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    column = {str(name): published["scores"][:, i] for i, name in enumerate(published["proxy_names"])}
    there = np.flatnonzero(np.isfinite(column["synflow"]))
    rows = np.sort(np.random.default_rng(0).choice(there, int(n), replace=False))
    archs, truth = archs_of(table["ops"], rows), table["test_acc_200"][rows, 0]
    k_data, k_draw, k_batch = jax.random.split(jax.random.key(0), 3)
    (x, y), _ = arrays(images)
    dataset = nas.data.split(k_data, x[:5000], y[:5000], name="cifar10")
    feed = nas.data.batches(dataset, 64, weight_steps=2, arch_steps=0)
    batch = jax.jit(feed.draw)(k_batch, feed.arrays, 0).train
    mine = {}
    for names in (("params", "flops"), ("synflow",), ("grad_norm", "snip", "fisher"), ("nwot",), ("jacob_cov",)):
        mine |= scored(k_draw, archs, names, batch, 5, "uniform", kept=out / f"{names[0]}.npz")
    mine["vote"] = np.asarray(proxies.vote(jnp.stack([mine[name] for name in ("synflow", "jacob_cov", "snip")], -1)))
    mine["synflow + nwot"] = np.asarray(proxies.rank_average(jnp.stack([mine["synflow"], mine["nwot"]], -1)))
    judged = rank.judge(jax.random.key(1), mine, truth)
    print(rank.markdown(judged))
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
