"""nqm: the noisy quadratic model as an exact, instant simulator of training."""

from .optimizers import EMA, FREE, SGD, LinearOptimizer, Preconditioned
from .problem import NoisyQuadratic
from .risk import max_stable_lr, risk, steady_state_risk
from .search import Tuned, steps_to_target, tune
