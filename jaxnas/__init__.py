"""jaxnas: neural architecture search in pure functional JAX.

An architecture is a pytree.  A search is a pair of pure functions.  Everything else plugs into those two.
"""

import importlib

__version__ = "0.1.0"

# Names are imported when they are first used: `jaxnas --help` does not wait for JAX.
_HOME = {
    "aging_evolution": "ask_tell",
    "asha": "ask_tell",
    "AskTell": "base",
    "Batch": "base",
    "bayesian": "ask_tell",
    "beta_darts": "weight_sharing",
    "black_box": "base",
    "bohb": "ask_tell",
    "cell_net": "nets",
    "constrained_evolution": "ask_tell",
    "darts": "weight_sharing",
    "drnas": "weight_sharing",
    "enas": "weight_sharing",
    "evaluation_net": "nets",
    "Evaluator": "base",
    "fairnas": "weight_sharing",
    "Feed": "base",
    "fbnet": "weight_sharing",
    "few_shot": "weight_sharing",
    "gaea": "weight_sharing",
    "gdas": "weight_sharing",
    "genetic": "ask_tell",
    "hyperband": "ask_tell",
    "hypergradient": "training.bilevel",
    "language_model": "nets",
    "local_search": "ask_tell",
    "metanas": "weight_sharing",
    "metric": "objectives",
    "mobile_net": "nets",
    "nsga2": "ask_tell",
    "one_shot": "weight_sharing",
    "pc_darts": "weight_sharing",
    "Phase": "base",
    "policy_gradient": "ask_tell",
    "progressive": "ask_tell",
    "proxylessnas": "weight_sharing",
    "q_learning": "ask_tell",
    "random_search": "ask_tell",
    "Result": "driver",
    "rsws": "weight_sharing",
    "run": "driver",
    "shared_weights": "evaluate",
    "smooth_darts": "weight_sharing",
    "snas": "weight_sharing",
    "spos": "weight_sharing",
    "stateless": "base",
    "Strategy": "base",
    "successive_halving": "ask_tell",
    "te_nas": "weight_sharing",
    "then": "base",
    "tournament_evolution": "ask_tell",
    "tpe": "ask_tell",
    "train": "training",
    "tunas": "weight_sharing",
    "warm_start": "ask_tell",
    "zero_cost": "evaluate",
}
_PACKAGES = (
    "analysis",
    "app",
    "ask_tell",
    "data",
    "driver",
    "evaluate",
    "hardware",
    "nets",
    "objectives",
    "plot",
    "policies",
    "proxies",
    "sharding",
    "spaces",
    "surrogates",
    "training",
    "trees",
    "weight_sharing",
)
_ELSEWHERE = {"methods": "app.methods"}  # a package that is used as `nas.methods`

__all__ = sorted([*_HOME, *_PACKAGES, *_ELSEWHERE])


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(f"jaxnas.{_HOME[name]}"), name)
    elif name in _PACKAGES or name in _ELSEWHERE:
        value = importlib.import_module(f"jaxnas.{_ELSEWHERE.get(name, name)}")
    else:
        raise AttributeError(f"module 'jaxnas' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return __all__
