"""Ray as the engine of a study: this process asks and tells, and the nodes of a cluster run a Python function for each trial.

    ray.init("auto")
    nas.studies.work_on_ray(study, train, resources={"num_gpus": 1})    # train(trial) -> {"accuracy": 0.93}

Nobody but this process reads or writes the study, so that the nodes need not see its directory.  It keeps as many trials open as
the nodes have room for, and gives signs of life for all of them.  Tasks have `max_retries=0`: trying again is the study's business.

    the function raises         the trial has failed
    its process or node dies    ray.get raises a RayError other than RayTaskError: the trial is lost, and handed out again
    this process dies           Ray ends its tasks with it; the trials are handed out again once `patience` has passed
"""

import contextlib
import importlib
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber
from jaxnas.studies.ledger import OpenTrial
from jaxnas.studies.study import Study
from jaxnas.studies.worker import FAILURES, answer, too_many

NODE = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}  # a task's option -> what Ray calls it at a node
CHARACTERS = 200  # of a reason


class Outcome(NamedTuple):
    """What became of a task."""

    metrics: Any = None  # what the function returned; None: nothing
    reason: str = ""  # why there are none, in one line
    lost: bool = False  # its process or node died
    trace: str = ""  # of the exception


@checked
def work_on_ray(
    study: Study,
    function: Callable[[OpenTrial], Mapping[str, float]],
    *,
    resources: Mapping[str, NonNegativeNumber] | None = None,
    open_trials: Positive | None = None,
    poll: PositiveNumber = 1.0,
    failures: Positive = FAILURES,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Runs a function for each trial on a Ray cluster until the study is finished -> the trials told.

    However it ends, including by Ctrl-C, the tasks that are still running are cancelled and their trials given back.  Several
    processes may work on one study.  Ray is initialised with its defaults where that has not been done.

    Args:
        study: whose trials.
        function: trial -> {name: number}.  It is pickled and runs in processes that can import jaxnas.  It trains `trial.text`, or
            `trial.arch`, from `trial.start` to `trial.stop` where the algorithm knows budgets; the weights to go on with are those
            of the trial `trial.continues`, which the function keeps itself, where all nodes can read.
        resources: of one trial: "num_cpus", "num_gpus", "memory" in bytes, or a custom resource of the cluster; default: one CPU.
        open_trials: how many to run or queue at once; default: as many as the nodes have room for, nodes that come and go included.
            Give it where the cluster grows on demand, or others use it, too.
        poll: seconds before it asks again where there is nothing to do.
        failures: in a row, after which it stops, default 5.
        say: takes a line about each trial.

    Raises:
        ValueError: without the extra `ray`; for resources that no node has, a function that cannot be pickled, metrics that the
            objective cannot read, or so many failures in a row.
    """
    ray, needs = _package(), {"num_cpus": 1, **(resources or {})}
    if not any(needs.values()):
        raise ValueError("a trial must need some resource, or all of them would run at once: give num_cpus, or another")
    if not ray.is_initialized():
        ray.init()
    if open_trials is None and not room(ray.nodes(), needs):
        raise ValueError(f"no node of this cluster has {needs}: ask for less, or give `open_trials` for a cluster that grows")
    tasks, told, row = _Tasks(ray, function, needs), 0, 0
    try:
        with study.beating(tasks.trials):
            while True:
                free = len(tasks.trials) < (open_trials or room(ray.nodes(), needs))
                asked = study.ask() if free else "wait"
                if asked == "finished":
                    return told
                if asked != "wait":
                    tasks.start(asked)
                done = tasks.wait(poll if asked == "wait" else 0)
                if done is None:
                    continue
                trial, outcome = done
                told += _settle(study, trial, outcome, say)
                row = 0 if outcome.metrics is not None else row + study.is_done(trial.id)
                if row >= failures:
                    raise too_many(study, row, outcome.reason)
    finally:
        for trial in tasks.cancel():
            with contextlib.suppress(OSError):
                study.give_back(trial.id, trial.attempt)


def room(nodes: list[dict[str, Any]], needs: Mapping[str, float]) -> int:
    """How many tasks fit on the nodes that are alive, as `ray.nodes()` lists them, whoever uses them now."""
    fits = lambda has: min(int(has.get(NODE.get(name, name), 0) / need + 1e-6) for name, need in needs.items() if need)
    return sum(fits(node["Resources"]) for node in nodes if node["Alive"])


class _Tasks:
    """The tasks of this process."""

    def __init__(self, ray: Any, function: Callable[..., Any], needs: Mapping[str, float]) -> None:
        self._ray, self._refs = ray, {}  # a task's reference -> its trial
        self.trials: dict[int, OpenTrial] = {}  # by number
        own = {name: need for name, need in needs.items() if name in NODE}
        custom = {name: need for name, need in needs.items() if name not in NODE}
        self._task = ray.remote(run_trial).options(**own, resources=custom, max_retries=0, retry_exceptions=False)
        try:
            self._function = ray.put(function)  # once, and not with each trial
        except Exception as error:  # pickle raises what it likes
            raise ValueError(f"the function cannot be pickled ({first_line(error)}): have it open what it needs") from None

    def start(self, trial: OpenTrial) -> None:
        self.trials[trial.id] = trial
        self._refs[self._task.remote(self._function, trial)] = trial

    def wait(self, seconds: float) -> tuple[OpenTrial, Outcome] | None:
        """The first task that is over; None: none was within so many seconds."""
        if not self._refs:
            time.sleep(seconds)
            return None
        ready, _ = self._ray.wait([*self._refs], num_returns=1, timeout=seconds)
        if not ready:
            return None
        errors = self._ray.exceptions
        try:
            outcome = self._ray.get(ready[0])
        except errors.RayTaskError as error:  # not the function's own, which are caught: what it returned cannot be pickled
            outcome = Outcome(reason=first_line(error.cause), trace=str(error))
        except errors.RayError as error:
            outcome = Outcome(reason=first_line(error), lost=True)
        trial = self._refs.pop(ready[0])
        self.trials.pop(trial.id, None)
        return trial, outcome

    def cancel(self) -> list[OpenTrial]:
        """Ends all of them -> their trials."""
        for ref in self._refs:
            with contextlib.suppress(Exception):  # Ray itself may be gone
                self._ray.cancel(ref, force=True)
        return [*self._refs.values()]


def run_trial(function: Callable[[OpenTrial], Any], trial: OpenTrial) -> Outcome:
    """What a task does: its exceptions stay here, since not all of them can be pickled."""
    try:
        metrics = function(trial)
    except (Exception, SystemExit) as error:
        return Outcome(reason=first_line(error), trace=traceback.format_exc())
    return Outcome(metrics) if metrics is not None else Outcome(reason="the function returned None, and no metrics")


def _settle(study: Study, trial: OpenTrial, outcome: Outcome, say: Callable[[str], None]) -> bool:
    """Notes what became of a trial -> whether it was told."""
    if outcome.trace:
        place = study.directory / "trials" / f"{trial.id}-{trial.attempt}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "errors.txt").write_text(outcome.trace)
    if outcome.lost:
        study.lose(trial.id, trial.attempt, outcome.reason)
        say(f"trial {trial.id}: lost: {outcome.reason}")
        return False
    try:
        against = answer(study, trial, outcome.metrics, outcome.reason)
    except BaseException:
        study.give_back(trial.id, trial.attempt)
        raise
    failed = outcome.metrics is None
    say(f"trial {trial.id}: {against or (f'failed: {outcome.reason}' if failed else outcome.metrics)}")
    return against is None and not failed


def first_line(error: BaseException) -> str:
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}"[:CHARACTERS].removesuffix(": ")


def _package() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ValueError("a cluster needs Ray: pip install 'jaxnas[ray]'") from None
