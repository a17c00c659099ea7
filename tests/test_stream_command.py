"""`jaxnas search --stream`: images that are read while it searches, from the command line."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnas import data
from jaxnas.app import cli, search
from jaxnas.app.config import Config, prepare
from jaxnas.app.network import load as load_network
from jaxnas.data import sources
from jaxnas.driver import Stopped, journal

SMALL = dict(space="nasbench201", strategy="random", evaluator="supernet", supernet_steps=2, steps=2)
SMALL |= dict(train_steps=2, batch=8, channels=2, size=8, stream=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of three classes, which their colour tells apart, each of its own size."""
    top, draws = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for c, name in enumerate(("cat", "dog", "owl")):
        (top / name).mkdir()
        for i in range(40):
            pixels = draws.integers(0, 90, (*draws.integers(9, 20, 2), 3))
            pixels[..., c] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(top / name / f"{i}.{('png', 'jpg')[i % 2]}")
    return top


@pytest.fixture(scope="module")
def ran(folder, tmp_path_factory):
    """(its directory, its result) of a search on them, none of whose stages has had the images in memory."""
    config = Config(data=str(folder), **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load", lambda *_, **__: pytest.fail("everything was loaded"))
        patch.setattr(data, "load", sources.load)
        directory = prepare(str(tmp_path_factory.mktemp("runs") / "run"), config)
        return directory, search.execute(directory, config)


def test_a_search_on_a_folder_that_is_never_in_memory(ran):
    directory, result = ran
    assert result["outcome"] == "found" and result["found"]["test_examples"] == 24  # a fifth of 120
    assert json.loads((directory / "result.json").read_text()) == result
    assert "read as they are wanted as 8 x 8 x 3" in data.streamed(result["data"], jax.random.key(0), image=(8, 8, 3)).notes[0]


def test_a_cut_run_goes_on_to_the_same_bytes(folder, ran, tmp_path, monkeypatch):
    config = Config(data=str(folder), **SMALL)
    directory, write = prepare(str(tmp_path / "run"), config), journal.Journal.write

    def stop(log, *more):
        write(log, *more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "write", stop)
        with pytest.raises((KeyboardInterrupt, Stopped)):
            search.execute(directory, config)
    assert not (directory / "result.json").exists()
    search.execute(directory, config)
    for name in ("result.json", "weights.npz", "export.bin"):
        assert (directory / name).read_bytes() == (ran[0] / name).read_bytes()


def test_predictions_of_files_see_what_the_search_saw(folder, ran):
    network = load_network(ran[0])
    dataset = data.streamed(folder, jax.random.key(3), image=(8, 8, 3))
    paths = [dataset.train.source.paths[i] for i in dataset.train.at[:5]]
    [seen] = dataset.in_order(data.rows.Rows(dataset.train.source, dataset.train.at[:5]), 5)
    np.testing.assert_allclose(network.inputs.encode(paths), seen.x, atol=1e-6)
    assert network.names == ("cat", "dog", "owl") and len(network.predict(paths)) == 5


def test_a_share_of_the_examples_is_the_test_part(folder):
    dataset = data.streamed(folder, jax.random.key(0), test=0.25, valid=0.5)
    assert [data.count(part) for part in (dataset.train, dataset.valid, dataset.test)] == [45, 45, 30]
    assert sorted(np.concatenate([dataset.train.at, dataset.valid.at, dataset.test.at])) == list(range(120))
    assert data.streamed(folder, jax.random.key(0)).test is None
    whole = data.load(folder, jax.random.key(0), size=8)  # the same cut
    cut = data.streamed(folder, jax.random.key(0), test=0.2)
    np.testing.assert_array_equal(whole.test.y, cut.test.source.labels[cut.test.at])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data", "digits", "--strategy", "darts"], "reads a folder of images for each class, or tfds:NAME, and not digits"),
        (["--data", "PHOTOS/none", "--strategy", "darts"], "there is no such folder"),
        (["--data", "PHOTOS"], "macro trains networks on images in memory"),
        (["--data", "PHOTOS", "--strategy", "darts", "--balance"], "leave --balance out"),
        (["--data", "PHOTOS", "--strategy", "darts", "--layout", "NHWC"], "leave --layout out"),
        (["--data", "PHOTOS", "--space", "nasbench201", "--strategy", "aging"], "say --evaluator supernet"),
        (["--data", "PHOTOS", "--space", "nasbench201", "--strategy", "hyperband"], "say --evaluator supernet"),
        (["--data", "a.txt", "--space", "darts-rnn"], "reads text: leave it out"),
    ],
)
def test_what_cannot_be_streamed_is_one_line(folder, flags, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [flag.replace("PHOTOS", str(folder)) for flag in flags]
    assert cli.main(["search", "--stream", *flags]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and "\n" not in said and not list(tmp_path.iterdir())
