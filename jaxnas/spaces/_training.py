"""What an architecture says of its training, in the spaces that decide it together with the network.

The last words of its text, "rate=0.1 decay=0.0005 augment=crop dropout=0.2", are the training; all before them are the network.
"""

from collections.abc import Callable, Iterable, Mapping
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


def retrained(network: Any, training: Any) -> Any:
    """The network of one architecture with the training of another."""
    decided = [name for name in TrainingChoice._fields if name in training._fields]
    return network._replace(**{name: getattr(training, name) for name in decided})


def written(base: Space, spec: Any, choice_of: Callable[..., Any], to_text: Callable, from_text: Callable) -> Space:
    """A space whose architectures are described, and so written and read, in words.

    Args:
        base: the space of their decisions.
        spec: what its networks are told.
        choice_of: (spec, arch) -> the description of one network, on the host.
        to_text: description -> text.
        from_text: (spec, text) -> arch; ValueError for a text that is not in the space.
    """
    decided = lambda arch: choice_of(spec, arch)
    read = lambda text: base.canonical(from_text(spec, text))
    return base._replace(spec=spec, choice=decided, to_text=lambda arch: to_text(decided(arch)), from_text=read)


def ladders(space: Space, texts: Mapping[str, Iterable[str]]) -> dict[str, tuple[Arch, ...]]:
    """name -> the architectures of its texts, those that are in the space; names without one are left out."""
    found: dict[str, tuple[Arch, ...]] = {}
    for name, each in texts.items():
        for text in each:
            try:
                found[name] = (*found.get(name, ()), space.from_text(text))
            except ValueError:
                continue
    return found


def unknown(what: str) -> Any:
    """Refuses a word of a text."""
    raise ValueError(f"{what!r} is not in this space")
