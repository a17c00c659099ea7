"""TuNAS: Bender et al., CVPR 2020, arXiv:2008.06120.  REINFORCE on shared weights, at a cost that is given.

    python experiments/tunas.py [OUT]

The paper's setting (ImageNet, 90 epochs of 4,096; 75 % at 84 ms on a phone) was not run.  Smoke: as `experiments/spos.py`; op
warm-up over the first quarter, then theta by Adam at 0.01 rising tenfold, beta -0.1, the median multiply-adds as the target, and
the likeliest network as the answer.

Obtained, two busy CPU cores:

RECORD
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
