"""One-Shot: Bender et al., ICML 2018.  All paths at once, with path dropout.

    python experiments/one_shot.py [OUT]

The paper's setting (CIFAR-10, 8 cells of 4 choice blocks, batches of 1,024 in ghosts of 32, 20,000 candidates) was not run.
Smoke: as `experiments/spos.py`; r = 0.1 over a linear warm-up, the whole batch of 32 one ghost, lambda = 3e-4, and the
statistics of each batch.  Every candidate sees every batch: a step costs four paths.  Two busy CPU cores, 3 minutes.

Results: docs/results.md#spos-and-its-relatives
"""

import optax
from _common import cosine_sgd, one_shot

from jaxnas import weight_sharing


def phases(net, n, cost, limit):
    weights = cosine_sgd(0.025, n, weight_decay=0.0)
    return [(weight_sharing.one_shot(net, weights, warm_up=optax.linear_schedule(0.0, 1.0, n), decay=3e-4), n, None)]


if __name__ == "__main__":
    one_shot.study("One-Shot", phases, statistics="batch")
