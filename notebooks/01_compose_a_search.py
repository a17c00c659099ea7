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
# # Compose a search
#
# An architecture is a pytree, a search is a pair of pure functions. This notebook builds both families on handwritten
# digits: a black-box search (algorithm x evaluator) and a weight-sharing one (net x policy x gradient).

# %%
import jax
import jax.numpy as jnp
import numpy as np

import jaxnas as nas

key = jax.random.key(0)

# %% [markdown]
# ## A space
# Everything follows from its decisions: NAS-Bench-201 has six of them, with five values each.

# %%
space = nas.spaces.nasbench201()
arch = space.sample(jax.random.key(1))
print(space.size, arch)
print(space.to_text(arch))
print(space.to_text(space.mutate(jax.random.key(2), arch)))

# %% [markdown]
# ## A black-box search
# The evaluator is any pure function of the candidates. Here the candidate with the most 3x3 convolutions wins.
# A hundred whole searches are one vmapped program.


# %%
def evaluate(key, archs, batch):
    return {"accuracy": jnp.mean((archs.op == 3).astype(jnp.float32), -1)}


search = nas.black_box(nas.aging_evolution(space, population=10, tournament=3), nas.stateless(evaluate))
result = nas.run(key, search, steps=100, seeds=100)
best_so_far = np.asarray(result.infos[0].best_score)  # [100 seeds, 100 steps]
print("solved:", float(np.mean(best_so_far[:, -1] == 1.0)))
nas.plot.curves({"best score": best_so_far})

# %% [markdown]
# ## A weight-sharing search
# DARTS is a softmax policy and the exact gradient through one step of the weight optimizer. `nas.darts(net)` is this
# composition; written out:

# %%
dataset = nas.data.load("digits", jax.random.key(3))
data = nas.data.batches(dataset, 32)
net = nas.cell_net(space, image=dataset.image, classes=dataset.classes, channels=2, cells=1)

policy = nas.policies.softmax(space)
adam = nas.training.adam(3e-3)
darts = nas.weight_sharing.weight_sharing(
    net,
    policy,
    gradient=nas.weight_sharing.pathwise(policy, adam, nas.training.bilevel.unrolled()),
    weights=nas.weight_sharing.Weights(nas.training.sgd(0.1)),
)
result = nas.run(key, darts, steps=20, data=data)
print(space.to_text(result.best), "loss", float(result.infos[0].loss[0]), "->", float(result.infos[0].loss[-1]))

# %%
nas.plot.gates({"": result.infos[0].gates}, space.spec)

# %%
nas.plot.architecture(space, result.best)

# %% [markdown]
# ## What you keep
# The same net, specialised to the architecture: a plain Flax module and the weights it inherits.

# %%
module, extract = net.specialize(result.best)
logits = module.apply(extract(result.state.variables), dataset.test.x[:4])
print(logits.shape)
