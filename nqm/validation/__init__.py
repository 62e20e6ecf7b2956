"""Predictions against real networks, with torch: measure a network, predict its training, train it, compare.

``pip install 'nqm[validation]'``. Nothing else in nqm loads torch. In the order of use:

- :func:`measure` a module: curvature, gradient noise and start as a :class:`MeasuredQuadratic`, a NoisyQuadratic for
  every function of nqm; :func:`reference_point` finds where; :func:`load` reads a saved one.
- :func:`predict_steps`: steps to target of each optimizer at each batch size.
- :func:`measure_steps`: the same for real, as a :class:`Measured`; :func:`judge` the claims of zhang2019 by it.
- The ladder: :func:`linear_regression`, :func:`softmax_regression`, :func:`linearised_network`, :func:`network` (also
  called :func:`rung_a` to :func:`rung_d`). :func:`validate`: all of it, with pictures and a report (``nqm validate`` in
  the shell).
- :func:`train`: one's own experiments. A step descends along a gradient rule (:class:`Plain`, :class:`Penalised`,
  :class:`Injected` noise, :class:`TwoBatches`, :class:`Mixup`, :class:`WeightDecay`, or a :class:`GradientRule` of
  one's own); recorded are quantities (:data:`QUANTITIES`). :func:`run_jobs`: many of them, resumed where they ended.

Its packages, each built on those before: :mod:`.training`, :mod:`.measurement`, :mod:`.search`, :mod:`.ladder`,
:mod:`.experiments`, :mod:`.papers`.
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(f"nqm.validation needs torch: pip install 'nqm[validation]' ({error})") from error

from .experiments.jobs import read_jobs, run_jobs
from .experiments.train import train
from .ladder import Rung, linear_regression, linearised_network, plot_rung, softmax_regression
from .measurement.measure import measure
from .measurement.prediction import Predicted, predict_steps
from .measurement.quadratic import MeasuredQuadratic, load
from .measurement.quantities import QUANTITIES, Quantity
from .papers.zhang2019.claims import judge
from .papers.zhang2019.network_result import NetworkResult
from .papers.zhang2019.network_rung import network, network_task
from .report import validate
from .search.measure_steps import measure_steps
from .search.summary import Measured
from .training.data import Data, load_data, with_label_noise
from .training.ensemble import follow
from .training.gradients.injected import Injected
from .training.gradients.mixup import Mixup
from .training.gradients.penalties import Penalised
from .training.gradients.rule import GradientRule, Plain, WeightDecay
from .training.gradients.two_batches import TwoBatches
from .training.networks import NETS, cnn, lenet, mlp, resnet8
from .training.reference import reference_point
from .training.task import Task
from .training.torch_optimizers import OPTIMIZERS
from .training.trials import Outcome, Trial
from .training.until_first import train_until_first

race = train_until_first
rung_a, rung_b, rung_c, rung_d = linear_regression, softmax_regression, linearised_network, network

__all__ = [
    "NETS",
    "OPTIMIZERS",
    "QUANTITIES",
    "Data",
    "GradientRule",
    "Injected",
    "Measured",
    "MeasuredQuadratic",
    "Mixup",
    "NetworkResult",
    "Outcome",
    "Penalised",
    "Plain",
    "Predicted",
    "Quantity",
    "Rung",
    "Task",
    "Trial",
    "TwoBatches",
    "WeightDecay",
    "cnn",
    "follow",
    "judge",
    "lenet",
    "linear_regression",
    "linearised_network",
    "load",
    "load_data",
    "measure",
    "measure_steps",
    "mlp",
    "network",
    "network_task",
    "plot_rung",
    "predict_steps",
    "race",
    "read_jobs",
    "reference_point",
    "resnet8",
    "run_jobs",
    "rung_a",
    "rung_b",
    "rung_c",
    "rung_d",
    "softmax_regression",
    "train",
    "train_until_first",
    "validate",
    "with_label_noise",
]
