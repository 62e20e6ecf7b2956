"""Robust least squares from many starts: what fits of the noisy quadratic to training logs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..._checks import FloatArray

__all__ = ["HUBER", "Function", "Solution", "deviation", "minimise", "solution_at", "solve", "weighted"]

Function = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""theta, (p,), to residuals of the log loss, (n,), and their Jacobian, (n, p)."""

HUBER: Final = 1.345  # standard deviations up to which a residual counts squared: 95% efficient on Gaussian ones
FIRST_SCALE: Final = 0.03  # of a residual, before any is known: training runs differ by some percent
POLISHED: Final = 3  # starts that are followed to the end
SAME: Final = 1e-6  # relative difference in cost of what counts as the same optimum


@dataclass(frozen=True, eq=False)
class Solution:
    """Where :func:`solve` ended.

    theta (p,); residuals (n,) and jacobian (n, p) there; scale: robust standard deviation of a residual; weights (n,):
    Huber's, 1 for residuals within 1.345 scales, less for outliers; cost: Huber's, in units of scale^2; agreeing, of
    followed: how many of the starts that were followed to the end came to this cost.
    """

    theta: FloatArray
    residuals: FloatArray
    jacobian: FloatArray
    scale: float
    weights: FloatArray
    cost: float
    agreeing: int
    followed: int


def solve(
    function: Function, starts: FloatArray, low: FloatArray, high: FloatArray, weights: FloatArray | None = None
) -> Solution:
    """Least Huber cost of weights * residuals over the box [low, high], from the rows of ``starts``.

    A few steps from each start at a first guess of the scale; the best are followed to the end, and again with the
    scale that their residuals have (1.4826 times the median absolute one), until it stays.
    """
    share = 1.0 if weights is None else weights
    scaled = weighted(function, share)
    tried = [minimise(scaled, start, low, high, FIRST_SCALE, 8) for start in np.atleast_2d(starts)]
    best = [found.x for found in sorted(tried, key=lambda found: float(found.cost))[:POLISHED]]
    ends = []
    for theta in best:
        scale = FIRST_SCALE
        for _ in range(4):
            found = minimise(scaled, theta, low, high, HUBER * scale, 200)
            theta, before, scale = found.x, scale, _scale(scaled(found.x)[0])
            if abs(scale - before) <= 1e-3 * before:
                break
        ends.append(found)
    # costs compare at one scale only
    residuals = [scaled(end.x)[0] for end in ends]
    scale = min(_scale(r) for r in residuals)
    costs = [_huber(r / scale) for r in residuals]
    chosen = int(np.argmin(costs))
    theta = ends[chosen].x
    plain, jacobian = function(theta)
    far = np.abs(residuals[chosen]) / (HUBER * scale)
    agreeing = sum(cost <= costs[chosen] * (1.0 + SAME) + SAME for cost in costs)
    return Solution(theta, plain, jacobian, scale, 1.0 / np.maximum(1.0, far), costs[chosen], int(agreeing), len(costs))


def solution_at(function: Function, theta: FloatArray) -> Solution:
    """The solution that is known to lie at ``theta``."""
    residuals, jacobian = function(theta)
    scale = _scale(residuals)
    far = np.abs(residuals) / (HUBER * scale)
    return Solution(theta, residuals, jacobian, scale, 1.0 / np.maximum(1.0, far), _huber(residuals / scale), 1, 1)


def deviation(solution: Solution) -> FloatArray:
    """Standard deviations of theta, (p,), by the curvature of the cost: scale^2 (J^T W J)^-1; inf where it is flat."""
    scaled = np.sqrt(solution.weights)[:, None] * solution.jacobian
    _, singular, rows = np.linalg.svd(scaled, full_matrices=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(np.abs(rows) > 1e-9, (rows / singular[:, None]) ** 2, 0.0)
    return np.asarray(solution.scale * np.sqrt(terms.sum(axis=0)))


def weighted(function: Function, weights: Any) -> Function:
    """Residuals and Jacobian times weights, one per residual."""

    def scaled(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        residuals, jacobian = function(theta)
        return weights * residuals, np.multiply(weights, jacobian.T).T

    return scaled


def minimise(
    function: Function,
    start: FloatArray,
    low: FloatArray,
    high: FloatArray,
    threshold: float,
    evaluations: int,
    shares: Any = 1.0,
    tolerance: float = 1e-10,
) -> Any:
    """Least sum of shares times Huber's function of residual / threshold: scipy's trust-region reflective method.

    A draw of the bootstrap needs a tolerance of 1e-6: at 1e-4 its distance from the solution is a third short.
    """
    from scipy.optimize import least_squares

    last: list[Any] = [None, None, None]

    def at(theta: FloatArray, which: int) -> Any:
        """Residuals and Jacobian come from one call of the function."""
        if last[0] is None or not np.array_equal(last[0], theta):
            residuals, jacobian = function(theta)
            last[:] = theta.copy(), residuals / threshold, jacobian / threshold  # one size for scipy's tolerances
        return last[1 + which].copy()  # scipy's robust losses work in place

    def huber(square: FloatArray) -> FloatArray:
        """Of (residual / threshold)^2: value, first and second derivative."""
        far = np.sqrt(np.maximum(square, 1.0))
        inside = square <= 1.0
        values = [np.where(inside, square, 2.0 * far - 1.0), 1.0 / far, np.where(inside, 0.0, -0.5 / far**3)]
        return shares * np.stack(values)

    return least_squares(
        lambda theta: at(theta, 0), np.clip(start, low, high), lambda theta: at(theta, 1), bounds=(low, high),
        x_scale=1.0, loss=huber, max_nfev=evaluations, xtol=tolerance, ftol=tolerance,
        gtol=tolerance,
    )  # fmt: skip


def _scale(residuals: FloatArray) -> float:
    """Standard deviation of the bulk: for Gaussian residuals the median absolute one is 0.6745 of it."""
    return max(1.4826 * float(np.median(np.abs(residuals))), 1e-12)


def _huber(scaled: FloatArray) -> float:
    size = np.abs(scaled)
    return float(np.where(size <= HUBER, 0.5 * size**2, HUBER * (size - 0.5 * HUBER)).sum())
