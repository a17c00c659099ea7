"""TuNAS: spaces with filters, networks masked to them, warm-ups, and where the search ends."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from laws import Flat, images, of_edges
from quick import both_ways, everything, jit, worst

from jaxnas import ask_tell, base, hardware, objectives, policies, spaces, training, weight_sharing
from jaxnas.driver import run
from jaxnas.nets._tunas_net import tunas_net
from jaxnas.nets.base import count_parameters
from jaxnas.spaces._space import is_shape
from jaxnas.spaces._tunas import TunasSpec, TunasStage, multiples, proxylessnas_enlarged, tunas, widest
from jaxnas.weight_sharing._tunas import warming

leaves = jax.tree.leaves
IMAGE, CLASSES = (6, 4, 1), 3
STAGES = TunasStage((3, 2), 1, 1, (1,)), TunasStage((4, 3, 1), 2, 2, (3, 2))
TINY = TunasSpec(STAGES, stem=(3, 1), head=(5, 2), kernels=(5, 3), stem_stride=1)
ARCHS = ("3 3:k5e1 4:k5e3-k5e3 5", "1 2:k3e1 1:k3e2-zero 2", "3 2:k3e1 3:k5e3-k3e2 5")


@functools.cache
def tiny():
    return tunas_net(tunas(TINY), image=IMAGE, classes=CLASSES)


@functools.cache
def drawn(seed, dtype):
    """Variables and images, none of them as they start."""
    rng = np.random.default_rng(seed)
    draw = lambda a: (0.5 * rng.normal(size=a.shape)).astype(dtype)
    variables = jax.tree.map(draw, jax.eval_shape(tiny().init, jax.random.key(0)))
    return {**variables, "batch_stats": jax.tree.map(abs, variables["batch_stats"])}, rng.normal(size=(4, *IMAGE)).astype(dtype)


def gates_of(text, dtype=np.float64):
    s = tiny().space
    return jax.tree.map(lambda g: np.asarray(g, dtype), s.gates(s.from_text(text)))


# The spaces


def test_published_sizes():
    s = proxylessnas_enlarged()
    product = math.prod(int(n) for n in s.arity)
    assert f"{product:.0e}" == "1e+28"
    one = tunas(s.spec._replace(stem=(32,), head=(1280,), stages=tuple(st._replace(filters=(16,)) for st in s.spec.stages)))
    assert math.prod(int(n) for n in one.arity) == 3 * 6**6 * 12**15 and f"{3 * 6**6 * 12**15:.1e}" == "2.2e+21"
    assert f"{one.size:.1e}" == "6.6e+17"  # different ones
    assert [multiples(16, (f,)) for f in (0.1, 0.625, 0.75, 1.25)] == [(8,), (8,), (16,), (24,)]  # of 1.6, 10, 12, 20: half goes up
    assert multiples(16, (0.5, 0.625, 2, 1)) == (32, 16, 8)
    assert (s.spec.stride, len(s.spec.layers)) == (32, 22)


PUBLISHED = {  # of each network: the kernel of the separable convolution; 0 to 5 expansions 3, 6 and kernels 3, 5, 7; 6 none
    "MobileNetV2": ("0336633363333333633363", "32 16 24 32 64 96 160 320 1280", 3_504_872, 0),
    "MnasNet-B1": ("0000611164446336644443", "32 16 24 40 80 96 192 320 1280", 4_383_312, 314_415_872),
    "ProxylessNAS-Mobile": ("0106620115111411155225", "32 16 32 40 80 96 192 320 1280", 4_080_512, 320_427_584),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_one_builder_decodes_the_published_networks(name):
    indices, filters, parameters, multiplied = PUBLISHED[name]
    first, *rest = map(int, indices)
    layers = [f"k{(3, 5, 7)[first]}e1", *("zero" if i == 6 else f"k{(3, 5, 7)[i % 3]}e{(3, 6)[i // 3]}" for i in rest)]
    stem, *widths, head = filters.split()
    cut = np.split(layers, np.cumsum([1, 4, 4, 4, 4, 4]))
    text = " ".join([stem, *(f"{n}:{'-'.join(part)}" for n, part in zip(widths, cut, strict=True)), head])
    s, image = proxylessnas_enlarged(), (224, 224, 3)
    arch = s.from_text(text)
    assert s.to_text(arch) == text
    net = tunas_net(s, image=image, classes=1000)
    module, _ = net.specialize(arch)
    assert count_parameters(module, image) == parameters
    if multiplied:
        assert abs(float(net.macs(s.gates(arch))) / multiplied - 1) < 1e-6


def test_text_and_gates_both_ways():
    s = tiny().space
    archs = jit(jax.vmap(s.sample))(jax.random.split(jax.random.key(0), 20))
    v = jit(jax.vmap(s.flat))(archs)
    np.testing.assert_array_equal(jit(jax.vmap(lambda arch: s.flat(s.derive(s.gates(arch)))))(archs), v)
    archs = jax.tree.map(np.asarray, archs)
    for i in range(20):
        text = s.to_text(jax.tree.map(lambda a, i=i: a[i], archs))
        assert np.asarray(s.flat(s.from_text(text))).tolist() == v[i].tolist()
    assert s.size == (2 * 2 * 3 * 2) * 2 * 4 * 5  # a first layer is there, with 4 settings; another has 5


# The network


@functools.cache
def program():
    """(variables, x, gates) -> all that follows, of any architecture."""
    return everything(tiny())


def both(text, dtype):
    return both_ways(tiny(), program(), tiny().space.from_text(text), *drawn(0, dtype), gates_of(text, dtype))


@pytest.mark.parametrize("text", [ARCHS[1], pytest.param(ARCHS[2], marks=pytest.mark.slow)])
def test_a_masked_network_is_the_narrow_one(text):
    """Outputs in training and evaluation, gradients of all weights and images, new statistics; what it lacks does not move."""
    with jax.enable_x64(True):
        mine, wanted, stats = both(text, np.float64)
        assert worst(mine, wanted) < 1e-9
        variables, x = drawn(0, np.float64)
        net, used = tiny(), tiny().used(variables, gates_of(text))
        module, extract = net.specialize(net.space.from_text(text))
        assert jax.tree.map(np.shape, extract(variables)) == jax.tree.map(
            np.shape, jax.eval_shape(functools.partial(module.init, train=True), jax.random.key(0), x)
        )
        still = lambda new, old, on: np.where(on > 0, 0, new - old)
        assert not any(m.any() for m in leaves(jax.tree.map(still, stats, variables["batch_stats"], used["batch_stats"])))
        others, _ = drawn(1, np.float64)
        elsewhere = jax.tree.map(lambda on, v, other: np.where(on > 0, v, other), used, variables, others)
        again = program()(elsewhere, x, gates_of(text))
        assert worst(again[0], mine[0]) == 0 and worst(again[2], mine[2]) == 0
        counts = jax.tree.map(lambda on, v: int(np.sum(np.broadcast_to(on, v.shape))), used, variables)
        assert sum(leaves(counts)) == sum(int(np.size(v)) for v in leaves(extract(variables)))


@pytest.mark.slow
def test_a_masked_network_is_the_narrow_one_in_single_precision():
    mine, wanted, _ = both(ARCHS[2], np.float32)
    assert worst(mine, wanted) < 1e-5


def test_all_operations_at_once():
    """A layer of weight 1 / 2 whose filter is the mean of the kernels'."""
    net = tiny()
    with jax.enable_x64(True):
        variables, x = drawn(0, np.float64)
        gates = jax.tree.map(lambda g: np.asarray(g, np.float64) / np.sum(g, dtype=np.float64), widest(net.space))
        module, extract = net.specialize(net.space.from_text(ARCHS[0]))
        small = extract(variables)
        for name, layer in variables["params"].items():
            if name.startswith("layer"):
                w = [np.pad(layer["depthwise"][f"k{k}"], [(0, 0), *[((5 - k) // 2,) * 2] * 2]) for k in (5, 3)]
                small["params"][name] = {**layer, "depthwise": {"kernel": np.mean(w, 0)}}
        last = small["params"]["layer2"]  # behind the first of a stage
        small["params"]["layer2"] = {**last, "project_norm": {what: v / 2 for what, v in last["project_norm"].items()}}
        logits, _, evaluated, _ = program()(variables, x, gates)
        train = lambda small, x: module.apply(small, x, train=True, mutable=["batch_stats"])[0]
        assert worst((logits, evaluated), jit(lambda small, x: (train(small, x), module.apply(small, x)))(small, x)) < 1e-9


def test_multiply_adds_by_hand():
    s = tiny().space
    of = jit(tunas_net(s, image=(7, 5, 1), classes=CLASSES).macs)
    at = lambda text: float(of(s.gates(s.from_text(text))))
    full, half = 35, 4 * 3  # pixels
    narrow = full * 9 + full * (9 + 2) + full * 2 * 4 + half * 4 * (9 + 1) + half * 2 + 2 * CLASSES
    assert at(ARCHS[1]) == narrow
    first = full * 3 * 9 + full * (3 * 9 + 3 * 2) + full * 2 * 6 + half * 6 * (25 + 3)
    assert at(ARCHS[2]) == first + half * (3 * 6 + 6 * 9 + 6 * 3) + half * 3 * 5 + 5 * CLASSES


def test_multiply_adds_of_odds_are_their_mean():
    s = tiny().space
    of = tunas_net(s, image=(7, 5, 1), classes=CLASSES).macs
    every = np.asarray(list(itertools.product(*map(range, s.arity))), np.int32)
    mean = np.mean(jit(jax.vmap(lambda v: of(s.gates(s.unflat(v)))))(every), dtype=float)
    uniform = jax.tree.map(lambda shape: jnp.full(shape, 1 / shape[-1]), s.gate_shapes, is_leaf=is_shape)
    assert abs(float(of(uniform)) / mean - 1) < 1e-5


# The warm-ups


def test_the_warm_ups_open_operations_and_widen_filters():
    """The odds of every row, at the start, in the middle and at the end; what is not opened is uniform."""
    s = tiny().space
    full = widest(s)
    policy = warming(s, optax.linear_schedule(1.0, 0.0, 10), full)
    draw = jit(jax.vmap(lambda key, t: policy.sample(key, (), t), (0, None)))
    keys = jax.random.split(jax.random.key(0), 2000)
    with jax.debug_key_reuse(False):
        first, middle, last = ([np.asarray(row)[:, 0] for row in leaves(draw(keys, t))] for t in (0, 5, 10))
    widths = len(leaves(full.filters))
    for d, (whole, start, half, end) in enumerate(zip(leaves(full), first, middle, last, strict=True)):
        n = whole.shape[-1]
        assert (start == np.asarray(whole)).all()
        width = d < widths or d >= len(leaves(full)) - len(leaves(full.expand))
        assert whole.tolist() == ([1] + [0] * (n - 1) if width else [np.float32(1 / n)] * n)
        assert set(np.unique(end)) == {0, 1} and scipy.stats.chisquare(end.sum(0)).pvalue > 1e-4
        share = (half == np.asarray(whole)).all(-1).mean()
        wanted = 0.5 + 0.5 / n if width else 0.5
        assert abs(share - wanted) < 4.5 * math.sqrt(wanted * (1 - wanted) / len(keys))


def test_what_the_warm_up_opens_is_uniform_over_what_a_row_has():
    """S1 has two operations an edge: each gets half, the others nothing."""
    space = spaces.darts_subspace("S1", nodes=2)
    gates = jax.tree.map(lambda a: np.asarray(a)[0], warming(space, lambda t: 1.0).sample(jax.random.key(0), (), 0))
    for got, on in zip(gates, space.open, strict=True):
        assert (got == on / on.sum(-1, keepdims=True)).all() and (got.sum(-1) == 1).all()


def test_the_op_warm_up_opens_whole_decisions():
    policy = warming(spaces.nasbench201(), optax.linear_schedule(1.0, 0.0, 10))
    draw = lambda t: np.stack([np.asarray(policy.sample(k, (), t))[0] for k in jax.random.split(jax.random.key(0), 200)])
    with jax.debug_key_reuse(False):
        first, middle, last = draw(0), draw(5), draw(10)
    assert (first == np.float32(0.2)).all()
    assert ((last == 0) | (last == 1)).all() and (last.sum(-1) == 1).all()
    opened = (middle == np.float32(0.2)).all(-1)  # [200, 6]
    assert abs(opened.mean() - 0.5) < 3 * 0.5 / math.sqrt(1200)
    assert abs(opened.sum(-1).var() - 6 / 4) < 4 * 6 / 4 * math.sqrt(2 / 200)  # each decision by itself: binomial


@pytest.mark.slow
def test_what_a_step_does_not_draw_does_not_move():
    """Weights, momentum, decay: those of the drawn layers, kernels and channels alone."""
    net = tiny()
    search = weight_sharing.op_warm_up(net, training.sgd(0.1, weight_decay=0.1), share=lambda t: 0.0, full=widest(net.space))
    state = search.init(jax.random.key(0), weight_sharing.Given(drawn(0, np.float32)[0]))
    x, y = jax.random.normal(jax.random.key(1), (1, 8, *IMAGE)), jnp.arange(8)[None] % CLASSES
    state = state._replace(opt_state=jax.tree.map(jnp.ones_like, state.opt_state))
    with jax.debug_key_reuse(False):
        new, info = jit(search.step)(jax.random.key(2), state, base.Batch(train=(x, y)))
    used = net.used(state.variables, info.gates)
    on = jax.tree.map(lambda on, v: np.broadcast_to(np.asarray(on) > 0, v.shape), used, state.variables)
    same = lambda on, old, new: ((np.asarray(new) == np.asarray(old)) | on).all()
    still = jax.tree.map(same, on, state.variables, new.variables), jax.tree.map(same, on["params"], *map(trace, (state, new)))
    assert all(leaves(still))
    assert sum(np.sum(~on) for on in leaves(on["params"])) > 100


def trace(state):
    """The momentum in an optimizer's state."""
    is_trace = lambda node: isinstance(node, optax.TraceState)
    return next(s.trace for s in jax.tree.leaves(state.opt_state, is_leaf=is_trace) if is_trace(s))


# Where the search ends


def surface(space):
    """Accuracy and cost that rise together, with what a unit of cost is worth falling from decision to decision."""
    worth = jnp.asarray([8.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.5])

    def evaluate(key, archs, batch):
        v = jax.vmap(space.flat)(archs) / 3.0
        return {"accuracy": 0.5 + jnp.sum(v * worth[None], -1) / 400, "cost": 10 + 10 * jnp.sum(v, -1)}

    return base.stateless(evaluate)


def final_costs(objective, seeds=5):
    space = spaces.space(Flat(np.full(8, 4)))
    policy = policies.categorical(space, scale=0.0)
    algorithm = ask_tell.policy_gradient(space, policy, policies.reinforce(policy, optax.adam(0.05, b1=0.0), 0.95), batch=16)
    result = run(jax.random.key(0), base.black_box(algorithm, surface(space), objective), steps=1500, seeds=seeds)
    final = jax.vmap(policy.derive)(result.state.algorithm.theta)
    return 10 + 10 * np.asarray(final.a).sum(-1) / 3.0


@pytest.mark.parametrize("beta", [-0.1, -0.3, -1.0])
def test_tunas_ends_at_its_target(beta):
    """Within 2 % of 50 (the grid of costs has steps of 3.3)."""
    costs = final_costs(objectives.absolute("accuracy", "cost", 50.0, beta))
    assert (np.abs(costs / 50 - 1) <= 0.02).all()


def test_the_soft_reward_drifts():
    costs = final_costs(objectives.mnasnet("accuracy", "cost", 50.0))
    assert (np.abs(costs / 50 - 1) > 0.1).all()


@functools.cache
def ends(reward, beta):
    """Multiply-adds relative to 300 M of what five seeds of REINFORCE find, where accuracy grows as the 20th root of them."""
    space = proxylessnas_enlarged()
    policy, of = policies.categorical(space, scale=0.0), tunas_net(space, image=(224, 224, 3), classes=1000).macs
    update = policies.reinforce(policy, optax.adam(0.05, b1=0.0), 0.95)
    price = lambda archs: jax.vmap(lambda arch: of(space.gates(arch)) / 300e6)(archs)
    evaluate = lambda key, archs, batch: {"accuracy": 0.75 * price(archs) ** 0.05, "cost": price(archs)}
    search = base.black_box(
        ask_tell.policy_gradient(space, policy, update, batch=16), base.stateless(evaluate), reward("accuracy", "cost", 1.0, beta)
    )
    state = run(jax.random.key(0), search, steps=1500, seeds=5).state
    return np.asarray(price(jax.vmap(policy.derive)(state.algorithm.theta)))


@pytest.mark.slow
@pytest.mark.parametrize("beta", [-0.1, -0.3, -1.0])
def test_a_space_with_filters_ends_at_its_target(beta):
    assert (abs(ends(objectives.absolute, beta) - 1) <= 0.02).all()


@pytest.mark.slow
def test_a_space_with_filters_drifts_without_it():
    assert (abs(ends(objectives.mnasnet, -0.07) - 1) > 0.1).all()


def test_hierarchical_log_probability_is_brute_force():
    space = spaces.space((3, 2, 4), parent=[-1, 0, 1], when=[[1, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0]])
    policy = policies.categorical(space, scale=1.0)
    theta = policy.init(jax.random.key(0))
    p = [jax.nn.softmax(theta[d, :n]) for d, n in enumerate((3, 2, 4))]
    total, seen = 0.0, set()
    for a, b, c in itertools.product(range(3), range(2), range(4)):
        arch = space.canonical(space.unflat(jnp.asarray([a, b, c])))
        if (key := tuple(space.flat(arch).tolist())) in seen:
            continue
        seen.add(key)
        # b is there for a = 1, 2; c for a = 1, 2 and b = 1
        wanted = p[0][a] * (p[1][b] if a else 1) * (p[2][c] if a and b == 1 else 1)
        found = jnp.exp(jnp.sum(policy.log_prob(theta, arch)[0]))
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        total += float(found)
    assert len(seen) == space.size and abs(total - 1) < 1e-5


@pytest.mark.parametrize(("target", "found"), [(3.0, [0, 0, 0]), (6.0, [1, 1, 1])])
def test_tunas_goes_to_the_cost_that_it_is_given(target, found):
    """Costs of 1, 2 and 9 a decision: the target is met by one architecture, and what is cheaper is not better."""
    net = of_edges(lambda net: net).strategy  # three decisions of three values, which mix
    table = jax.tree.map(lambda s: jnp.asarray([[1.0, 2.0, 9.0]] * 3), net.space.gate_shapes, is_leaf=is_shape)
    cost = hardware.priced(lambda gates: jnp.sum(gates.a * table.a), hardware.absolute_reward(target, beta=-5.0))
    search = weight_sharing.tunas(net, optax.sgd(0.0), optax.adam(0.05, b1=0.0), networks=4, cost=cost)
    batch = images(jax.random.key(0))
    state = jit(search.init)(jax.random.key(1))
    walk = lambda s, t: (search.step(jax.random.fold_in(jax.random.key(2), t), s, batch)[0], None)
    with jax.debug_key_reuse(False):
        state, _ = jit(lambda s: jax.lax.scan(walk, s, jnp.arange(300)))(state)
    assert search.best(state).a.tolist() == found


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tunas(TINY._replace(stages=())), "at least one stage"),
        (
            lambda: tunas(TINY._replace(stages=(STAGES[0]._replace(layers=0),))),
            "`layers` of TunasStage must be a positive integer; got 0",
        ),
        (lambda: tunas(TINY._replace(stem=(2, 3))), "the largest first; got .2, 3."),
        (lambda: tunas(TINY._replace(head=())), "descending and positive"),
        (lambda: tunas(TINY._replace(kernels=(4, 3))), "must be odd"),
        (lambda: tunas(TINY._replace(stem_stride=0)), "`stem_stride` of TunasSpec must be a positive integer; got 0"),
        (lambda: tiny().space.from_text(""), "needs a stem"),
        (lambda: tiny().space.from_text("3 3:k5e1 4:k5e3 5"), "stages of .1, 2. layers"),
        (lambda: tiny().space.from_text("3 3:k5e1 2:k5e3-k5e3 5"), "filters must be one of 4, 3, 1; got 2"),
        (lambda: tiny().space.from_text("3 3:k5e1 4:zero-k5e3 5"), "no layer is called 'zero' there"),
        (lambda: tiny().space.from_text("3 3:k5e1 4:k7e3-k5e3 5"), "kernel must be one of 5, 3; got 7"),
        (lambda: tunas_net(spaces.nasbench201(), image=IMAGE, classes=2), "no filters to search"),
        (lambda: tunas_net(tiny().space, image=(1, 4, 1), classes=2), "strides of this space multiply to 2"),
        (lambda: tunas_net(tiny().space, image=(4, 4), classes=2), "reads images .H, W, C."),
        (lambda: widest(spaces.nasbench201()), "no filters to search"),
    ],
)
def test_bad_input_gets_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
