"""Data as people have it: for every awkward file the right answer, or exactly one clear line."""

import io
import json
import os
import pathlib
import textwrap

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxnas import data, training
from jaxnas.data.parts import cut
from jaxnas.data.target import read_target

RNG = np.random.default_rng(0)
N = 40
X = RNG.integers(0, 256, (N, 6, 6, 1), np.uint8)
TWO, THREE = np.arange(N) % 2, np.arange(N) % 3


def key(seed=0):
    return jax.random.key(seed)


def load(path, **options):
    return data.load(str(path), key(), **options)


def everything(d):
    """(x, y) of all parts together."""
    return tuple(np.concatenate([np.asarray(s[i]) for s in (d.train, d.valid, d.test)]) for i in (0, 1))


def noted(d, *words):
    assert any(all(word in note for word in words) for note in d.notes), d.notes


def arrays(path, **held):
    np.savez(path, **held)
    return path


# --- labels -----------------------------------------------------------------------------------------------------------

LABELS = {
    "0 to K - 1": (THREE, ("0", "1", "2")),
    "1 to K": (THREE + 1, ("1", "2", "3")),
    "gaps": (np.asarray([3, 7, 11, 200, 4000])[np.arange(N) % 5], ("3", "7", "11", "200", "4000")),
    "negative": (THREE - 1, ("-1", "0", "1")),
    "close to 2^31": (np.where(TWO, 2**31 - 2, 5), ("5", "2147483646")),
    "beyond 2^63": (np.where(TWO, np.uint64(2**63 + 1), np.uint64(0)), ("0", str(2**63 + 1))),
    "bytes": (THREE.astype(np.uint8), ("0", "1", "2")),
    "strings": (np.asarray(["cat", "dog", "Äff"])[THREE], ("cat", "dog", "Äff")),
    "byte strings": (np.asarray([b"no", b"yes"])[TWO], ("no", "yes")),
    "truth values": (TWO > 0, ("False", "True")),
    "whole floats": (THREE.astype(np.float32), ("0", "1", "2")),
    "one column": (THREE[:, None] + 1, ("1", "2", "3")),
    "one-hot": (np.eye(3)[THREE], ("0", "1", "2")),
    "one-hot truth values": (np.eye(3, dtype=bool)[THREE], ("0", "1", "2")),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_of_any_kind_are_classes_with_names(tmp_path, case):
    y, names = LABELS[case]
    marked = X.copy()
    marked[:, 0, 0, 0] = np.arange(N)  # says which example it is
    d = load(arrays(tmp_path / "a.npz", x=marked, y=y))
    assert d.target == data.Target("classes", names) and d.classes == len(names)
    x, codes = everything(d)
    assert codes.dtype == np.int32
    order = np.argsort(np.argsort(x[:, 0, 0, 0]))
    given_names = [names[i] for i in y.argmax(1)] if y.ndim == 2 and y.shape[1] > 1 else [_text(v) for v in y.ravel()]
    assert [names[c] for c in codes] == [given_names[i] for i in order]
    noted(d, "y: ", f"{len(names)} classes", "examples each")


def _text(v):
    if isinstance(v, bytes):
        return v.decode()
    return str(int(v)) if isinstance(v, np.floating) else str(v)


MANY = (RNG.random((N, 3)) < 0.4).astype(np.uint8)
MANY[0] = (1, 1, 0)
OTHER_TARGETS = {
    "0/1 rows of any sum": (MANY, {}, "labels", ("0", "1", "2"), np.float32),
    "one column of labels, as told": (TWO, {"kind": "labels"}, "labels", ("0",), np.float32),
    "floats": (RNG.normal(5, 3, N), {}, "numbers", ("y",), np.float32),
    "a column of floats": (RNG.normal(5, 3, (N, 1)), {}, "numbers", ("y",), np.float32),
    "several floats": (RNG.normal(5, 3, (N, 2)), {}, "numbers", ("0", "1"), np.float32),
    "many whole floats": (np.arange(N) * 7.0, {}, "numbers", ("y",), np.float32),
    "whole numbers, as told": (np.arange(N) * 7, {"kind": "numbers"}, "numbers", ("y",), np.float32),
}


@pytest.mark.parametrize("case", OTHER_TARGETS)
def test_targets_that_are_no_classes(tmp_path, case):
    y, options, kind, names, dtype = OTHER_TARGETS[case]
    d = load(arrays(tmp_path / "a.npz", x=X, y=y), **options)
    assert (d.target.kind, d.target.names, d.classes) == (kind, names, len(names))
    assert d.train.y.dtype == dtype and d.train.y.shape == (16, len(names))
    if kind == "numbers":
        np.testing.assert_allclose(np.mean(d.train.y, 0), 0, atol=1e-6)
        np.testing.assert_allclose(np.std(d.train.y, 0), 1, rtol=1e-5)
        own = everything(d)[1] * np.asarray(d.target.std) + np.asarray(d.target.mean)
        np.testing.assert_allclose(np.sort(own, 0), np.sort(y.reshape(N, -1), 0), rtol=1e-5, atol=1e-5)
    assert data.Target.from_json(json.loads(json.dumps(d.target.to_json()))) == d.target


NAN = np.where(np.arange(N) == 4, np.nan, RNG.normal(size=N))
BAD_TARGETS = {
    "a single value": (TWO * 0 + 3, {}, "all labels are 3: there must be at least two classes"),
    "a single number": (np.full(N, 0.5), {}, "the target y is 0.5 for all examples"),
    "labels that never change": (np.ones((N, 2), int), {"kind": "labels"}, "every label is the same"),
    "NaN": (NAN, {}, r"1 of 40 targets are missing, NaN or infinite \(row 4, counted from 0\)"),
    "infinity": (np.where(NAN > 0, np.inf, 0.0), {}, "targets are missing, NaN or infinite"),
    "one example of a class": (np.where(np.arange(N) == 9, 7, TWO), {}, "one example of class 7"),
    "an identifier": (np.arange(N), {}, "40 classes among 40 examples .* identifier, or say kind numbers for a regression"),
    "names of all examples": (np.arange(N).astype(str), {}, "this looks like an identifier"),
    "complex numbers": (TWO + 0j, {}, "targets must be numbers"),
    "three axes": (np.ones((N, 2, 2)), {}, r"targets must be \[N\] or \[N, K\]"),
    "columns of whole numbers": (np.stack([THREE, TWO], 1) + 3, {}, "2 columns of whole numbers: say kind numbers"),
    "not one-hot, as told": (MANY, {"kind": "classes"}, "not every row of the 3 columns is one-hot"),
    "labels above 1, as told": (THREE, {"kind": "labels"}, "labels must be 0 and 1"),
    "text as numbers": (np.asarray(["a", "b"])[TWO], {"kind": "numbers"}, "the targets are text"),
    "another kind": (TWO, {"kind": "ranks"}, "unknown kind 'ranks'"),
}


def one_line(caught):
    line = str(caught.value)
    assert type(caught.value) is data.DataError and "\n" not in line and len(line) < 400
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_targets(tmp_path, case):
    y, options, message = BAD_TARGETS[case]
    with pytest.raises(data.DataError, match=message) as caught:
        load(arrays(tmp_path / "a.npz", x=X, y=y), **options)
    one_line(caught)


# --- arrays -----------------------------------------------------------------------------------------------------------


def rgb(n=N, side=8):
    return RNG.integers(0, 256, (n, side, side, 3), np.uint8)


ARRAYS = {
    "no axis of channels": (X[..., 0], {}, (6, 6, 1), "grey images of 6 x 6"),
    "bytes that are not square": (X[:, :5, :, 0], {}, (5, 6, 1), "grey images of 5 x 6"),
    "channels first": (rgb().transpose(0, 3, 1, 2), {}, (8, 8, 3), "3 channels first (NCHW): they were transposed"),
    "one channel first": (rgb()[..., :1].transpose(0, 3, 1, 2), {}, (8, 8, 1), "1 channel first"),
    "channels first, as told": (RNG.normal(size=(N, 2, 6, 6)), {"layout": "NCHW"}, (6, 6, 2), ""),
    "series, as told": (RNG.normal(size=(N, 12, 5)), {"layout": "NTC"}, (12, 5), ""),
    "series with channels first": (RNG.normal(size=(N, 5, 12)), {"layout": "NCT"}, (12, 5), ""),
    "rows of numbers": (RNG.normal(size=(N, 9)), {}, (9,), "x: a table of 9 numbers"),
    "rows with gaps": (np.where(RNG.random((N, 4)) < 0.3, np.nan, RNG.normal(size=(N, 4))), {}, (8,), "8 inputs"),
    "many channels": (RNG.normal(size=(N, 6, 6, 13)), {}, (6, 6, 13), ""),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_axes_of_arrays(tmp_path, case):
    x, options, shape, note = ARRAYS[case]
    d = load(arrays(tmp_path / "a.npz", x=x, y=TWO), **options)
    assert d.image == d.inputs.shape == shape
    if note:
        noted(d, note)
    encoded = d.inputs.encode(x)  # from the user's own form
    assert encoded.shape == (N, *shape) and encoded.dtype == np.float32
    rows = lambda a: sorted(np.asarray(a).reshape(N, -1).tolist())
    np.testing.assert_array_equal(rows(encoded), rows(everything(d)[0]))
    assert data.Inputs.from_json(json.loads(json.dumps(d.inputs.to_json()))) == d.inputs
    assert hash(d.inputs) == hash(data.Inputs.from_json(d.inputs.to_json()))
    raw = d.inputs.examples(x)
    assert raw.shape[1:] == d.inputs.raw_shape and raw.dtype == d.inputs.raw_dtype
    np.testing.assert_allclose(d.inputs.normalise(jax.numpy.asarray(raw)), encoded, rtol=1e-5, atol=1e-5)


UNCLEAR = {
    "channels first or last": (RNG.normal(size=(N, 3, 3, 3)), {}, "with the channels first or last\\? Say layout NCHW or NHWC"),
    "thirteen channels first": (RNG.normal(size=(N, 13, 6, 6)), {}, "Say layout NCHW or NHWC"),
    "series or images": (RNG.normal(size=(N, 12, 5)), {}, "say layout NHW for grey images, or NTC or NCT for series"),
    "five axes": (RNG.normal(size=(N, 2, 2, 2, 2)), {}, r"x must be images .* not \[40, 2, 2, 2, 2\]"),
    "another layout": (rgb(), {"layout": "CHW"}, "unknown layout 'CHW': choose one of NHWC"),
    "a layout of other axes": (rgb(), {"layout": "NTC"}, "a layout of NTC has 3 axes, and x is"),
    "complex pixels": (rgb() + 0j, {}, "x must be numbers"),
    "NaN in a series": (np.full((N, 12, 5), np.nan), {"layout": "NTC"}, "40 of 40 series hold NaN"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_can_be_read_in_two_ways_is_asked(tmp_path, case):
    x, options, message = UNCLEAR[case]
    with pytest.raises(data.DataError, match=message) as caught:
        load(arrays(tmp_path / "a.npz", x=x, y=TWO), **options)
    one_line(caught)


def test_a_validation_part_in_the_file_is_used(tmp_path):
    for names in ("x_{0}", "{0}_images"):
        ys = names.replace("x_", "y_").replace("images", "labels")
        parts = {"train": slice(0, 20), "val": slice(20, 30), "test": slice(30, 40)}
        held = {names.format(p): X[s] for p, s in parts.items()} | {ys.format(p): THREE[s][:, None] for p, s in parts.items()}
        d = load(arrays(tmp_path / "a.npz", **held))
        assert [len(s.y) for s in (d.train, d.valid, d.test)] == [20, 10, 10]
        np.testing.assert_array_equal(np.sort(d.valid.y), np.sort(THREE[20:30]))
        np.testing.assert_array_equal(d.test.y, THREE[30:])


def test_only_the_test_part_has_a_class(tmp_path):
    d = load(arrays(tmp_path / "a.npz", x_train=X, y_train=TWO, x_test=X, y_test=TWO + 1))
    assert d.target.names == ("0", "1", "2")
    noted(d, "only the test part has examples of 2", "count as wrong")


def test_a_pair_of_npy_files(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", THREE)
    d = data.load(f"{tmp_path / 'x.npy'},{tmp_path / 'y.npy'}", key())
    assert d.classes == 3 and d.image == (6, 6, 1)
    with pytest.raises(data.DataError, match=r"two files: give X\.npy,Y\.npy") as caught:
        load(tmp_path / "x.npy")
    one_line(caught)
    np.save(tmp_path / "y.npy", np.asarray([{}] * N, object))
    with pytest.raises(data.DataError, match="Python objects, which are never loaded"):
        data.load(f"{tmp_path / 'x.npy'},{tmp_path / 'y.npy'}", key())


def test_an_array_of_groups_and_another_of_targets(tmp_path):
    path = arrays(tmp_path / "a.npz", x=X, y=TWO, other=THREE, patient=np.arange(N) // 4)
    d = load(path, target="other", group="patient")
    assert d.classes == 3
    with pytest.raises(data.DataError, match="no array nobody, only"):
        load(path, group="nobody")


# --- tables -----------------------------------------------------------------------------------------------------------


def people(n=60):
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "id": np.arange(n) + 1000,
            "age": rng.integers(18, 90, n).astype(float),
            "city": np.asarray(["Bern", "Rome", "Oslo"])[rng.integers(0, 3, n)],
            "member": rng.random(n) < 0.5,
            "since": pd.date_range("2020-01-01", periods=n).strftime("%Y-%m-%d"),
            "country": "CH",
            "income": rng.normal(5000, 900, n).round(2),
            "label": np.asarray(["no", "yes"])[np.arange(n) % 2],
        }
    )


def test_a_table_of_everything(tmp_path):
    frame = people()
    frame.loc[frame.index % 5 == 0, "age"] = np.nan
    frame.loc[frame.index % 4 == 1, "city"] = None
    frame.to_csv(tmp_path / "a.csv", index=False)
    d = load(tmp_path / "a.csv")
    assert d.target.names == ("no", "yes") and d.inputs.kind == "table"
    assert [c.name for c in d.inputs.columns] == ["age", "city", "member", "since", "income"]
    by_name = {c.name: c for c in d.inputs.columns}
    assert by_name["age"].missing and by_name["city"].missing and not by_name["income"].missing
    assert by_name["city"].values == ("Bern", "Oslo", "Rome") and by_name["since"].kind == "date"
    assert d.image == (2 + 4 + 2 + 1 + 1,)
    noted(d, "target: label", "it is called so")
    noted(d, "left out, an identifier: id")
    noted(d, "left out, constant: country")
    assert np.isfinite(everything(d)[0]).all()
    rows = d.inputs.encode([{"age": None, "city": "Paris", "member": True, "since": "2020-01-05", "income": 5000.0}])
    assert rows[0, 1] == 1 and (rows[0, 2:6] == 0).all() and (rows[0, 6:8] == (0, 1)).all()
    np.testing.assert_array_equal(d.inputs.encode(frame)[:, 1], frame.age.isna())
    with pytest.raises(data.DataError, match="there is no column age, only id, city"):
        d.inputs.encode(frame.drop(columns="age"))
    assert data.Inputs.from_json(json.loads(json.dumps(d.inputs.to_json()))) == d.inputs


def test_statistics_of_a_table_are_those_of_its_train_part(tmp_path):
    frame = people()
    d = data.split(key(), frame.drop(columns="label"), frame.label)
    income = np.concatenate([np.asarray(d.train.x)[:, -1]])
    np.testing.assert_allclose([income.mean(), income.std()], [0, 1], atol=1e-5)


def test_parquet_and_a_column_to_predict(tmp_path):
    people().to_parquet(tmp_path / "a.parquet")
    d = load(tmp_path / "a.parquet", target="income", group="city")
    assert d.target.kind == "numbers" and d.target.names == ("income",)
    assert "city" not in [c.name for c in d.inputs.columns]
    with pytest.raises(data.DataError, match="no column salary to predict, only id, age"):
        load(tmp_path / "a.parquet", target="salary")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(data.DataError, match=r"not a \.parquet file, or a damaged one") as caught:
        load(tmp_path / "a.parquet")
    one_line(caught)


def test_a_table_of_several_labels(tmp_path):
    frame = people().assign(a=MANY[np.arange(60) % N, 0], b=MANY[np.arange(60) % N, 1])
    frame.to_csv(tmp_path / "a.csv", index=False)
    d = load(tmp_path / "a.csv", target="a,b")
    assert d.target == data.Target("labels", ("a", "b")) and "a" not in [c.name for c in d.inputs.columns]


def body(n=30, separator=","):
    return "\n".join(separator.join((f"{i / 7:.2f}", f"{(i * 13) % 11}.5", ("a", "b")[i % 2])) for i in range(n))


def written(content, encoding="utf-8"):
    return lambda path: path.write_text(content, encoding=encoding)


GOOD_TABLES = {
    "semicolons": (written("p;q;kind\n" + body(separator=";")), "parted by semicolons", 2),
    "decimal commas": (written("p;q;kind\n" + body(separator=";").replace(".", ",")), "parted by semicolons", 2),
    "tabs in a .csv": (written("p\tq\tkind\n" + body(separator="\t")), "parted by tabs", 2),
    "no header": (written(body()), "its first row is an example", 2),
    "a byte-order mark": (written("p,q,kind\n" + body(), "utf-8-sig"), "target: kind", 2),
    "Windows-1252": (written("größe,q,kind\n" + body(), "cp1252"), "was read as Windows-1252", 2),
    "UTF-16": (written("p,q,kind\n" + body(), "utf-16"), "target: kind", 2),
    "blanks behind the commas": (written("p, q, kind\n" + body(separator=", ")), "target: kind", 2),
    "names of rows, as R writes them": (
        written("p,q,kind\n" + "\n".join(f"r{i},{row}" for i, row in enumerate(body().splitlines()))),
        "left out, an identifier or free text: Unnamed: 0",
        2,
    ),
    "question marks for what is missing": (written("p,q,kind\n?,?,a\n?,1,b\n" + body()), "4 inputs", 4),
    "quoted commas": (written('"p","q, and more","kind"\n' + body()), "target: kind", 2),
    "Windows line ends": (written("p,q,kind\r\n" + body().replace("\n", "\r\n")), "target: kind", 2),
    "years for names": (
        written("kind,1990,1991,1992\n" + "\n".join(f"{'ab'[i % 2]},{i}.5,{i % 7},{i % 5}" for i in range(30))),
        "",
        3,
    ),
}


@pytest.mark.parametrize("case", GOOD_TABLES)
def test_awkward_tables(tmp_path, case):
    write, note, width = GOOD_TABLES[case]
    write(tmp_path / "a.csv")
    d = load(tmp_path / "a.csv", **({"target": "kind"} if case == "years for names" else {}))
    assert d.target.names == ("a", "b")
    if case == "question marks for what is missing":
        assert d.image[0] >= 2
    else:
        assert d.image == (width,)
        noted(d, note)
    assert all(c.kind == "number" for c in d.inputs.columns)
    if case == "decimal commas":
        assert max(c.std for c in d.inputs.columns) < 5


BAD_TABLES = {
    "missing": (lambda path: None, "there is no such file"),
    "empty": (written(""), "the file is empty"),
    "blank lines": (written("\n\n  \n"), "the file is empty"),
    "names alone": (written("p,q,kind\n"), "there is one row"),
    "names that are there twice": (written("p,p,kind\n" + body()), "more than one column is called p: rename them"),
    "rows of other lengths": (written("p,q,kind\n" + body() + "\n1,2,3,4,5\n"), "every row needs as many cells as the first"),
    "bytes": (lambda path: path.write_bytes(b"\0\1\2\3" * 99), "not a table of text"),
    "a target with gaps": (written("p,q,kind\n" + body() + "\n1,2,\n3,4,\n"), r"2 of 32 targets are missing.*rows 30, 31"),
    "nothing but identifiers": (
        written("name,kind\n" + "\n".join(f"n{i},{'ab'[i % 2]}" for i in range(40))),
        "no column is left to learn from .*an identifier or free text: name",
    ),
    "one column": (written("kind\n" + "\n".join("ab"[i % 2] for i in range(40))), "its only column"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables(tmp_path, case):
    write, message = BAD_TABLES[case]
    write(tmp_path / "a.csv")
    with pytest.raises(data.DataError, match=message) as caught:
        load(tmp_path / "a.csv")
    one_line(caught)
    assert "a.csv" in str(caught.value)


def test_a_folder_of_tables(tmp_path):
    frame = people()
    frame[:40].to_csv(tmp_path / "train.csv", index=False)
    frame[40:].to_csv(tmp_path / "test.csv", index=False)
    d = load(tmp_path)
    assert [len(s.y) for s in (d.train, d.valid, d.test)] == [20, 20, 20]
    frame[40:].drop(columns="label").to_csv(tmp_path / "test.csv", index=False)
    d = load(tmp_path)
    assert [len(s.y) for s in (d.train, d.valid, d.test)] == [16, 16, 8]
    noted(d, "the test part has no column label, so it is not used")


def test_a_few_strays_in_a_column_of_numbers_count_as_missing():
    frame = pd.DataFrame({"p": [*map(str, RNG.normal(size=58)), "n/k", "broken"], "q": RNG.normal(size=60)})
    d = data.split(key(), frame, np.arange(60) % 2)
    assert d.inputs.columns[0].kind == "number"
    noted(d, "p has 2 values that are no numbers (broken, n/k)")


def test_dates_with_the_day_first():
    when = pd.date_range("2001-01-01", periods=60, freq="9D")
    d = data.split(key(), pd.DataFrame({"when": when.strftime("%d/%m/%Y"), "q": RNG.normal(size=60)}), np.arange(60) % 2)
    found = d.inputs.columns[0]
    assert found.kind == "date" and found.day_first
    first = d.inputs.encode(pd.DataFrame({"when": ["02/01/2001", "03/01/2001"], "q": [0, 0]}))[:, 0]
    assert first[1] - first[0] == pytest.approx(1 / found.std, rel=1e-4)


# --- folders of images ------------------------------------------------------------------------------------------------


def image(side=(8, 10), mode="RGB", **options):
    shape = (*side, len(mode)) if len(mode) > 1 else side
    return Image.fromarray(RNG.integers(0, 256, shape, np.uint8), **options)


def folders(top, classes=("cat", "dog"), n=12, ending="png", make=image):
    for name in classes:
        (top / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            make().save(top / name / f"{i}.{ending}")
    return top


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "gif"])
def test_class_folders(tmp_path, ending):
    d = load(folders(tmp_path, ending=ending))
    assert d.target.names == ("cat", "dog") and d.image == (8, 10, 3) and d.inputs.files
    noted(d, "24 images of 8 x 10, in colour")
    paths = [tmp_path / "cat" / f"0.{ending}", str(tmp_path / "dog" / f"3.{ending}")]
    assert d.inputs.encode(paths).shape == (2, 8, 10, 3)


def test_folders_of_parts_and_rubbish_beside_them(tmp_path):
    for part, n in (("train", 10), ("Validation", 5), ("test", 4)):
        folders(tmp_path / part, n=n)
    (tmp_path / "__MACOSX" / "cat").mkdir(parents=True)
    image().save(tmp_path / "__MACOSX" / "cat" / "0.png")
    (tmp_path / "train" / "cat" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "train" / "cat" / "._0.png").write_bytes(b"x")
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "readme.txt").write_text("x")
    d = load(tmp_path)
    assert [len(s.y) for s in (d.train, d.valid, d.test)] == [20, 10, 8] and d.target.names == ("cat", "dog")


def test_folders_within_and_around(tmp_path):
    folders(tmp_path / "archive" / "pictures")
    (tmp_path / "archive" / "pictures" / "cat" / "more" / "still").mkdir(parents=True)
    image().save(tmp_path / "archive" / "pictures" / "cat" / "more" / "still" / "z.png")
    assert sum(len(s.y) for s in (lambda d: (d.train, d.valid, d.test))(load(tmp_path))) == 25


def test_more_images_than_memory_are_one_line(tmp_path, monkeypatch):
    """24 images of 240 x 300 in colour, twice, on a machine of 8 MB."""
    top = folders(tmp_path / "many")
    there = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2000}.get(name) or there(name))
    wants = "24 images of 240 x 300 want 0.0104 GB of memory, and there are 0.00819: say a smaller size"
    with pytest.raises(data.DataError, match=wants):
        data.load(str(top), key(), size=300)
    assert len(data.load(str(top), key(), size=8).train.y)


def test_sizes_by_the_rule_and_as_asked(tmp_path):
    sizes = iter([(100, 300)] * 7 + [(120, 240)] * 10 + [(50, 50)] * 7)
    folders(tmp_path, make=lambda: image(next(sizes)))
    d = load(tmp_path)
    assert d.image == (27, 64, 3)  # the median, 100 x 240, to 64 pixels
    noted(d, "they were 50 x 50 to 120 x 240 and were resized", "some out of proportion")
    assert load(tmp_path, size=24).image == (10, 24, 3)
    with pytest.raises(data.DataError, match="at least 1 pixel"):
        load(tmp_path, size=0)


def test_a_reduction_is_antialiased(tmp_path):
    stripes = np.tile(np.asarray([[0, 255]], np.uint8), (64, 32))  # columns of black and white
    folders(tmp_path, make=lambda: Image.fromarray(stripes + RNG.integers(0, 1, 1, np.uint8)))
    image((64, 64), "L").save(tmp_path / "cat" / "0.png")  # so that a channel is not constant
    from jaxnas.data.images import read_image

    assert abs(read_image(tmp_path / "dog" / "0.png", (16, 16, 1)).astype(float) - 127.5).max() < 20


def test_grey_images_stay_grey_if_all_are(tmp_path):
    folders(tmp_path, make=lambda: image(mode="L"))
    d = load(tmp_path)
    assert d.image == (8, 10, 1)
    noted(d, "grey")
    image().save(tmp_path / "cat" / "0.png")
    assert load(tmp_path).image == (8, 10, 3)


def test_16_bits_palettes_and_transparency(tmp_path):
    from jaxnas.data.images import read_image

    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "deep.png", (4, 4, 1)) == 255).all()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png", (4, 4, 3)) == 255).all()
    image().convert("P").save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png", (8, 10, 3)).std() > 10
    folders(tmp_path / "all", make=lambda: image(mode="RGBA"))
    noted(load(tmp_path / "all"), "transparent was laid on white")


def test_images_are_turned_as_they_say(tmp_path):
    from jaxnas.data.images import read_image

    upright = np.zeros((8, 4, 3), np.uint8)
    upright[0] = 255  # the top row
    options = Image.Exif()
    options[0x0112] = 6  # turn by 90 degrees to see it
    Image.fromarray(np.rot90(upright, 1).copy()).save(tmp_path / "a.png", exif=options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (8, 4, 3)), upright)
    folders(tmp_path / "all", make=lambda: _tagged(options))
    assert load(tmp_path / "all").image == (10, 8, 3)


def _tagged(exif):
    made = image()
    stream = io.BytesIO()
    made.save(stream, "PNG", exif=exif)

    class Tagged:
        save = staticmethod(lambda path: pathlib.Path(path).write_bytes(stream.getvalue()))

    return Tagged


def test_a_few_unreadable_images_are_left_out_and_named(tmp_path):
    folders(tmp_path, n=60)
    whole = (tmp_path / "cat" / "7.png").read_bytes()
    (tmp_path / "cat" / "7.png").write_bytes(whole[: len(whole) // 2])
    d = load(tmp_path)
    assert sum(len(s.y) for s in (d.train, d.valid, d.test)) == 119
    noted(d, "1 of 120 images cannot be read and were left out: 7.png")
    (tmp_path / "dog" / "3.png").write_bytes(b"no image")
    with pytest.raises(data.DataError, match=r"2 of 120 images cannot be read \(7.png, 3.png\)") as caught:
        load(tmp_path)
    one_line(caught)


BAD_FOLDERS = {
    "no images": (lambda top: (top / "cat").mkdir(), "it has no images"),
    "images in no folder": (lambda top: image().save(top / "a.png"), "its images are in no folder"),
    "one class": (lambda top: folders(top, ["cat"]), "all labels are cat: there must be at least two classes"),
    "one image of a class": (lambda top: (folders(top), folders(top, ["bee"], 1)), "one example of class bee"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders(tmp_path, case):
    make, message = BAD_FOLDERS[case]
    make(tmp_path)
    with pytest.raises(data.DataError, match=message) as caught:
        load(tmp_path)
    one_line(caught)


def test_folders_that_are_not_there_and_columns_they_have_not(tmp_path):
    with pytest.raises(data.DataError, match="there is no such folder or file"):
        load(tmp_path / "none")
    folders(tmp_path)
    with pytest.raises(data.DataError, match="has no column age: leave target out"):
        load(tmp_path, target="age")


def test_the_order_of_files_is_that_of_their_names(tmp_path, monkeypatch):
    folders(tmp_path)
    first = load(tmp_path)
    import os

    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: ((root, d, names[::-1]) for root, d, names in walk(top)))
    np.testing.assert_array_equal(load(tmp_path).train.x, first.train.x)


# --- saved data sets of Hugging Face ----------------------------------------------------------------------------------


def save_to_disk(folder, columns, features, rows=None):
    """As `datasets` writes: a stream of Arrow, the features, and the list of files."""
    folder.mkdir(parents=True)
    table = pa.table(columns)
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


def png():
    stream = io.BytesIO()
    image().save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": "a.png"}


CLASSES = {"names": ["cat", "dog"], "_type": "ClassLabel"}


def test_a_saved_data_set_of_images(tmp_path):
    for part, n in (("train", 20), ("validation", 8), ("test", 6)):
        columns = {"image": [png() for _ in range(n)], "label": np.arange(n) % 2}
        save_to_disk(tmp_path / part, columns, {"image": {"_type": "Image"}, "label": CLASSES})
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    d = load(tmp_path)
    assert d.target == data.Target("classes", ("cat", "dog")) and d.image == (8, 10, 3)
    assert [len(s.y) for s in (d.train, d.valid, d.test)] == [20, 8, 6]
    np.testing.assert_array_equal(d.test.y, np.arange(6) % 2)


def test_a_saved_data_set_of_numbers_and_of_lists_of_labels(tmp_path):
    value = {"dtype": "float32", "_type": "Value"}
    columns = {"p": RNG.normal(size=N), "q": RNG.normal(size=N), "label": TWO}
    save_to_disk(tmp_path / "a", columns, {"p": value, "q": value, "label": CLASSES})
    d = load(tmp_path / "a")
    assert d.target.names == ("cat", "dog") and d.image == (2,)
    features = {"image": {"_type": "Image"}, "tags": {"feature": CLASSES, "_type": "Sequence"}}
    columns = {"image": [png() for _ in range(N)], "tags": [[0, 1], [1], [], [0]] * (N // 4)}
    save_to_disk(tmp_path / "b", columns, features)
    assert load(tmp_path / "b").target == data.Target("labels", ("cat", "dog"))


def test_a_damaged_saved_data_set(tmp_path):
    save_to_disk(tmp_path / "a", {"p": [1.0], "label": [0]}, {"label": CLASSES})
    (tmp_path / "a" / "data-00000-of-00001.arrow").write_bytes(b"no arrow")
    with pytest.raises(data.DataError, match=r"cannot be read .*save the data again with save_to_disk") as caught:
        load(tmp_path / "a")
    one_line(caught)


# --- parts ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=5),
    valid=st.floats(0.15, 0.6),
    test=st.floats(0.1, 0.5),
    seed=st.integers(0, 99),
)
def test_stratified_parts_keep_the_shares_of_classes(counts, valid, test, seed):
    strata = np.repeat(np.arange(len(counts)), counts)
    n = len(strata)
    parts = cut(key(seed), n, valid, test, strata=strata)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert len(parts.test) == round(test * n) and len(parts.valid) == round(valid * (n - len(parts.test)))
    of = lambda part: np.bincount(strata[part], minlength=len(counts))
    assert (abs(of(parts.test) - test * np.asarray(counts)) < 1).all()
    assert (abs(of(parts.valid) - valid * (np.asarray(counts) - of(parts.test))) < 1).all()


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.integers(0, 9), min_size=30, max_size=120), valid=st.floats(0.1, 0.6), seed=st.integers(0, 99))
def test_groups_are_never_split(groups, valid, seed):
    groups = np.asarray(groups)
    if len(np.unique(groups)) < 3:
        with pytest.raises(data.DataError, match="cannot fill 3 parts"):
            cut(key(seed), len(groups), valid, 0.2, groups=groups)
        return
    parts = cut(key(seed), len(groups), valid, 0.2, groups=groups)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    held = [set(groups[part].tolist()) for part in parts]
    assert all(held) and not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]


@settings(max_examples=60, deadline=None)
@given(
    values=st.one_of(
        st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=9, unique=True),
        st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=5), min_size=2, max_size=9, unique=True),
    ),
    seed=st.integers(0, 99),
)
def test_names_and_codes_are_a_round_trip(values, seed):
    y = np.random.default_rng(seed).permutation(np.repeat(np.asarray(values), 2))
    read = read_target({"train": y})
    assert read.target.kind == "classes"
    assert [read.target.names[c] for c in read.encode(y)] == [str(v) for v in y.tolist()]


def test_groups_of_a_data_set_and_stratified_parts(tmp_path):
    d = data.split(key(), X, TWO, groups=np.arange(N) // 4)
    assert all(len(s.y) % 4 == 0 for s in (d.train, d.valid, d.test))
    rare = np.where(np.arange(N) < 5, 1, 0)
    d = data.split(key(), X, rare, stratified=True)
    assert [int(s.y.sum()) for s in (d.train, d.valid, d.test)] == [2, 2, 1]
    for options, message in (
        ({"groups": TWO, "stratified": True}, "stratified parts cannot keep groups whole"),
        ({"groups": TWO[:3]}, "groups must be one for each of the 40 examples"),
        ({"groups": TWO}, "2 groups cannot fill 3 parts"),
    ):
        with pytest.raises(data.DataError, match=message) as caught:
            data.split(key(), X, rare, **options)
        one_line(caught)
    with pytest.raises(data.DataError, match="stratified by classes, and the target is numbers"):
        data.split(key(), X, RNG.normal(size=N), stratified=True)


def test_groups_of_a_table_keep_together_and_are_no_input(tmp_path):
    people().assign(house=np.arange(60) // 5).to_csv(tmp_path / "a.csv", index=False)
    d = load(tmp_path / "a.csv", group="house")
    assert "house" not in [c.name for c in d.inputs.columns] and all(len(s.y) % 5 == 0 for s in (d.train, d.valid, d.test))
    with pytest.raises(data.DataError, match="no column street for groups"):
        load(tmp_path / "a.csv", group="street")


# --- criteria and metrics ---------------------------------------------------------------------------------------------


def test_metrics_are_those_of_scikit_learn():
    from sklearn import metrics as reference

    logits, y = RNG.normal(size=(200, 3)), RNG.integers(0, 3, 200)
    found = training.metrics(data.Target("classes", ("a", "b", "c")), logits, y)
    guess, p = logits.argmax(1), np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    want = {
        "accuracy": reference.accuracy_score(y, guess),
        "balanced_accuracy": reference.balanced_accuracy_score(y, guess),
        "macro_f1": reference.f1_score(y, guess, average="macro"),
        "log_loss": reference.log_loss(y, p),
    }
    assert found == pytest.approx(want, rel=1e-6) and next(iter(found)) == "accuracy"

    logits, y = RNG.normal(size=(200, 3)), RNG.integers(0, 2, (200, 3))
    found = training.metrics(data.Target("labels", ("a", "b", "c")), logits, y)
    want = {
        "label_accuracy": (y == (logits > 0)).mean(),
        "subset_accuracy": reference.accuracy_score(y, logits > 0),
        "macro_f1": reference.f1_score(y, logits > 0, average="macro"),
        "auroc": reference.roc_auc_score(y, logits, average="macro"),
    }
    assert found == pytest.approx(want, rel=1e-6)
    y[:, 1] = 1  # a label with one value is skipped
    assert 0 < training.metrics(data.Target("labels", ("a", "b", "c")), logits, y)["auroc"] < 1

    outputs, y, target = RNG.normal(size=(200, 1)), RNG.normal(size=(200, 1)), data.Target("numbers", ("a",), (40.0,), (10.0,))
    own, truth = outputs * 10 + 40, y * 10 + 40
    want = {
        "rmse": reference.root_mean_squared_error(truth, own),
        "mae": reference.mean_absolute_error(truth, own),
        "r2": reference.r2_score(truth, own),
    }
    assert training.metrics(target, outputs, y) == pytest.approx(want, rel=1e-6)


def test_losses_and_scores_by_hand():
    logits, y = np.asarray([[2.0, -1.0], [0.5, 0.25]], np.float32), np.asarray([[1.0, 1.0], [0.0, 1.0]], np.float32)
    p = 1 / (1 + np.exp(-logits))
    labels, numbers = training.LABELS, training.NUMBERS
    assert labels.loss(logits, y) == pytest.approx(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(), rel=1e-6)
    np.testing.assert_allclose(labels.score(logits, y), [0.5, 0.5])
    assert numbers.loss(logits, y) == pytest.approx(((logits - y) ** 2).mean(), rel=1e-6)
    np.testing.assert_allclose(numbers.score(logits, y), -((logits - y) ** 2).mean(1), rtol=1e-6)
    for of in (labels, numbers):
        with pytest.raises(ValueError, match="labels are smoothed where they are classes"):
            of.loss(logits, y, smoothing=0.1)


def test_class_weights():
    target, logits, y = data.Target("classes", ("a", "b")), np.zeros((4, 2), np.float32), np.asarray([0, 0, 0, 1])
    weights = training.balanced_weights(y, 2)
    np.testing.assert_allclose(weights, [4 / 6, 2])
    assert training.criterion(target, weights).loss(logits, y) == pytest.approx(np.log(2), rel=1e-6)
    assert training.criterion(target) is training.CLASSES
    with pytest.raises(ValueError, match="a positive number"):
        training.criterion(target, (1.0, 0.0))


# --- searches from end to end -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("case", ["a regression", "several labels", "a folder of images"])
def test_a_search_from_end_to_end(tmp_path, capsys, case):
    from jaxnas.app import cli

    if case == "a folder of images":
        path, wanted = folders(tmp_path / "folder", n=40), {"test_accuracy", "test_balanced_accuracy", "test_macro_f1"}
    elif case == "a regression":
        path, wanted = arrays(tmp_path / "a.npz", x=X, y=X.mean((1, 2, 3)) / 3), {"test_rmse", "test_mae", "test_r2"}
    else:
        path, wanted = arrays(tmp_path / "a.npz", x=X, y=MANY), {"test_label_accuracy", "test_subset_accuracy", "test_auroc"}
    sizes = ["--strategy.order", "first", "--steps", "3", "--train-steps", "3", "--channels", "2", "--batch", "8"]
    assert cli.main(["search", "--data", str(path), *sizes, "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert wanted <= set(result["found"]) and "data: y: " in err
    assert {"a regression": "RMSE", "several labels": "of the labels", "a folder of images": " % of 16"}[case] in out


def test_what_a_space_cannot_read_is_one_line(tmp_path, capsys, monkeypatch):
    from jaxnas.app import cli

    monkeypatch.chdir(tmp_path)
    people().to_csv(tmp_path / "a.csv", index=False)
    assert cli.main(["search", "--space", "nasbench201", "--data", "a.csv"]) == 2
    err = capsys.readouterr().err
    assert err == textwrap.dedent(err) and err.count("\n") == 1
    assert "nasbench201 reads images, and a.csv holds rows of a table: search --space macro" in err
