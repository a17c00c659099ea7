"""ImageNet's settings on sets that are like it, and small: class folders of JPEGs, array_record, TensorFlow Datasets."""

import dataclasses
import importlib.util
import io
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxnas as nas
from jaxnas import data, spaces
from jaxnas.spaces._elastic import ofa_small
from jaxnas.spaces._mobile import MobileSpec, staged_layers

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
CLASSES = 64
key = jax.random.key


@pytest.fixture(scope="module")
def experiments():
    sys.path.insert(0, str(FOLDER))
    made = {}
    for name in ("darts", "proxylessnas", "ofa"):
        spec = importlib.util.spec_from_file_location(f"{name}_experiment", FOLDER / f"{name}.py")
        made[name] = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made[name])
    yield made
    sys.path.remove(str(FOLDER))


def jpeg(i, side):
    """An image of its own size, in colour and in proportions of its own."""
    rng = np.random.default_rng(i)
    h, w = (int(n) for n in rng.integers(side - side // 4, 2 * side, 2))
    file = io.BytesIO()
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    small.resize((w, h), Image.Resampling.BICUBIC).convert("L" if i % 20 == 0 else "RGB").save(file, "jpeg")
    return file.getvalue()


def write_folder(folder, side, each=5):
    """train of `each` and val of one image a class."""
    for part, count in (("train", each), ("val", 1)):
        for i in range(CLASSES * count):
            path = folder / part / f"n{i % CLASSES:08d}" / f"{i}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(i, side))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("imagenet"), 32)


SIZE = {"valid_as_test": True, "image": (32, 32, 3), "valid": 0.2}


def records(folder, side, each=3):
    """Rows of array_record: a byte of a label, then a JPEG."""
    record = pytest.importorskip("array_record.python.array_record_module")
    opened = pytest.importorskip("array_record.python.array_record_data_source")
    writer = record.ArrayRecordWriter(str(folder / "train"), "group_size:1")
    for i in range(CLASSES * each):
        writer.write(bytes([i % CLASSES]) + jpeg(i, side))
    writer.close()
    return opened.ArrayRecordDataSource(str(folder / "train"))


def of_records(source, image, **options):
    names = tuple(map(str, range(CLASSES)))
    return data.streamed(source, key(0), decode=lambda row: (row[1:], row[0]), names=names, image=image, **options)


def folder_in(path):
    (path / "val").mkdir()
    return path / "val"


def seen(result):
    assert np.isfinite(np.asarray(result.infos[-1].loss)).all()
    return result


def warmed_up(module, dataset):
    """ProxylessNAS's warm-up with its augmentations, on a small net; of the search in `test_the_whole_plan_of_proxylessnas`."""
    spec = MobileSpec(staged_layers(4, [(4, 1, 2)], ("k3_e1", "k5_e1"), "zero"), stem=4, head=8, stem_stride=2)
    s = dataclasses.replace(module.IMAGENET, spec=spec, batch=4, epoch=2, warm=1, epochs=1, weight_steps=1)
    net = nas.mobile_net(spaces.mobile(spec), image=dataset.image, classes=dataset.classes)
    make = lambda weights: nas.proxylessnas(net, weights, nas.training.adam(), criterion=module.smoothed)
    plan = module.plan(make, s, dataset, lambda theta: jnp.sum(theta))
    assert [phase.steps for phase in plan] == [2, 2]
    seen(nas.run(key(1), plan[:1]))


def shrunk(module, dataset):
    """The first stage of Once-for-all, and what scores its networks."""
    space = ofa_small((4, 4), (1, 2), depths=(2, 1), kernels=(5, 3), head=8)
    steps = dict.fromkeys(stage.name for stage in module.ofa.stages(space))
    s = dataclasses.replace(module.IMAGENET, spec=space.spec, batch=4, steps={name: 1 for name in steps}, calibration=2)
    net = module.elastic_net(space, image=dataset.image, classes=dataset.classes)
    feed = data.batches(dataset, s.batch, arch_steps=0, augment=s.augment)
    plan = module.plans(s, net, feed)["shrinking"][:1]
    state = seen(nas.run(key(1), plan)).state
    archs = jax.tree.map(lambda a: a[None], space.sample(key(2)))
    score = module.scorer(s, net, dataset)
    assert 0 <= score(state.search.variables if hasattr(state, "search") else state.variables, archs, "test")[0] <= 100


def transferred(module, dataset):
    """The training of DARTS's published cell, which needs maps of 28 x 28 behind its stem."""
    count = len(dataset.train) + len(dataset.valid)
    s = dataclasses.replace(module.IMAGENET, batch=count // 2, channels=2, cells=3, epochs=1)
    assert 0 <= module.train(key(1), s, dataset, "DARTS_V2") <= 100


def test_proxylessnas_in_its_imagenet_setting(experiments, folder):
    dataset = data.streamed(folder, key(0), **SIZE)
    assert (dataset.classes, len(dataset.train), len(dataset.valid), len(dataset.test)) == (CLASSES, 256, 64, 64)
    warmed_up(experiments["proxylessnas"], dataset)


def test_once_for_all_in_its_imagenet_setting(experiments, folder):
    shrunk(experiments["ofa"], data.streamed(folder, key(0), **SIZE))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "array_record"])
def test_the_imagenet_settings_at_224(experiments, kind, tmp_path):
    if kind == "folder":
        dataset = data.streamed(write_folder(tmp_path, 224, 2), key(0), valid_as_test=True)
    else:
        dataset = of_records(records(tmp_path, 224), None, valid=0.3, test=records(folder_in(tmp_path), 224, 1))
    assert dataset.image == (224, 224, 3)
    transferred(experiments["darts"], dataset)
    warmed_up(experiments["proxylessnas"], dataset)
    shrunk(experiments["ofa"], dataset)


def test_darts_on_an_array_record(tmp_path):
    dataset = of_records(records(tmp_path, 32), (32, 32, 3))
    net = nas.cell_net(spaces.darts(2, ("none", "skip_connect")), image=(32, 32, 3), classes=CLASSES, channels=2, cells=1)
    augment = data.chain(data.resized_crop(), data.flip())
    seen(nas.run(key(1), nas.darts(net, order="first"), steps=2, data=data.batches(dataset, 4, augment=augment)))


@pytest.mark.slow
def test_the_whole_plan_of_proxylessnas(experiments, folder):
    module = experiments["proxylessnas"]
    spec = MobileSpec(staged_layers(4, [(4, 1, 2)], ("k3_e1", "k5_e1"), "zero"), stem=4, head=8, stem_stride=2)
    s = dataclasses.replace(module.IMAGENET, spec=spec, batch=4, epoch=2, warm=1, epochs=1, weight_steps=1)
    dataset = data.streamed(folder, key(0), **SIZE)
    net = nas.mobile_net(spaces.mobile(spec), image=dataset.image, classes=dataset.classes)
    make = lambda weights: nas.proxylessnas(net, weights, nas.training.adam(), criterion=module.smoothed)
    seen(nas.run(key(1), module.plan(make, s, dataset, lambda theta: jnp.sum(theta))))
