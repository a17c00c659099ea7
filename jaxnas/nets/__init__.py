"""Networks: what an architecture computes."""

from jaxnas.nets.chain_net import chain_net
from jaxnas.nets.elastic_net import elastic_net, sort_channels
from jaxnas.nets.elastic_net import macs as elastic_macs
from jaxnas.nets.language_model import Dropouts, language_model
from jaxnas.nets.layer_net import layer_net
from jaxnas.nets.macro_net import macro_net
from jaxnas.nets.memory_bank_net import memory_bank_net
from jaxnas.nets.mobile_net import Paths, macs, mobile_net
from jaxnas.nets.net import Net, cell_net, count_parameters, evaluation_net
from jaxnas.nets.ops import OPS
from jaxnas.nets.pretext_net import pretext_net
from jaxnas.nets.recalibrate import recalibrate
from jaxnas.nets.recurrent_cell import TreeCell
from jaxnas.nets.tunas_net import macs as tunas_macs
from jaxnas.nets.tunas_net import tunas_net

__all__ = [
    "OPS",
    "Dropouts",
    "Net",
    "Paths",
    "TreeCell",
    "cell_net",
    "chain_net",
    "count_parameters",
    "elastic_macs",
    "elastic_net",
    "evaluation_net",
    "language_model",
    "layer_net",
    "macro_net",
    "macs",
    "memory_bank_net",
    "mobile_net",
    "pretext_net",
    "recalibrate",
    "sort_channels",
    "tunas_macs",
    "tunas_net",
]
