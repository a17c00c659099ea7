"""FairNAS: Chu, Zhang and Xu, ICCV 2021, arXiv:1907.01845.  Strict fairness, at the cost of four passes a step.

    python experiments/fairnas.py [OUT]

The paper's setting (ImageNet, 19 layers of 6 blocks, 150 epochs of 256, NSGA-II) needs accelerators, and was not run.  Smoke:
as `experiments/spos.py`, with a quarter of the steps, so as many passes.  Two busy CPU cores, 8 minutes.

Results: docs/results.md#spos-and-its-relatives
"""

from _common import cosine_sgd, one_shot

from jaxnas import weight_sharing


def phases(net, n, cost, limit):
    return [(weight_sharing.fairnas(net, cosine_sgd(0.025, n // 4)), n // 4, None)]


if __name__ == "__main__":
    one_shot.study("FairNAS", phases)
