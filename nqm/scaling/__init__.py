"""Scaling: from a lab's own training logs to decisions.

Fit the noisy quadratic to final losses (:func:`fit_runs`) or to loss curves (:func:`fit_curves`), see how sure it is,
and ask: the loss at an unseen setting, the best model size, batch size and steps under limits, the best schedule.
"""

from .chinchilla import ChinchillaFit, chinchilla
from .curve import LossCurve
from .curves import CurvesFit, fit_curves
from .example import example_runs
from .logs import read_curves, read_runs
from .multipower import MultiPowerLaw, multi_power_law
from .runs import RunsFit, fit_runs

__all__ = [
    "ChinchillaFit",
    "CurvesFit",
    "LossCurve",
    "MultiPowerLaw",
    "RunsFit",
    "chinchilla",
    "example_runs",
    "fit_curves",
    "fit_runs",
    "multi_power_law",
    "read_curves",
    "read_runs",
]
