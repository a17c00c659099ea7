"""An arm of the main job: an algorithm asks for trials, which are trained one by one until its time is over.

Every trial is a line of trials.jsonl as soon as it ends.  A run that was cut reads them, tells the algorithm again what it was told,
and goes on with the next: the same bits, since keys follow from the trial's number, and what the clock decided is a line, too.
"""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.app.trainer import Outcome, Trainer
from jaxnas.ask_tell.trial import Trial
from jaxnas.base import AskTell, Key
from jaxnas.spaces._space import Space
from jaxnas.trees import take


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


class Trials:
    """trials.jsonl, and the predictions and weights of what was trained to the end."""

    def __init__(self, directory: pathlib.Path):
        self.directory, self.path = directory, directory / "trials.jsonl"
        self.records, self.ended = self._read()

    def _read(self) -> tuple[list[Record], dict[str, int]]:
        records, ended = [], {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                break  # a line that was being written
            if "ended" in row:
                ended[row["arm"]] = row["ended"]
            else:
                records.append(Record(**row | {"score": float(row["score"])}))
        if self.path.exists():  # what is cut short is written anew
            lines = [self._line(r._asdict()) for r in records] + [self._line({"arm": a, "ended": n}) for a, n in ended.items()]
            self.path.write_text("".join(lines))
        return records, ended

    @staticmethod
    def _line(row: dict) -> str:
        return json.dumps({k: str(v) if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}) + "\n"

    def _append(self, row: dict) -> None:
        with self.path.open("a") as file:
            file.write(self._line(row))

    def of(self, arm: str) -> list[Record]:
        return [r for r in self.records if r.arm == arm]

    def keep(self, record: Record, outcome: Outcome, complete: bool) -> None:
        if complete:
            from jaxnas.app.export import save_weights

            (self.directory / "members").mkdir(exist_ok=True)
            where = self.directory / "members" / f"{record.arm}-{record.number}"
            np.save(where.with_suffix(".npy"), outcome.outputs)
            save_weights(where.with_suffix(".npz"), outcome.variables)
        self.records.append(record)
        self._append(record._asdict())

    def end(self, arm: str) -> None:
        if arm not in self.ended:
            self.ended[arm] = len(self.of(arm))
            self._append({"arm": arm, "ended": self.ended[arm]})

    def outputs(self, record: Record) -> np.ndarray:
        """Predictions of the validation data [n, K], of a member that was trained to the end."""
        return np.load(self.directory / "members" / f"{record.arm}-{record.number}.npy")

    @property
    def elapsed(self) -> float:
        return max((r.at for r in self.records), default=0.0)


class Arm(NamedTuple):
    """What an arm runs with."""

    name: str
    space: Space
    algorithm: AskTell
    budget: int  # the algorithm's largest
    total: int  # steps of a whole training
    capacity: int  # members that are kept to be gone on with
    most: int | None  # trials; None: as many as there is time for
    score: Callable[[np.ndarray], np.ndarray]  # validation outputs [n, K] -> [n], larger is better
    sizes: Callable[[Any], tuple[int, int]]  # arch -> (parameters, multiply-adds)
    held: jax.Array  # x of the validation data


def run_arm(
    arm: Arm, key: Key, trainer: Trainer, trials: Trials, clock: Callable[[], float], room: Callable[[float, int], bool]
) -> Iterator[Record]:
    """The trials of an arm, as they end.

    Args:
        arm: what to run.
        key: of the algorithm's draws and of the members' weights.
        trainer: trains.
        trials: what has ended before, and where more is kept.
        clock: seconds since the run began.
        room: (multiply-adds, steps) -> whether such a training would still end in time.
    """
    k_init, k_ask, k_tell, k_train = jax.random.split(key, 4)
    algorithm, told = arm.algorithm, 0
    ask, tell = jax.jit(algorithm.ask), jax.jit(algorithm.tell)
    state = jax.jit(algorithm.init)(k_init)
    before, members, step = trials.of(arm.name), {}, 0
    while True:
        state, asked = ask(jax.random.fold_in(k_ask, step), state)
        every = asked if isinstance(asked, Trial) else _whole(asked, arm.budget)
        listed = [jax.tree.map(np.asarray, take(every, b)) for b in range(len(every.slot))]
        busy = [t for t in listed if t.start < t.stop]
        for t in busy:
            trainer.prepare(arm.space.choice(t.arch))
        scores = np.full(len(listed), -np.inf, np.float32)
        for b, t in enumerate(listed):
            if t.start >= t.stop:
                continue
            steps = lambda n: round(int(n) / arm.budget * arm.total)
            start, stop, slot = steps(t.start), steps(t.stop), int(t.slot)
            params, macs = arm.sizes(t.arch)
            if told < len(before):
                record = before[told]
            elif arm.name in trials.ended or (told == arm.most) or (arm.most is None and not room(macs, stop - start)):
                trials.end(arm.name)
                return
            else:
                member = members[slot] if start else told
                choice = arm.space.choice(t.arch)
                k_member = jax.random.fold_in(k_train, member)
                out = trainer.train((arm.name, member), k_member, choice, start, stop, arm.total, on=arm.held)
                each = arm.score(out.outputs)
                fine = bool(np.isfinite(out.outputs).all())
                record = Record(
                    arm.name,
                    told,
                    member,
                    slot,
                    start,
                    stop,
                    arm.space.to_text(t.arch),
                    score=float(each.mean()) if fine else -np.inf,
                    error=float(each.std(ddof=1) / np.sqrt(len(each))) if fine else 0.0,
                    loss=out.loss,
                    params=params,
                    macs=macs,
                    seconds=round(out.seconds, 3),
                    waited=round(out.waited, 3),
                    at=round(clock(), 3),
                )
                trials.keep(record, out, stop == arm.total)
            members[slot] = record.member
            scores[b], told = record.score, told + 1
            yield record
        state, step = tell(jax.random.fold_in(k_tell, step), state, asked, jnp.asarray(scores)), step + 1


def _whole(archs: Any, budget: int) -> Trial:
    """Trials from the beginning to the end, of what an algorithm without budgets asks for."""
    n = len(jax.tree.leaves(archs)[0])
    fill = lambda value: np.full(n, value, np.int32)
    return Trial(archs, np.arange(n, dtype=np.int32), fill(0), fill(budget))
