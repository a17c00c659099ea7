"""A study: a search on disk, whose trials any number of processes, machines or people ask for and tell.

    study = nas.study("runs/mine", space, nas.aging_evolution(space), trials=400)
    while (trial := study.ask()) != "finished":
        if trial == "wait":
            time.sleep(1)
            continue
        study.tell(trial.id, {"accuracy": train(trial.text)})

Every process makes the study anew, with the same arguments; the directory is all they share.  There is no coordinator: whoever
asks reads the journal, brings its own copy of the algorithm's state up to date and writes down what it takes.  A process may be
killed at any moment.  The trial that it had is handed out again once `patience` seconds have gone by without a sign of life, by the
clock of the file server.

    study.json       of what the study is; another study in the same directory is refused
    journal.jsonl    what has happened (`jaxnas.studies.ledger`)
    beats/           a file for each trial that somebody has: its time of change is the last sign of life
    trials/          what a user's script was given and has said (`jaxnas.studies.worker`)

Axes: M columns.
"""

import contextlib
import dataclasses
import os
import pathlib
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, AskTell
from jaxnas.checks import checked, described
from jaxnas.kinds import Positive, PositiveNumber, Seed, is_scalar, is_traced
from jaxnas.objectives import Objective, metric
from jaxnas.spaces._space import Space
from jaxnas.studies.beats import Beats, every
from jaxnas.studies.identity import identity, keep_identity, wrong_shape
from jaxnas.studies.journal import Event, EventLog
from jaxnas.studies.ledger import ATTEMPTS, Ledger, OpenTrial, TrialRecord
from jaxnas.studies.replay import Replay
from jaxnas.trees import count, take


@checked
def study(
    directory: str | os.PathLike,
    space: Space,
    algorithm: AskTell,
    objective: Callable | None = None,
    *,
    trials: Positive | None = None,
    patience: PositiveNumber | None = 60.0,
    seed: Seed = 0,
    settings: Mapping[str, Any] | None = None,
) -> "Study":
    """The study of a directory: a new one, or one that is gone on with.

    Args:
        directory: made where there is none; all processes must see it, on a local disk or on NFS version 4.
        space: where the algorithm searches; it writes architectures as text.
        algorithm: any; one that asks for budgets has trials with `start` and `stop`.
        objective: metrics -> scores, to be maximised, [B] or as many columns [B, M] as the algorithm takes; default:
            `metric("accuracy")`.
        trials: how many to hand out, of all processes together; None: without end.  It may be another one each time.
        patience: seconds without a `beat` after which a trial of this process is somebody else's; None: never, for people.
        seed: of all the algorithm's draws.
        settings: name -> value, what else the study is of; kept in study.json.

    Raises:
        ValueError: for a directory of another study, with the field that differs, a damaged file in it, or an objective of another
            number of columns than the algorithm takes.
        OSError: for a directory that cannot be written, or a system without file locks.
    """
    objective = metric("accuracy") if objective is None else objective
    replay = Replay(algorithm, jax.random.key(seed))
    here = identity(space, replay, objective, seed, settings or {})
    path = pathlib.Path(directory)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, and a study is a directory: name another")
    (path / "beats").mkdir(parents=True, exist_ok=True)
    log = EventLog(path / "journal.jsonl")
    with log.locked():
        keep_identity(path, here)
    return Study(path, space, replay, objective, log, trials, patience)


class Study:
    """A search on disk; made by `nas.study`.  Its methods may be called from several threads."""

    def __init__(
        self,
        directory: pathlib.Path,
        space: Space,
        replay: Replay,
        objective: Objective,
        log: EventLog,
        trials: int | None,
        patience: float | None,
    ) -> None:
        self.directory, self.space, self.patience, self.limit = directory, space, patience, trials
        self._replay, self._objective, self._log = replay, objective, log
        self._ledger = Ledger(replay.budgets, replay.algorithm.asynchronous, replay.columns)
        self._beats, self._guard = Beats(directory / "beats"), threading.RLock()
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        with self._guard:
            self._read()

    # --- whoever runs trials ----------------------------------------------------------------------------------------------

    def ask(self) -> OpenTrial | Literal["wait", "finished"]:
        """A trial to run; "wait": there is none now, ask again later; "finished": there will be none."""
        with self._guard:
            self._read()
            self._replay.catch_up(self._ledger)  # most of the work, and compiling, while others may write
            with self._log.locked():
                self._read()
                self._look_for_lost()
                number = self._next()
                if number is None:
                    over = self._spent() and not self._ledger.running
                    return "finished" if over else "wait"
                record = self._ledger.trials[number]
                self._beats.touch(number)
                run = {"run": number, "attempt": record.attempt + 1, "worker": self._name, "patience": self.patience}
                self._note([run])
            return self._open_trial(number)

    def tell(self, id: int, metrics: Mapping[str, float]) -> None:
        """What a trial was worth; it is on the disk when this returns.

        Args:
            id: of the trial, whoever has asked for it.
            metrics: name -> number, at least those that the objective reads; one that is not finite counts as a failure.

        Raises:
            ValueError: for a trial that there is not or that was told already, or metrics that the objective cannot read; nothing
                has changed then.
            OSError: where the disk is full; nothing has changed then, and it may be told again.
        """
        if (
            not isinstance(metrics, Mapping)
            or not metrics
            or not all(is_scalar(v, "iuf") and not is_traced(v) for v in metrics.values())
        ):
            raise ValueError(f"metrics are {{name: number}}, such as {{'accuracy': 0.9}}; got {described(metrics)}")
        scores = self._scores(metrics)
        plain = {str(k): float(v) if np.isfinite(v) else None for k, v in metrics.items()}
        told = scores.tolist() if np.isfinite(scores).all() else None
        self._finish("told", id, metrics=plain, scores=told)

    def fail(self, id: int, reason: str) -> None:
        """A trial has no score and is not to be tried again: it counts as one that diverged.

        Raises:
            ValueError: for a trial that there is not, or that was told already.
            OSError: as `tell`.
        """
        self._finish("failed", id, reason=str(reason))

    def give_back(self, id: int, attempt: int | None = None) -> None:
        """Hands a trial back unfinished; somebody else will be given it.  Where it is not running, nothing happens.

        Args:
            id: of the trial.
            attempt: the one that is given back; where somebody else has been given the trial since, nothing happens.  Default:
                whichever is running.
        """
        with self._guard, self._log.locked():
            self._read()
            if self._is_running(id, attempt):
                self._note([{"lost": id}])

    def lose(self, id: int, attempt: int, reason: str) -> None:
        """The machine that had a trial is gone: the trial is handed out again, or has failed where this was the third time.

        Args:
            id: of the trial.
            attempt: the one that was lost; where somebody else has been given the trial since, nothing happens.
            reason: in a few words.
        """
        with self._guard, self._log.locked():
            self._read()
            if self._is_running(id, attempt):
                self._note([_lost(self._ledger.trials[id], reason)], sync=True)

    def beat(self, id: int) -> None:
        """A sign of life, wanted more often than every `patience` seconds."""
        self._beats.touch(id)

    def beating(self, ids: int | Collection[int]) -> contextlib.AbstractContextManager[None]:
        """Gives signs of life in a thread, for as long as a trial is computed.

        Args:
            ids: the trial, or several: those that a collection such as a dict holds at the time.
        """
        return every(self.beat_every, self.beat, ids)

    @property
    def beat_every(self) -> float:
        """Seconds between two signs of life: a quarter of the patience, at most 15."""
        return 15.0 if self.patience is None else min(self.patience / 4, 15.0)

    # --- whoever reads ----------------------------------------------------------------------------------------------------

    def trials(self) -> list[TrialRecord]:
        """All trials so far, by number; those that only fill up a batch are left out."""
        with self._guard:
            self._read()
            return [dataclasses.replace(r) for r in self._ledger.trials if r.state != "idle"]

    def arch(self, id: int) -> Arch:
        """A trial's architecture, as arrays of NumPy.

        Raises:
            ValueError: for a trial that there is not.
        """
        with self._guard:
            self._read()
            asked = self._candidate(self._known(id))
            return asked.arch if self._replay.budgets else asked

    @property
    def columns(self) -> int | None:
        """M, the scores of a trial; None: one."""
        return self._replay.algorithm.columns

    def is_done(self, id: int) -> bool:
        """Whether a trial was told or has failed.

        Raises:
            ValueError: for a trial that there is not.
        """
        with self._guard:
            self._read()
            return self._ledger.trials[self._known(id)].done

    def best(self) -> TrialRecord | None:
        """The best trial told at the largest budget, the first of equals; None before there is a finite score.

        Raises:
            ValueError: for several columns, of which `front` is the answer.
        """
        if self.columns is not None:
            raise ValueError("this algorithm takes several columns: the answer is study.front(...)")
        told = [r for r in self.trials() if r.scores is not None]
        return max(told, key=lambda r: (r.stop or 0, r.scores, -r.id), default=None)

    def front(self, objectives: Positive | None = None) -> list[TrialRecord]:
        """The trials told that no other is better than in every objective, by number.

        Args:
            objectives: columns that are objectives, default all; the others are constraints, kept where they are not negative.
        """
        M = self._replay.columns if objectives is None else objectives
        told = [r for r in self.trials() if r.scores is not None and min(r.scores[M:], default=0.0) >= 0]
        scores = np.asarray([r.scores for r in told], np.float32).reshape(len(told), self._replay.columns)[:, :M]
        beaten = [((scores >= own[None]).all(1) & (scores > own[None]).any(1)).any() for own in scores]
        return [r for r, worse in zip(told, beaten, strict=True) if not worse]

    # --- inside -----------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        line = self._log.lines
        for event in self._log.read():
            line += 1
            try:
                self._ledger.apply(event)
            except ValueError as error:
                raise self._log.damaged(line, str(error)) from None

    def _note(self, events: list[Event], sync: bool = False) -> None:
        """Writes lines, under the lock, and learns them as everybody else does."""
        self._log.append(events, sync=sync)
        self._read()

    def _known(self, id: int) -> int:
        there = len(self._ledger.trials)
        if isinstance(id, bool) or not isinstance(id, int | np.integer) or not 0 <= id < there:
            count = f"0 to {there - 1}" if there else "none yet"
            raise ValueError(f"no trial {described(id)} in {self.directory}: the trials are {count}")
        return int(id)

    def _is_running(self, id: int, attempt: int | None) -> bool:
        return id in self._ledger.running and attempt in (None, self._ledger.trials[id].attempt)

    def _finish(self, how: str, id: int, **more: Any) -> None:
        with self._guard, self._log.locked():
            self._read()
            record = self._ledger.trials[self._known(id)]
            if record.done:
                raise ValueError(f"trial {id} of {self.directory} is done ({record.state}, by {record.worker}): it is told once")
            if record.attempt == 0:
                raise ValueError(f"trial {id} of {self.directory} was not handed out yet: ask first")
            self._note([{how: record.id, **more}], sync=True)
        self._beats.end(record.id)

    def _scores(self, metrics: Mapping[str, float]) -> np.ndarray:
        """float32[M], checked."""
        columns = self.columns
        scores = np.asarray(self._objective({k: jnp.asarray([v], jnp.float32) for k, v in metrics.items()}), np.float32)
        if scores.shape != ((1,) if columns is None else (1, columns)):
            raise ValueError(wrong_shape(columns, scores.shape))
        return scores.reshape(-1)

    def _spent(self) -> bool:
        return self.limit is not None and self._ledger.handed >= self.limit

    def _next(self) -> int | None:
        """A trial that waits; where there is none, of the next batch."""
        waits = lambda: next((i for i in self._ledger.waiting if not self._spent() or self._ledger.trials[i].attempt), None)
        while (number := waits()) is None and not self._spent():
            self._replay.catch_up(self._ledger)
            leaves = self._replay.ask(self._ledger)
            if leaves is None:
                return None
            self._note([{"asked": len(self._ledger.batches), "leaves": leaves, "texts": self._texts(leaves)}])
        return number

    def _texts(self, leaves: list[Any]) -> list[str]:
        asked = self._replay.candidates(leaves)
        archs = asked.arch if self._replay.budgets else asked
        return [self.space.to_text(take(archs, b)) for b in range(count(archs))]

    def _candidate(self, number: int) -> Any:
        n, b = divmod(number, self._ledger.size)
        return jax.tree.map(lambda a: np.asarray(a[b]), self._replay.candidates(self._ledger.batches[n].leaves))

    def _open_trial(self, number: int) -> OpenTrial:
        record, asked = self._ledger.trials[number], self._candidate(number)
        arch = asked.arch if self._replay.budgets else asked
        return OpenTrial(record.id, record.text, arch, record.attempt, record.start, record.stop, record.slot, record.continues)

    def _look_for_lost(self) -> None:
        """Hands back the trials that nobody has given a sign of for too long; the lock is held."""
        watched = [r for r in map(self._ledger.trials.__getitem__, self._ledger.running) if r.patience is not None]
        now = self._beats.touch("now") if watched else 0.0
        lost = []
        for record in watched:
            if now - self._beats.last(record.id) > (record.patience or 0):
                lost.append(_lost(record, f"its worker gave no sign of life for {record.patience:g} seconds"))
        if lost:
            self._note(lost)


def _lost(record: TrialRecord, reason: str) -> Event:
    """The line for a trial that was lost once more."""
    if record.attempt < ATTEMPTS:
        return {"lost": record.id}
    return {"failed": record.id, "reason": f"lost {record.attempt} times: {reason}"}
