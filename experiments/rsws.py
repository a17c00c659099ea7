"""Random search with weight sharing: Li and Talwalkar, UAI 2019, arXiv:1902.07638.  1,000 quick looks, 10 finalists, 1 answer.

    python experiments/rsws.py [OUT]

The paper's setting (DARTS's space, 16 channels, 8 cells, 300 epochs; 2.85 +- 0.08 % on CIFAR-10) was not run.  Smoke: as
`experiments/spos.py`, without a limit: 256 random candidates on one validation batch, the best 10 on all of them.

Obtained, two busy CPU cores:

| | test, % (95 % over 3) | tau by seed |
|---|---|---|
| random | 95.73 +- 3.41 (96.66, 94.15, 96.38) | |
| found | 95.45 +- 3.48 (96.94, 95.26, 94.15) | 0.14 (-0.22 to 0.48), 0.28 (-0.10 to 0.56), 0.03 (-0.36 to 0.36) |

The supernets are those of `experiments/spos.py`, trained with the same keys; what was said there of the ranking holds here.
"""

import jax
from spos import sgd, smoke

from jaxnas import weight_sharing


def choose(key, trained):
    few = trained.judge._replace(valid=jax.tree.map(lambda a: a[:1], trained.judge.valid))

    def run(key, judge, few):
        looks = (lambda k, archs: trained.score(archs, few)), (lambda k, archs: trained.score(archs, judge))
        return weight_sharing.two_stage(trained.net.space, *looks, candidates=256)(key)[0]

    return jax.jit(run)(key, trained.judge, few)


if __name__ == "__main__":
    smoke("RSWS", lambda net, n, cost, limit: [(weight_sharing.rsws(net, sgd(n)), n, None)], choose)
