"""Distributions over architectures and relaxations of them."""

from jaxnas.policies.policy import Policy
from jaxnas.policies.softmax import softmax
from jaxnas.policies.uniform import uniform

__all__ = ["Policy", "softmax", "uniform"]
