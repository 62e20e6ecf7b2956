"""Optimizers as small linear step maps: immutable descriptions, no state, no training loop.

On a coordinate with curvature h, preconditioner h^-p and x = lr h^(1-p), every optimizer here is

    z' = A z - lr h^-p gain (h query . z + eps),   theta = readout . z,   z = start * theta_0 at step 0,

with a state z of one to eight numbers. ``transition`` A, ``gain``, ``query`` (where the gradient is taken),
``readout`` (what the risk is the risk of) and ``start`` are what :class:`LinearOptimizer` asks for, and what a
subclass of :class:`Optimizer` puts into its :class:`StepMap`; one step is M(x) = A - x gain query^T.
"""

from .._double_double import Pair, one_step
from .averages import EMA
from .base import FREE, Optimizer, Wrapper
from .custom import LinearOptimizer
from .hyperparameter import DECAY, LR, MOMENTUM, POWER, SCALES, STANDARD, Hyperparameter, Scan, free_names
from .preconditioned import Preconditioned
from .sgd import SGD
from .step_map import StepMap, step, transition_matrix

__all__ = [
    "DECAY",
    "EMA",
    "FREE",
    "LR",
    "MOMENTUM",
    "POWER",
    "SCALES",
    "SGD",
    "STANDARD",
    "Hyperparameter",
    "LinearOptimizer",
    "Optimizer",
    "Pair",
    "Preconditioned",
    "Scan",
    "StepMap",
    "Wrapper",
    "free_names",
    "one_step",
    "step",
    "transition_matrix",
]
