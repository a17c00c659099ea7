# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which estimator for which budget?
#
# A search asks what an architecture is worth. The answer can cost milliseconds (a proxy at initialisation), a part of a training,
# or all of it; and each ranks as well as it ranks on *your* data. So: train a small sample to the end, once, and judge the cheap
# answers by it.

# %%
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnas as nas
from jaxnas import data, plot, proxies, training
from jaxnas.analysis import learning_curves
from jaxnas.app import rank
from jaxnas.evaluate.population import population
from jaxnas.training.scratch import accuracy

space = nas.spaces.nasbench201()
dataset = data.load("digits", jax.random.key(1))
net = nas.cell_net(space, image=dataset.image, classes=10, channels=4, cells=1)
keys = jax.random.split(jax.random.key(2), 30)
archs = jax.vmap(space.sample)(keys)

# %% [markdown]
# ## The reference, and every estimate that a training leaves on its way
# A population is trained side by side, with its losses at every step and its validation accuracy after every epoch: what an early
# stop would have said costs nothing more.

# %%
EPOCHS, STEPS = 6, 22
feed = data.batches(dataset, 32, weight_steps=EPOCHS * STEPS, arch_steps=0)
batches = jax.jit(feed.draw)(jax.random.key(3), feed.arrays, 0).train
optimizer = training.sgd(optax.cosine_decay_schedule(0.05, EPOCHS * STEPS))
score = lambda logits_of, held: {name: accuracy(logits_of, part) for name, part in held.items()}
train = jax.jit(population(net, optimizer, score, every=STEPS))
held = {"valid": dataset.valid, "test": dataset.test}
began = time.perf_counter()
trained = jax.tree.map(np.asarray, train(keys, archs, batches, held))
seconds = (time.perf_counter() - began) / len(keys)
truth = 100 * trained["test"]
print(
    f"test accuracy {truth.mean():.1f} %, from {truth.min():.1f} to {truth.max():.1f}; {seconds:.2f} s each, compilation included"
)

# %% [markdown]
# ## The estimates and their price
# Proxies see the network before its first step; the number of weights is the baseline that they have to beat.

# %%
scores, price = {}, {}
for name in ("params", "synflow", "nwot"):
    evaluator = nas.evaluate.zero_cost(net, name)
    variables = jax.jit(evaluator.init)(jax.random.key(4))
    run = jax.jit(lambda v, archs, batch, e=evaluator: e.step(jax.random.key(0), v, archs, batch)[1])
    began = time.perf_counter()
    scores[name] = np.asarray(run(variables, archs, nas.Batch(train=jax.tree.map(lambda a: a[:2], batches)))[name])
    price[name] = (time.perf_counter() - began) / len(keys)
losses = learning_curves.by_epoch(trained["losses"], STEPS)  # [P, T, B]
for epochs in (1, 3):
    scores[f"validation, {epochs} epochs"] = 100 * trained["curves"]["valid"][:, epochs - 1]
    scores[f"training loss, {epochs} epochs"] = -np.asarray(learning_curves.sotl_e(losses[:, :epochs]))
    price |= {name: seconds * epochs / EPOCHS for name in scores if name.endswith(f"{epochs} epochs")}
judged = rank.rank_quality(jax.random.key(5), scores, truth, k=5)
print(rank.quality_table(judged, k=5))

# %% [markdown]
# ## The choice
# The best lower end of an interval among those that the budget can pay for. With 30 architectures the intervals are wide: they, and
# not the values, say whether one estimator is better than another.


# %%
def choose(budget, candidates):
    """The estimator to ask about `candidates` architectures in `budget` seconds."""
    able = [name for name in scores if price[name] * candidates <= budget]
    return max(able, key=lambda name: judged[name].spearman.low, default=None)


for name in scores:
    low, high = judged[name].spearman.low, judged[name].spearman.high
    print(f"{name:<28}{price[name]:8.3f} s   Spearman {low:.2f} to {high:.2f}")
print("for 100 architectures in a day:", choose(86_400, 100))
figure = plot.scatter(
    {name: proxies.aggregate.rank_scores(jnp.asarray(s)[:, None])[:, 0] for name, s in list(scores.items())[1:4]}, truth
)
figure
