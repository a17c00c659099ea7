"""Single Path One-Shot: Guo et al., ECCV 2020, arXiv:1904.00420.  Train a supernet, search it, train the answer; and how it ranks.

    python experiments/spos.py [OUT]          (OUT keeps the networks trained alone, for the other one-shot experiments)

The paper's setting (ImageNet, 20 choice blocks of ShuffleNet units, 150,000 steps of 1,024, rate 0.5 falling linearly,
evolution of 50 x 20 under 330 M multiply-adds) needs accelerators and those units, and was not run.  Smoke: digits, four mobile
layers of k3_e3, k5_e3, k3_e6 or k5_e6 (256 networks), a supernet of 880 batches of 32 (40 epochs), evolution of 5 x 20 under
the median multiply-adds, the answer trained for 440 batches; three times, against random networks under the same limit.
Ranking: the supernet's scores of 20 networks against their test accuracy when trained alone, mean of three seeds.

Two busy CPU cores, 16 minutes, most of them for the networks alone.

Results: docs/results.md#spos-and-its-relatives
"""

from _common import cosine_sgd, one_shot

from jaxnas import weight_sharing

if __name__ == "__main__":
    one_shot.study("SPOS", lambda net, n, cost, limit: [(weight_sharing.spos(net, cosine_sgd(0.025, n)), n, None)])
