"""What the lines of a study's journal say: which trials there are, who has them, and what they were worth.

    {"asked": n, "leaves", "texts"}         batch n of B candidates; trial n B + b is member b of it
    {"run": id, "attempt", "worker", ...}   somebody has the trial; they beat at least every `patience` seconds, null: never
    {"lost": id}                            they have not: it is handed out again
    {"told": id, "metrics", "scores"}       it is done; scores are what the algorithm is told, null: not finite
    {"failed": id, "reason"}                it is done, without a score

The order of the lines determines everything else, so that every process comes to the same conclusions.  Nothing here needs JAX.

Axes: B candidates of a batch.
"""

import dataclasses
from collections import deque
from typing import Any, NamedTuple

from jaxnas.base import Arch
from jaxnas.studies.journal import Event

ATTEMPTS = 3  # a trial that was lost so often has failed


class OpenTrial(NamedTuple):
    """What is to be done."""

    id: int
    text: str  # the architecture
    arch: Arch  # the same as arrays of NumPy
    attempt: int  # from 1 on
    start: int | None = None  # units of the budget; None where the algorithm knows no budgets
    stop: int | None = None
    slot: int | None = None
    continues: int | None = None  # the trial that has trained this member to `start`; None for a new one


@dataclasses.dataclass
class TrialRecord:
    """What is known of a trial."""

    id: int
    text: str
    state: str = "waiting"  # waiting, running, told, failed, or idle (it fills up a batch, and nobody runs it)
    start: int | None = None
    stop: int | None = None
    slot: int | None = None
    continues: int | None = None
    attempt: int = 0
    worker: str = ""
    patience: float | None = None  # seconds
    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    scores: list[float] | None = None  # one a column; None without a finite score
    reason: str = ""

    @property
    def done(self) -> bool:
        return self.state in ("told", "failed", "idle")


@dataclasses.dataclass
class AskedBatch:
    """Candidates that the algorithm has asked for at once."""

    leaves: list[Any]  # of the pytree, [B, ...] each, as nested lists
    left: int  # trials that are not done


class Ledger:
    """All trials of a study, by the journal's lines."""

    def __init__(self, budgets: bool, asynchronous: bool, columns: int) -> None:
        self._budgets, self._asynchronous, self._columns = budgets, asynchronous, columns
        self.batches: list[AskedBatch] = []
        self.trials: list[TrialRecord] = []
        self.waiting: deque[int] = deque()  # trials that nobody has
        self.running: dict[int, None] = {}  # trials that somebody has, in the order they were handed out
        self.moves: deque[tuple[str, int]] = deque()  # what the algorithm has yet to learn: ("ask" or "tell", batch)
        self.members: dict[int, int] = {}  # slot -> the last trial of its member that is done
        self.handed = 0  # trials that were handed out at least once

    @property
    def open_batches(self) -> list[int]:
        """Batches that are not complete, as they were asked."""
        first = min((i // self.size for i in (*self.waiting, *self.running)), default=len(self.batches))
        return [n for n in range(first, len(self.batches)) if self.batches[n].left]

    @property
    def size(self) -> int:
        """B; 1 before the first batch."""
        return len(self.trials) // len(self.batches) if self.batches else 1

    def batch_of(self, n: int) -> list[TrialRecord]:
        return self.trials[n * self.size : (n + 1) * self.size]

    def apply(self, event: Event) -> None:
        """Learns one line.

        Raises:
            ValueError: in a few words, for a line that does not follow from those before it.
        """
        try:
            kind = next(iter(event))
            {"asked": self._asked, "run": self._run, "lost": self._lost, "told": self._told, "failed": self._failed}[kind](event)
        except (KeyError, TypeError, IndexError, AttributeError, StopIteration):
            raise ValueError("it is no line of a study") from None

    def _asked(self, event: Event) -> None:
        texts, leaves = event["texts"], event["leaves"]
        if event["asked"] != len(self.batches) or (self.batches and len(texts) != self.size):
            raise ValueError("a batch is missing before it")
        first = len(self.trials)
        for b, text in enumerate(texts):
            record = TrialRecord(first + b, text)
            if self._budgets:  # the last leaves of a `Trial`
                record.slot, record.start, record.stop = (int(leaf[b]) for leaf in leaves[-3:])
                record.continues = self.members.get(record.slot) if record.start else None
                record.state = "idle" if record.start >= record.stop else "waiting"
            self.trials.append(record)
            if record.state == "waiting":
                self.waiting.append(record.id)
        own = self.trials[first:]
        for record in own:
            if record.state == "idle" and record.continues is not None:
                record.scores = self.trials[record.continues].scores  # the member is worth what it was worth
        self.batches.append(AskedBatch(leaves, sum(record.state == "waiting" for record in own)))
        if self._asynchronous:
            self.moves.append(("ask", len(self.batches) - 1))
        self._complete(len(self.batches) - 1)

    def _run(self, event: Event) -> None:
        record = self._open(event["run"])
        if record.state != "waiting":
            raise ValueError(f"trial {record.id} is handed out twice")
        self.waiting.remove(record.id)
        self.running[record.id] = None
        self.handed += record.attempt == 0
        record.state, record.attempt, record.worker, record.patience = (
            "running",
            int(event["attempt"]),
            str(event["worker"]),
            event["patience"],
        )

    def _lost(self, event: Event) -> None:
        record = self._open(event["lost"])
        del self.running[record.id]
        record.state = "waiting"
        self.waiting.appendleft(record.id)

    def _told(self, event: Event) -> None:
        scores = event["scores"]
        if scores is not None and len(scores) != self._columns:
            raise ValueError("it has another number of scores")
        record = self._open(event["told"])
        record.metrics = event["metrics"]
        self._done(record, "told", scores)

    def _failed(self, event: Event) -> None:
        record = self._open(event["failed"])
        record.reason = str(event["reason"])
        self._done(record, "failed", None)

    def _open(self, number: Any) -> TrialRecord:
        if not isinstance(number, int) or not 0 <= number < len(self.trials):
            raise ValueError("it names no trial")
        if self.trials[number].done:
            raise ValueError(f"trial {number} is done already")
        return self.trials[number]

    def _done(self, record: TrialRecord, state: str, scores: list[float] | None) -> None:
        record.state, record.scores = state, scores
        self.running.pop(record.id, None)
        if record.id in self.waiting:  # it was given up, and told after all
            self.waiting.remove(record.id)
        if record.slot is not None:
            self.members[record.slot] = record.id
        n = record.id // self.size
        self.batches[n].left -= 1
        self._complete(n)

    def _complete(self, n: int) -> None:
        if self.batches[n].left == 0:
            self.moves.append(("tell", n))
