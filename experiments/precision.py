"""Does a network learn as well in bfloat16?  Mixed precision against float32 on digits, seed by seed.

    python experiments/precision.py [SEEDS] [STEPS]

Micikevicius et al., Mixed Precision Training, ICLR 2018, arXiv:1710.03740; Kalamkar et al., 2019, arXiv:1905.12322.  One cell of
NAS-Bench-201 (3 x 3 convolutions and a skip) in each of three stages, 4 channels, trained on the digits' 719 training images in
batches of 64 by SGD (0.1, a cosine to 0), tested on 359.  Weights, order of the images and test part are the same in both.

Two CPU cores under heavy load, 16 minutes: 97.38 +- 0.72 in float32, 97.66 +- 0.39 in bfloat16, difference 0.28 +- 0.35.

Results: docs/results.md#mixed-precision
"""

import sys
import time

import _common
import jax
import jax.numpy as jnp
import optax

import jaxnas as nas
from jaxnas import nets, spaces, training

CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def main(seeds=5, steps=300, batch=64):
    digits = nas.data.load("digits", jax.random.key(0))
    space = spaces.nasbench201()
    plain = nets.evaluation_net(space, space.from_text(CELL), classes=10, channels=4, cells=1)
    k_init, k_order, k_step = jax.random.split(jax.random.key(0), 3)
    x, y = map(jnp.asarray, digits.train)
    found = {}
    for precision in ("float32", "bfloat16"):
        optimizer = training.sgd(optax.cosine_decay_schedule(0.1, steps))
        train = training.train(plain, optimizer, (8, 8, 1), steps=steps, precision=precision)
        module = nets.with_precision(plain, precision)

        def accuracy(seed, train=train, module=module):
            own = lambda key: jax.random.fold_in(key, seed)
            rows = jax.random.randint(own(k_order), (steps, batch), 0, len(y))
            state, _ = train.step(own(k_step), train.init(own(k_init)), nas.Batch(train=(x[rows], y[rows])))
            return training.accuracy(lambda x: module.apply(state.variables, x), tuple(digits.test))

        began = time.perf_counter()
        found[precision] = 100 * jax.jit(jax.vmap(accuracy))(jnp.arange(seeds))
        _common.row(precision, _common.plus_minus(found[precision]), f"{time.perf_counter() - began:.0f} s")
    _common.row("difference", _common.plus_minus(found["bfloat16"] - found["float32"]), "")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
