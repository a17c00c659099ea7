"""An arm of the main job: an algorithm asks for trials, which are trained one by one until its time is over.

Every trial is a line of trials.jsonl as soon as it ends.  A run that was cut reads them, tells the algorithm again what it was
told, and goes on with the next: the same bits, since keys follow from the trial's number, and what the clock decided is a line too.
"""

import itertools
import json
import logging
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.app.main_job.trainer import Outcome, Trainer
from jaxnas.ask_tell.trial import Trial
from jaxnas.base import AskTell, Key
from jaxnas.data.pixels import Pixels
from jaxnas.driver.files import load_array, make_way, read_rows, save_array, set_aside, write_whole
from jaxnas.driver.program import compiler_options
from jaxnas.spaces._space import Space
from jaxnas.trees import take

log = logging.getLogger("jaxnas")


class Record(NamedTuple):
    """A trial that has ended."""

    arm: str
    number: int  # of the trials of its arm
    member: int  # the number of the trial that it goes on from; its own, if it is new
    slot: int
    start: int
    stop: int
    genotype: str
    score: float  # on validation data, larger is better; -inf: diverged
    error: float  # its standard error over examples
    loss: float
    params: int
    macs: int
    seconds: float
    waited: float  # of them, for the compiler
    at: float  # seconds since the run began, pauses left out


def _read_record(row: dict[str, Any]) -> Record:
    """One line of trials.jsonl; ValueError, TypeError or KeyError for what is none."""
    record = Record(**row | {name: float(row[name]) for name in ("score", "error", "loss")})
    for name, kind in Record.__annotations__.items():
        value = getattr(record, name)
        if not isinstance(value, int | float if kind is float else kind) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}")
    return record


def _readable(where: pathlib.Path) -> bool:
    """Whether the predictions and the weights of a member can be read."""
    from jaxnas.app.export import load_weights

    try:
        load_array(where.with_suffix(".npy"))
        load_weights(where.with_suffix(".npz"))
    except Exception:  # damage shows in many ways: OSError, ValueError, EOFError, BadZipFile, zlib.error, ...
        return False
    return True


class Trials:
    """trials.jsonl, and the predictions and weights of each trial."""

    def __init__(self, directory: pathlib.Path):
        self.directory, self.path = directory, directory / "trials.jsonl"
        self.records, self.ended = self._read()

    def _read(self) -> tuple[list[Record], dict[str, int]]:
        records, ended = [], {}
        rows, damaged = read_rows(self.path)
        for row in rows:
            try:
                if "ended" in row:
                    ended[str(row["arm"])] = int(row["ended"])
                else:
                    records.append(_read_record(row))
            except (ValueError, TypeError, KeyError):
                damaged = True
                break  # what follows is trained again
        if damaged:
            set_aside(self.path, f"is damaged: its first {len(records)} trials are kept, and what followed is trained again")
        if damaged or self.path.exists():
            self._write(records, ended)
        return records, ended

    def _write(self, records: list[Record], ended: dict[str, int]) -> None:
        """All of it anew: each arm's end is behind its trials."""
        lines = []
        for arm in dict.fromkeys((*(r.arm for r in records), *ended)):
            lines += [self._line(r._asdict()) for r in records if r.arm == arm]
            lines += [self._line({"arm": arm, "ended": ended[arm]})] if arm in ended else []
        write_whole(self.path, "".join(lines))

    def check(self) -> None:
        """Forgets the trials from the first on whose predictions or weights are lost."""
        for i, r in enumerate(self.records):
            where = self.directory / "members" / f"{r.arm}-{r.number}"
            if math.isfinite(r.score) and not _readable(where):
                log.warning("%s.npy or .npz is damaged: %s %d and what followed are trained again", where, r.arm, r.number)
                self.records = self.records[:i]
                self.ended = {arm: n for arm, n in self.ended.items() if len(self.of(arm)) == n and arm != r.arm}
                self._write(self.records, self.ended)
                return

    @staticmethod
    def _line(row: dict) -> str:
        return json.dumps({k: str(v) if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}) + "\n"

    def _append(self, row: dict) -> None:
        with self.path.open("a") as file:
            file.write(self._line(row))

    def of(self, arm: str) -> list[Record]:
        return [r for r in self.records if r.arm == arm]

    def keep(self, record: Record, outcome: Outcome) -> None:
        from jaxnas.app.export import save_weights

        if math.isfinite(record.score):
            (self.directory / "members").mkdir(exist_ok=True)
            where = self.directory / "members" / f"{record.arm}-{record.number}"
            make_way(where.parent, files=(f"{where.name}.npy", f"{where.name}.npz"))
            save_array(where.with_suffix(".npy"), outcome.outputs)
            save_weights(where.with_suffix(".npz"), outcome.variables)
        self.records.append(record)
        self._append(record._asdict())

    def end(self, arm: str) -> None:
        if arm not in self.ended:
            self.ended[arm] = len(self.of(arm))
            self._append({"arm": arm, "ended": self.ended[arm]})

    def outputs(self, record: Record) -> np.ndarray:
        """Predictions of the validation data [n, K]."""
        return load_array(self.directory / "members" / f"{record.arm}-{record.number}.npy")

    @property
    def elapsed(self) -> float:
        return max((r.at for r in self.records), default=0.0)


REFUSED = Outcome(np.full((1, 1), np.nan), math.nan, None, 0.0, 0.0)


class Arm(NamedTuple):
    """What an arm runs with."""

    name: str
    space: Space
    algorithm: AskTell
    budget: int  # the algorithm's largest
    total: int  # steps of a whole training
    most: int | None  # trials; None: as many as there is time for
    score: Callable[[np.ndarray], np.ndarray]  # validation outputs [n, K] -> [n], larger is better
    sizes: Callable[[Any], tuple[int, int]]  # arch -> (parameters, multiply-adds)
    held: jax.Array | Pixels  # x of the validation data
    slowest: float = math.inf  # milliseconds of an example; what takes longer is refused, untrained


def run_arm(
    arm: Arm, key: Key, trainer: Trainer, trials: Trials, clock: Callable[[], float], room: Callable[[Any, float, int], bool]
) -> Iterator[Record]:
    """The trials of an arm, as they end; when its time is over before any member is trained to the end, the best of them is.

    Args:
        arm: what to run.
        key: of the algorithm's draws and of the members' weights.
        trainer: trains.
        trials: what has ended before, and where more is kept.
        clock: seconds since the run began.
        room: (choice, multiply-adds, steps) -> whether such a training would still end in time.
    """
    k_init, k_ask, k_tell, k_train = jax.random.split(key, 4)
    algorithm, before, told = arm.algorithm, trials.of(arm.name), 0
    once = compiler_options(once=True)  # a trial takes seconds, and an optimised `ask` would take 14 to compile
    init, ask, tell = (jax.jit(f, compiler_options=once) for f in (algorithm.init, algorithm.ask, algorithm.tell))
    state = init(k_init)
    had_ended = arm.name in trials.ended
    members: dict[int, int] = {}  # slot -> the number of the trial that its member began with

    def fits(t: Trial) -> bool:
        start, stop = _steps(arm, t)
        return room(arm.space.choice(t.arch), arm.sizes(t.arch)[1], stop - start)

    def trained(t: Trial) -> Record:
        member = members[int(t.slot)] if t.start else told
        where, choice = _steps(arm, t), arm.space.choice(t.arch)
        if arm.slowest < math.inf and trainer.latency(choice) > arm.slowest:
            out = REFUSED
        else:
            k_member = jax.random.fold_in(k_train, member)
            out = trainer.train((arm.name, member), k_member, choice, *where, arm.total, on=arm.held)
        record = _record(arm, t, out, told, member, where, clock())
        trials.keep(record, out)
        return record

    for step in itertools.count():
        state, asked = ask(jax.random.fold_in(k_ask, step), state)
        every = asked if isinstance(asked, Trial) else _whole(asked, arm.budget)
        listed = [jax.tree.map(np.asarray, take(every, b)) for b in range(len(every.slot))]
        scores = np.full(len(listed), -np.inf, np.float32)
        for t in listed if not had_ended and told + len(listed) > len(before) else ():
            if t.start < t.stop:
                trainer.prepare(arm.space.choice(t.arch))
        for b, t in enumerate(listed):
            if t.start >= t.stop:
                continue
            if told < len(before):
                record = before[told]
                if not _is(record, arm, t, told):
                    last = _unfinished(arm, before[:told])
                    if last is None or told + 1 < len(before) or not _is(record, arm, last, told):
                        raise ValueError(_other(trials.path, arm.name, told))
                    yield record
                    trials.end(arm.name)
                    return
            elif had_ended or told == arm.most or (arm.most is None and told and not fits(t)):
                if not had_ended and (last := _unfinished(arm, trials.of(arm.name))):
                    yield trained(last)
                trials.end(arm.name)
                return
            else:
                record = trained(t)
            members[int(t.slot)] = record.member
            scores[b], told = record.score, told + 1
            yield record
        state = tell(jax.random.fold_in(k_tell, step), state, asked, jnp.asarray(scores))


def _steps(arm: Arm, t: Trial) -> tuple[int, int]:
    """From which step to which a trial goes."""
    start, stop = (round(int(n) / arm.budget * arm.total) for n in (t.start, t.stop))
    return start, stop


def _is(record: Record, arm: Arm, t: Trial, number: int) -> bool:
    """Whether a kept trial is this one."""
    held = (record.number, record.slot, record.start, record.stop, record.genotype)
    return held == (number, int(t.slot), *_steps(arm, t), arm.space.to_text(t.arch))


def _other(path: pathlib.Path, arm: str, number: int) -> str:
    return (
        f"{path}: trial {number} of {arm} is not what this search asks for: remove what follows the line before it, and a resume "
        "trains it again, or start anew with jaxnas search"
    )


def _unfinished(arm: Arm, records: list[Record]) -> Trial | None:
    """The rest of the training of the best member, where none was trained to the end."""
    if not records or any(r.stop == arm.total for r in records):
        return None
    best = max(records, key=lambda r: (r.stop, r.score))
    start = round(best.stop / arm.total * arm.budget)
    return Trial(arm.space.from_text(best.genotype), *(jnp.asarray(n, jnp.int32) for n in (best.slot, start, arm.budget)))


def _record(arm: Arm, t: Trial, out: Outcome, number: int, member: int, where: tuple[int, int], at: float) -> Record:
    fine = bool(np.isfinite(out.outputs).all())
    each = arm.score(out.outputs) if fine else np.zeros(2)
    params, macs = arm.sizes(t.arch)
    return Record(
        arm=arm.name,
        number=number,
        member=member,
        slot=int(t.slot),
        start=where[0],
        stop=where[1],
        genotype=arm.space.to_text(t.arch),
        score=float(each.mean()) if fine else -math.inf,
        error=float(each.std(ddof=1) / math.sqrt(len(each))),
        loss=out.loss,
        params=params,
        macs=macs,
        seconds=round(out.seconds, 3),
        waited=round(out.waited, 3),
        at=round(at, 3),
    )


def _whole(archs: Any, budget: int) -> Trial:
    """Trials from the beginning to the end, of what an algorithm without budgets asks for."""
    n = len(jax.tree.leaves(archs)[0])
    fill = lambda value: jnp.full(n, value, jnp.int32)
    return Trial(archs, jnp.arange(n, dtype=jnp.int32), fill(0), fill(budget))
