"""Surrogates: models of the score that are cheap to ask, fitted to all that was told.

    model -> fit(key, model, archs, y, mask) -> model      a fixed N, however much was told: one compiled program
    mean, std = predict(model, candidates)

A Gaussian process forgets the model it is given; a network may go on training from it.

Axes: N capacity (`mask` marks what was told), C candidates.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax


class Surrogate(NamedTuple):
    """A model of y, the standardised score."""

    init: Callable  # (key, archs [N, ...]) -> model; the archs are blank, they show the shapes
    fit: Callable  # (key, model, archs [N, ...], y [N], mask bool[N]) -> model; y is 0 where nothing was told
    predict: Callable  # (model, archs [C, ...]) -> (mean [C], std [C]) of the noise-free score
    draw: Callable | None = None  # (key, model, archs [C, ...]) -> [C]: one joint sample of the posterior; None: no such thing


class Posterior(NamedTuple):
    """What a fitted surrogate believes of C candidates: all that an acquisition sees."""

    mean: jax.Array  # [C]
    std: jax.Array  # [C]
    draw: Callable | None = None  # key -> [C], one joint sample


def posterior(surrogate: Surrogate, model, archs) -> Posterior:
    """The belief of a fitted model about `archs` [C, ...]."""
    mean, std = surrogate.predict(model, archs)
    draw = None if surrogate.draw is None else lambda key: surrogate.draw(key, model, archs)
    return Posterior(mean, std, draw)
