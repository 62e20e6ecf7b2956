"""The backend "numpy": the mathematics in 32 digits on arrays, which the compiled code is checked against.

It is readable, some hundred times slower, and needs NumPy only: see :mod:`nqm.backends.reference`.
"""

from .reference.first_passage import first_passage, first_passage_along
from .reference.gaussian_features import gaussian_features_steps
from .reference.gradient import risk_and_gradient
from .reference.newton import newton_steps
from .reference.risk import dyadic_risk, risk, risk_along
from .reference.scaling import effective_lrs, mode_sums

__all__ = [
    "dyadic_risk", "effective_lrs", "first_passage", "first_passage_along", "gaussian_features_steps", "mode_sums",
    "newton_steps", "risk", "risk_along", "risk_and_gradient",
]  # fmt: skip
