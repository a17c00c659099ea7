"""The vocabulary: every other module returns or consumes these types.

An architecture is a pytree.  A search is a pair of pure functions.

    strategy   where to look next     init(key) -> state,   step(key, state, batch) -> (state, info),   best(state) -> arch
    AskTell    a black-box algorithm, before it meets an evaluator
    evaluator  how good it is         init(key) -> estate,  step(key, estate, archs, batch) -> (estate, {name: [B]})

`step` is a scan body: its state is one pytree of strongly typed arrays, so a search is a `lax.scan`, a thousand seeds
are a `vmap`, and a resume is a load.  Keys are typed (`jax.random.key`), come first and are consumed; no state holds one.

Axes: B candidates asked for at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import sharding, trees
from jaxnas.checks import checked, described
from jaxnas.kinds import NonNegative, Positive
from jaxnas.objectives import Metrics, Objective, metric

Key = jax.Array  # a typed PRNG key
Arch = Any  # a pytree of int32 decisions: see jaxnas.spaces
State = Any  # a pytree of arrays


class Batch(NamedTuple):
    """What one step of a strategy sees.

    `train` and `valid` are (x, y) pairs with a leading axis of steps: W weight steps [W, B, ...] and A architecture steps
    [A, B, ...].  `look` holds the batches of a K-step look-ahead, [A, K, B, ...]; None takes the first of `train`.
    `fixed` is read-only (a table, a trained supernet): neither carried, nor vmapped, nor checkpointed.
    """

    train: Any = None
    valid: Any = None
    look: Any = None
    fixed: Any = None


def require_data(batch: Batch, *parts: str) -> None:
    """Raises ValueError for a batch without a part, such as "train", that a step reads."""
    for part in parts:
        if not jax.tree.leaves(getattr(batch, part)):
            raise ValueError(f"this step reads `batch.{part}`, and it is empty: give run(..., data=nas.data.batches(...))")


class InitFn(Protocol):
    def __call__(self, key: Key, /, given: Any = None) -> State:
        """The state before the first step.

        Args:
            key: all that the first state draws.
            given: what an earlier phase hands over; None where there is none.
        """


class StepFn(Protocol):
    def __call__(self, key: Key, state: State, batch: Batch, /) -> tuple[State, Any]:
        """One step of a search, a scan body -> (state, info): the state keeps its shapes, the info is only reported.

        Args:
            key: this step's.
            state: what the step before returned, or `init`.
            batch: data, and whatever is read-only.
        """


class Strategy(NamedTuple):
    """Every search ends as this."""

    init: InitFn
    step: StepFn
    best: Callable[[State], Arch]  # the answer, were the search to stop now


class AskFn(Protocol):
    def __call__(self, key: Key, state: State, /) -> tuple[State, Arch]:
        """Where to look next -> (the state for `tell`, archs [B, ...]).

        Args:
            state: what `tell` returned, or `init`.
        """


class TellFn(Protocol):
    def __call__(self, key: Key, state: State, archs: Arch, scores: jax.Array, /) -> State:
        """Learns what the candidates were worth.

        Args:
            state: what `ask` returned.
            archs: the candidates [B, ...]: those asked for, or others where the algorithm is `replaceable`.
            scores: [B], or [B, M] for M columns; larger is better.
        """


class AskTell(NamedTuple):
    """A black-box algorithm.  `ask` and `tell` are public: a phone, a cluster or a person may be the evaluator.

    `best` is for algorithms whose answer is not simply the best score ever seen; None otherwise.  `columns` is for those that
    take several numbers a candidate (objectives, then constraints); None: one.
    """

    init: Callable[[Key], State]
    ask: AskFn
    tell: TellFn
    best: Callable[[State], Arch] | None = None
    columns: int | None = None  # M
    replaceable: bool = True  # whether `tell` reads the candidates it is given; False: it takes them for those it asked for
    asynchronous: bool = False  # whether it may be asked again before it is told, and told in any order: `ask` notes what is open
    failures: bool = False  # whether `tell` takes -inf for a candidate that diverged; False: it wants the worst finite score


class EvaluateFn(Protocol):
    def __call__(self, key: Key, state: State, archs: Arch, batch: Batch, /) -> tuple[State, Metrics]:
        """Scores candidates -> (state, {name: [B]}).

        Args:
            state: what the step before returned, or `init`.
            archs: the candidates [B, ...].
            batch: data to train or to score them on.
        """


class Evaluator(NamedTuple):
    """Scores candidates.  Stateful, so that survivors can keep training; `stateless` lifts a plain function."""

    init: Callable[[Key], State]
    step: EvaluateFn


def asked_shapes(algorithm: AskTell) -> Arch:
    """Shapes and dtypes of what one step asks for, [B, ...]."""
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    return jax.eval_shape(algorithm.ask, key, jax.eval_shape(algorithm.init, key))[1]


def asks_for(algorithm: AskTell) -> int:
    """B, the candidates of one step."""
    return trees.count(asked_shapes(algorithm))


@checked
def stateless(evaluate: Callable[[Key, Arch, Batch], Metrics]) -> Evaluator:
    """The evaluator of a plain function `evaluate(key, archs[B], batch) -> {name: [B]}`."""
    return Evaluator(lambda key: (), lambda key, state, archs, batch: (state, evaluate(key, archs, batch)))


class BlackBoxState(NamedTuple):
    algorithm: State
    evaluator: State
    best: Arch  # the best candidate seen
    best_score: jax.Array  # []; -inf before the first; of M columns, the first
    worst: jax.Array  # [] or [M]; the worst finite score seen, which stands in for a diverged candidate's; +inf before it


class BlackBoxInfo(NamedTuple):
    archs: Arch  # [B, ...]
    metrics: Metrics  # name -> [B]
    scores: jax.Array  # [B] or [B, M], as the objective gave them
    best_score: jax.Array  # []
    failed: jax.Array  # int32[]: candidates of this step whose score is not finite


def _check_metrics(metrics, count):
    """ValueError for what is no {name: [B]}; when traced, since shapes are known only then."""
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f"an evaluator gives {{name: [B]}}, such as {{'accuracy': scores}}; this one gave {described(metrics)}")
    for name, values in metrics.items():
        numbers = isinstance(values, jax.Array | np.ndarray | float | int | list)
        shape: Any = np.shape(values) if numbers else described(values)
        if not isinstance(shape, tuple) or shape[:1] != (count,):
            raise ValueError(
                f"an evaluator scores each of the {count} candidates, {{name: [{count}]}}; it gave {name!r} as {shape}"
            )


@checked
def black_box(algorithm: AskTell, evaluator: Evaluator, objective: Objective | None = None) -> Strategy:
    """The search that asks `algorithm` for candidates, scores them with `evaluator` and tells it `objective(metrics)`.

    Args:
        algorithm: where to look next.
        evaluator: how good it is.
        objective: metrics -> scores, to be maximised, [B] or as many columns [B, M] as the algorithm takes; default:
            `metric("accuracy")`.

    A candidate whose score is not finite never wins and never stops the search: the algorithm is told the worst finite
    score seen so far (0 before there is one), in every column, or -inf where it takes `failures`.
    """
    objective = metric("accuracy") if objective is None else objective

    def init(key: Key, given: Any = None) -> BlackBoxState:
        del given  # read-only things come in `batch.fixed`
        k_algorithm, k_evaluator, k_ask = jax.random.split(key, 3)
        state = algorithm.init(k_algorithm)
        archs = jax.eval_shape(algorithm.ask, k_ask, state)[1]
        blank = jax.tree.map(lambda a: jnp.zeros(a.shape[1:], a.dtype), archs)
        inf = jnp.asarray(jnp.inf, jnp.float32)
        worst = inf if algorithm.columns is None else jnp.full(algorithm.columns, inf)
        return BlackBoxState(state, evaluator.init(k_evaluator), blank, -inf, worst)

    def step(key: Key, state: BlackBoxState, batch: Batch) -> tuple[BlackBoxState, BlackBoxInfo]:
        k_ask, k_evaluate, k_tell = jax.random.split(key, 3)
        asked, archs = algorithm.ask(k_ask, state.algorithm)
        archs = sharding.constrain(archs, "pop")
        evaluated, metrics = evaluator.step(k_evaluate, state.evaluator, archs, batch)
        _check_metrics(metrics, trees.count(archs))
        scores = jnp.asarray(objective(metrics), jnp.float32)  # [B] or [B, M]
        if scores.shape != (trees.count(archs), *state.worst.shape):
            wanted = "[B]" if algorithm.columns is None else f"[B, {algorithm.columns}]"
            raise ValueError(f"this algorithm takes scores {wanted}; the objective gave them in shape {scores.shape}")
        finite = jnp.isfinite(scores).reshape(scores.shape[0], -1).all(1)  # [B]
        seen = finite if scores.ndim == 1 else finite[:, None]
        worst = jnp.minimum(state.worst, jnp.min(scores, 0, where=seen, initial=jnp.inf))
        instead = -jnp.inf if algorithm.failures else jnp.where(jnp.isfinite(worst), worst, 0.0)[None]
        told = jnp.where(seen, scores, instead)
        ranked = jnp.where(finite, scores if scores.ndim == 1 else scores[:, 0], -jnp.inf)
        i = jnp.argmax(ranked)
        better = ranked[i] > state.best_score
        new = BlackBoxState(
            algorithm=algorithm.tell(k_tell, asked, archs, told),
            evaluator=evaluated,
            best=jax.tree.map(lambda a, b: jnp.where(better, a[i], b), archs, state.best),
            best_score=jnp.where(better, ranked[i], state.best_score),
            worst=worst,
        )
        return new, BlackBoxInfo(archs, metrics, scores, new.best_score, jnp.sum(~finite, dtype=jnp.int32))

    def best(state: BlackBoxState) -> Arch:
        return state.best if algorithm.best is None else algorithm.best(state.algorithm)

    return Strategy(init, step, best)


class DrawFn(Protocol):
    def __call__(self, key: Key, arrays: Any, t: jax.Array, /) -> Batch:
        """The batch of one step; a pure function.

        Args:
            key: this step's.
            arrays: the feed's.
            t: int32[]; counts the steps of a phase, from 0.
        """


class Feed(NamedTuple):
    arrays: Any  # pytree of arrays on the device
    draw: DrawFn


class IndicesFn(Protocol):
    def __call__(self, key: Key, t: jax.Array, /) -> Any:
        """Which rows one step sees, a pytree of int32 arrays; a pure function, of the key and the t that `draw` is given."""


class ReadFn(Protocol):
    def __call__(self, indices: Any, /) -> Any:
        """Rows as a pytree of NumPy arrays.  Runs on the host, in a thread; the same indices must give the same rows.

        Args:
            indices: what `indices` gave, as NumPy arrays; behind one more axis [S, ...] under `seeds`, which what is read has too.
                On a mesh they are those of this process alone: fewer along S, and along the stream's `batch_axis`.
        """


class Stream(NamedTuple):
    """A feed of data that are not on the device: the driver reads what the next steps see while the present ones run."""

    indices: IndicesFn
    read: ReadFn
    draw: DrawFn  # its `arrays` are what `read` gave for the indices of this step
    like: Any  # shapes and dtypes of what `read` gives for one step
    identity: str  # tells these data from others; kept in checkpoints
    block: Positive = 2**27  # bytes that all processes read at a time, at least one step's; two or three blocks are in memory
    batch_axis: NonNegative | None = None  # of every array of `indices` and `like`: that of its examples; None: all read all


nothing = Feed((), lambda key, arrays, t: Batch())
"""The feed of a search that needs no data."""


class GiveFn(Protocol):
    def __call__(self, state: State, /) -> Any:
        """What a phase takes over from the last state of the one before it."""


class Phase(NamedTuple):
    strategy: Strategy
    steps: Positive
    data: Feed | Stream = nothing
    give: GiveFn = lambda state: None  # what this phase's `init` is given; default: nothing
    fix: GiveFn | None = None  # this phase's `batch.fixed`, read-only, in place of what its data say; None: as they say
    name: str = "search"


@checked
def then(*phases: Phase) -> tuple[Phase, ...]:
    """A plan: the phases in order, each with its own shapes, loop and checkpoints."""
    if not phases:
        raise ValueError("a plan needs at least one phase")
    return phases
