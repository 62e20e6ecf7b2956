"""How the second moments of training evolve on a problem under an optimizer."""

from .base import Dynamics
from .select import dynamics_of

__all__ = ["Dynamics", "dynamics_of"]
