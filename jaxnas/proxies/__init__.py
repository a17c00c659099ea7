"""Zero-cost proxies: scores of a network at initialisation."""

from jaxnas.proxies._synflow import synflow
from jaxnas.proxies._zen import zen
from jaxnas.proxies.aggregate import log_rank, rank_average, vote
from jaxnas.proxies.kernel import jacob_cov, ntk, nwot, regions
from jaxnas.proxies.proxy import LOWEST, Proxy, drawn
from jaxnas.proxies.saliency import fisher, grad_norm, grasp, saliencies, snip, zico
from jaxnas.proxies.size import flops, params
from jaxnas.registry import Table

PROXIES: Table[Proxy] = Table(
    "proxy",
    {
        "params": params,
        "flops": flops,
        "grad_norm": grad_norm,
        "snip": snip,
        "grasp": grasp,
        "fisher": fisher,
        "synflow": synflow,
        "jacob_cov": jacob_cov,
        "nwot": nwot,
        "zen": zen,
        "ntk": ntk,
        "regions": regions,
        "zico": zico,
    },
)
TOGETHER = {("grad_norm", "snip", "fisher"): saliencies}  # what one pass gives: {proxy: []}
DEFAULT_DRAW = {"zen": "normal"}  # of the others: "uniform"
__all__ = ["DEFAULT_DRAW", "LOWEST", "PROXIES", "Proxy", "TOGETHER", "drawn", "log_rank", "rank_average", "vote", *PROXIES]
