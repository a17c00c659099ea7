"""A fitted surrogate as an evaluator: a candidate is worth what a model believes, for the price of a prediction.

    known = surrogates.fitted(key, model, archs, scores)
    strategy = black_box(algorithm, surrogate(model));    strategy.step(key, state, Batch(fixed=known))

Axes: B candidates.
"""

from jaxnas.ask_tell.trial import require_archs_alone
from jaxnas.base import Evaluator, stateless
from jaxnas.checks import checked
from jaxnas.surrogates.surrogate import Surrogate
from jaxnas.surrogates.validate import Fitted, predicted


@checked
def surrogate(model: Surrogate) -> Evaluator:
    """The evaluator that asks the surrogate whose fit is in `batch.fixed`.

    Metrics: "accuracy", the mean, and "std", both in the unit of the scores it was fitted to.

    Raises:
        ValueError: when traced without a fit in `batch.fixed`.
    """

    def evaluate(key, archs, batch):
        require_archs_alone(archs)
        del key  # deterministic
        if not isinstance(batch.fixed, Fitted):
            raise ValueError(
                "a fitted surrogate is read from `batch.fixed`: give Batch(fixed=fitted(key, surrogate, archs, scores))"
            )
        mean, std = predicted(model, batch.fixed, archs)
        return {"accuracy": mean, "std": std}

    return stateless(evaluate)
