"""Predictions against real networks, with torch: measure a network, predict its training, train it, compare.

``pip install 'nqm[validation]'``. Nothing else in nqm loads torch.
"""

from .data import Data, load_data
from .measured import MeasuredQuadratic, load
from .measuring import measure
from .nets import NETS, cnn, mlp, resnet8
from .optimizers import OPTIMIZERS
from .search import measure_steps
from .steps import Measured
from .training import Task

__all__ = [
    "NETS",
    "OPTIMIZERS",
    "Data",
    "Measured",
    "MeasuredQuadratic",
    "Task",
    "cnn",
    "load",
    "load_data",
    "measure",
    "measure_steps",
    "mlp",
    "resnet8",
]
