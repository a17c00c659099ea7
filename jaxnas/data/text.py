"""Text as streams of tokens, and the windows of truncated backpropagation through time.

A stream is laid out as B parallel ones, each contiguous, and cut into windows of T tokens:

    x[w, b, i] = stream[b n T + w T + i],    y[w, b, i] = stream[b n T + w T + i + 1],    n windows

so that window w begins where window w - 1 ended, in every row: a net may carry its hidden state from one to the next.  What
does not fill a window of all rows, at the end of the stream, is left out.

Axes: N tokens of a stream, n windows, B parallel streams, T tokens of a window, W weight steps, A architecture steps.
"""

import collections
import dataclasses
import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import sharding
from jaxnas.base import Batch, Feed
from jaxnas.data.errors import DataError

UNKNOWN, END = "<unk>", "<eos>"  # as Penn Treebank has them


class Tokens(NamedTuple):
    """What a language model reads."""

    tokens: jax.Array  # int32[B, T]
    first: jax.Array  # bool[]: the text begins here; otherwise this window follows the one before


@functools.partial(jax.tree_util.register_dataclass, data_fields=["train", "valid", "test"], meta_fields=["vocabulary", "name"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """Three streams, in the order of the text.  `train` moves the weights, `valid` the architecture; no search sees `test`."""

    train: jax.Array  # int32[N]
    valid: jax.Array
    test: jax.Array
    vocabulary: tuple[str, ...]  # static, like `name`
    name: str = "text"


def text(
    source: str | pathlib.Path,
    *,
    level: str = "char",
    valid: float | str | pathlib.Path = 0.1,
    test: float | str | pathlib.Path = 0.1,
    limit: int | None = None,
    name: str = "text",
) -> Text:
    """Reads a text and cuts it.

    Args:
        source: the text itself, or a `pathlib.Path` to a UTF-8 file.
        level: "char", or "word": what blanks part, and an <eos> behind every line.
        valid, test: the parts of the text, cut from its end; or two sources of their own, kept whole.
        limit: the size of the vocabulary: the commonest tokens of the train stream and <unk>, which stands for all others;
            default: every token of all three streams.
        name: what messages and records call it.

    Raises:
        DataError: for a file that cannot be read, an unknown level, parts that leave nothing, or fewer than two tokens.
    """
    if level not in ("char", "word"):
        raise DataError(f"unknown level {level!r}: choose char or word")
    if limit is not None and limit < 2:
        raise DataError(f"a vocabulary needs at least 2 tokens, not {limit}")
    tokens = _tokens(source, level)
    if isinstance(valid, (str, pathlib.Path)) and isinstance(test, (str, pathlib.Path)):
        parts = [tokens, _tokens(valid, level), _tokens(test, level)]
    elif isinstance(valid, float) and isinstance(test, float) and 0 < valid < 1 and 0 < test < 1 and valid + test < 1:
        ends = np.cumsum([0, len(tokens) - sum(round(p * len(tokens)) for p in (valid, test)), round(valid * len(tokens))])
        parts = [tokens[a:b] for a, b in zip(ends, (*ends[1:], None), strict=True)]
    else:
        got = f"{valid!r:.40} and {test!r:.40}"
        raise DataError(f"valid and test must be two parts above 0 that sum to less than 1, or two texts; got {got}")
    if not all(parts):
        sizes = ", ".join(f"{len(part)} {which}" for part, which in zip(parts, ("train", "valid", "test"), strict=True))
        raise DataError(f"{name}: an empty part ({sizes} tokens): give more text (a file's is pathlib.Path), or other parts")
    if limit is None:
        vocabulary = sorted(set().union(*parts))
    else:
        common = [token for token, _ in collections.Counter(parts[0]).most_common() if token != UNKNOWN]
        vocabulary = sorted([UNKNOWN, *common[: limit - 1]])
    if len(vocabulary) < 2:
        raise DataError(f"{name}: every token is {vocabulary[0]!r}: there must be at least two")
    number = {token: n for n, token in enumerate(vocabulary)}

    def code(part):
        return jnp.asarray(np.asarray([number.get(token, number.get(UNKNOWN)) for token in part], np.int32))

    return Text(**dict(zip(("train", "valid", "test"), map(code, parts), strict=True)), vocabulary=tuple(vocabulary), name=name)


def windows(stream: jax.Array, size: int, length: int, name: str = "the stream") -> tuple[Tokens, jax.Array]:
    """All windows of a stream: (Tokens(tokens [n, B, T], first [n]), targets [n, B, T]).

    Args:
        stream: int32[N].
        size: B.
        length: T.

    Raises:
        DataError: for sizes below 1, or a stream that fills no window.
    """
    if min(size, length) < 1:
        raise DataError(f"a window needs at least one stream and one token; got {size} and {length}")
    n = (len(stream) - 1) // (size * length)
    if n < 1:
        least = size * length + 1
        raise DataError(f"{name} has {len(stream)} tokens: {size} streams of {length} need {least}; take fewer or shorter ones")
    cut = lambda s: s[: n * size * length].reshape(size, n, length).swapaxes(0, 1)
    return Tokens(cut(stream), jnp.arange(n) == 0), cut(stream[1:])


def bptt(text: Text, size: int, length: int, *, weight_steps: int = 1, arch_steps: int = 1) -> Feed:
    """Windows for a search of a language model, in the order of the text: those of step t follow those of step t - 1.

    A draw is a Batch with train = (Tokens(tokens [W, B, T], first [W]), targets [W, B, T]) and valid alike, of A windows.  In
    `train`, `first` is set where the text begins again; in `valid` always, since an architecture step carries nothing over
    (the published one carries a hidden state of its own).  Without architecture steps valid is None.

    Windows have one fixed length.  The published length is halved with probability 0.05 (and, to train a found cell, varied by a
    normal deviate): that needs dynamic shapes.

    Args:
        text: only its train and valid streams become `arrays`.
        size: B.
        length: T.
        weight_steps: W.
        arch_steps: A.

    Raises:
        DataError: as `windows`.
        ValueError: for less than one weight step, or negative architecture steps.
    """
    if weight_steps < 1 or arch_steps < 0:
        raise ValueError(f"windows need at least one weight step and no negative steps, not {weight_steps} and {arch_steps}")
    train = windows(text.train, size, length, f"{text.name}, train part")
    valid = None
    if arch_steps:
        tokens, targets = windows(text.valid, size, length, f"{text.name}, valid part")
        valid = tokens._replace(first=jnp.ones_like(tokens.first)), targets

    def take(part, t, steps):
        number = t * steps + jnp.arange(steps, dtype=jnp.int32)
        return sharding.constrain(jax.tree.map(lambda a: a[number % len(a)], part), "batch", dim=1)

    def draw(key, arrays, t):
        del key  # a text has an order
        train, valid = arrays
        return Batch(train=take(train, t, weight_steps), valid=take(valid, t, arch_steps))

    return Feed((train, valid), draw)


def _tokens(source, level):
    if isinstance(source, pathlib.Path):
        try:
            source = source.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{source} cannot be read ({str(error).splitlines()[0][:120]}): give a UTF-8 text file") from None
    if not isinstance(source, str):
        raise DataError(f"a text is a str, or a pathlib.Path to a file, not {type(source).__name__}")
    if level == "char":
        return list(source)
    return [token for line in source.splitlines() for token in (*line.split(), END)]
