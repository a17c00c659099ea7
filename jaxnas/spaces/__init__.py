"""Search spaces: what may be built."""

from jaxnas.spaces._chain import chain
from jaxnas.spaces._darts import darts
from jaxnas.spaces._darts_rnn import darts_rnn
from jaxnas.spaces._darts_subspace import darts_subspace
from jaxnas.spaces._elastic import ElasticSpec, Unit, elastic, largest, ofa_mobilenet_v3, ofa_small, smallest
from jaxnas.spaces._every import every
from jaxnas.spaces._layerwise import LayerSpec, layerwise
from jaxnas.spaces._limited import limited
from jaxnas.spaces._macro import Staged, StagedSpec, macro
from jaxnas.spaces._memory_bank import MemoryBank, memory_bank
from jaxnas.spaces._metaqnn import MDP, metaqnn
from jaxnas.spaces._mobile import MobileLayer, MobileSpec, fairnas, fbnet, mobile, proxylessnas
from jaxnas.spaces._nasbench201 import nasbench201
from jaxnas.spaces._recurrent import TreeSpec, recurrent
from jaxnas.spaces._shuffle import ShuffleBlock, ShuffleSpec, shuffle, spos
from jaxnas.spaces._space import Mixed, Space, space
from jaxnas.spaces._tabular import Tabular, TabularSpec, tabular
from jaxnas.spaces._tunas import TunasSpec, TunasStage, proxylessnas_enlarged, tunas, widest
from jaxnas.spaces.blocks import BlockSpec, amoebanet, nasnet, pnas
from jaxnas.spaces.cell import CellSpec
from jaxnas.spaces.enas import MacroSpec, enas_macro, enas_micro, enas_rnn
from jaxnas.spaces.real import Real

SPACES = {"nasbench201": nasbench201, "darts": darts, "nasnet": nasnet, "pnas": pnas, "amoebanet": amoebanet}

__all__ = [
    "MDP",
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
    "ShuffleBlock",
    "ShuffleSpec",
    "Space",
    "Staged",
    "StagedSpec",
    "Tabular",
    "TabularSpec",
    "TreeSpec",
    "TunasSpec",
    "TunasStage",
    "Unit",
    "amoebanet",
    "chain",
    "darts",
    "darts_rnn",
    "darts_subspace",
    "elastic",
    "enas_macro",
    "enas_micro",
    "enas_rnn",
    "every",
    "fairnas",
    "fbnet",
    "largest",
    "layerwise",
    "limited",
    "macro",
    "memory_bank",
    "metaqnn",
    "mobile",
    "nasbench201",
    "nasnet",
    "ofa_mobilenet_v3",
    "ofa_small",
    "pnas",
    "proxylessnas",
    "proxylessnas_enlarged",
    "recurrent",
    "shuffle",
    "smallest",
    "space",
    "spos",
    "tabular",
    "tunas",
    "widest",
]
