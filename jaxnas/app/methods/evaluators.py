"""The table of evaluators: what a candidate of an algorithm is worth, and the phases in which that is found out."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxnas.app.methods.base import IMAGES, Job, Method, Need
from jaxnas.registry import Table

LABELLED = ("grad_norm", "snip", "grasp", "fisher", "zico")  # proxies whose loss is that of classes


class EvaluatorEntry(NamedTuple):
    about: str
    plan: Callable[[Job, Method, Any, int], tuple]  # (job, method, algorithm, steps) -> phases
    needs: tuple[Need, ...] = ()
    asks: tuple[str, ...] = ("architectures", "fronts")  # what it can be asked


FRONT = ("score", "multiply_adds", "parameters")  # of a candidate, in the order of a front's columns


def with_costs(evaluator, space, **costs: Callable[[Any], Any]):
    """The evaluator with more metrics, name -> (gates -> [])."""
    import jax

    from jaxnas import base

    def step(key, state, archs, batch):
        state, metrics = evaluator.step(key, state, archs, batch)
        more = {name: jax.vmap(lambda arch, cost=cost: cost(space.gates(arch)))(archs) for name, cost in costs.items()}
        return state, {**metrics, **more}

    return base.Evaluator(evaluator.init, step)


def _objective(job: Job, method: Method, name: str, evaluator):
    """(evaluator, objective): the metric, and for fronts few multiply-adds beside it."""
    from jaxnas import objectives

    if method.asks != "fronts":
        return evaluator, objectives.metric(name)
    both = objectives.columns(objectives.metric(name), objectives.negative("multiply_adds"))
    return with_costs(evaluator, job.space, multiply_adds=job.cost()), both


def _scratch(job: Job, method: Method, algorithm, steps: int):
    from jaxnas import base, evaluate, training

    config = job.config
    if config.stream:
        raise ValueError(
            "--stream: candidates that are trained from scratch want their images in memory: say --evaluator supernet, or search "
            "on shared weights, as with --strategy darts"
        )
    if method.asks == "trials":
        return _trials(job, method, algorithm, steps)
    trained = evaluate.train_from_scratch(job.net, training.sgd(job.cosine(config.candidate_steps)), criterion=job.criterion)
    evaluator, objective = _objective(job, method, job.criterion.name, trained)
    judged = max(1, len(job.data.valid.y) // config.batch) if hasattr(job.data.valid, "y") else 8
    feed = job.batches(config.candidate_steps, judged)
    return base.then(base.Phase(base.black_box(algorithm, evaluator, objective), steps, feed))


def _trials(job: Job, method: Method, algorithm, steps: int):
    import jax.numpy as jnp

    from jaxnas import base, data, evaluate, objectives, training

    config, s = job.config, job.settings
    if not hasattr(job.data.valid, "y"):
        raise ValueError(f"{config.strategy} trains members on images: search {config.space} with --strategy aging")
    rate = lambda progress: lambda t: config.learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * progress(t)))
    feed = job.batches(arch_steps=0)
    unit = -(-config.candidate_steps // s.largest)
    slots = s.largest if method.slots is None else method.slots(s)
    sizes = dict(slots=slots, budget=s.largest, unit=unit)
    trained = evaluate.train_trials(
        job.net, lambda progress: training.sgd(rate(progress)), feed.draw, criterion=job.criterion, **sizes
    )
    held = data.fixed(evaluate.Held(feed.arrays, job.data.valid))
    scored = base.black_box(algorithm, trained, objectives.metric(job.criterion.name))
    return base.then(base.Phase(scored, steps, held))


def _shared(job: Job, method: Method, algorithm, steps: int):
    from jaxnas import base, evaluate, training
    from jaxnas import weight_sharing as ws

    n = job.config.supernet_steps
    train = ws.spos(job.net, training.sgd(job.cosine(n)), criterion=job.criterion)
    judged = evaluate.shared_weights(job.net, criterion=job.criterion)
    evaluator, objective = _objective(job, method, job.criterion.name, judged)
    scored = base.black_box(algorithm, evaluator, objective)
    return base.then(
        base.Phase(train, n, job.batches(arch_steps=0), name="supernet"),
        base.Phase(scored, steps, job.judge(), fix=lambda state: state.variables),
    )


def _zero_cost(job: Job, method: Method, algorithm, steps: int):
    from jaxnas import base, evaluate

    proxy = job.config.proxy
    if proxy in LABELLED and job.criterion.name != "accuracy":
        raise ValueError(f"the proxy {proxy} looks at classes, which this target has not: take --proxy synflow, or see jaxnas list")
    evaluator, objective = _objective(job, method, proxy, evaluate.zero_cost(job.net, proxy))
    return base.then(base.Phase(base.black_box(algorithm, evaluator, objective), steps, job.batches(arch_steps=0)))


EVALUATORS: Table[EvaluatorEntry] = Table(
    "evaluator",
    {
        "scratch": EvaluatorEntry(
            "each candidate is trained from scratch, --candidate-steps", _scratch, asks=("architectures", "trials", "fronts")
        ),
        "supernet": EvaluatorEntry("on the weights of a supernet trained before, --supernet-steps", _shared, (IMAGES,)),
        "zero-cost": EvaluatorEntry("by a proxy at initialisation, --proxy", _zero_cost, (IMAGES,)),
    },
)
