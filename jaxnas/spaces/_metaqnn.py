"""MetaQNN's space: chains of layers, as the walks of a deterministic MDP.

Reference: Baker, Gupta, Naik and Raskar, Designing Neural Network Architectures using Reinforcement Learning, ICLR 2017,
arXiv:1611.02167; numbers are those of the authors' CIFAR-10 configuration.

Axes: S states, A actions, T steps of the longest walk.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnas.base import Arch
from jaxnas.checks import checked
from jaxnas.kinds import Positive


class MDP(NamedTuple):
    """A deterministic walk from state 0 to a terminal state, and the architecture that it spells."""

    legal: np.ndarray  # bool[S, A]
    next: np.ndarray  # int32[S, A]; read where legal
    terminal: np.ndarray  # bool[S]
    arch: Callable[[jax.Array], Arch]  # int32[T] actions, 0 after the end -> arch
    actions: Callable[[Arch], jax.Array]  # arch -> int32[T], its inverse
    row: np.ndarray | None = None  # int32[S]: the row of Q that a state reads and writes; None: its own
    meaning: tuple[Any, ...] = ()  # what each action stands for
    size: np.ndarray | None = None  # int32[S]: the side of a state's map, 0 where there is none; None: states have no maps


def longest_walk(mdp: MDP) -> int:
    """T; raises ValueError for an MDP that does not always end."""
    at, steps = np.arange(len(mdp.terminal)) == 0, 0
    while (at := at & ~mdp.terminal).any():
        if steps == len(at) or not mdp.legal[at].any(1).all():
            raise ValueError("every walk of an MDP must end: there is a cycle, or a state without a legal action")
        at = np.isin(np.arange(len(at)), mdp.next[at][mdp.legal[at]])
        steps += 1
    return steps


class Layers(NamedTuple):
    action: Any  # int32[T], each as `MDP.meaning` says; 0, "stop", to the end


@checked
def metaqnn(
    image: Positive = 32,
    layers: Positive = 18,
    filters: tuple[Positive, ...] = (64, 128, 256, 512),
    kernels: tuple[Positive, ...] = (1, 3, 5),
    pools: tuple[tuple[Positive, Positive], ...] = ((5, 3), (3, 2), (2, 2)),
    dense: tuple[Positive, ...] = (512, 256, 128),
) -> MDP:
    """The chains of layers of MetaQNN; defaults are those of the authors' CIFAR-10 configuration.

    Actions: ("stop",), ("conv", filters, kernel), ("pool", kernel, stride), ("dense", units), ("average",).  Convolutions
    keep the size of the image, pools make it ceil((size - kernel + 1) / stride), and both need a kernel below the size.  No
    pool comes first or after a pool; at most two dense layers, the second no larger, once the size is small; after
    either kind of head (dense, global average) no image is left.  Any state may stop, and must at the limit of layers.

    A state is (depth, layer, true size, dense layers so far).  Q, and with it what is legal, sees the size in three buckets:
    8 for 8 and more, 4 for 4 to 7 (from here on dense layers are open), 1 for 1 to 3.
    """
    if image < 1 or layers < 1:
        raise ValueError(f"MetaQNN needs an image and a limit of layers of at least 1; got image={image}, layers={layers}")
    conv = [("conv", f, k) for f in filters for k in kernels]
    meaning = (("stop",), *conv, *[("pool", *p) for p in pools], *[("dense", n) for n in dense], ("average",))
    bucket = lambda size: 8 if size > 7 else 4 if size > 3 else min(size, 1)

    def follow(state, action):
        """The next state, None if the action is illegal."""
        depth, layer, size, heads = state
        kind, *what = action
        if kind == "stop":
            return "end"
        body, seen = layer[0] in ("start", "conv", "pool"), bucket(size)
        if kind == "dense":
            legal = (body and seen <= 4) or (layer[0] == "dense" and heads < 2 and what[0] <= layer[1])
            size, heads = 0, heads + 1
        elif kind == "average":
            legal, size = body, 0
        elif kind == "pool":
            legal, size = layer[0] == "conv" and what[0] < seen, -((what[0] - 1 - size) // what[1])
        else:
            legal = body and what[1] < seen
        return (depth + 1, action, size, heads) if legal and depth < layers else None

    ids: dict[Any, int] = {(0, ("start",), image, 0): 0}
    to = []
    queue = list(ids)
    for state in queue:
        found = [None if state == "end" else follow(state, action) for action in meaning]
        for new in found:
            if new is not None and new not in ids:
                ids[new] = len(ids)
                queue.append(new)
        to.append([-1 if new is None else ids[new] for new in found])
    table = np.asarray(to)  # [S, A]
    rows: dict[Any, int] = {}
    row = [rows.setdefault(s if s == "end" else (*s[:2], bucket(s[2]), s[3]), len(rows)) for s in queue]
    return MDP(
        legal=table >= 0,
        next=table,
        terminal=np.arange(len(to)) == ids["end"],
        arch=Layers,
        actions=lambda arch: arch.action,
        row=np.asarray(row),
        meaning=meaning,
        size=np.asarray([0 if s == "end" else s[2] for s in queue]),
    )
