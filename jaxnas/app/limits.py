"""What a network may cost, as a person writes it."""

import math
from typing import NamedTuple

UNITS = {"params": {"k": 1e3, "M": 1e6, "G": 1e9, "": 1.0}, "macs": {"k": 1e3, "M": 1e6, "G": 1e9, "": 1.0}}
UNITS["latency"] = {"us": 1e-3, "ms": 1.0}
FIELDS = {"params": "parameters", "macs": "multiply_adds", "latency": "milliseconds"}


class Limits(NamedTuple):
    """At most so much; None: any."""

    parameters: float | None = None
    multiply_adds: float | None = None  # of an example
    milliseconds: float | None = None  # of an example among many, on this machine


def read_limit(text: str | None) -> Limits:
    """The limits of "params=200k", "macs=5M", "latency=0.2ms", or several with commas between.

    Raises:
        ValueError: for anything else.
    """
    limits: dict[str, float] = {}
    for part in (text or "").split(",") if text else ():
        name, _, value = part.strip().partition("=")
        number = value.rstrip("kMGmus")
        factor = UNITS.get(name, {}).get(value.removeprefix(number), math.nan)
        try:
            limits[name] = float(number) * factor
        except ValueError:
            limits[name] = math.nan
        if not (limits[name] > 0 and math.isfinite(limits[name])):
            raise ValueError(f"--limit {text}: write params=200k, macs=5M, latency=0.2ms, or several with commas between")
    return Limits(**{FIELDS[name]: value for name, value in limits.items()})
