"""Policies: distributions over architectures, and relaxations of them; and the updates that move them by rewards."""

from jaxnas.policies._block_controller import block_controller
from jaxnas.policies._categorical import categorical
from jaxnas.policies._concrete import concrete, straight_through
from jaxnas.policies._controller import controller
from jaxnas.policies._dirichlet import dirichlet
from jaxnas.policies._path_dropout import path_dropout
from jaxnas.policies._simplex import exponentiated, simplex
from jaxnas.policies._softmax import softmax
from jaxnas.policies._uniform import restricted, sandwich, strictly_fair, uniform
from jaxnas.policies.edges import edge_normalised, edge_simplex, exponentiated_edges, input_pairs
from jaxnas.policies.policy import Policy, close, still_open
from jaxnas.policies.updates import Update, ppo, reinforce

__all__ = [
    "Policy",
    "Update",
    "block_controller",
    "categorical",
    "close",
    "concrete",
    "controller",
    "dirichlet",
    "edge_normalised",
    "edge_simplex",
    "exponentiated",
    "exponentiated_edges",
    "input_pairs",
    "path_dropout",
    "ppo",
    "reinforce",
    "restricted",
    "sandwich",
    "simplex",
    "softmax",
    "still_open",
    "straight_through",
    "strictly_fair",
    "uniform",
]
