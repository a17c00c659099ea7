"""FairNAS: Chu, Zhang and Xu, ICCV 2021, arXiv:1907.01845.  Strict fairness, at the cost of four passes a step.

    python experiments/fairnas.py [OUT]

The paper's setting (ImageNet, 19 layers of 6 blocks, 150 epochs of 256, NSGA-II; Kendall's tau 0.95 over 13 models, FairNAS-A
75.34 %) needs accelerators, and was not run.  Smoke: as `experiments/spos.py`, with a quarter of the steps, so as many passes.

Obtained, two busy CPU cores:

| | test, % (95 % over 3) | thousands of multiply-adds | tau by seed |
|---|---|---|---|
| random, under the limit | 95.73 +- 3.41 (96.66, 94.15, 96.38) | at most 238 | |
| found | 94.15 +- 2.49 (93.04, 94.43, 94.99) | 198 | 0.14 (-0.24 to 0.49), 0.03 (-0.32 to 0.39), 0.21 (-0.13 to 0.47) |

No better than random, as in `experiments/spos.py`; after a quarter of the steps the shared weights are at 42 to 49 %.  8 minutes.
"""

from spos import sgd, smoke

from jaxnas import weight_sharing

if __name__ == "__main__":
    smoke("FairNAS", lambda net, n, cost, limit: [(weight_sharing.fairnas(net, sgd(n // 4)), n // 4, None)])
