"""Networks for the rows of a table, together with the numbers they are trained by.

The union of the families that work on tables: multi-layer perceptrons, their residual form, and the feature-tokenizer Transformer,
Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, NeurIPS 2021, arXiv:2106.11959; each with raw numbers or
periodic embeddings of them, Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022,
arXiv:2203.05556.

    network  = embedding of F inputs, D blocks of width W, outputs

    training = learning rate, weight decay, dropout

Text form: "periodic resnet 64x2 batch relu rate=0.003 decay=0.01 dropout=0.1".
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnas.base import Arch
from jaxnas.checks import checked, require_fields
from jaxnas.kinds import NonNegativeNumber, Positive, PositiveNumber, ProbabilityBelowOne
from jaxnas.spaces._space import Space, derived
from jaxnas.spaces._training import TrainingChoice, ladders, training_text, unknown, written

BLOCKS = ("mlp", "resnet", "transformer")
EMBEDDINGS = ("raw", "periodic")
NORMS = ("nonorm", "batch", "layer")
TRAINED = ("rate", "decay", "dropout")  # of a training, what the space decides


class Tabular(NamedTuple):
    """An architecture: each decision, int32[], is a number in the list of the same name in `TabularSpec`."""

    embedding: Any
    block: Any
    width: Any
    depth: Any
    norm: Any  # a Transformer has its own
    activation: Any
    rate: Any
    decay: Any
    dropout: Any


class TabularSpec(NamedTuple):
    """What a tabular space tells a network."""

    inputs: Positive  # F
    embedding: tuple[str, ...] = EMBEDDINGS
    block: tuple[str, ...] = BLOCKS
    width: tuple[Positive, ...] = (16, 32, 64, 128, 256)
    depth: tuple[Positive, ...] = (1, 2, 3, 4)
    norm: tuple[str, ...] = NORMS
    activation: tuple[str, ...] = ("relu", "silu")
    rate: tuple[PositiveNumber, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    decay: tuple[NonNegativeNumber, ...] = (0.0, 0.01, 0.1, 1.0)
    dropout: tuple[ProbabilityBelowOne, ...] = (0.0, 0.1, 0.25, 0.5)


class TabularChoice(NamedTuple):
    """One architecture, in words and numbers."""

    embedding: str
    block: str
    width: int
    depth: int
    norm: str
    activation: str
    training: TrainingChoice

    @property
    def network(self) -> tuple:
        """What its program is compiled from: all but the training."""
        return self[:-1]


@checked
def tabular(inputs: Positive, **lists: Any) -> Space:
    """The space of networks for rows of F inputs.

    Args:
        inputs: F.
        lists: fields of `TabularSpec`, to replace a decision's values; one value decides it.

    Raises:
        ValueError: for no inputs, an empty list, or an unknown embedding, block or norm.
    """
    spec = TabularSpec(inputs, **lists)
    require_fields(spec)
    listed = {name: getattr(spec, name) for name in Tabular._fields}
    if inputs < 1 or any(not values for values in listed.values()):
        raise ValueError(f"a tabular space needs an input, and a value for every decision: got {inputs} and {lists}")
    for name, known in (("embedding", EMBEDDINGS), ("block", BLOCKS), ("norm", NORMS)):
        if not set(listed[name]) <= set(known):
            raise ValueError(f"unknown {name} in {listed[name]}: choose among {', '.join(known)}")
    decisions = Tabular(**{name: len(values) for name, values in listed.items()})
    most = max(decisions)
    block, norm = Tabular._fields.index("block"), Tabular._fields.index("norm")
    parent, when = np.full(len(decisions), -1), np.ones((len(decisions), most), bool)
    parent[norm] = block
    when[norm] = [i >= len(spec.block) or spec.block[i] != "transformer" for i in range(most)]
    return written(derived(decisions, parent=parent, when=when), spec, choice_of, to_text, from_text)


def choice_of(spec: TabularSpec, arch: Arch) -> TabularChoice:
    """What an architecture decides, on the host."""
    at = jax.tree.map(int, arch)
    pick = {name: getattr(spec, name)[getattr(at, name)] for name in Tabular._fields}
    training = TrainingChoice(augment="none", **{name: pick.pop(name) for name in TRAINED})
    if pick["block"] == "transformer":
        pick["norm"] = "layer"
    return TabularChoice(**pick, training=training)


def to_text(choice: TabularChoice) -> str:
    words = [choice.embedding, choice.block, f"{choice.width}x{choice.depth}"]
    words += [choice.norm] * (choice.block != "transformer")
    return " ".join([*words, choice.activation, training_text(choice.training, TRAINED)])


def from_text(spec: TabularSpec, text: str) -> Tabular:
    """The architecture of a text.

    Raises:
        ValueError: for one that is not in the space.
    """
    numbers = {name: {str(v): i for i, v in enumerate(getattr(spec, name))} for name in Tabular._fields}
    found: dict[str, int] = {}

    def place(name: str, word: str) -> None:
        if word not in numbers[name]:
            raise ValueError(f"{word!r} is no {name} of this space: choose among {', '.join(numbers[name])}")
        found[name] = numbers[name][word]

    for word in text.split():
        name, _, given = word.partition("=")
        width, by, depth = word.partition("x")
        if given:
            place(name if name in TRAINED else unknown(word), given)
        elif by and width.isdigit():
            place("width", width)
            place("depth", depth)
        else:
            kinds = [n for n in ("embedding", "block", "norm", "activation") if word in numbers[n]]
            place(kinds[0] if kinds else unknown(word), word)
    if "block" in found and spec.block[found["block"]] == "transformer":
        found["norm"] = 0
    missing = [name for name in Tabular._fields if name not in found]
    if missing:
        raise ValueError(f"{text!r} lacks {', '.join(missing)}")
    return Tabular(**{name: np.int32(value) for name, value in found.items()})


FAMILIES = {  # width x depth is put in
    "mlp": "raw mlp {}x3 nonorm relu",
    "resnet": "raw resnet {}x2 batch relu",
    "periodic": "periodic mlp {}x2 nonorm relu",
    "transformer": "raw transformer {}x2 relu",
}
RECIPES = (
    "rate=0.001 decay=0.01 dropout=0.1",
    "rate=0.003 decay=0.1 dropout=0.25",
    "rate=0.003 decay=1.0 dropout=0.5",
)


def families(space: Space) -> dict[str, tuple[Arch, ...]]:
    """name -> the hand-made networks of a family, from the narrowest to the widest; families that are not in the space are left
    out."""
    each = lambda words: [f"{words.format(width)} {RECIPES[0]}" for width in space.spec.width]
    return ladders(space, {name: each(words) for name, words in FAMILIES.items()})
