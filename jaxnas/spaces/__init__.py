"""Search spaces: what may be built."""

from jaxnas.spaces.blocks import BlockSpec, amoebanet, nasnet, pnas
from jaxnas.spaces.cell import CellSpec
from jaxnas.spaces.darts import darts
from jaxnas.spaces.darts_rnn import darts_rnn
from jaxnas.spaces.layerwise import LayerSpec, layerwise
from jaxnas.spaces.mobile import MobileLayer, MobileSpec, fbnet, mobile, proxylessnas
from jaxnas.spaces.nasbench201 import nasbench201
from jaxnas.spaces.real import Real
from jaxnas.spaces.recurrent import TreeSpec, recurrent
from jaxnas.spaces.space import Mixed, Space, space

SPACES = {"nasbench201": nasbench201, "darts": darts, "nasnet": nasnet, "pnas": pnas, "amoebanet": amoebanet}

__all__ = [
    "SPACES",
    "BlockSpec",
    "CellSpec",
    "LayerSpec",
    "Mixed",
    "MobileLayer",
    "MobileSpec",
    "Real",
    "Space",
    "TreeSpec",
    "amoebanet",
    "darts",
    "darts_rnn",
    "fbnet",
    "layerwise",
    "mobile",
    "nasbench201",
    "nasnet",
    "pnas",
    "proxylessnas",
    "recurrent",
    "space",
]
