"""Optimizers as small linear filters: immutable descriptions, no state, no training loop.

On a coordinate with curvature h, preconditioner h^-p and x = lr h^(1-p), every optimizer here is

    z' = A z - lr h^-p gain (h query . z + eps),   theta = readout . z,   z = start * theta_0 at step 0,

with a state z of one to three numbers. ``transition`` A, ``gain``, ``query`` (where the gradient is taken),
``readout`` (what the risk is the risk of) and ``start`` are what :class:`LinearOptimizer` asks for; one step is
M(x) = A - x gain query^T.
"""

from .averages import EMA
from .base import FREE, Optimizer
from .custom import LinearOptimizer
from .one_step import step, transition_matrix
from .preconditioned import Preconditioned
from .sgd import SGD

__all__ = ["EMA", "FREE", "SGD", "LinearOptimizer", "Optimizer", "Preconditioned", "step", "transition_matrix"]
