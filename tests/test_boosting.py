"""Gradient boosting as a rival on tables: its outputs mean what a network's do, for every kind of target."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxnas import data, nets, spaces, training
from jaxnas.app import main_job
from jaxnas.app.main_job.boosting import SETTINGS, boost


def rows(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    y = {
        "classes": np.where(x[:, 0] * x[:, 1] > 0, "same", "other"),
        "three": np.digitize(x[:, 0], [-0.5, 0.5]),
        "labels": np.stack([x[:, 0] > 0, x[:, 1] > 0.3, np.zeros(300, bool)], 1),
        "numbers": np.stack([x[:, 0] ** 2, 3 * x[:, 1]], 1),
    }[kind]
    return data.split(jax.random.key(0), x, y, valid=None, layout="NF")


@pytest.mark.parametrize(
    "kind, name, least",
    [("classes", "accuracy", 0.85), ("three", "accuracy", 0.85), ("labels", "label_accuracy", 0.95), ("numbers", "r2", 0.8)],
)
def test_it_predicts_what_it_has_learnt(kind, name, least, tmp_path):
    dataset = rows(kind)
    found = boost(tmp_path, dataset, training.criterion(dataset.target), 60.0, most=1)
    assert found.outputs.shape == (len(dataset.test.y), dataset.target.outputs) and found.tried == 1
    assert training.metrics(dataset.target, found.outputs, dataset.test.y)[name] > least
    assert 1 <= found.settings["max_iter"] <= 300 and found.text.startswith("learning_rate=0.1 max_leaf_nodes=15")
    again = boost(tmp_path, dataset, training.CLASSES, 0.0)  # what is kept is not done again
    np.testing.assert_array_equal(again.outputs, found.outputs)
    assert again.settings == found.settings


def test_time_that_is_up_ends_the_settings(tmp_path):
    dataset = rows("three")
    assert boost(tmp_path, dataset, training.CLASSES, 0.0).tried == 1 < len(SETTINGS)


def test_rare_classes_count_as_much_as_common_ones_on_request(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=600) > 2.0).astype(int)  # a tenth, and hard to tell
    dataset = data.split(jax.random.key(0), x, y, valid=None, stratified=True, layout="NF")
    recall = lambda criterion, where: training.metrics(
        dataset.target, boost(where, dataset, criterion, 60.0, most=1).outputs, dataset.test.y
    )["balanced_accuracy"]
    weighed = training.balanced(dataset.target, dataset.train.y)
    for name in ("plain", "weighed"):
        (tmp_path / name).mkdir()
    assert recall(weighed, tmp_path / "weighed") > recall(training.CLASSES, tmp_path / "plain") + 0.05
    logits = np.eye(2, dtype=np.float32)[np.zeros(600, int)]  # always the common class
    assert np.mean(weighed.score(logits, y)) == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ValueError, match="classes can be balanced"):
        training.balanced(rows("numbers").target, dataset.train.y)


def test_a_class_that_train_lacks_is_never_predicted(tmp_path):
    dataset = rows("three")
    short = dataset.train._replace(y=np.where(np.asarray(dataset.train.y) == 1, 0, np.asarray(dataset.train.y)))
    kept = dataset.valid._replace(y=np.where(np.asarray(dataset.valid.y) == 1, 0, np.asarray(dataset.valid.y)))
    less = dataclasses.replace(dataset, train=short, valid=kept)
    found = boost(tmp_path, less, training.CLASSES, 60.0, most=1)
    assert set(found.outputs.argmax(-1)) == {0, 2}


def test_a_part_of_one_class_predicts_that_class(tmp_path):
    dataset = rows("three")
    one = lambda split: split._replace(y=np.full(len(split.y), 2, np.int32))
    only = dataclasses.replace(dataset, train=one(dataset.train), valid=one(dataset.valid))
    assert set(boost(tmp_path, only, training.CLASSES, 60.0, most=1).outputs.argmax(-1)) == {2}


@pytest.mark.parametrize("text", ["{", '{"tried": 1}'])
def test_damaged_files_are_one_line(text, tmp_path):
    (tmp_path / "boosting.json").write_text(text)
    np.save(tmp_path / "boosting.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"boosting.json or boosting.npy is damaged: remove both"):
        boost(tmp_path, rows("three"), training.CLASSES, 60.0)


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_the_main_job_on_a_table_is_compared_with_it(kind, tmp_path):
    dataset = rows(kind)
    space = spaces.tabular(4, width=(16,), depth=(3,), block=("mlp",), embedding=("raw",), norm=("nonorm",), activation=("relu",))
    net = nets.tabular_nets(space, image=(4,), classes=dataset.classes)
    effort = main_job.Effort(minutes=1.0, batch=32, steps=30, trials=3)
    result = main_job.run(tmp_path, jax.random.key(1), net, dataset, effort)
    assert set(result["against"]) == {"hand-made", "random", "small", "one-random", "gradient-boosting"}
    assert result["gradient-boosting"]["tried"] == 3 and "gradient boosting, the best of 3 settings" in result["verdict"]
    assert ("take scikit-learn's" in result["verdict"]) == (result["against"]["gradient-boosting"]["verdict"] == "worse")
    lines = (tmp_path / "trials.jsonl").read_text()
    for path in (tmp_path / "finals").iterdir():
        path.unlink()
    again = main_job.run(tmp_path, jax.random.key(1), net, dataset, effort)  # an arm that has ended trains nothing more
    assert (tmp_path / "trials.jsonl").read_text() == lines and again["found"] == result["found"]


def test_series_are_searched_like_images_of_one_column(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = rng.normal(size=(120, 8, 2)).astype(np.float32) + 2.0 * y[:, None, None] * np.sin(np.arange(8))[None, :, None]
    dataset = data.split(jax.random.key(0), x, y, valid=None, layout="NTC")
    one = dict(block=("plain",), kernel=(3,), expansion=(2,), attention=(False,), norm=("batch",), activation=("relu",))
    space = spaces.macro((8, 1, 2), stages=1, width=(4,), growth=(1.0,), depth=(1,), head=("flatten",), **one)
    net = nets.backbones(space, image=(8, 2), classes=2)
    result = main_job.run(tmp_path, jax.random.key(1), net, dataset, main_job.Effort(1.0, batch=16, steps=12, trials=2))
    assert result["found"]["test_accuracy"] > 0.6 and "gradient-boosting" not in result["against"]
