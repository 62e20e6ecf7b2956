"""The schedule optimisation of Zhang et al. (2019), as a baseline: written from the paper, without nqm.

Section 3.7.2, footnote 3: eq. 3 piece by piece for each of 100 bins, in NumPy; BFGS (SciPy) over log learning rates,
the gradient by hand, learning rates at most 2 / h_1; binary search for the number of steps of each piece.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

DOUBLINGS = 16


def fewest_steps(curvature, multiplicity, batch, target, pieces):
    """The least number of steps, a multiple of ``pieces``."""
    low, high = 0, 2**DOUBLINGS
    start = np.zeros(pieces)
    for _ in range(DOUBLINGS):
        middle = (low + high) // 2
        found = minimize(
            _log_risk, start, (curvature, multiplicity, batch, middle), method="BFGS", jac=True, options={"gtol": 1e-5}
        )
        low, high = (low, middle) if found.fun <= np.log(target) else (middle, high)
    return high * pieces


def _log_risk(point, curvature, multiplicity, batch, steps):
    """log risk after pieces of ``steps`` steps at learning rates 2 / h_1 / (1 + exp(-point)), and its gradient."""
    share = 1.0 / (1.0 + np.exp(-np.clip(point, -30.0, 30.0)))
    rates = 2.0 / curvature.max() * share
    x = rates[:, None] * curvature
    left = (1.0 - x) ** (2 * steps)
    forgotten = np.maximum(x * (2.0 - x), 1e-300)
    noise = rates[:, None] ** 2 * curvature / batch
    moments = np.ones((len(rates) + 1, curvature.size))
    for j in range(len(rates)):
        moments[j + 1] = left[j] * moments[j] + noise[j] * (1.0 - left[j]) / forgotten[j]
    weight = 0.5 * multiplicity * curvature
    risk = weight @ moments[-1]
    gradient, behind = np.empty(len(rates)), weight.copy()
    for j in range(len(rates) - 1, -1, -1):
        slope = -2.0 * steps * (1.0 - x[j]) ** (2 * steps - 1) * curvature
        grown = (1.0 - left[j]) / forgotten[j]
        d_grown = (-slope - grown * 2.0 * (1.0 - x[j]) * curvature) / forgotten[j]
        d_noise = 2.0 * noise[j] / rates[j]
        gradient[j] = behind @ (slope * moments[j] + d_noise * grown + noise[j] * d_grown)
        behind = behind * left[j]
    return np.log(risk), gradient * rates * (1.0 - share) / risk
