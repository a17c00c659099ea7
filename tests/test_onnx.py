"""A kept network as ONNX: in onnxruntime it gives what export.bin gives, for every family; and what a person can get wrong."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxnas as nas
from jaxnas import data
from jaxnas.app import cli, config, export, search, tasks

TRAINED = "rate=0.1 decay=0.0005 augment=none dropout=0.0"
TABULAR = "rate=0.003 decay=0.01 dropout=0.1"
needs_converter = lambda: pytest.importorskip("jax2onnx", reason="needs the extra `onnx`")


def images():
    """uint8 images with the channels first, of named classes."""
    x = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8)).astype(np.uint8)
    return data.split(jax.random.key(0), x, np.asarray(["cat", "dog", "owl"])[np.arange(30) % 3], layout="NCHW")


def series():
    """Series of two channels, and two numbers to predict."""
    random = np.random.default_rng(1)
    return data.split(jax.random.key(0), 5 + random.normal(size=(30, 2, 12)), random.normal(9, 3, (30, 2)), layout="NCT")


def table():
    """Numbers with gaps and categories, and several labels."""
    random = np.random.default_rng(2)
    size = np.where(np.arange(40) % 7 == 0, np.nan, random.normal(50, 9, 40))
    frame = pd.DataFrame({"size": size, "colour": random.choice(["red", "blue", "green"], 40), "age": random.normal(size=40)})
    return data.split(jax.random.key(0), frame, random.integers(0, 2, (40, 2)).astype(np.float32), kind="labels")


def kept(directory, dataset, genotype, **settings):
    """A run directory with a network of random weights."""
    asked = config.complete(config.Config(**settings))
    config.prepare(str(directory), asked)
    job = search.make_job(asked, dataset)
    arch = job.space.from_text(genotype)
    module = tasks.final_module(asked, search.net_entry(asked), job.net, dataset, arch)
    random, high = np.random.default_rng(3), 1.25 if "separable" in genotype else 0.75  # so that examples differ
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *dataset.image)))
    draw = lambda low, high, tree: jax.tree.map(lambda a: random.uniform(low, high, a.shape).astype(a.dtype), tree)
    variables = {name: draw(-0.75, high, tree) if name == "params" else draw(0.5, 1.5, tree) for name, tree in shapes.items()}
    export.save_weights(directory / "weights.npz", variables)
    export.export_network(directory, module, variables, dataset, space=asked.space, genotype=genotype, temperature=1.5)
    return directory


def same_as_export(directory, x, sizes=(1, 3)):
    """The session, after it has given what export.bin gives."""
    import onnxruntime

    session = onnxruntime.InferenceSession(directory / "network.onnx", providers=["CPUExecutionProvider"])
    want = np.asarray(nas.load(directory).call(x))
    assert np.ptp(want, axis=0).max() > 1e-3, "examples must differ"
    for n in sizes:
        (found,) = session.run(None, {"x": x[:n]})
        assert found.shape == want[:n].shape and found.dtype == want.dtype
        np.testing.assert_allclose(found, want[:n], 1e-5, 1e-5)
    return session


@pytest.mark.parametrize(
    "genotype",
    [
        "stem1 8:plain3x1 12:plain5x2 batch relu average",
        "stem1 8:residual3x1 12:residual3x1 group silu flatten",
        "stem1 8:separable3x1 12:separable5x1 attention batch silu average",
        "stem1 8:inverted3e2x1 8:inverted5e2x1 attention group relu flatten",
    ],
)
def test_images(genotype, tmp_path, capsys):
    needs_converter()
    run = kept(tmp_path / "run", images(), f"{genotype} {TRAINED}")
    assert cli.main(["export", str(run)]) == 0
    assert capsys.readouterr().out == f"{genotype} {TRAINED} in {run / 'network.onnx'}\n"
    session = same_as_export(run, np.random.default_rng(4).integers(0, 256, (3, 3, 8, 8)).astype(np.uint8))
    held = session.get_modelmeta().custom_metadata_map
    assert json.loads(held["names"]) == ["cat", "dog", "owl"] and held["genotype"] == f"{genotype} {TRAINED}"
    assert json.loads(held["target"])["kind"] == "classes" and json.loads(held["inputs"])["layout"] == "NCHW"


def test_series(tmp_path):
    needs_converter()
    run = kept(tmp_path / "run", series(), f"stem1 8:residual3x1 12:residual5x1 attention batch relu average {TRAINED}")
    nas.load(run).to_onnx(run / "network.onnx")
    same_as_export(run, (5 + np.random.default_rng(4).normal(size=(3, 2, 12))).astype(np.float32))


@pytest.mark.parametrize("genotype", ["periodic mlp 16x2 batch relu", "raw resnet 16x1 layer silu", "raw transformer 32x1 silu"])
def test_tables(genotype, tmp_path):
    needs_converter()
    dataset = table()
    run = kept(tmp_path / "run", dataset, f"{genotype} {TABULAR}")
    nas.load(run).to_onnx(run / "network.onnx")
    asked = pd.DataFrame({"colour": ["red", "mauve", None], "size": [None, 40.0, 61.5], "age": [0.1, -3.0, 0.4]})
    same_as_export(run, dataset.inputs.rows(asked))


def test_pools_are_refused_in_a_line(tmp_path, capsys):
    """jax2onnx 0.13 gets the padding of a batch of any size wrong."""
    needs_converter()
    text = "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|none~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    run = kept(tmp_path / "run", images(), text, strategy="darts", channels=4)
    assert f"jax2onnx cannot convert {text} (" in (said := refused(capsys, run)) and said.endswith(
        "use export.bin, which needs JAX alone\n"
    )
    assert not (run / "network.onnx").exists()


# --- bad input --------------------------------------------------------------------------------------------------------


def refused(capsys, *arguments):
    capsys.readouterr()
    assert cli.main(["export", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("jaxnas: ") and err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("onnx") / "run", table(), f"raw mlp 16x1 nonorm relu {TABULAR}")


def test_what_is_wrong_is_said_in_a_line(tiny, tmp_path, capsys):
    assert "unknown format 'savedmodel': choose onnx" in refused(capsys, tiny, "--format", "savedmodel")
    assert "--out must end in .onnx, not 'a.pb'" in refused(capsys, tiny, "--out", "a.pb")
    assert "there is no run" in refused(capsys, tmp_path / "nowhere")
    assert "is not a run: it has no export.bin" in refused(capsys, tmp_path)
    (tmp_path / "mine.onnx").write_bytes(b"mine")
    assert "exists: give another --out" in refused(capsys, tiny, "--out", tmp_path / "mine.onnx")
    config.prepare(str(tmp_path / "begun"), config.complete(config.Config()))
    assert "has no network yet: finish it with jaxnas resume" in refused(capsys, tmp_path / "begun")
    assert (tmp_path / "mine.onnx").read_bytes() == b"mine"


def test_the_extra_is_named_where_it_is_missing(tiny, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    assert "pip install 'jaxnas[onnx]'" in refused(capsys, tiny)
    assert not (tiny / "network.onnx").exists()


def test_a_run_without_weights_or_with_damaged_ones_is_refused(tiny, tmp_path, capsys):
    needs_converter()
    for name in ("export.bin", "network.json", "config.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    assert "has no weights.npz" in refused(capsys, tmp_path)
    (tmp_path / "weights.npz").write_bytes(b"PK")
    assert "weights.npz in" in (said := refused(capsys, tmp_path)) and "is damaged: make it again" in said
