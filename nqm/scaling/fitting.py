"""Robust least squares from many starts, and the Bayesian bootstrap: what all fits to training logs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .._checks import FloatArray

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
    weighted = _weighted(function, share)
    tried = [_minimise(weighted, start, low, high, FIRST_SCALE, 8) for start in np.atleast_2d(starts)]
    best = [found.x for found in sorted(tried, key=lambda found: float(found.cost))[:POLISHED]]
    ends = []
    for theta in best:
        scale = FIRST_SCALE
        for _ in range(4):
            found = _minimise(weighted, theta, low, high, HUBER * scale, 200)
            theta, before, scale = found.x, scale, _scale(weighted(found.x)[0])
            if abs(scale - before) <= 1e-3 * before:
                break
        ends.append(found)
    # costs compare at one scale only
    residuals = [weighted(end.x)[0] for end in ends]
    scale = min(_scale(r) for r in residuals)
    costs = [_huber(r / scale) for r in residuals]
    chosen = int(np.argmin(costs))
    theta = ends[chosen].x
    plain, jacobian = function(theta)
    far = np.abs(residuals[chosen]) / (HUBER * scale)
    agreeing = sum(cost <= costs[chosen] * (1.0 + SAME) + SAME for cost in costs)
    return Solution(theta, plain, jacobian, scale, 1.0 / np.maximum(1.0, far), costs[chosen], int(agreeing), len(costs))


def at(function: Function, theta: FloatArray) -> Solution:
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

    from ..backends.selection import threads

    names = np.unique(groups, return_inverse=True)[1]
    size, parameters = int(names.max()) + 1, solution.theta.size
    random = np.random.default_rng(seed)
    weighted = _weighted(function, 1.0 if weights is None else weights)
    longer = stretch(size, parameters)
    shares = random.exponential(size=(count, size))[:, names]

    def draw(row: FloatArray) -> FloatArray:
        found = _minimise(weighted, solution.theta, low, high, HUBER * solution.scale, 100, row, 1e-6).x
        return np.asarray(solution.theta + longer * (found - solution.theta))

    with ThreadPoolExecutor(threads()) as pool:
        return np.clip(list(pool.map(draw, shares)), low, high)


def restored(data: Mapping[str, Any], parameters: int) -> tuple[FloatArray, FloatArray]:
    """theta and draws of a saved fit, read-only; a ValueError where they are not such."""
    theta, draws = (np.array(data[name], dtype=float) for name in ("theta", "draws"))
    if theta.shape != (parameters,) or draws.shape[1:] != theta.shape or not draws.size:
        raise ValueError(f"theta of shape {theta.shape}, draws of shape {draws.shape}")
    if not (np.isfinite(theta).all() and np.isfinite(draws).all()):
        raise ValueError("numbers that are not finite")
    theta.flags.writeable = draws.flags.writeable = False
    return theta, draws


def quantiles(draws: FloatArray, level: float) -> FloatArray:
    """The two ends, (2, ...), of the middle ``level`` of draws, (m, ...): of m draws the k-th is at k / (m + 1)."""
    return np.asarray(np.quantile(draws, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0, method="weibull"))


def stretch(runs: int, parameters: int) -> float:
    return float(np.sqrt(runs / max(runs - parameters, 1)))


def _weighted(function: Function, weights: Any) -> Function:
    def weighted(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        residuals, jacobian = function(theta)
        return weights * residuals, np.multiply(weights, jacobian.T).T

    return weighted


def _minimise(
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
