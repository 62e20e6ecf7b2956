"""Questions about steps: when is the target reached, and with which hyperparameters or schedule first?"""

from .first_passage import steps_to_target
from .schedule_search import OptimizedSchedule, optimize_schedule
from .tuning import Tuned, tune

__all__ = ["OptimizedSchedule", "Tuned", "optimize_schedule", "steps_to_target", "tune"]
