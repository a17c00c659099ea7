"""Does searching pay for a person with data?  The main job on several data sets and seeds, against rivals of equal total cost.

    python experiments/does_it_pay.py MINUTES SEEDS OUT DATA [DATA ...]

DATA is as `jaxnas search --data` reads it, or one of `MADE`: tables of scikit-learn, a folder of images, and series, made in OUT.
A run is `jaxnas search --data DATA --minutes MINUTES --seed S`: the search, whose first networks are hand-made ones, each with
three trainings, and random networks have a third of the time each; on tables these two and gradient boosting have a quarter each.
What is compared is trained again on train and valid together, from 1 to 5 seeds, and tested once; the found network is the best of
the search alone, so that the best of the random ones has cost as much.  The seed draws the splits, too.  The verdict of a run is
that of its paired interval: b(etter), l(evel), w(orse), or = for the same network.  A run that is there already is read, not run
again.

Two CPU cores, MINUTES a run.

Results: docs/results.md#does-searching-pay
"""

import json
import math
import pathlib
import sys

import _common
import numpy as np
from PIL import Image
from scipy import stats
from sklearn import datasets

from jaxnas.app import search, times
from jaxnas.app.config import Config, prepare

JUDGED = ("one-random", "random", "hand-made", "gradient-boosting")  # by paired intervals
RIVALS = (*JUDGED, "ensemble")


# --- data -------------------------------------------------------------------------------------------------------------


def table(name):
    """-> (where) -> a CSV of one of scikit-learn's tables."""

    def make(where: pathlib.Path) -> str:
        bunch = getattr(datasets, f"load_{name}")(as_frame=True)
        frame = bunch.frame
        if "target_names" in bunch:
            frame["target"] = [bunch.target_names[i] for i in frame["target"]]
        frame.to_csv(where / f"{name}.csv", index=False)
        return str(where / f"{name}.csv")

    return make


def folder(where: pathlib.Path) -> str:
    """Half of the digits, as PNG files of 8 x 8 pixels in a folder a class."""
    digits = datasets.load_digits()
    for i, (image, y) in enumerate(zip(digits.images[::2], digits.target[::2], strict=True)):
        of_class = where / "folder" / f"digit {y}"
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(image * 15)).save(of_class / f"{i}.png")
    return str(where / "folder")


def waves(where: pathlib.Path) -> str:
    """1,200 series of 48 times and two channels: sines, squares, triangles and saws of any phase under noise of 0.8."""
    rng, N, T = np.random.default_rng(0), 1200, 48
    y = rng.integers(0, 4, N)
    a = 2 * np.pi * rng.uniform(1.5, 3, (N, 1)) * np.arange(T) / T + rng.uniform(0, 2 * np.pi, (N, 1))
    shapes = np.stack([np.sin(a), np.sign(np.sin(a)), 2 * np.abs((a / np.pi) % 2 - 1) - 1, (a / np.pi) % 2 - 1], 1)
    clean = shapes[np.arange(N), y]
    x = np.stack([clean, 0.5 * np.roll(clean, 5, 1)], -1) + 0.8 * rng.normal(size=(N, T, 2))
    np.savez(where / "waves.npz", x=x.astype(np.float32), y=np.asarray(["sine", "square", "triangle", "saw"])[y])
    return str(where / "waves.npz")


MADE = {name: table(name) for name in ("breast_cancer", "wine", "diabetes")} | {"folder": folder, "waves": waves}


# --- runs -------------------------------------------------------------------------------------------------------------


def result_of(where: pathlib.Path, data: str, minutes: float, seed: int) -> dict:
    if not (where / "result.json").exists():
        config = Config(data=data, minutes=minutes, seed=seed, layout="NTC" if data.endswith("waves.npz") else None)
        search.execute(where if (where / "config.json").exists() else prepare(str(where), config), config, say=print)
    return times.with_times(where, json.loads((where / "result.json").read_text()))


def score(network: dict) -> float:
    """Accuracy, in percent; R2 of a regression, in percent."""
    return 100 * next(network[f"test_{name}"] for name in ("accuracy", "label_accuracy", "r2") if f"test_{name}" in network)


def interval(values: list[float]) -> str:
    """The mean over seeds and its 95 % interval (Student t); of one seed the value alone, whose interval its own result has."""
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return f"{mean:+.2f}"
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def letter(d: dict | None) -> str:
    return "?" if d is None else "=" if d["same_network"] else d["verdict"][0]


def row(name: str, runs: list[dict]) -> str:
    found = [score(r["found"]) for r in runs]
    columns = [name, f"{np.mean(found):.2f}", f"{np.mean([score(r[r['kept']]) for r in runs]):.2f}"]
    for rival in RIVALS:
        there = [(f, score(r[rival])) for f, r in zip(found, runs, strict=True) if rival in r]
        columns.append(interval([f - s for f, s in there]) if there else "")
    for rival in JUDGED:
        columns.append(" ".join(letter(r["against"].get(rival)) for r in runs) if rival in runs[0]["against"] else "")
    fewer = [r["found"]["multiply_adds"] / max(r["small"]["multiply_adds"], 1) for r in runs if "small" in r]
    columns.append(" ".join(f"{n:.1f}" for n in fewer))
    columns.append(" ".join(f"{r['trials']['search']}+{r['trials']['random']}" for r in runs))
    columns.append(f"{100 * np.mean([r['waited_share'] for r in runs]):.0f} %")
    return f"| {' | '.join(columns)} |"


def main(minutes, seeds, out, *sources):
    out = _common.made(out)
    head = ["data", "found", "kept", *(f"- {rival}" for rival in RIVALS), *(f"verdicts, {rival}" for rival in JUDGED)]
    head += ["times fewer multiply-adds of small", "trials", "waiting"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    _common.made(out / "data")
    for data in sources:
        spec = MADE[data](out / "data") if data in MADE else data
        name = pathlib.Path(spec).stem
        lines.append(row(name, [result_of(out / f"{name}-{seed}", spec, float(minutes), seed) for seed in range(int(seeds))]))
        (out / "results.md").write_text("\n".join(lines) + "\n")
        print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
