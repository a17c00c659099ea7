"""One-Shot: Bender et al., ICML 2018.  All paths at once, with path dropout.

    python experiments/one_shot.py [OUT]

The paper's setting (CIFAR-10, 8 cells of 4 choice blocks, batches of 1,024 in ghosts of 32, 20,000 candidates; 3.9 to 4.1 % error)
was not run.  Smoke: as `experiments/spos.py`; r = 0.1 over a linear warm-up, the whole batch of 32 one ghost, lambda = 3e-4, and
the statistics of each batch.  Every candidate sees every batch: a step costs four paths.

Obtained, two busy CPU cores:

| | test, % (95 % over 3) | thousands of multiply-adds | tau by seed |
|---|---|---|---|
| random, under the limit | 95.73 +- 3.41 (96.66, 94.15, 96.38) | at most 238 | |
| found | 94.71 +- 2.49 (94.43, 93.87, 95.82) | 222 | 0.38 (0.02 to 0.68), 0.47 (0.18 to 0.68), 0.27 (-0.03 to 0.51) |

Two of three intervals exclude 0, although the reference's reliability is 0.26 (see `experiments/spos.py`); what is found is no
better than random.  3 minutes.
"""

import optax
from spos import smoke

from jaxnas import training, weight_sharing


def phases(net, n, cost, limit):
    weights = training.sgd(optax.cosine_decay_schedule(0.025, n), weight_decay=0.0)
    return [(weight_sharing.one_shot(net, weights, warm_up=optax.linear_schedule(0.0, 1.0, n), decay=3e-4), n, None)]


if __name__ == "__main__":
    smoke("One-Shot", phases, statistics="batch")
