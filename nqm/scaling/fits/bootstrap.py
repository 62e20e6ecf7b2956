"""The Bayesian bootstrap: how far a fit might have come out otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..._checks import FloatArray
from .robust_least_squares import HUBER, Function, Solution, minimise, weighted

__all__ = ["bootstrap", "stretch"]


def bootstrap(
    function: Function,
    solution: Solution,
    low: FloatArray,
    high: FloatArray,
    groups: NDArray[np.int64],
    count: int,
    seed: int = 0,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Draws of theta, (count, p): the Bayesian bootstrap (Rubin 1981) over groups of residuals.

    Each group gets a weight drawn from Exp(1), and theta is fitted again from the solution: the least weighted Huber
    cost at the solution's scale. The draws' distances from the solution are stretched by sqrt(G / (G - p)) for the p
    parameters that the G groups have already been bent to, and kept in the box. Spread over the backend's threads; the
    draws do not depend on how many.
    """
    from concurrent.futures import ThreadPoolExecutor

    from ...backends.selection import threads

    names = np.unique(groups, return_inverse=True)[1]
    size, parameters = int(names.max()) + 1, solution.theta.size
    random = np.random.default_rng(seed)
    scaled = weighted(function, 1.0 if weights is None else weights)
    longer = stretch(size, parameters)
    shares = random.exponential(size=(count, size))[:, names]

    def draw(row: FloatArray) -> FloatArray:
        found = minimise(scaled, solution.theta, low, high, HUBER * solution.scale, 100, row, 1e-6).x
        return np.asarray(solution.theta + longer * (found - solution.theta))

    with ThreadPoolExecutor(threads()) as pool:
        return np.clip(list(pool.map(draw, shares)), low, high)


def stretch(runs: int, parameters: int) -> float:
    """sqrt(n / (n - p)): residuals of a fit are short by this, for its p parameters have been bent to the n runs."""
    return float(np.sqrt(runs / max(runs - parameters, 1)))
