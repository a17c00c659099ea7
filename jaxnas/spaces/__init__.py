"""Search spaces: what may be built."""

from jaxnas.spaces.blocks import BlockSpec, amoebanet, nasnet, pnas
from jaxnas.spaces.cell import CellSpec
from jaxnas.spaces.darts import darts
from jaxnas.spaces.darts_rnn import darts_rnn
from jaxnas.spaces.elastic import ElasticSpec, Unit, elastic, largest, ofa_mobilenet_v3, ofa_small, smallest
from jaxnas.spaces.enas import MacroSpec, enas_macro, enas_micro, enas_rnn
from jaxnas.spaces.layerwise import LayerSpec, layerwise
from jaxnas.spaces.memory_bank import MemoryBank, memory_bank
from jaxnas.spaces.mobile import MobileLayer, MobileSpec, fbnet, mobile, proxylessnas
from jaxnas.spaces.nasbench201 import nasbench201
from jaxnas.spaces.real import Real
from jaxnas.spaces.recurrent import TreeSpec, recurrent
from jaxnas.spaces.space import Mixed, Space, space
from jaxnas.spaces.tunas import TunasSpec, TunasStage, proxylessnas_enlarged, tunas, widest

SPACES = {"nasbench201": nasbench201, "darts": darts, "nasnet": nasnet, "pnas": pnas, "amoebanet": amoebanet}

__all__ = [
    "SPACES",
    "BlockSpec",
    "CellSpec",
    "ElasticSpec",
    "LayerSpec",
    "MacroSpec",
    "MemoryBank",
    "Mixed",
    "MobileLayer",
    "MobileSpec",
    "Real",
    "Space",
    "TreeSpec",
    "TunasSpec",
    "TunasStage",
    "Unit",
    "amoebanet",
    "darts",
    "darts_rnn",
    "elastic",
    "enas_macro",
    "enas_micro",
    "enas_rnn",
    "fbnet",
    "largest",
    "layerwise",
    "memory_bank",
    "mobile",
    "nasbench201",
    "nasnet",
    "ofa_mobilenet_v3",
    "ofa_small",
    "pnas",
    "proxylessnas",
    "proxylessnas_enlarged",
    "recurrent",
    "smallest",
    "space",
    "tunas",
    "widest",
]
