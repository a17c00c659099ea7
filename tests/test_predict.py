"""From a finished run to predictions of raw examples: the export, `nas.load`, `jaxnas predict`, and their temperature."""

import csv
import functools
import json
import shutil
import subprocess
import sys
import textwrap

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import jaxnas as nas
from jaxnas import data, nets, spaces
from jaxnas.analysis import calibration
from jaxnas.app import cli, export, main_job

ONE = dict(
    block=("plain",), kernel=(3,), expansion=(2,), attention=(False,), norm=("batch",), activation=("relu",), head=("flatten",)
)


class Linear(nn.Module):
    """The smallest network."""

    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(x.reshape(x.shape[0], -1))


def kept(directory, dataset):
    """A run directory with a network of random weights."""
    module = Linear(dataset.target.outputs)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, *dataset.image)))
    export.export_network(directory, module, variables, dataset, space="none", genotype="linear", temperature=1.5)
    return module, variables


def printed(capsys, *arguments):
    """(lines on stdout, stderr) of a command that succeeds."""
    capsys.readouterr()
    code = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out.splitlines(), err


def refused(capsys, *arguments):
    capsys.readouterr()
    assert cli.main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    *notes, last = err.splitlines()
    assert out == "" and last.startswith("jaxnas: ") and all(note.startswith("data: ") for note in notes), err
    return last


# --- images, from the main job ----------------------------------------------------------------------------------------


@functools.cache
def bytes_first():
    """uint8 images with the channels first, [N, 3, 8, 8], and their classes."""
    random, y = np.random.default_rng(0), np.arange(150) % 3
    x = random.integers(0, 200, (150, 3, 8, 8)).astype(np.uint8)
    x[:, :, :4] += (25 * y).astype(np.uint8)[:, None, None, None]
    return x, np.asarray(["cat", "dog", "owl"])[y]


@functools.cache
def images():
    x, y = bytes_first()
    return data.split(jax.random.key(0), x[:110], y[:110], valid=None, test=(x[110:], y[110:]), layout="NCHW")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("predict") / "run"
    directory.mkdir()
    space = spaces.macro((8, 8, 3), stages=1, width=(4,), growth=(1.0,), depth=(1,), **ONE)
    net = nets.backbones(space, image=(8, 8, 3), classes=3)
    result = main_job.run(directory, jax.random.key(1), net, images(), main_job.Effort(1.0, batch=16, steps=3, trials=1))
    (directory / "result.json").write_text(json.dumps(result))
    return directory, result, net


def test_raw_images_score_what_was_tested(run, tmp_path):
    directory, result, net = run
    x, y = (a[110:] for a in bytes_first())
    network = nas.load(directory)
    predicted = network.predict(x)
    assert network.names == ("cat", "dog", "owl") and predicted.dtype.kind == "U"
    tested = result[result["kept"]]["of_each_seed"][0]
    assert np.mean(predicted == y) == pytest.approx(tested)

    module = net.build(net.space.choice(net.space.from_text(result["genotype"])))
    logits = jax.jit(module.apply)(export.load_weights(directory / "weights.npz"), images().test.x[...])
    np.testing.assert_array_equal(predicted, np.asarray(network.names)[np.asarray(logits).argmax(-1)])
    want = jax.nn.softmax(logits / result["temperature"])
    np.testing.assert_allclose(network.probabilities(x), want, rtol=1e-4, atol=1e-5)

    np.savez(tmp_path / "x.npz", x=x, y=np.asarray([network.names.index(name) for name in y]))
    code = f"""
        import sys
        import numpy as np
        import jax, jax.export
        call = jax.export.deserialize(open({str(directory / "export.bin")!r}, "rb").read()).call
        with np.load("x.npz") as file:
            print(np.mean(np.asarray(call(file["x"])).argmax(-1) == file["y"]))
        assert not [m for m in sys.modules if m.split(".")[0] in ("jaxnas", "flax", "optax")]
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert float(done.stdout) == pytest.approx(tested)


def test_the_network_is_described(run):
    directory, result, _ = run
    text = (directory / "network.json").read_text()
    held = json.loads(text)
    assert text == json.dumps(held, indent=2, sort_keys=True) + "\n"
    assert held["genotype"] == result["genotype"] and held["temperature"] == result["temperature"] and held["space"] == "macro"
    assert data.Inputs.from_json(held["inputs"]) == images().inputs and data.Target.from_json(held["target"]) == images().target
    assert held["shape"] == [3, 8, 8] and held["name"] == images().name
    assert b".py" not in (directory / "export.bin").read_bytes(), "no path of this machine"


def test_any_number_of_examples(run):
    network, (x, _) = nas.load(run[0]), bytes_first()
    many = np.concatenate([x, x, x])[:300]
    whole = network.probabilities(many)
    assert whole.shape == (300, 3)
    np.testing.assert_allclose(network.probabilities(many[:5]), whole[:5], rtol=1e-5)
    assert network.probabilities(many[:0]).shape == (0, 3) and network.predict(many[:0]).shape == (0,)
    np.testing.assert_array_equal(network.probabilities(many[:5].astype(np.int64)), network.probabilities(many[:5]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.transpose(0, 2, 3, 1), r"must be of the shape \[N, 3, 8, 8\], and x is \[150, 8, 8, 3\]: NCHW"),
        (lambda x: x[0], r"must be of the shape \[N, 3, 8, 8\], and x is \[3, 8, 8\]"),
        (lambda x: x / 255, "x is float64, and the network has learnt from bytes"),
        (lambda x: x.astype(int) - 1, "give whole numbers from 0 to 255"),
        (lambda x: x.astype(str), "x must be numbers, not <U"),
    ],
)
def test_other_examples_are_refused(run, change, message):
    with pytest.raises(data.DataError, match=message):
        nas.load(run[0]).predict(change(bytes_first()[0]))


def test_arrays_in_files(run, capsys, tmp_path):
    directory, result, _ = run
    x, y = bytes_first()
    tested = f"accuracy {100 * result[result['kept']]['of_each_seed'][0]:.2f} % of 40"
    np.savez(tmp_path / "parts.npz", x_train=x[:110], y_train=y[:110], x_test=x[110:], y_test=y[110:])
    out, err = printed(capsys, "predict", directory, tmp_path / "parts.npz")
    assert len(out) == 41 and out[-1] == tested and "x_test and y_test of parts.npz are read" in err
    name, what, probability = out[0].split("  ")
    assert name == "0" and what in ("cat", "dog", "owl") and 0 <= float(probability) <= 1
    np.savez(tmp_path / "alone.npz", anything=x[110:], ids=np.arange(40))
    np.save(tmp_path / "x.npy", x[110:])
    for path in (tmp_path / "alone.npz", tmp_path / "x.npy"):
        assert printed(capsys, "predict", directory, path)[0] == out[:-1]
    np.save(tmp_path / "y.npy", y[110:])
    assert printed(capsys, "predict", directory, f"{tmp_path}/x.npy,{tmp_path}/y.npy")[0] == out
    np.savez(tmp_path / "two.npz", a=x, b=x)
    assert "which of its arrays (a, b) holds the examples? Call it x" in refused(capsys, "predict", directory, tmp_path / "two.npz")
    assert "no such file or folder" in refused(capsys, "predict", directory, tmp_path / "nowhere")
    assert "must be of the shape" in refused(capsys, "predict", directory, "digits")
    np.save(tmp_path / "one.npy", 3.0)
    assert "x is a single number" in refused(capsys, "predict", directory, tmp_path / "one.npy")
    assert "a.csv is a table, and the network has learnt from images" in refused(capsys, "predict", directory, tmp_path / "a.csv")


def test_predictions_in_a_file(run, capsys, tmp_path):
    x, _ = bytes_first()
    np.save(tmp_path / "x.npy", x[:5])
    out, _ = printed(capsys, "predict", run[0], tmp_path / "x.npy", "--out", tmp_path / "p.csv")
    assert out == [f"5 predictions in {tmp_path / 'p.csv'}"]
    rows = list(csv.reader((tmp_path / "p.csv").read_text().splitlines()))
    assert rows[0] == ["example", "prediction", "cat", "dog", "owl"] and [r[0] for r in rows[1:]] == list("01234")
    network = nas.load(run[0])
    assert [r[1] for r in rows[1:]] == network.predict(x[:5]).tolist()
    np.testing.assert_allclose(np.asarray([r[2:] for r in rows[1:]], float), network.probabilities(x[:5]), rtol=1e-6)
    before = (tmp_path / "p.csv").read_bytes()
    assert "exists: give another --out" in refused(capsys, "predict", run[0], tmp_path / "x.npy", "--out", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_bytes() == before
    assert "must end in .csv" in refused(capsys, "predict", run[0], tmp_path / "x.npy", "--out", tmp_path / "p.json")


def _config(run):
    (run / "export.bin").unlink()
    (run / "network.json").unlink()
    (run / "config.json").write_text("{}")


def _flip(name, at):
    def flip(run):
        held = bytearray((run / name).read_bytes())
        held[at] ^= 0x55
        (run / name).write_bytes(held)

    return flip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "there is no run .*: give the directory of one"),
        (lambda run: [p.unlink() for p in run.iterdir()], "is not a run: it has no export.bin"),
        (_config, "has no export.bin: a network that reads text is kept as weights alone"),
        (lambda run: (_config(run), (run / "result.json").unlink()), "has no network yet: finish it with jaxnas resume"),
        (lambda run: (run / "network.json").unlink(), "has no network.json: make it with jaxnas resume"),
        (lambda run: (run / "network.json").write_text("{"), "damaged: make them again with jaxnas resume"),
        (lambda run: (run / "network.json").write_text("[]"), "damaged"),
        (lambda run: (run / "export.bin").write_bytes(b""), "damaged"),
        (_flip("export.bin", 0), "damaged"),
        (_flip("export.bin", -900), "damaged"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(run, tmp_path, change, message):
    (tmp_path / "run").mkdir()
    for name in ("export.bin", "network.json", "result.json"):
        shutil.copyfile(run[0] / name, tmp_path / "run" / name)
    change(tmp_path / "run")
    with pytest.raises(ValueError, match=message) as error:
        nas.load(tmp_path / "run")
    assert "\n" not in str(error.value)


# --- image files ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def from_files(tmp_path_factory):
    """(the folder that was learnt from, the run)."""
    top = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (top / "images" / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)).save(top / "images" / name / f"{i}.png")
    (top / "run").mkdir()
    kept(top / "run", data.load(top / "images", jax.random.key(0)))
    return top / "images", top / "run"


def test_folders_of_images_of_other_sizes(from_files, capsys, tmp_path):
    learnt, directory = from_files
    random = np.random.default_rng(1)
    for name, shape in (("cat/a.png", (20, 13, 3)), ("dog/b.png", (9, 30, 3)), ("dog/c.png", (8, 8))):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, shape, np.uint8)).save(tmp_path / "new" / name)
    (tmp_path / "new" / "dog" / "bad.png").write_bytes(b"no image")
    own, err = printed(capsys, "predict", directory, learnt)
    assert len(own) == 25 and "the network has learnt from most of" in err
    out, err = printed(capsys, "predict", directory, tmp_path / "new")
    names = ["cat/a.png", "dog/b.png", "dog/c.png"]
    assert [line.split("  ")[0] for line in out[:3]] == names
    assert "1 of 4 images cannot be read and are left out: dog/bad.png" in err
    network = nas.load(directory)
    predicted = network.predict([tmp_path / "new" / name for name in names])
    assert [line.split("  ")[1] for line in out[:3]] == predicted.tolist()
    assert out[3] == f"accuracy {100 * np.mean(predicted == ['cat', 'dog', 'dog']):.2f} % of 3" and len(out) == 4

    flat, _ = printed(capsys, "predict", directory, tmp_path / "new" / "cat")
    assert flat == [f"a.png  {out[0].split('  ', 1)[1]}"], "no folder names a class, so there is no score"
    assert printed(capsys, "predict", directory, tmp_path / "new" / "cat" / "a.png")[0] == flat
    for bad in ("new/dog/bad.png", "new/none.png"):
        assert "check the" in refused(capsys, "predict", directory, tmp_path / bad)
    (tmp_path / "empty").mkdir()
    assert "it has no images" in refused(capsys, "predict", directory, tmp_path / "empty")


def test_image_files_for_bytes_with_channels_first(run, capsys, tmp_path):
    x, _ = bytes_first()
    Image.fromarray(x[0].transpose(1, 2, 0)).save(tmp_path / "a.png")
    out, _ = printed(capsys, "predict", run[0], tmp_path / "a.png")
    assert out[0].split("  ")[1] == nas.load(run[0]).predict(x[:1])[0]


# --- tables -----------------------------------------------------------------------------------------------------------


def people(n=60):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 80, n).astype(float),
            "city": random.choice(["Bern", "Oslo", "Rome"], n),
            "since": pd.to_datetime("2020-01-01") + pd.to_timedelta(random.integers(0, 900, n), "D"),
            "member": random.random(n) < 0.5,
            "income": random.normal(1e6, 2e5, n),
            "plan": random.choice(["free", "paid"], n),
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::9, "city"] = None
    return frame.astype({"since": str})


@functools.cache
def table():
    return data.split(jax.random.key(0), people().drop(columns="plan"), people().plan)


VALUES = {
    "age": st.none() | st.floats(-1e6, 1e6),
    "city": st.none() | st.sampled_from(["Bern", "Oslo", "Rome", "Paris", ""]),
    "since": st.none() | st.dates().map(str) | st.just("soon"),
    "member": st.none() | st.booleans(),
    "income": st.none() | st.floats(0, 1e9) | st.just(float("inf")),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=4))
def test_rows_are_normalised_to_what_is_encoded(rows):
    frame = pd.DataFrame(rows, dtype=object)
    inputs = table().inputs
    raw = inputs.rows(frame)
    assert raw.dtype == np.float32 and raw.shape == (len(rows), 5) == (len(rows), *inputs.raw_shape)
    np.testing.assert_allclose(inputs.normalise(raw), inputs.encode(frame), rtol=1e-5, atol=1e-4)


def test_rows_hold_a_number_a_value():
    inputs = table().inputs
    a = {"age": None, "city": "Paris", "since": "1970-01-11", "member": True, "income": 12.5}
    b = {"age": 30, "city": "Rome", "since": None, "member": None, "income": "?"}
    np.testing.assert_array_equal(inputs.rows([a, b]), [[np.nan, -1, 10, 1, 12.5], [30, 2, np.nan, np.nan, np.nan]])
    with pytest.raises(ValueError, match="rows are of a table"):
        images().inputs.rows(bytes_first()[0])


def test_a_table_is_predicted_with_and_without_its_target(capsys, tmp_path):
    module, variables = kept(tmp_path, table())
    frame = people()
    network = nas.load(tmp_path)
    logits = module.apply(variables, table().inputs.encode(frame))
    np.testing.assert_allclose(network.probabilities(frame), jax.nn.softmax(logits / 1.5), rtol=1e-4, atol=1e-5)
    frame.loc[0, "city"] = "Paris"
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.drop(columns="plan").to_csv(tmp_path / "b.csv", index=False)
    scored, _ = printed(capsys, "predict", tmp_path, tmp_path / "a.csv")
    assert scored[-1] == f"accuracy {100 * np.mean(network.predict(frame) == frame.plan):.2f} % of 60"
    assert printed(capsys, "predict", tmp_path, tmp_path / "b.csv")[0] == scored[:-1]
    frame.drop(columns="age").to_csv(tmp_path / "c.csv", index=False)
    assert "there is no column age" in refused(capsys, "predict", tmp_path, tmp_path / "c.csv")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert "an image file, and the network has learnt from a table" in refused(capsys, "predict", tmp_path, tmp_path / "a.png")


def test_numbers_are_in_their_own_units(capsys, tmp_path):
    frame = people()[["age", "income"]].assign(age=np.arange(60.0) % 7 + 0.5)
    y = 1000 + 50 * frame.age.to_numpy() + np.random.default_rng(0).normal(size=60)
    d = data.split(jax.random.key(0), frame, y, names=["price"], kind="numbers")
    module, variables = kept(tmp_path, d)
    network = nas.load(tmp_path)
    outputs = np.asarray(module.apply(variables, d.inputs.encode(frame)))[:, 0]
    want = outputs * d.target.std[0] + d.target.mean[0]
    np.testing.assert_allclose(network.predict(frame), want, rtol=1e-5)
    with pytest.raises(ValueError, match="numbers, which have no probabilities: call `predict`"):
        network.probabilities(frame)
    frame.assign(price=y).to_csv(tmp_path / "a.csv", index=False)
    out, _ = printed(capsys, "predict", tmp_path, tmp_path / "a.csv")
    assert out[-1] == f"RMSE {np.sqrt(np.mean((network.predict(frame).astype(float) - y) ** 2)):.6g} on 60"
    assert float(out[0].split("  ")[1]) == pytest.approx(want[0], rel=1e-4)
    printed(capsys, "predict", tmp_path, tmp_path / "a.csv", "--out", tmp_path / "p.csv")
    rows = list(csv.reader((tmp_path / "p.csv").read_text().splitlines()))
    assert rows[0] == ["example", "prediction"] and float(rows[1][1]) == pytest.approx(want[0], rel=1e-5)


def test_several_numbers_and_labels(capsys, tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 5, 2)).astype(np.float32)
    for name, y in (("numbers", random.normal(size=(60, 2)) * 9), ("labels", (random.random((60, 2)) < 0.5).astype(int))):
        d = data.split(jax.random.key(0), x, y, layout="NTC", names=["a", "b"], kind=name)
        (tmp_path / name).mkdir()
        module, variables = kept(tmp_path / name, d)
        network, outputs = nas.load(tmp_path / name), module.apply(variables, d.inputs.encode(x))
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
        out, _ = printed(capsys, "predict", tmp_path / name, tmp_path / f"{name}.npz")
        if name == "numbers":
            want = outputs * np.asarray(d.target.std)[None] + np.asarray(d.target.mean)[None]
            np.testing.assert_allclose(network.predict(x), want, 1e-4, 1e-4)
            assert out[0].startswith("0  a ") and out[-1].startswith("RMSE ")
        else:
            np.testing.assert_allclose(network.probabilities(x), jax.nn.sigmoid(outputs / 1.5), rtol=1e-4, atol=1e-5)
            on = np.asarray(outputs) > 0
            assert network.predict(x) == [tuple(n for n, o in zip("ab", row, strict=True) if o) for row in on]
            assert out[-1] == f"accuracy {100 * np.mean(on == y):.2f} % of the labels of 60"
        with pytest.raises(data.DataError, match="x is bytes, and the network has learnt from other numbers"):
            network.predict(x.astype(np.uint8))


def test_data_without_inputs_are_read_as_they_are(tmp_path):
    split = lambda n: data.Split(jnp.ones((n, 3)), jnp.zeros(n, jnp.int32))
    d = data.Dataset(train=split(4), valid=split(2), test=split(2), target=data.Target("classes", ("a", "b")))
    module, variables = kept(tmp_path, d)
    x = np.random.default_rng(0).normal(size=(5, 3))
    want = jax.nn.softmax(module.apply(variables, x.astype(np.float32)) / 1.5)
    np.testing.assert_allclose(nas.load(tmp_path).probabilities(x), want, rtol=1e-5)
    with pytest.raises(data.DataError, match=r"must be numbers \[N, 3\], and x is \[3\]"):
        nas.load(tmp_path).predict(x[0, :3])


# --- temperature ------------------------------------------------------------------------------------------------------


def drawn(n=4000, K=4, seed=0):
    """Logits, and classes drawn from their softmax."""
    random = np.random.default_rng(seed)
    z = 2 * random.normal(size=(n, K))
    y = (z + random.gumbel(size=z.shape)).argmax(-1)
    return z, y


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_temperature_undoes_a_scale(scale):
    z, y = drawn()
    assert calibration.temperature(scale * z, y, "classes") == pytest.approx(scale, rel=0.06)
    labels = (np.random.default_rng(1).random(z.shape) < 1 / (1 + np.exp(-z))).astype(int)
    assert calibration.temperature(scale * z, labels, "labels") == pytest.approx(scale, rel=0.06)
    assert calibration.temperature(z, z, "numbers") == 1.0


def test_temperature_minimises_the_likelihood():
    z, y = drawn(300)
    nll = lambda T: -np.mean(jax.nn.log_softmax(jnp.asarray(z / T))[np.arange(300), y])
    T = calibration.temperature(z, y, "classes")
    assert nll(T) <= min(nll(0.98 * T), nll(1.02 * T))


def test_temperature_is_bounded():
    z, y = drawn(50)
    right = z.argmax(-1)
    for scale in (1e-3, 1.0, 1e3):
        T = calibration.temperature(scale * z, right, "classes")
        assert calibration.LEAST <= T <= calibration.MOST
    T = calibration.temperature(5 * z, right, "classes")
    p = np.asarray(jax.nn.softmax(jnp.asarray(5 * z / T))).max(-1)
    assert p.mean() == pytest.approx(51 / 52, abs=1e-4), "the rule of succession"
    assert calibration.temperature(z, z.argmin(-1), "classes") == pytest.approx(calibration.MOST)
    assert calibration.temperature(np.full((3, 2), np.nan), np.zeros(3, int), "classes") == 1.0
    assert calibration.temperature(np.zeros((0, 2)), np.zeros(0, int), "classes") == 1.0
    with pytest.raises(ValueError, match="give outputs"):
        calibration.temperature(z, y[:3], "classes")


def test_calibration_error():
    p = np.asarray([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert calibration.expected_calibration_error(p, [0, 1, 1, 1]) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert calibration.expected_calibration_error(np.eye(3), [0, 1, 2]) == 0.0
    assert calibration.expected_calibration_error([[0.8, 0.2]], [[1, 0]], bins=5) == pytest.approx(0.2)
    z, y = drawn()
    error = lambda T: calibration.expected_calibration_error(jax.nn.softmax(jnp.asarray(5 * z / T)), y)
    assert error(calibration.temperature(5 * z, y, "classes")) < 0.03 < error(1.0)
    with pytest.raises(ValueError, match="bins"):
        calibration.expected_calibration_error(p, [0, 1, 1, 1], bins=0)
