"""Predictions against real networks, with torch: measure a network, predict its training, train it, compare.

``pip install 'nqm[validation]'``. Nothing else in nqm loads torch. In the order of use:

- :func:`measure` a module: curvature, gradient noise and start as a :class:`MeasuredQuadratic`, a NoisyQuadratic for
  every function of nqm; :func:`reference_point` finds where; :func:`load` reads a saved one.
- :func:`predict_steps`: steps to target of each optimizer at each batch size.
- :func:`measure_steps`: the same for real, as a :class:`Measured`; :func:`judge` the claims of zhang2019 by it.
- :func:`rung_a` to :func:`rung_d`: the ladder from linear regression to networks. :func:`validate`: all of it, with
  pictures and a report (``nqm validate`` in the shell).
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(f"nqm.validation needs torch: pip install 'nqm[validation]' ({error})") from error

from .claims import judge
from .data import Data, load_data
from .ladder import Rung, plot_rung, rung_a, rung_b, rung_c
from .measured import MeasuredQuadratic, load
from .measuring import measure
from .nets import NETS, cnn, mlp, resnet8
from .networks import NetworkResult, network_task, rung_d
from .optimizers import OPTIMIZERS
from .prediction import Predicted, predict_steps, reference_point
from .report import validate
from .search import measure_steps
from .steps import Measured
from .training import Outcome, Task, Trial, follow, race

__all__ = [
    "NETS",
    "OPTIMIZERS",
    "Data",
    "Measured",
    "MeasuredQuadratic",
    "NetworkResult",
    "Outcome",
    "Predicted",
    "Rung",
    "Task",
    "Trial",
    "cnn",
    "follow",
    "judge",
    "load",
    "load_data",
    "measure",
    "measure_steps",
    "mlp",
    "network_task",
    "plot_rung",
    "predict_steps",
    "race",
    "reference_point",
    "resnet8",
    "rung_a",
    "rung_b",
    "rung_c",
    "rung_d",
    "validate",
]
