"""What a network may cost, as a person writes it."""

import math


def read_limit(text: str | None) -> tuple[float | None, float | None]:
    """(parameters, multiply-adds) of "params=200k", "macs=5M", or both with a comma between.

    Raises:
        ValueError: for anything else.
    """
    limits: dict[str, float] = {}
    for part in (text or "").split(",") if text else ():
        name, _, value = part.strip().partition("=")
        factor = {"k": 1e3, "M": 1e6, "G": 1e9}.get(value[-1:], 1.0)
        try:
            limits[name] = float(value.rstrip("kMG")) * factor
        except ValueError:
            limits[name] = math.nan
        if name not in ("params", "macs") or not limits[name] > 0:
            raise ValueError(f"--limit {text}: write params=200k, macs=5M, or both with a comma between")
    return limits.get("params"), limits.get("macs")
