"""What an architecture says of its training, in the spaces that decide it together with the network.

The last words of its text, "rate=0.1 decay=0.0005 augment=crop dropout=0.2", are the training; all before them are the network.
"""

from typing import Any, NamedTuple

from jaxnas.base import Arch
from jaxnas.spaces._space import Space


class TrainingChoice(NamedTuple):
    rate: float  # the learning rate, at its highest
    decay: float  # weight decay
    augment: str  # of images: "none", or "crop", "flip" and "cutout", joined by "+"
    dropout: float


def training_text(training: TrainingChoice, names: tuple[str, ...] = TrainingChoice._fields) -> str:
    """ "rate=0.1 decay=0.0005 ...", of the fields that the space decides."""
    return " ".join(f"{name}={getattr(training, name)}" for name in names)


def with_recipe(space: Space, arch: Arch, recipe: str) -> Arch | None:
    """The same network with another training; None where the space has no such training."""
    text = " ".join(word for word in space.to_text(arch).split() if "=" not in word)
    try:
        return space.from_text(f"{text} {recipe}")
    except ValueError:
        return None


def unknown(what: str) -> Any:
    """Refuses a word of a text."""
    raise ValueError(f"{what!r} is not in this space")
