"""DARTS on recurrent cells: Liu, Simonyan and Yang, ICLR 2019, arXiv:1806.09055.  Search, then training from scratch.

    python experiments/darts_rnn.py smoke FILE        the characters of a text, hidden 32
    python experiments/darts_rnn.py ptb DIRECTORY     the paper's setting, words (needs Penn Treebank, and an accelerator)

The directory holds train.txt, valid.txt and test.txt.  Found and random cells are trained alike and scored on the test stream.

smoke: 602 steps, then 3,010; 3 searches, 3 random cells; 2 busy CPU cores, 9 to 10 minutes.  Its rates (3 in the search, 20 to
train) and initial bounds were set by five short runs, by training loss; nothing was chosen by the test stream.  ptb: hidden
300, 50 epochs, then 850, up to 8,000 epochs, on an accelerator; not run.

Results: docs/results.md#darts-on-recurrent-cells

Not as published: ASGD once the validation loss stalls is not built (here the rate of SGD falls to 0 by a cosine); windows have
one length; the architecture step starts from a hidden state of zeros; the regulariser of `h` is in the look-ahead and the
validation loss as well; the clip of the look-ahead is differentiated (published: a constant factor); norms have statistics of
their own for each state; the test stream is read in as many rows as a batch has.  The paper keeps the best of four searches by
a short training; here every search's cell counts.
"""

import pathlib
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnas as nas
from jaxnas import policies, training, weight_sharing
from jaxnas.analysis import ranking
from jaxnas.base import Phase, then
from jaxnas.data.text import Text, bptt, text, windows
from jaxnas.nets import Net
from jaxnas.nets._language_model import SEARCH_DROPOUT, Dropouts, language_model
from jaxnas.spaces._darts_rnn import darts_rnn
from jaxnas.spaces._space import Space
from jaxnas.training import losses


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


class Setting(NamedTuple):
    level: str
    length: int
    search: Part
    train: Part
    arch_rate: float  # Adam's, of the architecture
    order: str
    seeds: int  # searches, and random cells


PTB = Setting(
    level="word",
    length=35,
    search=Part(300, 256, 50, 20.0, 5e-7, SEARCH_DROPOUT, 0.04),
    train=Part(850, 64, 8000, 20.0, 8e-7, SEARCH_DROPOUT._replace(words=0.1), 0.04),
    arch_rate=3e-3,
    order="exact",
    seeds=4,
)
SMOKE = Setting(
    level="char",
    length=25,
    search=Part(32, 16, 0.27, 3.0, 5e-7, None, 0.3),
    train=Part(32, 32, 2.7, 20.0, 8e-7, None, 0.1),
    arch_rate=3e-3,
    order="exact",
    seeds=3,
)
SETTINGS = {"ptb": PTB, "smoke": SMOKE}


def read(where: str, level: str) -> Text:
    path = pathlib.Path(where)
    if path.is_dir():
        train, valid, test = (path / f"{part}.txt" for part in ("train", "valid", "test"))
        return text(train, level=level, valid=valid, test=test, name=path.name)
    return text(path, level=level, name=path.name)


def steps_of(part: Part, source: Text, length: int) -> int:
    return round(part.epochs * ((len(source.train) - 1) // (part.batch * length)))


def model(space: Space, source: Text, part: Part, **options) -> Net:
    sizes = dict(vocabulary=len(source.vocabulary), batch=part.batch, hidden=part.hidden)
    return language_model(space, **sizes, dropouts=part.dropouts, beta=part.beta, uniform=part.uniform, **options)


def weights(part: Part, rate) -> optax.GradientTransformation:
    """The clip is in the optimizer: the paper's look-ahead of recurrent cells is clipped."""
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
    """Nats a token on the test stream, of the networks of many seeds."""
    test = jax.jit(jax.vmap(lambda state, stream: loss(net, state.variables, state.theta, stream, length), (0, None)))
    return np.asarray(test(state, source.test), np.float64)


def show(what: str, space: Space, cells, nats) -> None:
    for n in range(len(nats)):
        print(f"{what} {n}: {space.to_text(jax.tree.map(lambda a: a[n], cells))}")
    bits, perplexity = ("{:.3f} +- {:.3f}".format(*ranking.interval(a)) for a in (nats / np.log(2), np.exp(nats)))
    print(f"{what}: perplexity {perplexity} ({np.exp(nats).round(3).tolist()}), bits a token {bits}", flush=True)


def main(name: str = "smoke", where: str = "tinyshakespeare.txt") -> None:
    setting = SETTINGS[name]
    source, space = read(where, setting.level), darts_rnn()
    s, t, length = setting.search, setting.train, setting.length
    architecture = training.adam(setting.arch_rate, weight_decay=1e-3)
    search = weight_sharing.darts(model(space, source, s), weights(s, s.rate), architecture, order=setting.order, clip=None)
    evaluated, steps = model(space, source, t, norms=False), [steps_of(part, source, length) for part in (s, t)]
    train = alone(evaluated, weights(t, optax.cosine_decay_schedule(t.rate, steps[1])))
    retraining = dict(steps=steps[1], data=bptt(source, t.batch, length, arch_steps=0))
    give = lambda state: weight_sharing.Given(theta=space.gates(search.best(state)))
    plan = then(Phase(search, steps[0], bptt(source, s.batch, length)), Phase(train, **retraining, give=give, name="train"))
    options = dict(seeds=setting.seeds, progress=sys.stderr.isatty())
    print(f"{len(source.vocabulary)} tokens, {steps[0]} steps of search, {steps[1]} of training", flush=True)
    found = nas.run(jax.random.key(0), plan, **options)
    random = nas.run(jax.random.key(1), train, **retraining, **options)
    for what, result in (("found", found), ("random", random)):
        show(what, space, result.best, tested(evaluated, result.state, source, length))


if __name__ == "__main__":
    main(*sys.argv[1:])
