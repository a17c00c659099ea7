"""Once for all: the phases of progressive shrinking, the teacher, the sandwich rule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import jit

from jaxnas.base import Batch, nothing
from jaxnas.nets._elastic_net import elastic_net, sort_channels
from jaxnas.policies._uniform import uniform
from jaxnas.spaces._elastic import ElasticSpec, Unit, elastic, largest, ofa_mobilenet_v3, smallest
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.weight_sharing.base import Path, Weights
from jaxnas.weight_sharing.core import weight_sharing
from jaxnas.weight_sharing.gradients import frozen
from jaxnas.weight_sharing.ofa import distillation, full_logits, in_place_distillation, progressive_shrinking, stages, taught

IMAGE, CLASSES, EXAMPLES = (4, 4, 1), 3, 8
TINY = ElasticSpec((Unit(2, 1),), depths=(2, 1), kernels=(3,), expansions=(3, 2), stem=2, head=4, stem_stride=1)
PHASES = ("full", "depth 1", "expand 1")


@functools.cache
def tiny():
    return elastic_net(elastic(TINY), image=IMAGE, classes=CLASSES)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def images(key):
    k_x, k_y = jax.random.split(key)
    return Batch(train=(jax.random.normal(k_x, (1, EXAMPLES, *IMAGE)), jax.random.randint(k_y, (1, EXAMPLES), 0, CLASSES)))


# The phases


def test_the_published_phases():
    s = ofa_mobilenet_v3(resolutions=(224, 192, 160, 128))
    order = stages(s)
    assert [(stage.name, stage.paths, stage.widths) for stage in order] == [
        ("full", 1, 0),
        ("kernel", 1, 0),
        ("depth 1", 2, 0),
        ("depth 2", 2, 0),
        ("expand 1", 4, 1),
        ("expand 2", 4, 2),
    ]
    wanted = [(1, 1, 1), (1, 3, 1), (2, 3, 1), (3, 3, 1), (3, 3, 2), (3, 3, 3)]
    for stage, counts in zip(order, wanted, strict=True):
        drawn = s.unflat(jnp.asarray(stage.allowed.sum(1)))
        assert [set(np.ravel(n).tolist()) for n in drawn] == [{n} for n in (*counts, 4)]
        assert (np.diff(stage.allowed.astype(int), axis=1) <= 0).all()  # the largest first


@functools.cache
def shrunk():
    """A whole plan, two steps a phase."""
    sgd = lambda name, steps: optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9))
    plan, states, steps, state = progressive_shrinking(tiny(), sgd, steps=dict.fromkeys(PHASES, 2), data=nothing), [], [], None
    for phase in plan:
        state = jit(phase.strategy.init)(jax.random.key(0), None if state is None else phase.give(state))
        steps.append(jit(phase.strategy.step))
        for t in range(phase.steps):
            state, _ = steps[-1](jax.random.key(t), state, images(jax.random.key(t)))
        states.append(state)
    return plan, states, steps


def test_the_teacher_is_the_full_network_and_stays():
    plan, (full, depth, expand), _ = shrunk()
    for state in (depth, expand):
        assert same(state.teacher, full.variables)
        assert not same(state.search.variables["params"], full.variables["params"])
    assert same(plan[-1].strategy.best(expand), largest(tiny().space))


def test_the_teacher_teaches():
    """And nobody else: without weights it says that all classes are as likely, whatever the network that learns would say."""
    _, (_, depth, _), (_, step, _) = shrunk()
    batch = images(jax.random.key(6))
    loss = lambda teacher: float(step(jax.random.key(5), depth._replace(teacher=teacher), batch)[1].loss)
    nobody = jax.tree.map(jnp.zeros_like, depth.teacher)

    def sure(k):
        classifier = {**nobody["params"]["classifier"], "bias": 40 * jax.nn.one_hot(k, CLASSES)}
        return {**nobody, "params": {**nobody["params"], "classifier": classifier}}

    each = [loss(sure(k)) for k in range(CLASSES)]
    assert np.ptp(each) > 1e-2
    assert abs(loss(nobody) - np.mean(each)) < 1e-5  # cross-entropy is linear in what it aims at


def test_a_phase_begins_where_the_last_ended_with_sorted_channels():
    plan, (full, depth, _), _ = shrunk()
    assert same(plan[1].give(full).search.variables, full.variables)
    given = plan[2].give(depth)
    assert same(given.teacher, full.variables)
    assert same(given.search.variables, sort_channels(tiny(), depth.search.variables))
    assert not same(given.search.variables, depth.search.variables)
    for name in ("unit0_layer0", "unit0_layer1"):
        w = np.abs(given.search.variables["params"][name]["project"]["kernel"]).sum((0, 2, 3))
        assert (np.diff(w) <= 0).all()


def test_phases_without_a_choice_are_left_out():
    assert [s.name for s in stages(tiny().space)] == list(PHASES)
    alone = elastic(TINY._replace(depths=(1,), expansions=(2,)))
    assert [s.name for s in stages(alone)] == ["full"]


def test_what_is_not_drawn_does_not_move():
    """Weights, momenta and decay, where the smallest network alone is drawn."""
    net = tiny()
    only_smallest = np.arange(net.space.arity.max()) == net.space.arity[:, None] - 1
    weights = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    search = weight_sharing(net, uniform(net.space, allowed=only_smallest), frozen, Weights(weights))
    before = jit(search.init)(jax.random.key(0))
    after, _ = jit(search.step)(jax.random.key(1), before, images(jax.random.key(2)))
    used = net.used(before.variables, net.space.gates(smallest(net.space)))
    moved = jax.tree.map(lambda a, b: a != b, after.variables, before.variables)
    outside = jax.tree.map(lambda m, on: m & (on == 0), moved, used)
    assert not any(m.any() for m in jax.tree.leaves(outside))
    inside = jax.tree.map(lambda m, on: (m | (on == 0)).any(), moved, used)
    assert all(jax.tree.leaves(inside["params"]["unit0_layer0"]))
    trace = optax.tree.get(after.opt_state, "trace")
    for m, on in zip(jax.tree.leaves(trace), jax.tree.leaves(used["params"]), strict=True):
        assert not np.where(on == 0, m, 0).any()


# Losses


def test_the_losses_by_hand():
    rng = np.random.default_rng(0)
    logits, targets, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), np.asarray([0, 2, 1, 1, 0])
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    q = np.exp(targets) / np.exp(targets).sum(1, keepdims=True)
    smooth = 0.9 * np.eye(3)[y] + 0.1 / 3
    hard, soft = -(smooth * logp).sum(1).mean(), -(q * logp).sum(1).mean()
    path = lambda targets: Path(jnp.zeros((), jnp.int32), None, None, targets)
    assert abs(distillation().loss(logits, y, path(targets)) - (hard + soft)) < 1e-6
    assert abs(distillation(0.5).loss(logits, y, path(targets)) - (hard + 0.5 * soft)) < 1e-6
    assert abs(distillation().loss(logits, y, path(None)) - hard) < 1e-6
    assert abs(distillation(smoothing=0.0).loss(logits, y) + logp[np.arange(5), y].mean()) < 1e-6


def test_the_sandwich_learns_labels_once_and_its_own_logits_otherwise():
    """One step of plain SGD against the gradients of the four networks that the policy draws."""
    net, rate = tiny(), 0.5
    search = in_place_distillation(net, optax.sgd(rate), smoothing=0.0)
    state, batch = jit(search.init)(jax.random.key(0)), images(jax.random.key(2))
    x, y = jax.tree.map(lambda a: a[0], batch.train)
    moved, info = jit(search.step)(jax.random.key(1), state, batch)

    @jit
    def of(params, gates, aim):  # the gradient of the cross-entropy at `aim`; the logits
        def loss(params):
            logits = net.apply({**state.variables, "params": params}, x, gates, train=True)[0]
            return optax.softmax_cross_entropy(logits, aim).mean(), logits

        return jax.grad(loss, has_aux=True)(params)

    texts = ("k3e3-k3e3", "k3e2", "k3e3", "k3e3-k3e2", "k3e2-k3e3", "k3e2-k3e2")
    gates = [net.space.gates(net.space.from_text(text)) for text in texts]
    assert same(info.gates, gates[0])
    hard, logits = of(state.variables["params"], gates[0], jax.nn.one_hot(y, CLASSES))
    soft = [of(state.variables["params"], g, jax.nn.softmax(logits))[0] for g in gates]
    step = jax.tree.map(lambda a, b: (a - b) * 4 / rate, state.variables["params"], moved.variables["params"])
    vector = lambda tree: np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])
    rest = vector(step) - vector(hard) - vector(soft[1])  # labels for the largest, soft logits for the smallest
    pairs = [vector(a) + vector(b) for i, a in enumerate(soft) for b in soft[i:]]
    assert min(np.abs(rest - pair).max() for pair in pairs) < 1e-5 * max(1, np.abs(vector(step)).max())


def test_the_full_logits_are_those_of_the_largest():
    net = tiny()
    variables, (x, _) = jit(net.init)(jax.random.key(0)), jax.tree.map(lambda a: a[0], images(jax.random.key(1)).train)
    module, extract = net.specialize(largest(net.space))
    wanted = jit(lambda v, x: module.apply(extract(v), x, train=True, mutable=["batch_stats"])[0])(variables, x)
    found = jit(lambda v, x: full_logits(net, v, x))(variables, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stages(nasbench201()), "needs an elastic space"),
        (
            lambda: progressive_shrinking(tiny(), steps={"full": 1}, data=nothing),
            "give `steps` for the phases full, depth 1, expand 1; got full",
        ),
        (lambda: distillation(-1.0), r"`ratio` of distillation must be a number of at least 0; got -1\.0"),
        (lambda: distillation(1.0, 1.0), r"`smoothing` of distillation must be a probability below 1 or None; got 1\.0"),
        (lambda: in_place_distillation(tiny(), optax.sgd(0.1), paths=2), "paths=2 is too few"),
        (lambda: taught(in_place_distillation(tiny(), optax.sgd(0.1))).init(jax.random.key(0)), "cannot be the first"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
