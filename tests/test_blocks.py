"""Cells of blocks: what is published about them, and ScheduledDropPath."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from jaxnas import nets, spaces, weight_sharing
from jaxnas.nets import convolution
from jaxnas.nets.block_cell import kept_states
from jaxnas.spaces.blocks import GENOTYPES, NASNET_OPS, PNAS_OPS, Blocks


def test_published_parameter_counts():
    """NASNet-A (6@768) 3.3 M and PNASNet-5 (N = 3, F = 48) 3.2 M, with the states that their authors concatenate."""

    def count(space, name, **sizes):
        arch, keep = space.from_text(name), GENOTYPES[name][1]
        return nets.count_parameters(nets.evaluation_net(space, arch, classes=10, keep=keep, **sizes), (32, 32, 3))

    assert count(spaces.nasnet(), "NASNET_A", channels=32, cells=6) == 3_328_234
    assert count(spaces.pnas(), "PNASNET_5", channels=48, cells=3) == 3_176_602


def test_published_sizes():
    assert len(NASNET_OPS) == 13 and len(PNAS_OPS) == 8
    assert len(spaces.nasnet().arity) == 50  # the controller's 2 * 5 B decisions
    steps = [(2 + b) ** 2 * 8**2 for b in range(5)]
    assert steps == [256, 576, 1024, 1600, 2304]
    assert spaces.pnas().size == sum(np.prod(steps[: b + 1], dtype=object) for b in range(5))
    assert f"{np.prod(steps, dtype=float):.2e}" == "5.57e+14"


def test_what_no_block_reads_is_concatenated():
    space = spaces.pnas(3, ("skip_connect", "max_pool_3x3"))
    kept = lambda text: np.flatnonzero(np.asarray(kept_states(space.gates(space.from_text(text))))).tolist()
    assert kept("[skip_connect~0+skip_connect~0]") == [1, 2]
    assert kept("[skip_connect~0+skip_connect~1 max_pool_3x3~2+skip_connect~0]") == [3]
    assert kept("[skip_connect~0+skip_connect~0 max_pool_3x3~0+skip_connect~0 skip_connect~3+skip_connect~3]") == [1, 2, 4]


def test_no_draw_reads_what_comes_later():
    space = spaces.nasnet()
    archs = jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(0), 100_000))
    for cell in archs:
        assert (np.asarray(cell.input) < 2 + np.arange(5)[None, :, None]).all()


def test_text_says_what_is_wrong():
    space = spaces.nasnet(2, ("skip_connect", "max_pool_3x3"))
    good = "[skip_connect~0+skip_connect~1 max_pool_3x3~2*skip_connect~0]"
    assert space.to_text(space.from_text(f"{good} {good}")) == f"{good} {good}"
    for text, message in (
        (good, "write 2 cells"),
        (f"{good} [skip_connect~0+skip_connect~1]", "has 1 blocks"),
        (f"{good} {good.replace('~2', '~3')}", "only states 0 to 2"),
        (f"{good} {good.replace('max_pool', 'min_pool')}", "is not a block"),
    ):
        with pytest.raises(ValueError, match=message):
            space.from_text(text)


@functools.cache
def skips():
    """(net of identities alone, variables, images, logits) of three cells."""
    space = spaces.nasnet(1, ("skip_connect",), ("add",))
    net = nets.evaluation_net(space, space.sample(jax.random.key(0)), classes=3, channels=2, cells=1)
    x = jax.random.normal(jax.random.key(1), (512, 4, 4, 1))
    return net, jit(functools.partial(net.init, train=True))(jax.random.key(2), x), x


def test_scheduled_drop_path_drops_identities_too_and_nothing_at_its_start():
    net, variables, x = skips()
    apply = functools.partial(net.apply, train=True, mutable=["batch_stats"])
    run = lambda rate, k: jit(lambda key: apply(variables, x, rate=rate, rngs={"drop_path": key})[0])(jax.random.key(k))
    np.testing.assert_allclose(run(0.0, 0), run(None, 1), rtol=1e-4, atol=1e-4)
    assert np.max(np.abs(run(0.5, 0) - run(0.5, 1))) > 0.1


def test_scheduled_drop_path_grows_with_depth():
    """Cell c of C drops at (c + 1) / C of the rate."""
    rates = []

    class Spy:
        def __init__(self, cell):
            self.cell = cell

        def __call__(self, inputs, gates, train, path, rate):
            rates.append(rate)
            return self.cell(inputs, gates, train, path, rate)

    net, variables, x = skips()
    spied = type("Spied", (type(net),), {"cell": lambda self, i: Spy(type(net).cell(self, i))})
    copy = spied(**{f: getattr(net, f) for f in net.__dataclass_fields__ if f not in ("parent", "name")})
    run = lambda v, x, k: copy.apply(v, x, train=True, rate=0.3, rngs={"drop_path": k}, mutable=["batch_stats"])
    jax.eval_shape(run, variables, x[:2], jax.random.key(0))
    np.testing.assert_allclose(rates, 0.3 * np.arange(1, 6) / 5)


@pytest.mark.parametrize(("shape", "stride"), [((1, 7), (1, 2)), ((7, 1), (2, 1)), ((3, 1), (1, 1))])
def test_stripes_in_both_forms(shape, stride):
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    w = jax.random.normal(jax.random.key(1), (4, 2, *shape))
    one, other = (jit(lambda x, w, form=form: convolution.conv(x, w, stride, form=form))(x, w) for form in ("shifts", "dense"))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert one.shape == (4, -(-5 // stride[0]), -(-6 // stride[1]), 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: spaces.nasnet(0), "`blocks` of nasnet must be a positive integer; got 0"),
        (lambda: spaces.nasnet(ops=("skip_connect", "skip_connect")), "that differ"),
        (lambda: spaces.nasnet(combine=("times",)), "combine by"),
        (lambda: weight_sharing.darts(nets.cell_net(spaces.pnas(1), image=(4, 4, 1), classes=2, channels=2)), "mixes none"),
        (lambda: nets.evaluation_net(spaces.nasnet(), None, classes=2, imagenet=True), "only DARTS cells"),
        (lambda: nets.evaluation_net(spaces.darts(), None, classes=2, keep=((0,),)), "only cells of blocks"),
    ],
)
def test_bad_spaces_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_equal_blocks_have_one_canonical_form():
    space = spaces.pnas(1, ("skip_connect", "max_pool_3x3"))
    blocks = [Blocks(np.asarray([[a, b]]), np.asarray([[c, d]])) for a, b, c, d in np.ndindex(2, 2, 2, 2)]
    texts = {space.to_text(space.canonical(type(space.decisions)(jnp.zeros((), jnp.int32), cell))) for cell in blocks}
    assert len(texts) == 10  # of 16; 136 of 256 with eight operations
