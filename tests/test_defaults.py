"""What methods train with by default is what was published: three steps of a net, to the last bit."""

import jax
import numpy as np
import optax
import pytest
from laws import cell_space, images, mobile_net, priced, toy_net
from quick import jit

import jaxnas as nas
from jaxnas import hardware

sgd, adam = nas.training.sgd, nas.training.adam
darts_weights, darts_architecture = sgd(0.025, 0.9, 3e-4), adam(3e-4, 1e-3)  # Liu et al. 2019, section 3.1
proxyless = dict(weights=sgd(0.025, 0.9, 4e-5), architecture=optax.adam(1e-3, b1=0.0))  # Cai et al. 2019, section 4

PUBLISHED = {  # weights and architecture
    "beta_darts": dict(weights=darts_weights, architecture=optax.adam(3e-4, 0.5, 0.999)),  # its own regulariser stands for decay
    "darts": dict(weights=darts_weights, architecture=darts_architecture),
    "drnas": dict(weights=darts_weights, architecture=darts_architecture),
    "fbnet": dict(  # Wu et al. 2019, section 4.1
        weights=sgd(0.1, 0.9, 1e-4), architecture=optax.chain(optax.add_decayed_weights(5e-4), optax.adam(0.01))
    ),
    "gaea": dict(weights=darts_weights),
    "gdas": dict(weights=darts_weights, architecture=darts_architecture),
    "pc_darts": dict(weights=sgd(0.1, 0.9, 3e-4), architecture=adam(6e-4, 1e-3)),  # Xu et al. 2020, section 4.2
    "proxylessnas": proxyless,
    "proxylessnas_reinforce": proxyless,
    "snas": dict(weights=darts_weights, architecture=darts_architecture),
    "tunas": dict(weights=darts_weights, architecture=optax.adam(3e-4, b1=0.0)),  # its own weights are RMSProp's
}
MOBILE = {"fbnet", "proxylessnas", "proxylessnas_reinforce", "tunas"}
GIVEN = {
    "beta_darts": dict(decay=lambda t: 0.5),
    "gdas": dict(temperature=optax.constant_schedule(1.0)),
    "snas": dict(temperature=optax.constant_schedule(1.0)),
    "fbnet": dict(temperature=optax.constant_schedule(1.0)),
    "tunas": dict(networks=1),
}


def after_three_steps(name, **optimizers):
    net = mobile_net() if name == "proxylessnas" else toy_net(mobile_net().space if name in MOBILE else cell_space())
    given = dict(GIVEN.get(name, {}))
    if name == "tunas":
        given["cost"] = priced(net, hardware.absolute_reward(8.0))
    strategy = getattr(nas.weight_sharing, name)(net, **given, **optimizers)
    step, state = jit(strategy.step), strategy.init(jax.random.key(0))
    for t in range(3):
        state, _ = step(jax.random.key(10 + t), state, images(jax.random.key(20 + t)))
    return state.variables, state.theta


@pytest.mark.parametrize("name", PUBLISHED)
def test_optimizers_are_the_published_ones(name):
    jax.tree.map(np.testing.assert_array_equal, after_three_steps(name), after_three_steps(name, **PUBLISHED[name]))
