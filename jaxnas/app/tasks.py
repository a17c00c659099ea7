"""What is learnt, of examples or of a text: how data are read, and how one network is trained and tested."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxnas.app.methods.base import LENGTH, criterion_of
from jaxnas.app.spaces import NETS, SPACES


class Training(NamedTuple):
    """One architecture, to be trained from scratch."""

    strategy: Any  # its `best` is what `test` and `variables` take
    feed: Any
    test: Callable[[Any], dict]  # best -> {"test_...": a metric, "test_examples": of how many}
    module: Any  # the plain Flax module
    variables: Callable[[Any], Any]  # best -> the module's variables


class Task(NamedTuple):
    load: Callable[..., Any]  # (config, key) -> data
    train: Callable[..., Training]  # (config, net entry, net, data, arch) -> Training
    judge: Callable[..., Any]  # (config, net, data, variables, arch) -> [], a loss of validation data under shared weights
    exports: bool  # to a function of examples


class Score(NamedTuple):
    """The metric of a test that counts."""

    name: str
    sign: int  # 1: the more the better; -1: the less
    words: Callable[[dict], str]  # what the test gave, for a person
    margin: Callable[[float], str]  # a difference of scores, for a person


# --- scores -----------------------------------------------------------------------------------------------------------


def _accuracy_words(r: dict) -> str:
    balanced = r.get("test_balanced_accuracy", r["test_accuracy"])
    more = f" (of each class alike {100 * balanced:.2f} %)" if abs(balanced - r["test_accuracy"]) >= 0.01 else ""
    return f"{100 * r['test_accuracy']:.2f} % of {r['test_examples']}{more}"


def _label_words(r: dict) -> str:
    more = f", AUROC {r['test_auroc']:.3f}" if "test_auroc" in r else ""
    return f"{100 * r['test_label_accuracy']:.2f} % of the labels of {r['test_examples']}{more}"


SCORES = (
    Score("test_accuracy", 1, _accuracy_words, lambda margin: f"{100 * margin:+.2f} points of test accuracy"),
    Score("test_label_accuracy", 1, _label_words, lambda margin: f"{100 * margin:+.2f} points of the test labels"),
    Score(
        "test_rmse",
        -1,
        lambda r: f"RMSE {r['test_rmse']:.4g} on {r['test_examples']}, R2 {r['test_r2']:.3f}",
        lambda margin: f"{margin:+.4g} of test RMSE",
    ),
    Score(
        "test_perplexity",
        -1,
        lambda r: f"perplexity {r['test_perplexity']:.3f} on {r['test_examples']} tokens",
        lambda margin: f"{margin:+.3f} of test perplexity",
    ),
)


def score_of(result: dict) -> Score:
    """The score of what a test gave: the first of `SCORES` that is there.

    Raises:
        KeyError: where there is none.
    """
    for score in SCORES:
        if score.name in result:
            return score
    raise KeyError(SCORES[0].name)


def without_retraining(result: dict) -> str:
    """What the found architecture makes of validation data before it is trained, for a person."""
    numbers = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in sorted(result["without_retraining"].items())]
    return f"{', '.join(numbers)} on the validation part, without retraining"


# --- examples ---------------------------------------------------------------------------------------------------------

CHUNK = 256  # examples that are looked at at once
WHAT = {"image": "images", "series": "time series", "table": "rows of a table"}


def _load_examples(*kinds):
    """-> (config, key) -> the data, of any of these kinds of `WHAT`."""
    reads = " or ".join(", ".join(WHAT[kind] for kind in kinds).rsplit(", ", 1))

    def load(config, key):
        from jaxnas import data

        if pathlib.Path(config.data).suffix == ".txt":
            raise ValueError(f"{config.space} reads {reads}, not text: give --data digits or file.npz, or search --space darts-rnn")
        asked = {name: getattr(config, name) for name in ASKED}
        own = not NETS[SPACES[config.space].net].supernet  # networks are chosen, no architecture is moved
        if config.stream:
            return _streamed(config, key, own)
        dataset = data.load(config.data, key, valid=None if own else 0.5, **asked)
        found = "image" if dataset.inputs is None else dataset.inputs.kind
        if found not in kinds:
            raise ValueError(
                f"{config.space} reads {reads}, and {config.data} holds {WHAT[found]}: search --space macro, or say --layout"
            )
        return dataset

    return load


ASKED = ("target", "kind", "group", "size", "layout")  # what a config says of the data besides their name
SIDE = 64  # pixels of streamed images, unless asked


def _streamed(config, key, own):
    """The images of a config, to be read while it searches."""
    from jaxnas import data

    if own:
        raise ValueError(
            f"--stream: {config.space} trains networks on images in memory: search on shared weights, as with --strategy darts, or "
            "leave it out with a smaller --size"
        )
    refused = [name for name in ("target", "kind", "group", "layout", "balance") if getattr(config, name)]
    if refused:
        raise ValueError(f"--stream: its images are in class folders, or of tfds:NAME: leave --{refused[0]} out")
    known = next((name for name, source in data.SOURCES.items() if source.matches(config.data)), None)
    if known not in ("FOLDER", "tfds:NAME", None):  # None: `streamed` says that there is no such folder
        raise ValueError(f"--stream reads a folder of images for each class, or tfds:NAME, and not {config.data}: leave it out")
    side = config.size or SIDE
    return data.streamed(config.data, key, test=0.2, image=(side, side, 3))


def _train_examples(config, entry, net, dataset, arch) -> Training:
    import jax
    import numpy as np
    import optax

    from jaxnas import data, training

    module = final_module(config, entry, net, dataset, arch)
    optimizer = training.sgd(optax.cosine_decay_schedule(config.learning_rate, config.train_steps))
    criterion = criterion_of(config, dataset)
    strategy = training.train(module, optimizer, dataset.image, steps=config.train_steps, criterion=criterion)
    feed = data.training(dataset, config.batch, augment=data.augment_named(config.augment))

    def test(variables):
        run = jax.jit(lambda v, x: training.outputs(lambda x: module.apply(v, x), x))
        parts = dataset.in_order(dataset.test, CHUNK) if config.stream else [dataset.test]
        outputs, y = zip(*((np.asarray(run(variables, part.x)), np.asarray(part.y)) for part in parts), strict=True)
        found = training.metrics(dataset.target, np.concatenate(outputs), np.concatenate(y))
        return {**{f"test_{name}": value for name, value in found.items()}, "test_examples": sum(map(len, y))}

    return Training(strategy, feed, test, module, lambda variables: variables)


def final_module(config, entry, net, dataset, arch) -> Any:
    """The plain module of one architecture, as it is trained at the end; `net` has the config's precision already."""
    from jaxnas.nets import with_precision

    if not entry.supernet:
        return net.build(net.space.choice(arch))
    if entry.final is None:
        return net.specialize(arch)[0]
    return with_precision(entry.final(net.space, arch, dataset, config), config.precision)


def _judge_examples(config, net, dataset, variables, arch):
    """On the first examples, with their own statistics."""
    x, y = next(dataset.in_order(dataset.valid, CHUNK)) if config.stream else (a[:CHUNK] for a in dataset.valid)
    loss = criterion_of(config, dataset).loss
    return loss(net.apply(variables, x, net.space.gates(arch), train=True)[0], y)


# --- text -------------------------------------------------------------------------------------------------------------


def _load_text(config, key):
    from jaxnas.data.text import text

    del key  # a text has an order
    asked = [name for name in (*ASKED, "stream") if getattr(config, name) not in (None, False)]
    if asked:
        raise ValueError(f"--{asked[0]} says how examples are read, and {config.space} reads text: leave it out")
    path = pathlib.Path(config.data).expanduser()
    if path.suffix != ".txt":
        raise ValueError(f"{config.space} reads text: give --data file.txt, not {config.data}")
    if not path.is_file():
        raise ValueError(f"--data {config.data}: there is no such file")
    return text(path, name=config.data)


def _nats(config, net, gates, variables, stream):
    """The mean loss over a stream, its hidden states carried from window to window."""
    import jax
    import jax.numpy as jnp

    from jaxnas import training
    from jaxnas.data.text import windows

    def step(variables, window):
        logits, variables = net.apply(variables, window[0], gates, train=False, path=True)
        return variables, training.cross_entropy(logits, window[1])

    return jnp.mean(jax.lax.scan(step, variables, windows(stream, config.batch, LENGTH))[1])


def _judge_text(config, net, source, variables, arch):
    return _nats(config, net, net.space.gates(arch), variables, source.valid)


def _train_text(config, entry, net, source, arch) -> Training:
    """At the gates of one architecture, in the form that is trained at the end: without norms."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxnas import policies, training
    from jaxnas import weight_sharing as ws
    from jaxnas.data.text import bptt

    final = entry.final(net.space, arch, source, config)
    gates = net.space.gates(arch)
    alone = policies.Policy(
        init=lambda key: gates,
        sample=lambda key, theta, t: theta[None],
        gates=lambda action: action,
        log_prob=None,
        derive=net.space.derive,
        hard=True,
    )
    optimizer = training.sgd(optax.cosine_decay_schedule(config.learning_rate, config.train_steps))
    strategy = ws.weight_sharing(final, alone, ws.frozen, ws.Weights(optimizer))
    strategy = strategy._replace(best=lambda state: state.variables)
    feed = bptt(source, config.batch, LENGTH, arch_steps=0)

    def test(variables):
        score = jnp.exp(jax.jit(lambda variables, stream: _nats(config, final, gates, variables, stream))(variables, source.test))
        return {"test_perplexity": float(score), "test_examples": len(source.test)}

    module, extract = final.specialize(arch)
    return Training(strategy, feed, test, module, extract)


TASKS: dict[str, Task] = {
    "images": Task(_load_examples("image"), _train_examples, _judge_examples, exports=True),
    "examples": Task(_load_examples(*WHAT), _train_examples, _judge_examples, exports=True),
    "text": Task(_load_text, _train_text, _judge_text, exports=False),
}
