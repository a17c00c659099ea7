"""Trees as surrogates: scikit-learn grows them on the host, JAX reads them.

References: Friedman, Greedy Function Approximation: A Gradient Boosting Machine, Annals of Statistics 29, 2001; Breiman, Random
Forests, Machine Learning 45, 2001; for architectures, Luo et al., Neural Architecture Search with GBDT, arXiv:2007.04785.

    boosted   f_m = mean + rate sum_t tree_t,  each tree fitted to what the ones before it left;   member m: a bootstrap of the data
    forest    f_m = tree_m, on a bootstrap of the data and a share of the features at each split
    mean(x) = mean_m f_m(x),   std(x) = std_m f_m(x)

`predict` walks the trees as arrays, under jit and vmap like any other.  `fit` leaves the compiled program for the host and comes
back (`jax.pure_callback`): seeds are grown one after the other, on one core.  Over a mesh that can hang for ever in jaxlib 0.10,
one device in the callback and the other waiting for it, so that a mesh is refused.

Axes: M members, T trees of a member, V nodes of a tree, N capacity, F features, C candidates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch
from jaxnas.checks import checked
from jaxnas.kinds import Positive, PositiveNumber, Share
from jaxnas.surrogates.surrogate import Surrogate
from jaxnas.trees import count


class Trees(NamedTuple):
    """Arrays of JAX, and of NumPy while they are grown."""

    feature: Any  # int32[M, T, V] that a node asks for
    threshold: Any  # float32[M, T, V]
    child: Any  # int32[M, T, V, 2]: where x <= threshold, and where not; a leaf leads to itself
    value: Any  # float32[M, T, V]; boosted trees: times their rate
    start: Any  # float32[M], before the first tree
    depth: Any  # int32[], of the deepest


@checked
def boosted_trees(
    encode: Callable[[Arch], jax.Array],
    *,
    members: Positive = 5,
    trees: Positive = 100,
    depth: Positive = 3,
    rate: PositiveNumber = 0.1,
) -> Surrogate:
    """Gradient-boosted trees, several times over: how much the members disagree is the uncertainty.

    Args:
        encode: arch -> float32[F].
        members: M, default 5; 1: all the data, no uncertainty.
        trees: T, default 100.
        depth: of a tree, default 3.
        rate: of a step, default 0.1; these three are Friedman's and scikit-learn's.

    Raises:
        ValueError: for sizes below 1 or a rate that is not positive.
    """
    if min(members, trees, depth) < 1 or not rate > 0:
        raise ValueError(f"boosted trees need positive sizes and rate; got {members=}, {trees=}, {depth=}, {rate=}")

    def grow(seed, x, y):
        from sklearn.ensemble import GradientBoostingRegressor  # takes a while: only fits pay it

        model = GradientBoostingRegressor(n_estimators=trees, max_depth=depth, learning_rate=rate, random_state=seed).fit(x, y)
        mean: Any = model.init_  # a DummyRegressor
        return [tree.tree_ for tree in model.estimators_[:, 0]], rate, float(mean.constant_.ravel()[0])

    return _surrogate(encode, grow, members, trees, lambda n: min(2 ** (depth + 1), 2 * n) - 1)


@checked
def forest(encode: Callable[[Arch], jax.Array], *, trees: Positive = 200, share: Share = 1 / 3) -> Surrogate:
    """A random forest of full trees.

    Args:
        encode: arch -> float32[F].
        trees: M, default 200.
        share: of the features that a split chooses from, default a third, Breiman's for regression.

    Raises:
        ValueError: for no tree, or a share outside (0, 1].
    """
    if trees < 1 or not 0 < share <= 1:
        raise ValueError(f"a forest needs at least one tree and a share in (0, 1]; got {trees=}, {share=}")

    def grow(seed, x, y):
        from sklearn.tree import DecisionTreeRegressor

        return [DecisionTreeRegressor(max_features=share, random_state=seed).fit(x, y).tree_], 1.0, 0.0

    return _surrogate(encode, grow, trees, 1, lambda n: 2 * n - 1)


def _surrogate(encode, grow, M, T, nodes):
    def blank(N):
        shape = (M, T, nodes(N))
        return Trees(
            feature=np.zeros(shape, np.int32),
            threshold=np.zeros(shape, np.float32),
            child=np.zeros((*shape, 2), np.int32),
            value=np.zeros(shape, np.float32),
            start=np.zeros(M, np.float32),
            depth=np.zeros((), np.int32),
        )

    def on_host(bits, x, y, mask):
        bits, x, y, mask = (np.asarray(a) for a in (bits, x, y, mask))
        out, rows, deepest = blank(len(y)), np.flatnonzero(mask), 0
        rng = np.random.default_rng(bits)
        for m in range(M if len(rows) else 0):
            take = rng.choice(rows, len(rows)) if M > 1 else rows
            grown, rate, out.start[m] = grow(int(rng.integers(2**31)), x[take], y[take].astype(np.float64))
            for t, tree in enumerate(grown):
                n = tree.node_count
                leaf = tree.children_left < 0
                both = np.stack([tree.children_left, tree.children_right], -1)
                low = tree.threshold.astype(np.float32)
                below = np.nextafter(low, np.float32(-np.inf))
                out.threshold[m, t, :n] = np.where(low > tree.threshold, below, low)  # the largest float32 that goes left
                out.feature[m, t, :n] = np.where(leaf, 0, tree.feature)
                out.child[m, t, :n] = np.where(leaf[:, None], np.arange(n)[:, None], both)
                out.value[m, t, :n] = rate * tree.value[:, 0, 0]
                deepest = max(deepest, tree.max_depth)
        return out._replace(depth=np.asarray(deepest, np.int32))

    def init(key, archs):
        del key  # nothing to draw
        return jax.tree.map(jnp.asarray, blank(count(archs)))

    def fit(key, model, archs, y, mask):
        del model  # grown anew
        if not jax.sharding.get_abstract_mesh().empty:
            raise ValueError("trees are grown on the host and take no mesh: run without one, or take ensemble(...) or ridge(...)")
        x = jax.vmap(encode)(archs).astype(jnp.float32)
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), blank(len(y)))
        return jax.pure_callback(on_host, shapes, jax.random.bits(key, (4,)), x, y, mask, vmap_method="sequential")

    def predict(model, archs):
        def walk(x):
            tree = np.arange(M)[:, None], np.arange(T)[None]

            def down(_, at):  # at: int32[M, T]
                right = x[model.feature[(*tree, at)]] > model.threshold[(*tree, at)]
                return model.child[(*tree, at, right.astype(jnp.int32))]

            at = jax.lax.fori_loop(0, model.depth, down, jnp.zeros((M, T), jnp.int32))
            return model.start + jnp.sum(model.value[(*tree, at)], 1)  # [M]

        each = jax.vmap(walk)(jax.vmap(encode)(archs).astype(jnp.float32))  # [C, M]
        return jnp.mean(each, 1), jnp.std(each, 1)

    return Surrogate(init, fit, predict)
