"""Surrogates: models of the score that are cheap to ask, fitted to all that was told.

    model -> fit(key, model, archs, y, mask) -> model      a fixed N, however much was told: one compiled program
    mean, std = predict(model, candidates)

A Gaussian process forgets the model it is given; a network may keep training from it.

Axes: N capacity (`mask` marks what was told), C candidates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from jaxnas.base import Arch, Key

Model = Any  # a pytree of arrays: what a surrogate has learnt


class InitFn(Protocol):
    def __call__(self, key: Key, archs: Arch, /) -> Model:
        """A blank model.

        Args:
            key: consumed.
            archs: [N, ...], blank: they show the shapes.
        """


class FitFn(Protocol):
    def __call__(self, key: Key, model: Model, archs: Arch, y: jax.Array, mask: jax.Array, /) -> Model:
        """The model fitted to what was told.

        Args:
            key: consumed.
            model: what the fit before returned, or `init`.
            archs: [N, ...].
            y: float[N], the standardised scores, 0 where nothing was told.
            mask: bool[N]: where something was told.
        """


class PredictFn(Protocol):
    def __call__(self, model: Model, archs: Arch, /) -> tuple[jax.Array, jax.Array]:
        """(mean [C], std [C]) of the noise-free score of candidates [C, ...]."""


class PosteriorDrawFn(Protocol):
    def __call__(self, key: Key, model: Model, archs: Arch, /) -> jax.Array:
        """[C]: one joint sample of the posterior at candidates [C, ...]."""


class Surrogate(NamedTuple):
    """A model of y, the standardised score."""

    init: InitFn
    fit: FitFn
    predict: PredictFn
    draw: PosteriorDrawFn | None = None  # None: it has no posterior to draw from


class Posterior(NamedTuple):
    """What a fitted surrogate believes of C candidates: all that an acquisition sees."""

    mean: jax.Array  # [C]
    std: jax.Array  # [C]
    draw: Callable[[Key], jax.Array] | None = None  # [C], one joint sample; None: the surrogate has no such thing


def posterior(surrogate: Surrogate, model: Model, archs: Arch) -> Posterior:
    """The belief of a fitted model about `archs` [C, ...]."""
    mean, std = surrogate.predict(model, archs)
    draw = surrogate.draw
    return Posterior(mean, std, None if draw is None else lambda key: draw(key, model, archs))
