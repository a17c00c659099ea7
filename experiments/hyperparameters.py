"""Hyper-parameters by the machinery of DARTS: a log weight decay and a log learning rate in the place of the architecture.

    python experiments/hyperparameters.py

Bengio, Neural Computation 2000; Maclaurin, Duvenaud and Adams, ICML 2015, arXiv:1502.03492; Lorraine et al., AISTATS 2020,
arXiv:1911.02590.  A linear classifier of digits: 100 examples, 20 % of which get a random label, full batches; the outer loss is
that of 300 clean ones.  It is convex: the validation loss at convergence (5,000 steps) depends on the decay alone, and a grid of
16 has its least.  Eight seeds (data, noise) are one vmapped program; no test images.  2 busy CPU cores, 1 to 2 minutes.

Two problems.  From a decay of 0.01, 40 outer steps of 500 inner ones, warm-started, where the horizon of the hypergradient is
varied; and 50 steps from zero weights, unrolled whole, where decay and rate are both learnt from 0.01.

Results: docs/results.md#hyper-parameters-by-hypergradients
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas import data, training
from jaxnas.driver import journal
from jaxnas.training import bilevel

SEEDS, TRAIN, VALID, NOISE = 8, 100, 300, 0.2
STEPS, AHEAD, OUTER, OUTER_RATE = 5000, 500, 40, 2.0
HORIZONS = (20, 500)
START = {"log_decay": np.log(1e-2), "log_rate": np.log(0.1)}
BUDGET, BUDGET_OUTER, BUDGET_RATE = 50, 200, 0.3
SLOW = {"log_decay": np.log(1e-2), "log_rate": np.log(0.01)}
SHORT = np.log(np.logspace(-4, 0, 13)), np.log(np.logspace(-2, 0.5, 31))  # decays, rates
GRID = np.log(np.logspace(-2, 0.5, 16))


def loss(w, x, y):
    return training.cross_entropy(x @ w["kernel"] + w["bias"], y)


def inner(a, w, batch):
    return loss(w, *batch) + 0.5 * jnp.exp(a["log_decay"]) * jnp.sum(w["kernel"] ** 2)


def update(a, grads, state, w):
    return jax.tree.map(lambda w, g: w - jnp.exp(a["log_rate"]) * g, w, grads), state


PROBLEM = bilevel.Bilevel(outer=lambda a, w, batch: loss(w, *batch), inner=inner, update=update)
repeated = lambda batch, n: jax.tree.map(lambda v: jnp.broadcast_to(v, (n, *v.shape)), batch)


def descend(a, w, batch, steps: int):
    step = lambda w, _: (update(a, jax.grad(inner, 1)(a, w, batch), (), w)[0], None)
    return jax.lax.scan(step, w, None, length=steps)[0]


def methods(a):
    """All at the end of AHEAD steps; a short horizon, and a long one."""
    rate = jnp.exp(a["log_rate"])
    unrolls = {f"unroll, last {k} steps": bilevel.unrolled(backprop_last=k) for k in HORIZONS}
    return unrolls | {f"neumann, {k} terms": bilevel.neumann(k - 1, rate) for k in HORIZONS}


def hypergradient(name, a, w, train, valid):
    """-> dF/da, and the weights after AHEAD steps.  An unroll starts where the weights start, a series where they end."""
    ahead = descend(a, w, train, AHEAD)
    at = ahead if name.startswith("neumann") else w
    found = bilevel.hypergradient(PROBLEM, a, at, (), repeated(train, AHEAD), valid, method=methods(a)[name])
    return found.grad, ahead


def draw(key, dataset):
    """One seed's (x, y) to train on, with noisy labels, and to validate on; and zero weights."""
    k_train, k_valid, k_noise, k_label = jax.random.split(key, 4)
    pick = lambda k, part, n: jax.tree.map(lambda v: v[jax.random.permutation(k, len(part.y))[:n]], part)
    flat = lambda part: (part.x.reshape(len(part.y), -1).astype(float), part.y)
    (x, y), valid = flat(pick(k_train, dataset.train, TRAIN)), flat(pick(k_valid, dataset.valid, VALID))
    other = jax.random.randint(k_label, y.shape, 0, dataset.classes)
    y = jnp.where(jax.random.bernoulli(k_noise, NOISE, y.shape), other, y)
    return (x, y), valid, {"kernel": jnp.zeros((x.shape[1], dataset.classes)), "bias": jnp.zeros(dataset.classes)}


def learn(name, w, train, valid):
    """OUTER steps of descent on the hypergradient, warm-started -> a."""

    def step(carry, _):
        a, w = carry
        grad, w = hypergradient(name, a, w, train, valid)
        return (jax.tree.map(lambda a, g: a - OUTER_RATE * g, a, grad), w), None

    start = jax.tree.map(jnp.asarray, START)
    return jax.lax.scan(step, (start, descend(start, w, train, STEPS)), None, length=OUTER)[0][0]


def budgeted(w, train, valid):
    """The same from zero weights for BUDGET steps, unrolled whole: here the rate matters -> a."""

    def step(a, _):
        grad = bilevel.hypergradient(PROBLEM, a, w, (), repeated(train, BUDGET), valid).grad
        return jax.tree.map(lambda a, g: a - BUDGET_RATE * g, a, grad), None

    return jax.lax.scan(step, jax.tree.map(jnp.asarray, SLOW), None, length=BUDGET_OUTER)[0]


def trained(a, w, train, valid, steps: int = STEPS):
    """(validation loss after the training, ||g_w|| / ||w|| there)."""
    w = descend(a, w, train, steps)
    return loss(w, *valid), optax.tree.norm(jax.grad(inner, 1)(a, w, train)) / optax.tree.norm(w)


def errors(w, train, valid, h=1e-3):
    """Of d F / d log decay at the start, relative to a central difference of the full training."""
    a = jax.tree.map(jnp.asarray, START)
    up, down = (trained({**a, "log_decay": a["log_decay"] + d}, w, train, valid)[0] for d in (h, -h))
    truth = (up - down) / (2 * h)
    before = descend(a, w, train, STEPS - AHEAD)
    found = {"unroll, all steps": bilevel.hypergradient(PROBLEM, a, w, (), repeated(train, STEPS), valid).grad}
    found |= {name: hypergradient(name, a, before, train, valid)[0] for name in methods(a)}
    return truth, {name: jnp.abs(grad["log_decay"] / truth - 1) for name, grad in found.items()}


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    dataset = data.load("digits", jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), SEEDS)
    train, valid, w = jax.vmap(draw, (0, None))(keys, dataset)
    seeds = lambda f: jax.jit(jax.vmap(f))
    say = lambda name, values, form="{:.4f} +- {:.4f}": print(f"{name}: {form.format(*journal.interval(values))}", flush=True)

    truth, wrong = seeds(errors)(w, train, valid)
    say("dF / d log decay at the start, by differences", truth)
    for name, values in wrong.items():
        say(f"    {name}, relative error", values, "{:.2e} +- {:.1e}")
    at = lambda decay, rate=START["log_rate"]: {"log_decay": decay, "log_rate": rate}
    on_grid = lambda *args: jax.lax.map(lambda d: trained(at(d), *args), jnp.asarray(GRID))
    table, residual = seeds(on_grid)(w, train, valid)
    best = np.argmin(table, 1)  # [S]
    print(f"grid, decays {np.exp(GRID).round(3).tolist()}")
    print(f"    mean loss over the seeds {np.mean(table, 0).round(3).tolist()}")
    print(f"    residual at most {np.max(residual):.1e}")
    say("grid's best, log10 decay", GRID[best] / np.log(10))
    say("grid's best, loss", np.min(table, 1))
    say("start, loss", table[:, 0])
    for name in methods(START):
        last = seeds(lambda *args, name=name: learn(name, *args))(w, train, valid)
        reached = seeds(lambda a, *args: trained(at(a["log_decay"]), *args))(last, w, train, valid)[0]
        say(f"{name}, log10 decay", last["log_decay"] / np.log(10))
        say(f"{name}, loss", reached)
        say(f"{name}, loss less the grid's best", reached - np.min(table, 1), "{:+.4f} +- {:.4f}")
        say(f"{name}, rate", np.exp(last["log_rate"]))

    short = lambda a, *args: trained(a, *args, steps=BUDGET)[0]
    pairs = [jnp.ravel(v) for v in jnp.meshgrid(*SHORT, indexing="ij")]
    table = seeds(lambda *args: jax.lax.map(lambda pair: short(at(*pair), *args), pairs))(w, train, valid)
    last = seeds(budgeted)(w, train, valid)
    print(f"{BUDGET} steps from zero weights, both learnt")
    say("start, loss", seeds(lambda *args: short(SLOW, *args))(w, train, valid))
    say("grid's best, loss", np.min(table, 1))
    say("grid's best, rate", np.exp(pairs[1])[np.argmin(table, 1)])
    say("grid's best, log10 decay", pairs[0][np.argmin(table, 1)] / np.log(10))
    say("unroll, loss", (reached := seeds(short)(last, w, train, valid)))
    say("unroll, loss less the grid's best", reached - np.min(table, 1), "{:+.4f} +- {:.4f}")
    say("unroll, rate", np.exp(last["log_rate"]))
    say("unroll, log10 decay", last["log_decay"] / np.log(10))


if __name__ == "__main__":
    main()
