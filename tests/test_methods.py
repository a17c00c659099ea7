"""The table of methods: every strategy in every space with every evaluator, and how a user's own entries join."""

import dataclasses
import functools
import json
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnas as nas
from jaxnas import data
from jaxnas.app import commands, search
from jaxnas.app.config import Config, complete, read_config, read_config_file
from jaxnas.app.methods import EVALUATORS, METHODS, Method
from jaxnas.app.settings import fits
from jaxnas.app.spaces import NETS, SPACES
from jaxnas.data.text import text
from jaxnas.registry import Table

TINY_SPACES = {
    "darts": dict(nodes=2, ops=("none", "skip_connect", "sep_conv_3x3")),
    **{f"darts-s{n}": dict(nodes=2) for n in (1, 2, 3, 4)},
    "nasnet": dict(blocks=1),
    "amoebanet": dict(blocks=1),
    "pnas": dict(blocks=2),
    "enas-micro": dict(blocks=1),
    "enas-macro": dict(layers=3),
    "mobile": dict(widths=(4,), depths=(2,), strides=(1,), ops=("k3_e1", "k3_e2"), stem=4, head=4),
    "elastic": dict(channels=(4,), strides=(1,), depths=(2, 1), kernels=(3, 1), expansions=(2, 1), head=4),
    "tunas": dict(widths=(4,), depths=(2,), strides=(1,), kernels=(3, 1), expansions=(2, 1)),
    "shuffle": dict(widths=(6,), depths=(2,), strides=(1,), factors=(0.5, 1.0), stem=4, head=4),
    "layerwise": dict(layers=2, heights=(1, 3), widths=(1, 3), filters=(2, 4)),
    "chain": dict(layers=3, filters=(2, 4), kernels=(1, 3), dense=(4,)),
    "memory-bank": dict(ops=1, banks=2, groups=(1, 2), sizes=(1, 2)),
    "darts-rnn": dict(nodes=2),
    "enas-rnn": dict(nodes=2),
}
LARGE = ("proxylessnas", "fbnet", "fairnas", "ofa-mobilenetv3", "proxylessnas-enlarged", "spos")  # published: images of 32 x 32
TINY_METHODS = {
    "darts-pt": dict(weight_steps=1),
    "sdarts": dict(perturbation="adversarial", ascents=1),
    "enas": dict(networks=2, hidden=4),
    "te-nas": dict(draws=1, points=4),
    "spos": dict(generations=2, candidates=2),
    "fairnas": dict(generations=2, population=2),
    "rsws": dict(candidates=2),
    "metanas": dict(tasks=2, task_steps=2),
    "smash": dict(width=2, depth=1),
    "aging": dict(population=2, tournament=2),
    "tournament": dict(population=2, tournament=2),
    "genetic": dict(population=2),
    "constrained-evolution": dict(limit=1e12, candidates=2, parents=1),
    "ppo": dict(batch=2, hidden=4),
    "q-learning": dict(replay=2),
    "tpe": dict(initial=2),
    "gp": dict(initial=2, options=4),
    "bananas": dict(batch=2, mutants=4),
    "pnas": dict(beam=2),
    "halving": dict(members=3, largest=3),
    "hyperband": dict(largest=3),
    "asha": dict(members=3, largest=3),
    "bohb": dict(largest=3),
    "nsga2": dict(population=2),
}


QUICK = ("darts", "gdas", "enas", "tunas", "spos", "fairnas", "ofa", "smash", "metanas", "aging", "hyperband", "nsga2")
QUICK_SPACES = ("enas-macro", "tunas", "shuffle", "layerwise", "chain", "memory-bank", "darts-rnn")  # and what is above
MANY_OPERATIONS = ("nasnet", "amoebanet")  # whose nets take long to trace


@functools.cache
def images(size, kind="classes"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, size, size, 1)).astype(np.float32)
    y = {"classes": np.arange(30) % 3, "labels": np.arange(60).reshape(30, 2) % 3 == 0, "numbers": rng.normal(size=30)}
    return data.split(jax.random.key(0), x, y[kind])


@functools.cache
def sentences():
    return text("to be or not to be, that is the question: " * 40)


def tiny(space, strategy, evaluator="scratch"):
    sizes = dict(steps=4, batch=2, channels=4, cells=1, train_steps=2)
    sizes |= {"scratch": dict(candidate_steps=2), "supernet": dict(supernet_steps=2)}.get(evaluator, {})
    nested = dict(space_settings=TINY_SPACES.get(space), strategy_settings=TINY_METHODS.get(strategy))
    if not NETS[SPACES[space].net].supernet:
        sizes = dict(batch=2, trials=2, train_steps=3) | ({} if strategy == "portfolio" else {"steps": 4})
    return complete(Config(space=space, strategy=strategy, evaluator=evaluator, data="tiny", **sizes, **nested))


@functools.cache
def plan_of(space, strategy, evaluator, kind="classes"):
    """The plan of a combination, or the ValueError that says why there is none."""
    dataset = sentences() if NETS[SPACES[space].net].data == "text" else images(32 if space in LARGE else 8, kind)
    try:
        return search.make_plan(traced_once(search.make_job(tiny(space, strategy, evaluator), dataset), kind))
    except ValueError as error:
        return error


APPLIED = {}


def traced_once(job, kind):
    """The job with a net that its equals share, since tracing the net is nearly all that a combination costs."""
    config, net = job.config, METHODS[job.config.strategy].net
    more = repr(net(job)) if net else ""  # functions are equal only to themselves
    if not hasattr(job.net, "apply"):
        return job
    jitted = job.net._replace(apply=jax.jit(job.net.apply, static_argnames=("train", "path")))
    return job._replace(net=APPLIED.setdefault((config.space, kind, more), jitted))


def evaluators_of(strategy):
    return EVALUATORS if METHODS[strategy].algorithm is not None else ("scratch",)


def traced(plan):
    """Two steps of every phase, by shapes alone: the state is a fixed point, and what a phase hands over fits the next."""
    if not plan:
        return "arms of trials instead of phases"  # `tests/test_main_job.py` runs them
    key, previous = jax.random.key(0), None
    for phase in plan:

        def begin(key, previous, phase=phase):
            return phase.strategy.init(key, None if previous is None else phase.give(previous))

        def step(key, state, arrays, previous, phase=phase):
            k_data, k_step = jax.random.split(key)
            batch = phase.data.draw(k_data, arrays, jnp.zeros((), jnp.int32))
            if phase.fix is not None:
                batch = batch._replace(fixed=phase.fix(previous))
            return phase.strategy.step(k_step, state, batch)[0]

        state = jax.eval_shape(begin, key, previous)
        after = jax.eval_shape(step, key, state, phase.data.arrays, previous)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        kinds = lambda tree: [(a.shape, a.dtype) for a in jax.tree.leaves(tree)]
        assert kinds(after) == kinds(state)
        previous = after
    return jax.eval_shape(plan[-1].strategy.best, previous)


def says_why(error):
    """One line, for a person: what is missing, not what broke."""
    line = str(error)
    assert "\n" not in line and 20 < len(line) < 300, line
    assert any(word in line for word in ("need", "give", "take", "search", "read", "must", "only", "are of", "asks for")), line


def slow_unless(quick, names):
    return [name if quick(name) else pytest.param(name, marks=pytest.mark.slow) for name in names]


COMPILES = "constrained-evolution"  # its plan compiles what the candidates cost


def plans(space, combinations):
    """The plans of what can be combined; everything else must say why it cannot."""
    made = {}
    for strategy, evaluator in combinations:
        plan = plan_of(space, strategy, evaluator)
        if isinstance(plan, ValueError):
            says_why(plan)
        else:
            made[strategy, evaluator] = plan
    return made


def whole_matrix():
    return [(strategy, evaluator) for strategy in METHODS for evaluator in evaluators_of(strategy)]


@pytest.mark.parametrize("space", slow_unless(lambda s: s not in MANY_OPERATIONS, [s for s in SPACES if s not in LARGE]))
def test_every_strategy_has_a_plan_or_says_why(space):
    made = plans(space, [(s, e) for s, e in whole_matrix() if e == "scratch" and s != COMPILES])
    made |= plans(space, [("random", evaluator) for evaluator in EVALUATORS])
    assert len(made) >= 8, "a space that hardly anything can search"


def first_space(strategy):
    preferred = ["mobile", "nasbench201", *SPACES]  # quick to trace
    return next(s for s in preferred if s not in LARGE and not isinstance(plan_of(s, strategy, "scratch"), ValueError))


@pytest.mark.parametrize("strategy", slow_unless(lambda s: s in QUICK, METHODS))
def test_every_strategy_traces_where_it_first_can(strategy):
    assert jax.tree.leaves(traced(plan_of(first_space(strategy), strategy, "scratch")))


@pytest.mark.parametrize("kind", ["labels", "numbers"])
@pytest.mark.parametrize("strategy", slow_unless(lambda s: s in ("spos", "hyperband"), METHODS))
def test_every_strategy_traces_for_every_kind_of_target(strategy, kind):
    assert jax.tree.leaves(traced(plan_of(first_space(strategy), strategy, "scratch", kind)))


@pytest.mark.parametrize("space", slow_unless(lambda s: s in QUICK_SPACES, [s for s in SPACES if s not in LARGE]))
def test_every_space_is_searched_by_random_search(space):
    assert jax.tree.leaves(traced(plan_of(space, "random", "scratch")))


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_the_whole_matrix_traces(space):
    for combination, plan in plans(space, whole_matrix()).items():
        assert jax.tree.leaves(traced(plan)), combination


@pytest.mark.slow
@pytest.mark.parametrize("strategy", METHODS)
def test_every_strategy_runs_two_steps(strategy):
    plan = plan_of(first_space(strategy), strategy, "scratch")
    if not plan:
        pytest.skip("arms of trials instead of phases: tests/test_main_job.py runs them")
    result = nas.run(jax.random.key(0), nas.then(*(phase._replace(steps=2) for phase in plan)))
    assert jax.tree.leaves(result.best)


def test_gdas_keeps_the_reduction_cell_that_it_is_given():
    space = search.make_space("darts", SPACES["darts"].settings(**TINY_SPACES["darts"]))
    given = space.sample(jax.random.key(4))
    job = search.make_job(_gdas("darts", reduction=space.to_text(given)), images(8))
    (phase,) = search.make_plan(job)
    state = phase.strategy.init(jax.random.key(0))
    batch = phase.data.draw(jax.random.key(1), phase.data.arrays, jnp.zeros((), jnp.int32))
    after, info = jax.jit(phase.strategy.step)(jax.random.key(2), state, batch)
    np.testing.assert_array_equal(jax.nn.softmax(after.theta.reduce, -1), space.gates(given).reduce)
    np.testing.assert_array_equal(info.gates.reduce, space.gates(given).reduce)
    assert (np.asarray(after.theta.normal) != np.asarray(state.theta.normal)).all()
    best = phase.strategy.best(after)
    jax.tree.map(np.testing.assert_array_equal, best.reduce, given.reduce)


@pytest.mark.parametrize(
    ("space", "settings", "words"),
    [
        ("mobile", dict(bare_zeros=True), "bare-zeros needs cells"),
        ("nasbench201", dict(reduction="DARTS_V2"), "needs normal and reduction cells"),
        ("darts", dict(reduction="DARTS_V3"), "is not a DARTS genotype"),
    ],
)
def test_settings_of_gdas_that_a_space_cannot_have(space, settings, words):
    with pytest.raises(ValueError, match=words):
        search.make_plan(search.make_job(_gdas(space, **settings), images(8)))


def test_bare_zeros_are_the_nets():
    assert not isinstance(plan_of("nasbench201", "gdas", "scratch"), ValueError)
    config = _gdas("nasbench201", bare_zeros=True)
    net = METHODS["gdas"].net
    assert net is not None and net(search.make_job(config, images(8))) == {"bare_zeros": True}
    assert jax.tree.leaves(traced(search.make_plan(search.make_job(config, images(8)))))


def _gdas(space, **settings):
    return dataclasses.replace(tiny(space, "gdas"), strategy_settings=METHODS["gdas"].settings(**settings))


@pytest.mark.parametrize("limit", [None, 20_000.0])
def test_fairnas_ends_with_a_front(limit):
    """Nobody in it is beaten in everything, its sizes are the networks' own, and the answer is its best score within the limit."""
    config = tiny("mobile", "fairnas")
    own = dataclasses.replace(config.strategy_settings, generations=3, population=4, limit=limit)
    job = search.make_job(dataclasses.replace(config, strategy_settings=own), images(8))
    result = nas.run(jax.random.key(0), search.make_plan(job))
    front = search._front(job.space, result.state, None)
    costs = [(-row["score"], row["multiply_adds"], row["parameters"]) for row in front]
    assert len(front) > 0 and not any(all(np.less_equal(a, b)) and a != b for a in costs for b in costs)
    assert front[0]["genotype"] == job.space.to_text(result.best) and costs == sorted(costs, key=lambda row: row[0])
    for row in front:
        arch = job.space.from_text(row["genotype"])
        assert row["parameters"] == nas.nets.count_parameters(job.net.specialize(arch)[0], job.net.image)
        assert row["multiply_adds"] == float(job.net.macs(job.space.gates(arch))) <= (limit or np.inf)
    assert search._front(job.space, result.states[0], None) == []


def with_settings(space, strategy, **settings):
    """The plan of a combination with settings of the strategy's own."""
    config = dataclasses.replace(tiny(space, strategy), strategy_settings=METHODS[strategy].settings(**settings))
    return search.make_plan(traced_once(search.make_job(config, images(8)), "classes"))


def test_metanas_chooses_pairs_of_inputs_where_there_are_two():
    state = jax.eval_shape(with_settings("darts", "metanas", tasks=2, task_steps=2, pairs=True)[0].strategy.init, jax.random.key(0))
    assert [len(beta.shape) for beta in state.theta.beta] == [1, 1]
    with pytest.raises(ValueError, match="two inputs"):
        with_settings("nasbench201", "metanas", pairs=True)


def test_metanas_of_second_order_draws_a_query_a_task():
    feed = with_settings("nasbench201", "metanas", tasks=2, task_steps=2, order="second")[0].data
    drawn = jax.eval_shape(lambda key: feed.draw(key, feed.arrays, jnp.zeros((), jnp.int32)), jax.random.key(0))
    assert {a.shape[:2] for a in jax.tree.leaves(drawn)} == {(2, 3)}


# --- tables and settings ----------------------------------------------------------------------------------------------


def test_settings_are_frozen_documented_and_complete():
    for table in (METHODS, SPACES):
        for name, entry in table.items():
            assert entry.about and dataclasses.is_dataclass(entry.settings) and entry.settings(), name
            for field in dataclasses.fields(entry.settings):
                assert fits(field.default, field.type), (name, field.name)


def test_the_nets_of_spaces_are_in_their_table():
    assert {entry.net for entry in SPACES.values()} == set(NETS)
    assert (METHODS["tunas"].algorithm is None) and METHODS["aging"].plan is None


def test_a_table_refuses_a_name_twice_and_names_what_is_near():
    table = Table("strategy", {"darts": 1})
    with pytest.raises(ValueError, match=r"there is a strategy 'darts' already"):
        table.register("darts", 2)
    with pytest.raises(ValueError, match="lower-case letters"):
        table.register("My method", 2)
    with pytest.raises(ValueError, match=r"unknown strategy 'drts': did you mean darts\?"):
        table.find("drts")
    with pytest.raises(ValueError, match="choose one of darts"):
        table.find("xyz")
    table.register("mine", 3)
    assert table.find("mine") == 3


@pytest.mark.parametrize(
    ("value", "kind", "ok"),
    [
        (1, int, True),
        (True, int, False),
        (1, float, True),
        (float("nan"), float, True),
        ("x", float, False),
        (None, float | None, True),
        ((1, 2), tuple[int, ...], True),
        ((1, "2"), tuple[int, ...], False),
        (((2, 2),), tuple[tuple[int, int], ...], True),
        (((2, 2, 2),), tuple[tuple[int, int], ...], False),
        ([1], tuple[int, ...], False),
    ],
)
def test_fits(value, kind, ok):
    assert fits(value, kind) == ok


def test_a_config_survives_json_and_fills_in_its_settings():
    config = tiny("mobile", "tunas")
    assert config.strategy_settings.beta == -0.1 and config.space_settings.widths == (4,)
    assert read_config(json.loads(json.dumps(dataclasses.asdict(config))), "config.json") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": "x"}, "steps is 'x', which is not of type int"),
        ({"stepz": 1}, "has no 'stepz': did you mean 'steps'?"),
        ({"strategy": "tunas", "strategy_settings": {"target": "low"}}, "target is 'low'"),
        ({"strategy": "tunas", "strategy_settings": {"targett": 1}}, "has no 'targett': did you mean 'target'?"),
        ({"strategy": "random", "strategy_settings": {"rate": 1}}, "there is nothing to set"),
        ({"strategy_settings": 3}, "must be a table of names and values"),
        ([], "must be a table of names and values"),
    ],
)
def test_a_config_that_cannot_be(values, message):
    with pytest.raises(ValueError) as refused:
        read_config(values, "mine.json")
    assert message in str(refused.value)


def test_flags_win_over_a_config_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('strategy = "tunas"\nspace = "mobile"\nsteps = 7\n[strategy_settings]\ntarget = 5.0\nbeta = -0.2\n')
    command = commands.parse(["search", "--config", str(file), "--steps", "9", "--strategy.beta", "-0.3"])
    assert (command.strategy, command.space, command.steps) == ("tunas", "mobile", 9)
    assert command.strategy_settings.target == 5.0 and command.strategy_settings.beta == -0.3
    other = commands.parse(["search", "--config", str(file), "--strategy", "gaea"])
    assert other.strategy == "gaea" and other.strategy_settings == METHODS["gaea"].settings()
    (tmp_path / "bad.toml").write_text("steps = ")
    for name, message in (("bad.toml", "is not TOML"), ("none.json", "cannot be read"), ("x.yaml", "a .json or a .toml")):
        with pytest.raises(ValueError, match=message):
            read_config_file(str(tmp_path / name))


def test_flags_of_another_strategy_are_refused():
    with pytest.raises(ValueError, match=r"unknown flag --strategy.target"):
        commands.parse(["search", "--strategy", "gaea", "--strategy.target", "3"])
    with pytest.raises(ValueError, match=r"unknown strategy .gaeaa."):
        commands.parse(["search", "--strategy", "gaeaa"])


def test_a_method_of_ones_own_joins_by_one_call(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent(
            """
            import jaxnas as nas

            def two_at_once(space, budget, settings, cost):
                return nas.random_search(space, batch=2)

            nas.methods.register("two-at-once", nas.methods.Method("random search in pairs", algorithm=two_at_once))
            """
        )
    )
    try:
        command = commands.parse(["search", "--use", str(file), "--strategy", "two-at-once", "--steps", "4"])
        assert command.strategy == "two-at-once" and command.use == (str(file),)
        assert not isinstance(plan_of("nasbench201", "two-at-once", "scratch"), ValueError)
        commands.parse(["search", "--use", str(file), "--strategy", "two-at-once"])  # once a process
    finally:
        METHODS.pop("two-at-once", None)
    (tmp_path / "broken.py").write_text("1 / 0")
    for name, message in (("broken.py", "fails: ZeroDivisionError"), ("none.py", "no such Python file")):
        with pytest.raises(ValueError, match=message):
            commands.parse(["search", "--use", str(tmp_path / name)])


def test_an_unknown_evaluator_and_what_trials_cannot_ask():
    with pytest.raises(ValueError, match="unknown evaluator"):
        tiny("nasbench201", "aging", "supernett")
    with pytest.raises(ValueError, match="gdas asks no evaluator: leave --evaluator supernet out"):
        raise plan_of("mobile", "gdas", "supernet")
    with pytest.raises(ValueError, match="asks for trials"):
        raise plan_of("nasbench201", "hyperband", "supernet")
    assert isinstance(METHODS["hyperband"], Method)
