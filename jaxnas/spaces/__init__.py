"""Search spaces: what may be built."""

from jaxnas.spaces.cell import CellSpec
from jaxnas.spaces.darts import darts
from jaxnas.spaces.nasbench201 import nasbench201
from jaxnas.spaces.real import Real
from jaxnas.spaces.space import Mixed, Space, space

SPACES = {"nasbench201": nasbench201, "darts": darts}

__all__ = ["SPACES", "CellSpec", "Mixed", "Real", "Space", "darts", "nasbench201", "space"]
