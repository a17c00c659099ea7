"""The algorithm of a study: its state follows from the order of the journal's lines, so that every process has the same.

    batch n is asked for with a key of its own, split(fold_in(root, n))
    batch n is complete:   state <- tell(ask(state), the candidates of the journal, their scores)

An algorithm that is told what it likes (`replaceable`) is asked for the next batch while others are open: those are told a lie
first, on a copy of the state that is thrown away.  The lie, for trials that are not done, is the worst finite score so far: a
constant liar (Ginsbourger, Le Riche and Carraro, Kriging is Well-Suited to Parallelize Optimization, 2010).  One that notes itself
what is open (`asynchronous`) is asked as it is.  Any other is asked once nothing is open.

Axes: B candidates of a batch, M columns.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.ask_tell.trial import Trial
from jaxnas.base import Arch, AskTell, Key, asked_shapes
from jaxnas.driver.fingerprint import of_program
from jaxnas.driver.program import compiler_options
from jaxnas.studies.ledger import Ledger, TrialRecord
from jaxnas.trees import count


class Replay:
    """The state of the algorithm after the lines that were read; compiled when it is first asked."""

    def __init__(self, algorithm: AskTell, key: Key) -> None:
        """Traces the algorithm's programs, of which `fingerprint` is a hash."""
        self.algorithm, self.shapes = algorithm, asked_shapes(algorithm)
        self.budgets = isinstance(self.shapes, Trial)
        self.columns = 1 if algorithm.columns is None else algorithm.columns
        self._leaves, self._tree = jax.tree.flatten(self.shapes)
        self._worst = np.full(self.columns, np.inf, np.float32)
        self._state: Any = None
        self._k_init, self._root = jax.random.split(key)
        B, number = count(self.shapes), jax.ShapeDtypeStruct((), jnp.int32)
        scores = jax.ShapeDtypeStruct((B,) if algorithm.columns is None else (B, algorithm.columns), jnp.float32)
        state = jax.eval_shape(algorithm.init, key)
        traced = lambda function, *args: jax.jit(function, compiler_options=compiler_options(once=True)).trace(*args)
        self._init = traced(algorithm.init, self._k_init)
        self._ask = traced(self._asked, self._root, number, state)
        self._tell = traced(self._told, self._root, number, state, self.shapes, scores)
        self._programs: Any = None
        self.fingerprint = of_program(self._init.jaxpr, self._ask.jaxpr, self._tell.jaxpr)

    def _asked(self, root: Key, n: jax.Array, state: Any) -> tuple[Any, Arch]:
        return self.algorithm.ask(jax.random.split(jax.random.fold_in(root, n))[0], state)

    def _told(self, root: Key, n: jax.Array, state: Any, archs: Arch, scores: jax.Array) -> Any:
        k_ask, k_tell = jax.random.split(jax.random.fold_in(root, n))
        asked = state if self.algorithm.asynchronous else self.algorithm.ask(k_ask, state)[0]
        return self.algorithm.tell(k_tell, asked, archs, scores)

    def candidates(self, leaves: list[Any]) -> Arch:
        """The candidates of a batch, [B, ...], arrays of NumPy, from the leaves that the journal has."""
        held = zip(leaves, self._leaves, strict=True)
        return self._tree.unflatten([np.asarray(leaf, like.dtype).reshape(like.shape) for leaf, like in held])

    def catch_up(self, ledger: Ledger) -> None:
        """Learns what the ledger has learnt since."""
        if self._programs is None:
            self._programs = tuple(traced.lower().compile() for traced in (self._init, self._ask, self._tell))
            self._state = self._programs[0](self._k_init)
        while ledger.moves:
            kind, n = ledger.moves[0]
            if kind == "ask":
                self._state = self._programs[1](self._root, np.int32(n), self._state)[0]
            else:
                told, self._worst = self._scores(ledger.batch_of(n))
                self._state = self._programs[2](
                    self._root, np.int32(n), self._state, self.candidates(ledger.batches[n].leaves), told
                )
            ledger.moves.popleft()

    def ask(self, ledger: Ledger) -> list[Any] | None:
        """The leaves of the next batch, or None where it must wait; everything was caught up."""
        algorithm, state, still = self.algorithm, self._state, ledger.open_batches
        if not (algorithm.replaceable or algorithm.asynchronous) and still:
            return None
        for n in still if algorithm.replaceable and not algorithm.asynchronous else ():
            told, _ = self._scores(ledger.batch_of(n), lie=True)
            state = self._programs[2](self._root, np.int32(n), state, self.candidates(ledger.batches[n].leaves), told)
        asked = self._programs[1](self._root, np.int32(len(ledger.batches)), state)[1]
        if self.budgets:
            taken = {ledger.trials[i].slot for i in (*ledger.running, *ledger.waiting)}
            if taken & set(np.asarray(asked.slot).tolist()):
                return None  # all slots are busy
        return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(asked)]

    def _scores(self, batch: list[TrialRecord], lie: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(what is told of a batch, [B] or [B, M], the worst finite score after it), as `jaxnas.base.black_box` has it."""
        blank = np.full(self.columns, np.nan, np.float32)
        scores = np.stack([blank if r.scores is None else np.asarray(r.scores, np.float32) for r in batch])  # [B, M]
        finite = np.all(np.isfinite(scores), axis=1, keepdims=True)  # [B, 1]
        worst = np.minimum(self._worst, np.min(scores, 0, where=finite, initial=np.inf))
        instead = np.where(np.isfinite(worst), worst, 0).astype(np.float32)  # [M]
        diverged = np.full(self.columns, -np.inf, np.float32) if self.algorithm.failures else instead
        failed = np.asarray([r.done or not lie for r in batch])
        told = np.where(finite, scores, np.where(failed[:, None], diverged[None], instead[None]))
        return told if self.algorithm.columns is not None else told[:, 0], worst
