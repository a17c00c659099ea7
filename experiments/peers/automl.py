"""The main job against what users would pick: the same data, the same parts of it, the same minutes, the same machine.

    python experiments/peers/automl.py RUN [RUN ...]      (needs the extra `peers`: FLAML and AutoKeras)

RUN is a finished run directory of `jaxnas search --minutes M`.  Its train and valid parts are given to FLAML, rows as they are and
images as rows of pixels, and, where the examples are images, to AutoKeras, for M minutes each; all three are tested on the same
test part.  FLAML's default learners are trees and linear models; AutoKeras searches networks (vanilla, ResNet, EfficientNet blocks)
by a greedy tuner, with as many epochs as it likes.  What a peer needs beyond its minutes is in the column of seconds.

Two CPU cores, nothing else running.

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


def flaml(x, y, x_test, kind, minutes, where):
    from flaml import AutoML

    model = AutoML()
    task = "classification" if kind == "classes" else "regression"
    model.fit(x.reshape(len(x), -1), y, task=task, time_budget=60 * minutes, verbose=0, seed=0, log_file_name=str(where / "log"))
    return model.predict(x_test.reshape(len(x_test), -1)), model.best_estimator, len(pickle.dumps(model.model))


def autokeras(x, y, x_test, kind, minutes, where):
    import autokeras
    import keras

    if x.ndim != 4 or kind != "classes":
        return None
    ends = time.time() + 60 * minutes

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = time.time() > ends

    model = autokeras.ImageClassifier(max_trials=1000, overwrite=True, directory=where, seed=0)
    # a trial that begins when the time is over ends with its first batch; what was exported before is what is tested
    model.tuner.oracle.max_trials = 1000
    tuner_search = model.tuner.on_trial_end

    def on_trial_end(trial):
        tuner_search(trial)
        if time.time() > ends:
            model.tuner.oracle.max_trials = len(model.tuner.oracle.trials)

    model.tuner.on_trial_end = on_trial_end
    model.fit(x, y, validation_split=0.15, callbacks=[Clock()], verbose=0)
    best = model.export_model()
    return np.asarray(model.predict(x_test, verbose=0)).reshape(-1).astype(y.dtype), "network", 4 * best.count_params()


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
    print("| data | jaxnas | MB | peer | score | best | MB | seconds |\n|---|---|---|---|---|---|---|---|")
    for run in map(pathlib.Path, runs):
        x, y, x_test, y_test, kind, minutes = parts(run)
        result = json.loads((run / "result.json").read_text())
        kept = result[result["kept"]]
        ours = 100 * (kept["test_accuracy"] if kind == "classes" else kept["test_r2"])
        for peer in (flaml, autokeras):
            where = run / "peers" / peer.__name__
            where.mkdir(parents=True, exist_ok=True)
            began = time.perf_counter()
            found = peer(x, y if kind == "classes" else y.reshape(-1), x_test, kind, minutes, where)
            if found is not None:
                predicted, best, size = found
                row = [run.name, f"{ours:.2f}", f"{4e-6 * kept['parameters']:.3f}", peer.__name__]
                row += [f"{score(predicted, y_test, kind):.2f}", best, f"{1e-6 * size:.3f}", f"{time.perf_counter() - began:.0f}"]
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
