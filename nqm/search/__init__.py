"""Questions about steps: when is the target reached, and with which hyperparameters first?"""

from .crossing import steps_to_target
from .tuning import Tuned, tune

__all__ = ["Tuned", "steps_to_target", "tune"]
