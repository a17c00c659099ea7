"""What clocks have measured in a run: times.json, apart from result.json, which is the same bytes for equal runs."""

import json
import pathlib
from typing import Any

from jaxnas.driver.files import read_json, write_whole

MEASURED = ("milliseconds", "waited_share")  # of a result
WITHIN = ("gradient-boosting", "seconds")


def apart(result: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(a result without what clocks have measured, and that)."""
    times = {name: result[name] for name in MEASURED if name in result}
    rest = {name: value for name, value in result.items() if name not in MEASURED}
    rival, name = WITHIN
    if rival in rest:
        times[rival] = {name: rest[rival][name]}
        rest[rival] = {k: v for k, v in rest[rival].items() if k != name}
    return rest, times


def write(directory: pathlib.Path, times: dict[str, Any]) -> None:
    """Writes times.json where there is anything to say."""
    if times:
        write_whole(directory / "times.json", json.dumps(times, indent=2) + "\n")


def with_times(directory: pathlib.Path, result: dict[str, Any]) -> dict[str, Any]:
    """A result as it was made, with its times where they can still be read."""
    try:
        times = read_json(directory / "times.json")
        rival, _ = WITHIN
        whole = {**result, **{name: times[name] for name in MEASURED}}
        return whole | ({rival: {**result[rival], **times[rival]}} if rival in times else {})
    except (OSError, ValueError, KeyError, TypeError):
        return result
