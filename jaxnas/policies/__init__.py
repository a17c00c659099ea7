"""Policies: distributions over architectures, and relaxations of them; and the updates that move them by rewards."""

from jaxnas.policies.categorical import categorical
from jaxnas.policies.controller import controller
from jaxnas.policies.policy import Policy
from jaxnas.policies.softmax import softmax
from jaxnas.policies.uniform import uniform
from jaxnas.policies.updates import Update, ppo, reinforce

__all__ = ["Policy", "Update", "categorical", "controller", "ppo", "reinforce", "softmax", "uniform"]
