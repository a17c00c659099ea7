"""Models of the score: surrogates, the kernels of a Gaussian process, and acquisitions."""

from jaxnas.surrogates._ensemble import BlockLSTM, BlockPerceptron, EnsembleState, Perceptron, block_tokens, ensemble
from jaxnas.surrogates._gaussian_process import GaussianProcessState, gaussian_process
from jaxnas.surrogates._ridge import ridge
from jaxnas.surrogates.acquisition import Acquisition, expected_improvement, independent_thompson, thompson, upper_confidence_bound
from jaxnas.surrogates.kernels import Kernel, cell_graph, lengths, matern52, overlap, path_encoding, product, rbf, weisfeiler_lehman
from jaxnas.surrogates.surrogate import Posterior, Surrogate
from jaxnas.surrogates.trees import boosted_trees, forest
from jaxnas.surrogates.validate import cross_validated, fitted, predicted

__all__ = [
    "Acquisition",
    "BlockLSTM",
    "BlockPerceptron",
    "EnsembleState",
    "GaussianProcessState",
    "Kernel",
    "Perceptron",
    "Posterior",
    "Surrogate",
    "block_tokens",
    "boosted_trees",
    "cell_graph",
    "cross_validated",
    "ensemble",
    "expected_improvement",
    "fitted",
    "forest",
    "gaussian_process",
    "independent_thompson",
    "lengths",
    "matern52",
    "overlap",
    "path_encoding",
    "predicted",
    "product",
    "rbf",
    "ridge",
    "thompson",
    "upper_confidence_bound",
    "weisfeiler_lehman",
]
