"""Every strategy of the table against every law of DESIGN section 7."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import searching
from laws import ALGORITHMS, BUDGETED, FLOATS, QUERIES, ROWS, flat_space, ones_max
from quick import jit

from jaxnas import ask_tell, base, spaces
from jaxnas.base import Batch
from jaxnas.driver import Checkpoints, run

NAMES, EVERY = list(ROWS), {**ALGORITHMS, **BUDGETED}


@functools.cache
def compiled(name):
    """(row, init, step traced at most once, first state) of a strategy, shared by its laws."""
    row, traces = ROWS[name](), []

    def traced(key, state, batch):
        traces.append(1)
        assert len(traces) == 1, "the step was traced twice: its state is not a fixed point of shapes and dtypes"
        return row.strategy.step(key, state, batch)

    init = jit(row.strategy.init)
    return row, init, jit(traced), init(jax.random.key(0))


def batch_of(row, seed):
    return row.batch(jax.random.key(100 + seed))


def walk(name, steps, state=None, seed=0):
    row, _, step, first = compiled(name)
    state = first if state is None else state
    for t in range(steps):
        state, info = step(jax.random.key(1000 * seed + t), state, batch_of(row, t))
    return state, info


def same_bits(a, b):
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, a), jax.tree.map(np.asarray, b))


@pytest.mark.parametrize("name", NAMES)
def test_step_is_a_scan_body(name):
    row, init, step, state = compiled(name)
    new, _ = jax.eval_shape(step, jax.random.key(1), state, batch_of(row, 0))
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    weak = [leaf.weak_type for leaf in jax.tree.leaves(new)]
    assert not any(weak)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(jax.eval_shape(init, jax.random.key(1))))


@pytest.mark.parametrize("name", NAMES)
def test_pure_and_traced_once(name):
    same_bits(walk(name, 3), walk(name, 3))  # `compiled` raises on a second trace
    assert jax.tree.leaves(walk(name, 3)[0])


DRAW_BATCHES_ONLY = (
    "darts",
    "darts, first order",
    "darts, finite difference",
    "pc_darts",
    "beta_darts",
    "gaea",
    "gaea, edges",
    "gaea, single level",
    "metanas",
    "metanas, second order",
)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in DRAW_BATCHES_ONLY])
def test_other_keys_lead_elsewhere(name):
    a, b = walk(name, 6)[0], walk(name, 6, seed=1)[0]
    assert any((np.asarray(x) != np.asarray(y)).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


VMAPPED = {*ALGORITHMS, *BUDGETED, "nsga2", "pnas", "darts", "spos", "enas", "tunas"}  # the others take a net's second compiling


@pytest.mark.parametrize("name", [n if n in VMAPPED else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_vmap_over_seeds_equals_a_loop(name):
    row, init, step, _ = compiled(name)
    seeds = jnp.arange(2)
    key_of = lambda i: jax.random.fold_in(jax.random.key(3), i)
    batch = batch_of(row, 0)
    states = jax.vmap(lambda i: init(jax.random.fold_in(jax.random.key(2), i)))(seeds)
    many, _ = jit(jax.vmap(lambda i, state: row.strategy.step(key_of(i), state, batch)))(seeds, states)
    for i in range(2):
        one, _ = step(key_of(i), jax.tree.map(lambda a: a[i], states), batch)
        here = jax.tree.map(lambda a: a[i], many)
        if row.exact:
            same_bits(one, here)
        else:
            chex.assert_trees_all_close(one, here, atol=2e-5, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_jit_equals_eager(name):
    row, _, step, state = compiled(name)
    key, batch = jax.random.key(5), batch_of(row, 0)
    with jax.disable_jit():
        eager, _ = row.strategy.step(key, state, batch)
    chex.assert_trees_all_close(step(jax.random.clone(key), state, batch)[0], eager, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_round_trip_continues_bit_exactly(name, tmp_path):
    state, _ = walk(name, 2)
    store = Checkpoints(tmp_path)
    store.save(2, jax.random.key(0), state)
    step, loaded = store.restore(lambda s: jax.eval_shape(lambda: state), jax.random.key(0))
    store.close()
    assert step == 2
    loaded = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), loaded)  # bound to no device, or the step is lowered once more
    same_bits(walk(name, 2, state)[0], walk(name, 2, loaded)[0])


@pytest.mark.parametrize("name", NAMES)
def test_best_is_an_architecture(name):
    row, _, _, _ = compiled(name)
    arch = row.strategy.best(walk(name, 3)[0])
    assert all(np.asarray(a).dtype == np.int32 and (np.asarray(a) >= 0).all() for a in jax.tree.leaves(arch))


NEEDS = {"gp": 16, "ppo": 64}  # fewer seeds where one is slow


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_toy_space_is_solved_where_random_search_fails(name):
    """The share of seeds that find the one best of 1,024 architectures with 150 evaluations."""
    algorithm, seeds = ALGORITHMS[name](flat_space()), NEEDS.get(name, 200)
    strategy = base.black_box(algorithm, base.stateless(ones_max))
    result = run(jax.random.key(0), strategy, steps=QUERIES // base.asks_for(algorithm), seeds=seeds)
    share = float(np.mean(np.asarray(result.state.best_score) == 5))
    chance = 1 - (1 - 1 / 1024) ** QUERIES  # the closed form of random search, 0.136
    if name == "random":
        assert abs(share - chance) < 0.08  # 3 standard errors
    else:
        assert share > 0.5


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in FLOATS else ()) for n in ALGORITHMS])
def test_a_warm_start_asks_for_what_is_given_first(name):
    space = flat_space()
    given = jax.vmap(space.sample)(jax.random.split(jax.random.key(5), 5))
    algorithm = ask_tell.warm_start(ALGORITHMS[name](space), given)
    steps = -(-30 // base.asks_for(algorithm))
    result = run(jax.random.key(0), base.black_box(algorithm, base.stateless(ones_max)), steps=steps)
    asked = jax.vmap(jax.vmap(space.flat))(result.infos[0].archs).reshape(-1, len(space.arity))
    first = jax.vmap(space.flat)(given)
    assert np.array_equal(asked[:5], first)
    assert len(np.unique(asked[5:], axis=0)) > 5  # and goes on by itself


def test_a_warm_start_refuses_what_is_not_of_the_space():
    algorithm, two = ask_tell.random_search(flat_space()), jax.random.split(jax.random.key(0))
    some = jax.vmap(flat_space().sample)(two)
    first, *others = jax.tree.leaves(some)
    ragged = jax.tree.structure(some).unflatten([first[:1], *others])
    for given, message in (
        (jax.tree.map(lambda a: a[0], some), "own space, stacked"),
        (jax.vmap(spaces.space((2, 3)).sample)(jax.random.clone(two)), "own space, stacked"),
        (jax.tree.map(lambda a: a[:0], some), "at least one"),
        (ragged, "own space, stacked"),
    ):
        with pytest.raises(ValueError, match=message):
            ask_tell.warm_start(algorithm, given)
    for planned in BUDGETED.values():
        with pytest.raises(ValueError, match="plans its candidates"):
            ask_tell.warm_start(planned(flat_space()), some)


@pytest.mark.parametrize("name", list(EVERY))
def test_a_diverged_candidate_never_wins_and_never_stops_the_search(name):
    def evaluate(key, archs, batch):
        score = ones_max(key, getattr(archs, "arch", archs), batch)["accuracy"]
        return {"accuracy": jnp.where(score == 5, jnp.nan, jnp.where(score == 4, jnp.inf, score))}

    strategy = base.black_box(EVERY[name](flat_space()), base.stateless(evaluate))
    result = run(jax.random.key(0), strategy, steps=100)
    assert float(result.state.best_score) == 3.0
    assert sum(int(a) == 3 for a in result.best.a) == 3
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(result.state.algorithm) if jnp.issubdtype(a.dtype, jnp.floating))


def test_a_row_sees_no_test_data():
    assert "test" not in Batch._fields


SPACES = {
    "flat": flat_space(),
    "conditional": spaces.space((3, 2, 4), parent=[-1, 0, 1], when=[[1, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0]]),
    "mixed": searching.MIXED,
    "real": spaces.space(reals=spaces.Real(np.zeros(2), np.ones(2))),
}
REFUSED = {  # what an algorithm makes no sense of; everything else runs
    "mixed": {"local", "local, steepest", "reinforce", "ppo", "q-learning", "constrained-evolution"},
    "real": {"local", "local, steepest", "reinforce", "ppo", "q-learning", "gp", "constrained-evolution"},
}


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", list(EVERY))
def test_every_algorithm_runs_on_every_space_it_makes_sense_of(name, kind):
    space = SPACES[kind]
    if name in REFUSED.get(kind, ()):
        with pytest.raises(ValueError, match=r"real dimensions|decisions only|has none"):
            EVERY[name](space)
        return
    algorithm = EVERY[name](space)
    score = lambda arch: jnp.sum(space.features(arch) * jnp.arange(1.0, 1 + space.features(arch).size))
    scores = lambda key, archs, batch: {"accuracy": jax.vmap(score)(getattr(archs, "arch", archs))}
    strategy = base.black_box(algorithm, base.stateless(scores))

    @jit
    def search(key):
        k_init, k_steps = jax.random.split(key)
        step = lambda state, t: strategy.step(jax.random.fold_in(k_steps, t), state, Batch())
        return jax.lax.scan(step, strategy.init(k_init), jnp.arange(24 if name in BUDGETED else 12))[1].archs

    archs = search(jax.random.key(0))
    archs = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), getattr(archs, "arch", archs))
    v, u = np.asarray(jax.vmap(space.flat)(archs)), np.asarray(jax.vmap(space.unit)(archs))
    assert ((v >= 0) & (v < space.arity)).all() and ((u >= 0) & (u <= 1)).all()
    assert (v[~np.asarray(jax.vmap(space.active)(archs))] == 0).all()
    assert len(np.unique(np.concatenate([v, u], 1), axis=0)) > 1
