"""Networks: what an architecture computes."""

from jaxnas.nets._chain_net import chain_net
from jaxnas.nets._elastic_net import elastic_net, sort_channels
from jaxnas.nets._language_model import Dropouts, language_model
from jaxnas.nets._layer_net import layer_net
from jaxnas.nets._macro_net import macro_net
from jaxnas.nets._memory_bank_net import memory_bank_net
from jaxnas.nets._mobile_net import Paths, mobile_net
from jaxnas.nets._pretext_net import pretext_net
from jaxnas.nets._recalibrate import recalibrate
from jaxnas.nets._shuffle_net import shuffle_net
from jaxnas.nets._tunas_net import tunas_net
from jaxnas.nets.backbone import Backbone, backbone_cost, backbones
from jaxnas.nets.base import Net, count_parameters, count_used
from jaxnas.nets.blueprints import Blueprints, Cost
from jaxnas.nets.cells import cell_net, evaluation_net
from jaxnas.nets.ops import OPS
from jaxnas.nets.precision import with_precision
from jaxnas.nets.recurrent_cell import TreeCell
from jaxnas.nets.tabular import TabularNet, tabular_cost, tabular_nets

__all__ = [
    "OPS",
    "Backbone",
    "Blueprints",
    "Cost",
    "Dropouts",
    "Net",
    "Paths",
    "TabularNet",
    "TreeCell",
    "backbone_cost",
    "backbones",
    "cell_net",
    "chain_net",
    "count_parameters",
    "count_used",
    "elastic_net",
    "evaluation_net",
    "language_model",
    "layer_net",
    "macro_net",
    "memory_bank_net",
    "mobile_net",
    "pretext_net",
    "recalibrate",
    "shuffle_net",
    "sort_channels",
    "tabular_cost",
    "tabular_nets",
    "tunas_net",
    "with_precision",
]
