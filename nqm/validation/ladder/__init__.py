"""The ladder of reality: predictions against training on problems ever farther from a quadratic with Gaussian noise.

a: linear regression, where only the noise can be wrong. b: softmax regression around its optimum, where the curvature
changes too. c: a network linearised at its start, with the features and the noise of a network.
"""

from .linear import rung_a
from .linearised import rung_c
from .moments import least_squares_risk
from .plot import plot_rung
from .rung import Rung
from .softmax import rung_b

__all__ = ["Rung", "least_squares_risk", "plot_rung", "rung_a", "rung_b", "rung_c"]
