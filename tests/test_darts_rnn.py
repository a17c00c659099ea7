"""The DARTS recurrent cell: its space, its language model, the text it reads, and its search."""

import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import jit

from jaxnas import nets, training, weight_sharing
from jaxnas.base import Batch
from jaxnas.data.text import UNKNOWN, Tokens, bptt, text, windows
from jaxnas.nets._language_model import Dropouts, language_model
from jaxnas.spaces._darts import darts
from jaxnas.spaces._darts_rnn import GENOTYPES, OPS, RNNCell, darts_rnn
from jaxnas.training import losses
from jaxnas.training.bilevel import Bilevel, first_order, unrolled

V, B, H, T = 7, 3, 4, 5


def double(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def small(nodes=3, **options):
    return language_model(darts_rnn(nodes), **{"vocabulary": V, "batch": B, "hidden": H, "uniform": 0.8, **options})


def tokens(key, shape=(B, T), first=True):
    return Tokens(jax.random.randint(key, shape, 0, V), jnp.full(shape[:-2], first))


# The space


def test_size_is_the_closed_form_and_every_cell_is_another():
    assert darts_rnn().size == math.factorial(8) * 4**8 == 2_642_411_520
    space = darts_rnn(2)
    cells = jit(jax.vmap(space.from_index))(jnp.arange(int(space.size)))
    each = [jax.tree.map(lambda a: a[n], cells) for n in range(int(space.size))]
    assert len({space.to_text(cell) for cell in each}) == space.size == 32
    wanted = itertools.product(itertools.product(range(4), repeat=2), itertools.product(range(1), range(2)))
    assert {(tuple(c.op.tolist()), tuple(c.previous.tolist())) for c in each} == set(wanted)


@pytest.mark.parametrize("ops", [OPS, OPS[1:], ("tanh", "none", "relu")])
def test_derive_undoes_gates(ops):
    space = darts_rnn(4, ops)
    archs = jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(0), 200))
    chex.assert_trees_all_equal(jit(jax.vmap(lambda a: space.derive(space.gates(a))))(archs), archs)
    gates = jit(jax.vmap(space.gates))(archs)
    assert gates.shape == (200, 10, len(ops))
    real = [k for k, name in enumerate(ops) if name != "none"]
    edge = np.asarray([0, 1, 3, 6])[None] + np.asarray(archs.previous)
    expected = np.zeros((200, 10), int)
    np.put_along_axis(expected, edge, 1, 1)
    np.testing.assert_array_equal(np.asarray(gates)[:, :, real].sum(-1), expected)  # one edge a node
    assert (np.asarray(gates).sum(-1) == (1 if "none" in ops else expected)).all()


def test_derive_never_returns_none():
    """A4: the best state by the largest real probability, then its operation, though `none` is the largest everywhere."""
    space = darts_rnn(3)
    alpha = np.zeros((6, 5), np.float32)
    alpha[:, 0] = 9.0
    alpha[2, 3] = alpha[3, 1] = 1.0  # node 1 reads state 1, node 2 state 0
    alpha[5] = [20.0, 2.0, 2.0, 2.0, 2.0]  # larger logits, smaller probabilities
    found = space.derive(jax.nn.softmax(jnp.asarray(alpha), -1))
    assert space.to_text(found) == "Genotype(recurrent=[('tanh', 0), ('sigmoid', 1), ('tanh', 0)], concat=[1, 2, 3])"
    assert found.op[0] == 0 and found.previous[0] == 0  # ties: the lowest index


def test_published_cells():
    space = darts_rnn()
    for name, written in GENOTYPES.items():
        arch = space.from_text(name)
        assert space.to_text(arch) == written
        assert space.to_text(space.from_text(written.replace("concat=[1, 2, 3, 4, 5, 6, 7, 8]", "concat=range(1, 9)"))) == written
    arch = space.from_text("DARTS_V2")
    assert [OPS[1 + k] for k in arch.op] == ["sigmoid", "relu", "relu", "identity", "tanh", "sigmoid", "tanh", "relu"]
    assert arch.previous.tolist() == [0, 1, 1, 1, 2, 5, 3, 5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: darts_rnn(0), "`nodes` of darts_rnn must be a positive integer; got 0"),
        (lambda: darts_rnn(2, ("none",)), "other than none"),
        (lambda: darts_rnn(2, ("tanh", "tanh")), "each operation once"),
        (lambda: darts_rnn(2).from_text("DARTS_V3"), "not a recurrent genotype"),
        (lambda: darts_rnn(2).from_text("DARTS_V2"), "has 8 nodes, not 2"),
        (lambda: darts_rnn(1).from_text("Genotype(recurrent=[('none', 0)])"), "is not one of tanh"),
        (lambda: darts_rnn(1).from_text("Genotype(recurrent=[('tanh', 1)])"), "must be one of 0 to 0"),
        (lambda: language_model(darts(), vocabulary=V, batch=B), "needs a space of"),
        (lambda: small(vocabulary=0), "`vocabulary` of language_model must be a positive integer; got 0"),
        (lambda: small(dropouts=Dropouts(x=1.0)), r"`x` of Dropouts must be a probability below 1; got 1\.0"),
        (lambda: small(embedding=3), "a tied decoder"),
        (lambda: small(beta=-1.0), r"`beta` of language_model must be a number of at least 0; got -1\.0"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The net


def test_published_parameter_counts():
    count = lambda net: nets.count_parameters(jax.eval_shape(net.init, jax.random.key(0)))
    sizes = dict(vocabulary=10_000, batch=2)
    assert count(language_model(darts_rnn(), hidden=850, norms=False, **sizes)) == 22_960_000
    n, v = 300, 10_000
    assert count(language_model(darts_rnn(), **sizes)) == v * n + v + 2 * n * 2 * n + 8 * n * 2 * n == 4_810_000
    untied = language_model(darts_rnn(), hidden=n, embedding=200, tied=False, **sizes)
    assert count(untied) == v * 200 + v * n + v + (200 + n) * 2 * n + 8 * n * 2 * n


def test_a_step_by_hand():
    """Two nodes: relu of the start, sigmoid of node 0; a window of two tokens, against the equations in numpy."""
    net = small(2, norms=False, dropouts=None)
    arch = RNNCell(jnp.asarray([1, 2]), jnp.asarray([0, 1]))  # of tanh, relu, sigmoid, identity
    variables = jit(net.init)(jax.random.key(0))
    x = tokens(jax.random.key(1), (B, 2))
    logits, new = jit(lambda v: net.apply(v, x, net.space.gates(arch), train=True))(variables)
    p = {name: np.asarray(a, np.float64) for name, a in variables["params"].items()}
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    h, hs, expected = np.zeros((B, H)), [], []
    for t in range(2):
        xh = np.concatenate([p["embedding"][np.asarray(x.tokens[:, t])], h], 1) @ p["start"]
        s0 = h + sigmoid(xh[:, :H]) * (np.tanh(xh[:, H:]) - h)
        y = s0 @ p["nodes"][0]
        s1 = s0 + sigmoid(y[:, :H]) * (np.maximum(y[:, H:], 0) - s0)
        y = s1 @ p["nodes"][1]
        s2 = s1 + sigmoid(y[:, :H]) * (sigmoid(y[:, H:]) - s1)
        h = (s1 + s2) / 2
        hs.append(h)
        expected.append(h @ p["embedding"].T + p["bias"][None])
    np.testing.assert_allclose(logits, np.stack(expected, 1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(new["carry"]["hidden"], h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new["losses"]["tar"], 1e-3 * np.mean((hs[1] - hs[0]) ** 2), rtol=1e-4)


def test_the_mixture_weighs_every_edge():
    """One node less the norms, at soft gates, is the gates' sum of the four cells' outputs: h is linear in them."""
    net = small(1, norms=False, dropouts=None)
    variables = jit(net.init)(jax.random.key(0))
    x = tokens(jax.random.key(1), (B, 1))
    run = jit(lambda gates: net.apply(variables, x, gates, train=False)[1]["carry"]["hidden"])
    gates = jax.nn.softmax(jax.random.normal(jax.random.key(2), (1, 5)), -1)
    one = [run(jax.nn.one_hot(jnp.asarray([k]), 5)) for k in range(5)]
    np.testing.assert_allclose(run(gates), sum(gates[0, k] * one[k] for k in range(1, 5)), rtol=1e-5, atol=1e-6)
    assert float(jnp.max(jnp.abs(one[0]))) == 0.0  # none


@pytest.mark.parametrize(
    ("x64", "norms", "enas", "tolerance"),
    [(False, True, False, 1e-5), (True, False, False, 1e-9), (True, True, True, 1e-9)],
)
def test_three_ways_agree(x64, norms, enas, tolerance):
    """The mixture at one-hot gates, its single path, and the plain network: outputs, states, statistics, gradients."""
    with jax.enable_x64(x64):
        options = dict(norms=norms, private=enas, loose_ends=enas)
        net, key = small(**options, dropouts=Dropouts(0.1, 0.1, 0.1, 0.3, 0.1)), jax.random.key(5)
        arch = net.space.sample(jax.random.key(2))._replace(previous=jnp.asarray([0, 0, 2], jnp.int32))
        variables = jit(net.init)(jax.random.key(0))
        variables["carry"] = {"hidden": jax.random.normal(jax.random.key(3), (B, H), jnp.float32)}
        variables = double(variables) if x64 else variables
        x, y = tokens(jax.random.key(1), first=False), jax.random.randint(jax.random.key(4), (B, T), 0, V)
        (module, extract), gates = net.specialize(arch), net.space.gates(arch)
        ways = [lambda v, train, path=path: net.apply(v, x, gates, train=train, path=path, key=key) for path in (False, True)]
        options = dict(rngs={"dropout": key}, mutable=["batch_stats", "carry", "losses"])
        ways.append(lambda v, train: module.apply(extract(v), x, train=train, **options))

        def run(way):
            def loss(params):
                logits, new = way({**variables, "params": params}, True)
                kept = {name: new[name] for name in ("carry", "losses", "batch_stats")[: 3 if norms else 2]}
                return losses.cross_entropy(logits, y) + new["losses"]["tar"], (logits, kept)

            return jax.value_and_grad(loss, has_aux=True)(variables["params"]), way(variables, False)[0]

        mixture, path, plain = (jit(functools.partial(run, way))() for way in ways)
        assert plain[1].dtype == (jnp.float64 if x64 else jnp.float32)
        for other in (mixture, path):
            chex.assert_trees_all_close(other, plain, rtol=tolerance, atol=tolerance)


def test_used_are_the_nodes_with_a_real_gate():
    net = small()
    variables = jit(net.init)(jax.random.key(0))
    gates = net.space.gates(net.space.sample(jax.random.key(1)))
    ones = jax.tree.map(lambda m: float(jnp.min(m)), net.used(variables, gates))
    assert set(jax.tree.leaves(ones)) == {1.0}
    cut = gates.at[1:3].set(jax.nn.one_hot(jnp.zeros(2, jnp.int32), 5))  # node 1 reads nothing
    found = net.used(variables, cut)
    assert found["params"]["nodes"].ravel().tolist() == [1, 0, 1]
    assert found["batch_stats"]["mean"].ravel().tolist() == [1, 1, 0, 1]
    jax.tree.map(lambda m, v: np.broadcast_shapes(m.shape, v.shape), found, variables)
    y = jax.random.randint(jax.random.key(3), (B, T), 0, V)
    loss = lambda v: losses.cross_entropy(net.apply(v, tokens(jax.random.key(2)), cut, train=True)[0], y)
    grads = jit(jax.grad(lambda p: loss({**variables, "params": p})))(variables["params"])
    assert float(jnp.max(jnp.abs(grads["nodes"][1]))) == 0.0 < float(jnp.min(jnp.max(jnp.abs(grads["nodes"][::2]), (1, 2))))


def test_the_output_is_the_mean_of_loose_ends():
    """One token.  A chain has its last node, which two means tell; a star all of its nodes; otherwise what nobody reads."""
    x, op = tokens(jax.random.key(1), (B, 1)), np.asarray([0, 3, 2], np.int32)
    variables = jit(small(norms=False).init)(jax.random.key(0))

    @functools.cache
    def program(nodes, loose_ends):
        net = small(nodes, norms=False, loose_ends=loose_ends)
        return net.space.gates, jit(lambda v, gates: net.apply(v, x, gates, train=False)[1]["carry"]["hidden"])

    def h(*previous, loose_ends=False):
        N = len(previous)
        gates, run = program(N, loose_ends)
        first = {**variables, "params": {**variables["params"], "nodes": variables["params"]["nodes"][:N]}}
        return run(first, gates(RNNCell(op[:N], np.asarray(previous, np.int32))))

    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    two = 2 * h(0, 1)  # s_1 + s_2
    close(h(0, 1, 2, loose_ends=True), 3 * h(0, 1, 2) - two)
    close(h(0, 1, 1, loose_ends=True), (3 * h(0, 1, 1) - h(0)) / 2)
    np.testing.assert_array_equal(h(0, 0, 0, loose_ends=True), h(0, 0, 0))


def test_used_are_the_private_matrices_of_the_cell():
    net = small(private=True, loose_ends=True)
    variables = jit(net.init)(jax.random.key(0))
    gates = net.space.gates(RNNCell(jnp.asarray([1, 0, 3]), jnp.asarray([0, 0, 2])))
    used = net.used(variables, gates)
    wanted = np.zeros((6, 4))
    wanted[0, 1] = wanted[1, 0] = wanted[5, 3] = 1  # edges 0->1, 0->2, 2->3
    np.testing.assert_array_equal(used["params"]["nodes"][:, :, 0, 0], wanted)
    jax.tree.map(lambda m, v: np.broadcast_shapes(m.shape, v.shape), used, variables)
    assert all(float(jnp.min(m)) == 1 for m in jax.tree.leaves({**used, "params": used["params"]["embedding"]}))
    assert variables["params"]["nodes"].shape == (6, 4, H, 2 * H)


@pytest.mark.parametrize("option", ["private", "loose_ends"])
def test_enas_has_no_mixture(option):
    with pytest.raises(ValueError, match="it mixes none"):
        weight_sharing.darts(small(**{option: True}))


def test_two_windows_are_one_window_twice_as_long():
    net = small(norms=False)
    variables, gates = jit(net.init)(jax.random.key(0)), jax.nn.softmax(jax.random.normal(jax.random.key(2), (6, 5)), -1)
    x = tokens(jax.random.key(1), (B, 2 * T)).tokens
    run = jit(lambda v, part, first: net.apply(v, Tokens(part, first), gates, train=False))
    logits, last = run(variables, x, jnp.asarray(True))
    one, middle = run(variables, x[:, :T], jnp.asarray(True))
    two, end = run(middle, x[:, T:], jnp.asarray(False))
    np.testing.assert_allclose(jnp.concatenate([one, two], 1), logits, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(end, last, rtol=1e-5, atol=1e-6)
    anew, _ = run(middle, x[:, T:], jnp.asarray(True))
    assert np.max(np.abs(anew - two)) > 1e-2
    with pytest.raises(ValueError, match="that of 3 streams, and the tokens of 2"):
        net.apply(variables, tokens(jax.random.key(0), (2, T)), gates, train=False)


def test_states_are_normalised_over_the_batch_and_their_moments_are_kept():
    """In training the decoder sees the mean of states of mean 0; at momentum 0.9 a window moves the moments by a tenth."""
    net = small(dropouts=None, batch=16)
    variables = jit(net.init)(jax.random.key(0))
    gates, x = jnp.full((6, 5), 0.2), tokens(jax.random.key(1), (16, T))
    run = jit(lambda v, train: net.apply(v, x, gates, train=train), static_argnums=1)
    _, new = run(variables, True)
    np.testing.assert_allclose(jnp.mean(new["carry"]["hidden"], 0), np.zeros(H), atol=1e-5)
    _, once = jit(lambda v: net.apply(v, x._replace(tokens=x.tokens[:, :1]), gates, train=True))(variables)
    p = variables["params"]
    c, a = np.split(np.asarray(p["embedding"][x.tokens[:, 0]] @ p["start"][:H], np.float64), 2, -1)
    s0 = np.tanh(a) / (1 + np.exp(-c))
    np.testing.assert_allclose(once["batch_stats"]["mean"][0], 0.1 * s0.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(once["batch_stats"]["var"][0], 0.9 + 0.1 * s0.var(0, ddof=1), rtol=1e-4)
    assert np.max(np.abs(new["batch_stats"]["mean"] - once["batch_stats"]["mean"])) > 1e-4
    chex.assert_trees_all_equal(run(new, False)[1]["batch_stats"], new["batch_stats"])


@pytest.mark.parametrize("kind", Dropouts._fields)
def test_dropout_is_drawn_from_the_key_in_training_only(kind):
    net = small(2, norms=False, dropouts=Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)._replace(**{kind: 0.5}))
    variables, gates, x = jit(net.init)(jax.random.key(0)), jnp.full((3, 5), 0.2), tokens(jax.random.key(1))
    run = jit(lambda key, train: net.apply(variables, x, gates, train=train, key=key)[0], static_argnums=1)
    a, b, still = run(jax.random.key(2), True), run(jax.random.key(3), True), run(jax.random.key(2), False)
    assert np.max(np.abs(a - b)) > 1e-3
    np.testing.assert_array_equal(still, run(jax.random.key(3), False))
    plain = jit(lambda: net.apply(variables, x, gates, train=True)[0])()
    np.testing.assert_allclose(plain, still, rtol=1e-5, atol=1e-6)  # without a key nothing is dropped
    if kind == "output":  # one mask for all time steps, survivors doubled: D is square here, so h is what D undoes
        table = np.linalg.pinv(np.asarray(variables["params"]["embedding"], np.float64).T)
        ratio = (np.asarray(a, np.float64) @ table) / (np.asarray(still, np.float64) @ table)
        np.testing.assert_allclose(ratio, np.broadcast_to(np.round(ratio[:, :1]), ratio.shape), atol=1e-2)
        assert set(np.unique(np.round(ratio))) == {0.0, 2.0}


# The text

LINES = "the cat sat\non the mat\n"


def test_windows_are_contiguous_and_cover_the_text():
    stream = jnp.arange(3 * 20 + 7)
    (x, first), y = windows(stream, 3, T)
    assert x.shape == y.shape == (4, 3, T) and first.tolist() == [True, False, False, False]
    rows = np.asarray(x).swapaxes(0, 1).reshape(3, -1)
    np.testing.assert_array_equal(rows.ravel(), np.arange(60))  # row after row is the text
    np.testing.assert_array_equal(y, x + 1)
    source = text("abcdefghij" * 20, valid=0.4, test=0.1)
    feed, parts = bptt(source, 3, T, weight_steps=2), [windows(s, 3, T)[0].tokens for s in (source.train, source.valid)]
    assert [len(part) for part in parts] == [6, 5]
    draw = jit(feed.draw)
    seen = [draw(jax.random.key(0), feed.arrays, jnp.asarray(t)) for t in range(6)]
    for which, n, part in (("train", 12, parts[0]), ("valid", 6, parts[1])):
        drawn = jnp.concatenate([getattr(batch, which)[0].tokens for batch in seen])
        np.testing.assert_array_equal(drawn, np.concatenate([part] * 2)[:n])  # and round again
    assert jnp.concatenate([batch.train[0].first for batch in seen]).tolist() == [n in (0, 6) for n in range(12)]
    assert all(batch.valid[0].first.tolist() == [True] for batch in seen)
    assert bptt(text("ab" * 100), 3, T, arch_steps=0).arrays[1] is None


def test_texts():
    chars = text("abcabcabca", valid=0.2, test=0.3)
    assert chars.vocabulary == ("a", "b", "c")
    assert [part.tolist() for part in (chars.train, chars.valid, chars.test)] == [[0, 1, 2, 0, 1], [2, 0], [1, 2, 0]]
    words = text(LINES, level="word", valid="the dog\n", test="a cat", limit=3)
    assert words.vocabulary == ("<eos>", UNKNOWN, "the")
    assert words.train.tolist() == [2, 1, 1, 0, 1, 2, 1, 0]
    assert words.valid.tolist() == [2, 1, 0] and words.test.tolist() == [1, 1, 0]
    assert "dog" in text(LINES, level="word", valid="the dog\n", test="a cat").vocabulary


def test_a_text_from_a_file(tmp_path):
    (tmp_path / "a.txt").write_text("déjà vu " * 10, encoding="utf-8")
    chex.assert_trees_all_equal(text(tmp_path / "a.txt"), text("déjà vu " * 10))
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff")
    for name in ("b.txt", "none.txt"):
        with pytest.raises(ValueError, match="cannot be read"):
            text(tmp_path / name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: text("abc" * 9, level="line"), "unknown level"),
        (lambda: text(7), "a text is a str"),
        (lambda: text("abc" * 9, limit=1), "at least 2 tokens"),
        (lambda: text("abc" * 9, valid=0.5, test=0.5), "sum to less than 1"),
        (lambda: text("abc" * 9, valid=0.5, test="abc"), "two parts"),
        (lambda: text("abc"), "an empty part"),
        (lambda: text("a" * 30), "at least two"),
        (lambda: bptt(text("ab" * 50), 10, 9), "train part has 80 tokens"),
        (lambda: bptt(text("ab" * 50), 3, 9), "valid part has 10 tokens"),
        (lambda: bptt(text("ab" * 50), 0, 9), "at least one stream"),
        (lambda: bptt(text("ab" * 50), 1, 9, weight_steps=0), "at least one weight step"),
    ],
)
def test_bad_texts_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The search


def batch(key):
    """One weight and one architecture step; the windows go on from a hidden state."""
    keys = jax.random.split(key, 4)
    part = lambda k_x, k_y, first: (tokens(k_x, (1, B, T), first), jax.random.randint(k_y, (1, B, T), 0, V))
    return Batch(train=part(*keys[:2], False), valid=part(*keys[2:], True))


@pytest.mark.slow
def test_exact_second_order_is_the_derivative_of_the_whole_look_ahead():
    """A2: against central differences in float64 of (a clipped step with momentum, then the validation loss), with dropout."""
    with jax.enable_x64(True):
        net = small(2, dropouts=Dropouts(0.1, 0.1, 0.1, 0.1, 0.1))
        variables, data = double(jit(net.init)(jax.random.key(0))), batch(jax.random.key(1))
        variables["carry"] = {"hidden": jax.random.normal(jax.random.key(3), (B, H), jnp.float64)}
        w, theta = variables["params"], jax.random.normal(jax.random.key(4), (3, 5), jnp.float64)
        weights = optax.chain(optax.clip_by_global_norm(0.25), optax.sgd(0.5, momentum=0.9))
        opt_state = jax.tree.map(lambda a: 0.1 * jax.random.normal(jax.random.key(5), a.shape, a.dtype), weights.init(w))
        look, valid = data.train, jax.tree.map(lambda a: a[0], data.valid)

        def loss(theta, params, xy):
            gates = jax.nn.softmax(theta, -1)
            logits, new = net.apply({**variables, "params": params}, xy[0], gates, train=True, key=jax.random.key(6))
            return losses.cross_entropy(logits, xy[1]) + new["losses"]["tar"]

        def update(theta, grads, opt_state, w):
            updates, opt_state = weights.update(grads, opt_state, w)
            return optax.apply_updates(w, updates), opt_state

        def whole(theta):
            grads = jax.grad(loss, 1)(theta, w, jax.tree.map(lambda a: a[0], look))
            return loss(theta, update(theta, grads, opt_state, w)[0], valid)

        bilevel = Bilevel(loss, loss, update)
        gradient = lambda method: jit(lambda a: method(bilevel, a, w, opt_state, look, valid).grad)(theta)
        exact, first, value = gradient(unrolled()), gradient(first_order()), jit(whole)
        d = jax.random.normal(jax.random.key(10), theta.shape, jnp.float64)
        numeric = float(value(theta + 1e-5 * d) - value(theta - 1e-5 * d)) / 2e-5
        along = float(jnp.vdot(exact, d))
        assert abs(along - numeric) < 1e-6 * max(1e-2, abs(numeric))
        assert np.linalg.norm(first - exact) > 1e-2 * np.linalg.norm(exact)


def test_every_gate_has_a_gradient():
    net = small(dropouts=None)
    variables, x = jit(net.init)(jax.random.key(0)), tokens(jax.random.key(1))
    y = jax.random.randint(jax.random.key(2), (B, T), 0, V)
    loss = lambda gates: losses.cross_entropy(net.apply(variables, x, gates, train=True)[0], y)
    grads = np.asarray(jit(jax.grad(loss))(jax.nn.softmax(jax.random.normal(jax.random.key(3), (6, 5)), -1)))
    assert (np.abs(grads[:, 1:]) > 1e-6).all()
    assert (grads[:, 0] == 0).all()  # none adds nothing; its logit moves through the softmax


@pytest.mark.slow
def test_a_search_learns_and_carries_the_hidden_state():
    """A text with a rule: the loss falls far below that of guessing, and alpha moves."""
    net = small(2, batch=4, hidden=6, dropouts=None)
    source = text("abcdefg" * 60)
    feed = bptt(source, 4, T)
    weights = optax.chain(optax.clip_by_global_norm(0.25), training.sgd(2.0, 0.0, 5e-7))
    search = weight_sharing.darts(net, weights, training.adam(3e-3, 1e-3), clip=None)
    start = jit(search.init)(jax.random.key(0))

    def body(state, t):
        return search.step(jax.random.fold_in(jax.random.key(1), t), state, feed.draw(jax.random.key(2), feed.arrays, t))

    state, info = jit(lambda s: jax.lax.scan(body, s, jnp.arange(120)))(start)
    assert np.mean(info.loss[-10:]) < 0.5 * np.log(7) < 0.8 * float(info.loss[0])
    assert np.max(np.abs(state.theta - start.theta)) > 1e-2
    assert set(state.variables) == {"params", "batch_stats", "carry"}  # the losses are not kept
    assert float(jnp.max(jnp.abs(state.variables["carry"]["hidden"]))) > 0
    assert np.isfinite(info.gradient["loss"]).all()
    assert (np.asarray(search.best(state).previous) <= np.arange(2)).all()
