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
# # Compare strategies
#
# NAS-Bench-201 holds 15,625 trained networks, so that a whole search costs milliseconds and can be repeated until the bands are
# narrow. A search sees the validation accuracy of what it asks for; what its answer is worth is looked up afterwards. The table
# comes with `pip install 'jaxnas[benchmarks]'`.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import jaxnas as nas
from jaxnas.evaluate.benchmark import find

table = find("nasbench201:cifar10")
space = table.space
print(len(table.test), "networks, the best has", np.nanmax(table.test), "% validation accuracy")

# %% [markdown]
# ## Fifty seeds of each, as one compiled program
# `jaxnas bench` does the same from the command line, for all algorithms, with CSV files and rank tests.

# %%
queries, curves, regrets = 100, {}, {}
for name, seeds in {"random": 50, "local": 50, "aging": 50, "tpe": 50, "gp": 16}.items():
    make, at_once = nas.app.bench.algorithm(name), 8 if name == "gp" else None
    history = nas.app.bench.search(jax.random.key(0), make, table, queries=queries, seeds=seeds, at_once=at_once)
    regrets[name] = nas.app.regret.regret_curve(table, history.index)
    curves[name] = (np.arange(1, queries + 1), regrets[name])
    print(f"{name:<8}{seeds} seeds in {history.seconds:.2f} s, compiled in {history.compiling:.1f} s")

# %% [markdown]
# The bands are 95 % intervals of the mean. Regret is what is missing to the best score of the table: the validation accuracy of
# trainings that the search has not seen.

# %%
nas.plot.regret(curves, title="NAS-Bench-201, CIFAR-10", xlabel="queries")

# %% [markdown]
# Which is better than random search, and how sure is that? "beats random" is the share of pairs of seeds, p of a rank test,
# corrected for the number of comparisons.

# %%
print(nas.app.regret.results_table(nas.app.regret.summarise("CIFAR-10", table, regrets)))

# %% [markdown]
# ## Your own composition is a row like any other
# A Gaussian process that asks for what Thompson sampling draws, among mutants of the best ten.

# %%
kernel = nas.surrogates.overlap(space)


def mine(space, budget):
    options = nas.ask_tell.mutants_of_best(space, 100, 10)
    model = nas.surrogates.gaussian_process(kernel)
    return nas.bayesian(space, model, nas.surrogates.thompson(), options, capacity=budget)


history = nas.app.bench.search(jax.random.key(0), mine, table, queries=queries, seeds=16, at_once=8)
regrets["mine"] = nas.app.regret.regret_curve(table, history.index)
print(nas.app.regret.results_table(nas.app.regret.summarise("CIFAR-10", table, regrets)))

# %% [markdown]
# ## The settings of an algorithm can be vmapped too
# Forty learning rates of REINFORCE, twenty seeds each: eight hundred searches. The best is picked and measured on the same
# seeds, so its figure flatters a little.


# %%
def accuracy(rate, key, fixed):
    import optax

    policy = nas.policies.categorical(space)
    algorithm = nas.policy_gradient(space, policy, nas.policies.reinforce(policy, optax.adam(rate)))
    search = nas.black_box(algorithm, nas.evaluate.table(space))
    k_init, k_steps = jax.random.split(key)
    step = lambda state, t: search.step(jax.random.fold_in(k_steps, t), state, nas.Batch(fixed=fixed))
    state, _ = jax.lax.scan(step, search.init(k_init), jnp.arange(queries))
    return space.index(search.best(state))


rates = jnp.logspace(-3, 0.5, 40)
keys = jax.random.split(jax.random.key(1), 20)
every = jax.jit(jax.vmap(jax.vmap(accuracy, (None, 0, None)), (0, None, None)))(rates, keys, table.fixed)
test = table.test[np.asarray(every)]  # [40 rates, 20 seeds]
best = int(test.mean(1).argmax())
print(f"best rate {rates[best]:.3f}: {test[best].mean():.2f} ± {test[best].std(ddof=1) / 20**0.5:.2f} % validation accuracy")
