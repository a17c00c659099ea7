"""Zero-cost proxies as an evaluator: a candidate is worth what it shows before it is trained.

    black_box(algorithm, zero_cost(net, "synflow"), metric("synflow"))

`batch.train` holds the batches (x [S, B, ...], y [S, B]): see `jaxnas.data.batches`.  All candidates have the same draw of the
supernet's weights, the evaluator's state, or (`own`) each has its own, as published code has: then no lucky draw favours a kind of
architecture, and two scores of one differ.  One candidate is scored after the other, and only its own operations are computed.

Axes: P candidates, S batches, B batch.
"""

from collections.abc import Mapping

import jax

from jaxnas.ask_tell.trial import require_archs_alone
from jaxnas.base import Evaluator
from jaxnas.checks import checked
from jaxnas.nets.base import Net
from jaxnas.proxies import DEFAULT_DRAW, PROXIES, TOGETHER, Proxy, drawn
from jaxnas.trees import count


@checked
def zero_cost(net: Net, *proxies: str | Mapping[str, Proxy], draw: str | None = None, own: bool = False) -> Evaluator:
    """The evaluator whose metrics are proxies.

    Args:
        net: the supernet.
        proxies: names of `jaxnas.proxies.PROXIES`, or {name: (net, variables, gates, batch) -> []} of your own.
        draw: of the weights, as in `jaxnas.proxies.drawn`; default: "normal" for zen, else "uniform".
        own: each candidate draws weights of its own, by the step's key; default: all share one draw.

    Raises:
        ValueError: for none, an unknown name, proxies that want other draws, or another draw; when traced, for batches that a
            proxy can not use.
    """
    table, wanted = {}, set()
    for proxy in proxies:
        known = {proxy: PROXIES.get(proxy)} if isinstance(proxy, str) else dict(proxy)
        wanted |= {DEFAULT_DRAW.get(name, "uniform") for name in known}
        table |= known
    unknown = [name for name, f in table.items() if f is None]
    if unknown or not table:
        raise ValueError(f"unknown proxy {', '.join(unknown)}: choose of {', '.join(PROXIES)}")
    if draw is None and len(wanted) > 1:
        raise ValueError(f"{', '.join(table)} want other weights at initialisation: score them apart, or say which `draw`")
    draw = draw or wanted.pop()
    jax.eval_shape(lambda key: drawn(net, key, draw), jax.random.key(0))

    def step(key, variables, archs, batch):
        require_archs_alone(archs)

        def score(candidate):
            arch, k = candidate
            held = variables if k is None else drawn(net, k, draw)
            of = lambda f: f(net, held, net.space.gates(arch), batch.train)
            scores = {}
            for names, f in TOGETHER.items():
                if any(table.get(name) is PROXIES[name] for name in names):
                    scores |= of(f)
            return {name: scores[name] if f is PROXIES.get(name) and name in scores else of(f) for name, f in table.items()}

        keys = jax.random.split(key, count(archs)) if own else None
        return variables, jax.lax.map(score, (archs, keys))

    return Evaluator(lambda key: None if own else drawn(net, key, draw), step)
