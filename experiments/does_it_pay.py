"""Does searching pay for a person with data?  The main job on several data sets and seeds, against rivals of equal total cost.

    python experiments/does_it_pay.py MINUTES SEEDS OUT DATA [DATA ...]        DATA as `jaxnas search --data` reads it

A run is `jaxnas search --data DATA --minutes MINUTES --seed S` in OUT: half of the search's time goes to hand-made networks, each
with three trainings, and to mutants of the best of them, the other half to random networks.  The seed draws the splits, too.  What
is compared is trained again on train and valid together, from 2 to 5 seeds, and tested once.  A run that is there already is read,
not run again.

Two CPU cores, MINUTES a run.

Results: docs/results.md#does-searching-pay
"""

import json
import math
import pathlib
import sys

import _common
import numpy as np
from scipy import stats

from jaxnas.app import search
from jaxnas.app.config import Config, prepare

RIVALS = ("hand-made", "random", "ensemble")


def result_of(where: pathlib.Path, data: str, minutes: float, seed: int) -> dict:
    if not (where / "result.json").exists():
        config = Config(data=data, minutes=minutes, seed=seed)
        search.execute(where if (where / "config.json").exists() else prepare(str(where), config), config, say=print)
    return json.loads((where / "result.json").read_text())


def score(network: dict) -> float:
    """Accuracy, in percent; minus the RMSE of a regression."""
    return (
        -network["test_rmse"] if "test_rmse" in network else 100 * network.get("test_accuracy", network.get("test_label_accuracy"))
    )


def interval(values: list[float]) -> str:
    """The mean over seeds and its 95 % interval (Student t); of one seed the value alone, whose interval its own result has."""
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return f"{mean:+.2f}"
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def main(minutes, seeds, out, *sources):
    out = _common.made(out)
    lines = [
        "| data | found | - hand-made | - random | ensemble - found | verdicts against hand-made; random | trials |",
        "|" + "---|" * 7,
    ]
    for data in sources:
        name = pathlib.Path(data).stem
        runs = [result_of(out / f"{name}-{seed}", data, float(minutes), seed) for seed in range(int(seeds))]
        found = [score(r["found"]) for r in runs]
        less = {rival: [f - score(r[rival]) for f, r in zip(found, runs, strict=True)] for rival in RIVALS}
        verdicts = "; ".join(" ".join(r["against"][rival]["verdict"] for r in runs) for rival in RIVALS[:2])
        trials = " ".join(f"{r['trials']['search']}+{r['trials']['random']}" for r in runs)
        columns = interval(less["hand-made"]), interval(less["random"]), interval([-d for d in less["ensemble"]]), verdicts, trials
        lines.append(" | ".join([f"| {name}", f"{np.mean(found):.2f}", *columns]) + " |")
        (out / "results.md").write_text("\n".join(lines) + "\n")
        print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
