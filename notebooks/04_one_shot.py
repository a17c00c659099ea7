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
# # One-shot search
#
# One supernet is trained on random paths; then any black-box search asks its shared weights what an architecture is worth. Whether
# the answer can be trusted is a question of ranking, so that is looked at before anything is searched.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import jaxnas as nas
from jaxnas import ask_tell, data, evaluate, spaces, training
from jaxnas.analysis import ranking
from jaxnas.base import Batch
from jaxnas.evaluate.population import train_from_scratch

# %% [markdown]
# ## A space and its supernet
# Three mobile layers of three inverted bottlenecks each: 27 networks, few enough to know them all.

# %%
ops = ("k3_e2", "k5_e2", "k3_e4")
layers = tuple(spaces.MobileLayer(i, o, s, ops) for i, o, s in ((4, 4, 1), (4, 8, 2), (8, 8, 1)))
space = spaces.mobile(spaces.MobileSpec(layers, stem=4, head=16, stem_stride=1))
dataset = data.load("digits", jax.random.key(1))
net = nas.mobile_net(space, image=dataset.image, classes=10)
result = nas.run(jax.random.key(0), nas.spos(net, training.sgd(0.1)), steps=500, data=data.batches(dataset, 32, arch_steps=0))
supernet = result.state.variables
print(f"training loss of the last ten paths: {result.infos[0].loss[-10:].mean():.2f}")

# %% [markdown]
# ## What the shared weights say
# With the running statistics of its norms a supernet is a mixture of all paths; each path's own are computed on a few batches.

# %%
archs = jax.vmap(space.from_index)(jnp.arange(27))
feed = data.calibration(dataset, 32, 4)
judge = feed.draw(jax.random.key(0), feed.arrays, 0)._replace(fixed=supernet)
scores = {}
for statistics in ("running", "recalibrated"):
    step = jax.jit(evaluate.shared_weights(net, statistics).step)
    scores[statistics] = np.asarray(step(jax.random.key(0), (), archs, judge)[1]["accuracy"])
    print(f"{statistics:12} accuracy {scores[statistics].min():.2f} to {scores[statistics].max():.2f}")

# %% [markdown]
# ## Is it so?
# Every network is trained on its own, from scratch, and compared. `Ranking` has an interval, and it is wide: 27 networks of
# nearly the same accuracy.

# %%
alone = train_from_scratch(net, training.sgd(0.1))
feed = data.batches(dataset, 32, weight_steps=150, arch_steps=len(dataset.valid.y) // 32)
batch = feed.draw(jax.random.key(2), feed.arrays, 0)
truth = np.asarray(jax.jit(alone.step)(jax.random.key(3), (), archs, Batch(batch.train, batch.valid))[1]["accuracy"])
for name, values in scores.items():
    rank = ranking.ranking(jax.random.key(4), values, truth, k=5)
    print(f"{name:12} tau {rank.tau.value:.2f} ({rank.tau.low:.2f} to {rank.tau.high:.2f}), regret {rank.regret.value:.3f}")

# %%
nas.plot.scatter(scores, truth, "27 networks", "accuracy with shared weights", "accuracy when trained alone")

# %% [markdown]
# ## Searching under a limit
# The cost here is the multiply-adds that the net counts; on a device, take the latency. Evolution asks for nothing that it cannot
# afford, and for nothing twice.

# %%
cost = lambda arch: net.macs(space.gates(arch))
limit = float(jnp.median(jax.vmap(cost)(archs)))
algorithm = ask_tell.constrained_evolution(space, cost, limit, batch=4, parents=3, mutants=2, children=2, capacity=27)
search = nas.black_box(algorithm, nas.shared_weights(net))
found = nas.run(jax.random.key(5), search, steps=3, data=nas.Feed(judge, lambda key, arrays, t: arrays))
print(
    f"{space.to_text(found.best)}: {float(cost(found.best)):.0f} of {limit:.0f} multiply-adds, {float(found.state.best_score):.3f}"
)

# %% [markdown]
# Training and search as one plan, which can be cut and resumed anywhere:
#
#     train = nas.Phase(nas.spos(net), 500, data.batches(dataset, 32, arch_steps=0))
#     search = nas.Phase(search, 3, data.calibration(dataset, 32, 4), fix=lambda state: state.variables)
#     nas.run(key, nas.then(train, search), directory="run")
