"""Training logs: final losses of runs and loss curves, read from CSV files."""

from .curves_log import CurvesLog, read_curves
from .loss_curve import LossCurve
from .runs_log import RunsLog, read_runs

__all__ = ["CurvesLog", "LossCurve", "RunsLog", "read_curves", "read_runs"]
