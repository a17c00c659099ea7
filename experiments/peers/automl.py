"""The main job against what users would pick: the same data, the same parts of it, the same minutes, the same machine.

    python experiments/peers/automl.py RUN [RUN ...]      (needs the extra `peers`: FLAML)

RUN is a finished run directory of `jaxnas search --minutes M`.  FLAML is given its train and valid parts together for M minutes,
rows as they are, images and series as rows of numbers; both are tested on the same test part.  FLAML's
learners are boosted trees, forests, nearest neighbours and linear models, tuned by a cost-frugal search.

One pinned core a run.

Results: docs/results.md#does-searching-pay
"""

import json
import pathlib
import pickle
import sys
import time

import jax
import numpy as np

from jaxnas.app.config import load_config
from jaxnas.app.search import net_entry
from jaxnas.app.tasks import TASKS


def flaml(x, y, x_test, kind, minutes):
    """(predictions of x_test, the learner, bytes of the model)."""
    from flaml import AutoML

    model = AutoML()
    task = "classification" if kind == "classes" else "regression"
    model.fit(x.reshape(len(x), -1), y, task=task, time_budget=60 * minutes, verbose=0, seed=0)
    return model.predict(x_test.reshape(len(x_test), -1)), model.best_estimator, len(pickle.dumps(model.model))


def parts(directory):
    """(x, y, x_test, y_test, kind) of a run, as its networks saw them: train and valid together."""
    config = load_config(directory)
    k_data, *_ = jax.random.split(jax.random.key(config.seed), 4)
    dataset = TASKS[net_entry(config).data].load(config, k_data)
    x, y = (np.concatenate([np.asarray(a), np.asarray(b)]) for a, b in zip(dataset.train, dataset.valid, strict=True))
    return x, y, np.asarray(dataset.test.x), np.asarray(dataset.test.y), dataset.target.kind, config.minutes


def score(predicted, y, kind):
    """Accuracy, or R2, in percent."""
    if kind == "classes":
        return 100 * float(np.mean(predicted == y))
    predicted, y = predicted.reshape(-1), y.reshape(-1)
    return 100 * (1 - float(np.mean((predicted - y) ** 2) / np.var(y)))


def main(*runs):
    print("| data | minutes | jaxnas | MB | FLAML | its learner | MB | seconds |\n|---|---|---|---|---|---|---|---|")
    for run in map(pathlib.Path, runs):
        x, y, x_test, y_test, kind, minutes = parts(run)
        result = json.loads((run / "result.json").read_text())
        kept = result[result["kept"]]
        ours = 100 * (kept["test_accuracy"] if kind == "classes" else kept["test_r2"])
        began = time.perf_counter()
        predicted, best, size = flaml(x, y if kind == "classes" else y.reshape(-1), x_test, kind, minutes)
        row = [run.name, f"{minutes:g}", f"{ours:.2f}", f"{4e-6 * kept['parameters']:.3f}"]
        row += [f"{score(predicted, y_test, kind):.2f}", best, f"{1e-6 * size:.3f}", f"{time.perf_counter() - began:.0f}"]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
