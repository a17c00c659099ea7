"""Policies: distributions over architectures, and relaxations of them; and the updates that move them by rewards."""

from jaxnas.policies.categorical import categorical
from jaxnas.policies.concrete import concrete, straight_through
from jaxnas.policies.controller import controller
from jaxnas.policies.dirichlet import dirichlet
from jaxnas.policies.edges import edge_normalised, edge_simplex, exponentiated_edges
from jaxnas.policies.path_dropout import path_dropout
from jaxnas.policies.policy import Policy, close, still_open
from jaxnas.policies.simplex import exponentiated, simplex
from jaxnas.policies.softmax import softmax
from jaxnas.policies.uniform import only, sandwich, strictly_fair, uniform
from jaxnas.policies.updates import Update, ppo, reinforce

__all__ = [
    "Policy",
    "Update",
    "categorical",
    "close",
    "concrete",
    "controller",
    "dirichlet",
    "edge_normalised",
    "edge_simplex",
    "exponentiated",
    "exponentiated_edges",
    "only",
    "path_dropout",
    "ppo",
    "reinforce",
    "sandwich",
    "simplex",
    "softmax",
    "still_open",
    "straight_through",
    "strictly_fair",
    "uniform",
]
