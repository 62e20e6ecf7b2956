"""nqm: the noisy quadratic model as an exact, instant simulator of training.

>>> import nqm
>>> problem = nqm.NoisyQuadratic.power_law(10_000)  # curvatures 1, 1/2, ... 1/10000, unit start
>>> round(problem.initial_risk, 3)  # the risk is the expected loss above the least possible
4.894

What is the risk after so many steps; after how many steps is a target reached? Every number may be an array.

>>> nqm.risk(problem, nqm.SGD(0.1, momentum=0.9), batch_size=256, steps=[100, 1000, 10_000]).round(3)
array([1.707, 0.621, 0.034])
>>> nqm.steps_to_target(problem, nqm.SGD(0.5, momentum=0.9), batch_size=4096, target=0.01)
2942

Which hyperparameters reach it first? What is to be found is FREE.

>>> best = nqm.tune(problem, nqm.SGD(lr=nqm.FREE, momentum=nqm.FREE), batch_size=4096, target=0.01)
>>> best.steps, round(best.optimizer.lr, 3), round(best.optimizer.momentum, 3)
(1265, 0.105, 0.993)

Problems: :class:`NoisyQuadratic`. Optimizers: :class:`SGD`, :class:`Preconditioned`, :class:`EMA`,
:class:`LinearOptimizer`; one of your own is a subclass of :class:`Optimizer`. :func:`sweep` compares many at many batch
sizes, as a table and a picture; :func:`optimize_schedule` finds the best learning rate of each step; :func:`simulate`
draws single runs.
:class:`Unresolved` is raised where no rule settles a number: a huge spectrum under very long oscillation.
:mod:`nqm.schedules`, :mod:`nqm.noise`, :mod:`nqm.bounds` and :mod:`nqm.evidence` have what their names say.
:mod:`nqm.scaling` fits the model to training logs; :mod:`nqm.validation` (needs torch) measures networks and trains
them. :func:`use_backend` chooses threads, or a GPU. In the shell: ``nqm --help``.

Importing nqm loads NumPy only; the first number asked for loads (and the first time compiles) the kernels.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import bounds, evidence, noise, scaling, schedules
from ._risk import log_steps, max_stable_lr, risk, steady_state_risk
from ._simulate import Simulation, simulate
from ._status import Unresolved
from ._sweep import Sweep, SweepInterrupted, sweep
from .backends import get_backend, set_backend, use_backend
from .optimizers import EMA, FREE, SGD, LinearOptimizer, Optimizer, Preconditioned
from .problems.quadratic import NoisyQuadratic
from .schedules import Schedule
from .search import OptimizedSchedule, Tuned, optimize_schedule, steps_to_target, tune

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "FREE",
    "SGD",
    "LinearOptimizer",
    "NoisyQuadratic",
    "OptimizedSchedule",
    "Optimizer",
    "Preconditioned",
    "Schedule",
    "Simulation",
    "Sweep",
    "SweepInterrupted",
    "Tuned",
    "Unresolved",
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


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


if not TYPE_CHECKING:  # for type checkers a misspelt name is an error

    def __getattr__(name: str) -> object:
        """nqm.validation, which loads torch, where it is asked for."""
        if name == "validation":
            try:
                return import_module("nqm.validation")
            except ImportError as error:  # what asks whether it is there gets its answer
                raise AttributeError(str(error)) from error
        raise AttributeError(f"module 'nqm' has no attribute {name!r}")
