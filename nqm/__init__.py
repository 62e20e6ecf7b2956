"""nqm: the noisy quadratic model as an exact, instant simulator of training.

Importing it loads NumPy only; the first number asked for loads (and the first time compiles) the kernels.
"""

from . import bounds, evidence, noise, scaling, schedules
from ._engines import get_backend, set_backend, use_backend
from .optimizers import EMA, FREE, SGD, LinearOptimizer, Preconditioned
from .problem import NoisyQuadratic
from .risk import log_steps, max_stable_lr, risk, steady_state_risk
from .schedules import Schedule
from .search import OptimizedSchedule, Tuned, optimize_schedule, steps_to_target, tune
from .simulation import Simulation, simulate
from .sweep import Sweep, sweep

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "FREE",
    "SGD",
    "LinearOptimizer",
    "NoisyQuadratic",
    "OptimizedSchedule",
    "Preconditioned",
    "Schedule",
    "Simulation",
    "Sweep",
    "Tuned",
    "bounds",
    "evidence",
    "get_backend",
    "log_steps",
    "max_stable_lr",
    "noise",
    "optimize_schedule",
    "risk",
    "scaling",
    "schedules",
    "set_backend",
    "simulate",
    "steady_state_risk",
    "steps_to_target",
    "sweep",
    "tune",
    "use_backend",
]
