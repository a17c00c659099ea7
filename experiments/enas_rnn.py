"""ENAS on recurrent cells: Pham et al., ICML 2018, arXiv:1802.03268.  Searches, the best of ten, training; and how they rank.

    python experiments/enas_rnn.py smoke FILE         the characters of a text, hidden 32
    python experiments/enas_rnn.py ptb DIRECTORY      the paper's setting, words (needs Penn Treebank, and an accelerator)

smoke: 6 nodes, 1,204 + 301 steps, then 602; 3 searches; 2 busy CPU cores, 7 minutes.  Theta's rate is 1e-2, as in
`experiments/enas.py`, the other rates are those of `experiments/darts_rnn.py`.  ptb: 12 nodes, hidden 720, 100 epochs; then 748,
2,000 epochs, on an accelerator; not run.

Results: docs/results.md#enas-recurrent-cells

Norms are left out of the search: with them the shared weights did not learn (figures there); DARTS's epsilon is 1e-5, that of
ENAS's code 1.

Not as published: no norms; windows have one length, validation windows come in the order of the text; the steps of theta are
spread among those of the weights; the first node and the controller are as `jaxnas.weight_sharing.enas` says.  Published losses are
sums over the tokens of a window: rates, clips and decays are those of its mean here.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import _common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common.recurrent import Part, TextSetting, alone, model, read, show_cells, steps_of, tested, weights

import jaxnas as nas
from jaxnas import evaluate, weight_sharing
from jaxnas.analysis import ranking
from jaxnas.base import Phase, then
from jaxnas.data.text import bptt
from jaxnas.nets._language_model import Dropouts
from jaxnas.spaces._space import Space
from jaxnas.spaces.enas import enas_rnn
from jaxnas.weight_sharing._enas import controller_adam, enas, final_choice, perplexity, sampler

DRAWN = 10  # cells from which the answer is chosen


@dataclass(frozen=True, kw_only=True)
class Setting(TextSetting):
    space: Space
    falls: Callable  # (rate, batches of an epoch, steps) -> schedule, of the search
    ends: Callable  # the same, of the training
    weight_steps: int  # to a step of theta
    rate: float | None  # Adam's, of theta; None: the published one
    networks: int | None  # to a step of theta
    units: int  # of the controller
    ranked: int  # random cells that are trained alone, no fewer than the seeds; if more, to see how shared weights rank them
    repeats: int  # trainings of each


def falling(start: int, factor: float) -> Callable:
    """By a factor each epoch from one on."""
    return lambda rate, epoch, steps: optax.exponential_decay(rate, epoch, factor, start * epoch, staircase=True)


def cosine(rate, epoch, steps):
    return optax.cosine_decay_schedule(rate, steps)


T, H = 35, 748
PTB = Setting(
    level="word",
    length=T,
    space=enas_rnn(),
    search=Part(720, 20, 100, 0.25 * T, 2e-7 / T, Dropouts(0.25, 0.0, 0.75, 0.25, 0.75), 0.04, 10 / T, 0.0),
    falls=falling(12, 0.95),
    train=Part(H, 64, 2000, 20.0 * T, 1e-6 / T, Dropouts(0.21, 0.0, 0.75, 0.25, 0.76), 0.04, 0.25 / T, 1e-3 * H),
    ends=falling(14, 0.9991),
    weight_steps=13,
    rate=None,
    networks=None,
    units=100,
    seeds=1,
    ranked=1,
    repeats=1,
)
SMOKE = Setting(
    level="char",
    length=25,
    space=enas_rnn(6),
    search=Part(32, 16, 0.54, 3.0, 5e-7, None, 0.3, beta=0.0),
    falls=falling(1, 1.0),
    train=Part(32, 16, 0.27, 20.0, 8e-7, None, 0.1),
    ends=cosine,
    weight_steps=4,
    rate=1e-2,
    networks=10,
    units=100,
    seeds=3,
    ranked=20,
    repeats=1,
)
SETTINGS = {"ptb": PTB, "smoke": SMOKE}


def main(name: str = "smoke", where: str = "tinyshakespeare.txt") -> None:
    s = _common.named(SETTINGS, name)
    source, space, length = read(where, s.level), s.space, s.length
    k_search, k_choose, k_means, k_random = jax.random.split(jax.random.key(0), 4)
    steps = lambda part: steps_of(part, source, length)
    moved = lambda part, schedule: weights(part, schedule(part.rate, round(steps(part) / part.epochs), steps(part)))
    net = model(space, source, s.search, norms=False, private=True, loose_ends=True)
    search = enas(net, moved(s.search, s.falls), controller_adam(s.rate), networks=s.networks, hidden=s.units, clip=None)
    feed = bptt(source, s.search.batch, length, weight_steps=s.weight_steps)
    shared = evaluate.shared_weights(net, "batch")

    def losses(state, archs, windows):
        """With shared weights, in the mean over the first windows of the validation stream."""
        valid = jax.tree.map(lambda a: a[:windows], feed.arrays[1])
        return shared.step(None, (), archs, nas.Batch(fixed=state.variables, valid=valid))[1]["loss"]

    def give(state):
        """The best of ten on one window."""
        score = lambda key, archs: -losses(state, archs, 1)
        cell, _ = final_choice(space, score, DRAWN, s.units)(k_choose, state.theta)
        return weight_sharing.Given(theta=space.gates(cell))

    def means(key, state):
        """The mean reward of what the controller draws, and of random cells."""
        k_drawn, k_space = jax.random.split(key)
        drawn = sampler(space, 50, s.units).sample(k_drawn, state.theta, 0)
        random = jax.vmap(space.sample)(jax.random.split(k_space, 50))
        each = {"drawn": drawn, "random": random}
        return {name: jnp.mean(perplexity(losses(state, archs, 10), None)) for name, archs in each.items()}

    evaluated = model(space, source, s.train, norms=False, loose_ends=True)
    train = alone(evaluated, moved(s.train, s.ends))
    training = dict(steps=steps(s.train), data=bptt(source, s.train.batch, length, arch_steps=0))
    again = Phase(train, **training, give=lambda state: weight_sharing.Given(theta=state.theta))
    test = lambda state: tested(evaluated, state, source, length)
    seconds = _common.stopwatch()
    say = lambda what: print(f"{seconds() / 60:.1f} minutes: {what}", flush=True)
    say(f"{len(source.vocabulary)} tokens, {steps(s.search)} steps of search, {steps(s.train)} of training")
    plan = then(Phase(search, steps(s.search) // s.weight_steps, feed), Phase(train, **training, give=give, name="train"))
    found = nas.run(k_search, plan, seeds=s.seeds, progress=sys.stderr.isatty())
    show_cells("found", space, found.best, test(found.state))
    searched = found.states[0]
    quarters = [part.mean(1) for part in np.array_split(np.asarray(found.infos[0].gradient["reward"], float), 4, axis=1)]
    _common.show("reward by quarter of the search", **{f"quarter {q + 1}": each for q, each in enumerate(quarters)})
    by = jax.jit(jax.vmap(means))(jax.random.split(k_means, s.seeds), searched)
    _common.show("reward with shared weights, at the end", **{n: np.asarray(a, float) for n, a in by.items()})
    say("random cells")
    random = nas.run(k_random, then(Phase(train, **training), *[again] * (s.repeats - 1)), seeds=s.ranked)
    truth = np.stack([test(state) for state in random.states], -1)  # nats, [N, R]
    show_cells("random", space, jax.tree.map(lambda a: a[: s.seeds], random.best), truth[: s.seeds, 0])
    if s.repeats > 1:
        spread = f"{truth.mean():.3f} nats, sd {truth.mean(1).std():.3f}; reliability {ranking.reliability(truth):.2f}"
        print(f"{s.ranked} cells alone: {spread}", flush=True)
    if s.ranked > s.seeds:
        scores = jax.jit(jax.vmap(lambda state: losses(state, random.best, None)))(searched)
        for i, each in enumerate(np.asarray(scores)):
            rank = ranking.ranking(jax.random.key(0), -each, np.mean(-truth, 1), 5)
            print(f"search {i}, shared weights {each.mean():.3f} nats: {_common.told(rank)}", flush=True)
    say("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
