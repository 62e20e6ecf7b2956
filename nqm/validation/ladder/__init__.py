"""The ladder of reality: predictions against training on problems ever farther from a quadratic with Gaussian noise.

a: linear regression, where only the noise can be wrong. b: softmax regression around its optimum, where the curvature
changes too. c: a network linearised at its start, with the features and the noise of a network. The last rung, d, is a
real network: :mod:`nqm.validation.papers.zhang2019.network_rung`.
"""

from .linear import linear_regression
from .linearised import linearised_network
from .moments import least_squares_risk
from .plot import plot_rung
from .rung import Rung
from .softmax import softmax_regression

__all__ = ["Rung", "least_squares_risk", "linear_regression", "linearised_network", "plot_rung", "softmax_regression"]
