"""A table of one's own: what is in it, that it resumes, and that it is what a search would have been told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import data, nets, spaces
from jaxnas.app import cli, tabulate
from jaxnas.evaluate.benchmark import load_table

SPACE = spaces.pnas(2, ("max_pool_3x3",))  # 4 + 4 * 9 cells


@functools.cache
def parts():
    dataset = data.load("digits", jax.random.key(0))
    return nets.cell_net(SPACE, image=dataset.image, classes=10, channels=2, cells=1), dataset


def make(path, archs, rate=0.1, steps=3, **kw):
    net, dataset = parts()
    return tabulate.tabulate(
        path, net, dataset, tabulate.Recipe(optax.sgd(rate), steps, 8), key=jax.random.key(1), archs=archs, **kw
    )


def test_every_architecture_or_different_ones():
    every = tabulate.choose(jax.random.key(0), SPACE, 0)
    assert len(np.unique(every, axis=0)) == SPACE.size == 40
    some = tabulate.choose(jax.random.key(0), spaces.darts(), 50)
    assert some.shape == (50, 24) and len(np.unique(some, axis=0)) == 50
    sized = spaces.pnas(2, ("skip_connect", "max_pool_3x3"))
    whole = tabulate.choose(jax.random.key(0), sized, 0)
    assert len(np.unique(whole, axis=0)) == len(whole) == sized.size
    deep = spaces.space((np.full(4, 300),), parent=[-1, 0, 1, 2], when=np.arange(300) * np.ones((4, 1)) == 1)  # of 300^4
    whole = tabulate.choose(jax.random.key(0), deep, 0)
    assert len(np.unique(whole, axis=0)) == len(whole) == deep.size == 3 * 299 + 300
    for space, n, message in ((SPACE, 41, "1 to 40"), (SPACE, -1, "1 to 40"), (spaces.darts(), 0, "1 to 999,999")):
        with pytest.raises(ValueError, match=message):
            tabulate.choose(jax.random.key(0), space, n)


@pytest.mark.slow
def test_a_table_that_is_cut_is_gone_on_with_and_no_other_is_touched(tmp_path):
    archs = tabulate.choose(jax.random.key(0), SPACE, 7)
    assert make(tmp_path / "whole.npz", archs, chunk=3) == 0

    class Cut(Exception):
        pass

    def stop(line):
        if line.startswith("6 of 7"):
            raise Cut

    with pytest.raises(Cut):
        make(tmp_path / "cut.npz", archs, chunk=3, say=stop)
    lines = []
    make(tmp_path / "cut.npz", archs, chunk=3, say=lines.append)
    assert [line.split(" arch")[0] for line in lines] == ["7 of 7"]
    whole, cut = (np.load(tmp_path / name) for name in ("whole.npz", "cut.npz"))
    for column in ("archs", "accuracy", "test"):
        np.testing.assert_array_equal(whole[column], cut[column])
    table = load_table(tmp_path / "whole.npz", SPACE)
    assert np.isfinite(table.test).sum() == 7 and (table.cost[np.isfinite(table.test)] > 0).all()
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match="cannot write"):
        make(tmp_path / "file" / "table.npz", archs)
    with pytest.raises(FileExistsError, match="another --out"):
        make(tmp_path / "whole.npz", archs, steps=4)
    before = (tmp_path / "whole.npz").read_bytes()
    make(tmp_path / "whole.npz", archs, chunk=3)
    assert (tmp_path / "whole.npz").read_bytes() == before


def test_what_diverges_is_left_out_and_counted(tmp_path):
    archs = tabulate.choose(jax.random.key(0), SPACE, 3)
    assert make(tmp_path / "none.npz", archs, rate=jnp.nan) == 3
    with np.load(tmp_path / "none.npz") as file:
        assert len(file["archs"]) == 0 and file["trained"] == 3


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["tabulate", "--architectures", "2", "--steps", "2", "--channels", "2", "--batch", "8"]
    assert cli.main(arguments) == 0
    assert "2 architectures in table.npz, 0 diverged" in capsys.readouterr().out
    assert cli.main([*arguments, "--steps", "3"]) == 2
    assert "give another --out" in capsys.readouterr().err
    assert cli.main(["tabulate", "--out", "table.csv"]) == 2
    assert ".npz" in capsys.readouterr().err
    few = ["--algorithms", "random", "--queries", "4", "--seeds", "2"]
    assert cli.main(["bench", "--tables", "table.npz", *few]) == 0  # of a sample: the file names its space
    out, err = capsys.readouterr()
    assert "table: 2 of 6,466 architectures have a row, isomorphic ones counted once" in err
    assert "queries without a row" in out
