"""The search of Zhang et al. (2019) for tuned momentum, as a baseline: written from the paper, without nqm.

Appendix B, eq. 21: v(t+1) = T v(t) + n for each of 100 bins, T a 3 x 3 matrix. T is eigen-decomposed once for each
learning rate and momentum of a 100 x 20 grid; 24 bisections find the steps at which the risk meets the target.
"""

from __future__ import annotations

import numpy as np

RATES = np.geomspace(1e-8, 3.9, 100)
MOMENTA = 1.0 - np.geomspace(1e-5, 1.0, 20)
BISECTIONS = 24


def fewest_steps(curvature, multiplicity, batch, target, rates=RATES, momenta=MOMENTA):
    """The least number of steps over the grid, and the (learning rate, momentum) that takes it."""
    best = (np.inf, 0.0, 0.0)
    for momentum in momenta:
        for rate in rates:
            if rate * curvature.max() < 2.0 * (1.0 + momentum):
                steps = _steps(curvature, multiplicity, batch, target, rate, momentum)
                best = min(best, (steps, rate, momentum))
    return best


def _steps(curvature, multiplicity, batch, target, rate, momentum):
    x, m = rate * curvature, momentum
    one = np.ones_like(x)
    matrix = np.array(
        [
            [(1 - x) ** 2, m * m * one, 2 * (1 - x) * m],
            [x * x, m * m * one, -2 * m * x],
            [-(1 - x) * x, m * m * one, (1 - 2 * x) * m],
        ]
    ).transpose(2, 0, 1)
    values, vectors = np.linalg.eig(matrix)
    first = np.zeros((x.size, 3))
    first[:, 0] = 1.0
    noise = (rate * rate * curvature / batch)[:, None] * np.ones(3)
    start = np.linalg.solve(vectors, first[:, :, None].astype(complex))[:, :, 0]
    kick = np.linalg.solve(vectors, noise[:, :, None].astype(complex))[:, :, 0]
    weight = 0.5 * multiplicity * curvature

    def risk(steps):
        power = values**steps
        grown = (1.0 - power) / (1.0 - values + 1e-8)
        return float(weight @ (vectors[:, 0, :] * (power * start + grown * kick)).sum(axis=1).real)

    low, high = 0, 2**BISECTIONS
    if not risk(high) <= target:
        return np.inf
    for _ in range(BISECTIONS):
        middle = (low + high) // 2
        low, high = (low, middle) if risk(middle) <= target else (middle, high)
    return high
