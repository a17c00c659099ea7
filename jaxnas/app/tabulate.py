"""A benchmark of one's own: every architecture of a small space, or a sample, trained on one's data and kept as a table.

The file is what `jaxnas.evaluate.benchmark.load_table` and `jaxnas bench` read.  It grows chunk by chunk, each written whole
before it takes the last one's place, so that a run that is cut goes on where it was.
"""

import json
import math
import os
import pathlib
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.data.dataset import Dataset
from jaxnas.data.feed import batches
from jaxnas.data.npz import read_npz
from jaxnas.driver.program import compiler_options
from jaxnas.evaluate.population import population
from jaxnas.nets.base import Net
from jaxnas.spaces._every import every
from jaxnas.spaces._space import Space
from jaxnas.training.scratch import accuracy


def choose(key: jax.Array, space: Space, n: int) -> np.ndarray:
    """int32[N, D]: n different architectures of a space, drawn; all of them, in the order of their index, where n is 0.

    Raises:
        ValueError: for a negative n or more than there are, all of a space of a million or more, or one with real dimensions.
    """
    if space.reals is not None:
        raise ValueError("this space has real dimensions: a table needs decisions only")
    if not 0 <= n <= space.size or (n == 0 and space.size >= 1e6):
        raise ValueError(f"this space has {space.size:,.0f} architectures: tabulate 1 to {min(space.size, 999_999):,.0f} of them")
    if n in (0, space.size):
        return every(space)
    found = np.zeros((0, len(space.arity)), np.int32)
    while len(found) < n:
        key, k_draw = jax.random.split(key)
        drawn = jax.jit(jax.vmap(lambda k: space.flat(space.sample(k))))(jax.random.split(k_draw, 2 * n))
        both = np.concatenate([found, np.asarray(drawn)])
        found = both[np.sort(np.unique(both, axis=0, return_index=True)[1])][:n]
    return found


class Recipe(NamedTuple):
    """How each is trained."""

    optimizer: optax.GradientTransformation  # of the weights, over `steps`
    steps: int
    batch: int = 64  # examples a step


def tabulate(
    path: str | pathlib.Path,
    net: Net,
    dataset: Dataset,
    recipe: Recipe,
    *,
    key: jax.Array,
    archs: np.ndarray,
    name: str | None = None,
    chunk: int = 16,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Trains `archs` on the train half, scores them on the valid half and on the test set; returns how many diverged.

    All see the same batches, each has weights of its own.  Columns: archs, arity, accuracy and test (fractions), cost
    (seconds of training and scoring: the mean of the chunk), and what the table was made with.  Architectures that diverge
    are left out.

    Args:
        path: the .npz; a file that holds part of the same table is continued.
        net: the supernet of the space.
        dataset: the data.
        recipe: how each is trained.
        key: the root of all randomness; batches and weights do not depend on the chunk.
        archs: int32[N, D], such as `choose` gives.
        name: of the space in `jaxnas list`, kept in the file for `jaxnas bench`; default: that of none.
        chunk: architectures between two writes.
        say: takes a line for a person after each chunk.

    Raises:
        ValueError: for sizes below 1, or data whose target is no class.
        DataError: for a batch larger than the train half.
        FileExistsError: for a file that holds another table.
        PermissionError: where no file can be written, before anything is trained.
    """
    optimizer, steps, batch = recipe
    if dataset.target.kind != "classes":
        raise ValueError(f"a table holds accuracies, and {dataset.name} has {dataset.target.kind} to predict: give data of classes")
    if min(steps, batch, chunk, len(archs)) < 1:
        raise ValueError(f"a table needs at least one architecture, step and example; got {len(archs)}, {steps} and {batch}")
    path = pathlib.Path(path)
    k_data, k_weights = jax.random.split(key)
    feed = batches(dataset, batch, weight_steps=steps, arch_steps=0)
    shapes = jax.tree.leaves(jax.eval_shape(net.init, key))
    made = {"data": dataset.name, "image": list(net.image), "steps": steps, "batch": batch}
    made |= {"key": jax.random.key_data(key).tolist(), "weights": sum(math.prod(leaf.shape) for leaf in shapes)}
    made |= {"architectures": len(archs), "checksum": zlib.crc32(np.ascontiguousarray(archs, np.int32).tobytes())}
    rows: dict[str, Any]
    rows, trained = _resume(path, made, len(net.space.arity))

    def run(keys, flat, arrays, k_data, held):
        train = feed.draw(k_data, arrays, jnp.zeros((), jnp.int32)).train
        score = lambda logits_of, held: {name: accuracy(logits_of, split) for name, split in held.items()}
        return population(net, optimizer, score)(keys, jax.vmap(net.space.unflat)(flat), train, held)

    held = {"accuracy": dataset.valid, "test": dataset.test}
    chunk, compiled = min(chunk, len(archs)), None
    while trained < len(archs):
        at = trained + np.arange(chunk)
        last = np.minimum(at, len(archs) - 1)  # the last chunk is filled up with the last architecture
        keys = jax.vmap(lambda i: jax.random.fold_in(k_weights, i))(last)
        arguments = keys, jnp.asarray(archs[last]), feed.arrays, k_data, held
        if compiled is None:
            compiled = jax.jit(run, compiler_options=compiler_options()).lower(*arguments).compile()
        began = time.perf_counter()
        metrics = jax.tree.map(np.asarray, compiled(*arguments))
        seconds = (time.perf_counter() - began) / chunk
        keep = (at < len(archs)) & np.isfinite(metrics["loss"])
        new = {"archs": archs[last], "cost": np.full(chunk, seconds), **{name: metrics[name] for name in held}}
        rows = {name: np.concatenate([values, new[name][keep]]) for name, values in rows.items()}
        trained = min(trained + chunk, len(archs))
        more = {} if name is None else {"space": np.asarray(name)}
        with open(_part(path), "wb") as file:
            saved: dict[str, Any] = {"made": np.asarray(json.dumps(made)), "trained": trained, **rows, **more}
            np.savez_compressed(file, arity=net.space.arity, **saved)
        os.replace(_part(path), path)
        say(f"{trained} of {len(archs)} architectures, {seconds:.2f} s each")
    return trained - len(rows["archs"])


def _part(path):
    """Where a table is written before it takes the last one's place."""
    return path.with_name(path.name + ".part")


def _resume(path, made, decisions):
    """The rows so far, and how many architectures they come from."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _part(path).touch()
    except OSError as error:
        raise PermissionError(f"cannot write {path} ({error.strerror}): give another --out") from None
    _part(path).unlink()
    if not path.exists():
        return {"archs": np.zeros((0, decisions), np.int32), **{n: np.zeros(0) for n in ("accuracy", "test", "cost")}}, 0
    names = ("archs", "accuracy", "test", "cost", "made", "trained")
    held, _ = read_npz(path, names, instead="give another --out", write="jaxnas tabulate")
    if set(held) != set(names) or json.loads(str(held.pop("made"))) != made:
        raise FileExistsError(f"{path} exists and holds another table: give another --out")
    return held, int(held.pop("trained"))
