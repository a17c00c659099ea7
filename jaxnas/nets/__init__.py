"""Networks: what an architecture computes."""

from jaxnas.nets.net import Net, cell_net, count_parameters, evaluation_net
from jaxnas.nets.ops import OPS

__all__ = ["OPS", "Net", "cell_net", "count_parameters", "evaluation_net"]
