"""Every argument of every public factory refuses a bad value of each kind, with a ValueError that names the argument."""

import functools
import importlib
import inspect
import tempfile
import types
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnas as nas
from jaxnas import checks, kinds

PACKAGES = (
    *("spaces", "nets", "policies", "ask_tell", "weight_sharing", "training", "evaluate", "proxies", "hardware", "surrogates"),
    *("driver", "base", "studies"),
)
OUTSIDE = {"base": ("black_box", "stateless", "then"), "studies": ("study",)}

# Public functions that make nothing: they compute on arrays, mostly traced, and say what shapes they take in their docstrings.
COMPUTE = {
    *("nets.count_parameters", "nets.count_used", "nets.recalibrate", "nets.sort_channels"),
    *("policies.close", "policies.still_open"),
    *("weight_sharing.adapt", "weight_sharing.at_most_skips", "weight_sharing.prune_gates", "weight_sharing.strongest_operations"),
    *("weight_sharing.copy_channels", "weight_sharing.widen_variables"),
    *("training.accuracy", "training.cross_entropy", "training.mean_score", "training.metrics", "training.outputs"),
    *("training.soft_cross_entropy", "hardware.check_priced", "hardware.dual_ascent", "hardware.expected", "hardware.is_additive"),
    *("surrogates.predicted", "proxies.log_rank", "proxies.rank_average", "proxies.vote", "proxies.drawn"),
    *(f"proxies.{name}" for name in nas.proxies.PROXIES),
}

nan, inf = float("nan"), float("inf")
NO_NUMBER = ("three", None, (1,), object())
NO_INTEGER = (nan, inf, 2.5, 2.0, True, 10**30, *NO_NUMBER)
NO_FLOAT = (nan, inf, -inf, 1e300, True, *NO_NUMBER)
NO_OBJECT = (nan, -1, 0, 2.5, 10**30, "three", None, object())
NO_ARRAY = ("three", None, object(), [1, [2]])
BAD = {
    kinds.Positive: (-1, 0, *NO_INTEGER),
    kinds.NonNegative: (-1, *NO_INTEGER),
    kinds.PositiveNumber: (-1, 0, *NO_FLOAT),
    kinds.NonNegativeNumber: (-1, *NO_FLOAT),
    kinds.Probability: (-0.1, 1.1, *NO_FLOAT),
    kinds.ProbabilityBelowOne: (-0.1, 1, *NO_FLOAT),
    kinds.Share: (0, 1.1, *NO_FLOAT),
    kinds.Seed: (-1, *NO_INTEGER),
    checks.Rate: (-1, *NO_FLOAT),
    checks.Temperature: (-1, 0, *NO_FLOAT),
    checks.Image: (nan, -1, 8, "three", None, (0, 8, 1), (8, 8, 2.5), (8, nan, 1), (8, 8, "1"), (8, -8, 1)),
    bool: (nan, -1, 2.5, "three", None, 2, (1,)),
    int: NO_INTEGER,
    float: NO_FLOAT,
    str: (nan, -1, 0, 2.5, 10**30, None, ("a",), "no such choice"),
}
# What an annotation leaves open: texts of any kind, and pytrees, whose bad values are said here.
ANY_TEXT = {("weight_sharing.adaptive_regularisation", "name"), ("weight_sharing.early_stopping", "name")}
ARCH = nas.spaces.nasbench201().from_index(0)
TREE = (nan, -1, 2.5, "three", object(), {"a": 1})
OPEN = {
    ("spaces.space", "decisions"): (None, nan, -1, 0, 2.5, "three", object(), [2**31], 10**30, [2.0], True),
    ("spaces.space", "reals"): (nan, -1, 0, 2.5, "three", object()),
    ("spaces.space", "gate_shapes"): (nan, -1, 0, 2.5, "three", object()),
    ("spaces.space", "parent"): ([-1, -2], [0, 0], [-1, 0.0], [nan, -1], [-1], [-1, 0]),
    ("spaces.space", "when"): ([1], [[0, 0, 0], [0, 0, 0]], nan, -1),
    ("spaces.space", "mutate_weight"): ([1], [0, 0], [-1, 1], [nan, 1], [1, 1, 1], nan, -1),
    ("nets.evaluation_net", "arch"): (
        None,
        *TREE,
        np.zeros(6, np.int32),
        *(type(ARCH)(np.full(6, n)) for n in (9, -1, 0.5)),
        type(ARCH)(np.zeros(5, int)),
    ),
    ("policies.sandwich", "largest"): (None, *TREE, [0], [9, 9], [-1, 0]),
    ("policies.sandwich", "smallest"): (None, *TREE, [0], [9, 9], [-1, 0]),
    ("policies.restricted", "allowed"): (nan, -1, [1, 1], [[1, 1, 2], [1, 1, 1]], [[0, 0, 0], [1, 1, 1]]),
    ("policies.uniform", "allowed"): (nan, -1, [1, 1], [[1, 1, 2], [1, 1, 1]], [[0, 0, 0], [1, 1, 1]]),
    ("policies.controller", "kind"): (nan, -1, 0, [0.5, 1], [-1, 0]),
    ("policies.controller", "anchors"): (nan, -2, [5, 5], [0.5, 0]),
    ("policies.controller", "tanh"): (nan, -1, 0, [1.0, nan]),
    ("ask_tell.portfolio", "given"): (None, *TREE, [0, 0], [np.full(4, 99), np.zeros(4)]),
    ("ask_tell.warm_start", "archs"): (None, *TREE, [0, 0]),
    ("weight_sharing.op_warm_up", "full"): TREE,
    ("weight_sharing.spos", "allowed"): (nan, -1, [1, 1]),
    ("weight_sharing.two_paths", "zero"): (nan, -2, [0.5] * 6, [9] * 6, [0]),
    ("studies.study", "settings"): (nan, -1, "three", {"a": object()}, {"a": nan}),
    ("training.balanced", "y"): (None, nan, 2.5, "three", object(), [1, 2], [-1, 0], [0.5, 1.0]),
    ("training.balanced_weights", "y"): (None, nan, 2.5, "three", object(), [1, 2], [-1, 0], [0.5, 1.0]),
    ("evaluate.rows", "archs"): (nan, -1, [[0, 0], [1, 99]], [[0, 0], [-1, 0]], [[0.0, 0.0], [1.0, 1.0]]),
    ("hardware.cost", "table"): (None, *TREE, -np.ones((6, 5)), np.full((6, 5), nan), np.full((6, 5), "a")),
    ("surrogates.gaussian_process", "noise"): (nan, -1),
    ("surrogates.ridge", "penalty"): (nan, -1, 0),
    ("surrogates.matern52", "grid"): (nan, -1, 0, [nan]),
    ("surrogates.rbf", "grid"): (nan, -1, 0, [nan]),
    ("surrogates.overlap", "grid"): (nan, -1, 0, [nan]),
    ("surrogates.cross_validated", "archs"): (None, *TREE),
    ("surrogates.cross_validated", "scores"): (nan, -1, [nan, 1, 2, 3], [1, 2]),
    ("surrogates.fitted", "archs"): (None, *TREE),
    ("surrogates.fitted", "scores"): (nan, -1, [1, 2]),
}


def bad_items(hint):
    """Bad values of one item of a list, without the containers that a list of lists takes."""
    return [(value,) for value in bad_values(hint) if not isinstance(value, tuple | list)]


@functools.cache
def bad_values(hint):
    """Values that an annotation refuses; found by its form and not by `checks.wanted`, which is under test."""
    if hint in BAD:
        return BAD[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return (nan, -1, "three", None, object())
    if complex in args:  # an array
        return tuple(value for value in NO_ARRAY if value is not None or type(None) not in args)
    if type(None) in args:
        rest = [arg for arg in args if arg is not type(None)]
        return tuple(value for value in bad_values(typing.Union[tuple(rest)]) if value is not None)  # noqa: UP007
    if origin in (typing.Union, types.UnionType):
        named = [arg for arg in args if arg in BAD and arg is not str]
        return (nan, 2.5, object()) if str in args else BAD[named[0]] if named else NO_OBJECT
    if args and origin in (tuple, list, typing.get_origin(typing.Sequence[int]), typing.get_origin(typing.Iterable[int])):
        own = bad_items(args[0]) if args[0] is not str else [(nan,), (None,), (3,)]
        return (nan, -1, 0, 2.5, "three", None, object(), *own)
    if args and origin is not None and issubclass(origin, typing.get_origin(typing.Mapping[str, int])):
        return (nan, -1, 0, 2.5, "three", None, object(), {"a": None})
    if hint is typing.Any:
        return ()
    return NO_OBJECT


# What a valid call of each factory needs.  A new factory fails `test_every_factory_has_a_valid_call` until it is here.
SPACE = nas.spaces.space([20, 30])  # larger than any default population
TWO = nas.spaces.space([2, 3])
CELLS = nas.spaces.nasbench201()
BLOCKS = nas.spaces.pnas(blocks=2)
IMAGE = {"image": (8, 8, 1), "classes": 2}
NET = nas.cell_net(CELLS, **IMAGE, channels=4, cells=1)
DARTS_NET = nas.cell_net(nas.spaces.darts(2), **IMAGE, channels=4, cells=2)
MOBILE_NET = nas.mobile_net(nas.spaces.fbnet(), image=(32, 32, 3), classes=2)
OPTIMIZER = nas.training.sgd(0.1)
SOFTMAX, DRAWS = nas.policies.softmax(CELLS), nas.policies.categorical(CELLS)
COST = nas.hardware.cost(CELLS, np.ones(CELLS.gate_shapes))
PRICED = nas.hardware.priced(COST, nas.hardware.relative_excess(2.0))
RIDGE = nas.surrogates.ridge(SPACE.features)
ELASTIC, TUNAS = nas.spaces.ofa_small(), nas.spaces.proxylessnas_enlarged()
MACRO, TABULAR = nas.spaces.macro((8, 8, 1), stages=1, block=("plain",)), nas.spaces.tabular(3)
STACKED = [jnp.zeros(4, jnp.int32), jnp.zeros(4, jnp.int32)]  # of SPACE
NUMBERS = nas.data.Target("classes", ("a", "b"))
constant = lambda *args: 0.5
METHOD = {"net": NET}
S, R = {"space": SPACE}, {"R": 9}
STUDY = tempfile.mkdtemp()
VALID = {
    "spaces": {
        **{
            n: {}
            for n in (
                "amoebanet",
                "darts",
                "darts_rnn",
                "enas_macro",
                "enas_micro",
                "enas_rnn",
                "fairnas",
                "fbnet",
                "layerwise",
                "memory_bank",
            )
        },
        **{
            n: {}
            for n in (
                "nasbench201",
                "nasnet",
                "ofa_mobilenet_v3",
                "ofa_small",
                "pnas",
                "proxylessnas",
                "proxylessnas_enlarged",
                "spos",
            )
        },
        "darts_subspace": {"name": "S4"},
        "chain": {"mdp": nas.spaces.metaqnn(8, 2)},
        "elastic": {"spec": ELASTIC.spec},
        "every": {"space": TWO},
        "largest": {"space": ELASTIC},
        "limited": {"space": SPACE, "cost": constant, "limit": 1.0},
        "macro": {"image": (8, 8, 1)},
        "metaqnn": {"image": 8, "layers": 2},
        "mobile": {"spec": nas.spaces.proxylessnas().spec},
        "recurrent": {},
        "shuffle": {"spec": nas.spaces.spos().spec},
        "smallest": {"space": ELASTIC},
        "space": {"decisions": [2, 3]},
        "tabular": {"inputs": 3},
        "tunas": {"spec": TUNAS.spec},
        "widest": {"space": TUNAS},
    },
    "nets": {
        "backbone_cost": {"spec": MACRO.spec, "outputs": 2},
        "backbones": {"space": MACRO, **IMAGE},
        "cell_net": {"space": CELLS, **IMAGE},
        "chain_net": {"space": nas.spaces.chain(nas.spaces.metaqnn(8, 2)), **IMAGE},
        "elastic_net": {"space": ELASTIC, **IMAGE},
        "evaluation_net": {"space": CELLS, "arch": CELLS.from_index(0), "classes": 2},
        "language_model": {"space": nas.spaces.darts_rnn(2), "vocabulary": 9, "batch": 2},
        "layer_net": {"space": nas.spaces.layerwise(2), **IMAGE},
        "macro_net": {"space": nas.spaces.enas_macro(6), **IMAGE},
        "memory_bank_net": {"space": nas.spaces.memory_bank(), **IMAGE},
        "mobile_net": {"space": nas.spaces.fbnet(), "image": (32, 32, 3), "classes": 2},
        "with_precision": {"network": NET, "precision": "bfloat16"},
        "pretext_net": {"task": nas.data.rotation((8, 8, 1)), "build": lambda image, classes: NET},
        "shuffle_net": {"space": nas.spaces.spos(), "image": (32, 32, 3), "classes": 2},
        "tabular_cost": {"spec": TABULAR.spec, "outputs": 2},
        "tabular_nets": {"space": TABULAR, "image": (3,), "classes": 2},
        "tunas_net": {"space": TUNAS, "image": (32, 32, 3), "classes": 2},
    },
    "policies": {
        **{n: S for n in ("categorical", "concrete", "controller", "dirichlet", "softmax", "simplex")},
        **{n: S for n in ("straight_through",)},
        **{n: {"space": CELLS} for n in ("edge_normalised", "edge_simplex", "exponentiated_edges")},
        "block_controller": {"space": nas.spaces.enas_micro(1)},
        "input_pairs": {"space": nas.spaces.darts(2), "temperature": 1.0},
        "uniform": {"space": TWO},
        "exponentiated": {},
        "path_dropout": {"space": CELLS, "rate": 0.1},
        "ppo": {"policy": DRAWS, "optimizer": OPTIMIZER},
        "reinforce": {"policy": DRAWS, "optimizer": OPTIMIZER},
        "restricted": {"space": TWO, "allowed": [[1, 1, 0], [1, 1, 1]]},
        "sandwich": {"space": TWO, "largest": [1, 2], "smallest": [0, 0]},
        "strictly_fair": {"space": nas.spaces.space([2, 2])},
    },
    "studies": {"study": {"directory": STUDY, **S, "algorithm": nas.random_search(SPACE)}},
    "ask_tell": {
        **{n: S for n in ("aging_evolution", "tournament_evolution", "genetic", "neighbors_of_best", "random_search")},
        "asha": {**S, **R, "capacity": 20},
        "bayesian": {
            **S,
            "surrogate": RIDGE,
            "acquisition": nas.surrogates.thompson(),
            "candidates": nas.ask_tell.random_draws(SPACE, 9),
            "capacity": 20,
        },
        "bohb": {**S, **R, "capacity": 20},
        "brackets": {**S, "plan": [[(3, 1), (1, 3)]]},
        "cheapest": {"space": CELLS, "cost": constant},
        "constrained_evolution": {**S, "cost": constant, "limit": 1.0},
        "growing_blocks": {"space": BLOCKS},
        "growing_edges": {"space": CELLS},
        "hyperband": {**S, **R},
        "hyperband_plan": R,
        "local_search": {**S, "capacity": 20},
        "log_error": {},
        "mdp_of": S,
        "mutants_of_best": {**S, "n": 9},
        "nsga2": {**S, "objectives": 2},
        "policy_gradient": {
            **S,
            "policy": nas.policies.categorical(SPACE),
            "update": nas.policies.reinforce(nas.policies.categorical(SPACE), OPTIMIZER),
        },
        "pool": {},
        "portfolio": {**S, "given": STACKED, "capacity": 20},
        "progressive": {"growth": nas.ask_tell.growing_blocks(BLOCKS), "surrogate": nas.surrogates.ridge(BLOCKS.features)},
        "q_learning": {"mdp": nas.ask_tell.mdp_of(SPACE)},
        "random_draws": {**S, "n": 9},
        "successive_halving": {**S, "n": 9, "r": 1, **R},
        "tpe": {**S, "capacity": 20},
        "warm_start": {"algorithm": nas.random_search(SPACE), "archs": STACKED},
    },
    "weight_sharing": {
        **{n: METHOD for n in ("darts", "drnas", "enas", "fairnas", "gaea", "in_place_distillation", "one_shot", "pc_darts")},
        **{n: METHOD for n in ("project_operations", "rsws", "spos")},
        **{n: {"net": MOBILE_NET} for n in ("proxylessnas", "proxylessnas_reinforce")},
        "fbnet": {"net": MOBILE_NET, "temperature": 1.0},
        "project_edges": {"net": DARTS_NET},
        **{n: {**METHOD, "temperature": 1.0} for n in ("gdas", "snas")},
        "adaptive_regularisation": {"search": nas.darts(NET)},
        "adversarial": {"eps": constant},
        "beta_darts": {**METHOD, "decay": constant},
        "distillation": {},
        "early_stopping": {"search": nas.darts(NET)},
        "few_shot": {**METHOD, "decisions": [0]},
        "final_choice": {"space": CELLS, "scores": constant},
        "measurements": {**METHOD, "policy": SOFTMAX},
        "metanas": {"search": nas.darts(NET), "optimizer": OPTIMIZER},
        "op_warm_up": {**METHOD, "share": constant},
        "pathwise": {"policy": SOFTMAX, "optimizer": OPTIMIZER},
        "pick_child": {"space": CELLS, "decisions": [0]},
        "progressive_shrinking": {
            "net": nas.nets.elastic_net(ELASTIC, **IMAGE),
            "steps": dict.fromkeys(("full", "kernel", "depth 1", "depth 2", "expand 1", "expand 2"), 1),
            "data": nas.base.nothing,
        },
        "random_noise": {"eps": constant},
        "reinforce_gradient": {"policy": DRAWS, "update": nas.policies.reinforce(DRAWS, OPTIMIZER)},
        "single_level": {"optimizer": OPTIMIZER},
        "skip_rate": {"space": nas.spaces.enas_macro(6)},
        "smooth_darts": {**METHOD, "perturb": constant},
        "soft_pruning": {"space": CELLS, "temperature": 1.0},
        "split_space": {"space": CELLS, "decisions": [0]},
        "te_nas": {"net": NET, "thin": NET},
        "tunas": {**METHOD, "cost": PRICED},
        "two_paths": {"space": CELLS, "optimizer": OPTIMIZER, "gates_of": constant},
        "two_stage": {"space": CELLS, "quick": constant, "full": constant},
        "warm_restarts": {"first": 10},
        "weight_sharing": {
            "net": NET,
            "policy": SOFTMAX,
            "gradient": nas.weight_sharing.pathwise(SOFTMAX, OPTIMIZER),
            "weights": nas.weight_sharing.Weights(OPTIMIZER),
        },
        "widened": {"search": nas.darts(NET), "net": NET},
        "with_measurements": {"search": nas.darts(NET), "measure": constant},
    },
    "training": {
        "adam": {},
        "adjustable_decay": {},
        "balanced": {"target": NUMBERS, "y": [0, 1]},
        "balanced_weights": {"y": [0, 1], "classes": 2},
        "criterion": {"target": NUMBERS},
        "delayed": {"optimizer": OPTIMIZER, "steps": 3},
        "sgd": {"learning_rate": 0.1},
        "train": {"module": nn.Dense(2), "optimizer": OPTIMIZER, "image": (8, 8, 1), "steps": 3},
    },
    "evaluate": {
        "by_budget": {**S, "budgets": [1, 3]},
        "rows": {**S, "archs": [[0, 0], [1, 2]], "values": {"accuracy": [0.1, 0.2]}},
        "shared_weights": METHOD,
        "surrogate": {"model": RIDGE},
        "table": S,
        "train_from_scratch": {**METHOD, "optimizer": OPTIMIZER},
        "train_trials": {**METHOD, "optimizer": lambda share: OPTIMIZER, "draw": constant, "slots": 2, "budget": 9},
        "zero_cost": METHOD,
    },
    "proxies": {},
    "hardware": {
        "absolute_reward": {"target": 2.0},
        "additive": {"weight": 0.1},
        "cost": {"space": CELLS, "table": np.ones(CELLS.gate_shapes)},
        "fbnet_product": {},
        "lagrangian": {"target": 2.0},
        "power_reward": {"reference": 2.0},
        "priced": {"cost": COST, "form": constant},
        "proxyless_product": {"reference": 2.0},
        "relative_excess": {"reference": 2.0},
    },
    "surrogates": {
        **{n: {} for n in ("expected_improvement", "independent_thompson", "thompson", "upper_confidence_bound", "product")},
        "block_tokens": {"space": BLOCKS},
        "boosted_trees": {"encode": SPACE.features},
        "cell_graph": {"space": CELLS},
        "cross_validated": {"key": jax.random.key(0), "surrogate": RIDGE, "archs": STACKED, "scores": [1.0, 2, 3, 4], "folds": 2},
        "ensemble": {"module": nn.Dense(2), "encode": SPACE.features},
        "fitted": {"key": jax.random.key(0), "surrogate": RIDGE, "archs": STACKED, "scores": [1.0, 2, 3, 4]},
        "forest": {"encode": SPACE.features},
        "gaussian_process": {"kernel": nas.surrogates.overlap(SPACE)},
        "lengths": {"low": 0.1, "high": 1.0},
        "matern52": {"encode": SPACE.features, "grid": [1.0]},
        "overlap": S,
        "path_encoding": {"space": CELLS},
        "rbf": {"encode": SPACE.features, "grid": [1.0]},
        "ridge": {"encode": SPACE.features},
        "weisfeiler_lehman": {"graph": nas.surrogates.cell_graph(CELLS)},
    },
    "driver": {
        "compilation_cache": {},
        "compiler_options": {},
        "run": {"key": jax.random.key(0), "plan": nas.black_box(nas.random_search(SPACE), nas.evaluate.table(SPACE)), "steps": 1},
    },
    "base": {
        "black_box": {"algorithm": nas.random_search(SPACE), "evaluator": nas.evaluate.table(SPACE)},
        "stateless": {"evaluate": constant},
        "then": {},
    },
}
LISTED = {
    "ask_tell.pool": (nas.ask_tell.random_draws(SPACE, 2),),
    "surrogates.product": (nas.surrogates.overlap(SPACE),),
    "base.then": (nas.Phase(nas.darts(NET), 1),),
    "evaluate.zero_cost": ("params",),
}
NOT_RUN = {
    "ask_tell.cheapest",
    "evaluate.zero_cost",
    "ask_tell.constrained_evolution",
    "surrogates.cross_validated",
    "surrogates.fitted",
    "driver.compilation_cache",
    "driver.run",
}  # they compute; their arguments are walked all the same


def factories():
    for package in PACKAGES:
        module = importlib.import_module(f"jaxnas.{package}")
        for name in OUTSIDE.get(package, getattr(module, "__all__", ())):
            value = getattr(module, name)
            if inspect.isfunction(value) and f"{package}.{name}" not in COMPUTE:
                yield f"{package}.{name}"


NAMES = sorted(factories())


def found(name):
    package, _, short = name.partition(".")
    return getattr(importlib.import_module(f"jaxnas.{package}"), short), VALID[package][short]


def test_every_factory_has_a_valid_call():
    known = {f"{package}.{name}" for package, calls in VALID.items() for name in calls}
    assert known == {*NAMES}
    assert len(NAMES) > 140


@pytest.mark.parametrize("name", NAMES)
def test_a_factory_refuses_bad_arguments(name):
    """A ValueError of one line for each; a missing or an unknown argument is Python's TypeError."""
    factory, valid = found(name)
    listed = LISTED.get(name, ())
    if name not in NOT_RUN:
        factory(*valid.values(), *listed) if listed else factory(**valid)
    hints = typing.get_type_hints(factory, include_extras=True)
    wrong = []
    for parameter in inspect.signature(factory).parameters.values():
        argument, hint = parameter.name, hints.get(parameter.name)
        assert hint is not None, f"{argument} has no annotation"
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        for bad in (*bad_values(hint), *OPEN.get((name, argument), ())):
            if isinstance(bad, str) and bad == "no such choice" and (name, argument) in ANY_TEXT:
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                first = [*valid.values()]
                call = lambda bad=bad, first=first: factory(*first, *listed, bad)
            else:
                given = {**valid, argument: bad}
                first = [given.pop(next(iter(valid)))] if valid and listed else []
                call = lambda first=first, given=given: factory(*first, *listed, **given)
            try:
                call()
                wrong.append((argument, bad, "accepted"))
            except ValueError as error:
                if "\n" in str(error):
                    wrong.append((argument, bad, str(error)))
            except Exception as error:
                wrong.append((argument, bad, repr(error)[:200]))
    assert not wrong, "\n".join(map(str, wrong))


# Mistakes that no annotation tells.


def digits(**more):
    x = jax.random.normal(jax.random.key(0), (40, 8, 8, 1))
    y = jnp.arange(40, dtype=jnp.int32) % 2 + more.get("first", 0)
    part = nas.data.dataset.Split(x, y)
    return nas.data.Dataset(train=part, valid=part, test=part, target=NUMBERS)


def scored(evaluate, algorithm=None):
    algorithm = algorithm or nas.random_search(SPACE, batch=2)
    return nas.run(jax.random.key(0), nas.black_box(algorithm, nas.stateless(evaluate)), steps=1)


MISTAKES = {
    "a text for an accuracy": (lambda: nas.evaluate.rows(TWO, [[0, 0]], {"accuracy": ["good"]}), "numbers"),
    "a search without data": (lambda: nas.darts(NET).step(jax.random.key(0), None, nas.Batch()), "batch.train"),
    "a data set in place of a feed": (lambda: nas.run(jax.random.key(0), nas.darts(NET), steps=1, data=digits()), "feed"),
    "images of another size": (
        lambda: nas.darts(NET).step(jax.random.key(0), None, nas.Batch((jnp.zeros((1, 2, 9, 9, 1)), jnp.zeros((1, 2), int)))),
        r"\(8, 8, 1\).*\(9, 9, 1\)",
    ),
    "an image without channels": (lambda: nas.cell_net(CELLS, image=(8, 8), classes=2), "images"),
    "one score for all": (lambda: scored(lambda key, archs, batch: {"accuracy": jnp.float32(1)}), "each of the 2 candidates"),
    "a score too many": (lambda: scored(lambda key, archs, batch: {"accuracy": jnp.ones(3)}), "each of the 2 candidates"),
    "no score": (lambda: scored(lambda key, archs, batch: None), "got|gave None"),
    "scores without a name": (lambda: scored(lambda key, archs, batch: jnp.ones(2)), "gave"),
    "a net in place of a strategy": (lambda: nas.run(jax.random.key(0), NET, steps=1), "strategy"),
    "an algorithm without an evaluator": (lambda: nas.run(jax.random.key(0), nas.random_search(SPACE), steps=1), "strategy"),
    "trials for an evaluator of architectures": (
        lambda: nas.run(
            jax.random.key(0),
            nas.black_box(nas.hyperband(SPACE, 9), nas.evaluate.table(SPACE)),
            steps=1,
            data=nas.data.fixed({"accuracy": jnp.ones(600)}),
        ),
        "asks for trials",
    ),
    "architectures for an evaluator of trials": (
        lambda: nas.run(jax.random.key(0), nas.black_box(nas.random_search(SPACE), nas.evaluate.by_budget(SPACE, [1, 3])), steps=1),
        "takes trials",
    ),
    "an index past the end": (lambda: TWO.from_index(6), "0 to 5"),
    "a phase of no steps": (lambda: nas.then(nas.Phase(nas.darts(NET), 0)), "`steps`"),
    "a layer without channels": (lambda: nas.spaces.tunas(TUNAS.spec._replace(stem=(0,))), "`stem`"),
    "a list of the macro space": (lambda: nas.spaces.macro((8, 8, 1), width=(8, nan)), "`width`"),
    "labels that begin with 1, in a data set": (lambda: nas.data.batches(digits(first=1), 4), "count from 0"),
    "labels that begin with 1, in a loss": (
        lambda: nas.training.cross_entropy(jnp.zeros((2, 2)), jnp.array([1, 2])),
        "count from 0",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line(name):
    call, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value).partition("\n---")[0]  # what JAX adds


class Lazy(nn.Module):
    """Halves whatever it is given, and makes three channels of it."""

    @nn.compact
    def __call__(self, x, train):
        return x[:3, ::2, ::2]


@pytest.mark.parametrize("space", [CELLS, BLOCKS], ids=["nasbench201", "pnas"])
def test_an_operation_that_ignores_what_it_is_told_is_named(space):
    name = space.spec.ops[-1]
    net = nas.cell_net(space, **IMAGE, channels=4, cells=1, ops={name: lambda features, stride, affine: Lazy()})
    with pytest.raises(ValueError, match=f"operation '{name}' gives maps"):
        jax.eval_shape(net.init, jax.random.key(0))


def test_a_checked_factory_takes_what_it_took():
    """NumPy's integers, lists in place of tuples, traced numbers and arrays of rank 0."""
    nas.spaces.darts(np.int64(2), ["none", "skip_connect"])
    nas.policies.concrete(CELLS, jnp.float32(0.5))
    of = lambda rate: nas.training.sgd(rate).update(jnp.ones(2), nas.training.sgd(rate).init(jnp.ones(2)), jnp.ones(2))[0]
    assert jax.vmap(of)(jnp.array([0.1, 0.2])).shape == (2, 2)
    with pytest.raises(TypeError, match="unexpected keyword"):
        nas.spaces.darts(layers=3)
    with pytest.raises(TypeError, match="missing"):
        nas.spaces.tabular()
