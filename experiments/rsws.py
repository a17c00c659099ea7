"""Random search with weight sharing: Li and Talwalkar, UAI 2019, arXiv:1902.07638.  1,000 quick looks, 10 finalists, 1 answer.

    python experiments/rsws.py [OUT]

The paper's setting (DARTS's space, 16 channels, 8 cells, 300 epochs) was not run.  Smoke: as `experiments/spos.py`, without a
limit: 256 random candidates on one validation batch, the best 10 on all of them.  The supernets are those of
`experiments/spos.py`, trained with the same keys.  Two busy CPU cores.

Results: docs/results.md#spos-and-its-relatives
"""

import jax
from _common import cosine_sgd, one_shot

from jaxnas import weight_sharing


def choose(key, trained):
    few = trained.judge._replace(valid=jax.tree.map(lambda a: a[:1], trained.judge.valid))

    def run(key, judge, few):
        looks = (lambda k, archs: trained.score(archs, few)), (lambda k, archs: trained.score(archs, judge))
        return weight_sharing.two_stage(trained.net.space, *looks, candidates=256)(key)[0]

    return jax.jit(run)(key, trained.judge, few)


if __name__ == "__main__":
    one_shot.study("RSWS", lambda net, n, cost, limit: [(weight_sharing.rsws(net, cosine_sgd(0.025, n)), n, None)], choose)
