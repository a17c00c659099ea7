"""The test set chooses nothing: what a search, its seeds and its candidates see is the same whatever the test set holds."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import data
from jaxnas.app import search
from jaxnas.app.config import Config
from jaxnas.app.methods.base import Job
from jaxnas.app.tasks import TASKS
from jaxnas.data.text import Text, bptt

MARK = 7.5e8  # a number that no example but the test set's holds
X = np.random.default_rng(0).normal(size=(30, 2, 2, 1)).astype(np.float32)
Y = np.arange(30) % 3


def planted(valid: int, test: int) -> data.Dataset:
    """Images whose valid labels are all `valid` and whose test labels are all `test`."""
    dataset = data.split(jax.random.key(0), X, Y)
    alike = lambda part, label: part._replace(y=jnp.full_like(part.y, label))
    halves = {"valid": alike(dataset.valid, valid), "test": alike(dataset.test, test)}
    return data.Dataset(train=dataset.train, **halves, target=dataset.target)


def classifier(classes: int):
    """A net whose variables are the class that it names for every example."""

    def apply(variables, x, gates, *, train, path=False):
        shape = x.tokens.shape if hasattr(x, "tokens") else x.shape[:1]  # of a text [B, T], of images [B]
        return jnp.broadcast_to(5 * jax.nn.one_hot(variables, classes), (*shape, classes)), variables

    return types.SimpleNamespace(apply=apply, space=types.SimpleNamespace(gates=lambda arch: arch))


@pytest.mark.parametrize(("valid", "test"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("task", ["images", "examples", "text"])
def test_the_seed_that_goes_on_is_the_one_that_is_best_on_the_validation_data(task, valid, test):
    """Seed s names class s of every example.  The seed to go on with is `valid`; the one that would test best is `test`."""
    stream = lambda token: jnp.full(65, token, jnp.int32)
    text = Text(train=stream(0), valid=stream(valid), test=stream(test), vocabulary=("a", "b", "c"))
    held, net = (text if task == "text" else planted(valid, test)), classifier(3)
    job = Job(Config(batch=4), None, net, held)
    both = jnp.arange(2)
    searched = types.SimpleNamespace(state=types.SimpleNamespace(variables=both), best=both)
    chosen, by = search._best_seed(job, TASKS[task], searched)
    assert chosen == valid and "validation" in by


def test_no_feed_of_a_search_or_of_a_training_holds_the_test_set():
    dataset = data.split(jax.random.key(0), X, Y)
    marked = jax.tree.map(lambda a: jnp.full_like(a, MARK), dataset.test)
    dataset = data.Dataset(train=dataset.train, valid=dataset.valid, test=marked, target=dataset.target)
    text = Text(train=jnp.arange(65) % 3, valid=jnp.arange(65) % 3, test=jnp.full(65, int(MARK)), vocabulary=("a", "b", "c"))
    feeds = [data.batches(dataset, 4), data.training(dataset, 4), data.calibration(dataset, 4, 2), bptt(text, 4, 5)]
    feeds += [data.epochs(feeds[0], 2), Job(Config(batch=4), None, None, dataset).judge()]
    for feed in feeds:
        assert not any((np.asarray(leaf) == MARK).any() for leaf in jax.tree.leaves(feed.arrays))
