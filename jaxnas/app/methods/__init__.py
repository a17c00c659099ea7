"""The table of methods: every search that `jaxnas search` and `jaxnas bench` know, one row each.

    nas.methods.register("mine", nas.methods.Method("what it is (whose it is)", plan))

A plan is a function of a `Job`, its net, data and settings, and returns phases; an algorithm is a function of
(space, budget, settings, cost) and returns an `AskTell`, which then meets every evaluator and `jaxnas bench`.
"""

from jaxnas.app.methods import black_box, darts, differentiable, one_shot
from jaxnas.app.methods.base import Job, Method, Need, check_needs
from jaxnas.app.methods.evaluators import EVALUATORS
from jaxnas.app.settings import NoSettings
from jaxnas.registry import Table

METHODS: Table[Method] = Table("strategy", {**darts.ROWS, **differentiable.ROWS, **one_shot.ROWS, **black_box.ROWS})
register = METHODS.register

__all__ = ["EVALUATORS", "METHODS", "Job", "Method", "Need", "NoSettings", "check_needs", "plan", "register"]


def plan(job: Job, method: Method) -> tuple:
    """The phases of a job.

    Raises:
        ValueError: for an evaluator that cannot be asked what the method asks, and whatever the parts refuse.
    """
    name = job.config.strategy
    check_needs(name, method, job.net, job.config.space)
    evaluator = EVALUATORS.find(job.config.evaluator)
    if hasattr(job.net, "families"):  # `jaxnas.nets.blueprints.Blueprints`
        if method.plan is not None or job.config.evaluator != "scratch" or method.asks == "fronts":
            raise ValueError(
                f"networks of {job.config.space} are programs of their own, trained one by one from scratch: search them with "
                "--strategy portfolio, or another that asks for architectures or trials and needs no --evaluator"
            )
        return ()  # `jaxnas.app.main_job` has arms instead of phases
    if method.plan is not None:
        if job.config.evaluator != "scratch":
            raise ValueError(f"{name} asks no evaluator: leave --evaluator {job.config.evaluator} out, or take --strategy aging")
        return method.plan(job)
    if method.asks not in evaluator.asks:
        raise ValueError(f"{name} asks for {method.asks}, which --evaluator {job.config.evaluator} does not give: leave it out")
    check_needs(f"--evaluator {job.config.evaluator}", Method("", needs=evaluator.needs), job.net, job.config.space)
    if method.algorithm is None:
        raise ValueError(f"{name} has neither a plan nor an algorithm: register it with one of them")
    from jaxnas.base import asks_for

    cost = lambda gates: job.cost()(gates)  # few ask for it
    algorithm = method.algorithm(job.space, job.config.steps, job.settings, cost)
    return evaluator.plan(job, method, algorithm, -(-job.config.steps // asks_for(algorithm)))
