"""Few-shot NAS: Zhao et al., ICML 2021, arXiv:2006.06863.  Four supernets, one for each operation of one layer.

    python experiments/few_shot.py [OUT]

The paper's setting (NAS-Bench-201: five supernets; ImageNet with OFA and ProxylessNAS) was not run; NAS-Bench-201 cells at a
small size are in `experiments/ranking.py`.  Smoke: as `experiments/spos.py`; the parent trains on half of the batches, each
child on an eighth, so as many steps in all.  Two busy CPU cores, 3.5 minutes.

Results: docs/results.md#spos-and-its-relatives
"""

from _common import cosine_sgd, one_shot

from jaxnas import weight_sharing

SPLIT = [1]  # the layer that halves


def phases(net, n, cost, limit):
    give = lambda state: weight_sharing.Given(state.variables)
    children = weight_sharing.few_shot(net, cosine_sgd(0.025, n // 8), decisions=SPLIT)
    return [(weight_sharing.spos(net, cosine_sgd(0.025, n // 2)), n // 2, None), (children, n // 8, give)]


if __name__ == "__main__":
    one_shot.study("few-shot", phases, pick=weight_sharing.pick_child(one_shot.SPACE, SPLIT))
