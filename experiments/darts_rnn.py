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

import sys

import jax
import optax
from _common import named, recurrent
from _common.recurrent import Part, TextSetting

import jaxnas as nas
from jaxnas import training, weight_sharing
from jaxnas.base import Phase, then
from jaxnas.data.text import bptt
from jaxnas.nets._language_model import SEARCH_DROPOUT
from jaxnas.spaces._darts_rnn import darts_rnn

ARCH_RATE = 3e-3  # Adam's, of the architecture
PTB = TextSetting(
    level="word",
    length=35,
    search=Part(300, 256, 50, 20.0, 5e-7, SEARCH_DROPOUT, 0.04),
    train=Part(850, 64, 8000, 20.0, 8e-7, SEARCH_DROPOUT._replace(words=0.1), 0.04),
    seeds=4,
)
SMOKE = TextSetting(
    level="char",
    length=25,
    search=Part(32, 16, 0.27, 3.0, 5e-7, None, 0.3),
    train=Part(32, 32, 2.7, 20.0, 8e-7, None, 0.1),
    seeds=3,
)
SETTINGS = {"ptb": PTB, "smoke": SMOKE}


def main(name: str = "smoke", where: str = "tinyshakespeare.txt") -> None:
    setting = named(SETTINGS, name)
    source, space = recurrent.read(where, setting.level), darts_rnn()
    s, t, length = setting.search, setting.train, setting.length
    architecture = training.adam(ARCH_RATE, weight_decay=1e-3)
    search = weight_sharing.darts(
        recurrent.model(space, source, s), recurrent.weights(s, s.rate), architecture, order="exact", clip=None
    )
    evaluated = recurrent.model(space, source, t, norms=False)
    steps = [recurrent.steps_of(part, source, length) for part in (s, t)]
    train = recurrent.alone(evaluated, recurrent.weights(t, optax.cosine_decay_schedule(t.rate, steps[1])))
    retraining = dict(steps=steps[1], data=bptt(source, t.batch, length, arch_steps=0))
    give = lambda state: weight_sharing.Given(theta=space.gates(search.best(state)))
    plan = then(Phase(search, steps[0], bptt(source, s.batch, length)), Phase(train, **retraining, give=give, name="train"))
    options = dict(seeds=setting.seeds, progress=sys.stderr.isatty())
    print(f"{len(source.vocabulary)} tokens, {steps[0]} steps of search, {steps[1]} of training", flush=True)
    found = nas.run(jax.random.key(0), plan, **options)
    random = nas.run(jax.random.key(1), train, **retraining, **options)
    for what, result in (("found", found), ("random", random)):
        recurrent.show_cells(what, space, result.best, recurrent.tested(evaluated, result.state, source, length))


if __name__ == "__main__":
    main(*sys.argv[1:])
