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
    "black_box": "base",
    "bohb": "ask_tell",
    "cell_net": "nets",
    "constrained_evolution": "ask_tell",
    "darts": "weight_sharing",
    "drnas": "weight_sharing",
    "enas": "weight_sharing",
    "Evaluator": "base",
    "Feed": "base",
    "fbnet": "weight_sharing",
    "gaea": "weight_sharing",
    "gdas": "weight_sharing",
    "genetic": "ask_tell",
    "hyperband": "ask_tell",
    "load": "app.network",
    "local_search": "ask_tell",
    "metric": "objectives",
    "mobile_net": "nets",
    "nsga2": "ask_tell",
    "pc_darts": "weight_sharing",
    "Phase": "base",
    "policy_gradient": "ask_tell",
    "proxylessnas": "weight_sharing",
    "q_learning": "ask_tell",
    "random_search": "ask_tell",
    "Result": "driver",
    "run": "driver",
    "shared_weights": "evaluate",
    "snas": "weight_sharing",
    "spos": "weight_sharing",
    "stateless": "base",
    "Strategy": "base",
    "study": "studies",
    "Stream": "base",
    "successive_halving": "ask_tell",
    "then": "base",
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
    "studies",
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
