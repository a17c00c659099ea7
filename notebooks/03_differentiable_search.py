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
# # Differentiable search
#
# A differentiable method is a policy, which turns architecture parameters into the gates that the weights see, and a gradient,
# which moves them. Here are the policies on one and the same row of parameters, then four whole methods, eight seeds each.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnas as nas
from jaxnas import data, policies, training, weight_sharing

# %% [markdown]
# ## What a relaxation does to alpha
# One edge, four operations, alpha = (2, 1, 0, -1). A space of one decision is enough to ask the policies.

# %%
edge = nas.spaces.space((4,), gates=lambda a: (jax.nn.one_hot(a[0], 4),), derive=lambda g: (jnp.argmax(g[0]),), gate_shapes=((4,),))
alpha = (jnp.asarray([2.0, 1.0, 0.0, -1.0]),)
relaxations = {
    "softmax (DARTS)": (policies.softmax(edge), alpha),
    "concrete, temperature 1 (SNAS)": (policies.concrete(edge, 1.0), alpha),
    "concrete, temperature 0.1": (policies.concrete(edge, 0.1), alpha),
    "straight-through (GDAS)": (policies.straight_through(edge, 1.0), alpha),
    "Dirichlet (DrNAS)": (policies.dirichlet(edge), alpha),
    "simplex (GAEA)": (policies.simplex(edge), (jax.nn.softmax(alpha[0]),)),
}
keys = jax.random.split(jax.random.key(0), 1000)
for name, (policy, theta) in relaxations.items():
    gates = jax.vmap(lambda key, policy=policy, theta=theta: policy.sample(key, theta, 0)[0][0])(keys)  # [1000, 4]
    entropy = jax.vmap(lambda g: nas.analysis.diagnostics.entropy((g[None],)))(gates)
    print(f"{name:32} mean {np.round(gates.mean(0), 2)}  sd {np.round(gates.std(0), 2)}  entropy {float(entropy.mean()):.2f}")

# %% [markdown]
# The softmax and the simplex draw nothing. A concrete sample's largest gate is a draw from the softmax at any temperature; a
# low one makes it nearly one-hot, and straight-through makes it so. The Dirichlet spreads its draws around its mean.
#
# ## Four methods, eight seeds each
# Each call is one compiled program over all eight seeds.

# %%
space = nas.spaces.darts(nodes=1, ops=("none", "skip_connect", "sep_conv_3x3"))
net = nas.cell_net(space, image=(8, 8, 1), classes=10, channels=4, cells=1)
feed = nas.data.batches(nas.data.load("digits", jax.random.key(1)), 32)
steps, adam = 60, training.adam(3e-3)
methods = {
    "DARTS": nas.darts(net, architecture=adam, order="first"),
    "SNAS": nas.snas(net, architecture=adam, temperature=optax.linear_schedule(1.0, 0.03, steps)),
    "DrNAS": nas.drnas(net, architecture=adam),
    "GAEA": nas.gaea(net),
}
losses, chosen = {}, {}
for name, search in methods.items():
    result = nas.run(jax.random.key(0), search, steps=steps, data=feed, seeds=8)
    losses[name] = result.infos[0].loss  # [seeds, steps]
    chosen[name] = [space.to_text(jax.tree.map(lambda a, i=i: a[i], result.best)) for i in range(8)]
    print(f"{name:6} final loss {losses[name][:, -5:].mean():.3f}, {len(set(chosen[name]))} different cells of 8 seeds")

# %%
nas.plot.curves({f"{name}/loss": loss for name, loss in losses.items()}, "Training loss, eight seeds")

# %% [markdown]
# ## Is the search going wrong?
# `watch` makes an epoch of steps into one step and measures after it: the dominant eigenvalue of the Hessian in alpha, the entropy
# of the gates, the skip connections that would be derived now, and what discretising would cost. `early_stopping` acts on it.

# %%
watched = weight_sharing.with_measurements(
    methods["DARTS"], weight_sharing.measurements(net, policies.softmax(space), iterations=5)
)
result = nas.run(jax.random.key(0), watched, steps=6, data=data.epochs(feed, 10))
for name, values in result.infos[0].watched.items():
    print(f"{name:10} {np.round(values, 3)}")
print(nas.analysis.diagnostics.collapsed(space, result.best))
