"""Recurrent cells on text: reading it, training one cell from scratch, and testing it.  For DARTS's cells and for ENAS's.

[N] seeds, or cells.
"""

import pathlib
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnas as nas
from jaxnas import policies, training, weight_sharing
from jaxnas.data.text import Text, text, windows
from jaxnas.nets import Net
from jaxnas.nets._language_model import Dropouts, language_model
from jaxnas.spaces._space import Space
from jaxnas.training import losses

from . import plus_minus


class Part(NamedTuple):
    """The search, or the training of a cell from scratch."""

    hidden: int
    batch: int
    epochs: float
    rate: float  # of SGD; in the training, at its start
    decay: float  # of the weights
    dropouts: Dropouts | None
    uniform: float
    clip: float = 0.25
    beta: float = 1e-3  # of the temporal activation regulariser


@dataclass(frozen=True, kw_only=True)
class TextSetting:
    level: str  # "char" or "word"
    length: int  # of a window
    search: Part
    train: Part
    seeds: int  # searches, and random cells


def read(where: str, level: str) -> Text:
    """A text file, or a directory of train.txt, valid.txt and test.txt."""
    path = pathlib.Path(where)
    if path.is_dir():
        train, valid, test = (path / f"{part}.txt" for part in ("train", "valid", "test"))
        return text(train, level=level, valid=valid, test=test, name=path.name)
    return text(path, level=level, name=path.name)


def steps_of(part: Part, source: Text, length: int) -> int:
    """How many windows its epochs have."""
    return round(part.epochs * ((len(source.train) - 1) // (part.batch * length)))


def model(space: Space, source: Text, part: Part, **options) -> Net:
    """The language model of a part; `options` are those of `language_model`."""
    sizes = dict(vocabulary=len(source.vocabulary), batch=part.batch, hidden=part.hidden)
    return language_model(space, **sizes, dropouts=part.dropouts, beta=part.beta, uniform=part.uniform, **options)


def weights(part: Part, rate) -> optax.GradientTransformation:
    """The clip is in the optimizer: the look-ahead of DARTS's recurrent cells is clipped."""
    return optax.chain(optax.clip_by_global_norm(part.clip), training.sgd(rate, momentum=0.0, weight_decay=part.decay))


def alone(net: Net, optimizer: optax.GradientTransformation) -> nas.Strategy:
    """Trains one cell: theta, its gates, stays as it is given, or as it is drawn."""
    policy = policies.Policy(
        init=lambda key: net.space.gates(net.space.sample(key)),
        sample=lambda key, theta, t: theta[None],
        gates=lambda action: action,
        log_prob=None,
        derive=net.space.derive,
        hard=True,
    )
    return weight_sharing.weight_sharing(net, policy, weight_sharing.frozen, weight_sharing.Weights(optimizer, clip=None))


def loss(net: Net, variables, gates, stream, length: int):
    """Mean cross-entropy in nats over a stream, the hidden state carried from window to window."""
    x, y = windows(stream, variables["carry"]["hidden"].shape[0], length)

    def step(variables, window):
        logits, variables = net.apply(variables, window[0], gates, train=False, path=True)
        return variables, losses.cross_entropy(logits, window[1])

    return jnp.mean(jax.lax.scan(step, variables, (x, y))[1])


def tested(net: Net, state, source: Text, length: int) -> np.ndarray:
    """Nats a token on the test stream [N], of the networks of many seeds."""
    test = jax.jit(jax.vmap(lambda state, stream: loss(net, state.variables, state.theta, stream, length), (0, None)))
    return np.asarray(test(state, source.test), np.float64)


def show_cells(what: str, space: Space, cells, nats) -> None:
    """Prints each cell, then perplexities and bits a token with their 95 % intervals over the cells."""
    for n in range(len(nats)):
        print(f"{what} {n}: {space.to_text(jax.tree.map(lambda a: a[n], cells))}")
    bits, perplexity = plus_minus(nats / np.log(2), 3), plus_minus(np.exp(nats), 3)
    print(f"{what}: perplexity {perplexity} ({np.exp(nats).round(3).tolist()}), bits a token {bits}", flush=True)
