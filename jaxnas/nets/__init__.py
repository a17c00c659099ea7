"""Networks: what an architecture computes."""

from jaxnas.nets.chain_net import chain_net
from jaxnas.nets.layer_net import layer_net
from jaxnas.nets.net import Net, cell_net, count_parameters, evaluation_net
from jaxnas.nets.ops import OPS
from jaxnas.nets.recurrent_cell import TreeCell

__all__ = ["OPS", "Net", "TreeCell", "cell_net", "chain_net", "count_parameters", "evaluation_net", "layer_net"]
