"""TuNAS: Bender et al., CVPR 2020, arXiv:2008.06120.  REINFORCE on shared weights, at a cost that is given.

    python experiments/tunas.py [OUT]

The paper's setting (ImageNet, 90 epochs of 4,096; 75 % at 84 ms on a phone) was not run.  Smoke: as `experiments/spos.py`; op
warm-up over the first quarter, then theta by Adam at 0.01 rising tenfold, beta -0.1, the median multiply-adds as the target, and
the likeliest network as the answer.

Obtained, two busy CPU cores:

| | test, % (95 % over 3) | thousands of multiply-adds | tau by seed |
|---|---|---|---|
| random, at most 238 thousand | 95.73 +- 3.41 (96.66, 94.15, 96.38) | | |
| found, target 238 | 95.45 +- 1.60 (94.71, 95.82, 95.82) | 251, 302, 220 | 0.21, 0.44, 0.49 |

95 % of the taus: -0.16 to 0.52, 0.07 to 0.72, 0.20 to 0.72.

The likeliest network misses the target by 6, 27 and 8 %: 660 steps of one network each are few for theta (on a surface in closed
form, in `tests/test_one_shot.py`, the reward ends at its target for three betas).  The warm-up on all operations leaves weights
that are much better (80 to 89 %) than SPOS's after as many batches.  3 minutes.
"""

import optax
from spos import sgd, smoke

from jaxnas import hardware, nets, weight_sharing


def phases(net, n, cost, limit):
    warm = n // 4
    table = hardware.cost(net.space, *nets.macs(net.space, net.image, net.classes))
    price = lambda gates: hardware.expected(table, gates)
    theta = optax.adam(optax.exponential_decay(0.01, n - warm, 10.0), b1=0.0)
    weights, give = sgd(n), lambda state: weight_sharing.Given(state.variables, state.opt_state)
    first = weight_sharing.op_warm_up(net, optax.linear_schedule(1.0, 0.0, warm), weights)
    return [(first, warm, None), (weight_sharing.tunas(net, price, limit, weights, theta), n - warm, give)]


def likeliest(key, trained):
    return weight_sharing.tunas(trained.net, None, 1.0).best(trained.state)


if __name__ == "__main__":
    smoke("TuNAS", phases, likeliest, arch_steps=1)
