"""What a method is to the command line: one entry of one table, and what its plan is made from."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxnas.app.settings import NoSettings

if TYPE_CHECKING:  # `jaxnas --help` does not wait for JAX
    import optax

    from jaxnas.base import Feed, Strategy
    from jaxnas.nets.base import Net
    from jaxnas.spaces._space import Space
    from jaxnas.training import Criterion


class Job(NamedTuple):
    """What a plan is made from: a config, and what it names."""

    config: Any  # `jaxnas.app.config.Config`
    settings: Any  # the method's own
    net: Any  # `jaxnas.nets.Net`
    data: Any  # `jaxnas.data.Dataset`, `jaxnas.data.Streamed` or `jaxnas.data.text.Text`

    @property
    def space(self) -> "Space":
        return self.net.space

    def batches(self, weight_steps: int = 1, arch_steps: int = 1) -> "Feed":
        """The feed of a search: from the train half, and, for architecture steps, from the valid half."""
        from jaxnas import data
        from jaxnas.data.text import Text, bptt

        if isinstance(self.data, Text):
            return bptt(self.data, self.config.batch, LENGTH, weight_steps=weight_steps, arch_steps=arch_steps)
        augment = data.augment_named(self.config.augment)
        sizes = dict(weight_steps=weight_steps, arch_steps=arch_steps)
        return data.batches(self.data, self.config.batch, augment=augment, **sizes)

    @property
    def criterion(self) -> "Criterion":
        """The loss and the score of the data's target; the next token of a text is a class."""
        return criterion_of(self.config, self.data)

    def judge(self) -> "Feed":
        """The feed of a search on shared weights: fixed batches to recalibrate on and to score on."""
        from jaxnas import data

        n = data.count(self.data.train)
        size = min(self.config.batch, n)
        held = -(-data.count(self.data.valid) // size)  # batches; they are kept in memory
        most = STREAMED // (size * math.prod(self.data.image)) if isinstance(self.data, data.Streamed) else held
        return data.calibration(self.data, size, min(8, n // size), valid_batches=max(1, min(held, most)))

    def cosine(self, steps: int, end: float = 0.0) -> "optax.Schedule":
        """The learning rate, annealed over so many steps to `end`."""
        import optax

        return optax.cosine_decay_schedule(self.config.learning_rate, steps, alpha=end / self.config.learning_rate)

    def cost(self) -> Callable[[Any], Any]:
        """gates -> [], multiply-adds of one example: the net's own count, or that of what its program computes.

        Raises:
            ValueError: for a net that reads text, whose cells all cost the same.
        """
        if not IMAGES.holds(self.net):
            raise ValueError(f"all cells of {self.config.space} cost the same: search it without a limit or a price")
        if self.net.macs is not None:
            return self.net.macs
        import jax
        import jax.numpy as jnp

        from jaxnas import proxies

        def counted(gates):
            shapes = jax.eval_shape(self.net.init, jax.random.key(0))
            zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
            batch = jnp.zeros((1, 1, *self.net.image)), jnp.zeros((1, 1), jnp.int32)
            return proxies.flops(self.net, zeros, gates, batch)

        return jax.jit(counted)  # some algorithms want the cost of a few architectures before they start


def criterion_of(config: Any, data: Any) -> "Criterion":
    """The loss and the score of a data set or a text, as a config wants them."""
    from jaxnas import training

    if getattr(data, "target", None) is None:
        return training.CLASSES
    return training.balanced(data.target, data.train.y) if config.balance else training.criterion(data.target)


STREAMED = 2**28  # bytes of validation images that a search of streamed ones keeps in memory
LENGTH = 16  # tokens of a window of text
LOWEST_RATE = 0.001  # of the weights, at the end of a search


Plan = Callable[[Job], tuple]  # -> phases


class Need(NamedTuple):
    """What a method wants of a net and its space."""

    text: str  # behind "needs"
    holds: Callable[[Any], bool]  # Net -> bool


MIXES = Need("a net that mixes operations", lambda net: net.mixes)
CELLS = Need("cells of operations on edges", lambda net: type(net.space.spec).__name__ == "CellSpec" and len(net.image) == 3)
ONE_INPUT = Need("cells of one input", lambda net: getattr(net.space.spec, "inputs", 0) == 1 and len(net.image) == 3)
FREE = Need("decisions that are legal in any combination", lambda net: type(net.space.spec).__name__ != "MDP")
IMAGES = Need("a net that reads images", lambda net: len(net.image) == 3)
MOBILE = Need("a mobile space", lambda net: type(net.space.spec).__name__ == "MobileSpec")
ELASTIC = Need("an elastic space", lambda net: type(net.space.spec).__name__ == "ElasticSpec")
BANKS = Need("a memory-bank space", lambda net: type(net.space.spec).__name__ == "MemoryBankSpec")
HAND_MADE = Need("hand-made networks to begin with", lambda net: hasattr(net, "families"))
COUNTED = Need("multiply-adds that the net counts", lambda net: net.macs is not None)


class Method(NamedTuple):
    """A system of the field, as one row.

    An algorithm that asks for candidates says what it asks for, and meets any evaluator; all others make a plan of their own.
    """

    about: str  # what it is, and where it is from
    plan: Plan | None = None
    settings: type = NoSettings  # a frozen dataclass: its own numbers, with published defaults
    needs: tuple[Need, ...] = ()
    net: Callable[[Job], dict] | None = None  # a job with the plain net -> further arguments of the net
    algorithm: Callable[..., Any] | None = None  # (space, budget, settings, cost) -> AskTell, instead of a plan
    asks: str = "architectures"  # of an algorithm: "architectures", "trials" or "fronts"
    slots: Callable[[Any], int] | None = None  # settings -> members that are kept, of one that asks for trials
    at_once: int | None = None  # seeds that `jaxnas bench` runs side by side; None: all
    space: str = "nasbench201"  # where it searches if no space is named
    child: bool = False  # the answer is also tried on the weights of the search, as they are


def check_needs(name: str, method: Method, net: "Net", space: str) -> None:
    """Raises ValueError for a net that a method cannot make sense of; it says what is missing."""
    for need in method.needs:
        if not need.holds(net):
            raise ValueError(f"{name} needs {need.text}: search {space} with --strategy aging, or see jaxnas list for others")


def one_phase(make: Callable[..., "Strategy"], weight_steps: int = 1, arch_steps: int = 1) -> Plan:
    """The plan of one phase: make(job, weights, architecture) -> Strategy, its schedules over the whole search."""

    def plan(job: Job):
        from jaxnas import base, training

        weights = training.sgd(job.cosine(job.config.steps, LOWEST_RATE))
        strategy = make(job, weights, training.adam(job.config.arch_learning_rate))
        return base.then(base.Phase(strategy, job.config.steps, job.batches(weight_steps, arch_steps)))

    return plan


def ramp(job: Job, start: float, end: float) -> "optax.Schedule":
    """A number that goes linearly from start to end over the search."""
    import optax

    return optax.linear_schedule(start, end, job.config.steps)


def two_inputs(job: Job) -> bool:
    """Whether the cells of a job have two inputs, and so keep a fixed number of edges a node."""
    return CELLS.holds(job.net) and job.space.spec.inputs == 2


def begun_with(search: "Strategy", still: Any) -> "Strategy":
    """The search, begun with the operations of `still`, bool, alone."""
    from jaxnas import weight_sharing as ws

    return search._replace(init=lambda key, given=None: search.init(key, ws.Given(open=still)))
