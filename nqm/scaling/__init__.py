"""Scaling: from a lab's own training logs to decisions.

Fit the noisy quadratic to final losses (:func:`fit_runs`) or to loss curves (:func:`fit_curves`), see how sure it is,
and ask: the loss at an unseen setting, the best model size, batch size and steps under limits, the best schedule.

``logs`` reads, ``models`` holds the mathematics of one run, ``decisions`` asks any fit, ``fits`` offers them all.
"""

from .example import example_runs
from .fits.chinchilla import ChinchillaFit, chinchilla
from .fits.fit_curves import CurvesFit, fit_curves
from .fits.fit_runs import RunsFit, fit_runs
from .fits.multi_power_law import MultiPowerLaw, multi_power_law
from .logs import LossCurve, read_curves, read_runs

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
