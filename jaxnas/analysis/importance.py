"""What made it good?  Which decisions explain the scores, alone and in combination.

References: Hutter, Hoos and Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014 (functional
analysis of variance); Hooker, Generalized Functional ANOVA Diagnostics, JCGS 16, 2007.

    a_U(x_U)  =  mean of f over all settings of the decisions outside U
    V_U       =  Var a_U - sum of V_W over the proper subsets W of U;      share of U = V_U / Var f;  all shares sum to 1

`exact` takes f from a table of the whole space.  `from_history` takes it from a random forest of what was seen: a leaf is a box, a
product of sets of values, so that each tree's marginals are exact; its shares are the mean over trees.  They describe the forest,
which is as good as its out-of-bag fit, and a search confined to one corner of the space explains only that corner.  The measure is
uniform over the settings of all decisions, as `space.sample` draws them; `exact` reads a decision that is off as its value 0, a
forest does not know which are off.

Host-side functions.  See `jaxnas.analysis.motifs` for what the best share, `jaxnas.plot.importance` for a picture.

Axes: N architectures, D decisions, A their largest arity, L leaves, T trees.
"""

import itertools
import math
import string
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxnas.base import Key
from jaxnas.spaces._space import Space
from jaxnas.spaces.cell import CellSpec

Subset = tuple[int, ...]


class Importance(NamedTuple):
    shares: dict[Subset, float]  # of the variance, by the decisions that act together
    spread: dict[Subset, float]  # deviation between trees; 0 from a table
    fit: float  # R2 of what a tree has not seen (out of bag), NaN for too few; 1 from a table


def exact(space: Space, values: ArrayLike, order: int = 2) -> Importance:
    """The shares of all sets of up to `order` decisions, from a table of the whole space.

    Args:
        space: of fewer than 2**31 settings.
        values: [raw size], in the order of `space.index`, as `jaxnas.evaluate.rows` makes it.
        order: the largest set, default pairs; D or more for all, which sum to 1.

    Raises:
        ValueError: for reals, an order below 1, a table of another size or with gaps, or one that is constant.
    """
    arity = decisions(space, order)
    table = np.asarray(values, np.float64)
    if table.shape != (math.prod(arity),):
        raise ValueError(f"give one value a setting, [{math.prod(arity)}]; got shape {table.shape}")
    every = np.stack(np.unravel_index(np.arange(len(table)), arity), -1).astype(np.int32)
    settled = np.asarray(jax.jit(jax.vmap(lambda v: space.flat(space.unflat(v)) * space.active(space.unflat(v))))(every))
    table = table[np.ravel_multi_index(tuple(settled.T), arity)]
    if not np.isfinite(table).all():
        raise ValueError(f"{np.sum(~np.isfinite(table))} settings have no value: take from_history for what is known")
    cube = table.reshape(arity)
    marginal = lambda subset: cube.mean(tuple(d for d in range(len(arity)) if d not in subset))
    shares = _shares(marginal, arity, order, table.var())
    return Importance(shares, dict.fromkeys(shares, 0.0), 1.0)


def from_history(key: Key, space: Space, archs: ArrayLike, scores: ArrayLike, *, order: int = 2, trees: int = 64) -> Importance:
    """The shares according to a random forest of architectures that were scored.

    Args:
        key: of the forest.
        space: without reals.
        archs: int[N, D], flat decisions.
        scores: [N]; architectures without a finite one are left out, repeats count as one with their mean.
        order: the largest set, default pairs.
        trees: T, at least 32, so that each architecture is out of some tree's bag.

    Raises:
        ValueError: for reals, an order below 1, too few trees, an empty history, or one whose scores are all the same.
    """
    arity = decisions(space, order)
    archs, scores = unique(space, archs, scores)
    if trees < 32:
        raise ValueError(f"a forest of {trees} trees leaves some architectures in every bag: give at least 32")
    if np.ptp(scores) == 0:
        raise ValueError("nothing to explain: all scores are the same")
    from sklearn.ensemble import RandomForestRegressor  # takes a while

    which = np.repeat(np.arange(len(arity)), arity)  # the decision of each one-hot feature
    value = np.concatenate([np.arange(a) for a in arity])
    hot = (archs[:, which] == value[None]).astype(np.float32)
    seed = int(jax.random.bits(key) >> 1)
    forest = RandomForestRegressor(trees, max_features=1 / 3, oob_score=True, random_state=seed)
    forest.fit(hot, scores)
    per_tree = []
    for estimator in forest.estimators_:
        leaves, heights = _boxes(estimator.tree_, which, value, arity)
        weight = leaves.sum(2) / np.asarray(arity)[None]  # [L, D]: the part of each decision's values in the box

        def marginal(subset, leaves=leaves, heights=heights, weight=weight):
            rest = [d for d in range(len(arity)) if d not in subset]
            total = heights * weight[:, rest].prod(1)  # [L]
            letters = string.ascii_lowercase[: len(subset)]
            boxes = [leaves[:, d, : arity[d]] for d in subset]
            return np.einsum(f"Z,{','.join('Z' + c for c in letters)}->{letters}", total, *boxes)

        variance = np.sum(heights**2 * weight.prod(1)) - np.sum(heights * weight.prod(1)) ** 2
        if variance > 0:  # else a single leaf
            per_tree.append(_shares(marginal, arity, order, variance))
    table = {s: np.asarray([each[s] for each in per_tree]) for s in subsets(len(arity), order)}
    fit = float(forest.oob_score_)
    return Importance({s: float(v.mean()) for s, v in table.items()}, {s: float(v.std()) for s, v in table.items()}, fit)


def decisions(space: Space, order: int) -> tuple[int, ...]:
    """The arities; ValueError for a space with reals, or an order below 1."""
    if space.reals is not None:
        raise ValueError("this space has real dimensions: importance needs decisions only")
    if order < 1:
        raise ValueError(f"sets of {order} decisions say nothing: give at least 1")
    return tuple(int(n) for n in space.arity)


def subsets(D: int, order: int) -> list[Subset]:
    """The sets of 1 to `order` of D decisions, small ones first."""
    return [s for size in range(1, order + 1) for s in itertools.combinations(range(D), size)]


def _shares(marginal, arity, order, total):
    """V_U / Var f, small sets first."""
    if not total > 0:
        raise ValueError("nothing to explain: all values are the same")
    found: dict[Subset, float] = {}
    for subset in subsets(len(arity), order):
        inner = sum(found[w] for size in range(1, len(subset)) for w in itertools.combinations(subset, size))
        found[subset] = float(np.var(marginal(subset)) / total) - inner
    return found


def _boxes(tree, which, value, arity):
    """bool[L, D, A], the values of each decision that lead to a leaf, and the leaves' heights [L]."""
    boxes, heights = [], []
    whole = np.arange(max(arity))[None] < np.asarray(arity)[:, None]  # [D, A]
    todo = [(0, whole)]
    while todo:
        node, box = todo.pop()
        if tree.children_left[node] < 0:
            boxes.append(box)
            heights.append(tree.value[node, 0, 0])
            continue
        d, v = which[tree.feature[node]], value[tree.feature[node]]
        without, only = box.copy(), box.copy()
        without[d, v] = False  # the left child: the one-hot feature is 0
        only[d] &= np.arange(box.shape[1]) == v
        todo += [(tree.children_left[node], without), (tree.children_right[node], only)]
    return np.asarray(boxes), np.asarray(heights)


# Input and output


def history(space: Space, infos: Any) -> tuple[np.ndarray, np.ndarray]:
    """(archs int32[N, D], scores [N]) of all candidates in a `Result.infos`, or in one phase's; of several columns, the first.

    Raises:
        ValueError: where no phase scored candidates.
    """
    infos = [infos] if hasattr(infos, "scores") else infos
    template = jax.tree.leaves(jax.eval_shape(space.sample, jax.random.key(0)))
    archs, scores = [], []
    for info in infos:
        if hasattr(info, "archs") and hasattr(info, "scores"):
            leaves, tree = jax.tree.flatten(info.archs)
            n = math.prod(leaves[0].shape[: leaves[0].ndim - len(template[0].shape)])
            rows = tree.unflatten([np.reshape(a, (n, *t.shape)) for a, t in zip(leaves, template, strict=True)])
            archs.append(np.asarray(jax.vmap(space.flat)(rows)))
            scores.append(np.reshape(info.scores, (n, -1))[:, 0])
    if not archs:
        raise ValueError("an empty history: no phase of this run scored candidates")
    return np.concatenate(archs), np.concatenate(scores)


def unique(space: Space, archs: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Each architecture once, with the mean of its finite scores; ValueError where there is none."""
    archs, scores = checked(space, archs), np.asarray(scores, np.float64)
    if scores.shape != (len(archs),):
        raise ValueError(f"give one score an architecture, [{len(archs)}]; got shape {scores.shape}")
    seen = np.isfinite(scores)
    if not seen.any():
        raise ValueError("an empty history: no architecture has a finite score")
    rows, which = np.unique(archs[seen], axis=0, return_inverse=True)
    which = which.ravel()  # numpy 2.0 gives a column
    return rows, np.bincount(which, scores[seen]) / np.bincount(which)


def checked(space: Space, archs: ArrayLike) -> np.ndarray:
    """The flat decisions as int32[N, D]; ValueError for what are no architectures of the space."""
    archs, arity = np.asarray(archs), space.arity
    if archs.ndim != 2 or archs.shape[1] != len(arity) or not np.issubdtype(archs.dtype, np.integer):
        raise ValueError(
            f"`archs` must be integers [N, {len(arity)}], one flat architecture a row; got {archs.dtype}{[*archs.shape]}"
        )
    if ((archs < 0) | (archs >= arity)).any():
        raise ValueError(f"decisions outside the space: its arities are {arity.tolist()}")
    return archs.astype(np.int32)


def names(space: Space) -> list[tuple[str, list[str]]]:
    """The name of each decision and of its values: an edge's nodes and operations where a cell has them, else numbers."""
    spec, out = space.spec, []
    ops = list(getattr(spec, "ops", ()))
    real = [name for name in ops if name != "none"]
    for path, arity in jax.tree_util.tree_flatten_with_path(space.decisions)[0]:
        field, arity = jax.tree_util.keystr(path, simple=True, separator="."), np.asarray(arity)
        edges = isinstance(spec, CellSpec) and spec.inputs == 1 and arity.shape == (len(spec.edges),)
        for i, n in zip(np.ndindex(arity.shape), arity.ravel().tolist(), strict=True):
            where = f"{spec.edges[i[0]][0]}->{spec.edges[i[0]][1] + 1}" if edges else ""
            known = next((k for k in (ops, real) if len(k) == n and field.split(".")[-1] == "op"), [str(k) for k in range(n)])
            out.append((where or (field or "decision") + "".join(f"[{k}]" for k in i), known))
    return out


def report(space: Space, importance: Importance, found: Iterable[Any] = (), alike: Any = None, most: int = 12) -> str:
    """A table of the largest shares, of motifs, and of how alike the runs are.

    Args:
        space: names the decisions and their values.
        importance: the shares.
        found: `jaxnas.analysis.motifs.Motif`s to list; default none.
        alike: a `jaxnas.analysis.motifs.Agreement`; default none.
        most: shares to list.
    """
    label = names(space)
    largest = sorted(importance.shares, key=lambda s: importance.shares[s], reverse=True)[:most]
    lines = [f"Shares of the variance (fit: R2 {importance.fit:.2f})", "", "| decisions | share, % | +- |", "|---|---|---|"]
    for s in largest:
        lines.append(
            f"| {', '.join(label[d][0] for d in s)} | {100 * importance.shares[s]:.1f} | {100 * importance.spread[s]:.1f} |"
        )
    rest = 1 - sum(importance.shares.values())
    lines.append(f"| larger sets | {100 * rest:.1f} | |")
    found = list(found)
    if found:
        lines += ["", "| motif of the best | best | all | lift | p |", "|---|---|---|---|---|"]
    for m in found:
        text = ", ".join(f"{label[d][0]} {label[d][1][v]}" for d, v in zip(m.decisions, m.values, strict=True))
        lines.append(f"| {text} | {m.best} | {m.known} | {m.lift:.2f} | {m.p:.1e} |")
    if alike is not None:
        lines += ["", f"Two runs differ in {alike.distance:.2f} decisions, two random architectures in {alike.by_chance:.2f}; "]
        lines[-1] += f"they find the same network in {100 * alike.same:.0f} % of pairs."
    return "\n".join(lines)
