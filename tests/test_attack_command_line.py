"""Every flag of every command refuses a bad value of each kind: one line, exit code 2, nothing left behind, nothing begun.

The flags are read from the commands themselves, those of strategies and spaces from their tables: a new one is attacked, too.
"""

import dataclasses
import re
import shutil
import types
import typing

import numpy as np
import pytest

from jaxnas import studies
from jaxnas.app import bench, cli, commands, main_job, rank, search, tabulate
from jaxnas.app.methods import METHODS
from jaxnas.app.spaces import NETS, SPACES

HUGE = "99999999999999999999"
BAD = {
    int: ("nan", "2.5", "many", "-1", HUGE, ""),
    float: ("nan", "inf", "-1", "many", "1e300", ""),
    str: ("no such thing", "", "/dev/null/x"),
    bool: ("maybe", "3", ""),
}
TAKEN = {  # (command or strategy, flag, value): a bad value of its kind, and a good one here
    ("tunas", "--strategy.beta", "-1"),
    *(("worker", "--objectives", name) for name in ("no such thing", "/dev/null/x", "nan", "2.5", "many")),
    *((name, "--out", "no such thing") for name in ("search", "bench", "rank")),
}


class Begun(Exception):  # noqa: N818: no error, it ends a command that was taken
    """A command was taken, and has begun to compute."""


@pytest.fixture
def attack(capsys, tmp_path, monkeypatch):
    """attack(*arguments): None for a command that was taken, else what was said in its one line."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rng = np.random.default_rng(0)
    table = {"archs": np.stack(np.unravel_index(np.arange(6), (2, 3)), 1), "accuracy": rng.random(6), "cost": rng.random(6)}
    np.savez(tmp_path / "table.npz", **table)
    np.savez(tmp_path / "large.npz", x=rng.random((400, 32, 32, 3), np.float32), y=np.arange(400) % 3)
    (tmp_path / "book.txt").write_text("a cell that a search has found is a cell that a search has kept. " * 400)

    def begin(*args, **kwargs):
        raise Begun

    def begin_to_rank(key, net, archs, data, proxies, *, evaluator, say):
        evaluator(net, *proxies)
        raise Begun

    resumed = tabulate._resume

    def begin_to_tabulate(*args):
        resumed(*args)
        raise Begun

    def main_job_run(directory, key, net, *args, algorithm=None, **kwargs):
        if algorithm is not None:
            algorithm(net.space)
        raise Begun

    monkeypatch.setattr(search.Resumable, "run", begin)
    monkeypatch.setattr(main_job, "run", main_job_run)
    monkeypatch.setattr(bench, "search", begin)
    monkeypatch.setattr(tabulate, "_resume", begin_to_tabulate)
    monkeypatch.setattr(rank, "scored", begin_to_rank)
    monkeypatch.setattr(studies, "work", begin)

    def run(*arguments):
        capsys.readouterr()
        before = sorted(tmp_path.rglob("*"))
        try:
            code = cli.main([str(a) for a in arguments])
        except Begun:
            for path in set(tmp_path.rglob("*")) - set(before):
                shutil.rmtree(path, ignore_errors=True)
            return None
        out, err = capsys.readouterr()
        assert code == 2, arguments
        assert out == "", arguments
        assert re.fullmatch(r"jaxnas: [^\n]{8,600}\n", err), (arguments, err)
        assert "Traceback" not in err
        assert sorted(tmp_path.rglob("*")) == before, f"{arguments} left something behind"
        return err

    return run


def bad_values(kind):
    """The bad values of an annotation: what is bad for each of its parts."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return BAD[str]
    if origin is typing.Annotated or origin is tuple:
        return bad_values(parts[0])
    if origin in (typing.Union, types.UnionType):
        each = [set(bad_values(part)) for part in parts if part is not type(None)]
        return tuple(value for value in bad_values(parts[0]) if all(value in bad for bad in each))
    return BAD.get(kind, ())


def flags(kind, prefix="--"):
    """(flag, its bad values) of each field of a dataclass."""
    for field in dataclasses.fields(kind):
        if values := bad_values(field.type):
            yield prefix + field.name.replace("_", "-"), values


SUPERNET = ("search", "--strategy", "random")
VALID = {  # a command that is taken, to which one bad flag is added
    "search": ("search",),
    "search in cells": SUPERNET,
    "bench": ("bench", "--tables", "../table.npz", "--algorithms", "random"),
    "tabulate": ("tabulate",),
    "rank": ("rank",),
    "worker": ("worker", "study", "true"),
}


WITH = {  # what a command with this strategy, or this space, needs besides
    "constrained-evolution": ("--strategy.limit=1e6",),
    "darts-rnn": ("--data=../book.txt",),
    "enas-rnn": ("--data=../book.txt",),
    "ofa-mobilenetv3": ("--data=../large.npz",),
}


def attacks():
    """(the command, a flag, its bad values) of all there are."""
    for name, valid in VALID.items():
        for flag, values in flags(commands.COMMANDS[valid[0]]):
            yield pytest.param(valid, flag, values, id=f"{name} {flag}")
    for name, method in METHODS.items():
        yield pytest.param(("search", "--strategy", name, *WITH.get(name, ())), "--no-such-flag", ("",), id=name)
        for flag, values in flags(method.settings, "--strategy."):
            yield pytest.param(("search", "--strategy", name, *WITH.get(name, ())), flag, values, id=f"{name} {flag}")
    for name, entry in SPACES.items():
        strategy = "random" if NETS[entry.net].supernet else "portfolio"
        for flag, values in flags(entry.settings, "--space."):
            valid = ("search", "--strategy", strategy, "--space", name, *WITH.get(name, ()))
            yield pytest.param(valid, flag, values, id=f"{name} {flag}")


@pytest.mark.parametrize(("valid", "flag", "values"), [*attacks()])
def test_a_bad_value_is_one_line(attack, valid, flag, values):
    taken = {value for value in values if attack(*valid, f"{flag}={value}") is None}
    allowed = {value for value in values if any((word, flag, value) in TAKEN for word in valid)}
    assert taken == allowed, "taken in silence"


@pytest.mark.parametrize("valid", dict.fromkeys(attack.values[0] for attack in attacks()), ids=" ".join)
def test_what_the_bad_flags_are_added_to_is_taken(attack, valid):
    assert attack(*valid) is None


def test_there_are_hundreds():
    assert sum(len(attack.values[2]) for attack in attacks()) >= 300
