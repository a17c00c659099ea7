"""What minutes buy: how fast this machine trains, and so how long a training, how large a network and how many trials.

    P      multiply-adds a second of training, measured on a small network
    T_R    = (an arm, less what its first programs keep it waiting for) / TRAININGS, the time of one whole training; in a short run
             not below half of what compiling takes, or an eighth of the arm: who waits for a program trains what it is worth
    limit  the multiply-adds of a network that trains for its epochs in T_R;  not below the cheapest hand-made network, for which
           the epochs are fewer, nor above the dearest of the space, for which T_R is less and the trials are more
    families of hand-made networks: as many, in their order, as half of an arm compiles, and two at least
    where milliseconds are limited, of each family the widest network that is measured to keep them, and half as many
    multiply-adds again as the dearest of these: what is slower, is refused when it has been compiled

An example's backward pass costs as much as two forward ones.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.app.limits import Limits, read_limit
from jaxnas.app.main_job.trainer import Trainer
from jaxnas.driver.checkpoint import other
from jaxnas.driver.files import read_json, read_rows, write_whole
from jaxnas.driver.fingerprint import Fingerprint, difference
from jaxnas.driver.program import compiler_options
from jaxnas.nets.blueprints import Blueprints, Cost

ARM = 0.33  # of the whole time, for the search, and again for random networks
ARM_OF_THREE = 0.25  # where gradient boosting has as much, too
TRAININGS = 6.0  # whole trainings that an arm has time for
PROGRAMS = 2.5  # whose compiling an arm waits for: the others are compiled beside what is trained
FEWEST = 60  # steps of a training
COMPILED = 2.0  # a later program takes so much longer to compile than the first, of plain blocks
SHORT = 1e5  # multiply-adds of an example, below which a step is mostly overhead
ETA = 3


@dataclasses.dataclass(frozen=True)
class Plan:
    """plan.json; a run that is cut goes on with the plan that it began with."""

    seconds: float  # all of it
    began: float  # seconds that measuring took
    arm: float  # of an arm
    steps: int  # of a whole training
    networks: dict[str, str]  # family -> its largest network within the limits
    limit: float  # multiply-adds
    limit_params: float | None
    limit_ms: float | None  # milliseconds of an example
    speed: float  # multiply-adds a second
    compiling: float  # seconds that the first program took
    arms: int  # 3 with gradient boosting

    def training(self, macs: float, steps: int, batch: int) -> float:
        """Seconds of so many steps, without compiling."""
        return 3 * macs * batch * steps / self.speed

    def said(self) -> str:
        limit = f", of at most {self.limit / 1e6:.3g} M multiply-adds"
        limit += "" if self.limit_ms is None else f" and {self.limit_ms:.3g} ms"
        boosting = " and, at most, for gradient boosting" if self.arms == 3 else ""
        return (
            f"plan: {self.steps} steps a training{limit}; {self.arm:.0f} s to search, as long for random networks{boosting}; "
            "the rest for final trainings of what is compared"
        )


def make_plan(
    trainer: Trainer,
    seconds: float,
    limit: str | None,
    steps: int | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    arms: int = 2,
) -> Plan:
    """Measures, and plans.

    Args:
        trainer: of the run.
        seconds: all that there are.
        limit: as `read_limit` reads it.
        steps: of a whole training, where a person has said so, and how many trials: then nothing is measured.
        clock: seconds since the run began.
        arms: 2, or 3 with gradient boosting.

    Raises:
        ValueError: for a limit below the smallest network, limits that no network keeps together, or a time that is too short for
            two trainings.
    """
    net, data, share = trainer.net, trainer.data, ARM if arms == 2 else ARM_OF_THREE
    limits = read_limit(limit)
    params, macs = limits.parameters, limits.multiply_adds
    costs = _costs(net)
    least = {what: min(float(getattr(c, what).min()) for c in costs.values()) for what in ("params", "macs")}
    for what, most in (("params", params), ("macs", macs)):
        if most is not None and most < least[what]:
            words = "parameters" if what == "params" else "multiply-adds"
            raise ValueError(f"--limit {limit}: the smallest hand-made network has {least[what]:,.0f} {words}: give at least that")
    dearest = max(float(c.macs.max()) for c in costs.values())
    if steps is not None:
        networks, most = _scaled(trainer, costs, limits._replace(multiply_adds=min(dearest, macs or dearest)))
        common = dict(networks=networks, limit=most, limit_params=params, limit_ms=limits.milliseconds)
        return Plan(seconds, 0.0, share * seconds, _whole_thirds(steps), **common, speed=1.0, compiling=0.0, arms=arms)
    speed, compiling = _measure(trainer, costs)
    began = clock()  # what follows is quick, but where milliseconds are measured
    arm = share * (seconds - began)
    each = max(max(arm - PROGRAMS * compiling, arm / 3) / TRAININGS, min(compiling / 2, arm / 8))
    batch, examples = trainer.batch, data.train
    wanted = max(FEWEST, trainer.net.epochs * examples // batch)
    affordable = speed * each / (3 * batch)  # multiply-adds times steps
    limit_macs = min(dearest, macs or dearest, max(least["macs"], affordable / wanted))
    networks, limit_macs = _scaled(trainer, costs, limits._replace(multiply_adds=limit_macs))
    most = max(2, int(arm / (2 * COMPILED * compiling))) if compiling else len(networks)
    networks = dict(list(networks.items())[:most])
    n = int(np.clip(affordable / limit_macs, FEWEST, wanted))
    once = 3 * least["macs"] * batch * n / speed
    need = began + 2 * (compiling + once) + 5 * once  # a network of each arm, and the finals of both
    if seconds < need:
        raise ValueError(
            f"{seconds / 60:.3g} minutes are too few to train two networks: give --minutes {np.ceil(need / 6) / 10:.3g}"
        )
    common = dict(networks=networks, limit=limit_macs, limit_params=params, limit_ms=limits.milliseconds)
    return Plan(seconds, began, arm, _whole_thirds(n), **common, speed=speed, compiling=compiling, arms=arms)


def _costs(net: Blueprints) -> dict[str, Cost]:
    """family -> the costs of its networks, on the host; in the order of the families."""
    every = jax.tree.map(lambda *a: jnp.stack(a), *(arch for ladder in net.families.values() for arch in ladder))
    costs = jax.tree.map(np.asarray, jax.jit(jax.vmap(net.cost), compiler_options=compiler_options(once=True))(every))
    ends = np.cumsum([len(ladder) for ladder in net.families.values()])
    starts = [0, *ends[:-1]]
    return {name: jax.tree.map(lambda a: a[i:j], costs) for name, i, j in zip(net.families, starts, ends, strict=True)}


def _whole_thirds(steps: int) -> int:
    return max(ETA, steps - steps % ETA)


def _measure(trainer: Trainer, families: dict[str, Cost]) -> tuple[float, float]:
    """(multiply-adds a second, seconds to compile), of a network of the first family: its cheapest, or the largest one whose steps
    are still too short to measure."""
    ladder, costs = next(zip(trainer.net.families.values(), families.values(), strict=True))
    at = max(int(np.sum(costs.macs <= SHORT)) - 1, 0)
    choice, macs = trainer.net.space.choice(ladder[at]), float(costs.macs[at])
    key, held = lambda: jax.random.key(0), trainer.data.x[:1]
    compiling = trainer.program(choice).seconds
    trainer.train("measure", key(), choice, 0, 3, 10_000, on=held)
    steps = 6
    while True:
        out = trainer.train("measure", key(), choice, 0, steps, 10_000, on=held)
        if out.seconds > 0.5 or steps > 5_000:
            trainer.forget("measure")
            return 3 * macs * trainer.batch * steps / out.seconds, compiling
        steps *= 3


def _scaled(trainer: Trainer, families: dict[str, Cost], limits: Limits) -> tuple[dict[str, str], float]:
    """(family -> its largest network within the limits, the multiply-adds that a network may have); without the families that have
    none.

    Raises:
        ValueError: where no family has one.
    """
    space, found, dearest = trainer.net.space, {}, 0.0
    for name, costs in families.items():
        ladder = trainer.net.families[name]
        fits = (costs.macs <= (limits.multiply_adds or np.inf)) & (costs.params <= (limits.parameters or np.inf))
        while fits.any():
            at = int(np.flatnonzero(fits)[np.argmax(costs.macs[fits])])
            over = trainer.latency(space.choice(ladder[at])) / limits.milliseconds if limits.milliseconds else 1.0
            if over <= 1:
                found[name], dearest = space.to_text(ladder[at]), max(dearest, float(costs.macs[at]))
                break
            fits = fits & (costs.macs <= max(costs.macs[at] / over, costs.macs[fits].min())) & (costs.macs < costs.macs[at])
    if not found:
        most = [f"{value:,.6g} {name.replace('_', ' ')}" for name, value in limits._asdict().items() if value]
        raise ValueError(f"no hand-made network has at most {' and '.join(most)}: give a larger --limit, or more --minutes")
    most = limits.multiply_adds or dearest
    return found, min(most, 1.5 * dearest) if limits.milliseconds else most


def load_plan(directory: pathlib.Path, of: Fingerprint | None = None) -> Plan | None:
    """That of a run which is gone on with.

    Args:
        directory: of the run.
        of: the fingerprint of who goes on; None: it is not looked at.

    Raises:
        ValueError: for a plan that cannot be read, is of another run, or is missing where there are trials.
    """
    path = directory / "plan.json"
    if not path.exists():
        if any(row.keys() >= {"arm", "number"} for row in read_rows(directory / "trials.jsonl")[0]):
            raise ValueError(f"{path} is missing, and trials.jsonl is of a plan: start anew with jaxnas search")
        return None
    try:
        held = read_json(path)
        fingerprint = held.pop("fingerprint")
        plan = Plan(**held)
        numbers = [v for name, v in held.items() if name != "networks" and not (v is None and name.startswith("limit"))]
        if not all(isinstance(v, int | float) for v in numbers) or not all(isinstance(v, str) for v in plan.networks.values()):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, IsADirectoryError):
        raise ValueError(f"{path} is damaged or of another version: start anew with jaxnas search") from None
    differs = None if of is None else difference(fingerprint, of)
    if differs is not None:
        raise ValueError(f"{path} is of another run: {other(*differs)}")
    return plan


def save_plan(directory: pathlib.Path, plan: Plan, of: Fingerprint | None = None) -> None:
    """Writes plan.json, with the fingerprint of the run."""
    write_whole(directory / "plan.json", json.dumps({**dataclasses.asdict(plan), "fingerprint": of or {}}, indent=2) + "\n")
