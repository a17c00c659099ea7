"""Policies: distributions over architectures, or relaxations of them, behind one signature.

An action is what a draw returns: an architecture for a hard policy, the soft gates themselves for a relaxation.

Axes: D decisions, M paths to one weight update.
"""

from collections.abc import Callable
from typing import NamedTuple


class Policy(NamedTuple):
    init: Callable  # key -> theta: what a gradient may move (logits, the weights of a controller)
    sample: Callable  # (key, theta, t) -> actions [M, ...]; t counts steps, for what anneals
    gates: Callable  # action -> gates
    log_prob: Callable | None  # (theta, action) -> (log p [D], entropy [D]), 0 where inactive; None: no score function
    derive: Callable  # theta -> arch
    hard: bool  # the gates are one-hot: one path can be run
