"""The laws that every strategy obeys, and the table of strategies: a new one joins by one row.

Rows are tiny, since compiling is what they cost.  `toy` rows search a space whose optimum is known.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas import ask_tell, base, hardware, nets, policies, spaces, surrogates, training, weight_sharing
from jaxnas.app.methods import METHODS
from jaxnas.app.methods.black_box import GROWING
from jaxnas.base import Batch, Strategy
from jaxnas.data.text import Tokens
from jaxnas.spaces._space import is_shape
from jaxnas.training.bilevel import unrolled

IMAGE, CLASSES, EXAMPLES = (4, 4, 1), 3, 8


class Row(NamedTuple):
    strategy: Strategy
    batch: Callable[[jax.Array], Any]  # key -> Batch
    exact: bool  # an integer search: vmap equals a loop to the last bit


def images(key):
    """A batch with one weight and one architecture step."""
    k_x, k_y = jax.random.split(key)
    x = jax.random.normal(k_x, (2, 1, EXAMPLES, *IMAGE))
    y = jax.random.randint(k_y, (2, 1, EXAMPLES), 0, CLASSES)
    return Batch(train=(x[0], y[0]), valid=(x[1], y[1]))


class Flat(NamedTuple):
    a: Any


def flat_space():
    """1,024 architectures; the fitness is the number of decisions that are 3."""
    return spaces.space(Flat([4, 4, 4, 4, 4]))


def ones_max(key, archs, batch):
    del key, batch
    return {"accuracy": jnp.sum(jnp.stack([jnp.asarray(a == 3, jnp.float32) for a in archs.a]), 0)}


def cell_space():
    return spaces.darts(nodes=1, ops=("none", "skip_connect", "sep_conv_3x3"))


def tiny_net(space):
    return nets.cell_net(space, image=IMAGE, classes=CLASSES, channels=2, cells=1)


def gp(space):
    kernel = surrogates.gaussian_process(surrogates.overlap(space))
    options = ask_tell.pool(ask_tell.random_draws(space, 16), ask_tell.mutants_of_best(space, 16))
    return ask_tell.bayesian(space, kernel, surrogates.expected_improvement(), options, capacity=48, initial=4)


def bananas(space):
    surrogate = surrogates.ensemble(surrogates.Perceptron(4, 1), space.features, members=2, epochs=10, batch=50)
    options = ask_tell.mutants_of_best(space, 32)
    return ask_tell.bayesian(space, surrogate, surrogates.independent_thompson(), options, capacity=150, initial=10, batch=10)


def reinforce(space, policy, rate=0.3):
    return ask_tell.policy_gradient(space, policy, policies.reinforce(policy, optax.adam(rate)), batch=2)


def ppo(space):
    policy = policies.controller(space, hidden=4, layers=1)
    return ask_tell.policy_gradient(space, policy, policies.ppo(policy, optax.adam(0.03), epochs=2, minibatches=2), batch=4)


SMALL = dict(batch=10, parents=4, mutants=5, children=5, capacity=150)


def warm(space):
    first = jax.vmap(space.sample)(jax.random.split(jax.random.key(7), 3))
    return ask_tell.warm_start(ask_tell.aging_evolution(space, population=8, tournament=4, batch=2), first)


def halved_portfolio(space):
    first = jax.vmap(space.sample)(jax.random.split(jax.random.key(8), 3))
    return ask_tell.asha(space, 9, capacity=300, batch=2, propose=ask_tell.portfolio(space, first, 300, 2))


QUERIES = 150  # candidates of a search on the toy space


def every(asks: str, rows: dict[str, Callable]) -> dict[str, Callable]:
    """space -> AskTell of every method that asks so: by its row here, where its defaults are too large, or as the table has it."""

    def plain(method):
        return lambda space: method.algorithm(space, QUERIES, method.settings(), lambda gates: 0.0)

    return {name: plain(m) for name, m in METHODS.items() if m.asks == asks and m.algorithm and not set(m.needs) & {GROWING}} | rows


# On a space of its own choice: what asks for candidates, given scores.
ALGORITHMS: dict[str, Callable] = every(
    "architectures",
    {
        "random": lambda s: ask_tell.random_search(s, batch=2),
        "aging": lambda s: ask_tell.aging_evolution(s, population=8, tournament=4, batch=2),
        "tournament": lambda s: ask_tell.tournament_evolution(s, population=4, tournament=2),
        "constrained-evolution": lambda s: ask_tell.constrained_evolution(s, lambda a: jnp.sum(s.flat(a)), 15, **SMALL),
        "warm start": warm,
        "genetic": lambda s: ask_tell.genetic(s, population=8),
        "local": lambda s: ask_tell.local_search(s, capacity=150),
        "local, steepest": lambda s: ask_tell.local_search(s, capacity=150, steepest=True, initial=2),
        "reinforce": lambda s: reinforce(s, policies.categorical(s)),
        "ppo": ppo,
        "q-learning": lambda s: ask_tell.q_learning(ask_tell.mdp_of(s), ((1.0, 30), (0.3, 60), (0.1, 60)), replay=64, alpha=0.1),
        "tpe": lambda s: ask_tell.tpe(s, capacity=150, initial=10),
        "gp": gp,
        "bananas": bananas,
    },
)


# The same, for what asks for trials: an architecture, a slot and a budget.
BUDGETED: dict[str, Callable] = every(
    "trials",
    {
        "halving": lambda s: ask_tell.successive_halving(s, 9, 1, 9, batch=2),
        "hyperband": lambda s: ask_tell.hyperband(s, 9, batch=2),
        "asha": lambda s: ask_tell.asha(s, 9, capacity=300, batch=2),
        "bohb": lambda s: ask_tell.bohb(s, 9, capacity=150, batch=2),
        "portfolio": halved_portfolio,
    },
)


FLOATS = {
    "bohb",
    "reinforce",
    "ppo",
    "tpe",
    "gp",
    "bananas",
}  # their states hold what is summed in another order under vmap


def black_box(name):
    algorithm = ALGORITHMS[name](flat_space())
    return Row(base.black_box(algorithm, base.stateless(ones_max)), lambda key: Batch(), name not in FLOATS)


def budgeted(name):
    score = lambda key, trials, batch: {"accuracy": ones_max(key, trials.arch, batch)["accuracy"] * trials.stop / 9}
    return Row(base.black_box(BUDGETED[name](flat_space()), base.stateless(score)), lambda key: Batch(), name not in FLOATS)


def two_objectives(metrics):
    ones = metrics["accuracy"]
    return jnp.stack([ones, -jnp.square(ones - 2), 4.5 - ones], -1)  # the third: a constraint that the optimum breaks


def fronts():
    algorithm = ask_tell.nsga2(flat_space(), 2, population=4, constraints=1)
    return Row(base.black_box(algorithm, base.stateless(ones_max), two_objectives), lambda key: Batch(), True)


def growing():
    space = spaces.nasbench201()
    surrogate = surrogates.ensemble(surrogates.Perceptron(4, 1), space.features, members=2, epochs=2, later_rate=0.002)
    algorithm = ask_tell.progressive(ask_tell.growing_edges(space), surrogate, beam=8, batch=8)
    ones = lambda key, archs, batch: {"accuracy": jnp.sum(archs.op == 3, -1).astype(jnp.float32)}
    return Row(base.black_box(algorithm, base.stateless(ones)), lambda key: Batch(), False)


def shared(make):
    return Row(make(tiny_net(cell_space())), images, False)


def noisy_softmax(space, paths=2):
    """A relaxation that draws: alpha with Gumbel noise, through a softmax."""
    plain = policies.softmax(space)

    def sample(key, theta, t):
        leaves, tree = jax.tree.flatten(theta)
        keys = jax.random.split(key, len(leaves))
        noisy = [a[None] + jax.random.gumbel(k, (paths, *a.shape)) for k, a in zip(keys, leaves, strict=True)]
        return jax.tree.map(lambda a: jax.nn.softmax(a, -1), tree.unflatten(noisy))

    return plain._replace(sample=sample)


def descent(rate, joint):
    """theta follows the gradient that the weight step's own backward pass left."""
    step = lambda key, theta, state, problem, t: (
        jax.tree.map(lambda a, g: a - rate * g, theta, problem.theta_grad),
        state,
        {"norm": optax.tree.norm(problem.theta_grad)},
    )
    return weight_sharing.Gradient(lambda theta: (), step, joint)


def joint_two_paths(net):
    """Single level, two paths to a step: the shape of SNAS."""
    return weight_sharing.weight_sharing(
        net, noisy_softmax(net.space), descent(0.5, True), weight_sharing.Weights(training.sgd(0.1))
    )


def darts_two_steps(net):
    policy = policies.softmax(net.space)
    gradient = weight_sharing.pathwise(policy, training.adam(), unrolled())
    return weight_sharing.weight_sharing(net, policy, gradient, weight_sharing.Weights(training.sgd(0.1), clip=None))


def toy_net(space):
    """A net of almost no compile time: tanh of a linear map for each operation of each row, weighed and added."""
    shapes = jax.tree.leaves(space.gate_shapes, is_leaf=is_shape)
    flat = lambda gates: [g.reshape(-1, g.shape[-1]) for g in jax.tree.leaves(gates)]

    def init(key, gates=None):
        size, keys = int(np.prod(IMAGE)), jax.random.split(key, len(shapes))
        kernel = lambda k, s: jax.random.normal(k, (int(np.prod(s[:-1])), s[-1], size, CLASSES)) / size
        params = {f"row{i}": kernel(k, s) for i, (k, s) in enumerate(zip(keys, shapes, strict=True))}
        return {"params": params, "batch_stats": {k: jnp.zeros(p.shape[:2]) for k, p in params.items()}}

    def apply(variables, x, gates, *, train, path=False, key=None, t=None):
        logits, stats = 0.0, {}
        for (name, w), g in zip(variables["params"].items(), flat(gates), strict=True):
            y = jnp.tanh(jnp.einsum("bi,eoik->eobk", x.reshape(len(x), -1), w))
            stats[name] = 0.9 * variables["batch_stats"][name] + jax.lax.stop_gradient(jnp.mean(y, (2, 3)))
            logits = logits + jnp.einsum("eo,eobk->bk", g, y)
        return logits, {**variables, "batch_stats": stats} if train else variables

    def used(variables, gates):
        on = dict(zip(variables["params"], [(g != 0).astype(jnp.float32) for g in flat(gates)], strict=True))
        return {"params": {k: g[..., None, None] for k, g in on.items()}, "batch_stats": on}

    return nets.Net(init, apply, used, None, space, IMAGE, CLASSES)


def toy(make):
    return Row(make(toy_net(cell_space())), images, False)


def of_edges(make):
    """On two nodes, three operations an edge: every decision has one arity, and edges mix."""
    spec = spaces.nasbench201().spec._replace(nodes=2, ops=("none", "skip_connect", "nor_conv_1x1"))
    space = spaces.space(Flat(np.full(3, 3)))
    return Row(make(toy_net(space._replace(spec=spec))), images, False)


def mobile_net():
    layers = (spaces.MobileLayer(4, 4, 1, ("k3_e1", "k3_e2", "zero")), spaces.MobileLayer(4, 4, 2, ("k3_e1", "k3_e2")))
    return nets.mobile_net(spaces.mobile(spaces.MobileSpec(layers, stem=4, head=4, stem_stride=1)), image=IMAGE, classes=CLASSES)


def elastic_net():
    space = spaces.ofa_small((2,), (1,), depths=(2, 1), kernels=(3, 1), expansions=(2, 1), head=3, multiple=1)
    return nets.elastic_net(space, image=IMAGE, classes=CLASSES)


def meta(net, order="first"):
    policy = weight_sharing.soft_pruning(net.space, optax.linear_schedule(1.0, 0.1, 1))
    gradient = weight_sharing.pathwise(policy, optax.sgd(0.1))
    weights = weight_sharing.Weights(optax.sgd(0.1))
    return weight_sharing.metanas(weight_sharing.weight_sharing(net, policy, gradient, weights), optax.adam(0.01), order)


def tasks(key):
    """Two tasks of two steps."""
    several = [images(k) for k in jax.random.split(key, 4)]
    return jax.tree.map(lambda *a: jnp.stack(a).reshape(2, 2, *a[0].shape), *several)


def memory_bank_net():
    space = spaces.memory_bank(1, 2, blocks=1, kernels=(1, 3), dilations=(1,), groups=(1, 2), sizes=(1, 2))
    return nets.memory_bank_net(space, image=IMAGE, classes=CLASSES, channels=2, bottleneck=2, hyper=(2, 1))


def shuffle_net():
    blocks = (spaces.ShuffleBlock(3, 4, 1), spaces.ShuffleBlock(4, 4, 1))
    space = spaces.shuffle(spaces.ShuffleSpec(blocks, stem=3, head=2, factors=(0.5, 1.0), stem_stride=1))
    return nets.shuffle_net(space, image=IMAGE, classes=CLASSES)


def mobile(make):
    return Row(make(mobile_net()), images, False)


def priced(net, form):
    tables = jax.tree.map(lambda s: jnp.arange(1.0, 1 + np.prod(s)).reshape(s), net.space.gate_shapes, is_leaf=is_shape)
    return hardware.priced(hardware.cost(net.space, tables, 2.0), form)


def watched(net):
    search = weight_sharing.darts(net, order="first")
    measure = weight_sharing.measurements(net, policies.softmax(net.space), iterations=2)
    return weight_sharing.early_stopping(weight_sharing.with_measurements(search, measure), window=1, lag=1, first=2)


def regularised(net):
    """Without a rise of the eigenvalue it is rolled back as well, from the third epoch on."""
    optimizer = optax.chain(training.adjustable_decay(0.01), optax.sgd(0.025, momentum=0.9))
    search = weight_sharing.darts(net, optimizer, order="first")
    measure = weight_sharing.measurements(net, policies.softmax(net.space), iterations=2)
    watched = weight_sharing.with_measurements(search, measure)
    return weight_sharing.adaptive_regularisation(watched, factor=0.1, maximum=0.03, window=1, lag=1, first=3)


def epoch(key):
    return jax.tree.map(lambda a: jnp.stack([a, a[:, ::-1]]), images(key))


def text(make):
    """A search on a language model, two windows of three tokens.

    Streams that are alike, as tokens or because all of both is dropped, are normalised to 0, where a relu's slope is rounding's.
    """
    rates = nets.Dropouts(embedded=0.1, x=0.1, h=0.1, output=0.1)
    net = nets.language_model(spaces.darts_rnn(2), vocabulary=5, batch=2, hidden=3, dropouts=rates)

    def sentences(key):
        tokens = jax.random.randint(key, (2, 1, 1, 4), 0, 5)
        tokens = (tokens + jnp.arange(2).reshape(1, 1, 2, 1)) % 5
        window = lambda i, first: (Tokens(tokens[i, ..., :-1], jnp.full(1, first)), tokens[i, ..., 1:])
        return Batch(train=window(0, False), valid=window(1, True))

    return Row(make(net), sentences, False)


FALLING = optax.linear_schedule(10.0, 0.1, 10)
RISING = optax.linear_schedule(0.03, 0.3, 10)


def drawn_price(sign):
    """A proxy: what an architecture's operations cost, by a price that is drawn with the weights."""
    of = lambda gate, weights: jnp.sum(gate * jnp.mean(jnp.square(weights), (-2, -1)))
    total = lambda gates, params: sum(map(of, jax.tree.leaves(gates), jax.tree.leaves(params)))  # both in the order of the rows
    return lambda net, variables, gates, batch: sign * (0.01 + total(gates, variables["params"]))


DIFFERENTIABLE: dict[str, Callable] = {
    "snas": lambda net: weight_sharing.snas(net, temperature=FALLING, cost=priced(net, hardware.additive(1.0)), paths=2),
    "gdas": lambda net: weight_sharing.gdas(net, temperature=FALLING),
    "pc_darts": weight_sharing.pc_darts,
    "drnas": lambda net: weight_sharing.drnas(net, kl=1e-3),
    "gaea": weight_sharing.gaea,
    "gaea, edges": lambda net: weight_sharing.gaea(net, edges=True),
    "gaea, single level": lambda net: weight_sharing.gaea(net, single_level=True),
    "smooth_darts, random": lambda net: weight_sharing.smooth_darts(net, perturb=weight_sharing.random_noise(RISING)),
    "smooth_darts, adversarial": lambda net: weight_sharing.smooth_darts(net, perturb=weight_sharing.adversarial(RISING, 2)),
    "beta_darts": lambda net: weight_sharing.beta_darts(net, decay=RISING),
    "fbnet": lambda net: weight_sharing.fbnet(net, temperature=FALLING, cost=priced(net, hardware.fbnet_product())),
    "darts_pt": weight_sharing.project_operations,
    "enas": lambda net: weight_sharing.enas(net, networks=2, hidden=4),
    "te_nas": lambda net: weight_sharing.te_nas(
        net, net, draws=2, points=2, trainability=drawn_price(-1.0), expressivity=drawn_price(1.0)
    ),
}
ONE_SHOT: dict[str, Callable] = {
    "fairnas": weight_sharing.fairnas,
    "few_shot": lambda net: weight_sharing.few_shot(net, decisions=[1]),
    "one_shot": lambda net: weight_sharing.one_shot(net, rate=0.3, warm_up=RISING, ghosts=2, decay=1e-3),
    "tunas": lambda net: weight_sharing.tunas(
        net, architecture=optax.adam(0.1), networks=2, cost=priced(net, hardware.absolute_reward(8.0))
    ),
    "op_warm_up": lambda net: weight_sharing.op_warm_up(net, share=RISING),
}
MOBILE: dict[str, Callable] = {
    "proxylessnas": lambda net: weight_sharing.proxylessnas(net, cost=priced(net, hardware.relative_excess(5.0))),
    "proxylessnas, reinforce": lambda net: weight_sharing.proxylessnas_reinforce(
        net, networks=2, cost=priced(net, hardware.power_reward(1.0))
    ),
}


ROWS: dict[str, Callable[[], Row]] = {
    **{name: functools.partial(black_box, name) for name in ALGORITHMS},
    **{name: functools.partial(budgeted, name) for name in BUDGETED},
    "nsga2": fronts,
    "pnas": growing,
    "darts": lambda: shared(weight_sharing.darts),
    "darts, first order": lambda: shared(lambda net: weight_sharing.darts(net, order="first")),
    "darts, finite difference": lambda: shared(lambda net: weight_sharing.darts(net, order="finite_difference")),
    "spos": lambda: shared(lambda net: weight_sharing.spos(net, training.sgd(0.1))),
    "joint gradient of two paths": lambda: shared(joint_two_paths),
    **{name: functools.partial(toy, make) for name, make in DIFFERENTIABLE.items()},
    **{name: functools.partial(mobile, make) for name, make in MOBILE.items()},
    **{name: functools.partial(of_edges, make) for name, make in ONE_SHOT.items()},
    "in_place_distillation": lambda: Row(
        weight_sharing.in_place_distillation(elastic_net(), training.sgd(0.1), paths=3), images, False
    ),
    "metanas": lambda: Row(meta(toy_net(cell_space())), tasks, False),
    "metanas, second order": lambda: Row(meta(toy_net(cell_space()), "second"), tasks, False),
    "smash": lambda: Row(weight_sharing.spos(memory_bank_net(), training.sgd(0.1)), images, False),
    "spos, with channels": lambda: Row(weight_sharing.spos(shuffle_net(), training.sgd(0.1)), images, False),
    "darts, recurrent": lambda: text(lambda net: weight_sharing.darts(net, order="first")),
    "adaptive_regularisation": lambda: Row(regularised(toy_net(cell_space())), epoch, False),
    "early_stopping": lambda: Row(watched(toy_net(cell_space())), epoch, False),
}
