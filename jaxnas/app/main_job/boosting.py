"""Gradient boosting on the rows of a table: what a person would have used without a network, tuned on the same validation data.

Reference: Friedman, Greedy Function Approximation, Annals of Statistics 29, 2001; in scikit-learn's histogram form, which follows
Ke et al., LightGBM, NeurIPS 2017.

    each setting is fitted once on train with TREES trees, and the validation data choose after how many it stops;  the best of all
    settings is fitted again on train and valid together

Outputs are those of a network: logits of classes and labels, and standardised numbers.  Host-side.

Axes: N examples, F inputs, K classes, labels or numbers.
"""

import contextlib
import itertools
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxnas.app.main_job.trainer import scorer
from jaxnas.data.dataset import Dataset
from jaxnas.driver.files import load_array, save_array
from jaxnas.training import Criterion

TREES, FEW = 300, 20_000
RATES, LEAVES, DECAYS = (0.1, 0.03, 0.3), (15, 5, 63), (0.0, 10.0)
SETTINGS = tuple(
    dict(learning_rate=rate, max_leaf_nodes=leaves, l2_regularization=decay)
    for decay, leaves, rate in itertools.product(DECAYS, LEAVES, RATES)
)  # the first are the usual ones


class Boosted(NamedTuple):
    """The best setting."""

    settings: dict[str, Any]  # of scikit-learn's estimator
    validation: float  # its mean score
    tried: int
    seconds: float
    outputs: np.ndarray  # [N, K], of the test data

    @property
    def text(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.settings.items())


def boost(directory: pathlib.Path, dataset: Dataset, criterion: Criterion, seconds: float, most: int | None = None) -> Boosted:
    """Tunes, fits and predicts; kept in boosting.json and boosting.npy of `directory`, and not done again.

    Args:
        directory: of the run.
        dataset: of rows.
        criterion: by whose score settings are chosen; with `balanced_accuracy`, examples are weighted, too.
        seconds: after which no further setting is tried.
        most: settings to try at most; then the clock does not count.

    Raises:
        ValueError: for files that are damaged.
    """
    held, kept = directory / "boosting.json", directory / "boosting.npy"
    if held.exists() and kept.exists():
        try:
            return Boosted(**json.loads(held.read_text()), outputs=load_array(kept))
        except (ValueError, TypeError, EOFError):
            raise ValueError(f"{held} or {kept.name} is damaged: remove both, and go on with jaxnas resume {directory}") from None
    began, best = time.perf_counter(), (-np.inf, {})
    tried = 0
    rows, y, score = np.asarray(dataset.train.x), np.asarray(dataset.train.y), scorer(criterion, dataset.valid.y)
    weighed = {"class_weight": "balanced"} if criterion.name == "balanced_accuracy" else {}
    with _threads(rows):
        for settings in SETTINGS[:most]:
            if most is None and tried and (time.perf_counter() - began) * (tried + 1) / tried > seconds:
                break
            models = _fitted(dataset, rows, y, {**settings, **weighed, "max_iter": TREES})
            values = [float(np.mean(score(outputs))) for outputs in _stages(dataset, models, np.asarray(dataset.valid.x))]
            if max(values) > best[0]:
                best = max(values), {**settings, **weighed, "max_iter": values.index(max(values)) + 1}
            tried += 1
        rows, y = (np.concatenate([np.asarray(a), np.asarray(b)]) for a, b in zip(dataset.train, dataset.valid, strict=True))
        models = _fitted(dataset, rows, y, best[1])
        *_, outputs = _stages(dataset, models, np.asarray(dataset.test.x))
    found = dict(settings=best[1], validation=best[0], tried=tried, seconds=round(time.perf_counter() - began, 3))
    save_array(kept, outputs)
    part = held.with_suffix(".part")
    part.write_text(json.dumps(found, indent=2) + "\n")
    part.replace(held)
    return Boosted(**found, outputs=outputs)


def _fitted(dataset: Dataset, x: np.ndarray, y: np.ndarray, settings: dict[str, Any]) -> list[Any]:
    """An estimator for each column of the target, one for all classes; the value alone of what is always the same."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = dataset.target.kind
    make = HistGradientBoostingRegressor if kind == "numbers" else HistGradientBoostingClassifier
    columns = [y] if kind == "classes" else list(y.T)
    fit = lambda column: make(early_stopping=False, random_state=0, **settings).fit(x, column)
    return [fit(column) if len(np.unique(column)) > 1 else float(column[0]) for column in columns]


def _threads(x: np.ndarray) -> contextlib.AbstractContextManager:
    """Threads wait for each other: on few rows, and beside other work, that takes longer than the work."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "openmp") if len(x) < FEW else contextlib.nullcontext()


def _stages(dataset: Dataset, models: list[Any], x: np.ndarray) -> Iterator[np.ndarray]:
    """Outputs [N, K] after one tree, after two, ..."""
    kind, K = dataset.target.kind, dataset.target.outputs
    if kind == "classes":
        (model,) = models
        if isinstance(model, float):  # the only class that train has
            yield np.where(np.arange(K) == int(model), 0.0, -30.0).astype(np.float32)[None].repeat(len(x), 0)
            return
        for raw in model.staged_decision_function(x):
            outputs = np.full((len(x), K), -30.0, np.float32)  # a class that train does not have
            known = model.classes_.astype(int)
            outputs[:, known] = np.stack([0 * raw, raw], 1) if raw.ndim == 1 else raw
            yield outputs
        return
    constant = lambda value: itertools.repeat(np.full(len(x), value if kind == "numbers" else 60.0 * value - 30.0))
    stages = "staged_predict" if kind == "numbers" else "staged_decision_function"
    each = [constant(m) if isinstance(m, float) else getattr(m, stages)(x) for m in models]
    if all(isinstance(m, float) for m in models):
        each[0] = iter([next(each[0])])
    for columns in zip(*each, strict=False):  # constants have no end
        yield np.stack([np.ravel(c) for c in columns], 1).astype(np.float32)
