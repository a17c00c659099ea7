"""Every argument of every public factory refuses a bad value of each kind, with a ValueError that names the argument."""

import functools
import typing

import jaxnas as nas
from jaxnas import checks

PACKAGES = (
    *("spaces", "nets", "policies", "ask_tell", "weight_sharing", "training", "evaluate", "proxies", "hardware", "surrogates"),
    *("driver", "base", "objectives"),
)
OUTSIDE = {
    "base": ("black_box", "stateless", "then"),
    "objectives": ("metric", "weighted", "penalised", "mnasnet", "absolute", "columns", "below"),
}

# Public functions that make nothing: they compute on arrays, mostly traced, and say what shapes they take in their docstrings.
COMPUTE = {
    *("nets.count_parameters", "nets.recalibrate", "nets.sort_channels"),
    *("policies.close", "policies.still_open"),
    *("weight_sharing.adapt", "weight_sharing.at_most_skips", "weight_sharing.prune_gates", "weight_sharing.strongest_operations"),
    "weight_sharing.widen_variables",
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
    checks.Positive: (-1, 0, *NO_INTEGER),
    checks.NonNegative: (-1, *NO_INTEGER),
    checks.PositiveNumber: (-1, 0, *NO_FLOAT),
    checks.NonNegativeNumber: (-1, *NO_FLOAT),
    checks.Probability: (-0.1, 1.1, *NO_FLOAT),
    checks.ProbabilityBelowOne: (-0.1, 1, *NO_FLOAT),
    checks.Share: (0, 1.1, *NO_FLOAT),
    checks.Rate: (-1, *NO_FLOAT),
    checks.Temperature: (-1, 0, *NO_FLOAT),
    checks.Image: (nan, -1, 8, "three", None, (0, 8, 1), (8, 8, 2.5), (8, nan, 1), (8, 8, "1"), (8, -8, 1)),
    bool: (nan, -1, 2.5, "three", None, 2, (1,)),
    int: NO_INTEGER,
    float: NO_FLOAT,
    str: (nan, -1, 0, 2.5, 10**30, None, ("a",), "no such choice"),
}
# What an annotation leaves open: texts of any kind, and pytrees, whose bad values are said here.
ANY_TEXT = {
    ("weight_sharing.early_stopping", "name"),
    *((f"objectives.{n}", a) for n in ("metric", "mnasnet", "absolute", "below") for a in ("name", "quality", "cost")),
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
    if complex in args:  # an array
        return tuple(value for value in NO_ARRAY if value is not None or type(None) not in args)
    if type(None) in args:
        rest = [arg for arg in args if arg is not type(None)]
        return tuple(value for value in bad_values(typing.Union[tuple(rest)]) if value is not None)  # noqa: UP007
    if args and origin in (tuple, list, typing.get_origin(typing.Sequence[int]), typing.get_origin(typing.Iterable[int])):
        own = bad_items(args[0]) if args[0] is not str else [(nan,), (None,), (3,)]
        return (nan, -1, 0, 2.5, "three", None, object(), *own)
    if args and origin is not None and issubclass(origin, typing.get_origin(typing.Mapping[str, int])):
        return (nan, -1, 0, 2.5, "three", None, object(), {"a": None})
    if hint is typing.Any:
        return ()
    if typing.get_origin(hint) is typing.Union or str(origin) == "<class 'types.UnionType'>":
        return (nan, object()) if str in args else NO_OBJECT
    return NO_OBJECT
